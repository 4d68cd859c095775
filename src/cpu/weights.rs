//! A program's weights in the form that each op reads: matrices of linear ops packed for the GEMM, everything else as rows.

use super::linear::Gemm;
use crate::error::Result;
use crate::program::{Op, Program, WeightId, WeightSource, WeightSpec};
use rten_gemm::PackedBMatrix;
use rten_tensor::NdTensorView;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The weights of a program, each in the forms that its steps read.
pub struct Weights {
    entries: Vec<Entry>,
}

/// One weight. A table that a linear op also reads (tied embeddings) has both forms.
#[derive(Default)]
struct Entry {
    /// `[rows, cols]`, row-major
    rows: Option<Vec<f32>>,
    /// `[out, in]` of a linear op, transposed to `[in, out]` and in the panels of the GEMM's kernel
    packed: Option<PackedBMatrix<f32>>,
}

impl Weights {
    /// Reads every weight once, on `threads` threads. Beside the result, memory holds one tensor a thread.
    pub fn load(program: &Program, source: &dyn WeightSource, threads: usize) -> Result<Weights> {
        let mut forms = vec![(false, false); program.weights.len()];
        for step in &program.steps {
            for id in step.op.weights() {
                let is_matrix = matches!(&step.op, Op::Linear(op) if op.weight == id);
                let (rows, packed) = &mut forms[id.index()];
                *(if is_matrix { packed } else { rows }) = true;
            }
        }

        let next = AtomicUsize::new(0);
        let loaded = Mutex::new(Vec::with_capacity(forms.len()));
        let load_some = || {
            let gemm = Gemm::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(&form) = forms.get(i) else { return };
                let entry = load(&program.weights[i], source, form, &gemm);
                let failed = entry.is_err();
                loaded.lock().unwrap_or_else(PoisonError::into_inner).push((i, entry));
                if failed {
                    next.store(forms.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(forms.len()) {
                scope.spawn(load_some);
            }
            load_some();
        });

        let mut loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
        loaded.sort_by_key(|(i, _)| *i);
        let entries = loaded.into_iter().map(|(_, entry)| entry).collect::<Result<Vec<_>>>()?;
        Ok(Weights { entries })
    }

    /// `[rows, cols]` of a table, or `[n]` of a vector.
    pub fn rows(&self, id: WeightId) -> &[f32] {
        self.entries[id.index()].rows.as_deref().expect("load keeps the rows of every weight that is read so")
    }

    /// A linear op's matrix.
    pub fn packed(&self, id: WeightId) -> &PackedBMatrix<f32> {
        self.entries[id.index()].packed.as_ref().expect("load packs every weight that a linear op reads")
    }
}

fn load(spec: &WeightSpec, source: &dyn WeightSource, (rows, packed): (bool, bool), gemm: &Gemm) -> Result<Entry> {
    if !rows && !packed {
        return Ok(Entry::default());
    }
    let values = spec.read_all(source)?;
    let packed = packed.then(|| {
        let transposed = NdTensorView::from_data([spec.rows, spec.cols], &values[..]).transposed();
        gemm.prepack_b(transposed)
    });
    Ok(Entry { rows: rows.then_some(values), packed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::program::{Activation, Builder, Index, Linear, Lookup, TensorSpec};
    use std::ops::Range;

    #[test]
    fn an_error_of_the_source_is_the_result() {
        struct Missing;
        impl WeightSource for Missing {
            fn read(&self, tensor: &TensorSpec, _: Range<usize>) -> Result<Vec<f32>> {
                match tensor.name.as_str() {
                    "b" => Err(Error::InvalidInput("no b".into())),
                    _ => Ok(vec![0.0; tensor.rows() * tensor.cols()]),
                }
            }
        }
        let mut b = Builder::new();
        let table = b.matrix("a", 3, 2);
        let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let weight = b.matrix("b", 2, 2);
        let y = b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual: None });
        let program = b.finish(y, y);
        for threads in [1, 2, 9] {
            assert!(matches!(Weights::load(&program, &Missing, threads), Err(Error::InvalidInput(_))));
        }
    }

    #[test]
    fn a_tied_table_has_both_forms() {
        let mut b = Builder::new();
        let table = b.matrix("a", 2, 2);
        let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let y = b.linear(Linear { x, weight: table, bias: None, activation: Activation::Identity, residual: None });
        let weights = Weights::load(&b.finish(y, y), &crate::program::RandomWeights { seed: 1 }, 1).unwrap();
        assert_eq!((weights.rows(table).len(), weights.packed(table).cols()), (4, 2));
    }
}
