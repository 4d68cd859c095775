// y = activation(x * weight^T + bias) + residual, for few rows.
// A workgroup of 16 x 16 threads computes ROWS rows by 64 columns: a thread takes 4 columns, and every 16th 4 of the inner
// ones. The 16 partial sums of a column are added up at the end.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;         // [rows, IN4]
@group(1) @binding(1) var<storage, read> weight: array<Elem4>;    // [ceil(out / 64), 4 * IN4, 16]

const COLUMNS4: u32 = 16u;
const SHARES: u32 = 16u;
// 16 KiB for 4 rows
var<workgroup> partial_sums: array<vec4<f32>, ROWS * SHARES * COLUMNS4>;

@compute @workgroup_size(16, 16)
fn linear_few(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let rows = row_count(ROWS_ARE_TOKENS);
    let first = group_index(workgroup, workgroups) * ROWS;
    if first >= rows {
        return; // the whole workgroup
    }
    var sums: array<vec4<f32>, ROWS>;
    for (var k4 = thread.y; k4 < IN4; k4 += SHARES) {
        let w = ((workgroup.z * IN4 + k4) * 4u) * COLUMNS4 + thread.x;
        let w0 = vec4<f32>(weight[w]);
        let w1 = vec4<f32>(weight[w + COLUMNS4]);
        let w2 = vec4<f32>(weight[w + 2u * COLUMNS4]);
        let w3 = vec4<f32>(weight[w + 3u * COLUMNS4]);
        for (var i = 0u; i < ROWS; i++) {
            // Rows behind the last are computed from the last, and not written.
            let a = vec4<f32>(x[min(first + i, rows - 1u) * IN4 + k4]);
            sums[i] = fma(vec4<f32>(a.w), w3, fma(vec4<f32>(a.z), w2, fma(vec4<f32>(a.y), w1, fma(vec4<f32>(a.x), w0, sums[i]))));
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        partial_sums[(i * SHARES + thread.y) * COLUMNS4 + thread.x] = sums[i];
    }
    workgroupBarrier();
    if index < ROWS * COLUMNS4 {
        let row = index / COLUMNS4;
        let column = index % COLUMNS4;
        var sum = vec4<f32>();
        for (var share = 0u; share < SHARES; share++) {
            sum += partial_sums[(row * SHARES + share) * COLUMNS4 + column];
        }
        finish(sum, first + row, rows, workgroup.z * COLUMNS4 + column);
    }
}
