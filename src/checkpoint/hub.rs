//! Downloads a model into the cache.
//!
//! The crate `hf-hub` speaks the protocol (API, tokens, redirects, retries, Xet). Its own cache is not used: version 1.0
//! takes names from response headers as parts of paths, keeps a file that is shorter than announced for good, and gives up
//! on a lock after ten seconds. So it is asked for metadata and for bytes only, and every byte that reaches the disk passes
//! through [`super::blob`].
//!
//! One request names the commit of a branch. If that commit is on disk, nothing more is asked. Else the repository's tree
//! gives each file's size and hash, so that what is wrong is known before it has a name in the cache.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use hf_hub::repository::{HFRepository, RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFError};

use super::blob::{self, BlobWriter};
use super::config::SETTINGS_FILE;
use super::files::{
    PICKLED_WEIGHTS, WEIGHTS_FILE, WEIGHTS_INDEX, add_routed, has_weights, join_inside, listed, needed_in_module,
    pickled_weights_error, shards,
};
use super::hub_cache::{CachedRepo, Snapshot, is_commit, is_plain_name};
use super::hub_failure::{CopyError, Failure, chain, hub_error, is_not_served};
use super::modules::{MODULES_FILE, check_modules};
use super::router::ROUTER_FILES;
use super::source::{DownloadProgress, SourceOptions};
use super::transformer::OLD_CONFIG_NAMES;
use crate::error::{Error, Result};

/// A question that is not answered by then counts as a server that is down.
const METADATA_TIMEOUT: Duration = Duration::from_secs(20);
/// A download in which nothing arrives for so long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// No model repository has so many files.
const MAX_FILES: usize = 50_000;

/// A file of the repository.
struct RemoteFile {
    size: u64,
    /// Its blob's name in the cache: a hash of the contents.
    blob: String,
}

/// One model's download.
struct Download<'a> {
    hub: HFRepository<RepoTypeModel>,
    endpoint: String,
    repo: &'a str,
    revision: &'a str,
    cached: &'a CachedRepo,
    options: &'a SourceOptions,
    progress: DownloadProgress,
}

