//! Which integers a weight becomes. What is nearest, or, where it is known what [rows](Moments) it will be multiplied with,
//! what changes their products least.
//!
//! - Columns trade precision (as in SmoothQuant, <https://arxiv.org/abs/2211.10438>): rows are multiplied by factors, and the
//!   weight is divided by them. Rounding errors are of about one size in all columns, and count for as much as what they are
//!   multiplied with, so the sum of both sides' errors, for rows of size `x` and weights of size `w` in each column, is least
//!   where a factor is `sqrt(w / x)`. Its sign keeps a rotation from heaping up what columns have in common.
//! - Errors are fed forward (LDLQ, <https://arxiv.org/abs/2307.13304>, which is GPTQ, <https://arxiv.org/abs/2210.17323>):
//!   columns are rounded one after the other, and each makes up for what those before it, of its block, did to the product.
//!   With `(U + 1) D (U + 1)^T` for the moments of the rows, U strictly upper triangular and D diagonal, the error of the
//!   products is least where column k is what is nearest to `w_k + sum of (w_j - q_j) U_jk` over all j before k.

use super::instruction_set::dispatch;
use super::moments::{BLOCK, Moments, blocks};
use super::parallel::each;
use super::quantize::{Limits, inverse, order};
use super::rotate::rotated;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use std::ops::Range;

/// Channels that are rounded side by side.
pub const CHANNELS: usize = 8;

/// Numbers from row to row of a block's feedback: whole vectors.
fn stride(size: usize) -> usize {
    size.next_multiple_of(16)
}

/// How the channels of a weight are rounded.
pub struct Rounding {
    /// `[inner]`: what rows are multiplied by, and the weight is divided by.
    pub factors: Vec<f32>,
    /// `[inner]`: which column is at each place.
    order: Vec<usize>,
    /// Of each block, `[columns, stride]`: U, its columns in their `order`. None: errors stay where they are.
    feedback: Vec<Option<Vec<f32>>>,
}

impl Rounding {
    /// Each weight to what is nearest.
    pub fn nearest(inner: usize) -> Rounding {
        let feedback = blocks(inner).map(|_| None).collect();
        Rounding { factors: (0..inner).map(sign).collect(), order: order(inner), feedback }
    }

    /// `weight` `[cols, inner]`, for rows like those of `moments`.
    pub fn learned(weight: &[f32], inner: usize, moments: &Moments, threads: usize) -> Rounding {
        let Rounding { factors, order, mut feedback } = Rounding::nearest(inner);
        let factors = factors_of(weight, inner, moments).unwrap_or(factors);
        let mut of_blocks: Vec<_> = blocks(inner).zip(&moments.blocks).zip(&mut feedback).collect();
        each(threads, &mut of_blocks, |((columns, sums), feedback)| {
            // The order stays within blocks.
            let order: Vec<usize> = order[columns.clone()].iter().map(|at| at - columns.start).collect();
            **feedback = feedback_of(sums, &factors[columns.clone()], &order, moments.rows);
        });
        Rounding { factors, order, feedback }
    }

    /// The integers of up to [`CHANNELS`] channels `[channels, inner]`, each in their [`order`], and the steps between them
    /// `[channels, groups]`, one for each `group` integers.
    pub fn round(&self, weights: &[f32], limits: Limits, group: usize, integers: &mut [i8], steps: &mut [f32]) {
        let inner = self.factors.len();
        let divisors: Vec<f32> = self.factors.iter().map(|factor| 1.0 / factor).collect();
        let mut ordered = Vec::with_capacity(weights.len());
        for (channel, steps) in weights.chunks_exact(inner).zip(steps.chunks_exact_mut(inner.div_ceil(group))) {
            let rotated = rotated(channel, &divisors);
            let first = ordered.len();
            ordered.extend(self.order.iter().map(|&at| rotated[at]));
            steps.iter_mut().zip(ordered[first..].chunks(group)).for_each(|(step, group)| *step = limits.step(group));
        }
        for (columns, feedback) in blocks(inner).zip(&self.feedback) {
            let (weights, steps, feedback) = (&ordered, &*steps, feedback.as_deref());
            dispatch(Round { weights, steps, inner, group, columns, limits, feedback, integers });
        }
    }
}

/// The part of a mean square that is added to each: a column may be larger than a sample shows.
const UNSEEN: f32 = 0.01;

/// `sqrt(w / x)` of each column, with its [`sign`]; None if nothing is known.
fn factors_of(weight: &[f32], inner: usize, moments: &Moments) -> Option<Vec<f32>> {
    let (of_rows, mut of_weight) = (moments.squares(), vec![0f32; inner]);
    for channel in weight.chunks_exact(inner) {
        of_weight.iter_mut().zip(channel).for_each(|(sum, weight)| *sum += weight * weight);
    }
    let mean = |squares: &[f32]| squares.iter().sum::<f32>() / inner as f32;
    let (least_of_rows, least_of_weight) = (UNSEEN * mean(&of_rows), UNSEEN * mean(&of_weight));
    let factor = |(column, (row, weight)): (usize, (f32, f32))| {
        sign(column) * ((weight + least_of_weight) / (row + least_of_rows)).powf(0.25)
    };
    let factors: Vec<f32> = of_rows.into_iter().zip(of_weight).enumerate().map(factor).collect();
    factors.iter().all(|factor| factor.is_normal()).then_some(factors)
}

