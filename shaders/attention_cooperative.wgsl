// softmax(scale * q k^T + bias) v within each sequence, for each head, by cooperative matrices of SIZE x SIZE and the online
// softmax (Milakov, Gimelshein 2018; Dao et al. 2022).
// A workgroup takes one query tile and one head; each of its subgroups takes one of BANDS bands of the tile's queries after the
// other. KEYS keys and values at a time pass through workgroup memory, and so do scores and weights, because the elements of a
// matrix cannot be named. The sums stay in matrices: they are corrected only when a row's largest score has grown FAR beyond the
// one that its weights are relative to. attend() is generated (kernels/attention/cooperative.rs).
const BAND: u32 = BLOCKS_DOWN * SIZE;
const QUERY_TILE: u32 = BANDS * BAND;
const FAR: f32 = 8.0; // weights stay below 2^8, well within f16
// Rows lie a little apart, against bank conflicts.
const STRIDE: u32 = HEAD_DIM + 8u;
const SCORES: u32 = KEYS + 4u;
const WEIGHTS: u32 = KEYS + 8u;
const_assert HEAD_DIM % SIZE == 0u && KEYS % SIZE == 0u;
// The tile's queries; then, over and over, keys and behind them values.
var<workgroup> rows: array<Elem, max(QUERY_TILE, 2u * KEYS) * STRIDE>;
var<workgroup> scores: array<f32, QUERY_TILE * SCORES>;
var<workgroup> weights: array<Elem, QUERY_TILE * WEIGHTS>;
// Of each query: the score that its weights are relative to, what they add up to, the correction of its sums.
var<workgroup> largest: array<f32, QUERY_TILE>;
var<workgroup> totals: array<f32, QUERY_TILE>;
var<workgroup> factors: array<f32, QUERY_TILE>;
// The first: whether some sums have to be corrected. As long as a vector, so that in whatever order the driver lays these arrays
// out, the matrices' begin at multiples of 16 bytes.
var<workgroup> grown: array<atomic<u32>, 4>;

// What a subgroup is doing: its tile, head and the keys that these see; the first row of its band; its lanes.
struct Run { tile: vec4<u32>, head: u32, seen: vec2<u32>, band: u32, lane: u32, lanes: u32, thread: u32 }

// Brings rows of a head, counted through q, k and v, to workgroup memory; zeros behind the last.
fn fetch(to: u32, count: u32, first: u32, end: u32, head: u32, thread: u32) {
    for (var i = thread; i < count * HEAD4; i += THREADS) {
        let row = i / HEAD4;
        var x = vec4<f32>();
        if first + row < end {
            x = load(first + row, head, i % HEAD4);
        }
        let at = (to + row) * STRIDE + i % HEAD4 * 4u;
        rows[at] = Elem(x.x);
        rows[at + 1u] = Elem(x.y);
        rows[at + 2u] = Elem(x.z);
        rows[at + 3u] = Elem(x.w);
    }
}

fn fetch_queries(run: Run) {
    fetch(0u, QUERY_TILE, run.tile.x, run.tile.x + run.tile.y, run.head, run.thread);
}

fn fetch_keys(run: Run, first: u32) {
    let kv = kv_head(run.head);
    fetch(0u, KEYS, first, run.seen.y, HEADS + kv, run.thread);
    fetch(KEYS, KEYS, first, run.seen.y, HEADS + KV_HEADS + kv, run.thread);
    if run.thread == 0u {
        atomicStore(&grown[0], 0u);
    }
}

// The scores of `width` keys to weights. Several lanes share a row where there are more of them; the first keeps its state.
fn weigh(run: Run, first: u32, width: u32) {
    let parts = max(run.lanes / BAND, 1u);
    let part = run.lane % parts;
    for (var row = run.band + run.lane / parts; row < run.band + BAND; row += run.lanes / parts) {
        let query = run.tile.x + min(row, run.tile.y - 1u);
        var most = vec4<f32>(SMALLEST);
        for (var c = part * 4u; c < width; c += parts * 4u) {
            let at = row * SCORES + c;
            let product = vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
            let keys = first + c + vec4<u32>(0u, 1u, 2u, 3u);
            let score = see(product * SCALE_LOG2, run.head, query, keys, run.seen.y);
            scores[at] = score.x;
            scores[at + 1u] = score.y;
            scores[at + 2u] = score.z;
            scores[at + 3u] = score.w;
            most = max(most, score);
        }
        var highest = max(max(most.x, most.y), max(most.z, most.w));
        for (var other = 1u; other < parts; other *= 2u) {
            highest = max(highest, subgroupShuffleXor(highest, other));
        }
        var before = LEAST;
        var total = 0.0;
        if part == 0u && first > run.seen.x {
            before = largest[row];
            total = totals[row];
        }
        before = subgroupShuffle(before, run.lane - part);
        let is_far = highest > before + FAR;
        highest = select(before, highest, is_far);
        let keep = exp2(before - highest);
        var sum = vec4<f32>();
        for (var c = part * 4u; c < width; c += parts * 4u) {
            let at = row * SCORES + c;
            // Scores are powers of two: exp(x) = exp2(x * log2(e)). What is added up is what meets the values.
            let p = Elem4(exp2(vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]) - highest));
            let to = row * WEIGHTS + c;
            weights[to] = p.x;
            weights[to + 1u] = p.y;
            weights[to + 2u] = p.z;
            weights[to + 3u] = p.w;
            sum += vec4<f32>(p);
        }
        var added = sum.x + sum.y + sum.z + sum.w;
        for (var other = 1u; other < parts; other *= 2u) {
            added += subgroupShuffleXor(added, other);
        }
        if part == 0u {
            largest[row] = highest;
            totals[row] = total * keep + added;
            factors[row] = keep;
            if is_far && first > run.seen.x {
                atomicStore(&grown[0], 1u);
            }
        }
    }
}

// Corrects so many columns of the sums, which stand where the scores did.
fn correct(run: Run, columns: u32) {
    for (var i = run.lane; i < BAND * columns; i += run.lanes) {
        let row = run.band + i / columns;
        scores[row * SCORES + i % columns] *= factors[row];
    }
}

// Writes so many columns, from `first` of the head on.
fn finish(run: Run, first: u32, columns: u32) {
    for (var i = run.lane; i < BAND * columns / 4u; i += run.lanes) {
        let row = run.band + i / (columns / 4u);
        let column = i % (columns / 4u) * 4u;
        if row < run.tile.y {
            let at = row * SCORES + column;
            let sum = vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
            store(run.tile.x + row, run.head, (first + column) / 4u, sum / divisor(totals[row]));
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
