//! Multi-head self-attention within each sequence: for each sequence and head two small matrix products with a softmax
//! between them. Scores exist only for a block of queries and the keys that it sees, so memory is linear in a sequence's
//! length, and with a window so is time. They lie transposed, a row a key and a column a query: see [`softmax`](super::softmax).

#[cfg(target_arch = "x86_64")]
mod beside;
#[cfg(target_arch = "x86_64")]
mod matrices;

use super::disentangled::Disentangled;
use super::gemm::{Floats, Operands, Shared, strip};
use super::instruction_set::dispatch;
use super::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use super::kernel::Products;
use super::matmul::{Matmul, Panels, Strided, StridedMut, panel_width};
use super::softmax::{LEAST, UNSEEN, largest, weigh};
use super::team::Team;
use super::transpose::transpose;
use super::weights::Weights;
use crate::batch::Batch;
use crate::program::{Attention, PositionBias, alibi_slope};
#[cfg(target_arch = "x86_64")]
use matrices::Amx;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp, SimdUnaryOp};
use rten_vecmath::Tanh;
use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Longer sequences' values are gathered first: rows of the packed qkv lie 2^n cache lines apart or nearly so, and more
/// than about 32 of them at once evict each other from the first cache. On Zen 3 this is worth 2 to 9 % at 256 tokens, 5 to
/// 15 % at 512, and nothing at 64 and below.
const GATHER_VALUES_BEYOND: usize = 32;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Of fewer tokens, one thread computes all: they are in its cache.
const LEAST_SHARED: usize = 16;

/// Memory that a thread keeps from call to call.
#[derive(Default)]
struct Scratch {
    /// One head's values: `[keys, head_dim]`
    values: Vec<f32>,
    blocks: Blocks,
    /// What one head adds to the scores: of the distances of a key to a query, from `tokens - 1` down
    bias: Vec<f32>,
    disentangled: Disentangled,
    #[cfg(target_arch = "x86_64")]
    matrices: matrices::Matrices,
}

/// Of one head's block of queries, as many as a panel has columns.
#[derive(Default)]
struct Blocks {
    /// Scaled and transposed: `[head_dim, panel]`, filled up with 0
    queries: Vec<f32>,
    /// `[keys that it sees, panel]`
    scores: Vec<f32>,
}

/// What an attention adds to its scores.
pub struct Bias<'a> {
    kind: Option<PositionBias>,
    /// As its [`PositionBias`] has it; empty without a table
    table: &'a [f32],
}

impl<'a> Bias<'a> {
    /// That of an op.
    pub fn new(op: &Attention, weights: &'a Weights) -> Bias<'a> {
        Bias { kind: op.bias, table: op.table().map_or(&[], |table| weights.rows(table)) }
    }

    /// One head's, of every distance within a sequence, the largest first, and of as many as a panel beyond; `false` if there
    /// is none. In powers of two, as all scores.
    fn fill(&self, head: usize, heads: usize, tokens: usize, panel: usize, out: &mut Vec<f32>) -> bool {
        let distances = (1 - (tokens + panel) as i64..tokens as i64).rev();
        out.clear();
        match self.kind {
            // Not by distance alone: see Disentangled.
            None | Some(PositionBias::Disentangled { .. }) => return false,
            Some(PositionBias::Alibi) => {
                let slope = alibi_slope(head, heads);
                out.extend(distances.map(|distance| -slope * distance.unsigned_abs() as f32 * LOG2_E));
            }
            Some(PositionBias::Relative { .. }) => {
                let row = self.table.chunks_exact(self.table.len() / heads).nth(head).unwrap_or_default();
                let furthest = (row.len() / 2) as i64;
                let place = |distance: i64| (furthest + distance.clamp(-furthest, furthest)) as usize;
                out.extend(distances.map(|distance| row[place(distance)] * LOG2_E));
            }
        }
        true
    }
}

/// Keys from which on a kernel is faster than vectors, with a Xeon's AMX: it splits, and transposes, both sides of both products.
pub fn least_keys(kernel: Kernel) -> usize {
    match kernel {
        Kernel::Vectors => 0,
        #[cfg(target_arch = "x86_64")]
        Kernel::Matrices(Products::F32) => 192,
        #[cfg(target_arch = "x86_64")]
        Kernel::Matrices(Products::Bf16) => 64,
    }
}

/// `qkv` is `[tokens, (heads + 2 * kv_heads) * head_dim]`, `out` is `[tokens, heads * head_dim]`. What has fewer than `least_keys` is
/// left to vectors.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    kernel: Kernel,
    least_keys: usize,
    team: &Team<'_>,
    op: &Attention,
    qkv: &[f32],
    bias: &Bias<'_>,
    batch: &Batch,
    out: &mut [f32],
) {
    let out = Shared::new(out);
    let team = if batch.tokens() < LEAST_SHARED { &Team::ALONE } else { team };
    team.run(batch.sequences() * op.kv_heads, &|parts| {
        SCRATCH.with_borrow_mut(|scratch| {
            dispatch(Attend { kernel, least_keys, op, qkv, bias, batch, parts, scratch, out: &out })
        })
    });
}

