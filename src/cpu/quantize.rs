//! Activations in bytes: each row rotated, and with a scale for each of its groups of numbers.
//!
//! What a vector of units takes from four vectors of numbers stands in [`order`]: products do not depend on it, as long as
//! weights lie alike.

use super::gemm::{Shared, Unit};
use super::instruction_set::{dispatch, lanes};
use super::rotate::rotate;
use super::simd::fold;
use super::team::{Team, rows_of_part};
use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};
use std::cell::RefCell;
use std::ops::Range;

/// Bytes of a unit of the inner dimension.
pub const BYTES: usize = size_of::<Unit>();

/// The largest numbers that are multiplied exactly, of either sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of a row.
    pub row: u8,
    /// How much more than a row's number its byte holds, so that none is negative; 0 where bytes are signed.
    pub zero: u8,
    /// Of a weight.
    pub weight: i8,
    /// Of the sum of two neighbouring weights.
    pub pair: Option<u8>,
}

impl Limits {
    /// All that bytes hold.
    pub const BYTES: Limits = Limits { row: 127, zero: 127, weight: 127, pair: None };

    /// The same where the bytes of rows are signed.
    #[cfg(any(target_arch = "aarch64", test))]
    pub const SIGNED: Limits = Limits { zero: 0, ..Limits::BYTES };

    /// Where the products of two neighbours are added in 16 bits: 2 * 100 * 163 just fits. Weights are bound by what two of them
    /// are together, which costs far less than weights of 7 bits, the plain way.
    #[cfg(any(target_arch = "x86_64", test))]
    pub const PAIRED: Limits = Limits { row: 100, zero: 100, weight: 127, pair: Some(163) };

    /// Where any two are added in 16 bits: 2 * 2 * 127 * 64 just fits.
    pub const SATURATING: Limits = Limits { row: 127, zero: 127, weight: 64, pair: None };

    /// The integer that is nearest to a multiple of a step, and within the limits beside the one `before` it in its pair.
    pub fn nearest(self, multiple: f32, before: Option<i8>) -> i8 {
        let (mut least, mut most) = (-i32::from(self.weight), i32::from(self.weight));
        if let (Some(pair), Some(before)) = (self.pair, before) {
            (least, most) =
                (least.max(-i32::from(pair) - i32::from(before)), most.min(i32::from(pair) - i32::from(before)));
        }
        (multiple.round_ties_even() as i32).clamp(least, most) as i8
    }

    /// The step between the numbers of a weight, which are in their [`order`]; NaN if one is none.
    pub fn step(self, weights: &[f32]) -> f32 {
        // A weight that is no number must show in the result.
        if weights.iter().any(|weight| !weight.is_finite()) {
            return f32::NAN;
        }
        let largest = weights.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
        let step = largest / f32::from(self.weight);
        let Some(pair) = self.pair else {
            return step;
        };
        let pairs = weights.chunks(2).map(|pair| pair.iter().sum::<f32>().abs());
        // One less: both may be rounded up.
        step.max(pairs.fold(0f32, f32::max) / f32::from(pair - 1))
    }
}

