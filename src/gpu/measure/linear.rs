//! The kernels of the matrix product.

use super::{Bench, Fault, Measured, Measurement, VOCABULARY, batch, choose, run, stored};
use crate::batch::Batch;
use crate::gpu::GpuExecutor;
use crate::gpu::kernels::linear::{Variant, candidates};
use crate::gpu::options::Dtype;
use crate::gpu::target;
use crate::gpu::tuning::{Class, RowClass, Tuning, WIDE};
use crate::matrix::Matrix;
use crate::program::{Activation, Builder, Index, Linear, Lookup, Op, Output, Pool, PoolMode, Program, WeightId};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Products of a measured program; the fastest counts.
const REPEATS: usize = 3;
/// Inner columns: a multiple of every cooperative matrix's size.
const INNER: usize = 512;
/// Rows of the product that is compared: several workgroups, and no multiple of a tile.
const CHECKED_ROWS: usize = 293;
/// Of its rows and columns, one in so many is compared: primes, so that every place in a tile has its turn.
const CHECKED_ROW: usize = 3;
const CHECKED_COLUMN: usize = 7;
/// Rows of the first product that is timed, which tells how many are many.
const FIRST_ROWS: usize = 256;
/// What one product of many rows is to take: long beside a dispatch, and so short that a slow GPU can measure more than one.
const PRODUCT: Duration = Duration::from_millis(2);

pub(super) fn measure(bench: &mut Bench, measurement: &mut Measurement) {
    let target = target(bench.device, bench.dtype, bench.features, false, Tuning::default());
    let mut many = None;
    for wide in [true, false] {
        if bench.is_over() {
            break;
        }
        let product = Product::new(if wide { 2 * WIDE } else { WIDE / 2 });
        let mut variants: Vec<Variant> = RowClass::ALL.into_iter().flat_map(|rows| candidates(&target, rows)).collect();
        let mut seen = HashSet::new();
        variants.retain(|variant| seen.insert(*variant));
        // Compiling takes longest, and can be done side by side.
        let loaded: Vec<(Variant, Result<GpuExecutor, Fault>)> =
            variants.into_par_iter().map(|variant| (variant, product.load(bench, variant))).collect();
        let any = loaded.iter().find_map(|(_, executor)| executor.as_ref().ok());
        // An error here is one of what follows, too.
        let _ = any.map(|executor| bench.warm_up(executor, &product.batch(FIRST_ROWS)));
        let many = *many.get_or_insert_with(|| product.many(bench, any));
        // All classes share a weight, so the class of the most work decides how it lies.
        let mut packing = None;
        for class in RowClass::ALL.into_iter().rev().map(|rows| Class { rows, wide }) {
            // In the candidates' order: the default first.
            let mut candidates = candidates(&target, class.rows);
            candidates.retain(|variant| packing.is_none_or(|packing| packing == variant.packing().name));
            let of = |variant: &Variant| {
                let executor = loaded.iter().find(|(of, _)| of == variant).map(|(_, executor)| executor.as_ref());
                executor.expect("every candidate was loaded").map_err(Fault::clone)
            };
            let mut rated = Vec::new();
            for &variant in &candidates {
                if bench.is_over() {
                    break;
                }
                let flops = of(&variant).and_then(|executor| product.flops(bench, executor, class.rows, many));
                match &flops {
                    Ok(flops) => rated.push((*flops, variant)),
                    Err(fault) => bench.warn(variant, fault),
                }
                measurement.linear.push(Measured { class, variant, flops });
            }
            let right: Vec<Variant> = candidates.iter().filter(|variant| of(variant).is_ok()).copied().collect();
            if let Some(variant) = choose(&candidates, &rated, &right) {
                packing = Some(variant.packing().name);
                measurement.tuning.set_linear(class, variant);
            }
            let faults = candidates.iter().filter_map(|variant| of(variant).err());
            measurement.refuse(&right, faults, format!("a product of {class}"));
        }
    }
    let tuning = &mut measurement.tuning;
    if tuning.linear(Class { rows: RowClass::Many, wide: false }).is_none() {
        // No time for it: what is best for more columns is a better guess than the default.
        for rows in RowClass::ALL {
            if let Some(variant) = tuning.linear(Class { rows, wide: true }) {
                tuning.set_linear(Class { rows, wide: false }, variant);
            }
        }
    }
}

