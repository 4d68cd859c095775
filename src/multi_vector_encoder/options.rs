//! What a caller can ask of one call of `encode`.

use crate::job::{Cancel, OnProgress};
use crate::token_pooling::HierarchicalTokenPooling;
use std::fmt;

/// Options of [`encode_with`](super::MultiVectorEncoder::encode_with) and its relatives. The default is the reference's.
#[derive(Clone, Default)]
pub struct MultiVectorEncodeOptions {
    /// Put before every text, as it is. Wins over `prompt_name`. An empty one blocks the model's default prompt.
    pub prompt: Option<String>,
    /// The name of one of the model's prompts, to put before every text.
    pub prompt_name: Option<String>,
    /// What the texts are encoded for: `query` and `document` have lengths of their own, and other tokens count.
    /// [`encode_query`](super::MultiVectorEncoder::encode_query) and its like set it.
    pub task: Option<String>,
    /// Divide each vector by its L2 norm, before `token_pooling`: models do it themselves, as a rule.
    pub normalize: bool,
    /// Fewer vectors for each text, if it is for texts of this task; behind what the model itself has of that kind.
    pub token_pooling: Option<HierarchicalTokenPooling>,
    /// Tokens a batch. `None`: what suits the device.
    pub batch_tokens: Option<usize>,
    /// Called after each batch, from the calling thread; of an async call, from one of its own.
    pub progress: Option<OnProgress>,
    /// Ends the call at the next batch, with [`Error::Cancelled`](crate::Error::Cancelled), without results.
    pub cancel: Option<Cancel>,
}

impl fmt::Debug for MultiVectorEncodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiVectorEncodeOptions")
            .field("prompt", &self.prompt)
            .field("prompt_name", &self.prompt_name)
            .field("task", &self.task)
            .field("normalize", &self.normalize)
            .field("token_pooling", &self.token_pooling)
            .field("batch_tokens", &self.batch_tokens)
            .finish_non_exhaustive()
    }
}
