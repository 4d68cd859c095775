//! The layer of BERT and its successors (Devlin et al. 2018): `h = norm(x + attention(x))`, then `norm(h + mlp(h))`. They
//! differ in the names of its tensors, in how scores know of positions, and some in the feed-forward network.

use super::layers::{Dense, dense, layer_norm, stacked};
use crate::program::{Activation, Attention, Builder, PositionBias, Rotary, Value, WeightId};

/// The tensors of a layer, without the layer's own prefix.
pub(super) struct Names {
    /// Of q, k and v.
    pub qkv: [&'static str; 3],
    /// The projection behind the attention.
    pub projection: &'static str,
    /// The norm behind it.
    pub attention_norm: &'static str,
    /// Into the feed-forward network.
    pub up: &'static str,
    /// Out of it.
    pub down: &'static str,
    /// The norm behind it.
    pub output_norm: &'static str,
}

/// What all layers of a backbone share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PostNorm {
    pub heads: usize,
    pub eps: f32,
    /// Turns q and k.
    pub rotary: Option<WeightId>,
    /// Added to the scores.
    pub bias: Option<PositionBias>,
    /// Of how many terms a score is a sum: its deviation grows with their root.
    pub score_terms: f32,
}

/// A plain feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mlp {
    pub intermediate: usize,
    pub activation: Activation,
}

impl PostNorm {
    /// Layers whose attention knows no positions.
    pub fn new(heads: usize, eps: f32) -> PostNorm {
        PostNorm { heads, eps, rotary: None, bias: None, score_terms: 1.0 }
    }

    /// `norm(x + projection(attention(qkv)))`: `[as x]`.
    pub fn attend(&self, b: &mut Builder, x: Value, mut qkv: Value, projection: Dense, norm: &str) -> Value {
        let (heads, head_dim) = (self.heads, b.shape(qkv).cols / 3 / self.heads);
        if let Some(table) = self.rotary {
            qkv = b.rotary(Rotary { qkv, heads: 2 * heads, head_dim, table });
        }
        let scale = 1.0 / (head_dim as f32 * self.score_terms).sqrt();
        let attended = b.attention(Attention { scale, bias: self.bias, ..Attention::new(qkv, heads, head_dim) });
        self.add(b, x, attended, projection, norm)
    }

    /// `norm(x + projection(y))`: `[as x]`.
    pub fn add(&self, b: &mut Builder, x: Value, y: Value, projection: Dense, norm: &str) -> Value {
        let sum = projection.plus(x).of(b, y);
        layer_norm(b, norm, self.eps, sum)
    }

    /// `norm(x + y)`: `[as x]`.
    pub fn add_normalised(&self, b: &mut Builder, x: Value, y: Value, norm: &str) -> Value {
        let sum = b.add(x, y);
        layer_norm(b, norm, self.eps, sum)
    }

    /// BERT's layer, whose tensors' names begin with `prefix`: `[tokens, hidden]` to the same.
    pub fn layer(&self, b: &mut Builder, prefix: &str, names: &Names, mlp: Mlp, x: Value) -> Value {
        let hidden = b.shape(x).cols;
        let name = |name: &str| format!("{prefix}.{name}");

        b.label(format!("{prefix}.attention"));
        let qkv = stacked(names.qkv.map(|part| (name(part), hidden))).of(b, x);
        let h = self.attend(b, x, qkv, dense(name(names.projection), hidden), &name(names.attention_norm));

        b.label(format!("{prefix}.mlp"));
        let up = dense(name(names.up), mlp.intermediate).activation(mlp.activation).of(b, h);
        self.add(b, h, up, dense(name(names.down), hidden), &name(names.output_norm))
    }
}
