//! The matrix product with its epilogue: bias, activation, residual. Several algorithms, of which a device's
//! [`Tuning`](crate::gpu::tuning::Tuning) names one for each class of shapes:
//!
//! - `tiled.rs`: register tiles fed from workgroup memory; needs no feature;
//! - `few.rs`: for few rows, the inner columns shared out among threads; needs no feature;
//! - `subgroup.rs`: broadcasts instead of barriers, for software adapters with a fixed subgroup size;
//! - `cooperative.rs`: the device's matrix units, in f16 (and in f32 where they have it);
//! - `staged.rs`: the same, fed from workgroup memory;
//! - `int8.rs`: in 8 bits, four products at a time.

mod cooperative;
mod few;
mod int8;
mod panels;
mod staged;
mod subgroup;
mod tiled;

pub(super) use subgroup::words;

use super::mixture::{EXPERTS_PART, with_rows};
use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Routing, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, Target, stride4};
use crate::gpu::tuning::{Class, RowClass};
use crate::gpu::weights::{Packing, VECTOR, WeightUse};
use crate::program::{Activation, Blocks, Linear, Rows, Value, WeightId};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The part of all kernels but linear_subgroup.wgsl, which loads in words.
const LINEAR_PART: &str = include_str!("../../../../shaders/common/linear.wgsl");

/// How a kernel finds its rows, and its matrix.
const ROWS_ALL_PART: &str = include_str!("../../../../shaders/common/rows_all.wgsl");
const ROWS_EXPERTS_PART: &str = include_str!("../../../../shaders/common/rows_experts.wgsl");

/// The bias, which experts have none of: they bind their blocks in its place.
const BIAS_PART: &str = include_str!("../../../../shaders/common/linear_bias.wgsl");
const NO_BIAS: &str = "fn biased(sum: vec4<f32>, column: u32) -> vec4<f32> { return sum; }";

/// What every kernel of this op binds: x, weight, bias or the experts' blocks, residual, out.
const BINDINGS: &[Binding] = &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write];

/// Which kernel computes a matrix product, and in which tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// `linear.wgsl`: a workgroup takes `rows` rows by `panels` panels of 64 columns.
    Tiled {
        /// A multiple of 16.
        rows: usize,
        /// 1 or 2.
        panels: usize,
    },
    /// `linear_few.wgsl`: 4 rows by 64 columns.
    Few,
    /// `linear_subgroup.wgsl`: `rows` rows by 64 columns.
    Subgroup {
        /// Lanes of a subgroup: 4, 8 or 16.
        lanes: usize,
        /// A multiple of `lanes`.
        rows: usize,
        /// Loads in 64-bit words.
        wide: bool,
    },
    /// `linear_cooperative.wgsl`: 2 x 2 parts of `rows` x `columns` blocks of `size` x `size`.
    Cooperative {
        /// 8 or 16.
        size: usize,
        /// Blocks of a part, down.
        rows: usize,
        /// Blocks of a part, across.
        columns: usize,
        /// `linear_cooperative_staged.wgsl`: from workgroup memory.
        #[serde(default)]
        staged: bool,
    },
    /// `quantize.wgsl` and `linear_int8.wgsl`: `rows` rows by 64 columns.
    Int8 {
        /// A multiple of 16.
        rows: usize,
    },
}

/// `tiled 64 x 64`
impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Variant::Tiled { rows, panels } => write!(f, "tiled {rows} x {}", panels * panels::COLUMNS),
            Variant::Few => f.write_str("few rows"),
            Variant::Int8 { rows } => write!(f, "int8 {rows} x {}", panels::COLUMNS),
            Variant::Subgroup { lanes, rows, .. } => write!(f, "subgroups of {lanes}, {rows} x {}", panels::COLUMNS),
            Variant::Cooperative { size, rows, columns, staged } => {
                let parts = cooperative::PARTS_A_SIDE * size;
                write!(f, "cooperative {} x {} of {size} x {size}", parts * rows, parts * columns)?;
                f.write_str(if staged { ", staged" } else { "" })
            }
        }
    }
}

