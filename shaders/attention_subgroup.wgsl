// softmax(scale * q k^T) v within each sequence, for each head, by the online softmax (Milakov, Gimelshein 2018).
// A workgroup is one subgroup and takes one query tile and one head, QUERIES rows a lane, without barriers and without
// reductions: the lanes load a key or a value together, and broadcast its columns. State, start(), attend() and store() are
// generated (kernels/attention/subgroup.rs): BLOCK keys at a time, one line for each column, as WGSL broadcasts only from constant
// lanes.
@group(1) @binding(0) var<storage, read> qkv: array<Quad>;        // [tokens, QKV_STRIDE4]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read_write> out: array<Elem4>; // [tokens, OUT_STRIDE4]

const_assert HEAD_DIM % 4u == 0u;
const HEAD4: u32 = HEAD_DIM / 4u;

// Scores are powers of two: exp(x) = exp2(x * log2(e)).
fn query(token: u32, column: u32) -> vec4<f32> {
    return quad(qkv[token * QKV_STRIDE4 + column]) * SCALE_LOG2;
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn attention_subgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let index = group_index(workgroup, workgroups);
    if index >= batch.query_tiles {
        return;
    }
    let tile = query_tiles[index];
    let head = workgroup.z;
    for (var first = 0u; first < tile.y; first += QUERIES * SUBGROUP_SIZE) {
        var state: State;
        start(&state, tile, first + lane, head);
        let column = (HEADS + kv_head(head)) * HEAD4;
        let queries = min(QUERIES * SUBGROUP_SIZE, tile.y - first);
        let seen = seen_by(vec4<u32>(tile.x + first, queries, tile.z, tile.w));
        for (var key = seen.x; key < seen.y; key += BLOCK) {
            attend(&state, key, seen.y, column, lane);
        }
        store(state, tile, first + lane, head);
    }
}
