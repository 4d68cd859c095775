//! Pooling that takes one token of each sequence (cls, last token) reads one row of the last layer. What lies between the
//! last attention and such a pooling works row by row, so the token can be taken before it: `pool(f(x)) = f(pool(x))`.

use super::{Normalize, Op, Output, Pool, PoolMode, Program, Rows, Shape, Step, Value};
use std::collections::HashMap;

impl Program {
    /// The program with each pooling of a single token moved up to the last attention. The steps that it no longer reads
    /// stay for [`Output::Tokens`]; [`Program::needed`] leaves them out otherwise.
    pub fn pooled_early(self) -> Program {
        let Some(pool_at) = self.steps.iter().rposition(|step| takes_one_token(&step.op)) else {
            return self;
        };
        let Op::Pool(pool) = &self.steps[pool_at].op else { return self };
        // What the last attention reads is computed for every token anyway, and so is the attention itself.
        let ancestors = self.needed_for(pool.x);
        let is_mixing = |i: &usize| ancestors[*i] && !self.steps[*i].op.is_row_wise();
        let Some(last_mixing) = (0..pool_at).rev().find(is_mixing) else { return self };
        let full = self.needed_for(Value(last_mixing as u32));

        let mut moved = Moved { program: &self, pool, full: &full, steps: Vec::new(), moved: HashMap::new() };
        moved.steps.extend_from_slice(&self.steps[..pool_at]);
        let mut pooled = moved.value(pool.x);
        let mut steps = moved.steps;
        if pool.normalize {
            let normalize = Op::Normalize(Normalize { x: pooled });
            steps.push(Step { op: normalize, ..self.steps[pool_at].clone() });
            pooled = Value(steps.len() as u32 - 1);
        }
        // Behind the pooling, values have moved by the steps that were added.
        let renumber = |value: Value| match value.index().cmp(&pool_at) {
            std::cmp::Ordering::Less => value,
            std::cmp::Ordering::Equal => pooled,
            std::cmp::Ordering::Greater => Value(value.0 + pooled.0 - pool_at as u32),
        };
        debug_assert_eq!(pooled.index() + 1, steps.len());
        for step in &self.steps[pool_at + 1..] {
            let mut step = step.clone();
            step.op.map_inputs(renumber);
            steps.push(step);
        }
        let (sentences, tokens) = (renumber(self.sentences), renumber(self.tokens));
        Program { steps, sentences, tokens, ..self }
    }

    /// For each step, whether an output needs it.
    pub fn needed(&self, output: Output) -> Vec<bool> {
        self.needed_for(self.output(output))
    }

    fn needed_for(&self, value: Value) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        needed[value.index()] = true;
        for i in (0..=value.index()).rev() {
            if needed[i] {
                for input in self.steps[i].op.inputs() {
                    needed[input.index()] = true;
                }
            }
        }
        needed
    }
}

fn takes_one_token(op: &Op) -> bool {
    matches!(op, Op::Pool(pool) if matches!(pool.modes[..], [PoolMode::Cls | PoolMode::LastToken]))
}

/// The steps as they are rebuilt on one row a sequence.
struct Moved<'a> {
    program: &'a Program,
    pool: &'a Pool,
    /// Values that are needed for every token.
    full: &'a [bool],
    steps: Vec<Step>,
    moved: HashMap<Value, Value>,
}

impl Moved<'_> {
    /// The pooled rows of `value`.
    fn value(&mut self, value: Value) -> Value {
        if let Some(&moved) = self.moved.get(&value) {
            return moved;
        }
        let step = &self.program.steps[value.index()];
        let mut op = step.op.clone();
        if self.full[value.index()] {
            op = Op::Pool(Pool { x: value, modes: self.pool.modes.clone(), normalize: false });
        } else {
            op.map_inputs(|input| self.value(input));
        }
        let shape = Shape { rows: Rows::Sequences, cols: step.shape.cols };
        self.steps.push(Step { op, shape, label: step.label.clone() });
        let moved = Value(self.steps.len() as u32 - 1);
        self.moved.insert(value, moved);
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::plan::tests::tower;

    #[test]
    fn a_single_token_is_taken_behind_the_last_attention() {
        let program = tower(2, PoolMode::Cls);
        let moved = program.clone().pooled_early();
        let needed = moved.needed(Output::Sentences);
        let of_tokens = |step: &Step| step.shape.rows == Rows::Tokens;
        let computed = moved.steps.iter().zip(&needed).filter(|(step, needed)| **needed && of_tokens(step));
        // The table, the first layer, and q, k, v and attention of the second.
        assert_eq!(computed.count(), 1 + 7 + 2);
        assert!(moved.needed(Output::Tokens).iter().zip(&moved.steps).all(|(needed, step)| *needed == of_tokens(step)));
        assert_eq!(moved.shape(moved.sentences), program.shape(program.sentences));
        // What was part of the pooling comes behind all that was moved over it.
        assert!(matches!(moved.steps[moved.sentences.index()].op, Op::Normalize(_)));
        for (i, step) in moved.steps.iter().enumerate() {
            assert!(step.op.inputs().iter().all(|input| input.index() < i));
        }
    }

    #[test]
    fn other_poolings_stay() {
        for mode in [PoolMode::Mean, PoolMode::Max] {
            let program = tower(2, mode);
            assert_eq!(program.clone().pooled_early(), program);
        }
    }
}
