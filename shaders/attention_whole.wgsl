// softmax(scale * q k^T + bias) v within each sequence of at most KEYS tokens, for each head, by one plain softmax.
// A workgroup takes one query tile and HEADS_A_GROUP heads, LANES threads a head. Both products go by register tiles of 4 x 4,
// as many as the sequence needs whatever its length; the scores stay in workgroup memory. Rows 4 apart in number, and not
// neighbours, share a tile, so that neighbouring threads read neighbouring rows: STRIDE4 and SCORES4 are odd, against bank conflicts.
const STRIDE4: u32 = HEAD4 | 1u;
const SCORES4: u32 = KEYS / 4u | 1u;
const KEYS_AT: u32 = QUERY_TILE * STRIDE4;
const ROWS4: u32 = (QUERY_TILE + KEYS) * STRIDE4; // of a head
const_assert QUERY_TILE % 4u == 0u && KEYS % 4u == 0u;
// The queries of each head, then its keys.
var<workgroup> rows: array<Elem4, HEADS_A_GROUP * ROWS4>;
// Of each head and query; place `i` has those of the keys i, i + k, i + 2 k, i + 3 k, where k is a quarter of the keys.
var<workgroup> scores: array<vec4<f32>, HEADS_A_GROUP * QUERY_TILE * SCORES4>;
// What the weights of each head and query add up to.
var<workgroup> totals: array<f32, HEADS_A_GROUP * QUERY_TILE>;

// A thread's place: its head, the head's rows and scores, the tile in rows and in quarters, the keys of its sequence.
struct Place { lane: u32, head: u32, rows: u32, scores: u32, totals: u32, tile: vec4<u32>, quarter: u32, keys: u32, key_quarter: u32 }

// Queries and keys, both filled up to whole register tiles with zeros.
fn load_rows(at: Place) {
    let kv = HEADS + kv_head(at.head);
    for (var i = at.lane; i < 4u * at.quarter * HEAD4; i += LANES) {
        let row = i / HEAD4;
        var x = vec4<f32>();
        if row < at.tile.y {
            x = load(at.tile.x + row, at.head, i % HEAD4);
        }
        rows[at.rows + row * STRIDE4 + i % HEAD4] = Elem4(x);
    }
    for (var i = at.lane; i < 4u * at.key_quarter * HEAD4; i += LANES) {
        let row = i / HEAD4;
        var x = vec4<f32>();
        if row < at.keys {
            x = load(at.tile.z + row, kv, i % HEAD4);
        }
        rows[at.rows + KEYS_AT + row * STRIDE4 + i % HEAD4] = Elem4(x);
    }
}

// The scores of four queries and four keys at a time.
fn multiply_keys(at: Place) {
    for (var i = at.lane; i < at.quarter * at.key_quarter; i += LANES) {
        let row = i / at.key_quarter;
        let key = i % at.key_quarter;
        var sums: array<vec4<f32>, 4>;
        for (var c = 0u; c < HEAD4; c++) {
            var k: array<vec4<f32>, 4>;
            for (var j = 0u; j < 4u; j++) {
                k[j] = vec4<f32>(rows[at.rows + KEYS_AT + (key + j * at.key_quarter) * STRIDE4 + c]);
            }
            for (var j = 0u; j < 4u; j++) {
                let q = vec4<f32>(rows[at.rows + (row + j * at.quarter) * STRIDE4 + c]);
                sums[j] += vec4<f32>(dot(q, k[0]), dot(q, k[1]), dot(q, k[2]), dot(q, k[3]));
            }
        }
        let keys = at.tile.z + key + at.key_quarter * vec4<u32>(0u, 1u, 2u, 3u);
        for (var j = 0u; j < 4u; j++) {
            let query = row + j * at.quarter;
            // What lies behind the tile's last query is not read again.
            let token = at.tile.x + min(query, at.tile.y - 1u);
            scores[at.scores + query * SCORES4 + key] = see(sums[j] * SCALE_LOG2, at.head, token, keys, at.tile.w);
        }
    }
}

// Scores to weights, a thread a query.
fn soften(at: Place) {
    for (var row = at.lane; row < 4u * at.quarter; row += LANES) {
        let first = at.scores + row * SCORES4;
        var most = scores[first];
        for (var i = 1u; i < at.key_quarter; i++) {
            most = max(most, scores[first + i]);
        }
        let highest = max(max(most.x, most.y), max(most.z, most.w));
        var total = vec4<f32>();
        for (var i = 0u; i < at.key_quarter; i++) {
            // Scores are powers of two: exp(x) = exp2(x * log2(e)).
            let p = exp2(scores[first + i] - highest);
            scores[first + i] = p;
            total += p;
        }
        totals[at.totals + row] = total.x + total.y + total.z + total.w;
    }
}

// Four columns of four queries at a time. Values come straight from storage: neighbouring threads read neighbouring columns.
fn multiply_values(at: Place) {
    let kv = HEADS + KV_HEADS + kv_head(at.head);
    for (var i = at.lane; i < at.quarter * HEAD4; i += LANES) {
        let row = i / HEAD4;
        let column = i % HEAD4;
        var sums: array<vec4<f32>, 4>;
        for (var key = 0u; key < at.key_quarter; key++) {
            var v: array<vec4<f32>, 4>;
            for (var j = 0u; j < 4u; j++) {
                // Keys behind the last have no weight.
                v[j] = load(min(at.tile.z + key + j * at.key_quarter, at.tile.w - 1u), kv, column);
            }
            for (var j = 0u; j < 4u; j++) {
                let p = scores[at.scores + (row + j * at.quarter) * SCORES4 + key];
                sums[j] += p.x * v[0] + p.y * v[1] + p.z * v[2] + p.w * v[3];
            }
        }
        for (var j = 0u; j < 4u; j++) {
            let query = row + j * at.quarter;
            if query < at.tile.y {
                store(at.tile.x + query, at.head, column, sums[j] / totals[at.totals + query]);
            }
        }
    }
}

@compute @workgroup_size(HEADS_A_GROUP * LANES)
fn attention_whole(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group_index(workgroup, workgroups);
    if index >= batch.query_tiles {
        return; // the whole workgroup
    }
    let tile = query_tiles[index];
    let part = lane / LANES;
    let keys = tile.w - tile.z;
    let head = workgroup.z * HEADS_A_GROUP + part;
    // Threads of no head have nothing to do but to keep the barriers.
    let lane_of_head = select(0xffffffffu - LANES, lane % LANES, head < HEADS);
    let at = Place(
        lane_of_head, head, part * ROWS4, part * QUERY_TILE * SCORES4, part * QUERY_TILE,
        tile, (tile.y + 3u) / 4u, keys, (keys + 3u) / 4u,
    );
    load_rows(at);
    workgroupBarrier();
    multiply_keys(at);
    workgroupBarrier();
    soften(at);
    workgroupBarrier();
    multiply_values(at);
}
