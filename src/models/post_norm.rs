//! The layer of BERT and its successors (Devlin et al. 2018): `h = norm(x + attention(x))`, then `norm(h + mlp(h))`. They
//! differ in the names of its tensors.

use super::layers::{dense, layer_norm, stacked};
use crate::program::{Activation, Attention, Builder, Value};

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

/// The numbers of a layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PostNorm {
    pub heads: usize,
    pub intermediate: usize,
    pub activation: Activation,
    pub eps: f32,
}

impl PostNorm {
    /// The layer whose tensors' names begin with `prefix`: `[tokens, hidden]` to the same.
    pub fn layer(&self, b: &mut Builder, prefix: &str, names: &Names, x: Value) -> Value {
        let hidden = b.shape(x).cols;
        let head_dim = hidden / self.heads;
        let name = |name: &str| format!("{prefix}.{name}");

        b.label(format!("{prefix}.attention"));
        let qkv = stacked(names.qkv.map(name), hidden).of(b, x);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attended = b.attention(Attention { qkv, heads: self.heads, head_dim, scale });
        let projected = dense(name(names.projection), hidden).plus(x).of(b, attended);
        let h = layer_norm(b, &name(names.attention_norm), self.eps, projected);

        b.label(format!("{prefix}.mlp"));
        let up = dense(name(names.up), self.intermediate).activation(self.activation).of(b, h);
        let down = dense(name(names.down), hidden).plus(h).of(b, up);
        layer_norm(b, &name(names.output_norm), self.eps, down)
    }
}
