// A gated linear unit: y = activation(x[:, FIRST..]) * x[:, SECOND..], COLS columns of each.
// A thread makes four columns of a row.
@group(1) @binding(0) var<storage, read> x: array<Elem>;          // [rows, X_STRIDE]
@group(1) @binding(1) var<storage, read_write> out: array<Elem4>; // [rows, STRIDE4]

// Four columns of a half that begins at `at`; zeros behind the last.
fn load(at: u32, c: u32) -> vec4<f32> {
    return vec4<f32>(load1(at, c), load1(at, c + 1u), load1(at, c + 2u), load1(at, c + 3u));
}

fn load1(at: u32, c: u32) -> f32 {
    var y = 0.0;
    if COLS % 4u == 0u || c < COLS {
        y = f32(x[at + c]);
    }
    return y;
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
        let at = row * X_STRIDE;
        out[row * STRIDE4 + i] = Elem4(activation(load(at + ACTIVATED, 4u * i)) * load(at + MULTIPLIED, 4u * i));
    }
}
