// y = activation(x * weight^T + bias) + residual.
// A workgroup is one subgroup of SUBGROUP_SIZE lanes and computes ROWS rows by 64 columns, without barriers: for every two
// columns of x, a lane loads a pair of ROWS / SUBGROUP_SIZE rows and broadcasts it, and multiplies it with the
// 64 / SUBGROUP_SIZE columns of the weight that are its own. Sums, multiply() and scatter() are generated
// (kernels/linear/subgroup.rs): one line for each row, as WGSL broadcasts only from constant lanes.
@group(1) @binding(0) var<storage, read> x: array<Pair>;          // [rows, 2 * IN4]
@group(1) @binding(1) var<storage, read> weight: array<Quad>;     // [ceil(out / 64), 4 * IN4, 16]
@group(1) @binding(3) var<storage, read> residual: array<Quad>;   // [rows, OUT4]; if RESIDUAL
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>; // [rows, OUT4]

const COLUMNS4: u32 = 16u;
const_assert ROWS % SUBGROUP_SIZE == 0u && COLUMNS4 % SUBGROUP_SIZE == 0u;
const ROWS_A_LANE: u32 = ROWS / SUBGROUP_SIZE;
const COLUMNS4_A_LANE: u32 = COLUMNS4 / SUBGROUP_SIZE;
const SUMS: u32 = ROWS * COLUMNS4_A_LANE;
// 8 KiB for 32 rows
var<workgroup> scattered: array<vec4<f32>, ROWS * COLUMNS4>;

@compute @workgroup_size(SUBGROUP_SIZE)
fn linear_subgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let first = group_index(workgroup, workgroups) * ROWS;
    let share = share_of(first);
    let rows = share.rows;
    if first >= rows {
        return;
    }
    var x_at: array<u32, ROWS_A_LANE>;
    for (var i = 0u; i < ROWS_A_LANE; i++) {
        // Rows behind the last are computed from the last, and not written.
        x_at[i] = min(first + i * SUBGROUP_SIZE + lane, rows - 1u) * IN4 * 2u;
    }
    var sums: Sums;
    var w_at = (share.matrix * ((OUT4 + COLUMNS4 - 1u) / COLUMNS4) + workgroup.z) * IN4 * 4u * COLUMNS4 + lane;
    for (var k = 0u; k < IN4 * 2u; k++) {
        multiply(&sums, x_at, k, w_at);
        w_at += 2u * COLUMNS4;
    }
    // The activation is too long to repeat for every sum, so there is a loop over them. Each lane reads only what it wrote.
    scatter(sums, lane);
    for (var i = 0u; i < SUMS; i++) {
        let row = first + i / COLUMNS4_A_LANE;
        let column = workgroup.z * COLUMNS4 + i % COLUMNS4_A_LANE * SUBGROUP_SIZE + lane;
        if row < rows && column < OUT4 {
            var y = activation(biased(scattered[i * SUBGROUP_SIZE + lane], column));
            let at = row * OUT4 + column;
            if RESIDUAL {
                y += quad(residual[at]);
            }
            out[at] = Elem4(y);
        }
    }
}
