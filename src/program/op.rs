//! The operations of a program. Each is a plain description: what it reads, which weights it uses, its constants. Fusion is
//! a field (`Linear::activation`, `Embed::norm`, `Pool::normalize`), chosen where the model is written.
//!
//! To add an operation: a variant here, a method in `builder.rs`, a line in `Op::inputs`, `Op::weights` and `Display`; then
//! the compiler asks for `cpu/x.rs` and `gpu/kernels/x.rs` + `shaders/x.wgsl` (every match is exhaustive); then rows in
//! `tests/support/table.rs`, with its definition in `tests/support/naive.rs`.

use super::{Activation, Attention, Value, WeightId};

/// One operation. `tokens` and `sequences` are the batch's row counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Rows of tables, summed and normalised.
    Embed(Embed),
    /// A matrix product with bias, activation and residual.
    Linear(Linear),
    /// Normalisation of each row.
    Norm(Norm),
    /// A gated linear unit.
    Glu(Glu),
    /// A mixture of experts.
    Mixture(Mixture),
    /// Normalisation of the heads of q and k.
    HeadNorm(HeadNorm),
    /// Rotary positions of q and k.
    Rotary(Rotary),
    /// Multi-head self-attention within each sequence.
    Attention(Attention),
    /// A gated convolution over a few tokens.
    ShortConv(ShortConv),
    /// A weighted sum of two values.
    Sum(Sum),
    /// Values side by side.
    Join(Join),
    /// One row for each sequence from its tokens' rows.
    Pool(Pool),
    /// Each row divided by its L2 norm.
    Normalize(Normalize),
}

/// `y[t] = norm(sum over lookups of table[index[t] + offset])`: `[tokens, cols]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// The tables, all of `cols` columns. At least one.
    pub lookups: Vec<Lookup>,
    /// Of the sum; `None`: the sum as it is.
    pub norm: Option<RowNorm>,
}

/// One table of an [`Embed`].
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// `[rows, cols]`
    pub table: WeightId,
    /// Which number of a token selects the row.
    pub index: Index,
    /// Added to that number (RoBERTa's positions begin after the padding id).
    pub offset: u32,
}

/// A per-token number of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// The token id.
    Ids,
    /// The token's place in its sequence, from 0.
    Positions,
    /// The segment id (token type): 0, or 1 for the second text of a pair.
    Types,
}

/// `y = activation(x * weight^T + bias) + residual`: `[rows of x, out]`. Accumulated in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// `[rows, in]`
    pub x: Value,
    /// `[out, in]`, as PyTorch stores it.
    pub weight: WeightId,
    /// `[out]`
    pub bias: Option<WeightId>,
    /// Applied to each element before the residual is added.
    pub activation: Activation,
    /// `[rows, out]`
    pub residual: Option<Value>,
}

/// Each row normalised: `y = norm(x) + residual`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `[rows, cols]`
    pub x: Value,
    /// How.
    pub norm: RowNorm,
    /// `[rows, cols]`
    pub residual: Option<Value>,
}

/// A norm of rows: `normalised(row) * weight + bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowNorm {
    /// How a row is normalised.
    pub kind: NormKind,
    /// `[cols]`
    pub weight: WeightId,
    /// `[cols]`
    pub bias: Option<WeightId>,
    /// Added to the variance.
    pub eps: f32,
}

/// How rows are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x - mean(x)) / sqrt(var(x) + eps)`, with the biased variance (Ba et al. 2016).
    Layer,
    /// `x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).
    Rms,
}

/// `y = activation(one half of x's columns) * the other half` (Shazeer 2020): `[rows, cols / 2]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Glu {
    /// `[rows, cols]`
    pub x: Value,
    /// Of one half.
    pub activation: Activation,
    /// Which half.
    pub activated: Half,
}

/// Half of a value's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The first columns.
    First,
    /// The last columns.
    Second,
}

/// `y = bias + residual + sum over experts of g * down * activation(up * x)`, where `g` is the softmax of a row's logits, or 0 but
/// for the `top` largest, of equal ones the first (Shazeer et al. 2017): `[rows, out]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// `[rows, in]`
    pub x: Value,
    /// `[rows, experts]`
    pub logits: Value,
    /// How many experts of a row count. At least 1.
    pub top: usize,
    /// `[experts * width, in]`: the first matrix of each expert, stacked.
    pub up: WeightId,
    /// Between the two.
    pub activation: Activation,
    /// `[out, experts * width]`: the second matrix of each expert, side by side.
    pub down: WeightId,
    /// `[out]`
    pub bias: Option<WeightId>,
    /// `[rows, out]`
    pub residual: Option<Value>,
}

