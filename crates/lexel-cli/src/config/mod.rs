//! What the command line means: parsed arguments in, checked configuration out.

mod input;

pub use input::{ending, is_pipe, pairs, texts};

use crate::args::{DeviceArgs, EmbeddingArgs, ModelArgs, PromptArgs, ScoreArgs, SourceArgs};
use crate::failure::Failure;
use crate::job::Identity;
use crate::messages;
use crate::model::Model;
use lexel::checkpoint::{Checkpoint, ModelType, SourceOptions};
use lexel::executor::ExecutorOptions;
use lexel::{Activation, Device, Dtype, EncodeOptions, Matrix, OnProgress, PredictOptions, SentenceTransformer};
use std::path::{Path, PathBuf};

/// A model, where it comes from and what it runs on.
pub struct ModelConfig {
    id: String,
    source: SourceOptions,
    max_seq_length: Option<usize>,
    adapter: Option<String>,
    device: Device,
    options: ExecutorOptions,
}

/// What the texts are: decides the prompt where none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Just texts.
    Any,
    /// Search queries.
    Query,
    /// Documents to be found.
    Document,
}

impl Task {
    /// What the arguments say.
    pub fn of(args: &PromptArgs) -> Task {
        match (args.query, args.document) {
            (true, _) => Task::Query,
            (_, true) => Task::Document,
            _ => Task::Any,
        }
    }
}

/// How texts are encoded.
#[derive(Clone)]
pub struct EncodeConfig {
    /// What the texts are.
    pub task: Task,
    /// The library's options.
    pub options: EncodeOptions,
}

impl ModelConfig {
    /// The configuration behind the arguments.
    pub fn resolve(id: String, args: &ModelArgs) -> Result<ModelConfig, Failure> {
        let (device, options) = device(&args.device)?;
        let (max_seq_length, adapter) = (args.max_seq_length, args.adapter.clone());
        Ok(ModelConfig { id, source: source(&args.source), max_seq_length, adapter, device, options })
    }

    /// What of it must be the same for a job to be continued, but for the model's own files.
    pub fn identity(&self) -> Identity {
        let identity = Identity::default().with("dtype", self.dtype().name());
        match &self.adapter {
            Some(adapter) => identity.with("adapter", adapter.as_str()),
            None => identity,
        }
    }

    /// The dtype that is computed in.
    pub fn dtype(&self) -> Dtype {
        self.options.dtype
    }

    /// What the files say that the model is. Short ids are those of cross-encoders here.
    pub fn model_type(&self) -> Result<ModelType, Failure> {
        if !self.id.contains('/') && !Path::new(&self.id).is_dir() {
            return Ok(ModelType::CrossEncoder);
        }
        let bar = messages::DownloadBar::default();
        let source = SourceOptions { progress: Some(bar.shared_callback()), ..self.source.clone() };
        let found = Checkpoint::type_of(&self.id, &source);
        bar.finish();
        Ok(found?)
    }

    /// Loads the model, with a bar while files are downloaded, and says what it runs on.
    pub fn load<M: Model>(&self) -> Result<M, Failure> {
        let bar = messages::DownloadBar::default();
        let mut loader = M::builder(&self.id)
            .device(self.device.clone())
            .dtype(self.options.dtype)
            .interactive(self.options.interactive)
            .download_progress(bar.callback());
        if let Some(revision) = &self.source.revision {
            loader = loader.revision(revision);
        }
        if let Some(folder) = &self.source.cache_dir {
            loader = loader.cache_dir(folder);
        }
        if self.source.offline {
            loader = loader.offline(true);
        }
        if let Some(tokens) = self.max_seq_length {
            loader = loader.max_seq_length(tokens);
        }
        if let Some(adapter) = &self.adapter {
            loader = loader.adapter(adapter);
        }
        let loaded = M::load(loader);
        bar.finish();
        let model = loaded?;
        messages::note(&format!("device: {}", model.device()));
        Ok(model)
    }
}

