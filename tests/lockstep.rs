//! A whole small model in lockstep: every executor's trace against the definition and against each other, and the first
//! step that differs by name. And what holds for whole programs only: a text's vector depends neither on its neighbours nor
//! on what else is in flight.

mod support;

use lexel::batch::Batch;
use lexel::error::RunError;
use lexel::executor::Executor;
use lexel::matrix::Matrix;
use lexel::program::*;
use std::sync::Arc;
use support::case::same;
use support::compare::{Tolerance, compare};
use support::data::{Fill, TestWeights, VOCABULARY, batch, long_among_short, odd_batches, select};
use support::executors::{self, Dtype, Kind};
use support::naive::{self, Wide};
use support::programs::{SMALL_BERT, bert};

/// The first step whose value differs.
fn first_difference(program: &Program, got: &[Matrix], want: &[Wide], tolerance: Tolerance) -> Option<(usize, String)> {
    assert_eq!(got.len(), program.steps.len());
    got.iter().zip(want).zip(&program.steps).enumerate().find_map(|(i, ((got, want), step))| {
        let message = compare(got, want, tolerance).err()?;
        Some((i, format!("first difference at step {i}, {} '{}': {message}", step.op.name(), step.label)))
    })
}

/// What may build up from step to step through two layers whose values have size 1.
fn drift(dtype: Dtype) -> Tolerance {
    match dtype {
        Dtype::F32 | Dtype::F16Weights => Tolerance::new("f32 rounding, carried through two layers", 1e-5, 1e-5),
        Dtype::F16 => Tolerance::new("weights and values in f16, carried through two layers", 1e-2, 1e-2),
    }
}

fn load(kind: &Kind, weights: &TestWeights) -> (Arc<Program>, Box<dyn Executor>) {
    let program = Arc::new(bert(SMALL_BERT));
    let executor = kind.load(&program, weights).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    (program, executor)
}

/// Sequences of many lengths, with an empty one, one of a single token and a long one among them.
fn mixed() -> Batch {
    batch(&[7, 1, 33, 0, 2, 64, 5, 16, 129, 3])
}

#[test]
fn every_executor_keeps_step_with_the_definition() {
    let weights = TestWeights::default();
    for kind in executors::all() {
        let (program, executor) = load(&kind, &weights);
        for batch in odd_batches().into_iter().chain([mixed(), long_among_short()]) {
            let want = naive::run(&program, &kind.weights(&weights), &batch);
            let difference = first_difference(&program, &executor.trace(&batch).unwrap(), &want, drift(kind.dtype));
            assert_eq!(difference, None, "{}", kind.name);
        }
    }
}

#[test]
fn a_wrong_weight_is_found_at_its_step_by_name() {
    let right = TestWeights::default();
    for (tensor, op, label) in [
        ("embeddings.type", "embed", "embeddings"),
        ("layer.0.qkv.bias", "linear", "layer.0.qkv"),
        ("layer.1.up.weight", "linear", "layer.1.up"),
        ("layer.1.down.norm.bias", "norm", "layer.1.down.norm"),
    ] {
        let wrong = right.clone().with(tensor, Fill::Constant(0.3));
        for kind in [executors::cpu(), executors::gpu()].into_iter().filter_map(|kinds| kinds.into_iter().next()) {
            let (program, executor) = load(&kind, &wrong);
            let (trace, want) = (executor.trace(&mixed()).unwrap(), naive::run(&program, &right, &mixed()));
            let (_, message) = first_difference(&program, &trace, &want, drift(kind.dtype)).expect("a difference");
            assert!(message.contains(&format!(", {op} '{label}': ")), "{}: {message}", kind.name);
        }
    }
}

