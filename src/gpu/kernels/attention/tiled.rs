//! Both products in register tiles, the scores between them in workgroup memory; needs no feature. For short sequences a whole
//! head at once with one plain softmax, for long ones the online softmax.

use super::{BINDINGS, Chosen, LOAD_PART, MASK_PART, PART};
use crate::gpu::kernel::{Kernel, Prelude, Target, stride4};

const TILES_PART: &str = include_str!("../../../../shaders/common/attention_tiles.wgsl");

/// What scores have of a disentangled bias, and what stands there without one.
pub(super) const DISTANCES_PART: &str = include_str!("../../../../shaders/common/attention_distances.wgsl");
pub(super) const NO_DISTANCES: &str = "fn meet_distances(at: Place, keys: Keys) {}
fn with_distances(products: vec4<f32>, at: Place, keys: Keys, query: u32, key: u32) -> vec4<f32> { return products; }
";

static ATTENTION_WHOLE: Kernel = Kernel {
    name: "attention_whole",
    source: include_str!("../../../../shaders/attention_whole.wgsl"),
    parts: &[MASK_PART, PART, LOAD_PART, TILES_PART],
    bindings: BINDINGS,
};

static ATTENTION_TILED: Kernel = Kernel {
    name: "attention_tiled",
    source: include_str!("../../../../shaders/attention_tiled.wgsl"),
    parts: &[MASK_PART, PART, LOAD_PART, TILES_PART],
    bindings: BINDINGS,
};

/// The most workgroup memory for a whole head: half of what a compute unit of AMD has for all its workgroups.
pub(super) const MOST_BYTES: usize = 32 << 10;

/// Bytes of workgroup memory: the arrays of common/attention_tiles.wgsl and of attention_tiled.wgsl.
pub(super) fn bytes(target: &Target, head_dim: usize, queries: usize, keys: usize, heads: usize) -> usize {
    let rows = (queries + keys) * (stride4(head_dim) | 1) * 4 * target.dtype.size();
    let scores = queries * (((keys / 4) | 1) * 16 + 3 * 4);
    heads * (rows + scores)
}

/// Bytes of the arrays of common/attention_distances.wgsl besides.
pub(super) fn bytes_of_distances(queries: usize, keys: usize) -> usize {
    let distances = queries + keys;
    4 * distances * (1 + distances)
}

/// Threads of a workgroup of `attention_tiled.wgsl`: one for each register tile of the result.
pub(super) fn threads(head_dim: usize, queries: usize) -> usize {
    queries / 4 * stride4(head_dim)
}

fn constants(prelude: Prelude, queries: usize, keys: usize, lanes: usize, heads: usize) -> Prelude {
    prelude
        .constant("QUERY_TILE", queries)
        .constant("KEYS", keys)
        .constant("LANES", lanes)
        .constant("HEADS_A_GROUP", heads)
}

pub(super) fn choose_whole(prelude: Prelude, queries: usize, keys: usize, lanes: usize, heads: usize) -> Chosen {
    Chosen { kernel: &ATTENTION_WHOLE, prelude: constants(prelude, queries, keys, lanes, heads), heads }
}

pub(super) fn choose(prelude: Prelude, head_dim: usize, queries: usize, keys: usize) -> Chosen {
    let lanes = threads(head_dim, queries);
    Chosen { kernel: &ATTENTION_TILED, prelude: constants(prelude, queries, keys, lanes, 1), heads: 1 }
}
