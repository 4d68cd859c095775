// Copies one part's columns, padding included, to the output's columns from 4 * first4 on. A thread makes four columns of a row.
struct Params {
    first4: u32,
    unused_a: u32,
    unused_b: u32,
    unused_c: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> x: array<Elem4>;         // [rows, STRIDE4]
@group(1) @binding(2) var<storage, read_write> out: array<Elem4>; // [rows, OUT_STRIDE4]

@compute @workgroup_size(64)
fn join(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return;
    }
    for (var i = lane; i < STRIDE4; i += 64u) {
        out[row * OUT_STRIDE4 + params.first4 + i] = x[row * STRIDE4 + i];
    }
}
