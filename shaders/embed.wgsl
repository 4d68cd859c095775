// Rows of tables, summed (common/embed.wgsl).
// A workgroup writes one token's row.
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>; // [tokens, STRIDE4]

@compute @workgroup_size(64)
fn embed(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group_index(workgroup, workgroups);
    if t >= batch.tokens || !is_here(tokens[t]) {
        return;
    }
    let row = row_of(tokens[t]);
    for (var i = lane; i < STRIDE4; i += 64u) {
        out[t * STRIDE4 + i] = Elem4(row_at(row, i));
    }
}
