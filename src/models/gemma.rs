//! Gemma (2024 and 2025) as an encoder: Llama's layer with norms whose weights are stored less 1. Gemma 2 and 3 have norms behind
//! each part, too, and layers that see a window only; Gemma 2 caps its scores, Gemma 3 normalises heads. EmbeddingGemma (3, in which
//! tokens see both directions), bge-multilingual-gemma2, bge-reranker-v2-gemma.

use super::activation;
use super::layers::{check_heads, dense, embed_ids_scaled, stacked};
use super::rope::{self, Base, is_causal};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{
    Activation, Attention, Builder, Glu, Half, HeadNorm, Norm, NormKind, Part, Rotary, RowNorm, Value, WeightId,
};

/// What shapes such a backbone.
struct Gemma {
    vocab: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
    activation: Activation,
    bias: bool,
    eps: f32,
    scale: f32,
    softcap: Option<f32>,
    causal: bool,
    /// Whether each head of q and k is normalised.
    head_norms: bool,
    /// Whether what attention and the feed-forward network give is normalised.
    norms_behind: bool,
    /// Of each layer, with the table that turns its heads.
    layers: Vec<(Option<usize>, WeightId)>,
}

/// The first version: `config.json` with the defaults of transformers' `GemmaConfig`.
pub(super) fn gemma(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let mut model =
        Gemma::from_json(config, Defaults { vocab: 256_000, hidden: 3072, intermediate: 24_576, heads: [16, 16] })?;
    // Its files say "gelu" and mean this, as transformers knows.
    model.activation = match config.str_or("hidden_act", "gelu")? {
        "gelu" => Activation::GeluTanh,
        _ => activation::hidden_act(config, "hidden_act", "gelu")?,
    };
    (model.norms_behind, model.scale) = (false, 1.0 / (model.head_dim as f32).sqrt());
    model.causal = is_causal(config)?;
    let layers = config.usize_or("num_hidden_layers", 28)?;
    let table = table(b, config, model.head_dim)?;
    model.layers = vec![(None, table); layers];
    Ok(model.build(b))
}

/// The second: `Gemma2Config`.
pub(super) fn gemma2(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 256_000, hidden: 2304, intermediate: 9216, heads: [8, 4] };
    let mut model = Gemma::from_json(config, defaults)?;
    (model.softcap, model.causal) = (softcap(config)?, is_causal(config)?);
    let layers = config.usize_or("num_hidden_layers", 26)?;
    let window = config.usize_or("sliding_window", 4096)?;
    // A causal window counts the query itself, one in both directions does not.
    let window = if model.causal { window.saturating_sub(1) } else { window };
    let is_local = rope::local_layers(config, layers, |i| i.is_multiple_of(2))?;
    let table = table(b, config, model.head_dim)?;
    model.layers = is_local.into_iter().map(|is_local| (is_local.then_some(window), table)).collect();
    Ok(model.build(b))
}

/// The third: `Gemma3TextConfig`.
pub(super) fn gemma3(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 262_208, hidden: 2304, intermediate: 9216, heads: [8, 4] };
    let mut model = Gemma::from_json(config, defaults)?;
    if config.get("attn_logit_softcapping").is_some() {
        return Err(config.unsupported("attn_logit_softcapping", "null"));
    }
    model.head_norms = true;
    let halves = config.bool_or("use_bidirectional_attention", false)?;
    model.causal = !halves && config.bool_or("is_causal", true)?;
    let layers = config.usize_or("num_hidden_layers", 26)?;
    let window = config.usize_or("sliding_window", 4096)?;
    let window = match (halves, model.causal) {
        (true, _) => window / 2,
        // It counts the query itself.
        (false, true) => window.saturating_sub(1),
        (false, false) => window,
    };
    let pattern = config.usize_or("sliding_window_pattern", 6)?.max(1);
    let is_local = rope::local_layers(config, layers, |i| !(i + 1).is_multiple_of(pattern))?;
    let positions = config.usize_or("max_position_embeddings", 131_072)?;
    let mut table = |layer_type, key, default| -> Result<WeightId> {
        let table = rope::table_of(b, config, layer_type, Base { key, default }, model.head_dim, positions)?;
        Ok(b.rotary_table(table))
    };
    let far = table("full_attention", "rope_theta", 1_000_000.0)?;
    let near = table("sliding_attention", "rope_local_base_freq", 10_000.0)?;
    let layer = |is_local| if is_local { (Some(window), near) } else { (None, far) };
    model.layers = is_local.into_iter().map(layer).collect();
    Ok(model.build(b))
}

/// What scores are capped at.
fn softcap(config: &JsonFile) -> Result<Option<f32>> {
    let key = "attn_logit_softcapping";
    let softcap = if config.contains(key) { config.f32_opt(key)? } else { Some(50.0) };
    match softcap.is_none_or(|softcap| softcap > 0.0 && softcap.is_finite()) {
        true => Ok(softcap),
        false => Err(config.invalid(key, "a positive number, or null")),
    }
}

/// The table of a backbone whose layers all turn alike.
fn table(b: &mut Builder, config: &JsonFile, head_dim: usize) -> Result<WeightId> {
    let positions = config.usize_or("max_position_embeddings", 8192)?;
    let table = rope::table(b, config, Base { key: "rope_theta", default: 10_000.0 }, head_dim, positions)?;
    Ok(b.rotary_table(table))
}

