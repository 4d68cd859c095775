//! Which activation turns a model's logits into scores.

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::models;
use crate::program::Activation;

/// The first file that names one, in the reference's order; else the sigmoid for one label and nothing for several. A class
/// outside torch counts as none, with a warning: the reference would have to run the repository's code.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) for a class of torch that is not known.
pub fn default_activation(checkpoint: &Checkpoint, labels: usize) -> Result<Activation> {
    let (settings, config) = (checkpoint.settings(), &checkpoint.transformer()?.1.config);
    let nested = config.object_opt("sentence_transformers")?;
    // Even a null hides the old key.
    let of_config = match nested.as_ref().filter(|nested| nested.contains("activation_fn")) {
        Some(nested) => nested.str_opt("activation_fn")?,
        None => config.str_opt("sbert_ce_default_activation_function")?,
    };
    for class in [settings.activation_fn.as_deref(), of_config].into_iter().flatten() {
        match models::torch_activation(class) {
            Some(activation) => return Ok(activation),
            None if class.starts_with("torch.") => {
                return Err(config.unsupported_value("activation_fn", class, models::torch_activations()));
            }
            None => log::warn!("the activation {class} is not PyTorch's own: it is ignored"),
        }
    }
    Ok(if labels == 1 { Activation::Sigmoid } else { Activation::Identity })
}