/// What numbers are multiplied with that become multiples of a step: 0, where all are 0 but for what no f32 can divide, or one is
/// not finite.
pub fn inverse(step: f32) -> f32 {
    let inverse = 1.0 / step;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Numbers of a row, or of a channel's weights, that have a scale of their own, where the inner loop is ours and knows all bytes: a
/// block of the rotation, beyond which no outlier reaches. 1e6 times 1 - cosine of all-MiniLM-L6-v2 on 2,000 sentences is 138
/// with one scale for all, 102 with these (simulated: 123 with these in weights or in rows alone, 114 with 192, 87 with 64), and
/// encoding takes 2 to 4 % longer on Zen 4.
pub const GROUP: usize = 128;

/// Rows as bytes: `rotated x = scale of its group * (byte - the limits' zero)`. Memory that is kept from call to call.
#[derive(Default)]
pub struct Rows {
    /// How many.
    pub count: usize,
    /// `[rows, units]`, or `[rows / 2, units / 2, 2 rows, 2]` in pairs, each row filled up with zeros; if the last pair lacks a row,
    /// anything is there
    pub units: Vec<Unit>,
    /// `[rows, groups]`, in pairs for an even number of rows, as above
    pub scales: Vec<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// What a thread needs for the row at hand.
#[derive(Default)]
struct Room {
    /// `[inner]`
    rotated: Vec<f32>,
    /// `[units]`, if rows lie in pairs
    row: Vec<Unit>,
}

impl Rows {
    /// Multiplies the columns of `[rows, inner]` by `factors` `[inner]`, rotates the rows and turns them into bytes, with a scale
    /// for each `group` numbers: all, or whole vectors of units, which [`order`] keeps together.
    pub fn quantize(&mut self, team: &Team<'_>, x: &[f32], factors: &[f32], limits: Limits, group: usize, pairs: bool) {
        let inner = factors.len();
        debug_assert!(group == inner || group.is_multiple_of(BYTES * lanes()));
        self.count = x.len() / inner;
        let (rows, units) = (self.count.next_multiple_of(1 + usize::from(pairs)), units_of(inner, pairs));
        self.units.resize(rows * units, 0);
        self.scales.resize(rows * inner.div_ceil(group), 0.0);
        let each = rows_of_part(inner).next_multiple_of(1 + usize::from(pairs));
        let (to_units, scales) = (Shared::new(&mut self.units), Shared::new(&mut self.scales));
        let count = self.count;
        team.run(count.div_ceil(each), &|parts| {
            let rows = parts.start * each..count.min(parts.end * each);
            ROOM.with_borrow_mut(|room| {
                room.rotated.resize(inner, 0.0);
                room.row.clear();
                room.row.resize(if pairs { units } else { 0 }, 0);
                let (units, scales) = (&to_units, &scales);
                dispatch(QuantizeRows { x, factors, limits, group, rows, units, scales, room });
            });
        });
    }
}

/// Units of a row of so many numbers; in pairs, an even number.
pub fn units_of(inner: usize, pairs: bool) -> usize {
    inner.div_ceil(BYTES).next_multiple_of(1 + usize::from(pairs))
}

/// Which of a row's numbers lies in each of its bytes.
pub fn order(inner: usize) -> Vec<usize> {
    let group = BYTES * lanes();
    let whole = inner / group * group;
    let grouped = (0..whole).map(|at| at / group * group + at % BYTES * lanes() + at % group / BYTES);
    grouped.chain(whole..inner).collect()
}

struct QuantizeRows<'a> {
    x: &'a [f32],
    factors: &'a [f32],
    limits: Limits,
    group: usize,
    /// A pair's are of one thread.
    rows: Range<usize>,
    units: &'a Shared<'a, Unit>,
    scales: &'a Shared<'a>,
    room: &'a mut Room,
}

impl SimdOp for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let QuantizeRows { x, factors, limits, group, rows, units, scales, room: Room { rotated, row } } = self;
        let (inner, groups) = (factors.len(), factors.len().div_ceil(group));
        // SAFETY: no other thread has these rows, nor those that they make pairs with.
        let (units, scales) = unsafe {
            let (each, end) = match row.is_empty() {
                true => (units_of(inner, false), rows.end),
                false => (units_of(inner, true), rows.end.next_multiple_of(2)),
            };
            (units.slice(rows.start * each..end * each), scales.slice(rows.start * groups..rows.end * groups))
        };
        let x = &x[rows.start * inner..rows.end * inner];
        for ((x, scales), r) in x.chunks_exact(inner).zip(scales.chunks_exact_mut(groups)).zip(0..) {
            rotate(isa, x, factors, rotated);
            let trouble = trouble(isa, rotated);
            let len = inner.div_ceil(BYTES);
            let bytes = if row.is_empty() { &mut units[r * len..(r + 1) * len] } else { &mut row[..len] };
            let groups = rotated.chunks(group).zip(bytes.chunks_mut(group.div_ceil(BYTES)));
            for ((x, units), scale) in groups.zip(scales) {
                *scale = largest(isa, x) / f32::from(limits.row) + trouble;
                quantize(isa, x, inverse(*scale), limits.zero, units);
            }
            for (from, to) in row.chunks_exact(2).zip(units[r / 2 * 2 * row.len()..].chunks_exact_mut(4)) {
                to[r % 2 * 2..][..2].copy_from_slice(from);
            }
        }
    }
}

