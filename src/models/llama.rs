//! Llama (Touvron et al. 2023) and its successors: pre-norm by the root mean square, rotary positions, fewer heads of k and v,
//! gated feed-forward networks. They differ in a few switches; each has a function here that reads its configuration.
//! e5-mistral, gte-Qwen2, Qwen3-Embedding, the texts of Qwen3-VL-Embedding, EuroBERT, UltraBERT.

use super::activation;
use super::layers::{check_heads, cls_or_mean, dense, embed_ids, rms_norm, stacked};
use super::rope::{self, Base, is_causal};
use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{
    Activation, Attention, Builder, Glu, Half, HeadNorm, NormKind, Pool, PoolMode, Rotary, RotaryTable, Value, WeightId,
};

/// What shapes such a backbone.
struct Llama {
    vocab: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
    activation: Activation,
    eps: f32,
    /// Biases of q, k and v.
    qkv_bias: bool,
    /// Of the projection behind the attention.
    output_bias: bool,
    mlp_bias: bool,
    /// Whether each head of q and k is normalised.
    head_norm: bool,
    causal: bool,
    /// Of each layer.
    windows: Vec<Option<usize>>,
    rope: RotaryTable,
    /// Of the layers with a window, where they have their own.
    local_rope: Option<RotaryTable>,
}

/// Llama: `config.json` with the defaults of transformers' `LlamaConfig`.
pub(super) fn llama(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 32_000, intermediate: 11_008, positions: 2048, head_dim: None };
    Ok(Llama::from_json(b, config, defaults)?.build(b))
}

/// Mistral: every layer sees a window of tokens before it.
pub(super) fn mistral(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 32_000, intermediate: 14_336, positions: 131_072, head_dim: None };
    let mut model = Llama::from_json(b, config, defaults)?;
    let window = match config.contains("sliding_window") {
        true => config.usize_opt("sliding_window")?,
        false => Some(4096),
    };
    model.windows.fill(reach(window, model.causal));
    Ok(model.build(b))
}

/// Qwen2: biases on q, k and v only.
pub(super) fn qwen2(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 151_936, intermediate: 22_016, positions: 32_768, head_dim: None };
    let mut model = Llama::from_json(b, config, defaults)?;
    (model.qkv_bias, model.output_bias, model.mlp_bias) = (true, false, false);
    model.windows = qwen_windows(config, model.windows.len(), model.causal)?;
    Ok(model.build(b))
}

/// Qwen3: each head of q and k is normalised before it is turned.
pub(super) fn qwen3(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 151_936, intermediate: 22_016, positions: 32_768, head_dim: Some(128) };
    let mut model = Llama::from_json(b, config, defaults)?;
    (model.head_norm, model.mlp_bias) = (true, false);
    model.windows = qwen_windows(config, model.windows.len(), model.causal)?;
    Ok(model.build(b))
}

/// Qwen3-VL, as far as it reads text, whose positions are the same in all three dimensions.
pub(super) fn qwen3_vl(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 151_936, intermediate: 22_016, positions: 128_000, head_dim: Some(128) };
    let mut model = Llama::from_json(b, config, defaults)?;
    let positions = config.usize_or("max_position_embeddings", 128_000)?;
    let base = Base { key: "rope_theta", default: 500_000.0 };
    model.rope = rope::table(b, config, base, model.head_dim, positions)?;
    (model.head_norm, model.mlp_bias) = (true, false);
    Ok(model.build(b))
}

/// EuroBERT: every token sees every other.
pub(super) fn eurobert(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 128_256, intermediate: 3072, positions: 8192, head_dim: None };
    let mut model = Llama::from_json(b, config, defaults)?;
    model.causal = false;
    model.eps = config.f32_or("rms_norm_eps", 1e-5)?;
    Ok(model.build(b))
}

