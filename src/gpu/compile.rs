//! A program becomes a list of launches: plain data that names values, weights and grids, made without a device.

use super::kernel::{Kernel, Prelude, Target, stride4};
use super::kernels;
use super::options::Dtype;
use super::upload::Sizes;
use super::weights::WeightUse;
use crate::error::Result;
use crate::program::{Op, Program, Rows, Shape, Value, WeightId, WeightSpec};
use std::ops::Range;

/// One dispatch, or several where one would keep the device for too long.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// What is constant for its pipeline.
    pub prelude: Prelude,
    /// The contents of its [`Binding::Params`](super::kernel::Binding::Params), laid out as WGSL's uniform address space
    /// demands; empty without one.
    pub params: Vec<u8>,
    /// Its storage buffers, in order of the kernel's `Read` and `Write` bindings.
    pub slots: Vec<Slot>,
    /// How many workgroups.
    pub grid: Grid,
    /// The launch is left out unless what the grid counts lies in this range, or for query tiles the length of the longest
    /// sequence, for places the rows of an expert on average: a step may have a kernel for few rows and another for many.
    pub items: Range<u32>,
}

impl Slot {
    /// The weights that lie in its buffer, in this order.
    pub fn weights(&self) -> &[WeightUse] {
        match self {
            Slot::Weight(weight) => std::slice::from_ref(weight),
            Slot::Weights(weights) => weights,
            Slot::Value(_) | Slot::Between(_) | Slot::Unused => &[],
        }
    }
}

impl Launch {
    /// For any number of items.
    pub const ALWAYS: Range<u32> = 0..u32::MAX;
}

/// What a storage binding is bound to.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// A value of the program: `array<Elem4>`, rows of `stride4(cols)`.
    Value(Value),
    /// A packed weight.
    Weight(WeightUse),
    /// Several, one behind the other: bindings are few.
    Weights(Vec<WeightUse>),
    /// What the launches of a step hand on to each other.
    Between(Between),
    /// Nothing: a few zeros stand in, and the prelude tells the kernel not to look.
    Unused,
}

/// Memory that only the launches of one step know, and the next step's may overwrite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Between {
    /// Which: all that a program has of one room lie at the same place.
    pub room: Room,
    /// How many rows it has.
    pub rows: Count,
    /// What stands in a row.
    pub row: Row,
}

/// Rooms between the launches of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Rows in 8 bits.
    Quantized,
    /// The experts of each row.
    Routes,
    /// Where each row goes.
    Places,
    /// Whose each block of places is.
    Blocks,
    /// Rows as their experts see them, and then what comes of them.
    Experts,
    /// What an expert has between its two products.
    Inner,
}

/// A row of what launches hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// So many columns, as values have them.
    Numbers(usize),
    /// So many `u32`s.
    Words(usize),
}

impl Room {
    /// How many there are.
    pub const COUNT: usize = 6;
}

impl Between {
    /// Its bytes for a batch.
    pub(super) fn bytes(&self, sizes: Sizes, dtype: Dtype) -> u64 {
        let row = match self.row {
            Row::Numbers(cols) => stride4(cols) * 4 * dtype.size(),
            Row::Words(words) => 4 * words,
        };
        u64::from(self.rows.of(sizes)) * row as u64
    }
}

/// `ceil(count / per_group)` workgroups along the folded x and y axes, times `columns` along z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// What the workgroups are counted by.
    pub count: Count,
    /// How many of those one workgroup takes.
    pub per_group: u32,
    /// Workgroups along z: blocks of columns, or heads.
    pub columns: u32,
}

/// A run-time number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Tokens of the batch.
    Tokens,
    /// Sequences of the batch.
    Sequences,
    /// Query tiles of the batch: see [`Compiled::queries`].
    QueryTiles,
    /// Places of the rows that experts take.
    Places(Routing),
    /// Blocks of such places.
    Blocks(Routing),
}

