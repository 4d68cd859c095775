//! For short sequences: a head's keys at once, one plain softmax, and register tiles that are as many as the sequence needs.

use super::{BINDINGS, Chosen, LOAD_PART, PART};
use crate::gpu::kernel::{Kernel, Prelude, Target, stride4};

static ATTENTION_WHOLE: Kernel = Kernel {
    name: "attention_whole",
    source: include_str!("../../../../shaders/attention_whole.wgsl"),
    parts: &[PART, LOAD_PART],
    bindings: BINDINGS,
};

/// Bytes of workgroup memory: the arrays of attention_whole.wgsl.
pub(super) fn bytes(target: &Target, head_dim: usize, queries: usize, keys: usize, heads: usize) -> usize {
    let rows = (queries + keys) * (stride4(head_dim) | 1) * 4 * target.dtype.size();
    let scores = queries * (((keys / 4) | 1) * 16 + 4);
    heads * (rows + scores)
}

pub(super) fn choose(prelude: Prelude, queries: usize, keys: usize, lanes: usize, heads: usize) -> Chosen {
    let prelude = prelude
        .constant("QUERY_TILE", queries)
        .constant("KEYS", keys)
        .constant("LANES", lanes)
        .constant("HEADS_A_GROUP", heads);
    Chosen { kernel: &ATTENTION_WHOLE, prelude, heads }
}
