//! Multi-head self-attention within each sequence. Several algorithms, of which a device's
//! [`Tuning`](crate::gpu::tuning::Tuning) names one for each class of batches:
//!
//! - `online.rs`: one or more threads a query row, keys and values through workgroup memory; needs no feature;
//! - `tiled.rs`: register tiles, for short sequences a whole head at once; needs no feature. The one that has a disentangled bias
//!   computed by tiles too;
//! - `cooperative.rs`: for long ones, the device's matrix units, in f16 (and in f32 where they have it);
//! - `subgroup.rs`: broadcasts instead of barriers, for software adapters with a fixed subgroup size.

mod bias;
mod cooperative;
mod online;
mod subgroup;
mod tiled;

use crate::error::{Error, Result};
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, Target, stride4};
use crate::gpu::tuning::{AttentionClass, LengthClass, WIDE_HEAD};
use crate::gpu::weights::{ROWS, WeightUse};
use crate::program::{Attention, Op, PositionBias, Program};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The part of all kernels, that of all but attention_subgroup.wgsl, and how those that load vectors do it.
const MASK_PART: &str = include_str!("../../../../shaders/common/attention_mask.wgsl");
const PART: &str = include_str!("../../../../shaders/common/attention.wgsl");
const LOAD_PART: &str = include_str!("../../../../shaders/common/attention_load.wgsl");
/// How all but attention_subgroup.wgsl write: heads of whole vectors, and others.
const STORE_PART: &str = include_str!("../../../../shaders/common/attention_store.wgsl");
const STORE1_PART: &str = include_str!("../../../../shaders/common/attention_store1.wgsl");

/// What they bind: q, k and v; the bias's table; out.
const BINDINGS: &[Binding] = &[Binding::Read, Binding::Read, Binding::Write];

/// Which kernel computes attention, and in which tiles. The host cuts sequences into tiles of so many queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// `attention.wgsl`
    Online {
        /// 16, 32, 64 or 128.
        queries: usize,
        /// Columns of a head that a thread has of its query: 8, 16 or 32. Halved heads take two threads a query, and so on.
        columns: usize,
        /// Keys that pass through workgroup memory at a time, at most: a multiple of 4.
        keys: usize,
    },
    /// `attention_whole.wgsl`, for classes of up to 64 tokens.
    Whole {
        /// A multiple of 4.
        queries: usize,
        /// Threads a head.
        lanes: usize,
        /// Heads of a workgroup.
        heads: usize,
    },
    /// `attention_tiled.wgsl`
    Tiled {
        /// A multiple of 4.
        queries: usize,
        /// Keys at a time: a multiple of 4.
        keys: usize,
    },
    /// `attention_cooperative.wgsl`: tiles of 4 bands of `rows` blocks of `size` x `size`.
    Cooperative {
        /// 8 or 16.
        size: usize,
        /// Blocks of a band.
        rows: usize,
        /// Keys that pass through workgroup memory at a time: a multiple of `size`.
        keys: usize,
    },
    /// `attention_subgroup.wgsl`: 32 queries.
    Subgroup {
        /// Lanes of a subgroup: 4, 8 or 16.
        lanes: usize,
    },
}

/// `online, 64 queries of 32 columns, 32 keys`
impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Variant::Online { queries, columns, keys } => {
                write!(f, "online, {queries} x {columns} columns, {keys} keys")
            }
            Variant::Whole { queries, lanes, heads } => {
                write!(f, "whole, {queries} x {heads} heads, {lanes} threads each")
            }
            Variant::Tiled { queries, keys } => write!(f, "tiled, {queries} x {keys} keys"),
            Variant::Cooperative { size, rows, keys } => {
                write!(f, "cooperative {} of {size} x {size}, {keys} keys", cooperative::queries(size, rows))
            }
            Variant::Subgroup { lanes } => write!(f, "subgroups of {lanes}"),
        }
    }
}

/// What a variant is, for one op.
struct Chosen {
    kernel: &'static Kernel,
    prelude: Prelude,
    /// Heads of a workgroup.
    heads: usize,
}

