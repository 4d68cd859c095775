//! From what the user wrote (an id, a short id, a folder) to a local folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adapter::Bases;
use super::hub_cache::{CachedRepo, Snapshot, check_repo_and_revision, default_cache_folder};
use crate::error::{Error, Result};

/// Where a model may come from.
#[derive(Clone)]
pub struct SourceOptions {
    /// A branch, tag or commit; `main` if none is given.
    pub revision: Option<String>,
    /// The access token; else `HF_TOKEN`, the file `HF_TOKEN_PATH`, or the saved login.
    pub token: Option<String>,
    /// The cache folder; else `SENTENCE_TRANSFORMERS_HOME`, `HF_HUB_CACHE`, `HF_HOME/hub`, `~/.cache/huggingface/hub`.
    pub cache_dir: Option<PathBuf>,
    /// Use no network. `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` do the same.
    pub offline: bool,
    /// The hub, or a mirror of it; else `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// What completes a short id: `sentence-transformers`, `cross-encoder` or `sparse-encoder`.
    pub organisation: String,
    /// Called while files are downloaded. It must not block for long.
    pub progress: Option<ProgressCallback>,
}

/// Is told of a download's progress.
pub type ProgressCallback = Arc<dyn Fn(&DownloadProgress) + Send + Sync>;

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadProgress {
    /// The file that is being downloaded, e.g. `1_Pooling/config.json`.
    pub file: String,
    /// Bytes of that file so far.
    pub file_done: u64,
    /// Bytes of that file.
    pub file_total: u64,
    /// Bytes of all files so far.
    pub done: u64,
    /// Bytes of all files that must be downloaded. It grows when an index turns out to list shards.
    pub total: u64,
}

impl Default for SourceOptions {
    fn default() -> SourceOptions {
        SourceOptions {
            revision: None,
            token: None,
            cache_dir: None,
            offline: false,
            endpoint: None,
            organisation: "sentence-transformers".to_string(),
            progress: None,
        }
    }
}

impl std::fmt::Debug for SourceOptions {
    // By hand, so that a token never ends up in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceOptions")
            .field("revision", &self.revision)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .field("endpoint", &self.endpoint)
            .field("organisation", &self.organisation)
            .finish_non_exhaustive()
    }
}

/// A model's local files.
#[derive(Debug)]
pub(crate) struct Source {
    /// The completed id, or the folder as it was given.
    pub name: String,
    pub folder: PathBuf,
    /// The commit, if it came from the hub.
    pub commit: Option<String>,
    /// The models that its adapters change.
    pub bases: Bases,
}

/// Ids without an organisation that the hub knows: they are not completed. The list is the reference's
/// (sentence-transformers 6.2, `ORIGINAL_TRANSFORMER_MODELS`).
const BASE_MODELS: [&str; 68] = [
    "albert-base-v1",
    "albert-base-v2",
    "albert-large-v1",
    "albert-large-v2",
    "albert-xlarge-v1",
    "albert-xlarge-v2",
    "albert-xxlarge-v1",
    "albert-xxlarge-v2",
    "bert-base-cased-finetuned-mrpc",
    "bert-base-cased",
    "bert-base-chinese",
    "bert-base-german-cased",
    "bert-base-german-dbmdz-cased",
    "bert-base-german-dbmdz-uncased",
    "bert-base-multilingual-cased",
    "bert-base-multilingual-uncased",
    "bert-base-uncased",
    "bert-large-cased-whole-word-masking-finetuned-squad",
    "bert-large-cased-whole-word-masking",
    "bert-large-cased",
    "bert-large-uncased-whole-word-masking-finetuned-squad",
    "bert-large-uncased-whole-word-masking",
    "bert-large-uncased",
    "camembert-base",
    "ctrl",
    "distilbert-base-cased-distilled-squad",
    "distilbert-base-cased",
    "distilbert-base-german-cased",
    "distilbert-base-multilingual-cased",
    "distilbert-base-uncased-distilled-squad",
    "distilbert-base-uncased-finetuned-sst-2-english",
    "distilbert-base-uncased",
    "distilgpt2",
    "distilroberta-base",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "gpt2",
    "openai-gpt",
    "roberta-base-openai-detector",
    "roberta-base",
    "roberta-large-mnli",
    "roberta-large-openai-detector",
    "roberta-large",
    "t5-11b",
    "t5-3b",
    "t5-base",
    "t5-large",
    "t5-small",
    "transfo-xl-wt103",
    "xlm-clm-ende-1024",
    "xlm-clm-enfr-1024",
    "xlm-mlm-100-1280",
    "xlm-mlm-17-1280",
    "xlm-mlm-en-2048",
    "xlm-mlm-ende-1024",
    "xlm-mlm-enfr-1024",
    "xlm-mlm-enro-1024",
    "xlm-mlm-tlm-xnli15-1024",
    "xlm-mlm-xnli15-1024",
    "xlm-roberta-base",
    "xlm-roberta-large-finetuned-conll02-dutch",
    "xlm-roberta-large-finetuned-conll02-spanish",
    "xlm-roberta-large-finetuned-conll03-english",
    "xlm-roberta-large-finetuned-conll03-german",
    "xlm-roberta-large",
    "xlnet-base-cased",
    "xlnet-large-cased",
];

/// Makes sure that a model is on disk, and says where.
pub fn download(id_or_folder: &str, options: &SourceOptions) -> Result<PathBuf> {
    Ok(resolve(id_or_folder, options)?.folder)
}