/// How a mixture hands rows to its experts: those of an expert lie one behind the other, from a whole block on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// What rows are.
    pub rows: Rows,
    /// All there are.
    pub experts: usize,
    /// Of each row.
    pub top: usize,
}

impl Routing {
    /// Places of a block: no workgroup of any kernel has so many rows that it sees two.
    pub const BLOCK: usize = 128;

    /// Rows, each counted for each of its experts.
    fn routes(self, sizes: Sizes) -> u32 {
        Count::from(self.rows).of(sizes) * self.top as u32
    }

    /// The most that the rows of all experts take.
    fn blocks(self, sizes: Sizes) -> u32 {
        let (routes, block) = (self.routes(sizes), Routing::BLOCK as u32);
        // As `block_count` of experts.wgsl has it.
        (routes + self.experts as u32 * (block - 1)).div_ceil(block).min(routes)
    }
}

impl Count {
    /// In a batch.
    pub(super) fn of(self, sizes: Sizes) -> u32 {
        match self {
            Count::Tokens => sizes.tokens,
            Count::Sequences => sizes.sequences,
            Count::QueryTiles => sizes.query_tiles,
            Count::Places(routing) => routing.blocks(sizes) * Routing::BLOCK as u32,
            Count::Blocks(routing) => routing.blocks(sizes),
        }
    }

    /// What decides which of a step's launches there are: see [`Launch::items`].
    pub(super) fn decides(self, sizes: Sizes) -> u32 {
        match self {
            Count::QueryTiles => sizes.longest,
            Count::Places(routing) => routing.routes(sizes).div_ceil(routing.experts as u32),
            other => other.of(sizes),
        }
    }
}

impl From<Rows> for Count {
    fn from(rows: Rows) -> Count {
        match rows {
            Rows::Tokens => Count::Tokens,
            Rows::Sequences => Count::Sequences,
        }
    }
}

impl Grid {
    /// Groups for so many items, along the folded axes.
    pub fn groups(&self, items: u32) -> u32 {
        items.div_ceil(self.per_group)
    }

    /// The dispatch for so many items.
    pub fn workgroups(&self, items: u32, per_axis: u32) -> [u32; 3] {
        self.fold(self.groups(items), per_axis)
    }

    /// The dispatch of so many groups: x and y share what one axis cannot hold.
    pub fn fold(&self, groups: u32, per_axis: u32) -> [u32; 3] {
        let y = groups.div_ceil(per_axis);
        [if y == 0 { 0 } else { groups.div_ceil(y) }, y, self.columns]
    }
}

/// A program for a target.
#[derive(Debug)]
pub struct Compiled {
    /// The launches of each step.
    pub steps: Vec<Vec<Launch>>,
    /// The rows of a query tile of attention, for each range of longest sequences: see [`Compiled::queries`].
    query_tiles: Vec<(Range<u32>, u32)>,
}

/// What a kernel sees of the step that it makes launches for.
pub struct Context<'a> {
    /// The program.
    pub program: &'a Program,
    /// The device.
    pub target: &'a Target,
    /// The value that the step writes.
    pub out: Value,
}

impl Context<'_> {
    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.program.shape(value)
    }

    /// The shape of the value that the step writes.
    pub fn out_shape(&self) -> Shape {
        self.program.shape(self.out)
    }

    /// A weight's description.
    pub fn weight(&self, id: WeightId) -> &WeightSpec {
        self.program.weight(id)
    }

    /// A prelude with the target's dtype.
    pub fn prelude(&self) -> Prelude {
        Prelude::new(self.target.dtype)
    }
}

impl Compiled {
    /// The host cuts each sequence of a batch into tiles of at most so many queries.
    pub fn queries(&self, longest: u32) -> u32 {
        let tile = self.query_tiles.iter().find(|(range, _)| range.contains(&longest));
        tile.map_or(u32::MAX, |&(_, queries)| queries)
    }

