//! GTE (Zhang et al. 2024): BERT with rotary positions and gated feed-forward networks. `new` is the original's model type,
//! `gte` transformers' own; the tensors are the same. gte-v1.5, gte-multilingual, stella, arctic-embed-m-v2.

use super::activation;
use super::layers::{check_heads, dense, embed_normed};
use super::post_norm::PostNorm;
use super::rope::{self, Base};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Builder, Glu, Half, Index, Lookup, Value};

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `GteConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let (hidden, heads) = (config.usize_or("hidden_size", 768)?, config.usize_or("num_attention_heads", 12)?);
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    if config.str_or("position_embedding_type", "rope")? != "rope" {
        return Err(config.unsupported("position_embedding_type", "rope"));
    }
    if config.str_or("layer_norm_type", "layer_norm")? != "layer_norm" {
        return Err(config.unsupported("layer_norm_type", "layer_norm"));
    }
    for key in ["logn_attention_scale", "logn_attention_clip1"] {
        if config.bool_or(key, false)? {
            return Err(config.unsupported(key, "false"));
        }
    }
    let positions = config.usize_or("max_position_embeddings", 8192)?;
    let table = rope::table(b, config, Base { key: "rope_theta", default: 160_000.0 }, hidden / heads, positions)?;
    let eps = config.f32_or("layer_norm_eps", 1e-12)?;
    let layer = PostNorm { rotary: Some(b.rotary_table(table)), ..PostNorm::new(heads, eps) };
    let intermediate = config.usize_or("intermediate_size", 3072)?;
    let activation = activation::hidden_act(config, "hidden_act", "gelu")?;

    b.label("embeddings");
    let words = b.matrix("embeddings.word_embeddings.weight", config.usize_or("vocab_size", 250_048)?, hidden);
    let mut lookups = vec![Lookup { table: words, index: Index::Ids, offset: 0 }];
    let token_types = config.usize_or("type_vocab_size", 1)?;
    if token_types > 0 {
        let table = b.matrix("embeddings.token_type_embeddings.weight", token_types, hidden);
        lookups.push(Lookup { table, index: Index::Types, offset: 0 });
    }
    let mut x = embed_normed(b, lookups, "embeddings.LayerNorm", eps);
    for i in 0..config.usize_or("num_hidden_layers", 12)? {
        let name = |name: &str| format!("encoder.layer.{i}.{name}");
        b.label(name("attention"));
        let qkv = dense(name("attention.qkv_proj"), 3 * hidden).of(b, x);
        let h = layer.attend(b, x, qkv, dense(name("attention.o_proj"), hidden), &name("attn_ln"));

        b.label(name("mlp"));
        let up = dense(name("mlp.up_gate_proj"), 2 * intermediate).bias(false).of(b, h);
        let gated = b.glu(Glu { x: up, activation, activated: Half::Second });
        x = layer.add(b, h, gated, dense(name("mlp.down_proj"), hidden), &name("mlp_ln"));
    }
    Ok(x)
}
