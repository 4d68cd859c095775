//! The modules of a repository that does not list them, or that was saved as another type of model: as the reference builds them.

use std::path::Path;

use super::adapter::{Bases, tokenizer_folder};
use super::config::JsonFile;
use super::dense_modules::{LogitScoreConfig, PoolingConfig};
use super::files::TOKENIZER_FILE;
use super::modules::{MODULES_FILE, Module, ModuleKind};
use super::sparse_modules::{SpladeConfig, SpladeStrategy};
use super::tokenizer::Tokenizer;
use super::transformer::{FILL_MASK, SEQUENCE_CLASSIFICATION, TEXT_GENERATION, TransformerModule};
use crate::error::{Error, Result};
use crate::program::PoolMode;

/// The transformer and mean pooling, or the last token for a causal language model. `why` goes into the warning.
pub(super) fn sentence_transformer(folder: &Path, bases: &Bases, why: &str) -> Result<Vec<Module>> {
    let transformer = TransformerModule::read_without_modules(folder, bases)?;
    let config = &transformer.config;
    let mode = match is_causal_lm(config)? && config.bool_or("is_causal", true)? {
        true => PoolMode::LastToken,
        false => PoolMode::Mean,
    };
    let scores = match is_classifier(config)? {
        true => ". Its config.json says that it scores pairs of texts: for that, load it as a CrossEncoder",
        false => "",
    };
    log::warn!("{}: {why}; using {} pooling over the transformer{scores}", folder.display(), mode.name());
    // DistilBERT calls its width `dim`, T5 `d_model`.
    let width = ["hidden_size", "dim", "d_model"].into_iter().find(|key| config.get(key).is_some());
    let dim = config.usize(width.unwrap_or("hidden_size"))?;
    let pooling = PoolingConfig { dim, modes: vec![mode], include_prompt: true };
    Ok(vec![
        Module { name: "0".into(), path: folder.to_path_buf(), kind: ModuleKind::Transformer(Box::new(transformer)) },
        Module { name: "1".into(), path: folder.join("1_Pooling"), kind: ModuleKind::Pooling(pooling) },
    ])
}

/// What a repository is taken for that does not list modules of a sparse encoder: a masked language model and SPLADE's maximum, as
/// the reference takes one without `modules.json`. (Without its head, and of a SentenceTransformer, the reference makes a sparse
/// auto-encoder of random weights, which is to be trained.)
pub(super) fn sparse_encoder(folder: &Path, bases: &Bases, why: &str) -> Result<Vec<Module>> {
    let mut transformer = TransformerModule::read_without_modules(folder, bases)?;
    if !is_masked_lm(&transformer.config)? {
        let supported = "a sparse encoder: ...ForMaskedLM. If the model makes dense embeddings, load it as a \
                         SentenceTransformer";
        return Err(transformer.config.unsupported("architectures", supported));
    }
    let level = if folder.join(MODULES_FILE).is_file() { log::Level::Warn } else { log::Level::Info };
    log::log!(level, "{}: {why}; using SPLADE's maximum over the masked language model", folder.display());
    transformer.task = FILL_MASK.into();
    transformer.chat = None;
    let splade = SpladeConfig { strategy: SpladeStrategy::Max, twice: false };
    Ok(vec![
        Module { name: "0".into(), path: folder.to_path_buf(), kind: ModuleKind::Transformer(Box::new(transformer)) },
        Module { name: "1".into(), path: folder.join("1_SpladePooling"), kind: ModuleKind::SpladePooling(splade) },
    ])
}

/// What the reference builds for a cross-encoder without `modules.json`: the transformer with its classification head, or a
/// causal language model with the tokens "yes" and "no".
pub(super) fn cross_encoder(folder: &Path, bases: &Bases) -> Result<Vec<Module>> {
    let mut transformer = TransformerModule::read_without_modules(folder, bases)?;
    let head = match is_causal_lm(&transformer.config)? {
        true => Some(yes_or_no(tokenizer_folder(folder, &transformer.backbone))?),
        false => None,
    };
    transformer.task = if head.is_some() { TEXT_GENERATION } else { SEQUENCE_CLASSIFICATION }.into();
    let transformer = ModuleKind::Transformer(Box::new(transformer));
    let mut modules = vec![Module { name: "0".into(), path: folder.to_path_buf(), kind: transformer }];
    modules.extend(head.map(|head| Module {
        name: "1".into(),
        path: folder.join("1_LogitScore"),
        kind: ModuleKind::LogitScore(head),
    }));
    Ok(modules)
}

fn is_causal_lm(config: &JsonFile) -> Result<bool> {
    is_for(config, "ForCausalLM")
}

/// Whether the transformer has a head for sequence classification, as cross-encoders have.
pub(super) fn is_classifier(config: &JsonFile) -> Result<bool> {
    is_for(config, "ForSequenceClassification")
}

/// Whether any head of the transformer is that of a masked language model, as sparse encoders have.
fn is_masked_lm(config: &JsonFile) -> Result<bool> {
    let architectures = config.strings_opt("architectures")?.unwrap_or_default();
    Ok(architectures.iter().any(|name| name.ends_with("ForMaskedLM")))
}

fn is_for(config: &JsonFile, purpose: &str) -> Result<bool> {
    let architectures = config.strings_opt("architectures")?.unwrap_or_default();
    Ok(architectures.first().is_some_and(|name| name.ends_with(purpose)))
}

fn yes_or_no(folder: &Path) -> Result<LogitScoreConfig> {
    let tokenizer = Tokenizer::load(folder, None, false)?;
    let id = |token: &str| {
        tokenizer.token_to_id(token).map(|id| id as usize).ok_or_else(|| {
            let detail =
                format!("no token {token:?}: without {MODULES_FILE}, a language model scores by \"yes\" and \"no\"");
            Error::invalid_file(folder.join(TOKENIZER_FILE), detail)
        })
    };
    Ok(LogitScoreConfig { true_token: id("yes")?, false_token: Some(id("no")?) })
}