/// What a variant is, for one product.
struct Chosen {
    kernel: &'static Kernel,
    prelude: Prelude,
    packing: &'static Packing,
    /// Rows and columns of a workgroup.
    tile: [usize; 2],
}

impl Variant {
    /// How it wants the weight to lie: variants of one packing can share a weight.
    pub fn packing(self) -> &'static Packing {
        match self {
            Variant::Tiled { .. } | Variant::Few | Variant::Subgroup { .. } => &panels::PANELS,
            Variant::Cooperative { size, .. } => cooperative::packing(size),
            Variant::Int8 { .. } => &int8::INT8_PANELS,
        }
    }

    /// Whether it can compute a product of `cols` inner columns on a device.
    pub fn fits(self, target: &Target, cols: usize) -> bool {
        match self {
            Variant::Tiled { .. } | Variant::Few => true,
            Variant::Int8 { .. } => target.int8,
            Variant::Subgroup { lanes, .. } => target.features.subgroup_size == Some(lanes as u32),
            Variant::Cooperative { size, rows, columns, staged } => {
                target.features.cooperative.size(target.dtype) == Some(size as u32)
                    && cols.is_multiple_of(size)
                    && (!staged || staged::fits(target, size, rows, columns, cols))
            }
        }
    }

    /// The same for so many inner columns, which may not be whole steps of a staged kernel.
    fn for_columns(self, cols: usize) -> Variant {
        match self {
            Variant::Cooperative { size, rows, columns, staged } => {
                Variant::Cooperative { size, rows, columns, staged: staged && cols.is_multiple_of(staged::STEP) }
            }
            other => other,
        }
    }

    /// `cols` inner columns.
    fn choose(self, prelude: Prelude, target: &Target, cols: usize) -> Chosen {
        match self {
            Variant::Tiled { rows, panels } => tiled::choose(prelude, rows, panels),
            Variant::Few => few::choose(prelude),
            Variant::Int8 { rows } => int8::choose(prelude, cols, rows),
            Variant::Subgroup { lanes, rows, wide } => subgroup::choose(prelude, target.dtype, lanes, rows, wide),
            Variant::Cooperative { size, rows, columns, staged } => {
                let choose = if staged { staged::choose } else { cooperative::choose };
                choose(prelude, target, size, rows, columns)
            }
        }
    }
}

/// The variants worth measuring on a device for a class of shapes; first the default, then those that may gain the most.
pub fn candidates(target: &Target, rows: RowClass) -> Vec<Variant> {
    let mut variants = every_candidate(target, rows);
    let default = default_variant(target, Rows::Tokens, rows);
    variants.sort_by_key(|variant| match variant {
        variant if *variant == default => 0,
        Variant::Cooperative { staged: true, .. } => 1,
        Variant::Cooperative { .. } => 2,
        _ => 3,
    });
    variants
}

fn every_candidate(target: &Target, rows: RowClass) -> Vec<Variant> {
    if target.int8 {
        return [16, 32, 64, 128].map(|rows| Variant::Int8 { rows }).to_vec();
    }
    let mut variants = vec![Variant::Tiled { rows: 32, panels: 1 }, Variant::Tiled { rows: 64, panels: 1 }];
    match rows {
        RowClass::Few => variants.insert(0, Variant::Few),
        RowClass::Medium => {}
        RowClass::Many => {
            variants.extend([Variant::Tiled { rows: 128, panels: 1 }, Variant::Tiled { rows: 128, panels: 2 }])
        }
    }
    if let Some(size) = target.features.cooperative.size(target.dtype) {
        let blocks: &[(usize, usize)] = match rows {
            RowClass::Few => &[(1, 2), (1, 4)],
            RowClass::Medium => &[(1, 2), (2, 2), (2, 4)],
            RowClass::Many => &[(2, 2), (2, 4), (4, 2), (4, 4)],
        };
        let size = size as usize;
        let direct = |&(rows, columns)| Variant::Cooperative { size, rows, columns, staged: false };
        variants.extend(blocks.iter().map(direct));
        // Metal, whose matrices are of 8, cannot read them from an array of vectors.
        let blocks: &[(usize, usize)] = match rows {
            RowClass::Medium if size == 16 => &[(2, 2), (2, 4)],
            RowClass::Many if size == 16 => &[(2, 4), (4, 2), (4, 4)],
            _ => &[],
        };
        let staged = |&(rows, columns)| Variant::Cooperative { size, rows, columns, staged: true };
        variants.extend(blocks.iter().map(staged).filter(|variant| variant.fits(target, staged::STEP)));
    }
    variants
}

