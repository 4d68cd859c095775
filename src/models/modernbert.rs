//! ModernBERT (Warner et al. 2024): pre-norm, rotary positions, gated feed-forward networks, and two of three layers see a
//! window only. modernbert-embed, gte-modernbert, granite-embedding-r2, ettin, ruri-v3.

use super::activation;
use super::layers::{check_heads, cls_or_mean, dense, embed_normed_with, ids, layer_norm_with};
use super::masked_lm::Head;
use super::rope::{self, Base};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Attention, Builder, Glu, Half, Pool, Rotary, Value, WeightId};

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `ModernBertConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let (hidden, heads) = (config.usize_or("hidden_size", 768)?, config.usize_or("num_attention_heads", 12)?);
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    let head_dim = hidden / heads;
    let layers = config.usize_or("num_hidden_layers", 22)?;
    let intermediate = config.usize_or("intermediate_size", 1152)?;
    let activation = activation::hidden_act(config, "hidden_activation", "gelu")?;
    let (attention_bias, mlp_bias) = (config.bool_or("attention_bias", false)?, config.bool_or("mlp_bias", false)?);
    let norm = Norm::from_json(config)?;

    let every = config.usize_or("global_attn_every_n_layers", 3)?.max(1);
    let is_local = rope::local_layers(config, layers, |i| !i.is_multiple_of(every))?;
    let window = match config.usize_opt("sliding_window")? {
        Some(window) => window,
        None => config.usize_or("local_attention", 128)? / 2,
    };
    let positions = config.usize_or("max_position_embeddings", 8192)?;
    let mut table = |layer_type, key, default| -> Result<WeightId> {
        let table = rope::table_of(b, config, layer_type, Base { key, default }, head_dim, positions)?;
        Ok(b.rotary_table(table))
    };
    let far = table("full_attention", "global_rope_theta", 160_000.0)?;
    let near = table("sliding_attention", "local_rope_theta", 10_000.0)?;

    b.label("embeddings");
    let words = ids(b, "embeddings.tok_embeddings", config.usize_or("vocab_size", 50_368)?, hidden);
    let mut x = embed_normed_with(b, vec![words], "embeddings.norm", norm.eps, norm.bias);
    for (i, is_local) in is_local.into_iter().enumerate() {
        let name = |name: &str| format!("layers.{i}.{name}");
        b.label(name("attention"));
        let h = if i == 0 { x } else { norm.of(b, &name("attn_norm"), x) };
        let qkv = dense(name("attn.Wqkv"), 3 * hidden).bias(attention_bias).of(b, h);
        let table = if is_local { near } else { far };
        let qkv = b.rotary(Rotary { qkv, heads: 2 * heads, head_dim, table });
        let window = is_local.then_some(window);
        let attended = b.attention(Attention { window, ..Attention::new(qkv, heads, head_dim) });
        x = dense(name("attn.Wo"), hidden).bias(attention_bias).plus(x).of(b, attended);

        b.label(name("mlp"));
        let h = norm.of(b, &name("mlp_norm"), x);
        let up = dense(name("mlp.Wi"), 2 * intermediate).bias(mlp_bias).of(b, h);
        let gated = b.glu(Glu { x: up, activation, activated: Half::First });
        x = dense(name("mlp.Wo"), hidden).bias(mlp_bias).plus(x).of(b, gated);
    }
    b.label("final_norm");
    Ok(norm.of(b, "final_norm", x))
}

/// The first token, or the mean, through the prediction head and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, config: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let activation = activation::hidden_act(config, "classifier_activation", "gelu")?;
    let (hidden, bias) = (b.shape(x).cols, config.bool_or("classifier_bias", false)?);
    let pooled = b.pool(Pool::new(x, cls_or_mean(config)?));
    let h = dense("head.dense", hidden).bias(bias).activation(activation).of(b, pooled);
    let h = Norm::from_json(config)?.of(b, "head.norm", h);
    Ok(dense("classifier", labels).of(b, h))
}

/// The head of its masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    let norm = Norm::from_json(config)?;
    Ok(Head {
        dense: ("head.dense", config.usize_or("hidden_size", 768)?),
        dense_bias: config.bool_or("classifier_bias", false)?,
        activation: activation::hidden_act(config, "classifier_activation", "gelu")?,
        norm: "head.norm",
        norm_bias: norm.bias,
        eps: norm.eps,
        tokens: "embeddings.tok_embeddings.weight",
        decoder: "decoder.weight",
        bias: config.bool_or("decoder_bias", true)?.then_some(("decoder.bias", "decoder.bias")),
    })
}

/// Its layer norms, which have no bias as a rule.
struct Norm {
    eps: f32,
    bias: bool,
}

impl Norm {
    fn from_json(config: &JsonFile) -> Result<Norm> {
        Ok(Norm { eps: config.f32_or("norm_eps", 1e-5)?, bias: config.bool_or("norm_bias", false)? })
    }

    fn of(&self, b: &mut Builder, name: &str, x: Value) -> Value {
        layer_norm_with(b, name, self.eps, self.bias, x)
    }
}