/// `round(x / scale) + zero` in bytes; ties go to even. (Closures in `array::map` and `array::from_fn`, and rten-simd's ways to
/// narrow and to store integers, and to compare them, become calls at the compiler's whim: int8 takes up to 1.4 times as long.)
#[inline(always)]
fn quantize<I: Isa>(isa: I, x: &[f32], inverse: f32, zero: u8, units: &mut [Unit]) {
    let ops = isa.i32();
    let lanes = ops.len();
    // What is signed becomes unsigned to be put together, and signed again with its topmost bit.
    let (start, flip) = if zero == 0 { (128, 0x80) } else { (zero.into(), 0) };
    let (inverses, zeros) = (isa.f32().splat(inverse), ops.splat(start));
    let flips = ops.splat(i32::from_ne_bytes([flip; BYTES]));
    let whole = x.len() / (BYTES * lanes);
    let (groups, rest) = x.split_at(whole * BYTES * lanes);
    let (units, rest_units) = units.split_at_mut(whole * lanes);
    for (x, units) in groups.chunks_exact(BYTES * lanes).zip(units.chunks_exact_mut(lanes)) {
        let (a, b) = (integers(isa, x, inverses, zeros), integers(isa, &x[lanes..], inverses, zeros));
        let (c, d) = (integers(isa, &x[2 * lanes..], inverses, zeros), integers(isa, &x[3 * lanes..], inverses, zeros));
        let low = ops.or(a, ops.shift_left::<8>(b));
        let high = ops.or(ops.shift_left::<16>(c), ops.shift_left::<24>(d));
        let all = ops.xor(ops.or(low, high), flips);
        units.copy_from_slice(bytemuck::cast_slice(all.to_array().as_ref()));
    }
    for (x, unit) in rest.chunks(BYTES).zip(rest_units) {
        let mut bytes = [0; BYTES];
        for (byte, x) in bytes.iter_mut().zip(x) {
            *byte = ((x * inverse).round_ties_even() as i32 + i32::from(zero)) as u8;
        }
        *unit = Unit::from_le_bytes(bytes);
    }
}

/// A vector of `round(x * inverse) + zero`.
#[inline(always)]
fn integers<I: Isa>(isa: I, x: &[f32], inverse: I::F32, zero: I::I32) -> I::I32 {
    let ops = isa.f32();
    isa.i32().add(ops.to_int_round(ops.mul(ops.load(x), inverse)), zero)
}

/// The largest number of either sign. Not finite ones may be overlooked.
#[inline(always)]
fn largest<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let ops = isa.f32();
    let mut largest = ops.zero();
    let mut chunks = x.chunks_exact(ops.len());
    for chunk in chunks.by_ref() {
        largest = ops.max(ops.abs(ops.load(chunk)), largest);
    }
    chunks.remainder().iter().fold(fold(largest, f32::max), |largest, x| largest.max(x.abs()))
}

