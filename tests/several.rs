//! Several devices behind one scheduler: the CPU beside whatever adapter there is (lavapipe on a machine without a GPU).

#![cfg(feature = "gpu")]

mod support;

use lexel::cpu::{CpuExecutor, CpuOptions};
use lexel::executor::Executor;
use lexel::gpu::{AdapterSelector, Dtype, GpuDevice, GpuExecutor, GpuOptions};
use lexel::program::Output;
use lexel::scheduler::{Scheduler, Sequence};
use lexel::several::Several;
use lexel::{Result, RunError};
use std::sync::Arc;
use std::time::Duration;
use support::data::{TestWeights, VOCABULARY, batch};
use support::executors::device;
use support::programs::{SMALL_BERT, bert};

/// So many sequences of 1 to 40 tokens, longest first.
fn sequences(count: usize) -> Vec<Sequence> {
    let length = |key: usize| 40 - 39 * key / count;
    let ids = |key: usize| (0..length(key)).map(|t| ((key * 7 + t * 13) % VOCABULARY) as u32).collect();
    (0..count).map(|key| Sequence { key, ids: ids(key), types: vec![0; length(key)], skip: 0, unseen: 0 }).collect()
}

/// Every sequence's vector, each of which must come once. `after` is told how many there are after each batch.
fn encode(executor: &dyn Executor, count: usize, batch_tokens: usize, after: impl Fn(usize)) -> Result<Vec<Vec<f32>>> {
    let scheduler = Scheduler { executor, output: Output::Sentences, padding: None, batch_tokens: Some(batch_tokens) };
    let mut vectors = vec![Vec::new(); count];
    let all = sequences(count);
    let mut computed = 0;
    scheduler.run(all.chunks(64).map(|chunk| Ok(chunk.to_vec())), |finished| {
        for (s, &key) in finished.keys.iter().enumerate() {
            assert!(vectors[key].is_empty(), "sequence {key} came twice");
            vectors[key] = finished.rows.row(s).to_vec();
        }
        computed += finished.keys.len();
        after(computed);
        Ok(())
    })?;
    Ok(vectors)
}

fn cpu() -> Arc<dyn Executor> {
    let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    Arc::new(CpuExecutor::load(Arc::new(bert(SMALL_BERT)), &TestWeights::default(), &options).unwrap())
}

fn gpu(device: &Arc<GpuDevice>, options: &GpuOptions) -> Arc<dyn Executor> {
    Arc::new(GpuExecutor::load(Arc::new(bert(SMALL_BERT)), &TestWeights::default(), device, options).unwrap())
}

fn assert_same(a: &[Vec<f32>], b: &[Vec<f32>]) {
    for (key, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.len(), b.len(), "sequence {key} has no vector");
        let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5, "sequence {key} differs by {worst}");
    }
}

#[test]
fn a_cpu_and_a_gpu_share_the_work_and_agree() {
    let Some(device) = device() else { return };
    let (cpu, gpu) = (cpu(), gpu(&device, &GpuOptions::default()));
    let both = Several::new(vec![gpu.clone(), cpu.clone()]);
    assert_eq!(both.describe(), format!("{} + {}", gpu.describe(), cpu.describe()));
    // Enough that both threads are running before it is done.
    let (count, tokens) = (3000, 200);
    let expected = encode(&*cpu, count, tokens, |_| ()).unwrap();
    let before = (cpu.busy(), gpu.busy());
    let vectors = encode(&both, count, tokens, |_| ()).unwrap();
    assert_same(&expected, &vectors);
    assert!(cpu.busy() > before.0 && gpu.busy() > before.1, "both computed");
}

#[test]
fn when_the_gpu_is_lost_the_cpu_goes_on() {
    if device().is_none() {
        return;
    }
    // One of its own, to be destroyed.
    let device = GpuDevice::open(&AdapterSelector::Any).unwrap();
    let (cpu, gpu) = (cpu(), gpu(&device, &GpuOptions::default()));
    let both = Several::new(vec![gpu.clone(), cpu.clone()]);
    let expected = encode(&*cpu, 600, 200, |_| ()).unwrap();
    let lose = |computed: usize| {
        if computed >= 100 {
            device.wgpu_device().destroy();
            // By now the faster CPU may leave it no batch that would show it.
            let shown = gpu.submit(batch(&[3]), Output::Sentences).and_then(|pending| pending.wait());
            assert!(matches!(shown, Err(RunError::DeviceLost(_))), "{shown:?}");
        }
    };
    assert_same(&expected, &encode(&both, 600, 200, lose).unwrap());
    assert!(gpu.is_lost() && !both.is_lost());
    assert_same(&expected, &encode(&both, 600, 200, |_| ()).unwrap());
}

#[test]
fn a_batch_in_many_submissions_is_bit_for_bit_that_of_one() {
    let Some(device) = device() else { return };
    let run = |dtype, queue_limit, output| {
        let executor = gpu(&device, &GpuOptions { dtype, queue_limit, ..GpuOptions::default() });
        let batches = [batch(&[40, 3, 100]), batch(&[7; 9]), batch(&[300])];
        // All in flight at once.
        let pending = batches.map(|batch| executor.submit(batch, output).unwrap());
        pending.map(|pending| pending.wait().unwrap())
    };
    for (dtype, output) in
        [(Dtype::F32, Output::Sentences), (Dtype::F32, Output::Tokens), (Dtype::Int8, Output::Tokens)]
    {
        // A part of a step each, some steps, and all at once.
        let limits = [Duration::from_nanos(1), Duration::from_micros(100)];
        let split = limits.map(|limit| run(dtype, Some(limit), output));
        let whole = run(dtype, Some(Duration::from_secs(3600)), output);
        assert!(split.iter().all(|split| *split == whole), "{dtype:?}, {output:?}");
    }
}
