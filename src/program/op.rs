//! The operations of a program. Each is a plain description: what it reads, which weights it uses, its constants. Fusion is
//! a field (`Linear::activation`, `Linear::residual`), chosen where the model is written.
//!
//! To add an operation: a variant here, a method in `builder.rs`, a line in `Op::inputs`, `Op::weights` and `Display`; then
//! the compiler asks for `cpu/x.rs` and `gpu/kernels/x.rs` + `shaders/x.wgsl` (every match is exhaustive); then rows in
//! `tests/support/table.rs`, with its definition in `tests/support/naive.rs`.

use super::{Value, WeightId};

/// One operation. `tokens` and `sequences` are the batch's row counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Rows of tables, summed.
    Embed(Embed),
    /// A matrix product with bias, activation and residual.
    Linear(Linear),
    /// Layer normalisation of each row.
    Norm(Norm),
    /// Multi-head self-attention within each sequence.
    Attention(Attention),
    /// One row for each sequence from its tokens' rows.
    Pool(Pool),
    /// Each row divided by its L2 norm.
    Normalize(Normalize),
}

/// `y[t] = sum over lookups of table[index[t] + offset]`: `[tokens, cols]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// The tables, all of `cols` columns. At least one.
    pub lookups: Vec<Lookup>,
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

/// `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias` for each row, with the biased variance (Ba et al. 2016).
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `[rows, cols]`
    pub x: Value,
    /// `[cols]`
    pub weight: WeightId,
    /// `[cols]`
    pub bias: Option<WeightId>,
    /// Added to the variance.
    pub eps: f32,
}

/// `softmax(scale * q k^T) v` for each sequence and head (Vaswani et al. 2017): `[tokens, heads * head_dim]`.
/// Every token sees all tokens of its own sequence and no other.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// `[tokens, 3 * heads * head_dim]`: the columns are all of q, then all of k, then all of v, each head by head.
    pub qkv: Value,
    /// Heads.
    pub heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Multiplied into the scores before the softmax.
    pub scale: f32,
}

/// One row for each sequence from the rows of its tokens, one block of columns a mode: `[sequences, modes * cols]`.
/// The first `skip[sequence]` tokens of the batch (an excluded prompt) do not take part.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// `[tokens, cols]`
    pub x: Value,
    /// Concatenated in this order. At least one.
    pub modes: Vec<PoolMode>,
}

/// How [`Pool`] makes one row of many. Names as in sentence-transformers' `pooling_mode`.
/// A sequence with no token left gives zeros, except for `Cls`, which then gives the sequence's first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// The first token that takes part.
    Cls,
    /// The maximum of each column.
    Max,
    /// The mean of each column.
    Mean,
    /// The sum divided by the square root of the count.
    MeanSqrtLenTokens,
    /// The mean weighted by position: 1, 2, 3, ... from the sequence's first token, which an excluded prompt also counts
    /// from.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// `y = x / max(|x|, 1e-12)` for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// `[rows, cols]`
    pub x: Value,
}

/// An element-wise function: PyTorch's modules of the same name, with their default parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the formulas stand beside each name
pub enum Activation {
    /// `x`
    Identity,
    /// `x * 0.5 * (1 + erf(x / sqrt 2))`: the exact form
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`: gelu_new, gelu_pytorch_tanh, gelu_fast
    GeluTanh,
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `x * sigmoid(x)`: swish
    Silu,
    /// `tanh x`
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` above 0, else `slope x`: LeakyReLU (0.01), RReLU (11 / 48 outside training), PReLU (learned)
    LeakyRelu(Slope),
    /// `x` above 0, else `e^x - 1`; CELU with alpha 1 is the same function
    Elu,
    /// `1.0507 * (x above 0, else 1.67326 (e^x - 1))`
    Selu,
    /// `x * tanh(softplus(x))`
    Mish,
    /// `ln(1 + e^x)`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `ln(sigmoid(x))`
    LogSigmoid,
    /// `x - tanh x`
    Tanhshrink,
    /// `x` where `|x| > 0.5`, else 0
    Hardshrink,
    /// `x - 0.5` above 0.5, `x + 0.5` below -0.5, else 0
    Softshrink,
    /// `min(max(x / 6 + 1/2, 0), 1)`
    Hardsigmoid,
    /// `x * hardsigmoid(x)`
    Hardswish,
    /// `min(max(x, -1), 1)`
    Hardtanh,
}

