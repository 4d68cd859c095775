// y = activation(x * weight^T + bias) + residual.
// A workgroup of 16 x 16 threads computes TILE_ROWS rows by PANELS * 64 columns, each thread TILE_ROWS / 16 rows by 4 columns
// of each panel. It goes through the inner columns in steps of 4 * STEP4: x and weight are staged in workgroup memory in f32,
// x row by row so that one read gives four columns of a row. `Sums`, multiply() and finish_sums() are generated
// (kernels/linear/tiled.rs and panels.rs).
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

const X_VECTORS: u32 = TILE_ROWS * STEP4;
const_assert X_VECTORS <= 512u; // two a thread

// Vector `i` of the step that begins at k4. Rows behind the last are computed from the last, and not written; columns behind the last
// meet zeros of the weight.
fn fetch_x(first: u32, rows: u32, k4: u32, i: u32) -> Elem4 {
    return x[min(first + i / STEP4, rows - 1u) * IN4 + min(k4 + i % STEP4, IN4 - 1u)];
}

fn put_x(i: u32, value: Elem4) {
    if X_VECTORS % 256u == 0u || i < X_VECTORS {
        x_tile[i / STEP4 * X_STRIDE + i % STEP4] = vec4<f32>(value);
    }
}

// What lies at `at` of the weight in the step that begins at k4.
fn fetch_w(at: u32, k4: u32, w_k: u32) -> Elem4 {
    let k = k4 * 4u + w_k;
    let w = weight[at + min(k, IN4 * 4u - 1u) * PANEL4];
    return select(w, Elem4(), k >= IN4 * 4u);
}

@compute @workgroup_size(16, 16)
fn linear(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = group_index(workgroup, workgroups) * TILE_ROWS;
    let share = share_of(first);
    let rows = share.rows;
    if first >= rows {
        return; // the whole workgroup
    }
    // What this thread loads of the weight. Panels behind the last are computed from the last, and not written.
    let w_k = index / COLUMNS4;
    let w_panel = min(workgroup.z * PANELS + index % COLUMNS4 / PANEL4, (OUT4 - 1u) / PANEL4);
    let w_at = (share.matrix * ((OUT4 + PANEL4 - 1u) / PANEL4) + w_panel) * IN4 * 4u * PANEL4 + index % PANEL4;
    let x_row = thread.y * ROWS_A_THREAD * X_STRIDE;
    var sums: Sums;
    var x0 = fetch_x(first, rows, 0u, index);
    var x1 = x0;
    if X_VECTORS > 256u {
        x1 = fetch_x(first, rows, 0u, index + 256u);
    }
    var w = fetch_w(w_at, 0u, w_k);
    for (var k4 = 0u; k4 < IN4; k4 += STEP4) {
        put_x(index, x0);
        if X_VECTORS > 256u {
            put_x(index + 256u, x1);
        }
        w_tile[index] = vec4<f32>(w);
        workgroupBarrier();
        // The next step is on its way while this one is multiplied. Behind the last, the last vectors again.
        x0 = fetch_x(first, rows, k4 + STEP4, index);
        if X_VECTORS > 256u {
            x1 = fetch_x(first, rows, k4 + STEP4, index + 256u);
        }
        w = fetch_w(w_at, k4 + STEP4, w_k);
        for (var k = 0u; k < STEP4; k++) {
            multiply(&sums, x_row + k, k * 4u * COLUMNS4 + thread.x);
        }
        workgroupBarrier();
    }
    finish_sums(sums, first + thread.y * ROWS_A_THREAD, rows, workgroup.z * COLUMNS4 + thread.x);
}