/// Of a column's factor. Numbers behind an activation are mostly of one sign, and a rotation would heap up what they have in
/// common in one number of each of its blocks, the largest of the row. These signs, the Rudin-Shapiro sequence, lie across all
/// rows of a Hadamard matrix as evenly as any can (1e6 times 1 - cosine of all-MiniLM-L6-v2, simulated: 108 without, 102 with
/// them).
fn sign(column: usize) -> f32 {
    if (column & column >> 1).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// U of a block's moments, of rows that are multiplied by the factors, rotated and put in order.
///
/// The moments are mixed with those of rows whose numbers have nothing to do with each other, the more the fewer rows they
/// come from. None if nothing is known.
fn feedback_of(sums: &[f32], factors: &[f32], order: &[usize], rows: usize) -> Option<Vec<f32>> {
    let size = factors.len();
    let mut sums = sums.to_vec();
    // Both sides: the matrix is symmetric.
    for _ in 0..2 {
        for row in sums.chunks_exact_mut(size) {
            let rotated = rotated(row, factors);
            row.iter_mut().zip(order).for_each(|(sum, &at)| *sum = rotated[at]);
        }
        sums = (0..size * size).map(|i| sums[i % size * size + i / size]).collect();
    }
    let mut moments: Vec<f64> = sums.iter().map(|&sum| sum.into()).collect();
    let mean = moments.iter().step_by(size + 1).sum::<f64>() / size as f64;
    let unknown = BLOCK as f64 / (BLOCK + rows) as f64;
    moments.iter_mut().for_each(|sum| *sum *= 1.0 - unknown);
    moments.iter_mut().step_by(size + 1).for_each(|sum| *sum += unknown * mean);
    (mean.is_normal() && moments.iter().all(|sum| sum.is_finite())).then(|| factorize(moments, size))
}

/// U `[size, stride]` of `(U + 1) D (U + 1)^T`, for a positive definite matrix.
fn factorize(mut matrix: Vec<f64>, size: usize) -> Vec<f32> {
    let stride = stride(size);
    let mut upper = vec![0f32; size * stride];
    for k in (0..size).rev() {
        let (above, row) = matrix.split_at_mut(k * size);
        let (row, diagonal) = (&row[..k], row[k]);
        // Row k is column k.
        for (i, above) in above.chunks_exact_mut(size).enumerate() {
            let factor = row[i] / diagonal;
            upper[i * stride + k] = factor as f32;
            above[..=i].iter_mut().zip(row).for_each(|(sum, other)| *sum -= factor * other);
        }
    }
    upper
}

/// A block of up to [`CHANNELS`] channels.
struct Round<'a> {
    /// `[channels, inner]`
    weights: &'a [f32],
    /// `[channels, groups]`
    steps: &'a [f32],
    inner: usize,
    group: usize,
    columns: Range<usize>,
    limits: Limits,
    feedback: Option<&'a [f32]>,
    /// `[channels, inner]`
    integers: &'a mut [i8],
}

