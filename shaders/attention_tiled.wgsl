// softmax(scale * q k^T + bias) v within each sequence, for each head, by the online softmax (Milakov, Gimelshein 2018).
// A workgroup takes one query tile and one head. Both products go by register tiles of 4 x 4, KEYS keys at a time: each thread
// keeps the sums of one tile of the result; the scores stay in workgroup memory.
const_assert HEADS_A_GROUP == 1u && LANES >= QUERY_TILE / 4u * HEAD4;
// Of each query: its largest score so far, the correction of its sums.
var<workgroup> largest: array<f32, QUERY_TILE>;
var<workgroup> factors: array<f32, QUERY_TILE>;

@compute @workgroup_size(LANES)
fn attention_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group_index(workgroup, workgroups);
    if index >= batch.query_tiles {
        return; // the whole workgroup
    }
    let at = place(query_tiles[index], workgroup.z, lane);
    let seen = seen_by(at.tile);
    let row = lane / HEAD4;
    let column = lane % HEAD4;
    var sums: Four;
    fetch_queries(at);
    for (var first = seen.x; first < seen.y; first += KEYS) {
        let keys = keys_of(first, min(first + KEYS, seen.y));
        fetch_keys(at, keys);
        workgroupBarrier();
        meet_distances(at, keys);
        multiply_keys(at, keys);
        workgroupBarrier();
        // As many steps for every thread: among barriers in a loop, FXC takes no loop of varying length here.
        for (var step = 0u; step < 4u * at.quarter; step += LANES) {
            let i = step + lane;
            if i < 4u * at.quarter {
                var highest = highest_score(at, i, keys);
                var keep = 0.0;
                var total = 0.0;
                if first > seen.x {
                    highest = max(highest, largest[i]);
                    keep = exp2(largest[i] - highest);
                    total = totals[i] * keep;
                }
                totals[i] = total + weigh(at, i, keys, highest);
                largest[i] = highest;
                factors[i] = keep;
            }
        }
        workgroupBarrier();
        if row < at.quarter {
            sums.a *= factors[row];
            sums.b *= factors[row + at.quarter];
            sums.c *= factors[row + 2u * at.quarter];
            sums.d *= factors[row + 3u * at.quarter];
            multiply_values(at, keys, row, column, &sums);
        }
    }
    if seen.x >= seen.y {
        // No query sees a key, and nothing was added up.
        for (var i = lane; i < QUERY_TILE; i += LANES) {
            totals[i] = 0.0;
        }
        workgroupBarrier();
    }
    if row < at.quarter {
        store_sums(at, row, column, sums);
    }
}
