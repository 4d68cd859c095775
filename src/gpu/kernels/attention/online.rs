//! Online softmax with keys and values through workgroup memory: needs no feature, any head width, any length, mask and bias.

use super::{BINDINGS, Chosen, LOAD_PART, MASK_PART, PART};
use crate::gpu::kernel::{Kernel, Prelude, stride4};

static ATTENTION: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../../../shaders/attention.wgsl"),
    parts: &[MASK_PART, PART, LOAD_PART],
    bindings: BINDINGS,
};

/// Workgroup memory of `attention.wgsl`, in `vec4<f32>`: 16 KiB, which every device has.
const WORKGROUP_VEC4S: usize = 1024;

/// Invocations of a workgroup that every device allows.
const MOST_THREADS: usize = 256;

/// Threads a query and keys at a time, for a thread to have about so many columns, and at most so many keys; no keys if the head is too
/// wide.
pub(super) fn shape(head_dim: usize, queries: usize, columns: usize, most_keys: usize) -> (usize, usize) {
    let head4 = stride4(head_dim);
    let keys = |split: usize| {
        let partial_scores = if split > 1 { queries * split / 4 } else { 0 };
        let vec4s = 2 * head4.next_multiple_of(split) + partial_scores;
        ((WORKGROUP_VEC4S - usize::from(split == 1)) / vec4s).min(most_keys) / 4 * 4
    };
    let split = head_dim.div_ceil(columns).next_power_of_two().min(MOST_THREADS / queries);
    if keys(split) > 0 { (split, keys(split)) } else { (1, keys(1)) }
}

pub(super) fn choose(prelude: Prelude, queries: usize, (split, keys): (usize, usize)) -> Chosen {
    let prelude = prelude.constant("QUERY_TILE", queries).constant("SPLIT", split).constant("KEYS", keys);
    Chosen { kernel: &ATTENTION, prelude, heads: 1 }
}
