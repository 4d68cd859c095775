//! Rotary positions: each head of q and k turned by its token's position.

use super::instruction_set::dispatch;
use super::simd::update;
use crate::program::Rotary;
use rten_simd::ops::NumOps;
use rten_simd::{Isa, SimdOp};

/// `qkv` and `out` are `[tokens, cols]`, of tokens at these positions; `table` is `[all positions, head_dim]`: cosines, then sines.
pub fn rotary(op: &Rotary, qkv: &[f32], cols: usize, table: &[f32], positions: &[u32], out: &mut [f32]) {
    dispatch(Turn { op, qkv, cols, table, positions, out });
}

struct Turn<'a> {
    op: &'a Rotary,
    qkv: &'a [f32],
    cols: usize,
    table: &'a [f32],
    positions: &'a [u32],
    out: &'a mut [f32],
}

impl SimdOp for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Turn { op, qkv, cols, table, positions, out } = self;
        let ops = isa.f32();
        let (head_dim, half) = (op.head_dim, op.head_dim / 2);
        let turned = op.heads * head_dim;
        let rows = qkv.chunks_exact(cols).zip(out.chunks_exact_mut(cols)).zip(positions);
        for ((x, out), &position) in rows {
            let (cosines, sines) = table[position as usize * head_dim..][..head_dim].split_at(half);
            for (x, out) in x[..turned].chunks_exact(head_dim).zip(out[..turned].chunks_exact_mut(head_dim)) {
                let (a, b) = x.split_at(half);
                let (first, second) = out.split_at_mut(half);
                update(
                    isa,
                    first,
                    [a, b, cosines, sines],
                    #[inline(always)]
                    |_, [a, b, cosine, sine]| ops.sub(ops.mul(a, cosine), ops.mul(b, sine)),
                );
                update(
                    isa,
                    second,
                    [a, b, cosines, sines],
                    #[inline(always)]
                    |_, [a, b, cosine, sine]| ops.mul_add(b, cosine, ops.mul(a, sine)),
                );
            }
            out[turned..].copy_from_slice(&x[turned..]);
        }
    }
}