    /// The most tiles that a batch can have.
    pub fn most_query_tiles(&self, tokens: usize, sequences: usize) -> usize {
        let smallest = self.query_tiles.iter().map(|&(_, queries)| queries as usize).min();
        sequences + tokens / smallest.unwrap_or(usize::MAX)
    }

    /// Bytes of each room.
    pub(super) fn between(&self, sizes: Sizes, dtype: Dtype) -> [u64; Room::COUNT] {
        let mut bytes = [0; Room::COUNT];
        for slot in self.steps.iter().flatten().flat_map(|launch| &launch.slots) {
            if let Slot::Between(between) = slot {
                let room = &mut bytes[between.room as usize];
                *room = between.bytes(sizes, dtype).max(*room);
            }
        }
        bytes
    }
}

/// Chooses the launches of every step.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) if a step cannot run within the device's limits.
pub fn compile(program: &Program, target: &Target) -> Result<Compiled> {
    let steps = program.steps.iter().enumerate().map(|(i, step)| {
        let context = Context { program, target, out: Value(i as u32) };
        match &step.op {
            Op::Embed(op) => kernels::embed::launches(op, &context),
            Op::Linear(op) => kernels::linear::launches(op, &context),
            Op::Norm(op) => kernels::norm::launches(op, &context),
            Op::Glu(op) => kernels::glu::launches(op, &context),
            Op::Mixture(op) => kernels::mixture::launches(op, &context),
            Op::HeadNorm(op) => kernels::head_norm::launches(op, &context),
            Op::Rotary(op) => kernels::rotary::launches(op, &context),
            Op::Attention(op) => kernels::attention::launches(op, &context),
            Op::ShortConv(op) => kernels::short_conv::launches(op, &context),
            Op::Sum(op) => kernels::sum::launches(op, &context),
            Op::Join(op) => kernels::join::launches(op, &context),
            Op::Pool(op) => kernels::pool::launches(op, &context),
            Op::Normalize(op) => kernels::normalize::launches(op, &context),
        }
    });
    let tiles = kernels::attention::choose(program, target).into_iter();
    Ok(Compiled {
        steps: steps.collect::<Result<_>>()?,
        query_tiles: tiles.map(|(longest, variant)| (longest, variant.queries() as u32)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_blocks_for_every_way_to_hand_out_rows() {
        let block = Routing::BLOCK as u32;
        for (experts, top) in [(1, 1), (2, 1), (3, 2), (8, 2), (70, 3)] {
            let routing = Routing { rows: Rows::Tokens, experts, top };
            for tokens in [0, 1, 2, 7, 63, 64, 65, 127, 128, 129, 400, 5_000] {
                let sizes = Sizes { tokens, sequences: 1, query_tiles: 1, longest: 1 };
                // So many experts have a row each at least, where there are as many; the rest goes to the first.
                for busy in top..=experts {
                    let routes = tokens * top as u32;
                    let others = (busy as u32 - 1).min(routes);
                    let needed = others + (routes - others).div_ceil(block);
                    assert!(needed <= routing.blocks(sizes), "{tokens} tokens, {top} of {experts}, {busy} busy");
                }
                assert!(routing.blocks(sizes) <= (tokens * top as u32).div_ceil(block) + experts as u32);
            }
        }
    }

    #[test]
    fn a_long_grid_is_folded_and_covers_every_item() {
        for (items, per_group) in [(0, 4), (1, 1), (65_535, 1), (65_536, 1), (200_001, 2), (10_000_000, 1)] {
            let [x, y, z] = Grid { count: Count::Tokens, per_group, columns: 3 }.workgroups(items, 65_535);
            assert!(x <= 65_535 && y <= 65_535 && z == 3);
            let groups = u64::from(items.div_ceil(per_group));
            assert!(u64::from(x) * u64::from(y) >= groups);
            assert!(u64::from(x) * u64::from(y) < groups + u64::from(y.max(1)), "at most one idle workgroup a row");
        }
    }
}
