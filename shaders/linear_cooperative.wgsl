// y = activation(x * weight^T + bias) + residual, by cooperative matrices of SIZE x SIZE.
// A workgroup computes PARTS_A_SIDE x PARTS_A_SIDE parts of BLOCKS_DOWN x BLOCKS_ACROSS blocks; each of its subgroups takes one
// part after the other, whose number its size must divide. part() is generated (kernels/linear/cooperative.rs): it keeps
// the sums of a part in cooperative matrices, and hands them to finish_blocks() through workgroup memory, a row of blocks at a time.
@group(1) @binding(0) var<storage, read> x: array<Elem>;          // [rows, INNER], rows filled up to whole blocks
@group(1) @binding(1) var<storage, read> weight: array<Elem>;     // [TILES, INNER / SIZE, SIZE, SIZE]: a column, then its inner ones

const INNER: u32 = 4u * IN4;
const_assert INNER % SIZE == 0u;
const TILES: u32 = (4u * OUT4 + SIZE - 1u) / SIZE;
const PARTS: u32 = PARTS_A_SIDE * PARTS_A_SIDE;
const SCRATCH_STRIDE: u32 = BLOCKS_ACROSS * SIZE;
// 16 KiB for 4 parts of 4 blocks of 16 across
var<workgroup> scratch: array<f32, PARTS * SIZE * SCRATCH_STRIDE>;

// What a subgroup is doing: the rows of x, the part's place in `scratch`, its lanes.
struct Run { rows: u32, scratch: u32, lane: u32, lanes: u32 }

// The first element of a block of x. Blocks behind the last are computed from the last, and not written.
fn x_at(row: u32, block: u32, rows: u32) -> u32 {
    return min(row + block * SIZE, (rows - 1u) / SIZE * SIZE) * INNER;
}

// The first element of the weight's tiles for a block of columns.
fn w_at(tile: u32, block: u32) -> u32 {
    return min(tile + block, TILES - 1u) * SIZE * INNER;
}

// A row of blocks of the part, from `scratch` on.
fn finish_blocks(row: u32, tile: u32, run: Run) {
    let first = tile * SIZE / 4u;
    for (var i = run.lane; i < SIZE * SCRATCH_STRIDE / 4u; i += run.lanes) {
        let at = run.scratch + i * 4u;
        let sum = vec4<f32>(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u]);
        finish(sum, row + i / (SCRATCH_STRIDE / 4u), run.rows, first + i % (SCRATCH_STRIDE / 4u));
    }
}

@compute @workgroup_size(THREADS)
fn linear_cooperative(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let rows = row_count(ROWS_ARE_TOKENS);
    let first = group_index(workgroup, workgroups) * PARTS_A_SIDE * BLOCKS_DOWN * SIZE;
    if first >= rows {
        return; // the whole workgroup
    }
    for (var i = 0u; i < PARTS; i += subgroups) {
        let p = i + subgroup;
        let row = first + p / PARTS_A_SIDE * BLOCKS_DOWN * SIZE;
        let tile = (workgroup.z * PARTS_A_SIDE + p % PARTS_A_SIDE) * BLOCKS_ACROSS;
        part(row, tile, Run(rows, p * SIZE * SCRATCH_STRIDE, lane, lanes));
    }
}