/// What stands where a configuration is silent, as far as the versions differ.
struct Defaults {
    vocab: usize,
    hidden: usize,
    intermediate: usize,
    /// Of q, and of k and v.
    heads: [usize; 2],
}

impl Gemma {
    /// What the versions share, by the keys of the later ones. Layers, and what else differs, are to come.
    fn from_json(config: &JsonFile, defaults: Defaults) -> Result<Gemma> {
        let [heads, kv_heads] = defaults.heads;
        let heads = config.usize_or("num_attention_heads", heads)?;
        let kv_heads = config.usize_or("num_key_value_heads", kv_heads)?;
        check_heads(config, ("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        Ok(Gemma {
            vocab: config.usize_or("vocab_size", defaults.vocab)?,
            hidden: config.usize_or("hidden_size", defaults.hidden)?,
            heads,
            kv_heads,
            head_dim: config.usize_or("head_dim", 256)?,
            intermediate: config.usize_or("intermediate_size", defaults.intermediate)?,
            activation: activation::hidden_act(config, "hidden_activation", "gelu_pytorch_tanh")?,
            bias: config.bool_or("attention_bias", false)?,
            eps: config.f32_or("rms_norm_eps", 1e-6)?,
            scale: 1.0 / config.f32_or("query_pre_attn_scalar", 256.0)?.sqrt(),
            softcap: None,
            causal: true,
            head_norms: false,
            norms_behind: true,
            layers: vec![],
        })
    }

    /// Hidden states of the last layer, normalised: `[tokens, hidden]`.
    fn build(&self, b: &mut Builder) -> Value {
        b.wide();
        b.label("embeddings");
        let mut x = embed_ids_scaled(b, "embed_tokens", self.vocab, self.hidden);
        for (i, &(window, table)) in self.layers.iter().enumerate() {
            let name = |name: &str| format!("layers.{i}.{name}");
            let (behind, before) = match self.norms_behind {
                true => (Some("post_attention_layernorm"), "pre_feedforward_layernorm"),
                false => (None, "post_attention_layernorm"),
            };
            b.label(name("attention"));
            let h = self.norm(b, &name("input_layernorm"), x, None);
            let attended = self.attend(b, &name("self_attn"), window, table, h);
            x = self.add(b, &name("self_attn.o_proj"), self.bias, behind.map(name), attended, x);

            b.label(name("mlp"));
            let h = self.norm(b, &name(before), x, None);
            let halves = ["mlp.gate_proj", "mlp.up_proj"].map(|half| (name(half), self.intermediate));
            let up = stacked(halves).bias(false).of(b, h);
            let gated = b.glu(Glu { x: up, activation: self.activation, activated: Half::First });
            let behind = self.norms_behind.then(|| name("post_feedforward_layernorm"));
            x = self.add(b, &name("mlp.down_proj"), false, behind, gated, x);
        }
        b.label("norm");
        self.norm(b, "norm", x, None)
    }

    fn attend(&self, b: &mut Builder, prefix: &str, window: Option<usize>, table: WeightId, x: Value) -> Value {
        let &Gemma { heads, kv_heads, head_dim, scale, softcap, causal, .. } = self;
        let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
        let parts = parts.map(|(part, heads)| (format!("{prefix}.{part}"), heads * head_dim));
        let mut qkv = stacked(parts).bias(self.bias).of(b, x);
        if self.head_norms {
            let part = |norm: &str| Part::PlusOne(b.tensor(format!("{prefix}.{norm}.weight"), vec![head_dim]));
            let weight = vec![part("q_norm"), part("k_norm")];
            let (weight, groups, kind) = (b.weight(weight), [heads, kv_heads, 0], NormKind::Rms);
            qkv = b.head_norm(HeadNorm { qkv, kind, groups, group: head_dim, weight, bias: None, eps: self.eps });
        }
        let qkv = b.rotary(Rotary { qkv, heads: heads + kv_heads, head_dim, table });
        let plain = Attention::new(qkv, heads, head_dim);
        b.attention(Attention { kv_heads, scale, softcap, causal, window, ..plain })
    }

    /// `x` and a projection of `y`, which the norm `behind` comes before.
    fn add(&self, b: &mut Builder, name: &str, bias: bool, behind: Option<String>, y: Value, x: Value) -> Value {
        let projection = dense(name, self.hidden).bias(bias);
        match behind {
            None => projection.plus(x).of(b, y),
            Some(norm) => {
                let projected = projection.of(b, y);
                self.norm(b, &norm, projected, Some(x))
            }
        }
    }

    /// The norm of `x`, whose weights are 1 more than what is stored, and `residual` added.
    fn norm(&self, b: &mut Builder, name: &str, x: Value, residual: Option<Value>) -> Value {
        let weight = b.tensor(format!("{name}.weight"), vec![b.shape(x).cols]);
        let weight = b.weight(vec![Part::PlusOne(weight)]);
        b.norm(Norm { x, norm: RowNorm { kind: NormKind::Rms, weight, bias: None, eps: self.eps }, residual })
    }
}
