//! The kernels of the matrix product.

use super::{Bench, Measured, Measurement, VOCABULARY, batch, run, stored};
use crate::gpu::GpuExecutor;
use crate::gpu::kernels::linear::{Variant, candidates};
use crate::gpu::options::Dtype;
use crate::gpu::target;
use crate::gpu::tuning::{Class, RowClass, Tuning, WIDE};
use crate::matrix::Matrix;
use crate::program::{Activation, Builder, Index, Linear, Lookup, Op, Pool, PoolMode, Program, WeightId};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;

/// Products of a measured program; the fastest counts.
const REPEATS: usize = 3;
/// Inner columns: a multiple of every cooperative matrix's size.
const INNER: usize = 512;
/// Rows whose results are compared: no multiple of a tile.
const CHECKED_ROWS: usize = 37;
/// Of the columns, one in so many is compared: a prime, so that every place in a tile has its turn.
const CHECKED_COLUMNS: usize = 7;

pub(super) fn measure(bench: &mut Bench, measurement: &mut Measurement) {
    let target = target(bench.device, bench.dtype, bench.features, false, Tuning::default());
    for wide in [true, false] {
        let product = Product::new(if wide { 2 * WIDE } else { WIDE / 2 });
        let mut variants: Vec<Variant> = RowClass::ALL.into_iter().flat_map(|rows| candidates(&target, rows)).collect();
        let mut seen = HashSet::new();
        variants.retain(|variant| seen.insert(*variant));
        // Compiling takes longest, and can be done side by side.
        let loaded: Vec<(Variant, Result<GpuExecutor, String>)> =
            variants.into_par_iter().map(|variant| (variant, product.load(bench, variant))).collect();
        // All classes share a weight, so the class of the most work decides how it lies.
        let mut packing = None;
        for rows in RowClass::ALL.into_iter().rev() {
            let class = Class { rows, wide };
            if bench.is_over() && packing.is_some() {
                continue;
            }
            let candidates = candidates(&target, rows);
            let candidates = loaded.iter().filter(|(variant, _)| candidates.contains(variant));
            let mut best: Option<(f64, Variant)> = None;
            for (variant, executor) in candidates {
                let spent = bench.is_over() && best.is_some();
                if spent || packing.is_some_and(|packing| packing != variant.packing().name) {
                    continue;
                }
                let flops =
                    executor.as_ref().map_err(String::clone).and_then(|executor| product.flops(bench, executor, rows));
                match &flops {
                    Ok(flops) if best.is_none_or(|(most, _)| *flops > most) => best = Some((*flops, *variant)),
                    Ok(_) => {}
                    Err(reason) => bench.warn(variant, reason),
                }
                measurement.linear.push(Measured { class, variant: *variant, flops });
            }
            if let Some((_, variant)) = best {
                packing = Some(variant.packing().name);
                measurement.tuning.set_linear(class, variant);
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
    fn load(&self, bench: &Bench, variant: Variant) -> Result<GpuExecutor, String> {
        let executor = bench.load(&self.program, Tuning::only(variant))?;
        self.check(&run(&executor, batch(&[CHECKED_ROWS]))?, bench.dtype)?;
        Ok(executor)
    }

    /// Compares with the same in f64.
    fn check(&self, y: &Matrix, dtype: Dtype) -> Result<(), String> {
        let [x, residual, weight, bias] = self.weights.map(|weight| stored(&self.program, weight, dtype));
        let (x, residual, weight, bias) = (x?, residual?, weight?, bias?);
        // Numbers are of size 0.1. In f16 each product rounds its sum; in int8 its factors, to 7 bits.
        let tolerance = match dtype {
            Dtype::F32 => 1e-5,
            Dtype::F16 => 1e-3,
            Dtype::Int8 => 6e-3,
        };
        for row in 0..CHECKED_ROWS {
            let id = row % VOCABULARY;
            let x = &x[id * INNER..][..INNER];
            for column in (row % CHECKED_COLUMNS..self.outer).step_by(CHECKED_COLUMNS) {
                let weight = &weight[column * INNER..][..INNER];
                let sum: f64 = x.iter().zip(weight).map(|(a, b)| a * b).sum();
                let want = residual[id * self.outer + column] + REPEATS as f64 * (sum + bias[column]);
                let got = f64::from(y.row(row)[column]);
                if (got - want).abs() > tolerance || got.is_nan() {
                    return Err(format!("row {row}, column {column} is {got:.5} instead of {want:.5}"));
                }
            }
        }
        Ok(())
    }

    /// Operations a second, of the fastest product.
    fn flops(&self, bench: &mut Bench, executor: &GpuExecutor, rows: RowClass) -> Result<f64, String> {
        let rows = match rows {
            RowClass::Few => 16,
            // Enough to compare, and not to wait for.
            _ if bench.device.description().is_software() => 64,
            RowClass::Medium => 256,
            RowClass::Many => 4096,
        };
        let sequences: Vec<usize> = (0..rows).step_by(VOCABULARY).map(|first| VOCABULARY.min(rows - first)).collect();
        let flop = 2.0 * (rows * INNER * self.outer) as f64;
        bench.flops(executor, &batch(&sequences), |op| matches!(op, Op::Linear(_)), flop)
    }
}
