//! Weights in int8 that are rounded for what they will be multiplied with: a sample of texts goes through the model in f32,
//! step by step, and a weight becomes int8 when the last step that reads it is done. Beside the result, memory holds the
//! sample's values and one weight in f32. What comes of it is kept in a [file](super::rounded_file).

use super::interpreter::{Pass, Workspace};
use super::linear_int8::{Kernel, Rounded, Weight};
use super::mixture;
use super::moments::Moments;
use super::packed::{self, Packed, is_large};
use super::parallel::each;
use super::rounded_file::{RoundedFile, Writer};
use super::rounding::Rounding;
use super::team::Team;
use super::weights::{Weights, forms};
use crate::batch::Batch;
use crate::error::Result;
use crate::executor::Dtype;
use crate::program::{Blocks, Mixture, Op, Plan, Program, Value, WeightId, WeightSource};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A sample is halved so often: each part is computed by one thread, whatever their number, so that results do not depend on
/// it.
const HALVINGS: usize = 4;

/// A part of the sample, and how far it has come.
struct Part {
    batch: Batch,
    workspace: Workspace,
}

/// Reads every weight, what rows are multiplied with in int8: as an earlier start has kept them in the folder, or by the sample.
///
/// # Errors
/// Those of the source, and of a sample that contradicts the program.
pub fn load(
    program: &Program,
    source: &dyn WeightSource,
    threads: usize,
    sample: &Batch,
    folder: Option<&Path>,
) -> Result<Weights> {
    program.check(sample)?;
    let order = order(program);
    // Not worth looking at every number for, if nothing can be kept.
    let folder = folder.filter(|folder| !order.is_empty() && std::fs::create_dir_all(folder).is_ok());
    let file = match folder {
        Some(folder) => RoundedFile::of(program, source, sample, &order, threads, folder)?,
        None => None,
    };
    if let Some(weights) = file.as_ref().and_then(|file| file.read(program)) {
        let ready = Mutex::new(weights);
        let int8 = |weights: Vec<Weight>| weights.into_iter().map(Packed::Int8).collect();
        let ready = |id| ready.lock().unwrap_or_else(PoisonError::into_inner).remove(&id).map(int8);
        return Weights::load_with(program, source, threads, Dtype::Int8, ready);
    }
    let if_kept =
        |result: io::Result<Writer>| result.inspect_err(|error| log::debug!("int8 weights are not kept: {error}")).ok();
    let mut writer = file.and_then(|file| if_kept(file.write()));
    if !order.is_empty() {
        let next = if writer.is_some() { ": the next load is quicker" } else { "" };
        log::info!("rounding {} weights to int8 for a sample of {} texts{next}", order.len(), sample.sequences());
    }
    let weights = learn(program, source, threads, sample, &order, |rounded| {
        writer = writer.take().and_then(|mut writer| if_kept(writer.add(rounded).map(|()| writer)));
    })?;
    if let Some(writer) = writer {
        let _ = writer.finish().inspect_err(|error| log::debug!("int8 weights are not kept: {error}"));
    }
    Ok(weights)
}

