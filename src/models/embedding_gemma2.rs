//! EmbeddingGemma 2 (2026), as far as it reads text: Gemma 3's layer with v normalised, too, layers that see everything with
//! wider heads, and behind each layer a gate by a projection of the tokens' embeddings.

use super::activation;
use super::layers::{check_heads, dense, embed_ids_scaled, rms_norm, stacked};
use super::rope::{self, Base};
use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{
    Activation, Attention, Builder, Glu, Half, HeadNorm, Linear, Norm, NormKind, Part, Rotary, RowNorm, Sum, Value,
    WeightId,
};

/// What all layers share.
struct Gemma {
    hidden: usize,
    intermediate: usize,
    activation: Activation,
    eps: f32,
    bias: bool,
    /// Columns of what gates a layer.
    gate: usize,
    layers: usize,
}

/// How a layer attends.
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    table: WeightId,
    window: Option<usize>,
}

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `EmbeddingGemma2TextConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let hidden = config.usize_or("hidden_size", 512)?;
    let gemma = Gemma {
        hidden,
        intermediate: config.usize_or("intermediate_size", 2048)?,
        activation: activation::hidden_act(config, "hidden_activation", "gelu_pytorch_tanh")?,
        eps: config.f32_or("rms_norm_eps", 1e-6)?,
        bias: config.bool_or("attention_bias", false)?,
        gate: config.usize_or("hidden_size_per_layer_input", 512)?,
        layers: config.usize_or("num_hidden_layers", 24)?,
    };
    if !gemma.gate.is_multiple_of(4) {
        return Err(config.unsupported("hidden_size_per_layer_input", "a multiple of 4"));
    }
    let heads = heads(b, config, gemma.layers)?;

    b.wide();
    b.label("embeddings");
    let embeddings = embed_ids_scaled(b, "embed_tokens", config.usize_or("vocab_size", 262_144)?, hidden);
    let mut x = embeddings;
    for (i, heads) in heads.iter().enumerate() {
        x = gemma.attention(b, i, heads, x);
        x = gemma.mlp(b, i, x);
        x = gemma.gated(b, i, embeddings, x)?;
    }
    b.label("norm");
    let x = rms_norm(b, "norm", gemma.eps, x);
    Ok(dense("embedding_projection", config.usize_or("embedding_dim", 768)?).bias(false).of(b, x))
}

/// Of each layer: `per_layer_config` names those that differ, as the ones do that see everything.
fn heads(b: &mut Builder, config: &JsonFile, layers: usize) -> Result<Vec<Heads>> {
    let pattern = config.usize_or("sliding_window_pattern", 6)?.max(1);
    let mut is_local = rope::local_layers(config, layers, |i| !(i + 1).is_multiple_of(pattern))?;
    if let Some(last) = is_local.last_mut() {
        *last = false;
    }
    let (heads, kv_heads) = (config.usize_or("num_attention_heads", 4)?, config.usize_or("num_key_value_heads", 2)?);
    let (head_dim, window) = (config.usize_or("head_dim", 256)?, config.usize_or("sliding_window", 512)?);
    let positions = config.usize_or("max_position_embeddings", 262_144)?;
    let own = config.object_opt("per_layer_config")?;
    if let Some(layer) = own.iter().flat_map(|own| own.keys()).find(|key| !key.parse().is_ok_and(|i: usize| i < layers))
    {
        let detail = format!("per_layer_config: {layer:?} is none of {layers} layers");
        return Err(Error::invalid_file(config.path(), detail));
    }
    let layer = |(i, is_local): (usize, bool)| {
        let (mut kv_heads, mut head_dim) = (kv_heads, head_dim);
        match &own {
            Some(own) => {
                if let Some(own) = own.object_opt(&i.to_string())? {
                    const KNOWN: [&str; 2] = ["head_dim", "num_key_value_heads"];
                    if let Some(key) = own.keys().find(|key| !KNOWN.contains(key)) {
                        return Err(own.unsupported(key, KNOWN.join(", ")));
                    }
                    kv_heads = own.usize_or("num_key_value_heads", kv_heads)?;
                    head_dim = own.usize_or("head_dim", head_dim)?;
                }
            }
            None if !is_local && !config.contains("per_layer_config") => {
                kv_heads = config.usize_or("num_global_key_value_heads", 1)?;
                head_dim = config.usize_or("global_head_dim", 512)?;
            }
            None => {}
        }
        check_heads(config, ("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        let (layer_type, default) =
            if is_local { ("sliding_attention", 10_000.0) } else { ("full_attention", 1_000_000.0) };
        let base = Base { key: "rope_theta", default };
        let table = rope::table_of(b, config, layer_type, base, head_dim, positions)?;
        let table = b.rotary_table(table);
        Ok(Heads { heads, kv_heads, head_dim, table, window: is_local.then_some(window) })
    };
    is_local.into_iter().enumerate().map(layer).collect()
}

impl Gemma {
    fn attention(&self, b: &mut Builder, i: usize, of: &Heads, x: Value) -> Value {
        let name = |name: &str| format!("layers.{i}.{name}");
        let &Heads { heads, kv_heads, head_dim, table, window } = of;
        b.label(name("attention"));
        let h = rms_norm(b, &name("input_layernorm"), self.eps, x);
        let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
        let parts = parts.map(|(part, heads)| (name(&format!("self_attn.{part}")), heads * head_dim));
        let qkv = stacked(parts).bias(self.bias).of(b, h);
        let norms =
            ["q_norm", "k_norm"].map(|norm| b.tensor(name(&format!("self_attn.{norm}.weight")), vec![head_dim]));
        let weight = b.weight(norms.into_iter().map(Part::from).chain([Part::Ones(head_dim)]).collect());
        let (groups, kind) = ([heads, kv_heads, kv_heads], NormKind::Rms);
        let qkv = b.head_norm(HeadNorm { qkv, kind, groups, group: head_dim, weight, bias: None, eps: self.eps });
        let qkv = b.rotary(Rotary { qkv, heads: heads + kv_heads, head_dim, table });
        let attended = b.attention(Attention { kv_heads, scale: 1.0, window, ..Attention::new(qkv, heads, head_dim) });
        let projected = dense(name("self_attn.o_proj"), self.hidden).bias(self.bias).of(b, attended);
        self.add(b, &name("post_attention_layernorm"), projected, x)
    }

    fn mlp(&self, b: &mut Builder, i: usize, x: Value) -> Value {
        let name = |name: &str| format!("layers.{i}.{name}");
        b.label(name("mlp"));
        let h = rms_norm(b, &name("pre_feedforward_layernorm"), self.eps, x);
        let halves = ["mlp.gate_proj", "mlp.up_proj"].map(|half| (name(half), self.intermediate));
        let up = stacked(halves).bias(false).of(b, h);
        let gated = b.glu(Glu { x: up, activation: self.activation, activated: Half::First });
        let down = dense(name("mlp.down_proj"), self.hidden).bias(false).of(b, gated);
        self.add(b, &name("post_feedforward_layernorm"), down, x)
    }

    /// `x` and what a gate lets through of the embeddings' projection for this layer, all times the layer's number.
    fn gated(&self, b: &mut Builder, i: usize, embeddings: Value, x: Value) -> Result<Value> {
        let name = |name: &str| format!("layers.{i}.{name}");
        b.label(name("ple_block"));
        let all = b.tensor("ple.per_layer_model_projection.weight", vec![self.layers * self.gate, self.hidden]);
        let weight = b.weight(vec![Part::Rows(all, i * self.gate, self.gate)]);
        let (bias, residual) = (None, None);
        let own = b.linear(Linear { x: embeddings, weight, bias, activation: Activation::Identity, residual });
        // The projection is scaled by 1 / sqrt(hidden), of which the norm's eps alone takes notice.
        let own = rms_norm(b, "ple.per_layer_projection_norm", self.eps * self.hidden as f32, own);
        let gate = dense(name("ple_block.per_layer_input_gate"), self.gate).bias(false).of(b, x);
        let both = b.join(vec![gate, own]);
        let gated = b.glu(Glu { x: both, activation: self.activation, activated: Half::First });
        let projected = dense(name("ple_block.per_layer_projection"), self.hidden).bias(false).of(b, gated);
        let projected = rms_norm(b, &name("ple_block.post_per_layer_input_norm"), self.eps, projected);
        let factor = b.number(name("layer_scalar"))?;
        Ok(b.sum(Sum { x, x_factor: factor, other: projected, factor }))
    }

    /// The norm of `y`, and `x` added.
    fn add(&self, b: &mut Builder, name: &str, y: Value, x: Value) -> Value {
        let weight = b.vector(format!("{name}.weight"), self.hidden);
        let norm = RowNorm { kind: NormKind::Rms, weight, bias: None, eps: self.eps };
        b.norm(Norm { x: y, norm, residual: Some(x) })
    }
}
