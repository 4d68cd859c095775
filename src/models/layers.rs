//! The pieces that models are made of, by the names of their tensors.

use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{
    Activation, Bucketed, Builder, Index, Linear, Lookup, Norm, NormKind, Part, PoolMode, PositionBias, RowNorm, Value,
};

/// A linear layer; see [`dense`].
pub(super) struct Dense {
    /// Names and columns of the result.
    parts: Vec<(String, usize)>,
    activation: Activation,
    residual: Option<Value>,
    bias: bool,
}

/// `x W^T + b` with the tensors `name.weight` `[out, cols of x]` and `name.bias` `[out]`.
pub(super) fn dense(name: impl Into<String>, out: usize) -> Dense {
    stacked([(name.into(), out)])
}

/// Several layers, by name and columns, as one product: their columns side by side.
pub(super) fn stacked(parts: impl IntoIterator<Item = (String, usize)>) -> Dense {
    let parts = parts.into_iter().collect();
    Dense { parts, activation: Activation::Identity, residual: None, bias: true }
}

impl Dense {
    /// Whether there is a bias: otherwise there is.
    pub fn bias(mut self, bias: bool) -> Dense {
        self.bias = bias;
        self
    }

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
        let weights =
            self.parts.iter().map(|(name, out)| b.tensor(format!("{name}.weight"), vec![*out, cols]).into()).collect();
        let weight = b.weight(weights);
        let biases = self.parts.iter().map(|(name, out)| b.tensor(format!("{name}.bias"), vec![*out]).into()).collect();
        let bias = self.bias.then(|| b.weight(biases));
        b.linear(Linear { x, weight, bias, activation: self.activation, residual: self.residual })
    }
}

/// T5's relative positions: the table `name` of `relative_attention_num_buckets` (32 if it is absent) biases a head.
pub(super) fn relative_bias(
    b: &mut Builder,
    config: &JsonFile,
    name: &str,
    heads: usize,
    max_distance: usize,
) -> Result<PositionBias> {
    let key = "relative_attention_num_buckets";
    let buckets = config.usize_or(key, 32)?;
    if buckets < 4 || !(buckets / 4 + 1..=1 << 16).contains(&max_distance) {
        let detail = format!("{key} = {buckets} for distances up to {max_distance}");
        return Err(Error::invalid_file(config.path(), detail));
    }
    let table = b.tensor(name, vec![buckets, heads]);
    let table = b.weight(vec![Part::Bucketed(Box::new(Bucketed { table, max_distance }))]);
    Ok(PositionBias::Relative { table })
}

/// Layer normalisation with the tensors `name.weight` and `name.bias`.
pub(super) fn layer_norm(b: &mut Builder, name: &str, eps: f32, x: Value) -> Value {
    layer_norm_with(b, name, eps, true, x)
}

/// Layer normalisation with the tensor `name.weight`, and `name.bias` if there is a bias.
pub(super) fn layer_norm_with(b: &mut Builder, name: &str, eps: f32, bias: bool, x: Value) -> Value {
    let norm = layer(b, name, eps, bias, b.shape(x).cols);
    b.norm(Norm { x, norm, residual: None })
}

/// The weights of a layer normalisation of so many columns.
fn layer(b: &mut Builder, name: &str, eps: f32, bias: bool, cols: usize) -> RowNorm {
    let weight = b.vector(format!("{name}.weight"), cols);
    let bias = bias.then(|| b.vector(format!("{name}.bias"), cols));
    RowNorm { kind: NormKind::Layer, weight, bias, eps }
}

/// Normalisation by the root mean square with the tensor `name.weight`.
pub(super) fn rms_norm(b: &mut Builder, name: &str, eps: f32, x: Value) -> Value {
    let weight = b.vector(format!("{name}.weight"), b.shape(x).cols);
    b.norm(Norm { x, norm: RowNorm { kind: NormKind::Rms, weight, bias: None, eps }, residual: None })
}

/// Rows of the table `name.weight` for each token id: `[tokens, cols]`.
pub(super) fn embed_ids(b: &mut Builder, name: &str, vocab: usize, cols: usize) -> Value {
    let words = ids(b, name, vocab, cols);
    b.embed(vec![words])
}

/// The same, times the root of the columns: Gemma's.
pub(super) fn embed_ids_scaled(b: &mut Builder, name: &str, vocab: usize, cols: usize) -> Value {
    let words = b.tensor(format!("{name}.weight"), vec![vocab, cols]);
    let table = b.weight(vec![Part::Scaled(words, (cols as f32).sqrt().to_bits())]);
    b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }])
}

/// How a classifier pools: the first token, or the mean.
pub(super) fn cls_or_mean(config: &JsonFile) -> Result<PoolMode> {
    match config.str_or("classifier_pooling", "cls")? {
        "cls" => Ok(PoolMode::Cls),
        "mean" => Ok(PoolMode::Mean),
        _ => Err(config.unsupported("classifier_pooling", "cls, mean")),
    }
}

/// The table `name.weight`, looked up by token id.
pub(super) fn ids(b: &mut Builder, name: &str, vocab: usize, cols: usize) -> Lookup {
    Lookup { table: b.matrix(format!("{name}.weight"), vocab, cols), index: Index::Ids, offset: 0 }
}

/// Rows of tables, summed, and layer normalisation as [`layer_norm`]: `[tokens, cols of the tables]`.
pub(super) fn embed_normed(b: &mut Builder, lookups: Vec<Lookup>, name: &str, eps: f32) -> Value {
    embed_normed_with(b, lookups, name, eps, true)
}

/// The same, and layer normalisation as [`layer_norm_with`].
pub(super) fn embed_normed_with(b: &mut Builder, lookups: Vec<Lookup>, name: &str, eps: f32, bias: bool) -> Value {
    let norm = layer(b, name, eps, bias, b.cols(lookups[0].table));
    b.embed_normed(lookups, norm)
}

/// Refuses a width that the heads do not divide, or heads that those of k and v do not. Each with its key.
pub(super) fn check_heads(config: &JsonFile, hidden: (&str, usize), heads: (&str, usize)) -> Result<()> {
    let ((hidden_key, hidden), (heads_key, heads)) = (hidden, heads);
    if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) {
        let detail = format!("{hidden_key} = {hidden} is not a positive multiple of {heads_key} = {heads}");
        return Err(Error::invalid_file(config.path(), detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_positions_need_buckets_that_hold_their_distances() {
        let bias = |buckets: usize, max_distance| {
            let key = "relative_attention_num_buckets".to_string();
            let config = JsonFile::from_object("config.json", [(key, buckets.into())].into_iter().collect());
            relative_bias(&mut Builder::new(), &config, "table", 2, max_distance).map(|_| ())
        };
        assert!(bias(32, 128).is_ok() && bias(4, 2).is_ok());
        for (buckets, max_distance) in [(0, 128), (3, 128), (32, 8), (32, 1 << 30)] {
            let error = bias(buckets, max_distance).unwrap_err().to_string();
            assert!(error.contains(&format!("relative_attention_num_buckets = {buckets} for")), "{error}");
        }
    }
}
