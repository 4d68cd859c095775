//! What a caller can ask of one call of `predict` or `rank`.

use crate::job::{Cancel, OnProgress};
use crate::program::Activation;
use std::fmt;

/// Options of [`predict_with`](super::CrossEncoder::predict_with). The default is the reference's.
#[derive(Clone, Default)]
pub struct PredictOptions {
    /// Put before the first text of every pair, as it is. Wins over `prompt_name`. An empty one blocks the model's default
    /// prompt.
    pub prompt: Option<String>,
    /// The name of one of the model's prompts, to put before the first text of every pair.
    pub prompt_name: Option<String>,
    /// Instead of the model's own.
    pub activation: Option<Activation>,
    /// Turn each pair's scores into probabilities, behind the activation. Nothing for a model of one label.
    pub softmax: bool,
    /// Tokens a batch. `None`: what suits the device.
    pub batch_tokens: Option<usize>,
    /// Called from the calling thread after each batch.
    pub progress: Option<OnProgress>,
    /// Ends the call at the next batch, with [`Error::Cancelled`](crate::Error::Cancelled), which has the results so far.
    pub cancel: Option<Cancel>,
}

/// Options of [`rank_with`](super::CrossEncoder::rank_with).
#[derive(Debug, Clone, Default)]
pub struct RankOptions {
    /// Return only so many documents, the best. `None`: all.
    pub top_k: Option<usize>,
    /// Return the documents' texts too.
    pub return_documents: bool,
    /// How the pairs are scored. `softmax` has no effect: there is one label.
    pub predict: PredictOptions,
}

impl fmt::Debug for PredictOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictOptions")
            .field("prompt", &self.prompt)
            .field("prompt_name", &self.prompt_name)
            .field("activation", &self.activation)
            .field("softmax", &self.softmax)
            .field("batch_tokens", &self.batch_tokens)
            .finish_non_exhaustive()
    }
}