struct Attend<'a> {
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
    kernel: Kernel,
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
    least_keys: usize,
    op: &'a Attention,
    qkv: &'a [f32],
    bias: &'a Bias<'a>,
    batch: &'a Batch,
    /// Of each sequence, those heads that share keys and values.
    parts: Range<usize>,
    scratch: &'a mut Scratch,
    out: &'a Shared<'a>,
}

impl SimdOp for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Attend { op, qkv, bias, batch, parts, scratch, out, .. } = self;
        #[cfg(target_arch = "x86_64")]
        let (amx, matrices) = (Amx::of(self.kernel, self.least_keys), &mut scratch.matrices);
        let Scratch { values, blocks, bias: distances, disentangled, .. } = scratch;
        let (lanes, panel) = (isa.f32().len(), panel_width(isa));
        let (in_cols, out_cols, head_dim) = (op.qkv_cols(), op.heads * op.head_dim, op.head_dim);
        let (k_first, v_first) = (out_cols, out_cols + op.kv_heads * head_dim);
        let share = op.heads / op.kv_heads;
        grow(&mut blocks.queries, head_dim * panel);
        for (s, kv_head) in parts.map(|part| (part / op.kv_heads, part % op.kv_heads)) {
            let range = batch.range(s);
            let (tokens, keys) = (range.len(), batch.seen(s).len());
            if tokens == 0 {
                continue;
            }
            grow(&mut blocks.scores, keys * panel);
            let qkv = &qkv[range.start * in_cols..range.end * in_cols];
            for head in kv_head * share..(kv_head + 1) * share {
                let (first, kv) = (head * head_dim, kv_head * head_dim);
                let k = &qkv[k_first + kv..];
                let v = Panels { data: &qkv[v_first + kv..], panel_stride: panel, row_stride: in_cols };
                let distances = bias.fill(head, op.heads, tokens, panel, distances).then_some(&distances[..]);
                let mut disentangled = match bias.kind {
                    Some(PositionBias::Disentangled { distances, .. }) => {
                        let k = Strided { data: k, stride: in_cols, step: 1 };
                        disentangled.begin(isa, op, &distances, bias.table, head, k, tokens);
                        Some(&mut *disentangled)
                    }
                    _ => None,
                };
                let has_other_keys = head.is_multiple_of(share);
                let mut head = Head { op, q: &qkv[first..], k, v, tokens, keys, distances };
                // SAFETY: a part's heads are of one thread alone.
                let mut out = unsafe { StridedMut::columns(out, range.clone(), first..first + head_dim, out_cols) };
                #[cfg(target_arch = "x86_64")]
                if let Some(amx) = amx.as_ref().filter(|amx| amx.takes(keys, head_dim)) {
                    matrices.attend(amx, &head, has_other_keys, &mut blocks.queries, disentangled, out);
                    continue;
                }
                if keys > GATHER_VALUES_BEYOND {
                    if has_other_keys {
                        grow(values, keys * head_dim);
                        let rows = v.data.chunks(in_cols).take(keys);
                        for (value, row) in values.chunks_exact_mut(head_dim).zip(rows) {
                            value.copy_from_slice(&row[..head_dim]);
                        }
                    }
                    head.v = Panels { data: values, panel_stride: panel, row_stride: head_dim };
                }
                for first in (0..tokens).step_by(panel) {
                    let (out, head, disentangled) = (out.skip(first), &head, disentangled.as_deref_mut());
                    let queries = panel.min(tokens - first);
                    // Each in code of its own: compilers take long over all in one.
                    if queries <= lanes {
                        dispatch(Block::<1> { head, first, queries, blocks, disentangled, out });
                    } else {
                        dispatch(Block::<2> { head, first, queries, blocks, disentangled, out });
                    }
                }
            }
        }
    }
}

/// One head of one sequence.
struct Head<'a> {
    op: &'a Attention,
    /// Its columns of qkv, from the first token on, and those behind them.
    q: &'a [f32],
    k: &'a [f32],
    v: Panels<'a>,
    tokens: usize,
    /// Of the tokens, those that attention looks at.
    keys: usize,
    /// What [`Bias::fill`] gave.
    distances: Option<&'a [f32]>,
}

