//! Helpers of the ops' tests, and tests of the executor as a whole.

use super::*;
use crate::program::{
    Activation, Attention, Builder, Glu, Half, HeadNorm, Index, Linear, Lookup, Norm, NormKind, Pool, PoolMode,
    RandomWeights, Rotary, RotaryTable, RowNorm, Sum, TensorSpec,
};
use std::ops::Range;

/// Random numbers, about uniform in -1.7..1.7.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let tensor = TensorSpec { module: 0, name: "numbers".into(), shape: vec![len, 1] };
    RandomWeights { seed }.read(&tensor, 0..len).unwrap()
}

/// A batch of sequences of these lengths, with ids below 50.
pub fn batch(lengths: &[usize]) -> Batch {
    let mut batch = Batch::new();
    for (s, &length) in lengths.iter().enumerate() {
        let ids: Vec<u32> = (0..length).map(|i| ((s * 31 + i * 7) % 50) as u32).collect();
        batch.push(&ids, &vec![0; length], 0);
    }
    batch
}

/// Fails at the worst element, if it is off by more than `tolerance` (of 1, or of itself where it is larger).
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let error = |i: usize| (f64::from(found[i]) - expected[i]).abs() / expected[i].abs().max(1.0);
    assert!(found.iter().all(|x| x.is_finite()), "{what}: not finite: {found:?}");
    if let Some(worst) = (0..found.len()).max_by(|&i, &j| error(i).total_cmp(&error(j))) {
        let (f, e) = (found[worst], expected[worst]);
        assert!(error(worst) <= tolerance, "{what}: element {worst} is {f}, expected {e}, off by {:.1e}", error(worst));
    }
}

/// A post-norm layer of 20 columns over every kind of step.
fn tower() -> Arc<Program> {
    let mut b = Builder::new();
    let lookup = |table, index| Lookup { table, index, offset: 0 };
    let (ids, positions) = (b.matrix("ids", 50, 20), b.matrix("positions", 300, 20));
    let x = b.embed(vec![lookup(ids, Index::Ids), lookup(positions, Index::Positions)]);
    let (weight, bias) = (b.matrix("qkv.weight", 60, 20), Some(b.vector("qkv.bias", 60)));
    let qkv = b.linear(Linear { x, weight, bias, activation: Activation::Identity, residual: None });
    let attended = b.attention(Attention { scale: 0.4, ..Attention::new(qkv, 4, 5) });
    let (weight, bias) = (b.matrix("out.weight", 20, 20), Some(b.vector("out.bias", 20)));
    let h = b.linear(Linear { x: attended, weight, bias, activation: Activation::Gelu, residual: Some(x) });
    let (weight, bias) = (b.vector("norm.weight", 20), Some(b.vector("norm.bias", 20)));
    let tokens =
        b.norm(Norm { x: h, norm: RowNorm { kind: NormKind::Layer, weight, bias, eps: 1e-5 }, residual: None });
    let pooled = b.pool(Pool { x: tokens, modes: vec![PoolMode::Mean, PoolMode::Max], normalize: false });
    let sentences = b.normalize(pooled);
    Arc::new(b.finish(sentences, tokens))
}

fn load(threads: usize) -> CpuExecutor {
    CpuExecutor::load(
        tower(),
        &RandomWeights { seed: 5 },
        &CpuOptions { threads: Some(threads), ..CpuOptions::default() },
    )
    .unwrap()
}

#[test]
fn a_text_does_not_feel_its_neighbours() {
    let cpu = load(2);
    let lengths = [1, 5, 0, 130, 17, 66, 67, 2];
    let whole = batch(&lengths);
    let together = cpu.submit(whole.clone(), Output::Sentences).unwrap().wait().unwrap();
    for s in 0..lengths.len() {
        let mut alone = Batch::new();
        alone.push_from(&whole, s);
        let alone = cpu.submit(alone, Output::Sentences).unwrap().wait().unwrap();
        assert_eq!(alone.row(0), together.row(s), "sequence {s}");
    }
}

/// A pre-norm layer whose steps are those of models after BERT, of heads that are wide enough for AMX.
fn gated_tower() -> Arc<Program> {
    let mut b = Builder::new();
    let ids = b.matrix("ids", 50, 96);
    let x = b.embed(vec![Lookup { table: ids, index: Index::Ids, offset: 0 }]);
    let norm = RowNorm { kind: NormKind::Rms, weight: b.vector("norm.weight", 96), bias: None, eps: 1e-5 };
    let h = b.norm(Norm { x, norm, residual: None });
    let weight = b.matrix("qkv.weight", 256, 96);
    let qkv = b.linear(Linear { x: h, weight, bias: None, activation: Activation::Identity, residual: None });
    let weight = b.vector("heads.weight", 64);
    let (kind, groups) = (NormKind::Rms, [4, 2, 0]);
    let qkv = b.head_norm(HeadNorm { qkv, kind, groups, group: 32, weight, bias: None, eps: 1e-5 });
    let table = b.rotary_table(RotaryTable::new(1e4, 32, 300));
    let qkv = b.rotary(Rotary { qkv, heads: 6, head_dim: 32, table });
    let attended = b.attention(Attention { kv_heads: 2, window: Some(100), ..Attention::new(qkv, 4, 32) });
    let weight = b.matrix("out.weight", 96, 128);
    let h = b.linear(Linear { x: attended, weight, bias: None, activation: Activation::Identity, residual: Some(x) });
    let weight = b.matrix("up.weight", 512, 96);
    let up = b.linear(Linear { x: h, weight, bias: None, activation: Activation::Identity, residual: None });
    let gated = b.glu(Glu { x: up, activation: Activation::Silu, activated: Half::First });
    let weight = b.matrix("down.weight", 96, 256);
    let down = b.linear(Linear { x: gated, weight, bias: None, activation: Activation::Relu, residual: None });
    let sum = b.sum(Sum { x: down, x_factor: 0.5, other: h, factor: 2.0 });
    let tokens = b.norm(Norm { x: sum, norm, residual: Some(x) });
    let pooled = b.pool(Pool::new(tokens, PoolMode::Mean));
    Arc::new(b.finish(pooled, tokens))
}

