//! The programs of models of late interaction: a vector for each token.

use super::head;
use crate::checkpoint::{Feature, Module, ModuleKind};
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
    let unsupported = |found: &str| Error::unsupported("modules.json", "type", found, SUPPORTED);
    let Some((Module { kind: ModuleKind::Transformer(transformer), .. }, rest)) = modules.split_first() else {
        return Err(unsupported("another first module"));
    };
    let mut b = Builder::new();
    b.module(0);
    let mut x = super::hidden_states(&mut b, transformer)?;
    let mut is_pooled = false;
    for (i, module) in rest.iter().enumerate() {
        b.module(i + 1);
        b.label(&module.name);
        match &module.kind {
            ModuleKind::TokenPooling(_) => is_pooled = true,
            ModuleKind::MultiVectorMask(_) | ModuleKind::Dropout => {}
            _ if is_pooled => return Err(unsupported("a module behind HierarchicalTokenPooling")),
            ModuleKind::Dense(_) | ModuleKind::Normalize(Feature::Tokens) => {
                x = head::build(&mut b, module, false, weights, x)?;
            }
            _ => return Err(unsupported("other modules")),
        }
    }
    Ok(b.finish(x, x))
}
