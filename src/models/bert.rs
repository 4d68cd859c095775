//! BERT (Devlin et al. 2018): learned positions, post-norm layers. all-MiniLM, bge, e5, gte, mxbai, arctic-embed, LaBSE,
//! ms-marco-MiniLM.

use super::activation;
use super::layers::{check_heads, dense, embed_normed};
use super::masked_lm::Head;
use super::post_norm::{Mlp, Names, PostNorm};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Index, Lookup, Part, Pool, PoolMode, Shifted, Value};

/// The numbers that shape a BERT encoder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BertConfig {
    /// Rows of the word table.
    pub vocab: usize,
    /// Columns of the tables.
    pub embedding: usize,
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
    /// Row of the first position.
    pub first_position: u32,
    /// Rows of the token type table.
    pub token_types: usize,
    /// Rows of the table of tasks, of which every token gets the first; 0 if there is no such table.
    pub tasks: usize,
    /// Of the feed-forward network.
    pub activation: Activation,
    /// Of every layer norm.
    pub eps: f32,
}

/// The tensors of a layer.
pub(super) const NAMES: Names = Names {
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    projection: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

/// The backbone that `config.json` describes.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    Ok(BertConfig::from_json(config)?.build(b))
}

/// The first token through the pooler and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, _: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let pooled = dense("pooler.dense", hidden).activation(Activation::Tanh).of(b, first);
    Ok(dense("classifier", labels).of(b, pooled))
}

/// The head of its masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    let bert = BertConfig::from_json(config)?;
    Ok(Head {
        dense: ("cls.predictions.transform.dense", bert.hidden),
        dense_bias: true,
        activation: bert.activation,
        norm: "cls.predictions.transform.LayerNorm",
        norm_bias: true,
        eps: bert.eps,
        tokens: "embeddings.word_embeddings.weight",
        decoder: "cls.predictions.decoder.weight",
        bias: Some(("cls.predictions.decoder.bias", "cls.predictions.bias")),
    })
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
        let (hidden, heads) = (config.usize_or("hidden_size", 768)?, config.usize_or("num_attention_heads", 12)?);
        check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
        Ok(BertConfig {
            vocab: config.usize("vocab_size")?,
            embedding: hidden,
            hidden,
            layers: config.usize_or("num_hidden_layers", 12)?,
            heads,
            intermediate: config.usize_or("intermediate_size", 3072)?,
            max_positions: config.usize_or("max_position_embeddings", 512)?,
            first_position: 0,
            token_types: config.usize_or("type_vocab_size", 2)?,
            tasks: 0,
            activation: activation::hidden_act(config, "hidden_act", "gelu")?,
            eps: config.f32_or("layer_norm_eps", 1e-12)?,
        })
    }

    /// Hidden states of the last layer: `[tokens, hidden]`.
    pub fn build(&self, b: &mut Builder) -> Value {
        let x = self.embeddings(b);
        b.hidden_state(x);
        self.encoder(b, x)
    }

    /// The sum of the tables, normalised: `[tokens, embedding]`.
    pub(super) fn embeddings(&self, b: &mut Builder) -> Value {
        b.label("embeddings");
        let table =
            |b: &Builder, name: &str, rows| b.tensor(format!("embeddings.{name}.weight"), vec![rows, self.embedding]);
        let types = table(b, "token_type_embeddings", self.token_types);
        let types = match self.tasks {
            0 => types.into(),
            tasks => Part::Shifted(Box::new(Shifted { table: types, by: table(b, "task_type_embeddings", tasks) })),
        };
        let words = table(b, "word_embeddings", self.vocab).into();
        let positions = table(b, "position_embeddings", self.max_positions).into();
        let mut lookup = |part: Part, index, offset| Lookup { table: b.weight(vec![part]), index, offset };
        let lookups = vec![
            lookup(words, Index::Ids, 0),
            lookup(positions, Index::Positions, self.first_position),
            lookup(types, Index::Types, 0),
        ];
        embed_normed(b, lookups, "embeddings.LayerNorm", self.eps)
    }

    /// All layers.
    pub(super) fn encoder(&self, b: &mut Builder, mut x: Value) -> Value {
        let layer = PostNorm::new(self.heads, self.eps);
        let mlp = Mlp { intermediate: self.intermediate, activation: self.activation };
        for i in 0..self.layers {
            x = layer.layer(b, &format!("encoder.layer.{i}"), &NAMES, mlp, x);
            b.hidden_state(x);
        }
        x
    }
}