#[test]
fn a_sequence_depends_on_neither_neighbours_nor_order_nor_batch_size() {
    for kind in executors::distinct() {
        let (_, executor) = load(&kind, &TestWeights::default());
        let all = mixed();
        let n = all.sequences();
        let alone: Vec<Matrix> = (0..n).map(|s| sentences(executor.as_ref(), select(&all, [s]))).collect();
        for (what, order) in [
            ("in a batch", (0..n).collect::<Vec<_>>()),
            ("in reverse", (0..n).rev().collect()),
            ("without the long ones", vec![0, 1, 3, 4, 6, 9]),
            ("in a large batch", (0..5 * n).map(|s| s * 7 % n).collect()),
        ] {
            let together = sentences(executor.as_ref(), select(&all, order.iter().copied()));
            assert_eq!(together.rows, order.len());
            for (row, &s) in order.iter().enumerate() {
                let got = Matrix::new(1, together.cols, together.row(row).to_vec());
                let result = compare(&got, &Wide::from(&alone[s]), invariance(kind.dtype));
                assert_eq!(result, Ok(()), "{}: sequence {s} {what}, row {row}", kind.name);
            }
        }
    }
}

/// The order of a sum may depend on the tile that the batch's size chooses.
fn invariance(dtype: Dtype) -> Tolerance {
    match dtype {
        Dtype::F32 | Dtype::F16Weights => Tolerance::new("sums in another order", 1e-6, 0.0),
        Dtype::F16 => Tolerance::new("sums in another order, rounded to the f16 beside it", 1e-3, 0.0),
    }
}

fn sentences(executor: &dyn Executor, batch: Batch) -> Matrix {
    executor.submit(batch, Output::Sentences).and_then(|pending| pending.wait()).unwrap()
}

/// Batches of different sizes, so that workspaces grow and are reused.
fn several() -> Vec<Batch> {
    let mut batches = vec![batch(&[3, 200, 1])];
    batches.extend((0..10).map(|i| batch(&vec![i * 5 % 37; i * 7 % 11])));
    batches.push(mixed());
    batches
}

#[test]
fn batches_in_flight_give_the_same_as_one_at_a_time() {
    for kind in executors::distinct() {
        let (_, executor) = load(&kind, &TestWeights::default());
        for output in [Output::Sentences, Output::Tokens] {
            let one = |batch: Batch| executor.submit(batch, output).and_then(|pending| pending.wait()).unwrap();
            let want: Vec<Matrix> = several().into_iter().map(one).collect();
            let pending: Vec<_> = several().into_iter().map(|batch| executor.submit(batch, output).unwrap()).collect();
            for (i, pending) in pending.into_iter().enumerate() {
                if i % 4 == 3 {
                    drop(pending); // nobody waits for this one: the others must not notice
                } else {
                    assert_eq!(same(&pending.wait().unwrap(), &want[i]), Ok(()), "{}: batch {i}", kind.name);
                }
            }
        }
    }
}

#[test]
fn many_threads_may_share_an_executor() {
    for kind in executors::distinct() {
        let (_, executor) = load(&kind, &TestWeights::default());
        let (executor, name) = (executor.as_ref(), &kind.name);
        let want: Vec<Matrix> = several().into_iter().map(|batch| sentences(executor, batch)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let want = &want;
                scope.spawn(move || {
                    let batches = several();
                    for i in (0..batches.len()).map(|i| (i + thread) % batches.len()) {
                        let got = sentences(executor, batches[i].clone());
                        assert_eq!(same(&got, &want[i]), Ok(()), "{name}: thread {thread}, batch {i}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_batch_that_contradicts_the_program_is_refused() {
    let mut unknown_id = Batch::new();
    unknown_id.push(&[VOCABULARY as u32], &[0], 0);
    let mut unknown_type = Batch::new();
    unknown_type.push(&[1], &[2], 0);
    let too_long = batch(&[SMALL_BERT.positions + 1]);
    for kind in executors::distinct() {
        let (_, executor) = load(&kind, &TestWeights::default());
        for (batch, what) in [(&unknown_id, "id"), (&unknown_type, "type"), (&too_long, "position")] {
            let submitted = executor.submit(batch.clone(), Output::Sentences).and_then(|pending| pending.wait());
            assert!(matches!(submitted, Err(RunError::InvalidBatch(_))), "{}: {what}: {submitted:?}", kind.name);
            let traced = executor.trace(batch).map(|_| ());
            assert!(matches!(traced, Err(RunError::InvalidBatch(_))), "{}: {what}: {traced:?}", kind.name);
        }
    }
}
