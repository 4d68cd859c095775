//! Measures which kernels are the fastest on a device, and that they are right there: at its first use, in a fraction of a
//! second.

use super::device::GpuDevice;
use super::kernels::linear::{self, Variant};
use super::options::{Dtype, Features, GpuOptions, TuningChoice};
use super::tuning::{Class, RowClass, Tuning, WIDE};
use super::{GpuExecutor, target};
use crate::batch::Batch;
use crate::error::RunError;
use crate::executor::Executor;
use crate::matrix::Matrix;
use crate::program::{
    Activation, Builder, Index, Linear, Lookup, Op, Output, Pool, PoolMode, Program, RandomWeights, WeightId,
};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a measurement may take at a device's first use.
pub const BUDGET: Duration = Duration::from_millis(300);

/// Products of a measured program; the fastest counts.
const REPEATS: usize = 3;
/// Inner columns: a multiple of every cooperative matrix's size.
const INNER: usize = 512;
/// Rows of the tables that the inputs are read from.
const VOCABULARY: usize = 64;
/// Rows whose results are compared: no multiple of a tile.
const CHECKED_ROWS: usize = 37;
/// Of the columns, one in so many is compared: a prime, so that every place in a tile has its turn.
const CHECKED_COLUMNS: usize = 7;
const WEIGHTS: RandomWeights = RandomWeights { seed: 1 };

/// A variant of one class, and what became of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The class.
    pub class: Class,
    /// The variant.
    pub variant: Variant,
    /// Multiplications and additions a second; or why the variant is not used.
    pub flops: Result<f64, String>,
}

/// What was measured, best class by class, and all that was tried.
#[derive(Debug, Clone, Default)]
pub struct Measurement {
    /// The fastest of each class.
    pub tuning: Tuning,
    /// Every trial, in order.
    pub trials: Vec<Measured>,
}

/// Measures a device. Nothing, where it has no clock. Once the budget is spent, what has not been measured keeps the defaults.
pub fn measure(device: &Arc<GpuDevice>, dtype: Dtype, features: Features, budget: Duration) -> Measurement {
    let mut measurement = Measurement::default();
    if !device.wgpu_device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return measurement;
    }
    let start = Instant::now();
    let target = target(device, dtype, features, false, Tuning::default());
    for wide in [true, false] {
        let product = Product::new(if wide { 2 * WIDE } else { WIDE / 2 });
        let mut variants: Vec<Variant> =
            RowClass::ALL.into_iter().flat_map(|rows| linear::candidates(&target, rows)).collect();
        let mut seen = HashSet::new();
        variants.retain(|variant| seen.insert(*variant));
        // Compiling takes longest, and can be done side by side.
        let loaded: Vec<(Variant, Result<GpuExecutor, String>)> =
            variants.into_par_iter().map(|variant| (variant, product.load(device, dtype, features, variant))).collect();
        // All classes share a weight, so the class of the most work decides how it lies.
        let mut packing = None;
        for rows in RowClass::ALL.into_iter().rev() {
            let class = Class { rows, wide };
            if start.elapsed() > budget && packing.is_some() {
                continue;
            }
            let candidates = linear::candidates(&target, rows);
            let candidates = loaded.iter().filter(|(variant, _)| candidates.contains(variant));
            let mut best: Option<(f64, Variant)> = None;
            for (variant, executor) in candidates {
                let spent = start.elapsed() > budget && best.is_some();
                if spent || packing.is_some_and(|packing| packing != variant.packing().name) {
                    continue;
                }
                let flops = executor
                    .as_ref()
                    .map_err(String::clone)
                    .and_then(|executor| product.flops(executor, rows).map_err(|error| error.to_string()));
                match &flops {
                    Ok(flops) if best.is_none_or(|(most, _)| *flops > most) => best = Some((*flops, *variant)),
                    Ok(_) => {}
                    Err(reason) => log::warn!("{}: kernel '{variant}' is not used: {reason}", device.description()),
                }
                measurement.trials.push(Measured { class, variant: *variant, flops });
            }
            if let Some((_, variant)) = best {
                packing = Some(variant.packing().name);
                measurement.tuning.set_linear(class, variant);
            }
        }
    }
    log::info!("{}: kernels chosen in {:.0} ms", device.description(), start.elapsed().as_secs_f64() * 1e3);
    measurement
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
        let pooled = b.pool(Pool { x: y, modes: vec![PoolMode::Cls] });
        let program = Arc::new(b.finish(pooled, y));
        Product { program, outer, weights: [tables[0], tables[1], weight, bias] }
    }

    /// The program with one variant, whose results are right.
    fn load(
        &self,
        device: &Arc<GpuDevice>,
        dtype: Dtype,
        features: Features,
        variant: Variant,
    ) -> Result<GpuExecutor, String> {
        let tuning = TuningChoice::Given(Tuning::only(variant));
        let options = GpuOptions { dtype, features, tuning, ..GpuOptions::default() };
        let executor =
            GpuExecutor::load(self.program.clone(), &WEIGHTS, device, &options).map_err(|e| e.to_string())?;
        let y = executor.submit(batch(CHECKED_ROWS), Output::Tokens).and_then(|pending| pending.wait());
        self.check(&y.map_err(|error| error.to_string())?, dtype)?;
        Ok(executor)
    }

    /// Compares with the same in f64.
    fn check(&self, y: &Matrix, dtype: Dtype) -> Result<(), String> {
        let read = |weight: WeightId| {
            let spec = self.program.weight(weight);
            let values = spec.read_all(&WEIGHTS).map_err(|error| error.to_string())?;
            let stored = |x: f32| match dtype {
                Dtype::F16 | Dtype::Int8 if spec.cols > 1 => half::f16::from_f32(x).to_f64(),
                _ => f64::from(x),
            };
            Ok::<Vec<f64>, String>(values.into_iter().map(stored).collect())
        };
        let [x, residual, weight, bias] = self.weights.map(read);
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
    fn flops(&self, executor: &GpuExecutor, rows: RowClass) -> Result<f64, RunError> {
        let rows = match rows {
            RowClass::Few => 16,
            // Enough to compare, and not to wait for.
            _ if executor.device().description().is_software() => 64,
            RowClass::Medium => 256,
            RowClass::Many => 4096,
        };
        let batch = batch(rows);
        let mut fastest = Duration::MAX;
        executor.profile(&batch)?; // the first run is slower
        for _ in 0..2 {
            let times = executor.profile(&batch)?;
            let products = times.iter().zip(&self.program.steps).filter(|(_, step)| matches!(step.op, Op::Linear(_)));
            fastest = products.map(|(time, _)| *time).fold(fastest, Duration::min);
        }
        Ok(2.0 * (rows * INNER * self.outer) as f64 / fastest.as_secs_f64().max(1e-9))
    }
}

/// Sequences of up to 64 tokens, so many in all; row `i` is that of id `i % VOCABULARY`.
fn batch(rows: usize) -> Batch {
    let mut batch = Batch::new();
    for first in (0..rows).step_by(VOCABULARY) {
        let ids: Vec<u32> = (0..VOCABULARY.min(rows - first) as u32).collect();
        batch.push(&ids, &vec![0; ids.len()], 0);
    }
    batch
}
