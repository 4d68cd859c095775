//! BERT (Devlin et al. 2018): learned positions, post-norm layers. all-MiniLM, bge, e5, gte, mxbai, arctic-embed, LaBSE.

use super::activation;
use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{Activation, Attention, Builder, Index, Linear, Lookup, Norm, Value, WeightId};

/// The numbers that shape a BERT encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Rows of the word table.
    pub vocab: usize,
    /// Columns of every hidden state.
    pub hidden: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads; they divide `hidden`.
    pub heads: usize,
    /// Columns inside the feed-forward network.
    pub intermediate: usize,
    /// Rows of the position table.
    pub max_positions: usize,
    /// Rows of the token type table.
    pub token_types: usize,
    /// Of the feed-forward network.
    pub activation: Activation,
    /// Of every layer norm.
    pub eps: f32,
}

/// Builds the backbone that `config.json` describes.
pub(super) fn build(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    Ok(BertConfig::from_json(config)?.build(b))
}

impl BertConfig {
    /// Reads `config.json`; absent keys have the defaults of transformers' `BertConfig`.
    pub fn from_json(config: &JsonFile) -> Result<BertConfig> {
        if config.str_or("position_embedding_type", "absolute")? != "absolute" {
            return Err(config.unsupported("position_embedding_type", "absolute"));
        }
        if config.bool_or("is_decoder", false)? {
            return Err(config.unsupported("is_decoder", "false"));
        }
        let hidden_act = config.str_or("hidden_act", "gelu")?;
        let (hidden, heads) = (config.usize_or("hidden_size", 768)?, config.usize_or("num_attention_heads", 12)?);
        if heads == 0 || hidden == 0 || hidden % heads != 0 {
            return Err(Error::invalid_file(
                config.path(),
                format!("hidden_size = {hidden} is not a positive multiple of num_attention_heads = {heads}"),
            ));
        }
        Ok(BertConfig {
            vocab: config.usize("vocab_size")?,
            hidden,
            layers: config.usize_or("num_hidden_layers", 12)?,
            heads,
            intermediate: config.usize_or("intermediate_size", 3072)?,
            max_positions: config.usize_or("max_position_embeddings", 512)?,
            token_types: config.usize_or("type_vocab_size", 2)?,
            activation: activation::find(activation::HIDDEN_ACT, hidden_act)
                .map_err(|known| config.unsupported("hidden_act", known))?,
            eps: config.f32_or("layer_norm_eps", 1e-12)?,
        })
    }

    /// Hidden states of the last layer: `[tokens, hidden]`.
    pub fn build(&self, b: &mut Builder) -> Value {
        b.label("embeddings");
        let mut lookup = |name: &str, rows, index| {
            let table = b.matrix(format!("embeddings.{name}.weight"), rows, self.hidden);
            Lookup { table, index, offset: 0 }
        };
        let lookups = vec![
            lookup("word_embeddings", self.vocab, Index::Ids),
            lookup("position_embeddings", self.max_positions, Index::Positions),
            lookup("token_type_embeddings", self.token_types, Index::Types),
        ];
        let x = b.embed(lookups);
        let mut x = self.norm(b, x, "embeddings.LayerNorm");
        for i in 0..self.layers {
            x = self.layer(b, x, &format!("encoder.layer.{i}"));
        }
        x
    }

    /// `h = norm(x + attention(x))`, `norm(h + mlp(h))`.
    fn layer(&self, b: &mut Builder, x: Value, layer: &str) -> Value {
        let head_dim = self.hidden / self.heads;
        b.label(format!("{layer}.attention"));
        let qkv = self.qkv(b, x, &format!("{layer}.attention.self"));
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attended = b.attention(Attention { qkv, heads: self.heads, head_dim, scale });
        let projected = self.linear(b, attended, &format!("{layer}.attention.output.dense"), self.hidden, Some(x));
        let h = self.norm(b, projected, &format!("{layer}.attention.output.LayerNorm"));

        b.label(format!("{layer}.mlp"));
        let (weight, bias) = dense(b, &format!("{layer}.intermediate.dense"), self.intermediate, self.hidden);
        let up = b.linear(Linear { x: h, weight, bias: Some(bias), activation: self.activation, residual: None });
        let down = self.linear(b, up, &format!("{layer}.output.dense"), self.intermediate, Some(h));
        self.norm(b, down, &format!("{layer}.output.LayerNorm"))
    }

    /// The three projections as one product: `[tokens, 3 * hidden]`.
    fn qkv(&self, b: &mut Builder, x: Value, attention: &str) -> Value {
        let names = ["query", "key", "value"];
        let weights = names.map(|name| b.tensor(format!("{attention}.{name}.weight"), vec![self.hidden, self.hidden]));
        let biases = names.map(|name| b.tensor(format!("{attention}.{name}.bias"), vec![self.hidden]));
        let (weight, bias) = (b.weight(weights.into()), b.weight(biases.into()));
        b.linear(Linear { x, weight, bias: Some(bias), activation: Activation::Identity, residual: None })
    }

    fn linear(&self, b: &mut Builder, x: Value, name: &str, cols: usize, residual: Option<Value>) -> Value {
        let (weight, bias) = dense(b, name, self.hidden, cols);
        b.linear(Linear { x, weight, bias: Some(bias), activation: Activation::Identity, residual })
    }

    fn norm(&self, b: &mut Builder, x: Value, name: &str) -> Value {
        let weight = b.vector(format!("{name}.weight"), self.hidden);
        let bias = b.vector(format!("{name}.bias"), self.hidden);
        b.norm(Norm { x, weight, bias: Some(bias), eps: self.eps })
    }
}

fn dense(b: &mut Builder, name: &str, out: usize, cols: usize) -> (WeightId, WeightId) {
    (b.matrix(format!("{name}.weight"), out, cols), b.vector(format!("{name}.bias"), out))
}