/// UltraBERT: EuroBERT with a window in two of three layers, each kind of layer with its own base.
pub(super) fn ultrabert(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let defaults = Defaults { vocab: 32_000, intermediate: 11_008, positions: 32_768, head_dim: None };
    // Once, a list held the window of each layer, and another its base.
    let old = [list(config, "attention_windows")?, list(config, "rope_theta")?];
    let mut silent = config.clone();
    silent.set("rope_theta", serde_json::Value::Null);
    let mut model = Llama::from_json(b, &silent, defaults)?;
    let layers = model.windows.len();
    if old.iter().flatten().any(|list| list.len() != layers) {
        let detail = format!("attention_windows and rope_theta must have an entry for each of {layers} layers");
        return Err(Error::invalid_file(config.path(), detail));
    }
    let old_window = |i: usize| old[0].as_ref().map(|windows| windows[i] as usize).filter(|&window| window > 0);
    let is_local = rope::local_layers(config, layers, |i| match old[0] {
        Some(_) => old_window(i).is_some(),
        None => !(i + 1).is_multiple_of(3),
    })?;
    let window = match (0..layers).find_map(old_window) {
        Some(window) => window,
        None => config.usize_or("sliding_window", 128)?,
    };
    let table = |local, layer_type, default| {
        let of_type = (0..layers).rfind(|&i| is_local[i] == local);
        let theta = of_type.and_then(|i| Some(old[1].as_ref()?[i])).map_or(default, |theta| theta as f32);
        let base = Base { key: "rope_theta", default: theta };
        rope::table_of(
            b,
            &silent,
            layer_type,
            base,
            model.head_dim,
            config.usize_or("max_position_embeddings", 32_768)?,
        )
    };
    let (far, near) = (table(false, "full_attention", 2_560_000.0)?, table(true, "sliding_attention", 10_000.0)?);
    (model.causal, model.rope, model.local_rope) = (false, far, Some(near));
    model.windows = is_local.into_iter().map(|is_local| is_local.then_some(window)).collect();
    Ok(model.build(b))
}

/// A list of numbers that are not negative, where there is one; `null` is 0.
fn list(config: &JsonFile, key: &str) -> Result<Option<Vec<f64>>> {
    let Some(value) = config.get(key) else { return Ok(None) };
    let number = |value: &serde_json::Value| if value.is_null() { Some(0.0) } else { value.as_f64() };
    let numbers = value.as_array().and_then(|list| list.iter().map(number).collect::<Option<Vec<f64>>>());
    match numbers.filter(|numbers| numbers.iter().all(|&number| number >= 0.0)) {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(config.invalid(key, "a list of numbers, one for each layer")),
    }
}

/// The first token, or the mean, through a bare matrix and its bias.
pub(super) fn ultrabert_classifier(b: &mut Builder, config: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let pooled = b.pool(Pool::new(x, cls_or_mean(config)?));
    Ok(dense("classifier", labels).of(b, pooled))
}

/// The last token that is no padding through a bare matrix: `[sequences, labels]`. Some tokenizers end a text with the padding
/// token.
pub(super) fn last_token_classifier(b: &mut Builder, config: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    if let Some(padding) = config.usize_opt("pad_token_id")? {
        for (key, causal) in [("use_bidirectional_attention", false), ("is_causal", true)] {
            if config.bool_or(key, causal)? != causal {
                return Err(config.unsupported(key, format!("{causal}, for a classifier of the last token")));
            }
        }
        b.trim(padding as u32);
    }
    let last = b.pool(Pool::new(x, PoolMode::LastToken));
    Ok(dense("score", labels).bias(false).of(b, last))
}

/// EuroBERT's: a hidden layer and the classifier on the first token, on the mean, or on each token before the mean.
pub(super) fn eurobert_classifier(b: &mut Builder, config: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let head = |b: &mut Builder, x| {
        let h = dense("dense", hidden).activation(Activation::Gelu).of(b, x);
        dense("classifier", labels).of(b, h)
    };
    let pool = |b: &mut Builder, mode, x| b.pool(Pool::new(x, mode));
    match config.str_or("classifier_pooling", "late")? {
        "bos" => {
            let first = pool(b, PoolMode::Cls, x);
            Ok(head(b, first))
        }
        "mean" => {
            let mean = pool(b, PoolMode::Mean, x);
            Ok(head(b, mean))
        }
        "late" => {
            let logits = head(b, x);
            Ok(pool(b, PoolMode::Mean, logits))
        }
        _ => Err(config.unsupported("classifier_pooling", "bos, mean, late")),
    }
}

/// How many tokens away a key may be: a causal window counts the query itself, one in both directions does not.
fn reach(window: Option<usize>, causal: bool) -> Option<usize> {
    window.map(|window| if causal { window.saturating_sub(1) } else { window })
}

