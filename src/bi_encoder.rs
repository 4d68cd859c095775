//! What encoders of single texts have in common, dense, sparse or of several vectors: a repository's prompts and routes, and a call's
//! texts on their way through a program.

use crate::checkpoint::{self, Checkpoint, Frame, Module, ModuleKind, Settings, Tokenizer};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::job::{Cancel, Job, OnProgress};
use crate::loader::Loader;
use crate::program::{Output, Program};
use crate::prompts;
use crate::scheduler::Finished;
use crate::similarity::SimilarityFunction;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A repository, with a `P` for each way of a text through its modules, whose embeddings an `S` compares.
pub(crate) struct BiEncoder<P, S = SimilarityFunction> {
    pub folders: Vec<PathBuf>,
    pub modules: Vec<Module>,
    pub settings: Settings,
    pub prompts: BTreeMap<String, String>,
    pub similarity: S,
    /// Tasks that the checkpoint has adapters for.
    tasks: Vec<String>,
    /// The adapter that it was loaded with.
    adapter: Option<String>,
    /// By the names of their routes: one, unless the model has a Router. The first is that of a text for no task.
    paths: Vec<(Vec<String>, P)>,
}

/// What the texts are encoded for: decides the prompt where the caller names none.
#[derive(Clone, Copy)]
pub(crate) enum Task {
    Any,
    Query,
    Document,
}

impl Task {
    /// The name that a Router knows it by.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Task::Any => None,
            Task::Query => Some("query"),
            Task::Document => Some("document"),
        }
    }
}

/// The similarity function of single vectors that a checkpoint's files name, or `default`.
///
/// # Errors
/// [`Error::Unsupported`] for one that nobody knows.
pub(crate) fn similarity_of(checkpoint: &Checkpoint, default: SimilarityFunction) -> Result<SimilarityFunction> {
    match &checkpoint.settings().similarity_fn_name {
        Some(name) => name.parse().map_err(|_| {
            let file = "config_sentence_transformers.json";
            Error::unsupported(file, "similarity_fn_name", name, "cosine, dot, euclidean, manhattan")
        }),
        None => Ok(default),
    }
}

impl<P, S> BiEncoder<P, S> {
    /// What a checkpoint's files say; `path` makes what a way needs.
    ///
    /// # Errors
    /// Those of `path`; [`Error::Unsupported`] for settings that nobody knows.
    pub fn new(
        checkpoint: &Checkpoint,
        similarity: S,
        mut path: impl FnMut(&Checkpoint) -> Result<P>,
    ) -> Result<BiEncoder<P, S>> {
        let settings = checkpoint.settings().clone();
        let prompts = settings.bi_encoder_prompts();
        prompts::check_default(&prompts, settings.default_prompt_name.as_deref())?;
        let mut paths = Vec::new();
        for (routes, checkpoint) in checkpoint.routes() {
            paths.push((routes, path(&checkpoint)?));
        }
        // Without a default, the first stands for the model where it is asked about itself.
        let default = checkpoint::route(checkpoint.modules(), None).unwrap_or_default();
        if let Some(i) = paths.iter().position(|(routes, _)| *routes == default) {
            paths.swap(0, i);
        }
        let tasks = checkpoint.adapter_tasks()?;
        let adapter = checkpoint.adapter().map(str::to_string);
        let (folders, modules) = (checkpoint.folders().to_vec(), checkpoint.modules().to_vec());
        Ok(BiEncoder { folders, modules, settings, prompts, similarity, tasks, adapter, paths })
    }

    /// That of a text for no task.
    pub fn default_path(&self) -> &P {
        &self.paths[0].1
    }

    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &P> {
        self.paths.iter().map(|(_, path)| path)
    }

    /// That of a text for a task, which only a Router looks at.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if there is no route for the task, or an adapter that the model was not loaded with.
    pub fn path(&self, task: Option<&str>) -> Result<&P> {
        let is_other = |task: &&str| self.tasks.iter().any(|of| of == task) && self.adapter.as_deref() != Some(task);
        if let Some(task) = task.filter(is_other) {
            let loaded = self.adapter.as_ref().map_or("without one".to_string(), |adapter| format!("with {adapter:?}"));
            return Err(Error::InvalidInput(format!(
                "the task {task:?} has an adapter of its own, and the model was loaded {loaded}: load it with adapter {task:?}"
            )));
        }
        if let [(_, path)] = &self.paths[..] {
            return Ok(path);
        }
        let wanted = checkpoint::route(&self.modules, task)?;
        let found = self.paths.iter().find(|(routes, _)| *routes == wanted);
        Ok(found.map_or(self.default_path(), |(_, path)| path))
    }

    /// What goes before every text: a prompt that the caller gives, or names, or the task's; empty if none does.
    pub fn prompt<'a>(&'a self, task: Task, prompt: Option<&'a str>, name: Option<&'a str>) -> Result<&'a str> {
        if prompt.is_some() && name.is_some() {
            log::warn!("both prompt and prompt_name are given: prompt_name is ignored");
        }
        let name = match (name, task) {
            (Some(name), _) => Some(name),
            (None, Task::Any) => self.settings.default_prompt_name.as_deref(),
            (None, Task::Query) => Some("query"),
            (None, Task::Document) => {
                ["document", "passage", "corpus"].into_iter().find(|name| self.prompts.contains_key(*name))
            }
        };
        prompts::resolve(&self.prompts, prompt, name)
    }
}

/// A program on a device, and the tokenizer of its texts.
pub(crate) struct ProgramPath {
    include_prompt: bool,
    pub tokenizer: Tokenizer,
    pub program: Arc<Program>,
    pub executor: Arc<dyn Executor>,
}

/// One call: what it encodes its texts for, and what it may do to them.
pub(crate) struct Request<'a> {
    pub prompt: &'a str,
    pub task: Option<&'a str>,
    pub batch_tokens: Option<usize>,
    pub progress: Option<&'a OnProgress>,
    pub cancel: Option<&'a Cancel>,
}

impl ProgramPath {
    /// Puts the program that a checkpoint describes on the loader's device.
    pub fn load<M>(loader: &Loader<M>, checkpoint: &Checkpoint, program: Program) -> Result<ProgramPath> {
        let program = Arc::new(program);
        let tokenizer = loader.tokenizer(checkpoint, &program)?;
        let include_prompt = checkpoint.modules().iter().all(|module| match &module.kind {
            ModuleKind::Pooling(pooling) => pooling.include_prompt,
            _ => true,
        });
        let executor = loader.executor(checkpoint, &program, &tokenizer, false)?;
        Ok(ProgramPath { include_prompt, tokenizer, program, executor })
    }

    /// Computes each different text once; `store(batch, sequence, targets)` gets each result with the indices of the texts
    /// that it belongs to.
    pub fn run<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        request: &Request<'_>,
        output: Output,
        store: impl FnMut(&Finished, usize, &[usize]),
    ) -> Result<()> {
        let skip = match self.include_prompt || request.prompt.is_empty() {
            true => 0,
            false => self.tokenizer.prompt_tokens(request.prompt)? as u32,
        };
        let job = Job {
            program: &self.program,
            executor: &*self.executor,
            output,
            batch_tokens: request.batch_tokens,
            progress: request.progress,
            cancel: request.cancel,
            longest: self.tokenizer.length_for(request.task),
        };
        let frame = Frame { prompt: request.prompt, task: request.task };
        let tokenize = |texts: &[&str]| self.tokenizer.encode_batch_in(frame, texts);
        job.run(texts.iter().map(AsRef::as_ref), skip, tokenize, store)
    }
}