impl Head<'_> {
    /// Does to scores `[keys seen, panel]` of the queries from `block` on what lies between the two products, but for the softmax.
    /// `false` if there is nothing to do.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn adjust<I: Isa>(
        &self,
        isa: I,
        block: usize,
        queries: usize,
        seen: Range<usize>,
        scores: &mut [f32],
        panel: usize,
        disentangled: Option<&mut Disentangled>,
    ) -> bool {
        let Head { op, q, tokens, distances, .. } = *self;
        let is_masked = op.causal || op.window.is_some();
        let is_changed = op.softcap.is_some() || disentangled.is_some() || distances.is_some();
        if let Some(softcap) = op.softcap {
            cap(isa, scores, softcap * LOG2_E);
        }
        if let Some(disentangled) = disentangled {
            let q = Strided { data: &q[block * op.qkv_cols()..], stride: op.qkv_cols(), step: 1 };
            disentangled.add(isa, q, block, queries, op.head_dim, seen.clone(), scores, panel);
        }
        if let Some(distances) = distances {
            for (key, scores) in seen.clone().zip(scores.chunks_exact_mut(panel)) {
                let of_key = &distances[tokens - 1 - key + block..];
                for (score, bias) in scores.iter_mut().zip(of_key) {
                    *score += bias;
                }
            }
        }
        if is_masked {
            for (key, scores) in seen.zip(scores.chunks_exact_mut(panel)) {
                let by = op.seen_by(key, tokens);
                let place = |query: usize| query.saturating_sub(block).min(panel);
                scores[..place(by.start)].fill(UNSEEN);
                scores[place(by.end)..].fill(UNSEEN);
            }
        }
        is_masked || is_changed
    }
}

/// The queries of a head from `first` on, at most as many as `V` vectors have lanes.
struct Block<'a, 'b, const V: usize> {
    head: &'a Head<'b>,
    first: usize,
    queries: usize,
    blocks: &'a mut Blocks,
    disentangled: Option<&'a mut Disentangled>,
    out: StridedMut<'a>,
}

impl<const V: usize> SimdOp for Block<'_, '_, V> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Block { head, first: block, queries, blocks, disentangled, mut out } = self;
        let Head { op, q, k, v, keys, .. } = *head;
        let (ops, panel) = (isa.f32(), V * isa.f32().len());
        let (in_cols, head_dim) = (op.qkv_cols(), op.head_dim);
        let seen = op.seen(block, block + queries, keys);
        if seen.is_empty() {
            (0..queries).for_each(|query| out.row(query).fill(0.0));
            return;
        }
        let q = &q[block * in_cols..];
        let packed = &mut blocks.queries[..head_dim * panel];
        transpose(isa, q, in_cols, queries, head_dim, op.scale * LOG2_E, panel, packed);
        let scores = &mut blocks.scores[..seen.len() * panel];
        let mut most = [ops.splat(LEAST); V];
        assert!(k.len() >= (seen.end - 1) * in_cols + head_dim);
        // SAFETY: the keys `seen` are rows of `k`, as asserted; `packed` is `[head_dim, panel]`.
        unsafe {
            strip(
                Floats::<_, f32>::new(isa),
                Operands {
                    rows: k[seen.start * in_cols..].as_ptr().cast(),
                    stride: in_cols,
                    count: seen.len(),
                    panel: packed.as_ptr(),
                    depth: head_dim,
                },
                #[inline(always)]
                |_| [ops.zero(); V],
                #[inline(always)]
                |row, sums| {
                    let to = scores[row * panel..][..panel].chunks_exact_mut(ops.len());
                    for ((to, sum), most) in to.zip(sums).zip(&mut most) {
                        ops.store(sum, to);
                        *most = ops.max(*most, sum);
                    }
                },
            );
        }
        if head.adjust(isa, block, queries, seen.clone(), scores, panel, disentangled) {
            most = largest(isa, scores);
        }
        let factors = weigh(isa, scores, most).map(|factors| factors.to_array());
        let product = Matmul {
            a: Strided { data: scores, stride: 1, step: panel },
            b: Panels { data: &v.data[seen.start * v.row_stride..], ..v },
            out,
            rows: queries,
            depth: seen.len(),
            cols: head_dim,
        };
        product.compute(
            isa,
            #[inline(always)]
            |query, sum| ops.mul(sum, ops.splat(factors[query / ops.len()].as_ref()[query % ops.len()])),
        );
    }
}

/// Scores of at most `most` in size, smoothly. They are whole vectors.
#[inline(always)]
fn cap<I: Isa>(isa: I, scores: &mut [f32], most: f32) {
    let (ops, tanh) = (isa.f32(), Tanh {});
    let (most, inverse) = (ops.splat(most), ops.splat(1.0 / most));
    for scores in scores.chunks_exact_mut(ops.len()) {
        let capped = tanh.eval(isa, ops.mul(ops.load(scores), inverse));
        ops.store(ops.mul(capped, most), scores);
    }
}

pub(super) fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

#[cfg(test)]
mod tests;