/// By the sample; `made` is called with the integers of each weight, in this [`order`].
fn learn(
    program: &Program,
    source: &dyn WeightSource,
    threads: usize,
    sample: &Batch,
    order: &[(WeightId, Blocks)],
    mut made: impl FnMut(&Rounded),
) -> Result<Weights> {
    let (plan, forms, last_use) = (Plan::reusing(program), forms(program), last_use(program));
    let kernel = Kernel::best();
    let part = |batch| {
        let mut workspace = Workspace::default();
        workspace.prepare(&plan, &batch);
        Part { batch, workspace }
    };
    let mut parts: Vec<Part> = split(sample, HALVINGS).into_iter().map(part).collect();
    let mut weights = Weights::none(program);
    // Of each block of a weight.
    let mut seen: HashMap<WeightId, Vec<Moments>> = HashMap::new();
    // Of the value that was last looked at, for the next op if that reads it, too.
    let mut last: Option<(Value, Moments)> = None;
    for (i, step) in program.steps.iter().enumerate() {
        for id in step.op.weights() {
            weights.read(id, forms[id.index()], program.weight(id), source)?;
        }
        let pass =
            Pass { program, weights: &weights, dtype: Dtype::Int8, plan: &plan, team: &Team::ALONE, batch: sample };
        each(threads, &mut parts, |Part { batch, workspace }| Pass { batch, ..pass }.step(i, workspace));
        let becomes_int8 = |id: WeightId| order.iter().any(|(other, _)| *other == id);
        let mut see = |id, moments: Vec<Moments>| match seen.entry(id) {
            Entry::Vacant(entry) => _ = entry.insert(moments),
            Entry::Occupied(mut entry) => {
                entry.get_mut().iter_mut().zip(&moments).for_each(|(all, new)| all.merge(new))
            }
        };
        if let Op::Mixture(op) = &step.op
            && (becomes_int8(op.up) || becomes_int8(op.down))
        {
            let [up, down] = of_experts(op, &pass, &mut parts, threads);
            see(op.up, up);
            see(op.down, down);
        }
        if let Op::Linear(op) = &step.op
            && becomes_int8(op.weight)
        {
            let moments = match last.take() {
                Some((x, moments)) if x == op.x => moments,
                _ => {
                    let mut rows = Vec::new();
                    for Part { batch, workspace } in &parts {
                        rows.push(Pass { batch, ..pass }.value(op.x, &workspace.buffers));
                    }
                    let mut moments = Moments::new(program.weight(op.weight).cols);
                    moments.add(&rows, threads);
                    moments
                }
            };
            see(op.weight, vec![moments.clone()]);
            last = Some((op.x, moments));
        }
        for &(id, blocks) in order.iter().filter(|(id, _)| last_use[id.index()] == i) {
            if let Some(moments) = seen.remove(&id) {
                let spec = program.weight(id);
                let (values, [rows, cols]) = (spec.read_all(source)?, blocks.shape(spec));
                let packed = blocks.cut(&values, spec).zip(&moments).map(|(values, moments)| {
                    let rounding = Rounding::learned(&values, cols, moments, threads);
                    let rounded = Rounded::new(&values, rows, rounding, kernel, threads);
                    made(&rounded);
                    Packed::Int8(Weight::pack(&rounded, kernel))
                });
                weights.replace(id, packed.collect());
            }
        }
    }
    Ok(weights)
}

/// The weights that become int8, in the order in which they do: when the last step that reads them is done.
fn order(program: &Program) -> Vec<(WeightId, Blocks)> {
    let last_use = last_use(program);
    let ids = (0..).map(WeightId).zip(forms(program)).zip(&program.weights);
    let becomes_int8 = ids.filter_map(|((id, form), spec)| {
        form.packed.filter(|blocks| is_large(blocks.shape(spec))).map(|blocks| (id, blocks))
    });
    let mut order: Vec<_> = becomes_int8.collect();
    order.sort_by_key(|(id, _)| last_use[id.index()]);
    order
}

