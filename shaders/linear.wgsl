// y = activation(x * weight^T + bias) + residual.
// A workgroup of 8 x 8 threads computes 32 rows by 32 columns, each thread 4 rows by 4 columns straight from the caches.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;         // [rows, IN4]
@group(1) @binding(1) var<storage, read> weight: array<Elem4>;    // [OUT4, 4, IN4]: panels of four output columns
@group(1) @binding(2) var<storage, read> bias: array<vec4<f32>>;  // [OUT4]; if BIAS
@group(1) @binding(3) var<storage, read> residual: array<Elem4>;  // [rows, OUT4]; if RESIDUAL
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>; // [rows, OUT4]

@compute @workgroup_size(8, 8)
fn linear(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
) {
    let rows = row_count(ROWS_ARE_TOKENS);
    let first = group_index(workgroup, workgroups) * 32u + thread.y * 4u;
    let column = workgroup.z * 8u + thread.x;
    if first >= rows || column >= OUT4 {
        return;
    }
    // Rows behind the last are computed from the last, and not written.
    let last = rows - 1u;
    let x0 = min(first, last) * IN4;
    let x1 = min(first + 1u, last) * IN4;
    let x2 = min(first + 2u, last) * IN4;
    let x3 = min(first + 3u, last) * IN4;
    var sums: array<vec4<f32>, 4>;
    for (var k = 0u; k < IN4; k++) {
        let w = column * 4u * IN4 + k;
        // Columns of w are the output columns: v * w is four dot products.
        let w4 = mat4x4<f32>(
            vec4<f32>(weight[w]),
            vec4<f32>(weight[w + IN4]),
            vec4<f32>(weight[w + 2u * IN4]),
            vec4<f32>(weight[w + 3u * IN4]),
        );
        sums[0] += vec4<f32>(x[x0 + k]) * w4;
        sums[1] += vec4<f32>(x[x1 + k]) * w4;
        sums[2] += vec4<f32>(x[x2 + k]) * w4;
        sums[3] += vec4<f32>(x[x3 + k]) * w4;
    }
    for (var i = 0u; i < 4u; i++) {
        if first + i < rows {
            var y = sums[i];
            if BIAS {
                y += bias[column];
            }
            y = activation(y);
            let at = (first + i) * OUT4 + column;
            if RESIDUAL {
                y += vec4<f32>(residual[at]);
            }
            out[at] = Elem4(y);
        }
    }
}