/// The model's snapshot in the cache, downloaded as far as it is not there.
pub(crate) fn fetch(cached: &CachedRepo, repo: &str, revision: &str, options: &SourceOptions) -> Result<Snapshot> {
    // A full commit never changes: nothing needs to be asked.
    if is_commit(revision)
        && let Some(snapshot) = cached.snapshot(revision).filter(|snapshot| cached.is_complete(snapshot))
    {
        return Ok(snapshot);
    }
    // A thread of its own, because the caller may stand inside an async runtime, where blocking on another panics.
    let worker = || -> Result<Snapshot> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| hub_error(repo, format!("cannot start the network runtime: {error}")))?;
        runtime.block_on(Download::new(cached, repo, revision, options)?.run())
    };
    std::thread::scope(|scope| match scope.spawn(worker).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl<'a> Download<'a> {
    fn new(
        cached: &'a CachedRepo,
        repo: &'a str,
        revision: &'a str,
        options: &'a SourceOptions,
    ) -> Result<Download<'a>> {
        let mut builder = HFClient::builder().cache_enabled(false).retry_max_attempts(3);
        builder = builder.user_agent(concat!("lexel/", env!("CARGO_PKG_VERSION")));
        if let Some(endpoint) = &options.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(token) = &options.token {
            builder = builder.token(token);
        }
        let client = builder.build().map_err(|error| {
            let given = options.endpoint.clone().or_else(|| std::env::var("HF_ENDPOINT").ok());
            match given {
                Some(endpoint) => Error::InvalidInput(format!(
                    "the hub's address '{endpoint}' (HF_ENDPOINT) cannot be used: {}; give one like https://huggingface.co",
                    chain(&error)
                )),
                None => hub_error(repo, chain(&error)),
            }
        })?;
        let (owner, name) = hf_hub::split_id(repo);
        let progress = DownloadProgress { file: String::new(), file_done: 0, file_total: 0, done: 0, total: 0 };
        let endpoint = client.endpoint().to_string();
        Ok(Download { hub: client.model(owner, name), endpoint, repo, revision, cached, options, progress })
    }

    async fn run(mut self) -> Result<Snapshot> {
        let (commit, siblings) = match self.ask_commit().await {
            Ok(answer) => answer,
            Err(failure) => return self.fall_back(failure),
        };
        if let Some(snapshot) = self.cached.snapshot(&commit).filter(|snapshot| self.cached.is_complete(snapshot)) {
            self.write_ref(&commit)?;
            return Ok(snapshot);
        }
        let files = match self.list(&commit, &siblings).await {
            Ok(files) => files,
            Err(failure) => return self.fall_back(failure),
        };
        self.fetch_model(&commit, &files).await?;
        self.write_ref(&commit)?;
        Ok(Snapshot { folder: self.cached.snapshot_folder(&commit), commit })
    }

    /// The cached model instead of an answer, if the server cannot be asked.
    fn fall_back(&self, failure: Failure) -> Result<Snapshot> {
        let why = match failure {
            Failure::Unreachable(why) => why,
            Failure::Refused(error) => return Err(error),
        };
        match self.cached.usable_snapshot(self.revision) {
            Ok(snapshot) => {
                log::warn!("{}: {} cannot be asked ({why}); using the cache", self.repo, self.endpoint);
                Ok(snapshot)
            }
            Err(missing) => {
                Err(hub_error(self.repo, format!("{} cannot be asked ({why}), and {missing}", self.endpoint)))
            }
        }
    }

    /// The commit that the revision stands for, and the names of its files as far as the answer has them.
    async fn ask_commit(&self) -> Result<(String, Vec<String>), Failure> {
        let info = self.ask(self.hub.info().revision(self.revision).send()).await?;
        let siblings = info.siblings.unwrap_or_default().into_iter().map(|sibling| sibling.rfilename).collect();
        let commit = info.sha.unwrap_or_default();
        if !is_plain_name(&commit) || is_commit(self.revision) && commit != self.revision {
            let detail = format!("the server gives {commit:?} as the commit of revision {}; refused", self.revision);
            return Err(Failure::Refused(hub_error(self.repo, detail)));
        }
        Ok((commit, siblings))
    }

    /// Every file of the commit, with size and hash.
    async fn list(&self, commit: &str, siblings: &[String]) -> Result<HashMap<String, RemoteFile>, Failure> {
        let tree = async {
            let entries = self.hub.list_tree().revision(commit).recursive(true).limit(MAX_FILES).send()?;
            futures::pin_mut!(entries);
            let mut files = Vec::new();
            while let Some(entry) = entries.next().await {
                if let RepoTreeEntry::File { oid, size, path, lfs, .. } = entry? {
                    let (sha256, lfs_size) = lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
                    files.push((path, RemoteFile { size: lfs_size.unwrap_or(size), blob: sha256.unwrap_or(oid) }));
                }
            }
            Ok(files)
        };
        let files = match self.answer(tree).await? {
            Ok(files) => files,
            // Some mirrors serve files but no trees.
            Err(error) if is_not_served(&error) && !siblings.is_empty() => {
                self.list_by_headers(commit, siblings).await?
            }
            Err(error) => return Err(self.failure(error)),
        };
        for (path, file) in &files {
            let refused = match join_inside(Path::new(""), path) {
                Err(detail) => Some(format!("the server lists a file {path:?}, which is refused: {detail}")),
                Ok(_) if !is_plain_name(&file.blob) => {
                    Some(format!("the server gives {:?} as the hash (ETag) of {path}; refused", file.blob))
                }
                Ok(_) => None,
            };
            if let Some(detail) = refused {
                return Err(Failure::Refused(hub_error(self.repo, detail)));
            }
        }
        Ok(files.into_iter().collect())
    }

    /// Sizes and hashes of the files that may be needed, from a request for each.
    async fn list_by_headers(&self, commit: &str, siblings: &[String]) -> Result<Vec<(String, RemoteFile)>, Failure> {
        let mut files = Vec::new();
        for path in siblings
            .iter()
            .filter(|path| path.ends_with(".json") || path.ends_with(".safetensors") || path.ends_with(".txt"))
        {
            let metadata = self.ask(self.hub.get_file_metadata().filepath(path).revision(commit).send()).await?;
            files.push((path.clone(), RemoteFile { size: metadata.file_size, blob: metadata.etag }));
        }
        let pickles = siblings.iter().filter(|path| path.ends_with(PICKLED_WEIGHTS));
        files.extend(pickles.map(|path| (path.clone(), RemoteFile { size: 0, blob: "never-downloaded".to_string() })));
        Ok(files)
    }

    /// Downloads what the model needs, small files first: a model that is not supported is refused before its weights.
    async fn fetch_model(&mut self, commit: &str, files: &HashMap<String, RemoteFile>) -> Result<()> {
        let folder = self.cached.snapshot_folder(commit);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        for name in [MODULES_FILE, SETTINGS_FILE, "tokenizer_config.json", OLD_CONFIG_NAMES[0]] {
            if !files.contains_key(name) {
                self.write_no_exist(commit, name)?;
            }
        }
        self.fetch_files(commit, files, &[MODULES_FILE.to_string()]).await?;
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let mut modules = listed(&folder)?;
        let is_router = |(class, _): &&(String, String)| matches!(class.as_str(), "Router" | "Asym");
        for (_, path) in modules.iter().filter(is_router) {
            let inside = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            self.fetch_files(commit, files, &ROUTER_FILES.map(inside)).await?;
        }
        add_routed(&folder, &mut modules)?;
        let mut needed = needed_in_module("", &names);
        for (class, path) in &modules {
            let of_module = needed_in_module(path, &names);
            let stored_well = of_module.iter().any(|name| is_weights(name) || name.ends_with(WEIGHTS_INDEX));
            let pickle = Path::new(path).join(PICKLED_WEIGHTS);
            if has_weights(class) && !stored_well && pickle.to_str().is_some_and(|name| files.contains_key(name)) {
                return Err(pickled_weights_error(format_args!("{}@{commit}", self.repo)));
            }
            needed.extend(of_module);
        }
        needed.sort();
        needed.dedup();
        let (mut weights, small): (Vec<String>, Vec<String>) = needed.into_iter().partition(|name| is_weights(name));
        self.fetch_files(commit, files, &small).await?;
        check_modules(&folder)?;
        for index in small.iter().filter(|name| name.ends_with(WEIGHTS_INDEX)) {
            let shards = shards(&folder.join(index))?;
            weights.extend(shards.iter().map(|shard| index.replace(WEIGHTS_INDEX, shard)));
        }
        if let Some(missing) = weights.iter().find(|name| !files.contains_key(*name)) {
            return Err(hub_error(self.repo, format!("{WEIGHTS_INDEX} lists {missing}, which the repository lacks")));
        }
        self.fetch_files(commit, files, &weights).await
    }

    /// Downloads those of `names` that the repository has and the cache lacks.
    async fn fetch_files(&mut self, commit: &str, files: &HashMap<String, RemoteFile>, names: &[String]) -> Result<()> {
        let folder = self.cached.snapshot_folder(commit);
        let is_missing = |name: &str, file: &RemoteFile| {
            std::fs::metadata(folder.join(name)).map_or(true, |metadata| metadata.len() != file.size)
        };
        let wanted: Vec<(&String, &RemoteFile)> = names
            .iter()
            .filter_map(|name| files.get(name).map(|file| (name, file)))
            .filter(|(name, file)| is_missing(name, file))
            .collect();
        self.progress.total += wanted.iter().map(|(_, file)| file.size).sum::<u64>();
        for (name, file) in wanted {
            let _lock = blob::lock(self.cached, &file.blob)?;
            let path = blob::blob_path(self.cached, &file.blob);
            // Another process may have finished it while we waited.
            if std::fs::metadata(&path).map_or(true, |metadata| metadata.len() != file.size) {
                self.fetch_blob(commit, name, file).await?;
            } else {
                self.report(name, file.size, file.size);
            }
            self.progress.done += file.size;
            blob::link(self.cached, &file.blob, &folder.join(name))?;
        }
        Ok(())
    }

    async fn fetch_blob(&mut self, commit: &str, name: &str, file: &RemoteFile) -> Result<()> {
        let mut resume = true;
        loop {
            let mut writer = BlobWriter::begin(self.cached, &file.blob, file.size, resume)?;
            let is_resumed = writer.written() > 0;
            let wrong = match self.copy(commit, name, &mut writer).await {
                Ok(()) => match writer.finish()? {
                    Ok(()) => return Ok(()),
                    Err(wrong) => wrong,
                },
                Err(CopyError::Wrong(wrong)) => {
                    writer.discard();
                    wrong
                }
                // The connection broke: what arrived stays for the next attempt.
                Err(CopyError::Failed(Failure::Unreachable(why))) => {
                    let kept = format!("{} of {} bytes are kept; run it again", writer.written(), file.size);
                    return Err(hub_error(self.repo, format!("{name}: the download failed: {why}; {kept}")));
                }
                Err(CopyError::Failed(Failure::Refused(error))) => return Err(error),
            };
            if !is_resumed {
                let advice = "nothing of it is kept; try again, or another mirror";
                return Err(hub_error(self.repo, format!("{name}: {wrong}; {advice}")));
            }
            // Perhaps it is what an earlier attempt left that was wrong: once more from the beginning.
            resume = false;
        }
    }

    /// Appends the rest of the file to `writer`.
    async fn copy(&mut self, commit: &str, name: &str, writer: &mut BlobWriter) -> Result<(), CopyError> {
        let (start, size) = (writer.written(), writer.size());
        let range = (start > 0).then_some(start..size);
        let request = self.hub.download_file_stream().filename(name).revision(commit).maybe_range(range).send();
        let (announced, mut stream) = self.ask(request).await?;
        if let Some(bytes) = announced
            && bytes != size - start
        {
            return Err(CopyError::Wrong(format!("expected {} bytes, the server announces {bytes}", size - start)));
        }
        loop {
            let Ok(next) = tokio::time::timeout(STALL_TIMEOUT, stream.next()).await else {
                return Err(Failure::Unreachable(format!("nothing came for {STALL_TIMEOUT:?}")).into());
            };
            match next {
                Some(Ok(bytes)) => writer.append(&bytes).map_err(Failure::Refused)?.map_err(CopyError::Wrong)?,
                Some(Err(error)) => return Err(self.failure(error).into()),
                None => return Ok(()),
            }
            self.report(name, writer.written(), size);
        }
    }

    fn report(&mut self, file: &str, done: u64, size: u64) {
        if let Some(callback) = &self.options.progress {
            let all = self.progress.done + done;
            let progress = DownloadProgress {
                file: file.to_string(),
                file_done: done,
                file_total: size,
                done: all,
                total: self.progress.total,
            };
            callback(&progress);
        }
    }

    /// Notes the revision's commit. It comes last: a model that is not complete is never what a branch stands for.
    fn write_ref(&self, commit: &str) -> Result<()> {
        let path = self.cached.ref_path(self.revision);
        let is_current = std::fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit);
        if is_commit(self.revision) || is_current {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.cached.folder);
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        // Renamed into place, so that nobody reads half a commit.
        let new = blob::temporary_beside(&path);
        std::fs::write(&new, commit).map_err(Error::io(&new))?;
        std::fs::rename(&new, &path).map_err(Error::io(&path))
    }

    fn write_no_exist(&self, commit: &str, name: &str) -> Result<()> {
        let path = self.cached.no_exist_path(commit, name);
        let folder = path.parent().unwrap_or(&self.cached.folder);
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        std::fs::write(&path, "").map_err(Error::io(&path))
    }

    /// The answer to a question, in time.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, HFError>>) -> Result<T, Failure> {
        self.answer(question).await?.map_err(|error| self.failure(error))
    }

    async fn answer<T>(
        &self,
        question: impl Future<Output = Result<T, HFError>>,
    ) -> Result<Result<T, HFError>, Failure> {
        let answer = tokio::time::timeout(METADATA_TIMEOUT, question).await;
        answer.map_err(|_| Failure::Unreachable(format!("no answer within {METADATA_TIMEOUT:?}")))
    }

    fn failure(&self, error: HFError) -> Failure {
        Failure::of(error, self.repo, &self.endpoint, self.revision)
    }
}

fn is_weights(name: &str) -> bool {
    name == WEIGHTS_FILE || name.ends_with(&format!("/{WEIGHTS_FILE}"))
}
