//! What a program's steps cost on a batch, by count: for profiles, beside what a machine can do.

use super::{Attention, Op, PositionBias, Program, Shape, Step};
use crate::batch::Batch;

/// The least that a step must do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Multiplications and additions.
    pub flops: f64,
    /// Numbers of values read and written, each once.
    pub values: f64,
    /// Numbers of weights read, each once; of tables, the rows that are looked up.
    pub weights: f64,
}

/// Operations on each number of a row that is normalised by its moments, and by its length.
const NORM: f64 = 8.0;
const NORMALIZE: f64 = 3.0;

impl Program {
    /// The cost of each step on a batch.
    pub fn costs(&self, batch: &Batch) -> Vec<Cost> {
        self.steps.iter().map(|step| self.cost(step, batch)).collect()
    }

    fn cost(&self, step: &Step, batch: &Batch) -> Cost {
        let rows = |shape: Shape| shape.rows_in(batch.tokens(), batch.sequences()) as f64;
        let size = |shape: Shape| rows(shape) * shape.cols as f64;
        let out = size(step.shape);
        let flops = match &step.op {
            Op::Linear(op) => 2.0 * out * self.weight(op.weight).cols as f64,
            Op::Attention(op) => {
                // Scores, and the weighted sum of values; q and k with the row of their distance.
                let products = if let Some(PositionBias::Disentangled { .. }) = op.bias { 4.0 } else { 2.0 };
                2.0 * products * seen_pairs(op, batch) * (op.heads * op.head_dim) as f64
            }
            Op::Embed(op) => {
                let normed = if op.norm.is_some() { NORM } else { 0.0 };
                out * ((op.lookups.len() - 1) as f64 + normed)
            }
            Op::Norm(_) | Op::HeadNorm(_) => NORM * out,
            Op::Rotary(_) => 3.0 * out,
            Op::ShortConv(op) => (3 * self.weight(op.weight).rows + 1) as f64 * out,
            Op::Mixture(op) => {
                let (up, down) = (self.weight(op.up), self.weight(op.down));
                let chosen = op.top as f64 / self.shape(op.logits).cols as f64;
                2.0 * rows(step.shape) * chosen * (up.rows * up.cols + down.rows * down.cols) as f64
            }
            Op::Glu(_) | Op::Sum(_) => 2.0 * out,
            Op::Join(_) => 0.0,
            Op::Normalize(_) => NORMALIZE * out,
            Op::Pool(op) => {
                let normalized = if op.normalize { NORMALIZE * out } else { 0.0 };
                op.modes.len() as f64 * size(self.shape(op.x)) + normalized
            }
        };
        let values: f64 = step.op.inputs().iter().map(|&input| size(self.shape(input))).sum();
        let weights: f64 = match &step.op {
            Op::Embed(op) => out * op.lookups.len() as f64,
            op => op.weights().iter().map(|&id| (self.weight(id).rows * self.weight(id).cols) as f64).sum(),
        };
        Cost { flops, values: out + values, weights }
    }
}

/// Pairs of a query and a key that it sees.
fn seen_pairs(op: &Attention, batch: &Batch) -> f64 {
    let of_sequence = |s: usize| {
        let (len, keys) = (batch.range(s).len(), batch.seen(s).len());
        match (op.window, op.causal) {
            (None, false) => (len * keys) as f64,
            (None, true) => (keys * (keys + 1) / 2 + (len - keys) * keys) as f64,
            (Some(_), _) => (0..len).map(|query| op.seen(query, query + 1, keys).len() as f64).sum(),
        }
    };
    (0..batch.sequences()).map(of_sequence).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Activation, Builder, Index, Linear, Lookup};

    #[test]
    fn a_product_and_an_attention_are_counted() {
        let mut b = Builder::new();
        let table = b.matrix("table", 10, 12);
        let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let attention = Attention::new(x, 2, 2);
        let attended = b.attention(attention.clone());
        let weight = b.matrix("weight", 3, 4);
        let y = b.linear(Linear { x: attended, weight, bias: None, activation: Activation::Identity, residual: None });
        let program = b.finish(y, y);
        let mut batch = Batch::new();
        batch.push(&[1, 2, 3], &[0; 3], 0);
        batch.push(&[4], &[0], 0);
        let costs = program.costs(&batch);
        assert_eq!(costs[0], Cost { flops: 0.0, values: 48.0, weights: 48.0 });
        assert_eq!(costs[1], Cost { flops: 4.0 * 10.0 * 4.0, values: 16.0 + 48.0, weights: 0.0 });
        assert_eq!(costs[2], Cost { flops: 2.0 * 12.0 * 4.0, values: 12.0 + 16.0, weights: 12.0 });
        let pairs = |op| seen_pairs(&op, &batch);
        assert_eq!(pairs(Attention { causal: true, ..attention.clone() }), 7.0);
        assert_eq!(pairs(Attention { window: Some(1), ..attention.clone() }), 8.0);
        assert_eq!(pairs(Attention { window: Some(1), causal: true, ..attention.clone() }), 6.0);
        let mut batch = Batch::new();
        batch.push_expanded(&[1, 2, 3, 4, 5], &[0; 5], 0, 2);
        let pairs = |op| seen_pairs(&op, &batch);
        assert_eq!(pairs(attention.clone()), 15.0);
        assert_eq!(pairs(Attention { causal: true, ..attention.clone() }), 12.0);
        assert_eq!(pairs(Attention { window: Some(2), ..attention }), 12.0);
    }
}
