//! What a caller can ask of one call of `encode`.

use crate::job::{Cancel, OnProgress};
use std::fmt;

/// Options of [`encode_with`](super::SparseEncoder::encode_with) and its relatives. The default is the reference's.
#[derive(Clone, Default)]
pub struct SparseEncodeOptions {
    /// Put before every text, as it is. Wins over `prompt_name`. An empty one blocks the model's default prompt.
    pub prompt: Option<String>,
    /// The name of one of the model's prompts, to put before every text.
    pub prompt_name: Option<String>,
    /// What the texts are encoded for: chooses the route of a model with a Router, and nothing in others.
    /// [`encode_query`](super::SparseEncoder::encode_query) and its like set it to `query` or `document`.
    pub task: Option<String>,
    /// Keep so many numbers of each embedding, the largest in absolute value; more than there are, are all. `None`: as the model's
    /// files say.
    pub max_active_dims: Option<usize>,
    /// Tokens a batch. `None`: what suits the device.
    pub batch_tokens: Option<usize>,
    /// Called after each batch, from the calling thread; of an async call, from one of its own.
    pub progress: Option<OnProgress>,
    /// Ends the call at the next batch, with [`Error::Cancelled`](crate::Error::Cancelled), without results.
    pub cancel: Option<Cancel>,
}

impl fmt::Debug for SparseEncodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseEncodeOptions")
            .field("prompt", &self.prompt)
            .field("prompt_name", &self.prompt_name)
            .field("task", &self.task)
            .field("max_active_dims", &self.max_active_dims)
            .field("batch_tokens", &self.batch_tokens)
            .finish_non_exhaustive()
    }
}