/// Of the rows that each expert of a mixture multiplies: with its first matrix, and with its second.
fn of_experts(op: &Mixture, pass: &Pass<'_>, parts: &mut [Part], threads: usize) -> [Vec<Moments>; 2] {
    let (experts, cols) = (pass.experts(op), pass.program.shape(op.x).cols);
    let count = pass.program.shape(op.logits).cols;
    let mut moments = [(); 2].map(|()| Vec::new());
    for expert in 0..count {
        let mut rows: Vec<_> = parts.iter().map(|part| (part, mixture::Rows::default())).collect();
        each(threads, &mut rows, |(Part { batch, workspace }, rows)| {
            let pass = Pass { batch, ..*pass };
            let mut routes = mixture::Routes::default();
            routes.choose(pass.value(op.logits, &workspace.buffers), count, op.top);
            let x = (pass.value(op.x, &workspace.buffers), cols);
            rows.compute(pass.team, experts, (&routes, expert), x, &mut packed::Scratch::default());
        });
        let of = |cols: usize, rows: Vec<&[f32]>| {
            let mut moments = Moments::new(cols);
            moments.add(&rows, threads);
            moments
        };
        moments[0].push(of(cols, rows.iter().map(|(_, rows)| &rows.x[..]).collect()));
        moments[1].push(of(experts.width, rows.iter().map(|(_, rows)| &rows.inner[..]).collect()));
    }
    moments
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
    use crate::cpu::tests::{batch, numbers};
    use crate::cpu::{CpuExecutor, CpuOptions, linear_int8};
    use crate::executor::Executor;
    use crate::matrix::Matrix;
    use crate::program::{
        Activation, Builder, Index, Linear, Lookup, Mixture, Output, Part, Pool, PoolMode, RandomWeights, TensorSpec,
    };
    use std::ops::Range;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Linear ops, of which the last two share a weight, as ALBERT's layers do, two have blocks of one tensor, and the table of
    /// embeddings is the first one's weight, too; then a mixture of experts.
    fn program() -> Arc<Program> {
        let mut b = Builder::new();
        let table = b.matrix("table", 50, 40);
        let mut x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let (wide, shared) = (b.tensor("wide", vec![200, 50]), b.matrix("shared", 200, 200));
        let blocks = [(0, 80), (80, 120)].map(|(first, rows)| b.weight(vec![Part::Rows(wide.clone(), first, rows)]));
        let linear = |b: &mut Builder, x: Value, weight| {
            b.linear(Linear { x, weight, bias: None, activation: Activation::Gelu, residual: None })
        };
        x = linear(&mut b, x, table);
        let parts = blocks.map(|block| linear(&mut b, x, block));
        x = b.join(parts.to_vec());
        for weight in [shared, shared] {
            x = linear(&mut b, x, weight);
        }
        let (gates, up, down) = (b.matrix("gates", 4, 200), b.matrix("up", 4 * 48, 200), b.matrix("down", 200, 4 * 48));
        let logits = linear(&mut b, x, gates);
        let activation = Activation::Gelu;
        x = b.mixture(Mixture { x, logits, top: 2, up, activation, down, bias: None, residual: Some(x) });
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
        // Of the row in the middle. Where two experts are nearly as good, any rounding may choose the other one: that row is far
        // off, and says nothing about rounding.
        let error = |found: &Matrix| {
            let rows = found.data.chunks(found.cols).zip(exact.data.chunks(found.cols));
            let mut errors: Vec<f32> = rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()).collect();
            let middle = errors.len() / 2;
            *errors.select_nth_unstable_by(middle, f32::total_cmp).1
        };
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

    /// Counts what is read.
    struct Counting(RandomWeights, AtomicUsize);

    impl WeightSource for Counting {
        fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
            self.1.fetch_add(rows.len() * tensor.cols(), Ordering::Relaxed);
            self.0.read(tensor, rows)
        }
    }

    /// A product with each int8 weight, and how many numbers were read to have them.
    fn products(sample: &Batch, seed: u64, folder: Option<&Path>) -> (Vec<Vec<f32>>, usize) {
        let (program, source) = (program(), Counting(RandomWeights { seed }, AtomicUsize::new(0)));
        let weights = load(&program, &source, 2, sample, folder).unwrap();
        let product = |(id, of, matrix): (WeightId, Blocks, &Packed)| {
            let Packed::Int8(weight) = matrix else { panic!("{id:?} is not int8") };
            let [rows, cols] = of.shape(program.weight(id));
            let (x, mut out) = (numbers(5, 3 * cols), vec![0.0; 3 * rows]);
            let scratch = &mut linear_int8::Scratch::default();
            linear_int8::linear_int8(&Team::ALONE, &x, weight, None, Activation::Identity, None, scratch, &mut out);
            out
        };
        let order = order(&program);
        let matrices = order.iter().flat_map(|&(id, of)| weights.blocks(id).iter().map(move |matrix| (id, of, matrix)));
        (matrices.map(product).collect(), source.1.into_inner())
    }

    #[test]
    fn what_a_sample_taught_is_kept_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let files = || -> Vec<_> {
            let entries = std::fs::read_dir(folder.path().join("cpu-int8")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let (sample, other) = (batch(&[9, 3, 30, 40]), batch(&[9, 3, 30, 41]));
        let (expected, of_learning) = products(&sample, 3, None);
        assert_eq!(expected.len(), 4 + 2 * 4);
        let (first, _) = products(&sample, 3, Some(folder.path()));
        let [file] = &files()[..] else { panic!("{:?}", files()) };
        let (second, read) = products(&sample, 3, Some(folder.path()));
        assert!(first == expected && second == expected);
        // All numbers once, for the file's name; those of the table, and of the gates, which are too few for int8, again.
        let all: usize = program().weights.iter().map(|spec| spec.rows * spec.cols).sum();
        assert!(read <= all + 2 * 50 * 40 + 4 * 200 && read < of_learning, "{read} of {all}, {of_learning} to learn");

        // Damaged, cut off, empty: it is made again.
        let whole = std::fs::read(file).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        for bytes in [&damaged[..], &whole[..whole.len() - 1], &[]] {
            std::fs::write(file, bytes).unwrap();
            assert!(products(&sample, 3, Some(folder.path())).0 == expected);
            assert!(std::fs::read(file).unwrap() == whole && files().len() == 1);
        }

        // Other weights have another file, and so has another sample; where none can be written, there is none.
        assert!(products(&sample, 4, Some(folder.path())).0 == products(&sample, 4, None).0);
        assert_eq!(files().len(), 2);
        assert!(products(&other, 3, Some(folder.path())).0 != expected);
        assert_eq!(files().len(), 3);
        assert!(products(&sample, 3, Some(file)).0 == expected);
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
