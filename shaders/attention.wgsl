// softmax(scale * q k^T + bias) v within each sequence, for each head, by the online softmax (Milakov, Gimelshein 2018).
// A workgroup takes one query tile and one head, SPLIT threads a query row, each a part of the head's columns: q and sums
// stay in registers, and the keys and values that the tile sees pass through workgroup memory, KEYS at a time. A query sees
// keys at most WINDOW away and, if CAUSAL, none behind it; position_bias() is generated (kernels/attention.rs).
@group(1) @binding(0) var<storage, read> qkv: array<Elem4>;      // [tokens, QKV_STRIDE4]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read> bias: array<Elem>;      // a table of distances, its rows padded; if there is one
@group(1) @binding(2) var<storage, read_write> out: array<Elem>; // [tokens, OUT_STRIDE]

// Vectors of a head; the last is filled up with zeros.
const HEAD4: u32 = (HEAD_DIM + 3u) / 4u;
const BLOCK: u32 = 4u; // keys between two corrections of the sums
const PART4: u32 = (HEAD4 + SPLIT - 1u) / SPLIT; // of a thread
const STRIDE4: u32 = PART4 * SPLIT;
const THREADS: u32 = QUERY_TILE * SPLIT;
const LOG2_E: f32 = 1.442695;
const BLOCKS: u32 = KEYS / BLOCK;
const PARTIAL_SCORES: u32 = 1u + (THREADS * BLOCKS - 1u) * min(SPLIT - 1u, 1u);
const_assert KEYS % BLOCK == 0u && 2u * KEYS * STRIDE4 * 16u + PARTIAL_SCORES * 16u <= 16384u;
var<workgroup> keys: array<vec4<f32>, KEYS * STRIDE4>;
var<workgroup> values: array<vec4<f32>, KEYS * STRIDE4>;
// Of each thread's part of the columns.
var<workgroup> partial_scores: array<vec4<f32>, PARTIAL_SCORES>;

// Columns 4 i to 4 i + 3 of a head, counted through q, k and v.
fn load(token: u32, head: u32, i: u32) -> vec4<f32> {
    if i >= HEAD4 {
        return vec4<f32>();
    }
    let first = head * HEAD_DIM + i * 4u;
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

// The scores of BLOCK keys, as far as the columns at `at` and behind go.
fn score(q: ptr<function, array<vec4<f32>, PART4>>, at: u32) -> vec4<f32> {
    var scores = vec4<f32>();
    for (var i = 0u; i < PART4; i++) {
        let q4 = (*q)[i];
        scores += vec4<f32>(
            dot(q4, keys[at + i]),
            dot(q4, keys[at + STRIDE4 + i]),
            dot(q4, keys[at + 2u * STRIDE4 + i]),
            dot(q4, keys[at + 3u * STRIDE4 + i]),
        );
    }
    return scores;
}

@compute @workgroup_size(THREADS)
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
    let row = lane / SPLIT;
    let part = lane % SPLIT * PART4;
    // Threads behind the tile's last query repeat it, and do not write.
    let query = tile.x + min(row, tile.y - 1u);

    // Scores are powers of two: exp(x) = exp2(x * log2(e)).
    var q: array<vec4<f32>, PART4>;
    var sums: array<vec4<f32>, PART4>;
    for (var i = 0u; i < PART4; i++) {
        q[i] = load(query, head, part + i) * SCALE_LOG2;
    }
    var largest = -3.4028234e38;
    var total = 0.0;
    // What the tile's first and last query see.
    let begin = max(tile.z, tile.x - min(tile.x, WINDOW));
    let last = tile.x + tile.y - 1u;
    let end = select(min(tile.w, last + min(WINDOW, tile.w) + 1u), last + 1u, CAUSAL);
    let kv = head / (HEADS / KV_HEADS);
    for (var first = begin; first < end; first += KEYS) {
        for (var i = lane; i < KEYS * STRIDE4; i += THREADS) {
            let key = first + i / STRIDE4;
            var k = vec4<f32>();
            var v = vec4<f32>();
            if key < end {
                k = load(key, HEADS + kv, i % STRIDE4);
                v = load(key, HEADS + KV_HEADS + kv, i % STRIDE4);
            }
            keys[i] = k;
            values[i] = v;
        }
        workgroupBarrier();
        let count = min(KEYS, end - first);
        if SPLIT > 1u {
            for (var block = 0u; block < BLOCKS; block++) {
                partial_scores[block * THREADS + lane] = score(&q, block * BLOCK * STRIDE4 + part);
            }
            workgroupBarrier();
        }
        for (var key = 0u; key < count; key += BLOCK) {
            let at = key * STRIDE4 + part;
            var scores = vec4<f32>();
            if SPLIT > 1u {
                for (var i = 0u; i < SPLIT; i++) {
                    scores += partial_scores[key / BLOCK * THREADS + row * SPLIT + i];
                }
            } else {
                scores = score(&q, at);
            }
            let keys4 = first + key + vec4<u32>(0u, 1u, 2u, 3u);
            if BIASED {
                scores += LOG2_E * vec4<f32>(
                    position_bias(head, query, min(keys4.x, end - 1u)),
                    position_bias(head, query, min(keys4.y, end - 1u)),
                    position_bias(head, query, min(keys4.z, end - 1u)),
                    position_bias(head, query, min(keys4.w, end - 1u)),
                );
            }
            var hidden = keys4 >= vec4<u32>(end);
            if CAUSAL {
                hidden = hidden | (keys4 > vec4<u32>(query));
            }
            if WINDOW < 0xffffffffu {
                hidden = hidden | (max(keys4, vec4<u32>(query)) - min(keys4, vec4<u32>(query)) > vec4<u32>(WINDOW));
            }
            // A query that sees none of the first keys gives them weight, which the first key that it sees takes away:
            // exp2 of the difference to its score is 0.
            scores = select(scores, vec4<f32>(-3.4028234e38), hidden);
            let highest = max(max(largest, max(scores.x, scores.y)), max(scores.z, scores.w));
            let keep = exp2(largest - highest);
            let p = exp2(scores - highest);
            largest = highest;
            total = total * keep + (p.x + p.y + p.z + p.w);
            for (var i = 0u; i < PART4; i++) {
                sums[i] = sums[i] * keep + p.x * values[at + i] + p.y * values[at + STRIDE4 + i]
                    + p.z * values[at + 2u * STRIDE4 + i] + p.w * values[at + 3u * STRIDE4 + i];
            }
        }
        workgroupBarrier();
    }
    if row >= tile.y {
        return;
    }
    let scale = 1.0 / total;
    for (var i = 0u; i < PART4; i++) {
        let y = sums[i] * scale;
        let column = (part + i) * 4u;
        let at = query * OUT_STRIDE + head * HEAD_DIM + column;
        if column < HEAD_DIM { out[at] = Elem(y.x); }
        if column + 1u < HEAD_DIM { out[at + 1u] = Elem(y.y); }
        if column + 2u < HEAD_DIM { out[at + 2u] = Elem(y.z); }
        if column + 3u < HEAD_DIM { out[at + 3u] = Elem(y.w); }
    }
    // Padding behind the last head stays finite.
    if head == HEADS - 1u && part == 0u {
        for (var i = HEADS * HEAD_DIM; i < OUT_STRIDE; i++) {
            out[query * OUT_STRIDE + i] = Elem(0.0);
        }
    }
}