impl SimdOp for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Round { weights, steps, inner, group, columns, limits, feedback, integers } = self;
        let (ops, size, groups) = (isa.f32(), columns.len(), inner.div_ceil(group));
        let (lanes, stride) = (ops.len(), stride(size));
        let mut carried = [[0f32; BLOCK]; CHANNELS];
        for k in 0..size {
            let column = columns.start + k;
            // The channels do not wait for each other, and share a row of the feedback.
            let mut errors = [ops.zero(); CHANNELS];
            let channels = weights.chunks_exact(inner).zip(integers.chunks_exact_mut(inner));
            let channels = channels.zip(steps.chunks_exact(groups));
            for (((weights, integers), steps), (carried, error)) in channels.zip(carried.iter().zip(&mut errors)) {
                let (weight, step) = (weights[column], steps[column / group]);
                let before = (k % 2 == 1).then(|| integers[column - 1]);
                let integer = limits.nearest((weight + carried[k]) * inverse(step), before);
                integers[column] = integer;
                *error = ops.splat(weight - f32::from(integer) * step);
            }
            let Some(feedback) = feedback else { continue };
            // Up to its diagonal, a row is 0.
            for at in (k / lanes * lanes..stride).step_by(lanes) {
                let factors = ops.load(&feedback[k * stride + at..]);
                for (carried, error) in carried.iter_mut().zip(errors) {
                    let carried = &mut carried[at..at + lanes];
                    ops.store(ops.mul_add(error, factors, ops.load(carried)), carried);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::quantize::GROUP;
    use crate::cpu::tests::{assert_close, numbers};

    /// Rows of which neighbours are alike, and some columns larger than others.
    fn rows(count: usize, inner: usize) -> Vec<f32> {
        let noise = numbers(1, count * inner);
        let row = |row: &[f32]| {
            let mut walk = 0.0;
            let next = |(c, noise): (usize, &f32)| {
                walk = 0.9 * walk + noise;
                walk * if c % 37 == 5 { 20.0 } else { 1.0 }
            };
            row.iter().enumerate().map(next).collect::<Vec<f32>>()
        };
        noise.chunks_exact(inner).flat_map(row).collect()
    }

    #[test]
    fn a_factor_times_its_transpose_is_the_matrix() {
        for size in [1, 2, 5, 32] {
            let x = numbers(1, 2 * size * size);
            let of = |a: usize, b: usize| {
                (0..2 * size).map(|row| f64::from(x[row * size + a]) * f64::from(x[row * size + b])).sum::<f64>()
            };
            let matrix: Vec<f64> = (0..size * size).map(|i| of(i / size, i % size)).collect();
            let upper = factorize(matrix.clone(), size);
            let unit = |i: usize, k: usize| if i == k { 1.0 } else { f64::from(upper[i * stride(size) + k]) };
            // D, from the last down.
            let mut diagonal = vec![0.0; size];
            for k in (0..size).rev() {
                diagonal[k] =
                    matrix[k * size + k] - (k + 1..size).map(|j| unit(k, j).powi(2) * diagonal[j]).sum::<f64>();
                assert!(diagonal[k] > 0.0);
            }
            let product = |i: usize, j: usize| (0..size).map(|k| unit(i, k) * diagonal[k] * unit(j, k)).sum::<f64>();
            let found: Vec<f32> = (0..size * size).map(|i| product(i / size, i % size) as f32).collect();
            assert!(
                (0..size * size).all(|i| i % size > i / size || upper[i / size * stride(size) + i % size] == 0.0),
                "not strictly upper triangular"
            );
            assert_close(&found, &matrix, 1e-4, &format!("{size} columns"));
        }
    }

    #[test]
    fn products_with_rows_like_the_sample_are_closer() {
        for (inner, limits, group) in [
            (500, Limits::BYTES, GROUP),
            (900, Limits::PAIRED, GROUP / 2),
            (384, Limits::PAIRED, 384),
            (70, Limits::SATURATING, 70),
        ] {
            let (x, cols) = (rows(1200, inner), 5);
            let (seen, unseen) = x.split_at(600 * inner);
            let weight = numbers(2, cols * inner);
            let mut moments = Moments::new(inner);
            moments.add(&[seen], 1);
            let error = |rounding: &Rounding| {
                let mut sum = 0.0;
                for channel in weight.chunks_exact(inner) {
                    let (mut integers, mut steps) = (vec![0; inner], vec![0.0; inner.div_ceil(group)]);
                    rounding.round(channel, limits, group, &mut integers, &mut steps);
                    assert!(integers.iter().all(|integer| integer.unsigned_abs() <= limits.weight.unsigned_abs()));
                    let pair = |pair: &[i8]| pair.iter().map(|&it| i32::from(it)).sum::<i32>().unsigned_abs();
                    let bound = limits.pair.unwrap_or(u8::MAX);
                    assert!(integers.chunks(2).all(|both| pair(both) <= bound.into()), "{integers:?}");
                    for row in unseen.chunks_exact(inner) {
                        let rotated = rotated(row, &rounding.factors);
                        let product =
                            |(at, integer): (usize, &i8)| rotated[at] * f32::from(*integer) * steps[at / group];
                        let found: f32 = order(inner).into_iter().zip(&integers).map(product).sum();
                        let expected: f32 = row.iter().zip(channel).map(|(x, weight)| x * weight).sum();
                        sum += (found - expected).powi(2);
                    }
                }
                sum
            };
            let nearest = error(&Rounding::nearest(inner));
            let learned = error(&Rounding::learned(&weight, inner, &moments, 2));
            println!("{inner} columns: {} of the nearest's squared error", learned / nearest);
            assert!(learned < 0.5 * nearest, "{inner} columns: {learned} and {nearest}");
        }
    }

    #[test]
    fn without_anything_to_learn_from_the_nearest() {
        let (inner, weight) = (200, numbers(3, 200));
        let mut broken = Moments::new(inner);
        broken.add(&[&[f32::INFINITY; 200]], 1);
        let mut zeros = Moments::new(inner);
        zeros.add(&[&[0.0; 400]], 1);
        let round = |rounding: &Rounding| {
            let (mut integers, mut step) = (vec![0; inner], [0.0]);
            rounding.round(&weight, Limits::BYTES, inner, &mut integers, &mut step);
            (integers, step)
        };
        for moments in [Moments::new(inner), broken, zeros] {
            let rounding = Rounding::learned(&weight, inner, &moments, 1);
            assert_eq!(round(&rounding), round(&Rounding::nearest(inner)));
        }
        let mut some = Moments::new(inner);
        some.add(&[&rows(9, inner)], 1);
        let zeros = Rounding::learned(&[0.0; 200], inner, &some, 1);
        assert_eq!(zeros.factors, Rounding::nearest(200).factors);
    }
}
