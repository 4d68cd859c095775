//! One row for each sequence from the rows of its tokens.

use super::instruction_set::dispatch;
use super::normalize::inverse_length;
use super::simd::update;
use crate::batch::Batch;
use crate::program::{self, PoolMode};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// `x` is `[tokens, cols]`, `out` is `[sequences, modes * cols]`.
pub fn pool(op: &program::Pool, x: &[f32], cols: usize, batch: &Batch, out: &mut [f32]) {
    dispatch(Pool { op, x, cols, batch, out });
}

struct Pool<'a> {
    op: &'a program::Pool,
    x: &'a [f32],
    cols: usize,
    batch: &'a Batch,
    out: &'a mut [f32],
}

impl SimdOp for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Pool { op, x, cols, batch, out } = self;
        for (s, out) in out.chunks_exact_mut(op.modes.len() * cols).enumerate() {
            let all = batch.range(s);
            let skip = (batch.skip[s] as usize).min(all.len());
            let x = &x[all.start * cols..all.end * cols];
            for (mode, out) in op.modes.iter().zip(out.chunks_exact_mut(cols)) {
                pool_one(isa, *mode, x, cols, skip, out);
            }
            if op.normalize {
                let factor = inverse_length(isa, out);
                scale(isa, factor, out);
            }
        }
    }
}

/// One sequence and mode: `x` is `[its tokens, cols]`, `out` is `[cols]`; the first `skip` tokens do not take part.
#[inline(always)]
fn pool_one<I: Isa>(isa: I, mode: PoolMode, x: &[f32], cols: usize, skip: usize, out: &mut [f32]) {
    let rows = x[skip * cols..].chunks_exact(cols);
    let count = rows.len();
    match mode {
        PoolMode::Cls => match rows.clone().next().or(x.chunks_exact(cols).next()) {
            Some(row) => out.copy_from_slice(row),
            None => out.fill(0.0),
        },
        PoolMode::LastToken => match rows.clone().next_back() {
            Some(row) => out.copy_from_slice(row),
            None => out.fill(0.0),
        },
        PoolMode::Max => {
            out.fill(if count == 0 { 0.0 } else { f32::NEG_INFINITY });
            for row in rows.clone() {
                update(
                    isa,
                    out,
                    [row],
                    #[inline(always)]
                    |y, [x]| isa.f32().max(y, x),
                );
            }
        }
        PoolMode::Mean => weighted_sum(isa, x, cols, skip, |_| 1.0, count as f32, out),
        PoolMode::Sum => weighted_sum(isa, x, cols, skip, |_| 1.0, 1.0, out),
        PoolMode::MeanSqrtLenTokens => weighted_sum(isa, x, cols, skip, |_| 1.0, (count as f32).sqrt(), out),
        PoolMode::WeightedMean => {
            let weights: usize = (skip + 1..=skip + count).sum();
            weighted_sum(isa, x, cols, skip, |t| (t + 1) as f32, weights as f32, out);
        }
    }
}

/// `out = sum of weight(t) * row t / max(divisor, 1e-9)` over the rows from `skip` on.
#[inline(always)]
fn weighted_sum<I: Isa>(
    isa: I,
    x: &[f32],
    cols: usize,
    skip: usize,
    weight: fn(usize) -> f32,
    divisor: f32,
    out: &mut [f32],
) {
    let ops = isa.f32();
    out.fill(0.0);
    for (t, row) in x.chunks_exact(cols).enumerate().skip(skip) {
        let weight = ops.splat(weight(t));
        update(
            isa,
            out,
            [row],
            #[inline(always)]
            |y, [x]| ops.mul_add(x, weight, y),
        );
    }
    scale(isa, 1.0 / divisor.max(1e-9), out);
}

/// `out *= factor`
#[inline(always)]
fn scale<I: Isa>(isa: I, factor: f32, out: &mut [f32]) {
    let ops = isa.f32();
    let factor = ops.splat(factor);
    update(
        isa,
        out,
        [],
        #[inline(always)]
        |y, []| ops.mul(y, factor),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, batch, numbers};

    /// The formula, in f64.
    fn expected(mode: PoolMode, x: &[Vec<f64>], skip: usize, cols: usize) -> Vec<f64> {
        let taking_part: Vec<usize> = (skip.min(x.len())..x.len()).collect();
        let count = taking_part.len() as f64;
        let column = |c: usize| -> f64 {
            let sum = |weight: &dyn Fn(usize) -> f64| taking_part.iter().map(|&t| weight(t) * x[t][c]).sum::<f64>();
            match mode {
                PoolMode::Cls => taking_part.first().copied().or((!x.is_empty()).then_some(0)).map_or(0.0, |t| x[t][c]),
                PoolMode::LastToken => taking_part.last().map_or(0.0, |&t| x[t][c]),
                PoolMode::Max => taking_part.iter().map(|&t| x[t][c]).reduce(f64::max).unwrap_or(0.0),
                PoolMode::Mean => sum(&|_| 1.0) / count.max(1e-9),
                PoolMode::Sum => sum(&|_| 1.0),
                PoolMode::MeanSqrtLenTokens => sum(&|_| 1.0) / count.sqrt().max(1e-9),
                PoolMode::WeightedMean => {
                    let weights: f64 = taking_part.iter().map(|&t| (t + 1) as f64).sum();
                    sum(&|t| (t + 1) as f64) / weights.max(1e-9)
                }
            }
        };
        (0..cols).map(column).collect()
    }

    fn op(modes: &[PoolMode], normalize: bool) -> program::Pool {
        program::Pool { x: program::Value(0), modes: modes.to_vec(), normalize }
    }

    #[test]
    fn every_mode_with_skipped_tokens_and_empty_sequences() {
        use PoolMode::*;
        let modes = [Cls, Max, Mean, Sum, MeanSqrtLenTokens, WeightedMean, LastToken];
        let op = op(&modes, false);
        let mut batch = batch(&[1, 0, 5, 3, 0, 40, 2]);
        batch.skip = vec![0, 0, 2, 3, 4, 39, 9];
        for cols in [1, 7, 8, 33] {
            let x = numbers(1, batch.tokens() * cols);
            let mut out = vec![f32::NAN; batch.sequences() * modes.len() * cols];
            pool(&op, &x, cols, &batch, &mut out);
            let mut all = Vec::new();
            for s in 0..batch.sequences() {
                let rows: Vec<Vec<f64>> =
                    batch.range(s).map(|t| x[t * cols..(t + 1) * cols].iter().map(|&x| x.into()).collect()).collect();
                for mode in modes {
                    all.extend(expected(mode, &rows, batch.skip[s] as usize, cols));
                }
            }
            assert_close(&out, &all, 2e-6, &format!("{cols} columns"));
        }
    }

    #[test]
    fn a_normalised_pooling_is_the_pooling_normalised_to_the_last_bit() {
        let batch = batch(&[1, 0, 5, 40]);
        for cols in [1, 7, 33, 384] {
            let x = numbers(1, batch.tokens() * cols);
            let [mut pooled, mut separate, mut fused] = [(); 3].map(|()| vec![f32::NAN; batch.sequences() * cols]);
            pool(&op(&[PoolMode::Mean], false), &x, cols, &batch, &mut pooled);
            crate::cpu::normalize::normalize(&pooled, cols, &mut separate);
            pool(&op(&[PoolMode::Mean], true), &x, cols, &batch, &mut fused);
            assert_eq!(fused, separate, "{cols} columns");
        }
    }
}
