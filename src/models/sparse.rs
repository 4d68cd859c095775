//! The programs of sparse encoders.

use super::masked_lm;
use super::{ARCHITECTURES, Architecture, architecture, check_task, head, names_of, refuse_expansion};
use crate::checkpoint::{
    FILL_MASK, JsonFile, Module, ModuleKind, SparseAutoEncoderConfig, SparseStaticConfig, SpladeConfig, Tokenizer,
    TransformerModule,
};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Centred, Linear, Part, Program, TensorSpec, Value, WeightSource};

/// What a sparse encoder may be made of.
const SUPPORTED: &str = "a Transformer and a SpladePooling, a SparseStaticEmbedding alone, or a SentenceTransformer's modules \
    and a SparseAutoEncoder";

/// A sparse encoder as a program, and what remains to be done with the rows that it gives.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseProgram {
    /// Texts to dense rows.
    pub program: Program,
    /// Of each number; what is positive then is the sparse embedding.
    pub activation: Activation,
    /// How many of those numbers are kept, the largest, unless somebody says otherwise.
    pub most: Option<usize>,
}

/// The program of a sparse encoder's repository; `None` for weights of tokens, which need none.
///
/// # Errors
/// As [`sentence_transformer`](super::sentence_transformer).
pub fn sparse_encoder(modules: &[Module], weights: &dyn WeightSource) -> Result<Option<SparseProgram>> {
    match modules {
        [Module { kind: ModuleKind::SparseStaticEmbedding(_), .. }] => Ok(None),
        [
            Module { kind: ModuleKind::Transformer(transformer), .. },
            Module { kind: ModuleKind::SpladePooling(config), .. },
        ] => {
            let mut b = Builder::with_weights(weights);
            b.module(0);
            let (x, tokens) = splade(&mut b, transformer, config)?;
            Ok(Some(SparseProgram { program: b.finish(x, tokens), activation: masked_lm::after(config), most: None }))
        }
        [dense @ .., last @ Module { kind: ModuleKind::SparseAutoEncoder(config), .. }] if !dense.is_empty() => {
            let (mut b, x, tokens) = super::dense(dense, weights)?;
            b.module(dense.len());
            b.label(&last.name);
            let x = features(&mut b, last, config, x)?;
            let (program, most) = (b.finish(x, tokens), Some(config.k));
            Ok(Some(SparseProgram { program, activation: Activation::Relu, most }))
        }
        _ => Err(Error::unsupported("modules.json", "type", "other modules", SUPPORTED)),
    }
}

/// The weight of each token of a SparseStaticEmbedding's vocabulary.
///
/// # Errors
/// [`Error::InvalidFile`] for weights that are none, and for tokens that the tokenizer does not know.
pub(crate) fn token_weights(modules: &[Module], tokenizer: &Tokenizer, weights: &dyn WeightSource) -> Result<Vec<f32>> {
    let vocab = tokenizer.vocab_size();
    let file = match &modules[0].kind {
        ModuleKind::SparseStaticEmbedding(SparseStaticConfig { weights: Some(file), .. }) => JsonFile::read(file)?,
        _ => {
            let rows = weights.shape(0, "weight").and_then(|shape| shape.first().copied()).unwrap_or(vocab);
            if rows < vocab {
                let detail = format!("weights of {rows} tokens, and the tokenizer has {vocab}");
                return Err(Error::invalid_file(modules[0].path.join("model.safetensors"), detail));
            }
            return weights.read(&TensorSpec { module: 0, name: "weight".into(), shape: vec![rows] }, 0..rows);
        }
    };
    let mut by_id = vec![0.0; vocab];
    for token in file.keys() {
        let id = tokenizer.token_to_id(token).ok_or_else(|| {
            Error::invalid_file(file.path(), format!("a weight for {token:?}, which is no token of the tokenizer"))
        })?;
        by_id[id as usize] = file.f32(token)?;
    }
    Ok(by_id)
}

/// Pooled logits, and the hidden states behind them.
fn splade(b: &mut Builder, transformer: &TransformerModule, config: &SpladeConfig) -> Result<(Value, Value)> {
    check_task(transformer, FILL_MASK)?;
    refuse_expansion(transformer)?;
    b.set_limit(transformer.longest());
    let architecture = architecture(&transformer.config)?;
    let Some(head) = architecture.masked_lm else {
        let has_head = |other: &Architecture| other.masked_lm.is_some();
        // Architectures share a name: those with code of their own have no head.
        if ARCHITECTURES.iter().any(|other| other.model_type == architecture.model_type && has_head(other)) {
            return Err(transformer.config.unsupported("auto_map", "null, in a sparse encoder of this model_type"));
        }
        return Err(transformer.config.unsupported("model_type", names_of(has_head)));
    };
    let x = (architecture.backbone)(b, &transformer.config)?;
    b.label("masked_lm");
    Ok((head(&transformer.config)?.build(b, &transformer.config, config, x, masked_lm::BLOCK)?, x))
}

/// The features of a sentence embedding: `[sequences, features]`.
fn features(b: &mut Builder, module: &Module, config: &SparseAutoEncoderConfig, x: Value) -> Result<Value> {
    let SparseAutoEncoderConfig { input, features, .. } = *config;
    head::expect_cols(b, module, "input_dim", input, x)?;
    // The encoder's matrix is the decoder's transposed, and stored once, under either name.
    let stored = ["encoder.weight", "decoder.linear.weight"];
    let is_stored = |name: &&str| b.stored_shape(name).is_some();
    let name = stored.into_iter().find(is_stored).unwrap_or(stored[0]);
    let weight = b.tensor(name, vec![features, input]);
    let (bias, centre) = (b.tensor("latent_bias", vec![features]), b.tensor("pre_bias", vec![input]));
    let bias = Part::Centred(Box::new(Centred { bias, weight: weight.clone(), centre }));
    let (weight, bias) = (b.weight(vec![weight.into()]), b.weight(vec![bias]));
    Ok(b.linear(Linear { x, weight, bias: Some(bias), activation: Activation::Identity, residual: None }))
}
