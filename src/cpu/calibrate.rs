//! Weights in int8 that are rounded for what they will be multiplied with: a sample of texts goes through the model in f32,
//! step by step, and a weight becomes int8 when the last step that reads it is done. Beside the result, memory holds the
//! sample's values and one weight in f32.

use super::interpreter::{Pass, Workspace};
use super::linear_int8::{Kernel, Weight};
use super::moments::Moments;
use super::parallel::each;
use super::rounding::Rounding;
use super::team::Team;
use super::weights::{Packed, Weights, can_be_int8, forms};
use crate::batch::Batch;
use crate::error::Result;
use crate::program::{Op, Plan, Program, WeightId, WeightSource};
use std::collections::HashMap;

/// A sample is halved so often: each part is computed by one thread, whatever their number, so that results do not depend on
/// it.
const HALVINGS: usize = 4;

/// A part of the sample, and how far it has come.
struct Part {
    batch: Batch,
    workspace: Workspace,
}

/// Reads every weight, the matrices of linear ops in int8.
///
/// # Errors
/// Those of the source, and of a sample that contradicts the program.
pub fn load(program: &Program, source: &dyn WeightSource, threads: usize, sample: &Batch) -> Result<Weights> {
    program.check(sample)?;
    let (plan, forms, last_use) = (Plan::reusing(program), forms(program), last_use(program));
    let part = |batch| {
        let mut workspace = Workspace::default();
        workspace.prepare(&plan, &batch);
        Part { batch, workspace }
    };
    let mut parts: Vec<Part> = split(sample, HALVINGS).into_iter().map(part).collect();
    let mut weights = Weights::none(program);
    let mut seen: HashMap<WeightId, Moments> = HashMap::new();
    for (i, step) in program.steps.iter().enumerate() {
        for id in step.op.weights() {
            weights.read(id, forms[id.index()], program.weight(id), source)?;
        }
        let pass = Pass { program, weights: &weights, plan: &plan, team: &Team::ALONE, batch: sample };
        each(threads, &mut parts, |Part { batch, workspace }| Pass { batch, ..pass }.step(i, workspace));
        if let Op::Linear(op) = &step.op
            && can_be_int8(program.weight(op.weight))
        {
            let mut rows = Vec::new();
            for Part { batch, workspace } in &parts {
                rows.push(Pass { batch, ..pass }.value(op.x, &workspace.buffers));
            }
            let inner = program.weight(op.weight).cols;
            seen.entry(op.weight).or_insert_with(|| Moments::new(inner)).add(&rows, threads);
        }
        for id in step.op.weights() {
            if last_use[id.index()] == i
                && let Some(moments) = seen.remove(&id)
            {
                let spec = program.weight(id);
                let values = spec.read_all(source)?;
                let rounding = Rounding::learned(&values, spec.cols, &moments, threads);
                let weight = Weight::pack(&values, spec.rows, rounding, Kernel::best(), threads);
                weights.replace(id, Packed::Int8(weight));
            }
        }
    }
    Ok(weights)
}

/// For each weight, the last step that reads it.
fn last_use(program: &Program) -> Vec<usize> {
    let mut last_use = vec![0; program.weights.len()];
    for (i, step) in program.steps.iter().enumerate() {
        step.op.weights().into_iter().for_each(|id| last_use[id.index()] = i);
    }
    last_use
}

/// Parts of about as many tokens.
fn split(batch: &Batch, halvings: usize) -> Vec<Batch> {
    if halvings > 0
        && let Some((first, second)) = batch.halves()
    {
        return [first, second].iter().flat_map(|half| split(half, halvings - 1)).collect();
    }
    vec![batch.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::batch;
    use crate::cpu::{CpuExecutor, CpuOptions};
    use crate::executor::{Dtype, Executor};
    use crate::matrix::Matrix;
    use crate::program::{Activation, Builder, Index, Linear, Lookup, Output, Pool, PoolMode, RandomWeights, Value};
    use std::sync::Arc;

    /// Four linear ops, of which the last two share a weight, as ALBERT's layers do; the table of embeddings is the first one's
    /// weight, too.
    fn program() -> Arc<Program> {
        let mut b = Builder::new();
        let table = b.matrix("table", 50, 40);
        let mut x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let (wide, shared) = (b.matrix("wide", 200, 50), b.matrix("shared", 200, 200));
        let mut linear =
            |x: Value, weight| b.linear(Linear { x, weight, bias: None, activation: Activation::Gelu, residual: None });
        for weight in [table, wide, shared, shared] {
            x = linear(x, weight);
        }
        let pooled = b.pool(Pool::new(x, PoolMode::Mean));
        Arc::new(b.finish(pooled, x))
    }

    fn run(threads: usize, dtype: Dtype, sample: Option<&Batch>, batch: &Batch) -> Matrix {
        let options = CpuOptions { threads: Some(threads), dtype, sample: sample.cloned().map(Arc::new) };
        let cpu = CpuExecutor::load(program(), &RandomWeights { seed: 3 }, &options).unwrap();
        cpu.submit(batch.clone(), Output::Tokens).unwrap().wait().unwrap()
    }

    #[test]
    fn a_sample_brings_int8_nearer_to_f32_with_any_number_of_threads() {
        let (sample, others) = (batch(&[9, 3, 30, 40, 50, 60, 1, 70]), batch(&[13, 60]));
        let exact = run(1, Dtype::F32, None, &others);
        let error = |found: &Matrix| found.data.iter().zip(&exact.data).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let nearest = run(1, Dtype::Int8, None, &others);
        let learned = run(1, Dtype::Int8, Some(&sample), &others);
        println!("{} of the squared error", error(&learned) / error(&nearest));
        // The weights are random, and the rows nearly so: there is not much to learn (0.75).
        assert!(error(&learned) < 0.85 * error(&nearest), "{} and {}", error(&learned), error(&nearest));
        for threads in [2, 3, 16] {
            assert_eq!(run(threads, Dtype::Int8, Some(&sample), &others), learned, "{threads} threads");
        }
        assert_eq!(run(2, Dtype::Int8, Some(&Batch::new()), &others), nearest);
    }

    #[test]
    fn a_sample_of_another_model_is_refused() {
        let mut sample = batch(&[3]);
        sample.ids[1] = 50;
        let options = CpuOptions { dtype: Dtype::Int8, sample: Some(Arc::new(sample)), ..CpuOptions::default() };
        let error = CpuExecutor::load(program(), &RandomWeights { seed: 3 }, &options).err().unwrap().to_string();
        assert!(error.contains("token id 50"), "{error}");
    }
}