#[test]
fn help_changes_nothing() {
    for (program, dtype) in
        [tower(), gated_tower()].into_iter().flat_map(|p| Dtype::ALL.map(|dtype| (p.clone(), dtype)))
    {
        let options = CpuOptions { threads: Some(4), dtype, sample: None };
        let cpu = CpuExecutor::load(program.clone(), &RandomWeights { seed: 5 }, &options).unwrap();
        let tokens = program.output(Output::Tokens).index();
        for lengths in [&[3][..], &[40], &[200], &[1, 5, 0, 130, 17]] {
            let batch = batch(lengths);
            // One thread's.
            let expected = &cpu.trace(&batch).unwrap()[tokens];
            for _ in 0..3 {
                let found = cpu.submit(batch.clone(), Output::Tokens).unwrap().wait().unwrap();
                assert!(found == *expected, "{lengths:?} in {}", dtype.name());
            }
        }
    }
}

#[test]
fn a_trace_ends_with_the_outputs() {
    let cpu = load(1);
    let batch = batch(&[3, 9, 70]);
    let trace = cpu.trace(&batch).unwrap();
    let sentences = cpu.submit(batch.clone(), Output::Sentences).unwrap().wait().unwrap();
    let tokens = cpu.submit(batch.clone(), Output::Tokens).unwrap().wait().unwrap();
    assert_eq!(trace.len(), tower().steps.len());
    assert_eq!(trace[6], sentences);
    assert_eq!(trace[4], tokens);
    assert_eq!(cpu.profile(&batch).unwrap().len(), trace.len());
}

#[test]
fn empty_batches_and_empty_sequences_are_results() {
    let cpu = load(1);
    for lengths in [&[][..], &[0], &[0, 0, 3]] {
        let result = cpu.submit(batch(lengths), Output::Sentences).unwrap().wait().unwrap();
        assert_eq!(result.shape(), [lengths.len(), 40]);
        assert!(result.data.iter().take(40 * lengths.iter().filter(|&&l| l == 0).count()).all(|&x| x == 0.0));
    }
}

#[test]
fn an_id_beyond_the_table_is_refused() {
    let mut batch = batch(&[3]);
    batch.ids[1] = 50;
    assert!(matches!(load(1).submit(batch, Output::Tokens), Err(RunError::InvalidBatch(_))));
}

#[test]
fn a_nan_names_its_sequence() {
    struct NanForId7;
    impl WeightSource for NanForId7 {
        fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
            let mut values = RandomWeights { seed: 5 }.read(tensor, rows)?;
            if tensor.name == "ids" {
                values[7 * 20 + 3] = f32::NAN;
            }
            Ok(values)
        }
    }
    let cpu = CpuExecutor::load(tower(), &NanForId7, &CpuOptions::default()).unwrap();
    let mut batch = Batch::new();
    for ids in [&[1, 2, 3][..], &[], &[4, 7], &[5]] {
        batch.push(ids, &vec![0; ids.len()], 0);
    }
    for output in [Output::Sentences, Output::Tokens] {
        let result = cpu.submit(batch.clone(), output).unwrap().wait();
        assert_eq!(result, Err(RunError::NotFinite { sequence: 2 }));
    }
}

#[test]
fn a_panic_is_an_error_of_its_batch_alone() {
    let cpu = load(1);
    let mut broken = batch(&[4, 4]);
    broken.starts[1] = 99; // no `push` makes this
    let (first, second) =
        (cpu.submit(broken, Output::Tokens).unwrap(), cpu.submit(batch(&[4]), Output::Tokens).unwrap());
    assert!(matches!(first.wait(), Err(RunError::DeviceLost(text)) if text.contains("panicked")));
    assert!(second.wait().is_ok());
}

#[test]
fn dropping_the_executor_ends_every_batch() {
    let cpu = load(1);
    let pending: Vec<_> = (0..50).map(|_| cpu.submit(batch(&[200; 5]), Output::Tokens).unwrap()).collect();
    drop(cpu);
    for pending in pending {
        assert!(matches!(pending.wait(), Ok(_) | Err(RunError::DeviceLost(_))));
    }
}

#[test]
fn many_callers_get_their_own_results() {
    let cpu = load(3);
    let expected: Vec<_> =
        (1..40).map(|n| cpu.submit(batch(&[n]), Output::Sentences).unwrap().wait().unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let pending: Vec<_> = (1..40).map(|n| cpu.submit(batch(&[n]), Output::Sentences).unwrap()).collect();
                for (pending, expected) in pending.into_iter().zip(&expected) {
                    assert_eq!(&pending.wait().unwrap(), expected);
                }
            });
        }
    });
}