/// The factor below 0 of [`Activation::LeakyRelu`]: an f32 as its bits, so that programs can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slope(u32);

impl Slope {
    /// That of torch.nn.LeakyReLU.
    pub const LEAKY: Slope = Slope::new(0.01);
    /// That of torch.nn.RReLU outside training: the middle of 1/8 and 1/3.
    pub const RRELU: Slope = Slope::new(11.0 / 48.0);

    /// A slope of this value.
    pub const fn new(value: f32) -> Slope {
        Slope(value.to_bits())
    }

    /// Its value.
    pub const fn value(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl Activation {
    /// Every activation, for tables of tests and messages.
    pub const ALL: [Activation; 22] = {
        use Activation::*;
        [
            Identity,
            Gelu,
            GeluTanh,
            QuickGelu,
            Relu,
            Silu,
            Tanh,
            Sigmoid,
            Relu6,
            LeakyRelu(Slope::LEAKY),
            Elu,
            Selu,
            Mish,
            Softplus,
            Softsign,
            LogSigmoid,
            Tanhshrink,
            Hardshrink,
            Softshrink,
            Hardsigmoid,
            Hardswish,
            Hardtanh,
        ]
    };

    /// The name in printed programs, and of the WGSL function.
    pub fn name(self) -> &'static str {
        use Activation::*;
        match self {
            Identity => "identity",
            Gelu => "gelu",
            GeluTanh => "gelu_tanh",
            QuickGelu => "quick_gelu",
            Relu => "relu",
            Silu => "silu",
            Tanh => "tanh",
            Sigmoid => "sigmoid",
            Relu6 => "relu6",
            LeakyRelu(_) => "leaky_relu",
            Elu => "elu",
            Selu => "selu",
            Mish => "mish",
            Softplus => "softplus",
            Softsign => "softsign",
            LogSigmoid => "log_sigmoid",
            Tanhshrink => "tanhshrink",
            Hardshrink => "hardshrink",
            Softshrink => "softshrink",
            Hardsigmoid => "hardsigmoid",
            Hardswish => "hardswish",
            Hardtanh => "hardtanh",
        }
    }
}

impl PoolMode {
    /// The name sentence-transformers gives it.
    pub fn name(self) -> &'static str {
        match self {
            PoolMode::Cls => "cls",
            PoolMode::Max => "max",
            PoolMode::Mean => "mean",
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
            Op::Attention(_) => "attention",
            Op::Pool(_) => "pool",
            Op::Normalize(_) => "normalize",
        }
    }

    /// The values it reads.
    pub fn inputs(&self) -> Vec<Value> {
        match self {
            Op::Embed(_) => vec![],
            Op::Linear(op) => [Some(op.x), op.residual].into_iter().flatten().collect(),
            Op::Norm(op) => vec![op.x],
            Op::Attention(op) => vec![op.qkv],
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
            Op::Norm(op) => op.x = map(op.x),
            Op::Attention(op) => op.qkv = map(op.qkv),
            Op::Pool(op) => op.x = map(op.x),
            Op::Normalize(op) => op.x = map(op.x),
        }
    }

    /// Whether each row of the result depends on the same row of its inputs alone.
    pub fn is_row_wise(&self) -> bool {
        match self {
            Op::Linear(_) | Op::Norm(_) | Op::Normalize(_) => true,
            Op::Embed(_) | Op::Attention(_) | Op::Pool(_) => false,
        }
    }

    /// The weights it uses.
    pub fn weights(&self) -> Vec<WeightId> {
        match self {
            Op::Embed(op) => op.lookups.iter().map(|lookup| lookup.table).collect(),
            Op::Linear(op) => [Some(op.weight), op.bias].into_iter().flatten().collect(),
            Op::Norm(op) => [Some(op.weight), op.bias].into_iter().flatten().collect(),
            Op::Attention(_) | Op::Pool(_) | Op::Normalize(_) => vec![],
        }
    }
}
