// A weighted sum of two values: y = x * X_FACTOR + other * FACTOR.
// A thread makes four columns of a row.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;         // [rows, STRIDE4]
@group(1) @binding(1) var<storage, read> other: array<Elem4>;     // [rows, STRIDE4]
@group(1) @binding(2) var<storage, read_write> out: array<Elem4>; // [rows, STRIDE4]

@compute @workgroup_size(64)
fn sum(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return;
    }
    for (var i = row * STRIDE4 + lane; i < (row + 1u) * STRIDE4; i += 64u) {
        out[i] = Elem4(vec4<f32>(x[i]) * X_FACTOR + vec4<f32>(other[i]) * FACTOR);
    }
}
