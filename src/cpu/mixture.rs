//! A mixture of experts: each expert multiplies the rows that chose it, and no others.

use super::instruction_set::dispatch;
use super::packed::{self, Packed};
use super::simd::update;
use super::team::Team;
use crate::program::Activation;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// The matrices of a mixture.
#[derive(Clone, Copy)]
pub struct Experts<'a> {
    /// Of each expert: `[width, in]`.
    pub up: &'a [Packed],
    pub activation: Activation,
    /// Of each expert: `[out, width]`.
    pub down: &'a [Packed],
    /// Of an expert.
    pub width: usize,
}

/// Memory kept from call to call.
#[derive(Default)]
pub struct Scratch {
    routes: Routes,
    rows: Rows,
    out: Vec<f32>,
}

/// What an expert reads, and what it has in between: `[rows that chose it, in]` and `[.., width]`.
#[derive(Default)]
pub struct Rows {
    pub x: Vec<f32>,
    pub inner: Vec<f32>,
}

/// Which rows chose an expert, and how much it counts for them.
#[derive(Default)]
pub struct Routes {
    /// Of each expert, then the end of the last.
    starts: Vec<usize>,
    rows: Vec<usize>,
    gates: Vec<f32>,
}

impl Routes {
    /// By `[rows, experts]` logits: each row's `top` largest, of equal ones the first. Where there is NaN, it shows.
    pub fn choose(&mut self, logits: &[f32], experts: usize, top: usize) {
        let Routes { starts, rows, gates } = self;
        starts.clear();
        rows.clear();
        gates.clear();
        for expert in 0..experts {
            starts.push(rows.len());
            for (row, logits) in logits.chunks_exact(experts).enumerate() {
                let logit = logits[expert];
                let is_before = |(i, l): &(usize, &f32)| **l > logit || (**l == logit && *i < expert);
                if logits.iter().enumerate().filter(is_before).count() < top {
                    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let total: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
                    rows.push(row);
                    gates.push((logit - largest).exp() / total);
                }
            }
        }
        starts.push(rows.len());
    }

    /// The rows of an expert, and its gates.
    fn of(&self, expert: usize) -> (&[usize], &[f32]) {
        let range = self.starts[expert]..self.starts[expert + 1];
        (&self.rows[range.clone()], &self.gates[range])
    }
}

impl Rows {
    /// What comes of an expert's rows of `x` `[rows, in]`, before its second matrix.
    pub fn compute(
        &mut self,
        team: &Team<'_>,
        experts: Experts<'_>,
        (routes, expert): (&Routes, usize),
        (x, cols): (&[f32], usize),
        scratch: &mut packed::Scratch,
    ) {
        let (rows, _) = routes.of(expert);
        self.x.clear();
        rows.iter().for_each(|row| self.x.extend_from_slice(&x[row * cols..][..cols]));
        self.inner.resize(rows.len() * experts.width, 0.0);
        experts.up[expert].multiply(team, &self.x, None, experts.activation, None, scratch, &mut self.inner);
    }
}

/// Adds to `out` `[rows, out]` what the experts that [`Routes::choose`] finds make of `x` `[rows, in]`.
pub fn mixture(
    team: &Team<'_>,
    experts: Experts<'_>,
    (x, cols): (&[f32], usize),
    (logits, top): (&[f32], usize),
    scratch: &mut Scratch,
    products: &mut packed::Scratch,
    (out, out_cols): (&mut [f32], usize),
) {
    let Scratch { routes, rows, out: of_expert } = scratch;
    let count = experts.up.len();
    routes.choose(logits, count, top);
    for expert in 0..count {
        let (chosen, gates) = routes.of(expert);
        if chosen.is_empty() {
            continue;
        }
        rows.compute(team, experts, (routes, expert), (x, cols), products);
        of_expert.resize(chosen.len() * out_cols, 0.0);
        let identity = Activation::Identity;
        experts.down[expert].multiply(team, &rows.inner, None, identity, None, products, of_expert);
        dispatch(AddRows { from: of_expert, to: chosen, gates, out, cols: out_cols });
    }
}

/// `out[to[i]] += gates[i] * from[i]` by rows.
struct AddRows<'a> {
    from: &'a [f32],
    to: &'a [usize],
    gates: &'a [f32],
    out: &'a mut [f32],
    cols: usize,
}

impl SimdOp for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let AddRows { from, to, gates, out, cols } = self;
        let ops = isa.f32();
        for ((from, to), gate) in from.chunks_exact(cols).zip(to).zip(gates) {
            let gate = ops.splat(*gate);
            update(
                isa,
                &mut out[to * cols..][..cols],
                [from],
                #[inline(always)]
                |sum, [x]| ops.mul_add(x, gate, sum),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_chooses_the_largest_and_of_equal_ones_the_first() {
        let logits = [1.0, 3.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0, f32::NAN, 1.0, 2.0, 3.0];
        let mut routes = Routes::default();
        routes.choose(&logits, 4, 2);
        let rows: Vec<&[usize]> = (0..4).map(|expert| routes.of(expert).0).collect();
        // A row with NaN chooses all that may be among the largest.
        assert_eq!(rows, [&[1, 2][..], &[0, 1], &[0, 2], &[2]]);
        let gate = |expert: usize, at: usize| routes.of(expert).1[at];
        assert_eq!([gate(0, 0), gate(1, 1)], [0.25; 2]);
        assert!((gate(1, 0) - 0.643_914_3).abs() < 1e-6 && gate(0, 1).is_nan());
    }
}
