//! A model as data: a straight list of typed steps over values. It names its weights but holds no numbers, prints as text,
//! and is planned without a device. Built by [`Builder`], run by an [`Executor`](crate::executor::Executor).
//!
//! Every value is a matrix whose columns are known now and whose rows are either the batch's tokens or its sequences. So
//! two run-time numbers describe every shape, and there are no strides, no broadcasting and no padding.

mod activation;
mod attention;
mod blocks;
mod builder;
mod cost;
mod folded;
mod op;
mod plan;
mod pool_early;
mod rotary;
mod weights;

pub use activation::{Activation, Slope};
pub use attention::{Attention, Distances, PositionBias, alibi_slope};
pub(crate) use blocks::Blocks;
pub use builder::Builder;
pub use cost::Cost;
pub use folded::{Bucketed, Centred, Difference, Mapped, Projected, Shifted};
pub use op::{
    Embed, Glu, Half, HeadNorm, Index, Join, Linear, Lookup, Mixture, Norm, NormKind, Normalize, Op, Pool, PoolMode,
    Rotary, RowNorm, ShortConv, Sum,
};
pub use plan::Plan;
pub use rotary::RotaryTable;
pub use weights::{Part, RandomWeights, TensorSpec, WeightSource, WeightSpec};

use crate::batch::Batch;
use crate::error::RunError;
use std::collections::HashSet;
use std::fmt;

/// What a value has one row of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// The tokens of the batch, all sequences packed one behind the other.
    Tokens,
    /// The sequences of the batch.
    Sequences,
}

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What it has one row of.
    pub rows: Rows,
    /// Columns, known when the model is loaded.
    pub cols: usize,
}

/// A value: written by exactly one step, never in place. An index into [`Program::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

/// A weight: an index into [`Program::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub(crate) u32);

/// One step: computes one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it computes.
    pub op: Op,
    /// The shape of the value that it writes.
    pub shape: Shape,
    /// Where in the model it stands, e.g. `layer.3.attention`: for printed programs and first differences.
    pub label: String,
}

/// Which of a program's values a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// One row a sequence: the sentence embedding.
    Sentences,
    /// One row a token: the last hidden state.
    Tokens,
}

/// A model as data. Step `i` writes value `i`.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// In order of execution.
    pub steps: Vec<Step>,
    /// The weights, each once.
    pub weights: Vec<WeightSpec>,
    /// The value of [`Output::Sentences`].
    pub sentences: Value,
    /// The value of [`Output::Tokens`].
    pub tokens: Value,
    /// A token of this id takes no position, wherever it stands: RoBERTa counts positions so.
    pub padding: Option<u32>,
    /// Tokens of this id at the end of a sequence are left away: a decoder's classifier looks at the last other one, which does
    /// not see them.
    pub trim: Option<u32>,
    /// Whether its hidden states leave the range of f16, which ends at 65,504.
    pub wide: bool,
}

impl Value {
    /// Its place in [`Program::steps`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl WeightId {
    /// Its place in [`Program::weights`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Shape {
    /// Rows for a batch of so many tokens and sequences.
    pub fn rows_in(&self, tokens: usize, sequences: usize) -> usize {
        match self.rows {
            Rows::Tokens => tokens,
            Rows::Sequences => sequences,
        }
    }
}

impl Program {
    /// The tensors of a checkpoint that it needs.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.weights.iter().flat_map(|weight| &weight.parts).flat_map(Part::tensors)
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.steps[value.index()].shape
    }

    /// A weight's description.
    pub fn weight(&self, id: WeightId) -> &WeightSpec {
        &self.weights[id.index()]
    }

    /// The value behind an output.
    pub fn output(&self, output: Output) -> Value {
        match output {
            Output::Sentences => self.sentences,
            Output::Tokens => self.tokens,
        }
    }

    /// Numbers in all weights: the model's parameters that are used.
    pub fn parameters(&self) -> usize {
        let stored = self.weights.iter().flat_map(|weight| &weight.parts).filter_map(Part::stored);
        // A tensor may be in several weights: as a table and as a matrix, or in pieces.
        let stored: HashSet<&TensorSpec> = stored.collect();
        stored.into_iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// How many tokens a sequence may have: the shortest position table, less its offset. `None` without a table.
    pub fn max_positions(&self) -> Option<usize> {
        self.lookups(Index::Positions).map(|(rows, offset)| rows.saturating_sub(offset as usize)).min()
    }

    /// How many token ids there are: the rows of the table of word embeddings. `None` without a table.
    pub fn vocabulary(&self) -> Option<usize> {
        self.lookups(Index::Ids).map(|(rows, offset)| rows.saturating_sub(offset as usize)).min()
    }

    /// Checks what the shaders rely on: every id, position and type has a row in its table.
    pub fn check(&self, batch: &Batch) -> Result<(), RunError> {
        for (index, numbers, name) in [
            (Index::Ids, &batch.ids, "token id"),
            (Index::Positions, &batch.positions, "position"),
            (Index::Types, &batch.types, "token type"),
        ] {
            let is_number = |number: &u32| index != Index::Positions || *number != Batch::NO_POSITION;
            let largest = numbers.iter().copied().filter(is_number).max().unwrap_or(0);
            for (rows, offset) in self.lookups(index) {
                if offset == 0 && !numbers.iter().all(is_number) {
                    let detail = "a token without a position, and a table without a row for that";
                    return Err(RunError::InvalidBatch(detail.into()));
                }
                if !numbers.is_empty() && largest as usize + offset as usize >= rows {
                    return Err(RunError::InvalidBatch(format!(
                        "{name} {largest} needs row {} of a table of {rows} rows",
                        largest + offset
                    )));
                }
            }
        }
        Ok(())
    }

    /// Rows and offset of each table that is read by `index`.
    fn lookups(&self, index: Index) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.steps.iter().flat_map(move |step| match &step.op {
            Op::Embed(embed) => {
                let lookups = embed.lookups.iter().filter(|lookup| lookup.index == index);
                lookups.map(|lookup| (self.weight(lookup.table).rows, lookup.offset)).collect()
            }
            Op::Rotary(rotary) if index == Index::Positions => vec![(self.weight(rotary.table).rows, 0)],
            _ => vec![],
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = match self.rows {
            Rows::Tokens => "tokens",
            Rows::Sequences => "sequences",
        };
        write!(f, "[{rows}, {}]", self.cols)
    }
}

/// One line a step: `%3 [tokens, 1152] = linear %2 * attention.self.query.weight (+2) ...  # layer.0.qkv`.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{} {} = {}", Value(i as u32), step.shape, step.op.name())?;
            self.fmt_op(&step.op, f)?;
            writeln!(f, "  # {}", step.label)?;
        }
        writeln!(f, "output: sentences {}, tokens {}", self.sentences, self.tokens)
    }
}

