//! Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions and gated feed-forward networks; version 2 has experts in
//! every other layer instead. Two dialects of config.json, the original's and transformers' own, name the same tensors.
//! nomic-embed-text, arctic-embed-m-long.

use super::activation;
use super::layers::{check_heads, dense, embed_normed, layer_norm, stacked};
use super::post_norm::PostNorm;
use super::rope::{self, Base};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Glu, Half, Index, Lookup, Mixture, Part, Value};

/// What a configuration of either dialect says.
struct Nomic {
    vocab: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
    positions: usize,
    token_types: usize,
    activation: Activation,
    /// Whether the feed-forward networks are gated.
    gated: bool,
    eps: f32,
    qkv_bias: bool,
    up_bias: bool,
    down_bias: bool,
    experts: Option<Experts>,
}

/// Where there are experts instead of a feed-forward network.
struct Experts {
    /// In each layer of which the remainder by this is 1.
    every: usize,
    count: usize,
    top: usize,
}

/// The backbone that `config.json` describes.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let nomic = if config.contains("n_embd") { original(b, config)? } else { native(config)? };
    let hidden = nomic.hidden;
    let base = Base { key: if config.contains("n_embd") { "rotary_emb_base" } else { "rope_theta" }, default: 1000.0 };
    let table = rope::table(b, config, base, hidden / nomic.heads, nomic.positions)?;
    let layer = PostNorm { rotary: Some(b.rotary_table(table)), ..PostNorm::new(nomic.heads, nomic.eps) };

    b.label("embeddings");
    let words = b.matrix("embeddings.word_embeddings.weight", nomic.vocab, hidden);
    let mut lookups = vec![Lookup { table: words, index: Index::Ids, offset: 0 }];
    if nomic.token_types > 0 {
        let table = b.matrix("embeddings.token_type_embeddings.weight", nomic.token_types, hidden);
        lookups.push(Lookup { table, index: Index::Types, offset: 0 });
    }
    let mut x = embed_normed(b, lookups, "emb_ln", nomic.eps);
    for i in 0..nomic.layers {
        let name = |name: &str| format!("encoder.layers.{i}.{name}");
        b.label(name("attention"));
        let qkv = dense(name("attn.Wqkv"), 3 * hidden).bias(nomic.qkv_bias).of(b, x);
        let projection = dense(name("attn.out_proj"), hidden).bias(nomic.qkv_bias);
        let h = layer.attend(b, x, qkv, projection, &name("norm1"));

        b.label(name("mlp"));
        x = match &nomic.experts {
            Some(experts) if i % experts.every == 1 => {
                let sum = nomic.mixture(b, experts, &name("mlp"), h);
                layer_norm(b, &name("norm2"), nomic.eps, sum)
            }
            _ => {
                let inner = nomic.up(b, &name("mlp"), h);
                let down = dense(name("mlp.fc2"), hidden).bias(nomic.down_bias);
                layer.add(b, h, inner, down, &name("norm2"))
            }
        };
    }
    Ok(x)
}

impl Nomic {
    /// Into the feed-forward network: `[tokens, intermediate]`.
    fn up(&self, b: &mut Builder, prefix: &str, x: Value) -> Value {
        let (inner, activation) = (self.intermediate, self.activation);
        if !self.gated {
            return dense(format!("{prefix}.fc1"), inner).bias(self.up_bias).activation(activation).of(b, x);
        }
        let halves = ["fc11", "fc12"].map(|half| (format!("{prefix}.{half}"), inner));
        let up = stacked(halves).bias(self.up_bias).of(b, x);
        b.glu(Glu { x: up, activation, activated: Half::Second })
    }

    /// `x` plus what the experts make of it, the best `top` of each token weighted by the router: `[as x]`.
    fn mixture(&self, b: &mut Builder, experts: &Experts, prefix: &str, x: Value) -> Value {
        let (hidden, inner) = (self.hidden, experts.count * self.intermediate);
        let logits = dense(format!("{prefix}.router.layer"), experts.count).bias(false).of(b, x);
        let up = b.matrix(format!("{prefix}.experts.mlp.w1"), inner, hidden);
        // Stored as [inner, hidden].
        let down = b.tensor(format!("{prefix}.experts.mlp.w2"), vec![inner, hidden]);
        let down = b.weight(vec![Part::Transposed(down)]);
        let bias = Some(b.vector(format!("{prefix}.experts.bias"), hidden));
        b.mixture(Mixture {
            x,
            logits,
            top: experts.top,
            up,
            activation: self.activation,
            down,
            bias,
            residual: Some(x),
        })
    }
}

