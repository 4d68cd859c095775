//! Gemma 3 (2025) as an encoder: Llama's layer with norms on both sides of each part, whose weights are stored less 1, and five
//! of six layers that see a window only. EmbeddingGemma, in which tokens see both directions.

use super::activation;
use super::layers::{check_heads, dense, stacked};
use super::rope::{self, Base};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{
    Attention, Builder, Glu, Half, HeadNorm, Index, Lookup, Norm, NormKind, Part, Rotary, RowNorm, Value, WeightId,
};

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `Gemma3TextConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let hidden = config.usize_or("hidden_size", 2304)?;
    let (heads, kv_heads) = (config.usize_or("num_attention_heads", 8)?, config.usize_or("num_key_value_heads", 4)?);
    check_heads(config, ("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
    if config.get("attn_logit_softcapping").is_some() {
        return Err(config.unsupported("attn_logit_softcapping", "null"));
    }
    let head_dim = config.usize_or("head_dim", 256)?;
    let intermediate = config.usize_or("intermediate_size", 9216)?;
    let layers = config.usize_or("num_hidden_layers", 26)?;
    let activation = activation::hidden_act(config, "hidden_activation", "gelu_pytorch_tanh")?;
    let bias = config.bool_or("attention_bias", false)?;
    let scale = 1.0 / config.f32_or("query_pre_attn_scalar", 256.0)?.sqrt();
    let norm = Gemma { eps: config.f32_or("rms_norm_eps", 1e-6)? };

    let bidirectional = config.bool_or("use_bidirectional_attention", false)?;
    let window = config.usize_or("sliding_window", 4096)?;
    // The window counts the query itself, and in both directions it is half on each side.
    let window = if bidirectional { window / 2 } else { window.saturating_sub(1) };
    let pattern = config.usize_or("sliding_window_pattern", 6)?.max(1);
    let is_local = rope::local_layers(config, layers, |i| !(i + 1).is_multiple_of(pattern))?;
    let positions = config.usize_or("max_position_embeddings", 131_072)?;
    let mut table = |layer_type, key, default| -> Result<WeightId> {
        let table = rope::table_of(b, config, layer_type, Base { key, default }, head_dim, positions)?;
        Ok(b.rotary_table(table))
    };
    let far = table("full_attention", "rope_theta", 1_000_000.0)?;
    let near = table("sliding_attention", "rope_local_base_freq", 10_000.0)?;

    b.wide();
    b.label("embeddings");
    let words = b.tensor("embed_tokens.weight", vec![config.usize_or("vocab_size", 262_208)?, hidden]);
    let scaled = b.weight(vec![Part::Scaled(words, (hidden as f32).sqrt().to_bits())]);
    let mut x = b.embed(vec![Lookup { table: scaled, index: Index::Ids, offset: 0 }]);
    for (i, is_local) in is_local.into_iter().enumerate() {
        let name = |name: &str| format!("layers.{i}.{name}");
        b.label(name("attention"));
        let h = norm.of(b, &name("input_layernorm"), x, None);
        let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
        let parts = parts.map(|(part, heads)| (name(&format!("self_attn.{part}")), heads * head_dim));
        let qkv = stacked(parts).bias(bias).of(b, h);
        let qkv = norm.of_heads(b, &name("self_attn"), [heads, kv_heads, 0], head_dim, qkv);
        let qkv = b.rotary(Rotary { qkv, heads: heads + kv_heads, head_dim, table: if is_local { near } else { far } });
        let window = is_local.then_some(window);
        let attention = Attention { kv_heads, scale, window, ..Attention::new(qkv, heads, head_dim) };
        let attended = b.attention(Attention { causal: !bidirectional, ..attention });
        let projected = dense(name("self_attn.o_proj"), hidden).bias(bias).of(b, attended);
        x = norm.of(b, &name("post_attention_layernorm"), projected, Some(x));

        b.label(name("mlp"));
        let h = norm.of(b, &name("pre_feedforward_layernorm"), x, None);
        let halves = ["mlp.gate_proj", "mlp.up_proj"].map(|half| (name(half), intermediate));
        let up = stacked(halves).bias(false).of(b, h);
        let gated = b.glu(Glu { x: up, activation, activated: Half::First });
        let down = dense(name("mlp.down_proj"), hidden).bias(false).of(b, gated);
        x = norm.of(b, &name("post_feedforward_layernorm"), down, Some(x));
    }
    b.label("norm");
    Ok(norm.of(b, "norm", x, None))
}

/// Its norms, whose weights are 1 more than what is stored.
struct Gemma {
    eps: f32,
}

impl Gemma {
    /// The norm of `x`, and `residual` added.
    fn of(&self, b: &mut Builder, name: &str, x: Value, residual: Option<Value>) -> Value {
        let weight = b.tensor(format!("{name}.weight"), vec![b.shape(x).cols]);
        let weight = b.weight(vec![Part::PlusOne(weight)]);
        b.norm(Norm { x, norm: RowNorm { kind: NormKind::Rms, weight, bias: None, eps: self.eps }, residual })
    }

    fn of_heads(&self, b: &mut Builder, prefix: &str, groups: [usize; 3], group: usize, qkv: Value) -> Value {
        let part = |norm: &str| Part::PlusOne(b.tensor(format!("{prefix}.{norm}.weight"), vec![group]));
        let weight = vec![part("q_norm"), part("k_norm")];
        let weight = b.weight(weight);
        b.head_norm(HeadNorm { qkv, kind: NormKind::Rms, groups, group, weight, bias: None, eps: self.eps })
    }
}
