// y = activation(x * weight^T + bias) + residual.
// A workgroup of 16 x 16 threads computes TILE_ROWS rows by PANELS * 64 columns, each thread TILE_ROWS / 16 rows by 4 columns
// of each panel. It goes through the inner columns in steps of 4 * STEP4: x and weight are staged in workgroup memory in f32,
// x row by row so that one read gives four columns of a row. `Sums`, multiply() and finish_sums() are generated
// (kernels/linear/tiled.rs).
@group(1) @binding(0) var<storage, read> x: array<Elem4>;         // [rows, IN4]
@group(1) @binding(1) var<storage, read> weight: array<Elem4>;    // [ceil(out / 64), 4 * IN4, 16]

const PANEL4: u32 = 16u;
const COLUMNS4: u32 = PANELS * PANEL4;
const STEP4: u32 = 4u / PANELS; // a thread loads one vector of the weight in each step
const X_STRIDE: u32 = STEP4 + 1u; // an odd number of vec4s: rows lie in different banks
const_assert TILE_ROWS % 16u == 0u && PANELS <= 2u;
const ROWS_A_THREAD: u32 = TILE_ROWS / 16u;
// 14 KiB for 128 rows and one panel
var<workgroup> x_tile: array<vec4<f32>, TILE_ROWS * X_STRIDE>;
var<workgroup> w_tile: array<vec4<f32>, 4u * STEP4 * COLUMNS4>;

@compute @workgroup_size(16, 16)
fn linear(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let rows = row_count(ROWS_ARE_TOKENS);
    let first = group_index(workgroup, workgroups) * TILE_ROWS;
    if first >= rows {
        return; // the whole workgroup
    }
    // What this thread loads of the weight. Panels behind the last are computed from the last, and not written.
    let w_k = index / COLUMNS4;
    let w_panel = min(workgroup.z * PANELS + index % COLUMNS4 / PANEL4, (OUT4 - 1u) / PANEL4);
    let w_at = w_panel * IN4 * 4u * PANEL4 + index % PANEL4;
    let x_row = thread.y * ROWS_A_THREAD * X_STRIDE;
    var sums: Sums;
    for (var k4 = 0u; k4 < IN4; k4 += STEP4) {
        for (var i = index; i < TILE_ROWS * STEP4; i += 256u) {
            let row = i / STEP4;
            let k = k4 + i % STEP4;
            // Rows behind the last are computed from the last, and not written. Behind the last column there are zeros.
            var value = vec4<f32>();
            if k < IN4 {
                value = vec4<f32>(x[min(first + row, rows - 1u) * IN4 + k]);
            }
            x_tile[row * X_STRIDE + i % STEP4] = value;
        }
        var w = vec4<f32>();
        if k4 * 4u + w_k < IN4 * 4u {
            w = vec4<f32>(weight[w_at + (k4 * 4u + w_k) * PANEL4]);
        }
        w_tile[index] = w;
        workgroupBarrier();
        for (var k = 0u; k < STEP4; k++) {
            multiply(&sums, x_row + k, k * 4u * COLUMNS4 + thread.x);
        }
        workgroupBarrier();
    }
    finish_sums(sums, first + thread.y * ROWS_A_THREAD, rows, workgroup.z * COLUMNS4 + thread.x);
}
