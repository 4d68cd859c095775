// y = the sum of a row at its places, each times its gate, + bias + residual. A workgroup takes a row.
@group(1) @binding(0) var<storage, read> places: array<vec2<u32>>;           // [rows, TOP] (place, gate as bits)
@group(1) @binding(1) var<storage, read> x: array<Elem4>;                    // [places, STRIDE4]
@group(1) @binding(2) var<storage, read> bias: array<vec4<f32>>;             // [STRIDE4]; if BIAS
@group(1) @binding(3) var<storage, read> residual: array<Elem4>;             // [rows, STRIDE4]; if RESIDUAL
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>;            // [rows, STRIDE4]

@compute @workgroup_size(64)
fn mixture_sum(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return;
    }
    for (var c = lane; c < STRIDE4; c += 64u) {
        var y = vec4<f32>();
        for (var i = 0u; i < TOP; i++) {
            let place = places[row * TOP + i];
            y += bitcast<f32>(place.y) * vec4<f32>(x[place.x * STRIDE4 + c]);
        }
        if BIAS {
            y += bias[c];
        }
        if RESIDUAL {
            y += vec4<f32>(residual[row * STRIDE4 + c]);
        }
        out[row * STRIDE4 + c] = Elem4(y);
    }
}