impl Variant {
    /// What any device can, for any op and length. A thread of 8 `vec4`s of q and as many sums takes about 80 vector registers on
    /// RDNA 2 and 3; one of 16 spills on RDNA 3 (RADV of Mesa 22.3).
    const SAFE: Variant = Variant::Online { queries: 64, columns: 32, keys: 32 };

    /// The same in smaller tiles, for short sequences.
    const NARROW: Variant = Variant::Online { queries: 32, columns: 16, keys: 32 };

    /// Queries of a tile.
    pub fn queries(self) -> usize {
        match self {
            Variant::Online { queries, .. } | Variant::Whole { queries, .. } | Variant::Tiled { queries, .. } => {
                queries
            }
            Variant::Cooperative { size, rows, .. } => cooperative::queries(size, rows),
            Variant::Subgroup { .. } => subgroup::QUERIES,
        }
    }

    /// Whether it can run on a device, for heads of this width and sequences of at most so many tokens. What a user has written into
    /// a tuning is held against the same.
    pub fn fits(self, target: &Target, head_dim: usize, longest: usize) -> bool {
        let limits = &target.limits;
        let memory = limits.max_compute_workgroup_storage_size as usize;
        let threads = |threads: usize| threads > 0 && threads <= limits.max_compute_invocations_per_workgroup as usize;
        match self {
            Variant::Online { queries, columns, keys } => {
                [16, 32, 64, 128].contains(&queries)
                    && [8, 16, 32].contains(&columns)
                    && keys >= 4
                    && threads(queries * head_dim.div_ceil(columns).next_power_of_two())
            }
            Variant::Whole { queries, lanes, heads } => {
                queries > 0
                    && queries.is_multiple_of(4)
                    && threads(lanes * heads)
                    && longest <= LengthClass::Medium.most()
                    && tiled::bytes(target, head_dim, queries, longest, heads) <= memory.min(tiled::MOST_BYTES)
            }
            Variant::Tiled { queries, keys } => {
                queries > 0
                    && keys > 0
                    && [queries, keys].iter().all(|rows| rows.is_multiple_of(4))
                    && threads(tiled::threads(head_dim, queries))
                    && tiled::bytes(target, head_dim, queries, keys, 1) <= memory
            }
            Variant::Cooperative { size, rows, keys } => {
                let bytes = cooperative::bytes(target, head_dim, self.queries(), keys);
                target.features.cooperative.size(target.dtype) == Some(size as u32)
                    && head_dim.is_multiple_of(size)
                    && [1, 2].contains(&rows)
                    && rows * size * head_dim <= cooperative::MOST_SUMS
                    && keys > 0
                    && keys.is_multiple_of(size)
                    && bytes <= memory
            }
            Variant::Subgroup { lanes } => target.software && subgroup_lanes(target) == Some(lanes),
        }
    }
}

/// The subgroup size that `attention_subgroup.wgsl` would be compiled for.
fn subgroup_lanes(target: &Target) -> Option<usize> {
    target.features.subgroup_size.filter(|lanes| [4, 8, 16].contains(lanes)).map(|lanes| lanes as usize)
}

/// The variants worth measuring on a device for heads of a width and sequences of a class.
pub fn candidates(target: &Target, head_dim: usize, length: LengthClass) -> Vec<Variant> {
    let online = |queries, columns, keys| Variant::Online { queries, columns, keys };
    let tiled = |queries, keys| Variant::Tiled { queries, keys };
    let whole = |queries, lanes, heads| Variant::Whole { queries, lanes, heads };
    let mut variants = match length {
        LengthClass::Tiny => vec![whole(16, 32, 2), whole(16, 64, 1), whole(16, 32, 1), online(16, 8, 16)],
        LengthClass::Short => vec![whole(32, 64, 1), whole(32, 32, 1), whole(32, 32, 2), online(32, 16, 32)],
        LengthClass::Medium => vec![whole(32, 64, 1), whole(32, 128, 1), tiled(32, 32), online(64, 32, 32)],
        LengthClass::Long => {
            vec![
                tiled(32, 32),
                tiled(64, 32),
                tiled(32, 64),
                online(64, 32, 32),
                online(64, 16, 32),
                online(128, 32, 32),
            ]
        }
    };
    if let Some(size) = target.features.cooperative.size(target.dtype) {
        let shapes: &[(usize, usize)] = match (length, size) {
            (LengthClass::Tiny | LengthClass::Short, _) => &[],
            (LengthClass::Medium, 8) => &[(2, 32), (1, 32)],
            (LengthClass::Medium, _) => &[(1, 32)],
            (LengthClass::Long, 8) => &[(2, 32), (2, 64), (1, 32)],
            (LengthClass::Long, _) => &[(1, 32), (1, 64), (2, 32)],
        };
        let cooperative = |&(rows, keys)| Variant::Cooperative { size: size as usize, rows, keys };
        variants.extend(shapes.iter().map(cooperative));
    }
    variants.into_iter().filter(|variant| variant.fits(target, head_dim, length.most())).collect()
}

