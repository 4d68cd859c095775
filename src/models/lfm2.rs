//! LFM2 (Liquid AI 2025): Llama's layer with heads of q and k that are normalised, and short convolutions in most layers in the place
//! of attention. LFM2-ColBERT.

use super::layers::{check_heads, dense, embed_ids, rms_norm, stacked};
use super::rope::{self, Base, is_causal};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{
    Activation, Attention, Builder, Glu, Half, HeadNorm, NormKind, Part, Rotary, ShortConv, Value, WeightId,
};

/// What all layers share.
struct Lfm2 {
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
    eps: f32,
    causal: bool,
    table: WeightId,
    taps: usize,
    conv_bias: bool,
}

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `Lfm2Config`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let (hidden, heads) = (config.usize_or("hidden_size", 2560)?, config.usize_or("num_attention_heads", 32)?);
    let kv_heads = config.usize_or("num_key_value_heads", 8)?;
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    check_heads(config, ("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
    let positions = config.usize_or("max_position_embeddings", 128_000)?;
    let base = Base { key: "rope_theta", default: 1_000_000.0 };
    let head_dim = config.usize_or("head_dim", hidden / heads)?;
    let table = rope::table(b, config, base, head_dim, positions)?;
    let taps = config.usize_or("conv_L_cache", 3)?;
    if taps == 0 {
        return Err(config.invalid("conv_L_cache", "at least 1"));
    }
    let model = Lfm2 {
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate: intermediate(config)?,
        eps: config.f32_or("norm_eps", 1e-5)?,
        causal: is_causal(config)?,
        table: b.rotary_table(table),
        taps,
        conv_bias: config.bool_or("conv_bias", false)?,
    };

    b.label("embeddings");
    let mut x = embed_ids(b, "embed_tokens", config.usize_or("vocab_size", 65_536)?, hidden);
    for (i, convolves) in convolutions(config)?.into_iter().enumerate() {
        let name = |name: &str| format!("layers.{i}.{name}");
        b.label(name(if convolves { "conv" } else { "attention" }));
        let h = rms_norm(b, &name("operator_norm"), model.eps, x);
        x = match convolves {
            true => model.convolve(b, &name("conv"), h, x),
            false => model.attend(b, &name("self_attn"), h, x),
        };
        b.label(name("mlp"));
        let h = rms_norm(b, &name("ffn_norm"), model.eps, x);
        let halves = ["feed_forward.w1", "feed_forward.w3"].map(|half| (name(half), model.intermediate));
        let up = stacked(halves).bias(false).of(b, h);
        let gated = b.glu(Glu { x: up, activation: Activation::Silu, activated: Half::First });
        x = dense(name("feed_forward.w2"), hidden).bias(false).plus(x).of(b, gated);
    }
    b.label("embedding_norm");
    Ok(rms_norm(b, "embedding_norm", model.eps, x))
}

/// Columns inside the feed-forward networks: two thirds of what the configuration says, up to a whole multiple, unless that is
/// switched off.
fn intermediate(config: &JsonFile) -> Result<usize> {
    let stated = config.usize_opt("block_ff_dim")?.map_or_else(|| config.usize_or("intermediate_size", 12_288), Ok)?;
    if !config.bool_or("block_auto_adjust_ff_dim", true)? {
        return Ok(stated);
    }
    let less = 2 * stated / 3;
    let key = "block_ffn_dim_multiplier";
    config.f32_opt(key)?; // a number, if it is there
    let factor = match config.get(key).and_then(|factor| factor.as_f64()) {
        None if config.contains(key) => return Ok(less),
        factor => factor.unwrap_or(1.0),
    };
    let less = (factor * less as f64) as usize;
    Ok(less.next_multiple_of(config.usize_or("block_multiple_of", 256)?.max(1)))
}

/// Of each layer, whether it convolves: else it attends.
fn convolutions(config: &JsonFile) -> Result<Vec<bool>> {
    let layers = config.usize_or("num_hidden_layers", 32)?;
    let attend = config.get("full_attn_idxs").and_then(|list| list.as_array());
    let convolves = |i: usize| attend.is_some_and(|list| list.iter().all(|index| index.as_u64() != Some(i as u64)));
    rope::layers_of_type("conv", config, layers, convolves)
}

impl Lfm2 {
    fn attend(&self, b: &mut Builder, prefix: &str, h: Value, x: Value) -> Value {
        let &Lfm2 { hidden, heads, kv_heads, head_dim, table, causal, eps, .. } = self;
        let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
        let parts = parts.map(|(part, heads)| (format!("{prefix}.{part}"), heads * head_dim));
        let qkv = stacked(parts).bias(false).of(b, h);
        let norms = ["q_layernorm", "k_layernorm"];
        let norms = norms.map(|norm| b.tensor(format!("{prefix}.{norm}.weight"), vec![head_dim]).into());
        let (weight, groups, kind) = (b.weight(norms.into()), [heads, kv_heads, 0], NormKind::Rms);
        let qkv = b.head_norm(HeadNorm { qkv, kind, groups, group: head_dim, weight, bias: None, eps });
        let qkv = b.rotary(Rotary { qkv, heads: heads + kv_heads, head_dim, table });
        let attended = b.attention(Attention { kv_heads, causal, ..Attention::new(qkv, heads, head_dim) });
        dense(format!("{prefix}.out_proj"), hidden).bias(false).plus(x).of(b, attended)
    }

    fn convolve(&self, b: &mut Builder, prefix: &str, h: Value, x: Value) -> Value {
        let hidden = self.hidden;
        let bcx = dense(format!("{prefix}.in_proj"), 3 * hidden).bias(self.conv_bias).of(b, h);
        // Stored as [columns, 1, taps].
        let stored = b.tensor(format!("{prefix}.conv.weight"), vec![hidden, 1, self.taps]);
        let weight = b.weight(vec![Part::Transposed(stored)]);
        let bias = self.conv_bias.then(|| b.vector(format!("{prefix}.conv.bias"), hidden));
        let mixed = b.short_conv(ShortConv { bcx, weight, bias });
        dense(format!("{prefix}.out_proj"), hidden).bias(self.conv_bias).plus(x).of(b, mixed)
    }
}
