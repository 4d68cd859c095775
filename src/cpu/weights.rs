//! A program's weights in the form that each op reads: matrices that rows are multiplied with packed for inner loops, tables whose rows are
//! looked up, and vectors and small tables in f32.

use super::packed::Packed;
use super::parallel::each;
use super::table::Table;
use crate::error::Result;
use crate::executor::Dtype;
use crate::program::{Blocks, Mixture, Op, Program, WeightId, WeightSource, WeightSpec};
use std::borrow::Cow;
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
    /// `[out, in]` of a linear op, or of each expert of a mixture
    packed: Option<Vec<Packed>>,
}

impl Weights {
    /// Reads every weight once, on `threads` threads. Beside the result, memory holds one tensor a thread.
    pub fn load(program: &Program, source: &dyn WeightSource, threads: usize, dtype: Dtype) -> Result<Weights> {
        Weights::load_with(program, source, threads, dtype, |_| None)
    }

    /// The same, but some matrices that rows are multiplied with are `ready`.
    pub fn load_with(
        program: &Program,
        source: &dyn WeightSource,
        threads: usize,
        dtype: Dtype,
        ready: impl Fn(WeightId) -> Option<Vec<Packed>> + Sync,
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

    /// Reads a weight for int8, unless it is there; what rows are multiplied with as it is.
    pub fn read(&mut self, id: WeightId, form: Form, spec: &WeightSpec, source: &dyn WeightSource) -> Result<()> {
        let entry = &mut self.entries[id.index()];
        if entry.table.is_none() && entry.rows.is_none() && entry.packed.is_none() {
            *entry = Entry::load(spec, source, form, Dtype::Int8, Dtype::F32, None)?;
        }
        Ok(())
    }

    /// Puts matrices in the place of those that are there.
    pub fn replace(&mut self, id: WeightId, packed: Vec<Packed>) {
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
        &self.blocks(id)[0]
    }

    /// The matrix of each expert.
    pub fn blocks(&self, id: WeightId) -> &[Packed] {
        self.entries[id.index()].packed.as_ref().expect("load packs every weight that rows are multiplied with")
    }
}

/// Who reads a weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Form {
    /// An embedding, its rows.
    table: bool,
    /// Another op, all of it.
    rows: bool,
    /// A linear op or a mixture, as these matrices.
    pub packed: Option<Blocks>,
}

/// Of each weight of a program.
pub fn forms(program: &Program) -> Vec<Form> {
    let mut forms = vec![Form::default(); program.weights.len()];
    let experts = |op: &Mixture| program.shape(op.logits).cols;
    for step in &program.steps {
        for id in step.op.weights() {
            let form = &mut forms[id.index()];
            match &step.op {
                Op::Linear(op) if op.weight == id => form.packed = Some(Blocks::WHOLE),
                Op::Mixture(op) if op.up == id => form.packed = Some(Blocks::Stacked(experts(op))),
                Op::Mixture(op) if op.down == id => form.packed = Some(Blocks::Beside(experts(op))),
                Op::Embed(op) if op.lookups.iter().any(|lookup| lookup.table == id) => form.table = true,
                _ => form.rows = true,
            }
        }
    }
    forms
}

impl Entry {
    /// With matrices that rows are multiplied with in `dtype`, unless they are `ready`.
    fn load(
        spec: &WeightSpec,
        source: &dyn WeightSource,
        form: Form,
        dtype_of_tables: Dtype,
        dtype: Dtype,
        ready: Option<Vec<Packed>>,
    ) -> Result<Entry> {
        let mut entry = Entry { packed: ready, ..Entry::default() };
        if form.table {
            entry.table = Some(Table::load(spec, source, dtype_of_tables)?);
        }
        let missing = form.packed.filter(|_| entry.packed.is_none());
        if form.rows || missing.is_some() {
            let values = spec.read_all(source)?;
            if let Some(blocks) = missing {
                let pack = |block: Cow<[f32]>| Packed::new(&block, blocks.shape(spec), dtype);
                entry.packed = Some(blocks.cut(&values, spec).map(pack).collect());
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