/// What a device gets that has not been measured.
fn default_variant(target: &Target, head_dim: usize, length: LengthClass) -> Variant {
    // Workgroups of 64 threads: on AMD that is a subgroup, and half of one is idle if there are fewer.
    let (lanes, heads) = if head_dim > WIDE_HEAD { (64, 1) } else { (32, 2) };
    match (subgroup_lanes(target), length) {
        (Some(lanes), _) if target.software => Variant::Subgroup { lanes },
        // One kernel, which compiles slowly there.
        _ if target.software => Variant::SAFE,
        (_, LengthClass::Tiny) => Variant::Whole { queries: 16, lanes, heads },
        (_, LengthClass::Short) => Variant::Whole { queries: 32, lanes: 64, heads: 1 },
        (_, LengthClass::Medium) => Variant::Whole { queries: 32, lanes: 128, heads: 1 },
        (_, LengthClass::Long) => Variant::Tiled { queries: 32, keys: 32 },
    }
}

/// The columns of a program's widest head; `None` if it has no attention.
pub fn widest_head(program: &Program) -> Option<usize> {
    attentions(program).map(|op| op.head_dim).max()
}

fn attentions(program: &Program) -> impl Iterator<Item = &Attention> {
    program.steps.iter().filter_map(|step| match &step.op {
        Op::Attention(op) => Some(op),
        _ => None,
    })
}

/// What a program's attention gets: a variant for each range of longest sequences, so for heads of one width, the widest.
pub fn choose(program: &Program, target: &Target) -> Vec<(Range<u32>, Variant)> {
    let Some(head_dim) = widest_head(program) else { return vec![(Launch::ALWAYS, Variant::SAFE)] };
    if attentions(program).any(is_disentangled) {
        return vec![(Launch::ALWAYS, with_distances(target, head_dim))];
    }
    let mut chosen: Vec<(Range<u32>, Variant)> = Vec::new();
    for length in LengthClass::ALL {
        let tuned = target.tuning.attention(AttentionClass::new(length, head_dim));
        let fits = |variant: &Variant| variant.fits(target, head_dim, length.most());
        let variant = tuned
            .filter(fits)
            .or(Some(default_variant(target, head_dim, length)).filter(fits))
            .unwrap_or(if length == LengthClass::Long || target.software { Variant::SAFE } else { Variant::NARROW });
        match chosen.last_mut() {
            // The keys of a whole head are as many as its class has at most.
            Some((range, last)) if *last == variant && !matches!(variant, Variant::Whole { .. }) => {
                range.end = length.range().end;
            }
            _ => chosen.push((length.range(), variant)),
        }
    }
    chosen
}

fn is_disentangled(op: &Attention) -> bool {
    matches!(op.bias, Some(PositionBias::Disentangled { .. }))
}

/// The variant for a disentangled bias: the largest tiles whose products with the distances find room. None is measured.
fn with_distances(target: &Target, head_dim: usize) -> Variant {
    let memory = target.limits.max_compute_workgroup_storage_size as usize;
    let fits = |&(queries, keys): &(usize, usize)| {
        let bytes = tiled::bytes(target, head_dim, queries, keys, 1) + tiled::bytes_of_distances(queries, keys);
        let tiled = Variant::Tiled { queries, keys };
        head_dim.is_multiple_of(4) && bytes <= memory && tiled.fits(target, head_dim, usize::MAX)
    };
    let tiles = [(32, 32), (32, 16), (16, 16)].into_iter().find(fits);
    tiles.map_or(Variant::SAFE, |(queries, keys)| Variant::Tiled { queries, keys })
}

