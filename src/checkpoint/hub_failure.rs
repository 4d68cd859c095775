//! What goes wrong with a download: whether the cache may answer instead, and what the user can do.

use crate::error::Error;
use hf_hub::HFError;

/// Why a question to the hub failed.
pub(super) enum Failure {
    /// Down, unreachable or overloaded: the cache may answer instead.
    Unreachable(String),
    /// An answer, but not one to go on with.
    Refused(Error),
}

impl Failure {
    /// What an answer of the hub means for someone who wants this model.
    pub fn of(error: HFError, repo: &str, endpoint: &str, revision: &str) -> Failure {
        let refused = |detail: String| Failure::Refused(hub_error(repo, detail));
        let not_found = |what: String, detail: &str| {
            let detail = format!("{endpoint} has none: {detail}");
            Failure::Refused(Error::NotFound { what, detail })
        };
        match error {
            HFError::Request { .. } | HFError::RateLimited { .. } | HFError::Xet { .. } => {
                Failure::Unreachable(chain(&error))
            }
            HFError::Http { ref context } if context.status.is_server_error() => Failure::Unreachable(chain(&error)),
            HFError::AuthRequired { .. } => refused(format!(
                "401: there is no such model at {endpoint}, or it is private or gated; check its name, or give a token of an \
                 account with access (option `token`, HF_TOKEN)"
            )),
            HFError::Forbidden { .. } => refused(format!(
                "403: access is not granted; accept the model's conditions at {endpoint}/{repo}, and give the token of that \
                 account (option `token`, HF_TOKEN)"
            )),
            HFError::RepoNotFound { .. } => not_found(format!("model '{repo}'"), "check its name"),
            HFError::RevisionNotFound { .. } => {
                not_found(format!("model '{repo}', revision '{revision}'"), "check its name and the revision")
            }
            other => refused(chain(&other)),
        }
    }
}

/// Why a file could not be copied.
pub(super) enum CopyError {
    Failed(Failure),
    /// The server sends something else than the repository's tree promised.
    Wrong(String),
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> CopyError {
        CopyError::Failed(failure)
    }
}

/// Whether the server does not know this kind of question.
pub(super) fn is_not_served(error: &HFError) -> bool {
    match error {
        HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } | HFError::EntryNotFound { .. } => true,
        HFError::Http { context } => matches!(context.status.as_u16(), 400 | 404 | 405 | 501),
        _ => false,
    }
}

pub(super) fn hub_error(repo: &str, detail: String) -> Error {
    Error::Hub { repo: repo.to_string(), detail }
}

/// An error with its causes. Of what only names the request, what is behind it is kept.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(|error| error.to_string());
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        if texts.last().is_some_and(|text| text.contains("error sending request for url")) {
            texts.pop();
        }
        if !texts.iter().any(|text| text.contains(&cause)) {
            texts.push(cause);
        }
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Caused>>,
    }

    #[test]
    fn causes_are_named_once_and_the_address_not_at_all() {
        let chained = |texts: &[&'static str]| {
            let error = texts.iter().rev().fold(None, |source, text| Some(Box::new(Caused { text, source })));
            chain(&*error.unwrap())
        };
        let request = "error sending request for url (http://x/a)";
        let wrapped = "HTTP request error: error sending request for url (http://x/a)";
        assert_eq!(chained(&[wrapped, request, "client error", "dns error"]), "client error: dns error");
        assert_eq!(chained(&[request]), request);
        assert_eq!(chained(&["broken: pipe", "pipe"]), "broken: pipe");
    }
}
