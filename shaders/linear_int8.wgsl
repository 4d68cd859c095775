// y = activation(x * weight^T + bias) + residual, of x and weight in 8 bits.
// A workgroup of 16 x 16 threads computes TILE_ROWS rows by 64 columns, each thread TILE_ROWS / 16 rows by 4 columns. It goes
// through the inner columns a GROUP at a time, staged in workgroup memory. Within a group sums are whole numbers, exact; then
// its scales come in, x's of the row and the weight's of the column, and x's middle with the sum of the column's weights.
@group(1) @binding(0) var<storage, read> x: array<vec4<u32>>;      // [rows, STRIDE / 4]: as quantize.wgsl wrote it
@group(1) @binding(1) var<storage, read> weight: array<vec4<u32>>; // [ceil(out / 64), GROUPS, 2 + STEP, 16]: scales, sums, words

const COLUMNS4: u32 = 16u;
const STEP: u32 = GROUP / 4u; // words of a group
const WORDS: u32 = GROUPS * STEP;
const ROWS_A_THREAD: u32 = TILE_ROWS / 16u;
// Word by word, so that neighbouring threads' rows lie side by side; one more, for the banks.
const X_STRIDE: u32 = TILE_ROWS + 1u;
var<workgroup> x_tile: array<u32, STEP * X_STRIDE>;
var<workgroup> w_tile: array<vec4<u32>, STEP * COLUMNS4>;

// The scale of a group of x, for 0, or its middle, for 1.
fn factor(row: u32, group: u32, which: u32) -> f32 {
    let i = WORDS + which * GROUPS + group;
    return bitcast<f32>(x[row * (STRIDE / 4u) + i / 4u][i % 4u]);
}

@compute @workgroup_size(16, 16)
fn linear_int8(
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
    let x_row = thread.y * ROWS_A_THREAD;
    var w_at = workgroup.z * GROUPS * (2u + STEP) * COLUMNS4;
    var sums: array<vec4<f32>, ROWS_A_THREAD>;
    for (var group = 0u; group < GROUPS; group++) {
        for (var i = index; i < TILE_ROWS * STEP / 4u; i += 256u) {
            let row = i / (STEP / 4u);
            let word4 = i % (STEP / 4u);
            // Rows behind the last are computed from the last, and not written.
            let words = x[min(first + row, rows - 1u) * (STRIDE / 4u) + group * STEP / 4u + word4];
            let at = word4 * 4u * X_STRIDE + row;
            x_tile[at] = words.x;
            x_tile[at + X_STRIDE] = words.y;
            x_tile[at + 2u * X_STRIDE] = words.z;
            x_tile[at + 3u * X_STRIDE] = words.w;
        }
        if index < STEP * COLUMNS4 {
            w_tile[index] = weight[w_at + 2u * COLUMNS4 + index];
        }
        workgroupBarrier();
        var dots: array<vec4<i32>, ROWS_A_THREAD>;
        for (var k = 0u; k < STEP; k++) {
            let w = w_tile[k * COLUMNS4 + thread.x];
            for (var i = 0u; i < ROWS_A_THREAD; i++) {
                let a = x_tile[k * X_STRIDE + x_row + i];
                dots[i] += vec4<i32>(
                    dot4I8Packed(a, w.x), dot4I8Packed(a, w.y), dot4I8Packed(a, w.z), dot4I8Packed(a, w.w),
                );
            }
        }
        let w_scale = bitcast<vec4<f32>>(weight[w_at + thread.x]);
        let w_sum = bitcast<vec4<f32>>(weight[w_at + COLUMNS4 + thread.x]);
        for (var i = 0u; i < ROWS_A_THREAD; i++) {
            let row = min(first + x_row + i, rows - 1u);
            sums[i] += vec4<f32>(dots[i]) * (w_scale * factor(row, group, 0u)) + w_sum * factor(row, group, 1u);
        }
        w_at += (2u + STEP) * COLUMNS4;
        workgroupBarrier();
    }
    for (var i = 0u; i < ROWS_A_THREAD; i++) {
        finish(sums[i], first + x_row + i, rows, workgroup.z * COLUMNS4 + thread.x);
    }
}