/// What a device gets that has not been measured. Cooperative matrices need a measurement, which is also their test.
fn default_variant(target: &Target, rows: Rows, class: RowClass) -> Variant {
    // On a software adapter: few rows compile faster, and waste less on few sequences.
    let is_small = rows == Rows::Sequences;
    match (target.features.subgroup_size, class) {
        (_, RowClass::Many) if target.int8 => Variant::Int8 { rows: 64 },
        _ if target.int8 => Variant::Int8 { rows: 32 },
        (Some(lanes @ (4 | 8 | 16)), _) if target.software => {
            let lanes = lanes as usize;
            Variant::Subgroup { lanes, rows: if is_small { lanes } else { 32 }, wide: target.features.int64 }
        }
        _ if target.software => Variant::Tiled { rows: if is_small { 16 } else { 64 }, panels: 1 },
        (_, RowClass::Many) => Variant::Tiled { rows: 64, panels: 1 },
        (_, RowClass::Medium) => Variant::Tiled { rows: 32, panels: 1 },
        (_, RowClass::Few) => Variant::Few,
    }
}

/// What one product gets: a variant for each range of row counts, all of one packing.
fn choose(target: &Target, rows: Rows, [outer, cols]: [usize; 2]) -> Vec<(Range<u32>, Variant)> {
    let pick = |class| {
        let tuned = target.tuning.linear(Class::new(class, outer)).map(|variant| variant.for_columns(cols));
        tuned.filter(|variant| variant.fits(target, cols)).unwrap_or_else(|| default_variant(target, rows, class))
    };
    let of_many = pick(RowClass::Many);
    let mut chosen: Vec<(Range<u32>, Variant)> = Vec::new();
    for class in RowClass::ALL {
        let variant = Some(pick(class)).filter(|variant| variant.packing().name == of_many.packing().name);
        let variant = variant.unwrap_or(of_many);
        match chosen.last_mut() {
            Some((range, last)) if *last == variant => range.end = class.range().end,
            _ => chosen.push((class.range(), variant)),
        }
    }
    chosen
}

/// A matrix product: of a linear op, or a part of another.
pub struct Product {
    /// What its rows are.
    pub rows: Rows,
    /// `[rows, in]`
    pub x: Slot,
    /// `[out, in]`, or a matrix for each expert.
    pub weight: WeightId,
    /// Which rows are multiplied with what.
    pub by: By,
    /// Of each number, before the residual is added.
    pub activation: Activation,
    /// `[rows, out]`
    pub residual: Option<Value>,
    /// `[rows, out]`
    pub out: Slot,
}

/// Which rows are multiplied with what.
pub enum By {
    /// All with the whole weight.
    One {
        /// `[out]`
        bias: Option<WeightId>,
    },
    /// Each expert's rows with the expert's matrix.
    Experts {
        /// How rows are handed out.
        routing: Routing,
        /// Whose each block of places is.
        owners: Slot,
        /// Those in the weight.
        matrices: Blocks,
    },
}

/// The launches of a linear op.
pub fn launches(op: &Linear, context: &Context) -> Result<Vec<Launch>> {
    let product = Product {
        rows: context.out_shape().rows,
        x: Slot::Value(op.x),
        weight: op.weight,
        by: By::One { bias: op.bias },
        activation: op.activation,
        residual: op.residual,
        out: Slot::Value(context.out),
    };
    Ok(product.launches(context))
}