impl Program {
    fn fmt_op(&self, op: &Op, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = |id: WeightId| self.weight(id).name();
        match op {
            Op::Embed(op) => {
                for (i, lookup) in op.lookups.iter().enumerate() {
                    let index = match lookup.index {
                        Index::Ids => "ids",
                        Index::Positions => "positions",
                        Index::Types => "types",
                    };
                    write!(f, "{}{}[{index}", if i == 0 { " " } else { " + " }, weight(lookup.table))?;
                    if lookup.offset > 0 {
                        write!(f, " + {}", lookup.offset)?;
                    }
                    write!(f, "]")?;
                }
                op.norm.map_or(Ok(()), |norm| {
                    write!(f, ", {}", if norm.kind == NormKind::Rms { "rms" } else { "norm" })?;
                    self.fmt_norm(&norm, f)
                })
            }
            Op::Linear(op) => {
                write!(f, " {} * {}", op.x, weight(op.weight))?;
                if op.bias.is_some() {
                    write!(f, " + bias")?;
                }
                if op.activation != Activation::Identity {
                    write!(f, ", {}", op.activation.name())?;
                }
                op.residual.map_or(Ok(()), |residual| write!(f, ", + {residual}"))
            }
            Op::Norm(op) => {
                let kind = if op.norm.kind == NormKind::Rms { "rms of " } else { "" };
                write!(f, " {kind}{}", op.x)?;
                self.fmt_norm(&op.norm, f)?;
                op.residual.map_or(Ok(()), |residual| write!(f, ", + {residual}"))
            }
            Op::Glu(op) => write!(f, " {}, {} of the {:?} half", op.x, op.activation.name(), op.activated),
            Op::Mixture(op) => {
                let (up, down) = (weight(op.up), weight(op.down));
                write!(
                    f,
                    " {} * {up}, {}, * {down} of the best {} of {}",
                    op.x,
                    op.activation.name(),
                    op.top,
                    op.logits
                )?;
                if op.bias.is_some() {
                    write!(f, " + bias")?;
                }
                op.residual.map_or(Ok(()), |residual| write!(f, ", + {residual}"))
            }
            Op::HeadNorm(op) => {
                let groups: Vec<_> = op.groups.iter().filter(|groups| **groups > 0).map(usize::to_string).collect();
                let groups = groups.join(" + ");
                write!(f, " {}, {groups} groups of {} by {}, eps {:e}", op.qkv, op.group, weight(op.weight), op.eps)
            }
            Op::ShortConv(op) => {
                write!(f, " {} by {}", op.bcx, weight(op.weight))?;
                op.bias.map_or(Ok(()), |bias| write!(f, " + {}", weight(bias)))
            }
            Op::Rotary(op) => write!(f, " {}, {} heads of {} by {}", op.qkv, op.heads, op.head_dim, weight(op.table)),
            Op::Attention(op) => {
                write!(f, " {}, {} heads of {}", op.qkv, op.heads, op.head_dim)?;
                if op.kv_heads != op.heads {
                    write!(f, " over {}", op.kv_heads)?;
                }
                write!(f, ", scale {}", op.scale)?;
                if let Some(softcap) = op.softcap {
                    write!(f, ", at most {softcap}")?;
                }
                if let Some(window) = op.window {
                    write!(f, ", within {window}")?;
                }
                if op.causal {
                    write!(f, ", causal")?;
                }
                match op.bias {
                    None => Ok(()),
                    Some(PositionBias::Alibi) => write!(f, ", alibi"),
                    Some(PositionBias::Relative { table }) => write!(f, ", + {}", weight(table)),
                    Some(PositionBias::Disentangled { table, .. }) => write!(f, ", with {}", weight(table)),
                }
            }
            Op::Sum(op) => write!(f, " {} * {} + {} * {}", op.x_factor, op.x, op.factor, op.other),
            Op::Join(op) => {
                let parts: Vec<_> = op.parts.iter().map(Value::to_string).collect();
                write!(f, " {}", parts.join(" | "))
            }
            Op::Pool(op) => {
                let modes: Vec<_> = op.modes.iter().map(|mode| mode.name()).collect();
                write!(f, " {}, {}{}", op.x, modes.join(" | "), if op.normalize { ", normalised" } else { "" })
            }
            Op::Normalize(op) => write!(f, " {}", op.x),
        }
    }

    fn fmt_norm(&self, norm: &RowNorm, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " by {}, eps {:e}", self.weight(norm.weight).name(), norm.eps)
    }
}
