//! A program's weights in the form that each op reads: matrices of linear ops packed for their inner loops, tables whose rows are
//! looked up, and vectors and small tables in f32.

#[cfg(target_arch = "x86_64")]
use super::kernel::{self, Products};
use super::linear_int8::{Kernel, Rounded};
use super::parallel::each;
use super::rounding::Rounding;
use super::storage::Storage;
use super::table::Table;
use super::{linear, linear_int8};
use crate::error::Result;
use crate::executor::Dtype;
use crate::program::{Op, Program, WeightId, WeightSource, WeightSpec};
use std::sync::atomic::{AtomicBool, Ordering};

/// The weights of a program, each in the forms that its steps read.
pub struct Weights {
    entries: Vec<Entry>,
}

/// One weight. A table that a linear op also reads (tied embeddings) has both forms.
#[derive(Default)]
struct Entry {
    /// `[rows, cols]` of an embedding
    table: Option<Table>,
    /// `[rows, cols]`, row-major
    rows: Option<Vec<f32>>,
    /// `[out, in]` of a linear op
    packed: Option<Packed>,
}

/// The matrix of a linear op, as its inner loop reads it.
pub enum Packed {
    /// Multiplied in f32.
    Float(linear::Weight),
    Int8(linear_int8::Weight),
}

/// Matrices that are smaller are multiplied in f32: what makes classes or gates of a row is too little work to be worth any error.
const LARGE: usize = 32;

impl Weights {
    /// Reads every weight once, on `threads` threads. Beside the result, memory holds one tensor a thread.
    pub fn load(program: &Program, source: &dyn WeightSource, threads: usize, dtype: Dtype) -> Result<Weights> {
        Weights::load_with(program, source, threads, dtype, |_| None)
    }

    /// The same, but some matrices of linear ops are `ready`.
    pub fn load_with(
        program: &Program,
        source: &dyn WeightSource,
        threads: usize,
        dtype: Dtype,
        ready: impl Fn(WeightId) -> Option<Packed> + Sync,
    ) -> Result<Weights> {
        let ids = (0..).map(WeightId);
        let mut loads: Vec<_> =
            ids.zip(forms(program)).zip(&program.weights).map(|load| (load, Ok(Entry::default()))).collect();
        let failed = AtomicBool::new(false);
        each(threads, &mut loads, |(((id, form), spec), entry)| {
            // After the first error, nobody needs the others.
            if !failed.load(Ordering::Relaxed) {
                *entry = Entry::load(spec, source, *form, dtype, dtype, ready(*id));
                failed.fetch_or(entry.is_err(), Ordering::Relaxed);
            }
        });
        let entries = loads.into_iter().map(|(_, entry)| entry).collect::<Result<Vec<_>>>()?;
        Ok(Weights { entries })
    }

    /// Those of a program, not yet read.
    pub fn none(program: &Program) -> Weights {
        Weights { entries: program.weights.iter().map(|_| Entry::default()).collect() }
    }

    /// Reads a weight for int8, unless it is there; the matrix of a linear op as it is.
    pub fn read(&mut self, id: WeightId, form: Form, spec: &WeightSpec, source: &dyn WeightSource) -> Result<()> {
        let entry = &mut self.entries[id.index()];
        if entry.table.is_none() && entry.rows.is_none() && entry.packed.is_none() {
            *entry = Entry::load(spec, source, form, Dtype::Int8, Dtype::F32, None)?;
        }
        Ok(())
    }

    /// Puts a linear op's matrix in the place of the one that is there.
    pub fn replace(&mut self, id: WeightId, packed: Packed) {
        self.entries[id.index()].packed = Some(packed);
    }

    /// What an embedding looks rows up in.
    pub fn table(&self, id: WeightId) -> &Table {
        self.entries[id.index()].table.as_ref().expect("load makes a table of every weight that is looked up")
    }

