// softmax(scale * q k^T + bias) v within each sequence of at most KEYS tokens, for each head, by one plain softmax.
// A workgroup takes one query tile and HEADS_A_GROUP heads, LANES threads a head. Both products go by register tiles of 4 x 4,
// as many as the sequence needs whatever its length; the scores stay in workgroup memory.
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
    let at = place(query_tiles[index], workgroup.z * HEADS_A_GROUP, lane);
    let keys = keys_of(at.tile.z, at.tile.w);
    fetch_queries(at);
    fetch_keys(at, keys);
    workgroupBarrier();
    multiply_keys(at, keys);
    workgroupBarrier();
    for (var row = at.lane; row < 4u * at.quarter; row += LANES) {
        totals[at.part * QUERY_TILE + row] = weigh(at, row, keys, highest_score(at, row, keys));
    }
    workgroupBarrier();
    for (var i = at.lane; i < at.quarter * HEAD4; i += LANES) {
        var sums: Four;
        multiply_values(at, keys, i / HEAD4, i % HEAD4, &sums);
        store_sums(at, i / HEAD4, i % HEAD4, sums);
    }
}