/// Qwen's windows: off unless switched on, and then for the layers from `max_window_layers` on.
fn qwen_windows(config: &JsonFile, layers: usize, causal: bool) -> Result<Vec<Option<usize>>> {
    let window = match config.bool_or("use_sliding_window", false)? {
        true => reach(Some(config.usize_or("sliding_window", 4096)?), causal),
        false => None,
    };
    let first = config.usize_or("max_window_layers", 28)?;
    let is_local = rope::local_layers(config, layers, |i| window.is_some() && i >= first)?;
    Ok(is_local.into_iter().map(|is_local| if is_local { window } else { None }).collect())
}

/// What stands where a configuration is silent, as far as the families differ.
struct Defaults {
    vocab: usize,
    intermediate: usize,
    positions: usize,
    head_dim: Option<usize>,
}

impl Llama {
    fn from_json(b: &Builder, config: &JsonFile, defaults: Defaults) -> Result<Llama> {
        let (hidden, heads) = (config.usize_or("hidden_size", 4096)?, config.usize_or("num_attention_heads", 32)?);
        let kv_heads = config.usize_or("num_key_value_heads", heads)?;
        check_heads(config, ("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        let head_dim = match config.usize_opt("head_dim")?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None => hidden / heads,
        };
        let positions = config.usize_or("max_position_embeddings", defaults.positions)?;
        let attention_bias = config.bool_or("attention_bias", false)?;
        Ok(Llama {
            vocab: config.usize_or("vocab_size", defaults.vocab)?,
            hidden,
            heads,
            kv_heads,
            head_dim,
            intermediate: config.usize_or("intermediate_size", defaults.intermediate)?,
            activation: activation::hidden_act(config, "hidden_act", "silu")?,
            eps: config.f32_or("rms_norm_eps", 1e-6)?,
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            mlp_bias: config.bool_or("mlp_bias", false)?,
            head_norm: false,
            causal: is_causal(config)?,
            windows: vec![None; config.usize_or("num_hidden_layers", 32)?],
            rope: rope::table(b, config, Base { key: "rope_theta", default: 10_000.0 }, head_dim, positions)?,
            local_rope: None,
        })
    }

    /// Hidden states of the last layer, normalised: `[tokens, hidden]`.
    fn build(&self, b: &mut Builder) -> Value {
        b.label("embeddings");
        let mut x = embed_ids(b, "embed_tokens", self.vocab, self.hidden);
        let far = b.rotary_table(self.rope.clone());
        let near = self.local_rope.clone().map_or(far, |table| b.rotary_table(table));
        for (i, window) in self.windows.iter().enumerate() {
            let name = |name: &str| format!("layers.{i}.{name}");
            b.label(name("attention"));
            let h = rms_norm(b, &name("input_layernorm"), self.eps, x);
            let table = if window.is_some() { near } else { far };
            let attended = self.attention(b, &name("self_attn"), table, *window, h);
            x = dense(name("self_attn.o_proj"), self.hidden).bias(self.output_bias).plus(x).of(b, attended);

            b.label(name("mlp"));
            let h = rms_norm(b, &name("post_attention_layernorm"), self.eps, x);
            let halves = ["mlp.gate_proj", "mlp.up_proj"].map(|half| (name(half), self.intermediate));
            let up = stacked(halves).bias(self.mlp_bias).of(b, h);
            let gated = b.glu(Glu { x: up, activation: self.activation, activated: Half::First });
            x = dense(name("mlp.down_proj"), self.hidden).bias(self.mlp_bias).plus(x).of(b, gated);
        }
        b.label("norm");
        rms_norm(b, "norm", self.eps, x)
    }

    fn attention(&self, b: &mut Builder, prefix: &str, table: WeightId, window: Option<usize>, x: Value) -> Value {
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        let name = |name: &str| format!("{prefix}.{name}");
        let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
        let parts = parts.map(|(part, heads)| (name(part), heads * head_dim));
        let mut qkv = stacked(parts).bias(self.qkv_bias).of(b, x);
        if self.head_norm {
            let norms = ["q_norm.weight", "k_norm.weight"].map(|norm| b.tensor(name(norm), vec![head_dim]).into());
            let weight = b.weight(norms.into());
            let (groups, group, eps) = ([heads, kv_heads, 0], head_dim, self.eps);
            qkv = b.head_norm(HeadNorm { qkv, kind: NormKind::Rms, groups, group, weight, bias: None, eps });
        }
        let qkv = b.rotary(Rotary { qkv, heads: heads + kv_heads, head_dim, table });
        b.attention(Attention { kv_heads, window, causal: self.causal, ..Attention::new(qkv, heads, head_dim) })
    }
}