    /// `[rows, cols]` of a small table, or `[n]` of a vector.
    pub fn rows(&self, id: WeightId) -> &[f32] {
        self.entries[id.index()].rows.as_deref().expect("load keeps the rows of every weight that is read so")
    }

    /// A linear op's matrix.
    pub fn packed(&self, id: WeightId) -> &Packed {
        self.entries[id.index()].packed.as_ref().expect("load packs every weight that a linear op reads")
    }
}

/// Who reads a weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Form {
    /// An embedding, its rows.
    table: bool,
    /// Another op, all of it.
    rows: bool,
    /// A linear op, as its matrix.
    pub packed: bool,
}

/// Of each weight of a program.
pub fn forms(program: &Program) -> Vec<Form> {
    let mut forms = vec![Form::default(); program.weights.len()];
    for step in &program.steps {
        for id in step.op.weights() {
            let form = &mut forms[id.index()];
            *match &step.op {
                Op::Linear(op) if op.weight == id => &mut form.packed,
                Op::Embed(op) if op.lookups.iter().any(|lookup| lookup.table == id) => &mut form.table,
                _ => &mut form.rows,
            } = true;
        }
    }
    forms
}

/// Whether a linear op's matrix is large enough for int8 and bf16.
pub fn is_large(spec: &WeightSpec) -> bool {
    spec.rows.min(spec.cols) >= LARGE
}

impl Packed {
    fn new(values: &[f32], spec: &WeightSpec, dtype: Dtype) -> Packed {
        match dtype {
            Dtype::Int8 if is_large(spec) => {
                let (rounding, kernel) = (Rounding::nearest(spec.cols), Kernel::best());
                let rounded = Rounded::new(values, spec.rows, rounding, kernel, 1);
                Packed::Int8(linear_int8::Weight::pack(&rounded, kernel))
            }
            #[cfg(target_arch = "x86_64")]
            Dtype::Bf16 if is_large(spec) && kernel::Kernel::best(Products::Bf16) != kernel::Kernel::Vectors => {
                Packed::Float(linear::Weight::pack_matrices(values, spec.rows, spec.cols))
            }
            _ => {
                let dtype = if dtype == Dtype::Int8 { Dtype::F32 } else { dtype };
                Packed::Float(linear::Weight::pack(values, spec.rows, spec.cols, Storage::of(values, dtype)))
            }
        }
    }
}

impl Entry {
    /// With a linear op's matrix in `dtype`, unless it is `ready`.
    fn load(
        spec: &WeightSpec,
        source: &dyn WeightSource,
        form: Form,
        dtype_of_tables: Dtype,
        dtype: Dtype,
        ready: Option<Packed>,
    ) -> Result<Entry> {
        let mut entry = Entry { packed: ready, ..Entry::default() };
        if form.table {
            entry.table = Some(Table::load(spec, source, dtype_of_tables)?);
        }
        let is_missing = form.packed && entry.packed.is_none();
        if form.rows || is_missing {
            let values = spec.read_all(source)?;
            if is_missing {
                entry.packed = Some(Packed::new(&values, spec, dtype));
            }
            entry.rows = form.rows.then_some(values);
        }
        Ok(entry)
    }
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
            assert!(matches!(Weights::load(&program, &Missing, threads, Dtype::F32), Err(Error::InvalidInput(_))));
        }
    }

    #[test]
    fn a_tied_table_has_both_forms() {
        let mut b = Builder::new();
        let table = b.matrix("a", 2, 2);
        let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let y = b.linear(Linear { x, weight: table, bias: None, activation: Activation::Identity, residual: None });
        let source = crate::program::RandomWeights { seed: 1 };
        let weights = Weights::load(&b.finish(y, y), &source, 1, Dtype::Int8).unwrap();
        assert!(matches!(weights.table(table), Table::F16(rows) if rows.len() == 4));
        assert!(matches!(weights.packed(table), Packed::Float(_)), "too small for int8");
    }
}
