// A gated linear unit: y = activation(x[:, FIRST..]) * x[:, SECOND..], COLS columns of each.
// A thread makes four columns of a row.
@group(1) @binding(0) var<storage, read> x: array<Elem>;          // [rows, X_STRIDE]
@group(1) @binding(1) var<storage, read_write> out: array<Elem4>; // [rows, STRIDE4]

// Columns behind the last hold whatever follows, which is finite.
fn load(at: u32) -> vec4<f32> {
    return vec4<f32>(f32(x[at]), f32(x[at + 1u]), f32(x[at + 2u]), f32(x[at + 3u]));
}

@compute @workgroup_size(64)
fn glu(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return;
    }
    for (var i = lane; i < STRIDE4; i += 64u) {
        let at = row * X_STRIDE + i * 4u;
        out[row * STRIDE4 + i] = Elem4(activation(load(at + ACTIVATED)) * load(at + MULTIPLIED));
    }
}
