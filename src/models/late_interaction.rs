//! The programs of models of late interaction: a vector for each token.

use super::head;
use crate::checkpoint::{Feature, Module, ModuleKind, TransformerModule};
use crate::error::{Error, Result};
use crate::program::{Builder, Program, WeightSource};

/// What such a model may be made of.
const SUPPORTED: &str =
    "a Transformer, then Dense, Normalize, MultiVectorMask and Dropout, then HierarchicalTokenPooling";

/// The program of a MultiVectorEncoder's repository: texts to a row a token, in both [outputs](crate::program::Output). Which rows
/// count, and how several become one, is left to be done.
///
/// # Errors
/// As [`sentence_transformer`](super::sentence_transformer).
pub fn multi_vector_encoder(modules: &[Module], weights: &dyn WeightSource) -> Result<Program> {
    let unsupported = |module: &Module, why: &str| {
        let found = format!("{} ({}){why}", module.kind.name(), module.path.display());
        Error::unsupported("modules.json", "type", found, SUPPORTED)
    };
    let Some((first, rest)) = modules.split_first() else {
        return Err(Error::unsupported("modules.json", "type", "no modules", SUPPORTED));
    };
    let ModuleKind::Transformer(transformer) = &first.kind else { return Err(unsupported(first, ", first")) };
    check_expansion(transformer)?;
    let mut b = Builder::with_weights(weights);
    b.module(0);
    let mut x = super::hidden_states(&mut b, transformer)?;
    let mut is_pooled = false;
    for (i, module) in rest.iter().enumerate() {
        b.module(i + 1);
        b.label(&module.name);
        match &module.kind {
            ModuleKind::TokenPooling(_) => is_pooled = true,
            ModuleKind::Dropout => {}
            _ if is_pooled => return Err(unsupported(module, ", behind HierarchicalTokenPooling")),
            ModuleKind::MultiVectorMask(_) => {}
            ModuleKind::Dense(_) | ModuleKind::Normalize(Feature::Tokens) => {
                x = head::build(&mut b, module, false, x)?;
            }
            _ => return Err(unsupported(module, "")),
        }
    }
    Ok(b.finish(x, x))
}

/// Refuses tokens that attention does not look at where the backbone makes something else of them, too: DeBERTa takes their
/// embeddings away, and what they would see.
fn check_expansion(transformer: &TransformerModule) -> Result<()> {
    let is_unseen = transformer.lengths.expansion.as_ref().is_some_and(|expansion| !expansion.attend);
    match is_unseen && transformer.config.str("model_type")? == "deberta-v2" {
        false => Ok(()),
        true => Err(Error::unsupported(
            "sentence_bert_config.json",
            "query_expansion.attend",
            "false",
            "true for deberta-v2",
        )),
    }
}
