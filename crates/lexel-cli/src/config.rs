//! What the command line means: parsed arguments in, checked configuration out.

use crate::args::{DeviceArgs, EmbeddingArgs, InputFormat, ModelArgs, SourceArgs};
use crate::failure::Failure;
use crate::input::{Format, Input};
use crate::messages;
use lexel::checkpoint::SourceOptions;
use lexel::{Device, Dtype, EncodeOptions, Matrix, SentenceTransformer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model, where it comes from and what it runs on.
pub struct ModelConfig {
    id: String,
    source: SourceOptions,
    max_seq_length: Option<usize>,
    device: Device,
    dtype: Dtype,
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
        let (device, dtype) = device(&args.device)?;
        Ok(ModelConfig { id, source: source(&args.source), max_seq_length: args.max_seq_length, device, dtype })
    }

    /// The dtype that is computed in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Loads the model, with a bar while files are downloaded, and says what it runs on.
    pub fn load(&self) -> Result<SentenceTransformer, Failure> {
        let bar = messages::DownloadBar::default();
        let mut loader = SentenceTransformer::builder(&self.id)
            .device(self.device.clone())
            .dtype(self.dtype)
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
        let loaded = loader.load();
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

/// The device and what it computes in.
pub fn device(args: &DeviceArgs) -> Result<(Device, Dtype), Failure> {
    Ok((args.device.parse()?, args.dtype.parse()?))
}

impl EncodeConfig {
    /// The configuration behind the arguments.
    pub fn resolve(args: &EmbeddingArgs, batch_tokens: Option<usize>) -> EncodeConfig {
        let task = match (args.query, args.document) {
            (true, _) => Task::Query,
            (_, true) => Task::Document,
            _ => Task::Any,
        };
        let options = EncodeOptions {
            prompt: args.prompt.clone(),
            prompt_name: args.prompt_name.clone(),
            normalize: args.normalize,
            truncate_dim: args.truncate_dim,
            batch_tokens,
            ..EncodeOptions::default()
        };
        EncodeConfig { task, options }
    }

    /// Encodes texts; `progress` is called after each batch.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        model: &SentenceTransformer,
        texts: &[S],
        progress: Arc<dyn Fn(&lexel::Progress) + Send + Sync>,
    ) -> lexel::Result<Matrix> {
        let options = EncodeOptions { progress: Some(progress), ..self.options.clone() };
        match self.task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    }
}

/// The input behind the arguments: its format from the option, else from the name's ending.
pub fn input(path: &Path, column: Option<&str>, format: Option<InputFormat>) -> Result<Input, Failure> {
    let format = match (format, ending(path).as_deref()) {
        (Some(format), _) => format,
        (None, Some("txt")) => InputFormat::Txt,
        (None, Some("jsonl" | "ndjson")) => InputFormat::Jsonl,
        (None, _) if is_pipe(path) => {
            return Err(Failure::usage("the format of standard input is unknown: give --input-format txt or jsonl"));
        }
        (None, _) => {
            return Err(Failure::usage(format!(
                "the format of {} is unknown (known endings: .txt, .jsonl): give --input-format txt or jsonl",
                path.display()
            )));
        }
    };
    let format = match (format, column) {
        (InputFormat::Jsonl, column) => Format::Jsonl { column: column.unwrap_or("text").to_string() },
        (InputFormat::Txt, None) => Format::Txt,
        (InputFormat::Txt, Some(column)) => {
            return Err(Failure::usage(format!(
                "--column {column}: a .txt input has no columns, a text is a whole line"
            )));
        }
    };
    Ok(Input { path: (!is_pipe(path)).then(|| PathBuf::from(path)), format })
}

/// Whether the path stands for standard input or output.
pub fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What follows the last dot of the name, in lower case.
pub fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_the_ending_unless_an_option_says_otherwise() {
        let resolve = |path: &str, column, format| input(Path::new(path), column, format).map(|input| input.format);
        assert_eq!(resolve("a/B.TXT", None, None).unwrap(), Format::Txt);
        assert_eq!(resolve("b.jsonl", None, None).unwrap(), Format::Jsonl { column: "text".into() });
        assert_eq!(
            resolve("b.txt", Some("x"), Some(InputFormat::Jsonl)).unwrap(),
            Format::Jsonl { column: "x".into() }
        );
        for (path, column) in [("-", None), ("data", None), ("data.csv", None), ("b.txt", Some("x"))] {
            assert_eq!(resolve(path, column, None).unwrap_err().status, crate::failure::USAGE, "{path}");
        }
    }
}
