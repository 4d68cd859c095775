// softmax(SCALE * q k^T) v within each sequence, for each head, by the online softmax (Milakov, Gimelshein 2018).
// A workgroup takes one query tile and one head; each thread one query row.
@group(1) @binding(0) var<storage, read> qkv: array<Elem>;       // [tokens, QKV_STRIDE]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read_write> out: array<Elem>; // [tokens, OUT_STRIDE]

@compute @workgroup_size(QUERY_TILE)
fn attention(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group_index(workgroup, workgroups);
    if index >= batch.query_tiles {
        return;
    }
    let tile = query_tiles[index];
    if lane >= tile.y {
        return;
    }
    let query = tile.x + lane;
    let head = workgroup.z;
    let at = query * QKV_STRIDE + head * HEAD_DIM;

    var q: array<f32, HEAD_DIM>;
    var o: array<f32, HEAD_DIM>;
    for (var i = 0u; i < HEAD_DIM; i++) {
        q[i] = f32(qkv[at + i]) * SCALE;
        o[i] = 0.0;
    }
    var largest = -3.4028234e38;
    var sum = 0.0;
    for (var key = tile.z; key < tile.w; key++) {
        let k = key * QKV_STRIDE + (HEADS + head) * HEAD_DIM;
        let v = k + HEADS * HEAD_DIM;
        var score = 0.0;
        for (var i = 0u; i < HEAD_DIM; i++) {
            score += q[i] * f32(qkv[k + i]);
        }
        let new_largest = max(largest, score);
        let keep = exp(largest - new_largest);
        let p = exp(score - new_largest);
        largest = new_largest;
        sum = sum * keep + p;
        for (var i = 0u; i < HEAD_DIM; i++) {
            o[i] = o[i] * keep + p * f32(qkv[v + i]);
        }
    }
    let scale = 1.0 / sum;
    for (var i = 0u; i < HEAD_DIM; i++) {
        out[query * OUT_STRIDE + head * HEAD_DIM + i] = Elem(o[i] * scale);
    }
    // Padding behind the last head stays finite.
    if head == HEADS - 1u {
        for (var i = HEADS * HEAD_DIM; i < OUT_STRIDE; i++) {
            out[query * OUT_STRIDE + i] = Elem(0.0);
        }
    }
}
