//! The cache that Python's `huggingface_hub` keeps, so that a model which either has downloaded is there for both:
//!
//! ```text
//!   models--org--name/refs/main                      the commit that a branch or tag had when it was last asked for
//!   models--org--name/snapshots/<commit>/<file>      links to ../../blobs/<hash of the contents>
//!   models--org--name/.no_exist/<commit>/<file>      files that this commit is known not to have
//! ```
//!
//! This file reads; it needs neither network nor the feature `hub`.

use std::path::{Path, PathBuf};

use super::config::SETTINGS_FILE;
use super::files::{first_missing, join_inside};
use super::modules::MODULES_FILE;
use super::transformer::OLD_CONFIG_NAMES;
use crate::error::{Error, Result};

/// One repository's place in the cache.
#[derive(Debug, Clone)]
pub(crate) struct CachedRepo {
    /// The cache's folder.
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    pub cache: PathBuf,
    /// This repository's folder in it.
    pub folder: PathBuf,
}

/// A revision that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub folder: PathBuf,
    pub commit: String,
}

/// The cache folder: the reference's variable first, then those of the hub's own library.
pub(crate) fn default_cache_folder() -> Result<PathBuf> {
    cache_folder_from(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn cache_folder_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let of_library = || variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    let of_home = || variable("HF_HOME").map(|folder| folder.join("hub"));
    let of_xdg = || variable("XDG_CACHE_HOME").map(|folder| folder.join("huggingface/hub"));
    let of_user = || {
        let home = variable("HOME").or_else(|| variable("USERPROFILE"));
        home.map(|folder| folder.join(".cache").join("huggingface").join("hub"))
    };
    variable("SENTENCE_TRANSFORMERS_HOME")
        .or_else(of_library)
        .or_else(of_home)
        .or_else(of_xdg)
        .or_else(of_user)
        .ok_or_else(|| Error::InvalidInput("no home folder; set HF_HOME or the option cache_dir".to_string()))
}

impl CachedRepo {
    /// The place of `repo` (`organisation/name`, or a bare name) in `cache`.
    pub(crate) fn new(cache: &Path, repo: &str) -> CachedRepo {
        let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
        CachedRepo { cache: cache.to_path_buf(), folder }
    }

    /// The snapshot of a branch, tag or full commit, if its folder exists.
    pub(crate) fn snapshot(&self, revision: &str) -> Option<Snapshot> {
        let commit = match is_commit(revision) {
            true => revision.to_string(),
            false => std::fs::read_to_string(self.ref_path(revision)).ok()?.trim().to_string(),
        };
        let folder = self.snapshot_folder(&commit);
        (is_plain_name(&commit) && folder.is_dir()).then_some(Snapshot { folder, commit })
    }

    /// The snapshot of a revision with every file that a model needs; else why there is none.
    pub(crate) fn usable_snapshot(&self, revision: &str) -> Result<Snapshot, String> {
        let Some(snapshot) = self.snapshot(revision) else {
            return Err(format!("revision {revision} is not in {}", self.folder.display()));
        };
        match first_missing(&snapshot.folder) {
            Ok(None) => Ok(snapshot),
            Ok(Some(file)) => Err(format!("{} lacks {file}", snapshot.folder.display())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the snapshot is known to hold everything that its commit has for us. Another program may have fetched only
    /// the backbone's files; without `modules.json` that would look like another model.
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    pub(crate) fn is_complete(&self, snapshot: &Snapshot) -> bool {
        let known =
            |name: &str| snapshot.folder.join(name).is_file() || self.no_exist_path(&snapshot.commit, name).is_file();
        let at_root = !snapshot.folder.join("0_Transformer").is_dir();
        known(MODULES_FILE)
            && known(SETTINGS_FILE)
            && (!at_root || OLD_CONFIG_NAMES.iter().any(|name| known(name)) && known("tokenizer_config.json"))
            && matches!(first_missing(&snapshot.folder), Ok(None))
    }

    pub(crate) fn ref_path(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    pub(crate) fn snapshot_folder(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(crate) fn no_exist_path(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }
}

/// Whether `revision` is a full commit hash, which names its contents for ever.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a string from a file or a server can be a file's name and nothing else.
pub(crate) fn is_plain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Refuses a repository id or revision that is no such thing, before it becomes part of a path or a URL.
pub(crate) fn check_repo_and_revision(repo: &str, revision: &str) -> Result<()> {
    if !repo.split('/').all(|part| is_plain_name(part) && !part.contains("--") && !part.contains("..")) {
        return Err(Error::InvalidInput(format!(
            "'{repo}' is neither a folder nor a model id (organisation/name, of letters, digits, '.', '_' and '-')"
        )));
    }
    let plain = join_inside(Path::new(""), revision).is_ok() && !revision.bytes().any(|byte| byte.is_ascii_control());
    let hidden = revision.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    if !plain || hidden || revision.len() > 250 {
        return Err(Error::InvalidInput(format!("revision {revision:?} is no branch, tag or commit")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_folder_of_each_variable() {
        let variables = [
            ("SENTENCE_TRANSFORMERS_HOME", "/s", "/s"),
            ("HF_HUB_CACHE", "/c", "/c"),
            ("HUGGINGFACE_HUB_CACHE", "/o", "/o"),
            ("HF_HOME", "/h", "/h/hub"),
            ("XDG_CACHE_HOME", "/x", "/x/huggingface/hub"),
            ("HOME", "/u", "/u/.cache/huggingface/hub"),
        ];
        // Each wins over those behind it.
        for first in 0..variables.len() {
            let set = &variables[first..];
            let folder = cache_folder_from(|name| {
                set.iter().find(|(known, ..)| *known == name).map(|(_, value, _)| PathBuf::from(value))
            });
            assert_eq!(folder.unwrap(), PathBuf::from(set[0].2));
        }
        assert!(cache_folder_from(|_| None).is_err());
    }

    #[test]
    fn branches_tags_and_commits() {
        let cache = tempfile::tempdir().unwrap();
        let repo = CachedRepo::new(cache.path(), "org/name");
        assert_eq!(repo.folder, cache.path().join("models--org--name"));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        std::fs::create_dir_all(repo.snapshot_folder(commit)).unwrap();
        for revision in ["main", "refs/pr/1"] {
            std::fs::create_dir_all(repo.ref_path(revision).parent().unwrap()).unwrap();
            std::fs::write(repo.ref_path(revision), format!("{commit}\n")).unwrap();
            assert_eq!(repo.snapshot(revision).unwrap().commit, commit);
        }
        assert_eq!(repo.snapshot(commit).unwrap().folder, repo.snapshot_folder(commit));
        assert_eq!(repo.snapshot("v1.0"), None);
        assert!(repo.usable_snapshot("main").unwrap_err().contains("lacks config.json"));
        std::fs::write(repo.ref_path("evil"), "../../..").unwrap();
        assert_eq!(repo.snapshot("evil"), None);
    }

    #[test]
    fn names_that_could_leave_the_cache() {
        check_repo_and_revision("sentence-transformers/all-MiniLM-L6-v2", "main").unwrap();
        check_repo_and_revision("gpt2", "refs/pr/12").unwrap();
        for repo in ["", "..", "a/..", "a//b", "a b", "a\\b", "a/.b", "a--b/c", "é"] {
            assert!(check_repo_and_revision(repo, "main").is_err(), "{repo:?}");
        }
        for revision in ["", "../x", "/x", "a\\b", "a/../b", "a\nb", ".x", "a//b"] {
            assert!(check_repo_and_revision("a/b", revision).is_err(), "{revision:?}");
        }
    }
}
