//! The pieces that models are made of, by the names of their tensors.

use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Linear, Norm, Value};

/// A linear layer; see [`dense`].
pub(super) struct Dense {
    names: Vec<String>,
    out: usize,
    activation: Activation,
    residual: Option<Value>,
}

/// `x W^T + b` with the tensors `name.weight` `[out, cols of x]` and `name.bias` `[out]`.
pub(super) fn dense(name: impl Into<String>, out: usize) -> Dense {
    stacked([name.into()], out)
}

/// Several layers of `out` columns each as one product: their columns side by side.
pub(super) fn stacked(names: impl IntoIterator<Item = String>, out: usize) -> Dense {
    let names = names.into_iter().collect();
    Dense { names, out, activation: Activation::Identity, residual: None }
}

impl Dense {
    /// Applied to the result.
    pub fn activation(mut self, activation: Activation) -> Dense {
        self.activation = activation;
        self
    }

    /// Added to the result, behind the activation.
    pub fn plus(mut self, residual: Value) -> Dense {
        self.residual = Some(residual);
        self
    }

    /// The layer applied to `x`.
    pub fn of(self, b: &mut Builder, x: Value) -> Value {
        let cols = b.shape(x).cols;
        let weights = self.names.iter().map(|name| b.tensor(format!("{name}.weight"), vec![self.out, cols])).collect();
        let weight = b.weight(weights);
        let biases = self.names.iter().map(|name| b.tensor(format!("{name}.bias"), vec![self.out])).collect();
        let bias = Some(b.weight(biases));
        b.linear(Linear { x, weight, bias, activation: self.activation, residual: self.residual })
    }
}

/// Layer normalisation with the tensors `name.weight` and `name.bias`.
pub(super) fn layer_norm(b: &mut Builder, name: &str, eps: f32, x: Value) -> Value {
    let cols = b.shape(x).cols;
    let (weight, bias) = (b.vector(format!("{name}.weight"), cols), b.vector(format!("{name}.bias"), cols));
    b.norm(Norm { x, weight, bias: Some(bias), eps })
}

/// Refuses a width that the heads do not divide.
pub(super) fn check_heads(config: &JsonFile, hidden: (&str, usize), heads: (&str, usize)) -> Result<()> {
    let ((hidden_key, hidden), (heads_key, heads)) = (hidden, heads);
    if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) {
        let detail = format!("{hidden_key} = {hidden} is not a positive multiple of {heads_key} = {heads}");
        return Err(Error::invalid_file(config.path(), detail));
    }
    Ok(())
}
