//! Hands out the parts of a job that are missing, until none is.

use crate::cluster;
use crate::dataset::DatasetSource;
use crate::function::lexel_embed;
use crate::part::{EXTENSION, RESERVED};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::error::DataFusionError;
use datafusion::prelude::{CsvReadOptions, SessionContext, col, lit};
use lexel::checkpoint::{Checkpoint, SourceOptions};
use lexel::jobs::{self, JobFile, JobFolder, Summary};
use lexel::{Error, Result};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most tasks of a query: the engine sends the whole list of them to each.
const TASKS: usize = 1000;

/// Queries in a row that publish nothing, after which the job is given up.
const ATTEMPTS: usize = 3;

/// How often the folder is looked at.
const PATIENCE: Duration = Duration::from_millis(500);

/// A job that a cluster works on.
pub struct Client {
    scheduler: String,
    folder: JobFolder,
    stall: Duration,
}

/// What the parts of a query are written down in, and removed with it.
struct TaskList(std::path::PathBuf);

impl Client {
    /// Begins the job in a folder that all machines share, or continues it. `scheduler` is a URL such as
    /// `df://localhost:50050`; a query that publishes no part for as long as `stall` is given up and made again.
    ///
    /// # Errors
    /// If the folder holds something else, or there is no such model.
    pub fn begin(scheduler: &str, source: &DatasetSource, output: &Path, stall: Duration) -> Result<Client> {
        let settings = &source.dataset.settings;
        if let Some(name) = settings.id_column.as_deref().filter(|name| RESERVED.contains(name)) {
            let message = format!("column '{name}' cannot be kept: the output has one of that name itself");
            return Err(Error::InvalidInput(message));
        }
        fs::create_dir_all(output).map_err(Error::io(output))?;
        let path = fs::canonicalize(output).map_err(Error::io(output))?;
        let is_empty = fs::read_dir(&path).map_err(Error::io(&path))?.next().is_none();
        if !is_empty && JobFile::read(&path)?.is_none() {
            return Err(Error::InvalidInput(format!("{} holds other files: give a new folder", path.display())));
        }
        let options = SourceOptions { revision: settings.revision.clone(), ..SourceOptions::default() };
        let model = Checkpoint::open(&settings.model, &options)?;
        let identity = source.dataset.identity().into_iter().chain(jobs::model_files(model.folders())?);
        let mut job = JobFile::new(identity, &source.parts);
        job.plan = serde_json::to_value(&source.dataset).map_err(|error| Error::InvalidInput(error.to_string()))?;
        let folder = JobFolder::begin(&path, &job, EXTENSION, "")?;
        Ok(Client { scheduler: scheduler.to_string(), folder, stall })
    }

    /// Has the cluster compute what is missing, and checks that every row is there.
    ///
    /// # Errors
    /// [`Error::Incomplete`] with what the cluster said last, if it does not get on any more.
    pub async fn run(&self) -> Result<Summary> {
        let (mut attempt, mut fruitless) = (0, 0);
        loop {
            let missing = self.missing()?;
            if missing.is_empty() {
                return self.folder.finish();
            }
            let (count, parts) = (missing.len(), self.folder.parts().len());
            log::info!("{count} of {parts} parts are missing");
            let ended = self.query(&missing[..count.min(TASKS)], attempt).await;
            let left = self.missing()?.len();
            attempt += 1;
            fruitless = if left < count { 0 } else { fruitless + 1 };
            match ended {
                Err(error) if fruitless == ATTEMPTS => {
                    let message =
                        format!("{left} of {parts} parts are missing, and the cluster does not get on: {error}");
                    return Err(Error::Incomplete(message));
                }
                Err(error) if left > 0 => log::warn!("the query ended early: {error}"),
                _ => {}
            }
        }
    }

    fn missing(&self) -> Result<Vec<usize>> {
        let done = self.folder.done()?.into_iter().enumerate();
        Ok(done.filter(|(_, done)| !done).map(|(part, _)| part).collect())
    }

    /// Maps the function over the parts. What counts is what is in the folder: once all is there, the receipts, which
    /// may have died with an executor, are not waited for.
    async fn query(&self, parts: &[usize], attempt: usize) -> Result<(), DataFusionError> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let tasks = TaskList::write(self.folder.path(), parts, attempt).map_err(external)?;
        let context = cluster::session(&self.scheduler, parts.len()).await?;
        let receipts = self.receipts(&context, &tasks);
        tokio::pin!(receipts);
        let (mut left, mut moved) = (self.missing().map_err(external)?.len(), Instant::now());
        loop {
            if let Ok(receipts) = tokio::time::timeout(PATIENCE, &mut receipts).await {
                let rows = receipts?;
                log::info!("the query returned {rows} rows in {} parts", parts.len());
                let done = self.folder.done().map_err(external)?;
                return match parts.iter().find(|part| !done[**part]) {
                    Some(part) => Err(DataFusionError::Execution(format!(
                        "part {part} was published, and is not to be seen here: do all machines share {}?",
                        self.folder.path().display()
                    ))),
                    None => Ok(()),
                };
            }
            let now = self.missing().map_err(external)?.len();
            if now < left {
                (left, moved) = (now, Instant::now());
                log::info!("{now} parts are missing");
            }
            if now == 0 {
                return Ok(());
            }
            if moved.elapsed() > self.stall {
                let seconds = self.stall.as_secs();
                return Err(DataFusionError::Execution(format!("no part was published for {seconds} s")));
            }
        }
    }

    /// How many rows the parts have.
    async fn receipts(&self, context: &SessionContext, tasks: &TaskList) -> Result<u64, DataFusionError> {
        let schema = Schema::new(vec![Field::new("part", DataType::Int64, false)]);
        let options = CsvReadOptions::new().has_header(false).schema(&schema);
        let folder = lit(self.folder.path().display().to_string());
        let tasks = context.read_csv(format!("{}/", tasks.0.display()), options).await?;
        let rows = tasks.select(vec![lexel_embed().call(vec![folder, col("part")]).alias("rows")])?;
        let batches = rows.collect().await?;
        Ok(batches.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().iter().flatten()).sum())
    }
}

impl TaskList {
    /// A file for each part: the engine makes a task of each file. A new folder for each query, since listings are cached.
    fn write(folder: &Path, parts: &[usize], attempt: usize) -> Result<TaskList> {
        let path = folder.join(format!("_tasks-{}-{attempt}", std::process::id()));
        fs::create_dir(&path).map_err(Error::io(&path))?;
        let list = TaskList(path);
        for part in parts {
            let file = list.0.join(format!("{part}.csv"));
            fs::write(&file, format!("{part}\n")).map_err(Error::io(&file))?;
        }
        Ok(list)
    }
}

impl Drop for TaskList {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