/// The launches of attention.
///
/// # Errors
/// [`Error::Device`] if a head is so wide that four keys and values of it do not fit workgroup memory.
pub fn launches(op: &Attention, context: &Context) -> Result<Vec<Launch>> {
    choose(context.program, context.target)
        .into_iter()
        .map(|(range, variant)| launch(op, context, range, variant))
        .collect()
}

fn launch(op: &Attention, context: &Context, range: Range<u32>, variant: Variant) -> Result<Launch> {
    let target = context.target;
    let out4 = stride4(context.out_shape().cols);
    let prelude = context
        .prelude()
        .constant("HEADS", op.heads)
        .constant("HEAD_DIM", op.head_dim)
        .constant("KV_HEADS", op.kv_heads)
        .constant("SCALE_LOG2", op.scale * std::f32::consts::LOG2_E)
        .constant("WINDOW", op.window.map_or(u32::MAX, |window| window.min(u32::MAX as usize) as u32))
        .constant("CAUSAL", op.causal)
        .constant("QKV_STRIDE4", stride4(context.shape(op.qkv).cols));
    // What biases and heads of any width take, but for attention_subgroup.wgsl.
    let with_bias = |prelude: Prelude, op: &Attention| {
        prelude
            .constant("OUT_STRIDE", out4 * 4)
            .constant("BIASED", op.bias.is_some())
            .constant("CAPPED", op.softcap.is_some())
            .constant("CAP", op.softcap.unwrap_or(1.0) * std::f32::consts::LOG2_E)
            .part(if op.head_dim.is_multiple_of(4) { STORE_PART } else { STORE1_PART })
            .part(bias::position_bias(op, context))
    };
    let general = |prelude| with_bias(prelude, op);
    let online = |prelude, queries, columns, keys| match online::shape(op.head_dim, queries, columns, keys) {
        (_, 0) => Err(Error::Device(format!("a head of {} columns; attention takes at most 496", op.head_dim))),
        shape => Ok(online::choose(general(prelude), queries, shape)),
    };
    let Chosen { kernel, prelude, heads } = match variant {
        Variant::Subgroup { lanes } if subgroup::fits(op) => subgroup::choose(prelude, target, op, lanes, out4),
        Variant::Whole { queries, lanes, heads } => {
            let prelude = general(prelude).part(tiled::NO_DISTANCES);
            tiled::choose_whole(prelude, queries, range.end as usize - 1, lanes, heads)
        }
        Variant::Tiled { queries, keys } => {
            let prelude = match op.bias {
                // Not score by score.
                Some(PositionBias::Disentangled { distances, .. }) if op.head_dim.is_multiple_of(4) => {
                    let prelude = with_bias(prelude, &Attention { bias: None, ..op.clone() });
                    prelude.part(bias::table_rows(op, &distances)).part(tiled::DISTANCES_PART)
                }
                _ => general(prelude).part(tiled::NO_DISTANCES),
            };
            tiled::choose(prelude, op.head_dim, queries, keys)
        }
        Variant::Cooperative { size, rows, keys } if op.head_dim.is_multiple_of(size) => {
            cooperative::choose(general(prelude), target, op.head_dim, size, rows, keys)
        }
        Variant::Online { queries, columns, keys } => online(prelude, queries, columns, keys)?,
        Variant::Cooperative { .. } | Variant::Subgroup { .. } => online(prelude, variant.queries(), 32, 32)?,
    };
    let table = op.table().map(|table| WeightUse::whole(table, context.weight(table), &ROWS));
    let mut slots = vec![Slot::Value(op.qkv), Slot::Value(context.out)];
    if kernel.bindings.len() == BINDINGS.len() {
        slots.insert(1, table.map_or(Slot::Unused, Slot::Weight));
    }
    Ok(Launch {
        kernel,
        prelude,
        items: range,
        params: vec![],
        slots,
        grid: Grid { count: Count::QueryTiles, per_group: 1, columns: op.heads.div_ceil(heads) as u32 },
    })
}

#[cfg(test)]
mod tests;
