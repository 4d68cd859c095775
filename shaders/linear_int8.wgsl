// y = activation(x * weight^T + bias) + residual, of x and weight in 8 bits.
// A workgroup of 16 x 16 threads computes TILE_ROWS rows by 64 columns, each thread TILE_ROWS / 16 rows by 4 columns. It goes
// through the inner columns two groups at a time, staged in workgroup memory; the next two are on their way meanwhile. Within a
// group sums are whole numbers, exact; then its scales come in, x's of the row and the weight's of the column, and x's middle with
// the sum of the column's weights. `Sums`, multiply() and finish_sums() are generated (kernels/linear/int8.rs and panels.rs).
@group(1) @binding(0) var<storage, read> x: array<vec4<u32>>;      // [rows, STRIDE / 4]: as quantize.wgsl wrote it
@group(1) @binding(1) var<storage, read> weight: array<vec4<u32>>; // [ceil(out / 64), GROUPS, 2 + 4, 16]: scales, sums, words

const_assert GROUP == 16u; // a vector of words
const WORDS: u32 = GROUPS * 4u;
const COLUMNS4: u32 = 16u;
const ROWS_A_THREAD: u32 = TILE_ROWS / 16u;
const GROUPS_A_STEP: u32 = 2u;
const X_VECTORS: u32 = TILE_ROWS * GROUPS_A_STEP;
const X_STRIDE: u32 = GROUPS_A_STEP + 1u; // odd: rows lie in different banks
const W_GROUP: u32 = 6u * COLUMNS4;       // vectors of a group: as they lie in the weight
const W_VECTORS: u32 = GROUPS_A_STEP * W_GROUP;
const_assert X_VECTORS <= 256u && W_VECTORS <= 256u;
var<workgroup> x_tile: array<vec4<u32>, TILE_ROWS * X_STRIDE>;
var<workgroup> w_tile: array<vec4<u32>, W_VECTORS>;
// Of each row and group the scale and the middle.
var<workgroup> factors: array<vec2<f32>, X_VECTORS>;

// What a thread brings of a step: a group of a row of x, with its factors, and a vector of the weight.
struct Piece { x: vec4<u32>, factors: vec2<f32>, w: vec4<u32> }

// Rows behind the last are computed from the last, and not written; groups behind the last meet zeros of the weight.
fn fetch(first: u32, rows: u32, w_at: u32, first_group: u32, index: u32) -> Piece {
    let row = min(first + index / GROUPS_A_STEP, rows - 1u) * (STRIDE / 4u);
    let group = min(first_group + index % GROUPS_A_STEP, GROUPS - 1u);
    let of_w = min(first_group * W_GROUP + index, GROUPS * W_GROUP - 1u);
    let w = weight[w_at + of_w];
    return Piece(
        x[row + group],
        vec2<f32>(factor(row, WORDS + group), factor(row, WORDS + GROUPS + group)),
        select(w, vec4<u32>(), first_group * W_GROUP + index >= GROUPS * W_GROUP),
    );
}

fn factor(row: u32, word: u32) -> f32 {
    return bitcast<f32>(x[row + word / 4u][word % 4u]);
}

@compute @workgroup_size(16, 16)
fn linear_int8(
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
    let w_at = (share.matrix * ((OUT4 + COLUMNS4 - 1u) / COLUMNS4) + workgroup.z) * GROUPS * W_GROUP;
    let x_row = thread.y * ROWS_A_THREAD;
    var sums: Sums;
    var piece = fetch(first, rows, w_at, 0u, index);
    for (var group = 0u; group < GROUPS; group += GROUPS_A_STEP) {
        if index < X_VECTORS {
            x_tile[index / GROUPS_A_STEP * X_STRIDE + index % GROUPS_A_STEP] = piece.x;
            factors[index] = piece.factors;
        }
        if index < W_VECTORS {
            w_tile[index] = piece.w;
        }
        workgroupBarrier();
        piece = fetch(first, rows, w_at, group + GROUPS_A_STEP, index);
        for (var i = 0u; i < GROUPS_A_STEP; i++) {
            multiply(&sums, x_row * X_STRIDE + i, x_row * GROUPS_A_STEP + i, i * W_GROUP + thread.x);
        }
        workgroupBarrier();
    }
    finish_sums(sums, first + x_row, rows, workgroup.z * COLUMNS4 + thread.x);
}
