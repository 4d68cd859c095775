// y = activation(x * weight^T + bias) + residual, for few rows.
// A workgroup of 16 x 16 threads computes ROWS rows by 64 columns: a thread takes 4 columns, and every 16th 4 of the inner
// ones. The 16 partial sums of a column are added up at the end.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;         // [rows, IN4]
@group(1) @binding(1) var<storage, read> weight: array<Elem4>;    // [ceil(out / 64), 4 * IN4, 16]

const COLUMNS4: u32 = 16u;
const SHARES: u32 = 16u;
// 16 KiB for 4 rows
var<workgroup> partial_sums: array<vec4<f32>, ROWS * SHARES * COLUMNS4>;

// A row each, by name: an array that loops index stays in memory where nobody unrolls them (FXC and DXC).
struct Sums { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }
const_assert ROWS == 4u;

// The sum, and products of four columns of a row. Rows behind the last are computed from the last, and not written.
fn multiply(sum: vec4<f32>, row: u32, rows: u32, k4: u32, w: mat4x4<f32>) -> vec4<f32> {
    let a = vec4<f32>(x[min(row, rows - 1u) * IN4 + k4]);
    return fma(vec4<f32>(a.w), w[3], fma(vec4<f32>(a.z), w[2], fma(vec4<f32>(a.y), w[1], fma(vec4<f32>(a.x), w[0], sum))));
}

@compute @workgroup_size(16, 16)
fn linear_few(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = group_index(workgroup, workgroups) * ROWS;
    let share = share_of(first);
    let rows = share.rows;
    if first >= rows {
        return; // the whole workgroup
    }
    var sums: Sums;
    let panel = share.matrix * ((OUT4 + COLUMNS4 - 1u) / COLUMNS4) + workgroup.z;
    for (var k4 = thread.y; k4 < IN4; k4 += SHARES) {
        let at = ((panel * IN4 + k4) * 4u) * COLUMNS4 + thread.x;
        let w = mat4x4<f32>(
            vec4<f32>(weight[at]),
            vec4<f32>(weight[at + COLUMNS4]),
            vec4<f32>(weight[at + 2u * COLUMNS4]),
            vec4<f32>(weight[at + 3u * COLUMNS4]),
        );
        sums.a = multiply(sums.a, first, rows, k4, w);
        sums.b = multiply(sums.b, first + 1u, rows, k4, w);
        sums.c = multiply(sums.c, first + 2u, rows, k4, w);
        sums.d = multiply(sums.d, first + 3u, rows, k4, w);
    }
    let to = thread.y * COLUMNS4 + thread.x;
    partial_sums[to] = sums.a;
    partial_sums[to + SHARES * COLUMNS4] = sums.b;
    partial_sums[to + 2u * SHARES * COLUMNS4] = sums.c;
    partial_sums[to + 3u * SHARES * COLUMNS4] = sums.d;
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
