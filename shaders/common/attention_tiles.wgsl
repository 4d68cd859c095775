// The product of queries and keys in register tiles of 4 x 4, as many as there are rows. Rows that share a tile lie a quarter of
// all rows apart, so that neighbouring threads read neighbouring rows; STRIDE4 and SCORES4 are odd, against bank conflicts.
// meet_distances() and with_distances() are attention_distances.wgsl's, or do nothing (kernels/attention/tiled.rs).
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

// A thread's place: its head's number and its place in the workgroup, the tile and a quarter of its queries, rounded up.
struct Place { lane: u32, head: u32, part: u32, tile: vec4<u32>, quarter: u32 }

// Keys of a sequence: the first, the one behind the last, a quarter of their number, rounded up.
struct Keys { first: u32, end: u32, quarter: u32 }

// Four vectors, each under its name: an array is kept in memory by compilers that do not unroll loops (FXC and DXC).
struct Four { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

fn place(tile: vec4<u32>, first_head: u32, lane: u32) -> Place {
    let part = lane / LANES;
    let head = first_head + part;
    // Threads of no head have nothing to do but to keep the barriers.
    return Place(select(0xffffffffu - LANES, lane % LANES, head < HEADS), head, part, tile, (tile.y + 3u) / 4u);
}

fn keys_of(first: u32, end: u32) -> Keys {
    return Keys(first, end, (end - first + 3u) / 4u);
}

// Brings rows to workgroup memory, four times `quarter` of them, with zeros from `end` on.
fn fetch(at: Place, to: u32, head: u32, first: u32, end: u32, quarter: u32) {
    for (var i = at.lane; i < 4u * quarter * HEAD4; i += LANES) {
        let row = i / HEAD4;
        var x = vec4<f32>();
        if first + row < end {
            x = load(first + row, head, i % HEAD4);
        }
        rows[at.part * ROWS4 + to + row * STRIDE4 + i % HEAD4] = Elem4(x);
    }
}

fn fetch_queries(at: Place) {
    fetch(at, 0u, at.head, at.tile.x, at.tile.x + at.tile.y, at.quarter);
}

fn fetch_keys(at: Place, keys: Keys) {
    fetch(at, KEYS_AT, HEADS + kv_head(at.head), keys.first, keys.end, keys.quarter);
}

// Where the scores of a query begin.
fn scores_at(at: Place, row: u32) -> u32 {
    return (at.part * QUERY_TILE + row) * SCORES4;
}

// Columns 4 c to 4 c + 3 of a row in workgroup memory.
fn row_at(first: u32, row: u32, c: u32) -> vec4<f32> {
    return vec4<f32>(rows[first + row * STRIDE4 + c]);
}

fn one_of(x: Four, j: u32) -> vec4<f32> {
    return select(select(x.a, x.b, j == 1u), select(x.c, x.d, j == 3u), j >= 2u);
}

fn dots(q: vec4<f32>, k: Four) -> vec4<f32> {
    return vec4<f32>(dot(q, k.a), dot(q, k.b), dot(q, k.c), dot(q, k.d));
}

// The scores of four queries and four keys at a time.
fn multiply_keys(at: Place, keys: Keys) {
    let queries_at = at.part * ROWS4;
    let keys_at = queries_at + KEYS_AT;
    for (var i = at.lane; i < at.quarter * keys.quarter; i += LANES) {
        let row = i / keys.quarter;
        let key = i % keys.quarter;
        var sums: Four;
        for (var c = 0u; c < HEAD4; c++) {
            let k = Four(
                row_at(keys_at, key, c),
                row_at(keys_at, key + keys.quarter, c),
                row_at(keys_at, key + 2u * keys.quarter, c),
                row_at(keys_at, key + 3u * keys.quarter, c),
            );
            sums.a += dots(row_at(queries_at, row, c), k);
            sums.b += dots(row_at(queries_at, row + at.quarter, c), k);
            sums.c += dots(row_at(queries_at, row + 2u * at.quarter, c), k);
            sums.d += dots(row_at(queries_at, row + 3u * at.quarter, c), k);
        }
        let of_tile = keys.first + key + keys.quarter * vec4<u32>(0u, 1u, 2u, 3u);
        // A loop, because a bias may be much code.
        for (var j = 0u; j < 4u; j++) {
            // Rows behind the tile's last query repeat it, and are not written.
            let query = row + j * at.quarter;
            let token = at.tile.x + min(query, at.tile.y - 1u);
            let products = with_distances(one_of(sums, j), at, keys, query, key) * SCALE_LOG2;
            scores[scores_at(at, query) + key] = see(products, at.head, token, of_tile, keys.end);
        }
    }
}

// The largest score of a query.
fn highest_score(at: Place, row: u32, keys: Keys) -> f32 {
    let first = scores_at(at, row);
    var most = scores[first];
    for (var i = 1u; i < keys.quarter; i++) {
        most = max(most, scores[first + i]);
    }
    return max(max(max(most.x, most.y), max(most.z, most.w)), LEAST);
}

// A query's scores to weights; what they add up to.
fn weigh(at: Place, row: u32, keys: Keys, highest: f32) -> f32 {
    let first = scores_at(at, row);
    var total = vec4<f32>();
    for (var i = 0u; i < keys.quarter; i++) {
        // Scores are powers of two: exp(x) = exp2(x * log2(e)).
        let p = exp2(scores[first + i] - highest);
        scores[first + i] = p;
        total += p;
    }
    return total.x + total.y + total.z + total.w;
}

// Four columns of a value; keys behind the last have no weight.
fn value(keys: Keys, key: u32, kv: u32, column: u32) -> vec4<f32> {
    return load(min(keys.first + key, keys.end - 1u), kv, column);
}

// The values by a query's weights of them.
fn weighted(at: Place, row: u32, key: u32, v: Four) -> vec4<f32> {
    let p = scores[scores_at(at, row) + key];
    return p.x * v.a + p.y * v.b + p.z * v.c + p.w * v.d;
}

// Adds the values to the sums of four columns of four queries. Values come straight from storage: neighbouring threads read
// neighbouring columns.
fn multiply_values(at: Place, keys: Keys, row: u32, column: u32, sums: ptr<function, Four>) {
    let kv = HEADS + KV_HEADS + kv_head(at.head);
    for (var key = 0u; key < keys.quarter; key++) {
        let v = Four(
            value(keys, key, kv, column),
            value(keys, key + keys.quarter, kv, column),
            value(keys, key + 2u * keys.quarter, kv, column),
            value(keys, key + 3u * keys.quarter, kv, column),
        );
        (*sums).a += weighted(at, row, key, v);
        (*sums).b += weighted(at, row + at.quarter, key, v);
        (*sums).c += weighted(at, row + 2u * at.quarter, key, v);
        (*sums).d += weighted(at, row + 3u * at.quarter, key, v);
    }
}

// Writes four columns of four queries.
fn store_sums(at: Place, row: u32, column: u32, sums: Four) {
    store_row(at, row, column, sums.a);
    store_row(at, row + at.quarter, column, sums.b);
    store_row(at, row + 2u * at.quarter, column, sums.c);
    store_row(at, row + 3u * at.quarter, column, sums.d);
}

fn store_row(at: Place, query: u32, column: u32, sum: vec4<f32>) {
    if query < at.tile.y {
        store(at.tile.x + query, at.head, column, sum / divisor(totals[at.part * QUERY_TILE + query]));
    }
}
