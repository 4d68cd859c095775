//! A case of the table in `ops.rs`: one small program, its weights, its batches; and how an executor is held to it.

use super::compare::{Tolerance, compare};
use super::data::{TestWeights, VOCABULARY, odd_batches};
use super::executors::{Dtype, Kind};
use super::naive::{self, Wide};
use lexel::batch::Batch;
use lexel::executor::Executor;
use lexel::matrix::Matrix;
use lexel::program::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What f32 arithmetic costs when sums have a few hundred terms of size 1.
pub const F32_SUMS: Tolerance = Tolerance::new("f32 rounding in sums of a few hundred terms of size 1", 4e-6, 4e-6);
/// What storing a result in f16 costs: half a unit in the last of 11 bits, and denormals that a device may flush.
pub const F16_STORAGE: Tolerance = Tolerance::new("results are stored in f16", 6.2e-5, 5.2e-4);

/// One row of the table.
pub struct Case {
    pub name: String,
    pub program: Arc<Program>,
    pub weights: TestWeights,
    pub batches: Vec<Batch>,
    pub f32: Tolerance,
    pub f16: Tolerance,
}

impl Case {
    /// A case whose program ends in `tokens`, over [`odd_batches`] with the default tolerances.
    pub fn new(name: impl Into<String>, mut b: Builder, tokens: Value) -> Case {
        b.label("pool");
        let sentences = b.pool(Pool::new(tokens, PoolMode::Mean));
        Case::of(name, b.finish(sentences, tokens))
    }

    /// A case of a whole program.
    pub fn of(name: impl Into<String>, program: Program) -> Case {
        Case {
            name: name.into(),
            program: Arc::new(program),
            // Values of size 1 to compute with, as behind a norm.
            weights: TestWeights::default().with("x", super::data::Fill::Random { mean: 0.0, deviation: 1.0 }),
            batches: odd_batches(),
            f32: F32_SUMS,
            f16: F16_STORAGE,
        }
    }

    pub fn batches(mut self, batches: Vec<Batch>) -> Case {
        self.batches = batches;
        self
    }

    pub fn weights(mut self, weights: TestWeights) -> Case {
        self.weights = weights;
        self
    }

    pub fn f32(mut self, tolerance: Tolerance) -> Case {
        self.f32 = tolerance;
        self
    }

    pub fn f16(mut self, tolerance: Tolerance) -> Case {
        self.f16 = tolerance;
        self
    }

    /// Runs the case on one executor. Each step is held against the definition applied to the executor's own inputs of that
    /// step, so that a tolerance speaks of one op and a failure names the op at fault.
    pub fn check(&self, kind: &Kind) -> Result<(), String> {
        let executor =
            kind.load(&self.program, &self.weights).map_err(|error| format!("{}: load: {error}", self.name))?;
        for (number, batch) in self.batches.iter().enumerate() {
            self.check_batch(kind, executor.as_ref(), number).map_err(|message| {
                let lengths: Vec<_> = batch.starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
                format!("{}, batch {number} of lengths {lengths:?}: {message}", self.name)
            })?;
        }
        Ok(())
    }

    fn check_batch(&self, kind: &Kind, executor: &dyn Executor, number: usize) -> Result<(), String> {
        let batch = &self.batches[number];
        let trace = executor.trace(batch).map_err(|error| format!("trace: {error}"))?;
        if trace.len() != self.program.steps.len() {
            return Err(format!("trace of {} values for {} steps", trace.len(), self.program.steps.len()));
        }
        let (weights, tolerance) = match kind.dtype {
            Dtype::F32 | Dtype::F16Weights => (kind.weights(&self.weights), self.f32),
            Dtype::F16 => (kind.weights(&self.weights), self.f16),
        };
        for (i, step) in self.program.steps.iter().enumerate() {
            let inputs: Vec<Wide> = step.op.inputs().iter().map(|input| Wide::from(&trace[input.index()])).collect();
            let want = remember((self.name.clone(), number, i, kind.dtype), inputs, || {
                naive::step(&self.program, &weights, batch, i, |input| Wide::from(&trace[input.index()]))
            });
            compare(&trace[i], &want, tolerance)
                .map_err(|message| format!("step {i}, {} '{}': {message}", step.op.name(), step.label))?;
        }
        for output in [Output::Sentences, Output::Tokens] {
            let got = executor.submit(batch.clone(), output).and_then(|pending| pending.wait());
            let got = got.map_err(|error| format!("submit {output:?}: {error}"))?;
            same(&got, &trace[self.program.output(output).index()])
                .map_err(|message| format!("submit {output:?} differs from its trace: {message}"))?;
        }
        Ok(())
    }
}

/// Case, batch, step, dtype.
type Place = (String, usize, usize, Dtype);

/// What is right for these inputs at this place, computed once for all executors that have the same inputs there.
fn remember(place: Place, inputs: Vec<Wide>, compute: impl FnOnce() -> Wide) -> Arc<Wide> {
    type Known = HashMap<Place, (Vec<Wide>, Arc<Wide>)>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let lock = || KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((known, want)) = lock().get_or_insert_default().get(&place)
        && *known == inputs
    {
        return want.clone();
    }
    let want = Arc::new(compute());
    lock().get_or_insert_default().insert(place, (inputs, want.clone()));
    want
}

/// Equal to the last bit: the same kernels ran on the same numbers.
pub fn same(got: &Matrix, want: &Matrix) -> Result<(), String> {
    compare(got, &Wide::from(want), Tolerance::new("the same numbers by the same kernels", 1e-45, 0.0))
}

/// A value `[tokens, cols]` whose rows all differ: tables for ids and positions, summed. Of size 1 by the default weights.
pub fn input(b: &mut Builder, name: &str, cols: usize) -> Value {
    b.label(name.to_string());
    let mut lookup =
        |part: &str, rows, index| Lookup { table: b.matrix(format!("{name}.{part}"), rows, cols), index, offset: 0 };
    let lookups =
        vec![lookup("ids", VOCABULARY, Index::Ids), lookup("positions", super::data::POSITIONS, Index::Positions)];
    b.embed(lookups)
}