/// Groups of columns of q, of k and of v, each normalised by itself; those that are in no group as they are: `[as qkv]`. A group
/// is a head (Qwen3, Gemma 3; EmbeddingGemma 2, of v, too) or all of them (JinaBERT).
#[derive(Debug, Clone, PartialEq)]
pub struct HeadNorm {
    /// As [`Attention::qkv`].
    pub qkv: Value,
    /// How.
    pub kind: NormKind,
    /// Groups of q, then of k, then of v, which may have none.
    pub groups: [usize; 3],
    /// Columns of a group.
    pub group: usize,
    /// `[2 * group]`: for the groups of q, then for those of k. With groups of v `[3 * group]`.
    pub weight: WeightId,
    /// As `weight`.
    pub bias: Option<WeightId>,
    /// Added to the variance.
    pub eps: f32,
}

/// Rotary positions (Su et al. 2021) in the half-split layout: of each head of q and k, the columns i and i + head_dim / 2 are
/// turned by an angle that grows with the token's position; v as it is: `[as qkv]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// As [`Attention::qkv`].
    pub qkv: Value,
    /// Heads of q and of k together.
    pub heads: usize,
    /// Columns of one head: even.
    pub head_dim: usize,
    /// `[positions, head_dim]`: the cosines of the angles, then the sines. See [`RotaryTable`](super::RotaryTable).
    pub table: WeightId,
}

/// `y[t] = c[t] * (bias + sum over k of weight[k] * b[t - taps + 1 + k] * x[t - taps + 1 + k])`, each column by itself, within a
/// sequence: LFM2's short convolution (Liquid AI 2025), over a token and those before it: `[tokens, cols]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShortConv {
    /// `[tokens, 3 * cols]`: all of b, all of c, all of x.
    pub bcx: Value,
    /// `[taps, cols]`: the last tap is the token's own.
    pub weight: WeightId,
    /// `[cols]`
    pub bias: Option<WeightId>,
}

/// One row for each sequence from the rows of its tokens, one block of columns a mode: `[sequences, modes * cols]`.
/// The first `skip[sequence]` tokens of the batch (an excluded prompt) do not take part.
/// With `normalize`, of one mode only, the row is then divided by its norm, as by [`Normalize`].
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// `[tokens, cols]`
    pub x: Value,
    /// Concatenated in this order. At least one.
    pub modes: Vec<PoolMode>,
    /// Whether the row gets length 1.
    pub normalize: bool,
}

/// How [`Pool`] makes one row of many. Names as in sentence-transformers' `pooling_mode`, and `pooling_strategy`.
/// A sequence with no token left gives zeros, except for `Cls`, which then gives the sequence's first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// The first token that takes part.
    Cls,
    /// The maximum of each column.
    Max,
    /// The mean of each column.
    Mean,
    /// The sum of each column.
    Sum,
    /// The sum divided by the square root of the count.
    MeanSqrtLenTokens,
    /// The mean weighted by position: 1, 2, 3, ... from the sequence's first token, which an excluded prompt also counts
    /// from.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// `y = x * x_factor + other * factor`: `[as x]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// `[rows, cols]`
    pub x: Value,
    /// Of x.
    pub x_factor: f32,
    /// `[rows, cols]`
    pub other: Value,
    /// Of the other.
    pub factor: f32,
}

/// The columns of all parts, one behind the other: `[rows, the sum of their columns]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// `[rows, cols]` each, where the columns of all but the last are a multiple of four. At least one.
    pub parts: Vec<Value>,
}

/// `y = x / max(|x|, 1e-12)` for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// `[rows, cols]`
    pub x: Value,
}

impl Pool {
    /// A pooling of one mode, as it is.
    pub fn new(x: Value, mode: PoolMode) -> Pool {
        Pool { x, modes: vec![mode], normalize: false }
    }
}

impl RowNorm {
    /// The weights it uses.
    pub fn weights(&self) -> impl Iterator<Item = WeightId> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }
}

impl PoolMode {
    /// The name sentence-transformers gives it.
    pub fn name(self) -> &'static str {
        match self {
            PoolMode::Cls => "cls",
            PoolMode::Max => "max",
            PoolMode::Mean => "mean",
            PoolMode::Sum => "sum",
            PoolMode::MeanSqrtLenTokens => "mean_sqrt_len_tokens",
            PoolMode::WeightedMean => "weightedmean",
            PoolMode::LastToken => "lasttoken",
        }
    }
}