/// Where a model comes from.
pub fn source(args: &SourceArgs) -> SourceOptions {
    SourceOptions {
        revision: args.revision.clone(),
        cache_dir: args.cache_dir.clone(),
        offline: args.offline,
        ..SourceOptions::default()
    }
}

/// The device and how it computes.
pub fn device(args: &DeviceArgs) -> Result<(Device, ExecutorOptions), Failure> {
    let options = ExecutorOptions { dtype: args.dtype.parse()?, interactive: args.interactive, sample: None };
    Ok((args.device.parse()?, options))
}

impl EncodeConfig {
    /// The configuration behind the arguments.
    pub fn resolve(prompt: &PromptArgs, args: &EmbeddingArgs, batch_tokens: Option<usize>) -> EncodeConfig {
        let options = EncodeOptions {
            prompt: prompt.prompt.clone(),
            prompt_name: prompt.prompt_name.clone(),
            normalize: args.normalize,
            truncate_dim: args.truncate_dim,
            batch_tokens,
            ..EncodeOptions::default()
        };
        EncodeConfig { task: Task::of(prompt), options }
    }

    /// Tells of an option that changes nothing for this model.
    pub fn warn(&self, model: &SentenceTransformer) {
        let full = full_dim(model);
        if let Some(dim) = self.options.truncate_dim.filter(|dim| *dim > full) {
            log::warn!("--truncate-dim {dim} truncates nothing: the model's embeddings have {full} dimensions");
        }
    }

    /// Encodes texts; `progress` is called after each batch.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        model: &SentenceTransformer,
        texts: &[S],
        progress: OnProgress,
    ) -> lexel::Result<Matrix> {
        let options = EncodeOptions { progress: Some(progress), ..self.options.clone() };
        match self.task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    }
}

/// The width of the model's embeddings before any truncation.
pub fn full_dim(model: &SentenceTransformer) -> usize {
    model.program().shape(model.program().sentences).cols
}

/// An output that replaces what it is made of is refused. Without `inputs`, it is made of standard input.
pub fn refuse_overwriting(output: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    // Pipes and devices can be read and written at once.
    let file = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
    let Some(replaced) = (!is_pipe(output)).then(|| file(output)).flatten() else { return Ok(()) };
    let stdin = [PathBuf::from("/dev/stdin")];
    let inputs = if inputs.is_empty() { &stdin[..] } else { inputs };
    match inputs.iter().find(|input| file(input).as_ref() == Some(&replaced)) {
        Some(input) => Err(Failure::usage(format!(
            "--output {} is the file that is read as {}, and would replace it: give another --output",
            output.display(),
            input.display()
        ))),
        None => Ok(()),
    }
}

/// How pairs are scored.
pub fn score(args: &ScoreArgs, softmax: bool, batch_tokens: Option<usize>) -> PredictOptions {
    let named = |name: &String| Activation::ALL.into_iter().find(|activation| activation.name() == name);
    PredictOptions {
        prompt: args.prompt.clone(),
        prompt_name: args.prompt_name.clone(),
        // The parser knows the names.
        activation: args.activation.as_ref().and_then(named),
        softmax,
        batch_tokens,
        ..PredictOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn interactive_and_dtype_reach_the_executor() {
        let parse = |more: &[&str]| {
            let bench = ["lexel", "bench", "--preset", "bge-small", "--device", "cpu"];
            let Command::Bench(command) = Cli::parse_from(bench.iter().chain(more)).command else { unreachable!() };
            ModelConfig::resolve("bge-small".into(), &command.on).unwrap().options
        };
        assert_eq!(parse(&[]), ExecutorOptions::default());
        let expected = ExecutorOptions { dtype: Dtype::F16, interactive: true, sample: None };
        assert_eq!(parse(&["--interactive", "--dtype", "f16"]), expected);
    }
}
