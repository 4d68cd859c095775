//! What a process keeps of the job it works on: the folder, the plan, and the model on its device.

use crate::dataset::{Dataset, DatasetSource};
use crate::part;
use lexel::jobs::{self, JobFile, JobFolder, JobOptions, Shard};
use lexel::{EncodeOptions, Error, Result, SentenceTransformer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The job that this process worked on last. A model takes long to load and much memory: there is one at a time.
static LAST: Mutex<Option<Arc<Worker>>> = Mutex::new(None);

/// A job that is open in this process.
struct Worker {
    path: PathBuf,
    job: JobFile,
    folder: JobFolder,
    source: DatasetSource,
    model: SentenceTransformer,
}

/// Has a part of the job in `folder` embedded and published, by this process unless it is there already or another one is
/// at it. Returns how many rows it has.
///
/// # Errors
/// Whatever keeps the part from being computed: no such job, another model on this machine than on the others, bad input.
pub fn embed(folder: &Path, part: usize) -> Result<u64> {
    let job = JobFile::read(folder)?.ok_or_else(|| Error::NotFound {
        what: format!("the job in {}", folder.display()),
        detail: "executors must see the job's folder under the path that the client gave".to_string(),
    })?;
    let worker = {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(worker) if worker.path == folder && worker.job == job => worker.clone(),
            _ => {
                // Frees the memory of the one before, once its tasks are done.
                *last = None;
                last.insert(Arc::new(Worker::open(folder, job)?)).clone()
            }
        }
    };
    worker.embed(part)
}

/// The job's plan.
///
/// # Errors
/// [`Error::InvalidFile`] if another program made the job.
pub fn dataset(folder: &Path, job: &JobFile) -> Result<Dataset> {
    serde_json::from_value(job.plan.clone()).map_err(|error| {
        let detail = format!("a job of another program than lexel-ballista: {error}");
        Error::invalid_file(folder.join("_job.json"), detail)
    })
}

impl Worker {
    fn open(path: &Path, job: JobFile) -> Result<Worker> {
        let source = DatasetSource { dataset: dataset(path, &job)?, parts: job.parts.clone() };
        let settings = &source.dataset.settings;
        let mut builder = SentenceTransformer::builder(&settings.model);
        if let Some(revision) = &settings.revision {
            builder = builder.revision(revision);
        }
        let model = builder.load()?;
        // This machine's files, which must be those of the client's.
        let identity = source.dataset.identity().into_iter().chain(jobs::model_files(model.folders())?);
        let here = JobFile::new(identity, &job.parts);
        let folder = JobFolder::begin(path, &here, part::EXTENSION, &model.device())?;
        Ok(Worker { path: path.to_path_buf(), job, folder, source, model })
    }

    fn embed(&self, part: usize) -> Result<u64> {
        let count = self.source.parts.len();
        if part >= count {
            return Err(Error::InvalidInput(format!("part {part}: {} has {count}", self.path.display())));
        }
        log::info!("part {part}: begun");
        let settings = &self.source.dataset.settings;
        let compute = |texts: &[String], progress| {
            self.model.encode_with(texts, &EncodeOptions { progress: Some(progress), ..settings.encode_options() })
        };
        let sink =
            self.folder.sink(|file, path, finished| part::write(file, path, finished, settings.id_column.as_deref()));
        let shard = Shard { index: part, count };
        let options = JobOptions { parts_at_once: 1, shard: Some(shard), ..JobOptions::default() };
        let ran = jobs::run(&self.source, &sink, &compute, &options)?;
        let rows = self.folder.check(Some(shard))?.rows;
        match ran.parts {
            0 => log::info!("part {part}: there already, {rows} rows"),
            _ => log::info!("part {part}: embedded, {rows} rows in {:.1} s", ran.seconds),
        }
        Ok(rows)
    }
}
