//! The encoder of T5 (Raffel et al. 2020): pre-norm by the root mean square, no scaling of scores, and a bias by distance that
//! all layers share. sentence-t5, gtr-t5, instructor.

use super::activation;
use super::layers::{dense, embed_ids, relative_bias, rms_norm, stacked};
use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{Activation, Attention, Builder, Glu, Half, Value};

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `T5Config`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let hidden = config.usize_or("d_model", 512)?;
    let (heads, head_dim) = (config.usize_or("num_heads", 8)?, config.usize_or("d_kv", 64)?);
    if heads == 0 || head_dim == 0 {
        return Err(Error::invalid_file(config.path(), format!("num_heads = {heads}, d_kv = {head_dim}")));
    }
    let intermediate = config.usize_or("d_ff", 2048)?;
    let (gated, activation) = feed_forward(config)?;
    let eps = config.f32_or("layer_norm_epsilon", 1e-6)?;
    let inner = heads * head_dim;

    b.wide();
    b.label("embeddings");
    let mut x = embed_ids(b, "shared", config.usize_or("vocab_size", 32_128)?, hidden);
    let table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    let max_distance = config.usize_or("relative_attention_max_distance", 128)?;
    let bias = Some(relative_bias(b, config, table, heads, max_distance)?);
    for i in 0..config.usize_or("num_layers", 6)? {
        let name = |name: &str| format!("encoder.block.{i}.layer.{name}");
        b.label(name("0.SelfAttention"));
        let h = rms_norm(b, &name("0.layer_norm"), eps, x);
        let qkv = ["q", "k", "v"].map(|part| (name(&format!("0.SelfAttention.{part}")), inner));
        let qkv = stacked(qkv).bias(false).of(b, h);
        let attended = b.attention(Attention { scale: 1.0, bias, ..Attention::new(qkv, heads, head_dim) });
        x = dense(name("0.SelfAttention.o"), hidden).bias(false).plus(x).of(b, attended);

        b.label(name("1.DenseReluDense"));
        let h = rms_norm(b, &name("1.layer_norm"), eps, x);
        let h = if gated {
            let halves = ["wi_0", "wi_1"].map(|half| (name(&format!("1.DenseReluDense.{half}")), intermediate));
            let up = stacked(halves).bias(false).of(b, h);
            b.glu(Glu { x: up, activation, activated: Half::First })
        } else {
            dense(name("1.DenseReluDense.wi"), intermediate).bias(false).activation(activation).of(b, h)
        };
        x = dense(name("1.DenseReluDense.wo"), hidden).bias(false).plus(x).of(b, h);
    }
    b.label("final_layer_norm");
    Ok(rms_norm(b, "encoder.final_layer_norm", eps, x))
}

/// Whether the feed-forward network is gated, and its activation: one key says both, unless newer ones do.
fn feed_forward(config: &JsonFile) -> Result<(bool, Activation)> {
    if let (Some(gated), Some(name)) = (config.bool_opt("is_gated_act")?, config.str_opt("dense_act_fn")?) {
        return Ok((gated, activation::named(config, "dense_act_fn", name)?));
    }
    match config.str_or("feed_forward_proj", "relu")? {
        // As the reference, which keeps the tanh form here.
        "gated-gelu" => Ok((true, Activation::GeluTanh)),
        name => match name.strip_prefix("gated-") {
            Some(name) => Ok((true, activation::named(config, "feed_forward_proj", name)?)),
            None => Ok((false, activation::named(config, "feed_forward_proj", name)?)),
        },
    }
}
