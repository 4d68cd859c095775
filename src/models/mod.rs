//! From a repository's configuration to a [`Program`]. Each architecture is one file that reads like a forward pass.
//!
//! To add one: a file with a `build` function beside `bert.rs`, a line in `ARCHITECTURES`, a golden case in
//! `tests/golden/make.py`. No executor changes.

mod activation;
mod bert;
mod head;
mod preset;

pub use bert::BertConfig;
pub use preset::Preset;

use crate::checkpoint::{JsonFile, Module, ModuleKind, TransformerModule};
use crate::error::{Error, Result};
use crate::program::{Builder, Program, Rows, Value, WeightSource};

/// A backbone: token ids to hidden states `[tokens, hidden]`. Reads the backbone's `config.json`.
type Build = fn(&mut Builder, &JsonFile) -> Result<Value>;

/// `model_type` in `config.json`, and the function that builds it.
const ARCHITECTURES: &[(&str, Build)] = &[("bert", bert::build)];

/// The program of a sentence-transformers repository: its modules, run in order. `weights` are looked at only where a
/// number decides what is computed (the slope of a PReLU).
///
/// # Errors
/// [`Error::Unsupported`] names the file, the key and the value that lexel does not implement.
pub fn sentence_transformer(modules: &[Module], weights: &dyn WeightSource) -> Result<Program> {
    let mut b = Builder::new();
    let Some((Module { kind: ModuleKind::Transformer(transformer), .. }, rest)) = modules.split_first() else {
        return Err(Error::unsupported(
            "modules.json",
            "type",
            "another first module",
            "Transformer, as the first module",
        ));
    };
    b.module(0);
    let mut x = backbone(&mut b, transformer)?;
    let mut tokens = x;
    for (i, module) in rest.iter().enumerate() {
        b.module(i + 1);
        b.label(&module.name);
        x = head::build(&mut b, module, weights, x)?;
        if b.shape(x).rows == Rows::Tokens {
            tokens = x;
        }
    }
    if b.shape(x).rows == Rows::Tokens {
        return Err(Error::unsupported("modules.json", "type", "no Pooling", "a model with a Pooling module"));
    }
    Ok(b.finish(x, tokens))
}

fn backbone(b: &mut Builder, transformer: &TransformerModule) -> Result<Value> {
    if transformer.task != "feature-extraction" {
        let supported = "feature-extraction";
        return Err(Error::unsupported("sentence_bert_config.json", "transformer_task", &transformer.task, supported));
    }
    let config = &transformer.config;
    let model_type = config.str("model_type")?;
    match ARCHITECTURES.iter().find(|(name, _)| *name == model_type) {
        Some((_, build)) => build(b, config),
        None => {
            let names: Vec<_> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            Err(config.unsupported("model_type", names.join(", ")))
        }
    }
}
