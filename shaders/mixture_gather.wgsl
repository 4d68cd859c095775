// Copies a row to its places. A workgroup takes a row.
@group(1) @binding(0) var<storage, read> places: array<vec2<u32>>;           // [rows, TOP] (place, gate as bits)
@group(1) @binding(1) var<storage, read> x: array<Elem4>;                    // [rows, STRIDE4]
@group(1) @binding(2) var<storage, read_write> out: array<Elem4>;            // [places, STRIDE4]

@compute @workgroup_size(64)
fn mixture_gather(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return;
    }
    for (var c = lane; c < STRIDE4; c += 64u) {
        let value = x[row * STRIDE4 + c];
        for (var i = 0u; i < TOP; i++) {
            out[places[row * TOP + i].x * STRIDE4 + c] = value;
        }
    }
}
