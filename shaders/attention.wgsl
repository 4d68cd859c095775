// softmax(scale * q k^T) v within each sequence, for each head, by the online softmax (Milakov, Gimelshein 2018).
// A workgroup takes one query tile and one head, each thread one query row: its q and its sums stay in registers, and the
// sequence's keys and values pass through workgroup memory, KEYS at a time.
@group(1) @binding(0) var<storage, read> qkv: array<Elem4>;      // [tokens, QKV_STRIDE4]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read_write> out: array<Elem>; // [tokens, OUT_STRIDE]

// Vectors of a head; the last is filled up with zeros.
const HEAD4: u32 = (HEAD_DIM + 3u) / 4u;
const BLOCK: u32 = 4u; // keys between two corrections of the sums
const_assert KEYS % BLOCK == 0u && 2u * KEYS * HEAD4 * 16u <= 16384u;
var<workgroup> keys: array<vec4<f32>, KEYS * HEAD4>;
var<workgroup> values: array<vec4<f32>, KEYS * HEAD4>;

// Columns 4 i to 4 i + 3 of a head: part 0 is q, 1 is k, 2 is v.
fn load(token: u32, part: u32, head: u32, i: u32) -> vec4<f32> {
    let first = (part * HEADS + head) * HEAD_DIM + i * 4u;
    let row = token * QKV_STRIDE4;
    if HEAD_DIM % 4u == 0u {
        return vec4<f32>(qkv[row + first / 4u]);
    }
    var x = vec4<f32>();
    for (var c = 0u; c < min(4u, HEAD_DIM - i * 4u); c++) {
        x[c] = f32(qkv[row + (first + c) / 4u][(first + c) % 4u]);
    }
    return x;
}

@compute @workgroup_size(QUERY_TILE)
fn attention(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group_index(workgroup, workgroups);
    if index >= batch.query_tiles {
        return; // the whole workgroup
    }
    let tile = query_tiles[index];
    let head = workgroup.z;
    // Threads behind the tile's last query repeat it, and do not write.
    let query = tile.x + min(lane, tile.y - 1u);

    // Scores are powers of two: exp(x) = exp2(x * log2(e)).
    var q: array<vec4<f32>, HEAD4>;
    var sums: array<vec4<f32>, HEAD4>;
    for (var i = 0u; i < HEAD4; i++) {
        q[i] = load(query, 0u, head, i) * SCALE_LOG2;
    }
    var largest = -3.4028234e38;
    var total = 0.0;
    for (var first = tile.z; first < tile.w; first += KEYS) {
        for (var i = lane; i < KEYS * HEAD4; i += QUERY_TILE) {
            let key = first + i / HEAD4;
            var k = vec4<f32>();
            var v = vec4<f32>();
            if key < tile.w {
                k = load(key, 1u, head, i % HEAD4);
                v = load(key, 2u, head, i % HEAD4);
            }
            keys[i] = k;
            values[i] = v;
        }
        workgroupBarrier();
        let count = min(KEYS, tile.w - first);
        for (var key = 0u; key < count; key += BLOCK) {
            let at = key * HEAD4;
            var scores = vec4<f32>();
            for (var i = 0u; i < HEAD4; i++) {
                scores += vec4<f32>(
                    dot(q[i], keys[at + i]),
                    dot(q[i], keys[at + HEAD4 + i]),
                    dot(q[i], keys[at + 2u * HEAD4 + i]),
                    dot(q[i], keys[at + 3u * HEAD4 + i]),
                );
            }
            let behind = key + vec4<u32>(0u, 1u, 2u, 3u) >= vec4<u32>(count);
            scores = select(scores, vec4<f32>(-3.4028234e38), behind);
            let highest = max(max(largest, max(scores.x, scores.y)), max(scores.z, scores.w));
            let keep = exp2(largest - highest);
            let p = exp2(scores - highest);
            largest = highest;
            total = total * keep + (p.x + p.y + p.z + p.w);
            for (var i = 0u; i < HEAD4; i++) {
                sums[i] = sums[i] * keep + p.x * values[at + i] + p.y * values[at + HEAD4 + i]
                    + p.z * values[at + 2u * HEAD4 + i] + p.w * values[at + 3u * HEAD4 + i];
            }
        }
        workgroupBarrier();
    }
    if lane >= tile.y {
        return;
    }
    let scale = 1.0 / total;
    for (var i = 0u; i < HEAD4; i++) {
        let y = sums[i] * scale;
        let at = query * OUT_STRIDE + head * HEAD_DIM + i * 4u;
        out[at] = Elem(y.x);
        if i * 4u + 1u < HEAD_DIM { out[at + 1u] = Elem(y.y); }
        if i * 4u + 2u < HEAD_DIM { out[at + 2u] = Elem(y.z); }
        if i * 4u + 3u < HEAD_DIM { out[at + 3u] = Elem(y.w); }
    }
    // Padding behind the last head stays finite.
    if head == HEADS - 1u {
        for (var i = HEADS * HEAD_DIM; i < OUT_STRIDE; i++) {
            out[query * OUT_STRIDE + i] = Elem(0.0);
        }
    }
}
