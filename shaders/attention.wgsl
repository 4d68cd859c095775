// softmax(scale * q k^T + bias) v within each sequence, for each head, by the online softmax (Milakov, Gimelshein 2018).
// A workgroup takes one query tile and one head, SPLIT threads a query row, each a part of the head's columns: q and sums
// stay in registers, and the keys and values that the tile sees pass through workgroup memory, KEYS at a time.
const BLOCK: u32 = 4u; // keys between two corrections of the sums
const PART4: u32 = (HEAD4 + SPLIT - 1u) / SPLIT; // of a thread
const STRIDE4: u32 = PART4 * SPLIT;
const THREADS: u32 = QUERY_TILE * SPLIT;
const BLOCKS: u32 = KEYS / BLOCK;
const PARTIAL_SCORES: u32 = 1u + (THREADS * BLOCKS - 1u) * min(SPLIT - 1u, 1u);
const_assert KEYS % BLOCK == 0u && 2u * KEYS * STRIDE4 * 16u + PARTIAL_SCORES * 16u <= 16384u;
var<workgroup> keys: array<vec4<f32>, KEYS * STRIDE4>;
var<workgroup> values: array<vec4<f32>, KEYS * STRIDE4>;
// Of each thread's part of the columns.
var<workgroup> partial_scores: array<vec4<f32>, PARTIAL_SCORES>;

// As load(), and zeros behind the head's last column.
fn part_of(token: u32, head: u32, i: u32) -> vec4<f32> {
    if i >= HEAD4 {
        return vec4<f32>();
    }
    return load(token, head, i);
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
        q[i] = part_of(query, head, part + i) * SCALE_LOG2;
    }
    var largest = LEAST;
    var total = 0.0;
    let seen = seen_by(tile);
    let end = seen.y;
    let kv = kv_head(head);
    for (var first = seen.x; first < end; first += KEYS) {
        for (var i = lane; i < KEYS * STRIDE4; i += THREADS) {
            let key = first + i / STRIDE4;
            var k = vec4<f32>();
            var v = vec4<f32>();
            if key < end {
                k = part_of(key, HEADS + kv, i % STRIDE4);
                v = part_of(key, HEADS + KV_HEADS + kv, i % STRIDE4);
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
            scores = see(scores, head, query, first + key + vec4<u32>(0u, 1u, 2u, 3u), end);
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
    let scale = 1.0 / divisor(total);
    for (var i = 0u; i < PART4; i++) {
        if part + i < HEAD4 {
            store(query, head, part + i, sums[i] * scale);
        }
    }
}
