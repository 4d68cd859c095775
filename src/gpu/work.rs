//! What the steps of a program ask of a device, before it is known how fast that is.

use crate::batch::Batch;
use crate::program::{Cost, Op, Program};
use std::iter::Sum;
use std::ops::Mul;

/// Kinds of steps. How fast a device does each is learned apart: matrix units speed up products and rarely attention, a window
/// leaves much of a tile unseen, and the others wait for memory.
pub(super) const KINDS: usize = 4;

/// What a number that is read or written counts for, in FLOPs: about the ratio of arithmetic to bandwidth of GPUs.
const FLOPS_A_NUMBER: f64 = 40.0;

/// FLOPs and what counts like them: of matrix products, of attention, of attention within a window, of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Work(pub [f64; KINDS]);

impl Work {
    /// Of a step.
    pub fn of(op: &Op, cost: &Cost) -> Work {
        let kind = match op {
            Op::Linear(_) | Op::Mixture(_) => 0,
            Op::Attention(op) if op.window.is_none() => 1,
            Op::Attention(_) => 2,
            _ => 3,
        };
        let mut work = Work::default();
        work.0[kind] = cost.flops + FLOPS_A_NUMBER * (cost.values + cost.weights);
        work
    }

    /// The most of a single step of a program, of each kind, for each token of a text of some length.
    pub fn widest_steps(program: &Program) -> Work {
        const TOKENS: usize = 128;
        let mut text = Batch::new();
        text.push(&[0; TOKENS], &[0; TOKENS], 0);
        let mut widest = Work::default();
        for (step, cost) in program.steps.iter().zip(program.costs(&text)) {
            let work = Work::of(&step.op, &cost) * (1.0 / TOKENS as f64);
            widest.0 = std::array::from_fn(|kind| widest.0[kind].max(work.0[kind]));
        }
        widest
    }

    /// Of all kinds.
    pub fn total(self) -> f64 {
        self.0.iter().sum()
    }
}

impl Mul<f64> for Work {
    type Output = Work;

    fn mul(self, factor: f64) -> Work {
        Work(self.0.map(|amount| amount * factor))
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Work>>(works: I) -> Work {
        works.fold(Work::default(), |sum, work| Work(std::array::from_fn(|kind| sum.0[kind] + work.0[kind])))
    }
}