impl Op {
    /// The op's name: the same for its shader, its CPU function, its debug label and its row in a profile.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed(_) => "embed",
            Op::Linear(_) => "linear",
            Op::Norm(_) => "norm",
            Op::Glu(_) => "glu",
            Op::Mixture(_) => "mixture",
            Op::HeadNorm(_) => "head_norm",
            Op::Rotary(_) => "rotary",
            Op::Attention(_) => "attention",
            Op::ShortConv(_) => "short_conv",
            Op::Sum(_) => "sum",
            Op::Join(_) => "join",
            Op::Pool(_) => "pool",
            Op::Normalize(_) => "normalize",
        }
    }

    /// The values it reads.
    pub fn inputs(&self) -> Vec<Value> {
        match self {
            Op::Embed(_) => vec![],
            Op::Linear(op) => [Some(op.x), op.residual].into_iter().flatten().collect(),
            Op::Norm(op) => [Some(op.x), op.residual].into_iter().flatten().collect(),
            Op::Glu(op) => vec![op.x],
            Op::Mixture(op) => [Some(op.x), Some(op.logits), op.residual].into_iter().flatten().collect(),
            Op::HeadNorm(op) => vec![op.qkv],
            Op::Rotary(op) => vec![op.qkv],
            Op::Attention(op) => vec![op.qkv],
            Op::ShortConv(op) => vec![op.bcx],
            Op::Sum(op) => vec![op.x, op.other],
            Op::Join(op) => op.parts.clone(),
            Op::Pool(op) => vec![op.x],
            Op::Normalize(op) => vec![op.x],
        }
    }

    /// Replaces each value that it reads.
    pub fn map_inputs(&mut self, mut map: impl FnMut(Value) -> Value) {
        match self {
            Op::Embed(_) => {}
            Op::Linear(op) => {
                op.x = map(op.x);
                op.residual = op.residual.map(map);
            }
            Op::Norm(op) => {
                op.x = map(op.x);
                op.residual = op.residual.map(map);
            }
            Op::Glu(op) => op.x = map(op.x),
            Op::Mixture(op) => {
                op.x = map(op.x);
                op.logits = map(op.logits);
                op.residual = op.residual.map(map);
            }
            Op::HeadNorm(op) => op.qkv = map(op.qkv),
            Op::Rotary(op) => op.qkv = map(op.qkv),
            Op::Attention(op) => op.qkv = map(op.qkv),
            Op::ShortConv(op) => op.bcx = map(op.bcx),
            Op::Sum(op) => {
                op.x = map(op.x);
                op.other = map(op.other);
            }
            Op::Join(op) => op.parts.iter_mut().for_each(|part| *part = map(*part)),
            Op::Pool(op) => op.x = map(op.x),
            Op::Normalize(op) => op.x = map(op.x),
        }
    }

    /// Whether each row of the result depends on the same row of its inputs alone.
    pub fn is_row_wise(&self) -> bool {
        match self {
            Op::Linear(_) | Op::Norm(_) | Op::Glu(_) | Op::Mixture(_) | Op::Sum(_) | Op::Join(_) => true,
            Op::Normalize(_) => true,
            // Of tokens only: these know a token's position or its neighbours, or that they work on q, k and v.
            Op::Embed(_) | Op::HeadNorm(_) | Op::Rotary(_) | Op::Attention(_) | Op::ShortConv(_) | Op::Pool(_) => false,
        }
    }

    /// The weights it uses.
    pub fn weights(&self) -> Vec<WeightId> {
        match self {
            Op::Embed(op) => {
                let tables = op.lookups.iter().map(|lookup| lookup.table);
                tables.chain(op.norm.iter().flat_map(RowNorm::weights)).collect()
            }
            Op::Linear(op) => [Some(op.weight), op.bias].into_iter().flatten().collect(),
            Op::Norm(op) => op.norm.weights().collect(),
            Op::HeadNorm(op) => [Some(op.weight), op.bias].into_iter().flatten().collect(),
            Op::Rotary(op) => vec![op.table],
            Op::Attention(op) => op.table().into_iter().collect(),
            Op::ShortConv(op) => [Some(op.weight), op.bias].into_iter().flatten().collect(),
            Op::Mixture(op) => [Some(op.up), Some(op.down), op.bias].into_iter().flatten().collect(),
            Op::Glu(_) | Op::Sum(_) | Op::Join(_) | Op::Pool(_) | Op::Normalize(_) => vec![],
        }
    }
}