/// 0, or NaN if a number is not finite.
#[inline(always)]
fn trouble<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let ops = isa.f32();
    let mut trouble = ops.zero();
    let mut chunks = x.chunks_exact(ops.len());
    for chunk in chunks.by_ref() {
        trouble = ops.mul_add(ops.load(chunk), ops.zero(), trouble);
    }
    chunks.remainder().iter().fold(fold(trouble, |a, b| a + b), |trouble, x| trouble + x * 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::numbers;

    #[test]
    fn every_number_has_its_byte() {
        for inner in [1, 3, 4, 5, 31, 64, 65, 128, 200, 300, 384] {
            let x = numbers(1, inner);
            let rotated = crate::cpu::rotate::rotated(&x, &vec![1.0; inner]);
            for (limits, group) in
                [(Limits::PAIRED, GROUP / 2), (Limits::BYTES, GROUP), (Limits::BYTES, inner), (Limits::SIGNED, GROUP)]
            {
                let mut rows = Rows::default();
                rows.quantize(&Team::ALONE, &x, &vec![1.0; inner], limits, group, false);
                assert_eq!(rows.scales.len(), inner.div_ceil(group));
                let bytes: &[u8] = bytemuck::cast_slice(&rows.units);
                for (&byte, at) in bytes.iter().zip(order(inner)) {
                    let scale = rows.scales[at / group];
                    let byte = if limits.zero == 0 { i32::from(byte as i8) } else { i32::from(byte) };
                    let value = scale * (byte - i32::from(limits.zero)) as f32;
                    assert!((value - rotated[at]).abs() <= 0.501 * scale, "number {at} of {inner}: {value}");
                }
                assert!(bytes[inner..].iter().all(|&byte| byte == 0) && bytes.len() < inner + BYTES);
                assert!(limits.zero == 0 || bytes.iter().all(|&byte| byte <= 2 * limits.row));
            }
            let mut places = order(inner);
            places.sort_unstable();
            assert!(places.into_iter().eq(0..inner));
        }
    }

    #[test]
    fn two_units_of_either_row_lie_in_turn() {
        for inner in [1, 8, 30, 300] {
            let (x, factors) = (numbers(1, 3 * inner), vec![1.0; inner]);
            let (mut plain, mut pairs) = (Rows::default(), Rows::default());
            plain.quantize(&Team::ALONE, &x, &factors, Limits::SIGNED, inner, false);
            // Memory that has been used for more.
            pairs.quantize(&Team::ALONE, &numbers(2, 10 * inner), &factors, Limits::SIGNED, inner, true);
            pairs.quantize(&Team::ALONE, &x, &factors, Limits::SIGNED, inner, true);
            let (from, to) = (units_of(inner, false), units_of(inner, true));
            assert_eq!((pairs.units.len(), pairs.scales.len(), pairs.count), (4 * to, 4, 3));
            for (row, unit) in (0..3).flat_map(|row| (0..from).map(move |unit| (row, unit))) {
                let at = row / 2 * 2 * to + unit / 2 * 4 + row % 2 * 2 + unit % 2;
                assert_eq!(pairs.units[at], plain.units[row * from + unit], "row {row}, unit {unit} of {from}");
            }
        }
    }

    #[test]
    fn numbers_too_small_to_divide_by_are_zero() {
        for inner in [64, 5] {
            for limits in [Limits::PAIRED, Limits::SIGNED] {
                let mut rows = Rows::default();
                rows.quantize(&Team::ALONE, &vec![-1e-40; inner], &vec![1.0; inner], limits, inner, false);
                let bytes: &[u8] = bytemuck::cast_slice(&rows.units);
                assert!(bytes[..inner].iter().all(|&byte| byte == limits.zero));
            }
        }
        assert_eq!([inverse(0.0), inverse(1e-40), inverse(f32::NAN), inverse(0.5)], [0.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn neighbours_fit_together() {
        // The largest are neighbours of one sign, of two, or alone.
        for weights in [[1.0, 1.0, 0.3, 0.2], [1.0, -1.0, 0.5, 0.7], [0.9, 0.1, -1.0, 0.0], [-1.0, -0.9, 0.0, 0.1]] {
            let step = Limits::PAIRED.step(&weights);
            let integers = weights.map(|weight: f32| (weight / step).round_ties_even() as i32);
            let pair = (integers[0] + integers[1]).abs().max((integers[2] + integers[3]).abs());
            let largest = integers.iter().map(|integer| integer.abs()).max().unwrap();
            assert!(pair <= 163 && largest <= 127, "{integers:?}");
            assert!(pair >= 161 || largest == 127, "{integers:?} are smaller than they need be");
        }
        for len in [1, 2, 7, 64, 383] {
            for seed in 0..20 {
                let weights = numbers(seed, len);
                let inverse = inverse(Limits::PAIRED.step(&weights));
                let integers: Vec<i32> =
                    weights.iter().map(|weight| (weight * inverse).round_ties_even() as i32).collect();
                assert!(integers.iter().all(|integer| integer.abs() <= 127), "{integers:?}");
                assert!(integers.chunks(2).all(|pair| pair.iter().sum::<i32>().abs() <= 163), "{integers:?}");
            }
        }
        assert!(Limits::BYTES.step(&[1.0, f32::NAN]).is_nan() && Limits::PAIRED.step(&[f32::INFINITY]).is_nan());
        assert_eq!(Limits::PAIRED.step(&[0.0; 3]), 0.0);
    }
}