impl Product {
    /// Its launches. A weight that is larger than one binding is refused where it is uploaded.
    pub fn launches(&self, context: &Context) -> Vec<Launch> {
        let weight = context.weight(self.weight);
        let matrices = match &self.by {
            By::One { .. } => Blocks::WHOLE,
            By::Experts { matrices, .. } => *matrices,
        };
        let [outer, inner] = matrices.shape(weight);
        // What is computed once a sequence, the heads, takes little time and stays exact.
        let int8 = context.target.int8 && self.rows == Rows::Tokens;
        let target = Target { int8, ..context.target.clone() };
        let prelude = context
            .prelude()
            .activation(self.activation)
            .constant("OUT4", stride4(outer))
            .constant("RESIDUAL", self.residual.is_some());
        // What stands in the place of the bias.
        let (prelude, third) = match &self.by {
            By::Experts { owners, .. } => (prelude.part(NO_BIAS), owners.clone()),
            By::One { bias } => {
                let slot = bias.map(|id| Slot::Weight(WeightUse::whole(id, context.weight(id), &VECTOR)));
                let prelude = prelude.constant("BIAS", bias.is_some()).part(BIAS_PART);
                (prelude, slot.unwrap_or(Slot::Unused))
            }
        };
        let prelude = self.with_rows(prelude);
        let prelude = if int8 { prelude } else { prelude.constant("IN4", stride4(inner)) };
        let count = self.count();
        let product = |(items, variant): (Range<u32>, Variant)| {
            let Chosen { kernel, prelude, packing, tile: [rows, columns] } =
                variant.choose(prelude.clone(), &target, inner);
            Launch {
                kernel,
                prelude,
                params: vec![],
                slots: vec![
                    if int8 { int8::quantized(count, inner) } else { self.x.clone() },
                    Slot::Weight(WeightUse::blocks(self.weight, weight, matrices, packing)),
                    third.clone(),
                    self.residual.map_or(Slot::Unused, Slot::Value),
                    self.out.clone(),
                ],
                grid: Grid { count, per_group: rows as u32, columns: outer.div_ceil(columns) as u32 },
                items,
            }
        };
        let products = choose(&target, self.rows, [outer, inner]).into_iter().map(product);
        int8.then(|| int8::quantize(self, inner, context)).into_iter().chain(products).collect()
    }

    /// What its rows are counted by.
    fn count(&self) -> Count {
        match self.by {
            By::One { .. } => self.rows.into(),
            By::Experts { routing, .. } => Count::Places(routing),
        }
    }

    /// Lets a kernel know its rows: `share_of`.
    fn with_rows(&self, prelude: Prelude) -> Prelude {
        match self.by {
            By::Experts { routing, .. } => with_rows(prelude, routing).part(EXPERTS_PART).part(ROWS_EXPERTS_PART),
            By::One { .. } => prelude.constant("ROWS_ARE_TOKENS", self.rows == Rows::Tokens).part(ROWS_ALL_PART),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Cooperative, Dtype, Features, Tuning};

    #[test]
    fn a_staged_kernel_stands_back_where_columns_are_no_whole_steps() {
        let staged = |staged| Variant::Cooperative { size: 16, rows: 4, columns: 4, staged };
        let cooperative = Cooperative { f16: Some(16), f32: None };
        let features =
            Features { f16: true, subgroups: true, subgroup_size: Some(32), cooperative, ..Features::none() };
        let mut limits = wgpu::Limits { max_compute_workgroup_storage_size: 32 << 10, ..wgpu::Limits::default() };
        let target = |limits: &wgpu::Limits| Target {
            dtype: Dtype::F16,
            int8: false,
            features,
            limits: limits.clone(),
            software: false,
            tuning: Tuning::only(staged(true)),
        };
        for (cols, expected) in [
            (64, staged(true)),
            (48, staged(false)),
            (40, default_variant(&target(&limits), Rows::Tokens, RowClass::Many)), // no whole matrices
        ] {
            let chosen = choose(&target(&limits), Rows::Tokens, [256, cols]);
            assert_eq!(chosen.last().map(|(_, variant)| *variant), Some(expected), "{cols} columns");
        }
        limits.max_compute_workgroup_storage_size = 16 << 10;
        assert!(!staged(true).fits(&target(&limits), 64) && staged(false).fits(&target(&limits), 64));
    }
}