/// Finds the local folder of a model, and of the base model of an adapter, downloading them where that is needed and allowed.
pub(crate) fn resolve(id_or_folder: &str, options: &SourceOptions) -> Result<Source> {
    let mut source = find(id_or_folder, options)?;
    // The revision is the adapter's.
    let of_base = SourceOptions { revision: None, ..options.clone() };
    source.bases = Bases::of(&source.folder, |base| Ok(find(base, &of_base)?.folder))?;
    Ok(source)
}

/// The local folder of an adapter's repository.
pub(crate) fn find_adapter(id: &str, options: &SourceOptions) -> Result<PathBuf> {
    // The revision is the model's.
    Ok(find(id, &SourceOptions { revision: None, ..options.clone() })?.folder)
}

/// The same of the model or the adapter itself.
fn find(id_or_folder: &str, options: &SourceOptions) -> Result<Source> {
    let (path, bases) = (Path::new(id_or_folder), Bases::default());
    if path.is_dir() {
        if let Some(revision) = &options.revision {
            let what = format!("revision '{revision}': '{id_or_folder}' is a folder here, which has no revisions");
            return Err(Error::InvalidInput(format!("{what}: leave the revision out, or give a model id")));
        }
        return Ok(Source { name: id_or_folder.to_string(), folder: path.to_path_buf(), commit: None, bases });
    }
    if path.is_file() {
        return Err(Error::InvalidInput(format!(
            "'{id_or_folder}' is a file; expected a model id, or the folder that holds modules.json or config.json"
        )));
    }
    if id_or_folder.trim().is_empty() {
        return Err(Error::InvalidInput("the model's name is empty: give a model id, or a folder".into()));
    }
    let is_path = id_or_folder.contains('\\') || id_or_folder.starts_with(['.', '/', '~']);
    if is_path || id_or_folder.matches('/').count() > 1 {
        let detail = match id_or_folder.starts_with('~') {
            true => "nothing puts the home folder in place of '~' here: give the whole path",
            false => "there is none, and a model id has one slash at most",
        };
        return Err(Error::NotFound { what: format!("folder '{id_or_folder}'"), detail: detail.to_string() });
    }
    let repo = complete_id(id_or_folder, &options.organisation);
    let revision = options.revision.as_deref().unwrap_or("main");
    check_repo_and_revision(&repo, revision)?;
    let cache = options.cache_dir.clone().map_or_else(default_cache_folder, Ok)?;
    let cached = CachedRepo::new(&cache, &repo);
    let Snapshot { folder, commit } = if options.offline || is_offline_by_environment() {
        from_cache(
            &cached,
            &repo,
            revision,
            "offline mode is on (option `offline`, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)",
        )?
    } else {
        online(&cached, &repo, revision, options)?
    };
    Ok(Source { name: repo, folder, commit: Some(commit), bases })
}

#[cfg(feature = "hub")]
fn online(cached: &CachedRepo, repo: &str, revision: &str, options: &SourceOptions) -> Result<Snapshot> {
    super::hub::fetch(cached, repo, revision, options)
}

#[cfg(not(feature = "hub"))]
fn online(cached: &CachedRepo, repo: &str, revision: &str, _options: &SourceOptions) -> Result<Snapshot> {
    from_cache(cached, repo, revision, "this build has no downloads (feature `hub`)")
}

/// The model as it stands in the cache.
fn from_cache(cached: &CachedRepo, repo: &str, revision: &str, why: &str) -> Result<Snapshot> {
    let snapshot = cached.usable_snapshot(revision).map_err(|detail| Error::NotFound {
        what: format!("model '{repo}'"),
        detail: format!("{detail}, and {why}"),
    })?;
    log::debug!("{repo}: {} from the cache, {why}", snapshot.folder.display());
    Ok(snapshot)
}

/// Completes a short id with the organisation, except for the base models that have none.
fn complete_id(id: &str, organisation: &str) -> String {
    match id.contains('/') || organisation.is_empty() || BASE_MODELS.contains(&id.to_lowercase().as_str()) {
        true => id.to_string(),
        false => format!("{organisation}/{id}"),
    }
}

fn is_offline_by_environment() -> bool {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| is_truthy(&value)))
}

/// Python's notion, as the hub's library has it.
fn is_truthy(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids() {
        let complete = |id| complete_id(id, "sentence-transformers");
        assert_eq!(complete("all-MiniLM-L6-v2"), "sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(complete("BAAI/bge-small-en-v1.5"), "BAAI/bge-small-en-v1.5");
        assert_eq!(complete("bert-base-uncased"), "bert-base-uncased");
        assert_eq!(complete("BERT-base-uncased"), "BERT-base-uncased");
        assert_eq!(complete_id("ms-marco-MiniLM-L6-v2", "cross-encoder"), "cross-encoder/ms-marco-MiniLM-L6-v2");
    }

    #[test]
    fn folders_files_and_what_is_neither() {
        let options = SourceOptions { offline: true, ..SourceOptions::default() };
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert_eq!(resolve(name, &options).unwrap().folder, folder.path());
        let file = folder.path().join("model.safetensors");
        std::fs::write(&file, "").unwrap();
        assert!(resolve(file.to_str().unwrap(), &options).unwrap_err().to_string().contains("is a file"));
        for missing in ["a/b/c", "./model", "/nowhere", "a\\b", "~/x"] {
            assert!(matches!(resolve(missing, &options), Err(Error::NotFound { .. })), "{missing}");
        }
        let options = SourceOptions { cache_dir: Some(folder.path().to_path_buf()), ..options };
        let message = resolve("nobody/nothing", &options).unwrap_err().to_string();
        assert!(message.contains("nobody/nothing") && message.contains("offline"), "{message}");
    }

    #[test]
    fn a_token_is_never_printed() {
        let options = SourceOptions { token: Some("hf_secret".to_string()), ..SourceOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