/// Rows of the table of tokens: the vocabulary, filled up.
fn padded_vocabulary(config: &JsonFile) -> Result<usize> {
    let multiple = config.usize_or("pad_vocab_size_multiple", 1)?.max(1);
    Ok(config.usize("vocab_size")?.next_multiple_of(multiple))
}

/// The original's dialect, named as GPT-2's.
fn original(b: &Builder, config: &JsonFile) -> Result<Nomic> {
    let (hidden, heads) = (config.usize("n_embd")?, config.usize("n_head")?);
    check_heads(config, ("n_embd", hidden), ("n_head", heads))?;
    for (key, supported) in [("prenorm", false), ("use_rms_norm", false), ("rotary_emb_interleaved", false)] {
        if config.bool_or(key, supported)? != supported {
            return Err(config.unsupported(key, supported.to_string()));
        }
    }
    if config.f32_or("rotary_emb_fraction", 1.0)? != 1.0 {
        return Err(config.unsupported("rotary_emb_fraction", "1"));
    }
    // Beyond the trained positions, each text would have a base of its own.
    let trained = config.usize_or("max_trained_positions", 2048)?;
    if config.get("rotary_scaling_factor").is_some() && b.limit().is_none_or(|limit| limit > trained) {
        let supported = format!("null, or a max_seq_length of at most max_trained_positions = {trained}");
        return Err(config.unsupported("rotary_scaling_factor", supported));
    }
    let (activation, gated) = match config.str_or("activation_function", "gelu")? {
        "swiglu" => (Activation::Silu, true),
        "geglu" => (Activation::Gelu, true),
        "glu" => (Activation::Sigmoid, true),
        _ => (activation::hidden_act(config, "activation_function", "gelu")?, false),
    };
    let experts = match config.usize_or("num_experts", 0)? {
        0 => None,
        count => Some(Experts {
            every: config.usize_or("moe_every_n_layers", 2)?.max(1),
            count,
            top: config.usize_or("moe_top_k", 2)?.min(count),
        }),
    };
    if experts.is_some() && config.bool_or("moe_normalize_expert_weights", false)? {
        return Err(config.unsupported("moe_normalize_expert_weights", "false"));
    }
    Ok(Nomic {
        vocab: padded_vocabulary(config)?,
        hidden,
        layers: config.usize("n_layer")?,
        heads,
        intermediate: config.usize_or("n_inner", 4 * hidden)?,
        positions: config.usize_or("n_positions", 8192)?,
        token_types: config.usize_or("type_vocab_size", 2)?,
        activation,
        gated,
        eps: config.f32_or("layer_norm_epsilon", 1e-5)?,
        qkv_bias: config.bool_or("qkv_proj_bias", true)?,
        up_bias: config.bool_or("mlp_fc1_bias", true)?,
        down_bias: config.bool_or("mlp_fc2_bias", true)?,
        experts,
    })
}

/// transformers' dialect, with the defaults of its `NomicBertConfig`: of the gated models without biases only.
fn native(config: &JsonFile) -> Result<Nomic> {
    let (hidden, heads) = (config.usize_or("hidden_size", 768)?, config.usize_or("num_attention_heads", 12)?);
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    if config.usize_or("head_dim", hidden / heads)? != hidden / heads {
        return Err(config.unsupported("head_dim", "hidden_size / num_attention_heads"));
    }
    Ok(Nomic {
        vocab: config.usize_or("vocab_size", 30_528)?,
        hidden,
        layers: config.usize_or("num_hidden_layers", 12)?,
        heads,
        intermediate: config.usize_or("intermediate_size", 3072)?,
        positions: config.usize_or("max_position_embeddings", 2048)?,
        token_types: config.usize_or("type_vocab_size", 2)?,
        activation: activation::hidden_act(config, "hidden_act", "silu")?,
        gated: true,
        eps: config.f32_or("layer_norm_eps", 1e-12)?,
        qkv_bias: false,
        up_bias: false,
        down_bias: false,
        experts: None,
    })
}