/// The product that is measured: a few in a row, each with the one before as its residual.
struct Product {
    program: Arc<Program>,
    outer: usize,
    /// x, the first residual, weight, bias.
    weights: [WeightId; 4],
}

impl Product {
    fn new(outer: usize) -> Product {
        let mut b = Builder::new();
        let tables = [b.matrix("x", VOCABULARY, INNER), b.matrix("residual", VOCABULARY, outer)];
        let [x, mut y] = tables.map(|table| b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]));
        let (weight, bias) = (b.matrix("weight", outer, INNER), b.vector("bias", outer));
        for _ in 0..REPEATS {
            let activation = Activation::Identity;
            y = b.linear(Linear { x, weight, bias: Some(bias), activation, residual: Some(y) });
        }
        let pooled = b.pool(Pool::new(y, PoolMode::Cls));
        let program = Arc::new(b.finish(pooled, y));
        Product { program, outer, weights: [tables[0], tables[1], weight, bias] }
    }

    /// The program with one variant, whose results are right.
    fn load(&self, bench: &Bench, variant: Variant) -> Result<GpuExecutor, Fault> {
        let executor = bench.load(&self.program, Tuning::only(variant))?;
        self.check(&run(&executor, batch(&[CHECKED_ROWS]), Output::Tokens)?, bench.dtype)?;
        Ok(executor)
    }

    /// Compares with the same in f64.
    fn check(&self, y: &Matrix, dtype: Dtype) -> Result<(), Fault> {
        let [x, residual, weight, bias] = self.weights.map(|weight| stored(&self.program, weight, dtype));
        let (x, residual, weight, bias) = (x?, residual?, weight?, bias?);
        // Numbers are of size 0.1. In f16 each product rounds its sum; in int8 its factors, to 7 bits.
        let tolerance = match dtype {
            Dtype::F32 => 1e-5,
            Dtype::F16 => 1e-3,
            Dtype::Int8 => 6e-3,
            Dtype::Bf16 => unreachable!("refused at load"),
        };
        for row in (0..CHECKED_ROWS).step_by(CHECKED_ROW) {
            let id = row % VOCABULARY;
            let x = &x[id * INNER..][..INNER];
            for column in (row % CHECKED_COLUMN..self.outer).step_by(CHECKED_COLUMN) {
                let weight = &weight[column * INNER..][..INNER];
                let sum: f64 = x.iter().zip(weight).map(|(a, b)| a * b).sum();
                let want = residual[id * self.outer + column] + REPEATS as f64 * (sum + bias[column]);
                let got = f64::from(y.row(row)[column]);
                if (got - want).abs() > tolerance || got.is_nan() {
                    let place = format!("row {row}, column {column}");
                    return Err(Fault::Wrong(format!("{place} is {got:.5} instead of {want:.5}")));
                }
            }
        }
        Ok(())
    }

    /// The rows of many that take a GPU some milliseconds.
    fn many(&self, bench: &mut Bench, executor: Option<&GpuExecutor>) -> usize {
        if bench.device.description().is_software() {
            return 64; // enough to compare, and not to wait for
        }
        let time = executor.and_then(|executor| bench.time(executor, &self.batch(FIRST_ROWS), is_product).ok());
        let rows = time.map_or(0.0, |time| FIRST_ROWS as f64 * PRODUCT.as_secs_f64() / time.as_secs_f64().max(1e-6));
        (rows as usize / 128 * 128).clamp(384, 4096)
    }

    /// Operations a second, of the fastest product.
    fn flops(&self, bench: &mut Bench, executor: &GpuExecutor, rows: RowClass, many: usize) -> Result<f64, Fault> {
        let rows = match rows {
            RowClass::Few => 16,
            RowClass::Medium => many.min(256),
            RowClass::Many => many,
        };
        let flop = 2.0 * (rows * INNER * self.outer) as f64;
        bench.flops(executor, &self.batch(rows), is_product, flop)
    }

    fn batch(&self, rows: usize) -> Batch {
        let sequences: Vec<usize> = (0..rows).step_by(VOCABULARY).map(|first| VOCABULARY.min(rows - first)).collect();
        batch(&sequences)
    }
}

fn is_product(op: &Op) -> bool {
    matches!(op, Op::Linear(_))
}
