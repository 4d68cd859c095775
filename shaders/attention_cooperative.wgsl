// softmax(scale * q k^T + bias) v within each sequence, for each head, by cooperative matrices of SIZE x SIZE and the online
// softmax (Milakov, Gimelshein 2018; Dao et al. 2022).
// A workgroup takes one query tile and one head; each of its subgroups takes one of BANDS bands of the tile's queries after the
// other. KEYS keys and values at a time pass through workgroup memory, and so do a band's scores and weights, because the elements
// of a matrix cannot be named. While a step is computed, the next one's keys and values are on their way to registers. The sums
// stay in matrices: they are corrected only when a row's largest score has grown FAR beyond the one that its weights are relative
// to. attend() is generated (kernels/attention/cooperative.rs).
const BAND: u32 = BLOCKS_DOWN * SIZE;
const QUERY_TILE: u32 = BANDS * BAND;
const FAR: f32 = 8.0; // weights stay below 2^8, well within f16
// In vectors. Rows lie a little apart, against bank conflicts.
const STRIDE4: u32 = HEAD4 + 2u;
const KEYS4: u32 = KEYS / 4u;
const SCORES4: u32 = KEYS4 + 1u;
const WEIGHTS4: u32 = KEYS4 + 2u;
const_assert HEAD_DIM % SIZE == 0u && KEYS % SIZE == 0u;
const ROW_VECTORS: u32 = max(QUERY_TILE, 2u * KEYS) * STRIDE4;
const SCORE_VECTORS: u32 = QUERY_TILE * SCORES4;
const WEIGHT_VECTORS: u32 = QUERY_TILE * WEIGHTS4;
// Of each query: the score that its weights are relative to, what they add up to, the correction of its sums.
var<workgroup> largest: array<f32, QUERY_TILE>;
var<workgroup> totals: array<f32, QUERY_TILE>;
var<workgroup> factors: array<f32, QUERY_TILE>;

// What a subgroup is doing: its tile, head and the keys that these see; the first row of its band; its lanes.
struct Run { tile: vec4<u32>, head: u32, seen: vec2<u32>, band: u32, lane: u32, lanes: u32, thread: u32 }

// Vector `i` of rows of a head, counted through q, k and v. Rows behind the last are the last.
fn fetch(head: u32, first: u32, last: u32, i: u32) -> Elem4 {
    return qkv[min(first + i / HEAD4, last) * QKV_STRIDE4 + head * HEAD4 + i % HEAD4];
}

// Where it goes, the first row being row `to`.
fn place(to: u32, i: u32) -> u32 {
    return (to + i / HEAD4) * STRIDE4 + i % HEAD4;
}

fn fetch_queries(run: Run) {
    for (var i = run.thread; i < QUERY_TILE * HEAD4; i += THREADS) {
        put_row(place(0u, i), fetch(run.head, run.tile.x, run.tile.x + run.tile.y - 1u, i));
    }
}

// Puts vector `i` of the keys, or the values, of a step.
fn put_key(to: u32, i: u32, x: Elem4) {
    if KEYS * HEAD4 % THREADS == 0u || i < KEYS * HEAD4 {
        put_row(place(to, i), x);
    }
}

// The scores of the band to weights; whether sums are to be corrected. Several lanes share a row where there are more of them; the
// first keeps its state.
fn weigh(run: Run, first: u32) -> bool {
    let lanes = select(LANES, run.lanes, LANES == 0u);
    let parts = max(lanes / BAND, 1u);
    let part = run.lane % parts;
    let sees_all = !CAUSAL && WINDOW == 0xffffffffu && first + KEYS <= run.seen.y;
    var has_grown = false;
    for (var i = 0u; i < BAND * parts / lanes; i++) {
        let row = run.band + i * (lanes / parts) + run.lane / parts;
        let query = run.tile.x + min(row, run.tile.y - 1u);
        var before = LEAST;
        var total = 0.0;
        if first > run.seen.x {
            before = largest[row];
            total = totals[row];
        }
        var kept: array<vec4<f32>, SCORES_A_LANE>;
        var most = vec4<f32>(SMALLEST);
        for (var n = 0u; n < SCORES_A_LANE; n++) {
            let c4 = n * parts + part;
            if SCORES_A_LANE * parts == KEYS4 || c4 < KEYS4 {
                let keys = first + 4u * c4 + vec4<u32>(0u, 1u, 2u, 3u);
                let score = score_at(row * SCORES4 + c4) * SCALE_LOG2;
                if sees_all {
                    kept[n] = adjust(score, run.head, query, keys, run.seen.y);
                } else {
                    kept[n] = see(score, run.head, query, keys, run.seen.y);
                }
                most = max(most, kept[n]);
            }
        }
        var highest = max(max(most.x, most.y), max(most.z, most.w));
        for (var other = 1u; other < parts; other *= 2u) {
            highest = max(highest, subgroupShuffleXor(highest, other));
        }
        let is_far = highest > before + FAR;
        highest = select(before, highest, is_far);
        var sum = vec4<f32>();
        for (var n = 0u; n < SCORES_A_LANE; n++) {
            let c4 = n * parts + part;
            if SCORES_A_LANE * parts == KEYS4 || c4 < KEYS4 {
                // Scores are powers of two: exp(x) = exp2(x * log2(e)).
                let p = exp2(kept[n] - highest);
                put_weight(row * WEIGHTS4 + c4, Elem4(p));
                sum += p;
            }
        }
        var added = sum.x + sum.y + sum.z + sum.w;
        for (var other = 1u; other < parts; other *= 2u) {
            added += subgroupShuffleXor(added, other);
        }
        if part == 0u {
            let keep = exp2(before - highest);
            largest[row] = highest;
            totals[row] = total * keep + added;
            factors[row] = keep;
        }
        has_grown = has_grown || is_far && first > run.seen.x;
    }
    return subgroupAny(has_grown);
}

// Corrects so many columns of the sums, which stand where the scores did.
fn correct(run: Run, columns: u32) {
    for (var i = run.lane; i < BAND * columns / 4u; i += run.lanes) {
        let row = run.band + i / (columns / 4u);
        let at = row * SCORES4 + i % (columns / 4u);
        put_score(at, score_at(at) * factors[row]);
    }
}

// Writes so many columns, from `first` of the head on.
fn finish(run: Run, first: u32, columns: u32) {
    for (var i = run.lane; i < BAND * columns / 4u; i += run.lanes) {
        let row = run.band + i / (columns / 4u);
        let column = i % (columns / 4u);
        if row < run.tile.y {
            let sum = score_at(row * SCORES4 + column);
            store(run.tile.x + row, run.head, first / 4u + column, sum / divisor(totals[row]));
        }
    }
}

@compute @workgroup_size(THREADS)
fn attention_cooperative(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let index = group_index(workgroup, workgroups);
    if index >= batch.query_tiles {
        return; // the whole workgroup
    }
    let tile = query_tiles[index];
    let seen = seen_by(tile);
    if seen.x >= seen.y {
        // No query sees a key, and nothing will be added up.
        for (var i = thread; i < QUERY_TILE; i += THREADS) {
            totals[i] = 0.0;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < BANDS; i += subgroups) {
        attend(Run(tile, workgroup.z, seen, (i + subgroup) * BAND, lane, lanes, thread));
    }
}
