//! The modules behind the backbone: from hidden states to the sentence embedding.

use super::activation;
use crate::checkpoint::{DenseConfig, Feature, Module, ModuleKind, PoolingConfig, WeightedLayersConfig};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Linear, Norm, NormKind, Pool, RowNorm, Rows, Slope, Sum, Value};

/// Whether a module gives each sentence's embedding length 1: right behind a pooling of one mode, that is part of its step.
pub(super) fn is_normalize(module: &Module) -> bool {
    matches!(module.kind, ModuleKind::Normalize(Feature::Sentences))
}

/// Whether a module is a pooling of one mode.
pub(super) fn pools_once(module: &Module) -> bool {
    matches!(&module.kind, ModuleKind::Pooling(config) if config.modes.len() == 1)
}

/// `x` through one module of `modules.json`. With `normalize`, the module [`pools_once`], and also does what the one behind it
/// would.
pub(super) fn build(b: &mut Builder, module: &Module, normalize: bool, x: Value) -> Result<Value> {
    let unsupported = |supported| Error::unsupported("modules.json", "type", module.kind.name(), supported);
    match &module.kind {
        ModuleKind::Transformer(_) | ModuleKind::StaticEmbedding => {
            let (class, first) = ("a second Transformer or StaticEmbedding", "one, as the first module");
            Err(Error::unsupported("modules.json", "type", class, first))
        }
        ModuleKind::WeightedLayers(config) => weighted_layers(b, module, config, x),
        ModuleKind::Pooling(config) => pooling(b, module, config, normalize, x),
        ModuleKind::Dense(config) => {
            expect_feature(b, module, config.feature, x)?;
            dense(b, module, config, x)
        }
        ModuleKind::LayerNorm { dim } => {
            expect_feature(b, module, Feature::Sentences, x)?;
            expect_cols(b, module, "dimension", *dim, x)?;
            let (weight, bias) = (b.vector("norm.weight", *dim), b.vector("norm.bias", *dim));
            // The eps is torch.nn.LayerNorm's default.
            let norm = RowNorm { kind: NormKind::Layer, weight, bias: Some(bias), eps: 1e-5 };
            Ok(b.norm(Norm { x, norm, residual: None }))
        }
        ModuleKind::Normalize(feature) => {
            expect_feature(b, module, *feature, x)?;
            Ok(b.normalize(x))
        }
        ModuleKind::LogitScore(_) => Err(unsupported("LogitScore in a cross-encoder, behind a Transformer")),
        ModuleKind::SpladePooling(_) | ModuleKind::SparseStaticEmbedding(_) | ModuleKind::SparseAutoEncoder(_) => {
            Err(unsupported("one in a model that is loaded as a SparseEncoder"))
        }
        ModuleKind::MultiVectorMask(_) | ModuleKind::TokenPooling(_) => {
            Err(unsupported("one in a model that is loaded as a MultiVectorEncoder"))
        }
        ModuleKind::Router(_) => Err(Error::unsupported(
            "modules.json",
            "type",
            "a Router inside a route",
            "a Router among the model's modules",
        )),
        ModuleKind::Dropout => Ok(x), // it acts in training only
    }
}

/// The hidden states from a layer on, each times its weight over the sum of the weights.
fn weighted_layers(b: &mut Builder, module: &Module, config: &WeightedLayersConfig, x: Value) -> Result<Value> {
    expect_cols(b, module, "embedding_dimension", config.dim, x)?;
    let states = b.hidden_states();
    if states.len() != config.layers + 1 || states.last() != Some(&x) {
        let supported = "the layers of a BERT-like backbone right before it";
        return Err(Error::unsupported(file(module), "num_hidden_layers", config.layers.to_string(), supported));
    }
    let states = states[config.first..].to_vec();
    let factors = b.numbers("layer_weights", states.len())?;
    let total: f32 = factors.iter().sum();
    let factors: Vec<f32> = factors.into_iter().map(|factor| factor / total).collect();
    if let [factor] = factors[..] {
        return Ok(b.sum(Sum { x, x_factor: factor, other: x, factor: 0.0 }));
    }
    let mut sum = b.sum(Sum { x: states[0], x_factor: factors[0], other: states[1], factor: factors[1] });
    for (&other, &factor) in states.iter().zip(&factors).skip(2) {
        sum = b.sum(Sum { x: sum, x_factor: 1.0, other, factor });
    }
    Ok(sum)
}

fn pooling(b: &mut Builder, module: &Module, config: &PoolingConfig, normalize: bool, x: Value) -> Result<Value> {
    if b.shape(x).rows != Rows::Tokens {
        return Err(Error::unsupported("modules.json", "type", "a second Pooling", "one Pooling"));
    }
    expect_cols(b, module, "embedding_dimension", config.dim, x)?;
    Ok(b.pool(Pool { x, modes: config.modes.clone(), normalize }))
}

/// `activation(W x + b)`, and the input added, projected where the widths differ, if the module says so.
fn dense(b: &mut Builder, module: &Module, config: &DenseConfig, x: Value) -> Result<Value> {
    let (cols, out) = (config.in_features, config.out_features);
    expect_cols(b, module, "in_features", cols, x)?;
    let activation = match config.activation.as_str() {
        // The one activation with a parameter, and with one for all columns it is a number, not a weight.
        "PReLU" => Activation::LeakyRelu(Slope::new(b.number("activation_function.weight")?)),
        class => activation::find(activation::TORCH_CLASS, class).map_err(|known| {
            Error::unsupported(file(module), "activation_function", class, format!("{known}, PReLU"))
        })?,
    };
    let residual = match config.residual {
        false => None,
        true if cols == out => Some(x),
        true => {
            let weight = b.matrix("residual.weight", out, cols);
            Some(b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual: None }))
        }
    };
    let weight = b.matrix("linear.weight", out, cols);
    let bias = config.bias.then(|| b.vector("linear.bias", out));
    Ok(b.linear(Linear { x, weight, bias, activation, residual }))
}

/// Modules run one behind the other, so each must take what the one before it gives: tokens' rows before the pooling,
/// sentences' rows behind it.
fn expect_feature(b: &Builder, module: &Module, feature: Feature, x: Value) -> Result<()> {
    let (expected, value) = match b.shape(x).rows {
        Rows::Tokens => (Feature::Tokens, "token_embeddings, because there is no pooling before it"),
        Rows::Sequences => (Feature::Sentences, "sentence_embedding, because it comes after the pooling"),
    };
    if feature == expected {
        return Ok(());
    }
    Err(Error::unsupported(file(module), "module_input_name", feature.name(), value))
}

pub(super) fn expect_cols(b: &Builder, module: &Module, key: &str, expected: usize, x: Value) -> Result<()> {
    let cols = b.shape(x).cols;
    if cols == expected {
        return Ok(());
    }
    let detail = format!("{key} = {expected}, but the module before it gives {cols} columns");
    Err(Error::invalid_file(module.path.join("config.json"), detail))
}

fn file(module: &Module) -> String {
    module.path.join("config.json").display().to_string()
}
