// y = activation(x * weight^T + bias) + residual, by cooperative matrices of SIZE x SIZE that are read from workgroup memory.
// As linear_cooperative.wgsl, but the workgroup stages STEP4 vectors of the inner columns at a time, of all its rows and columns:
// each number is read from the cache once and not by every part, and while one step is multiplied, the next is on its way to
// registers. part() is generated (kernels/linear/staged.rs).
@group(1) @binding(0) var<storage, read> x: array<Piece>;         // [rows, IN4 / 2]
@group(1) @binding(1) var<storage, read> weight: array<Piece>;    // [TILES, INNER / SIZE, SIZE, SIZE / 8]: a column, then its inner ones

// What a thread moves at once: in f16, 16 bytes.
struct Piece { a: Elem4, b: Elem4 }

const SIZE4: u32 = SIZE / 4u;
// Rows lie 16 bytes apart in f16, so that eight of them lie in different banks.
const STRIDE4: u32 = STEP4 + 2u;
const_assert IN4 % STEP4 == 0u && STEP4 % SIZE4 == 0u && SIZE4 % 2u == 0u && THREADS % X_PIECES == 0u;
const STEPS: u32 = IN4 / STEP4;
const TILE_ROWS: u32 = PARTS_A_SIDE * PART_ROWS;
const TILE_BLOCKS: u32 = PARTS_A_SIDE * BLOCKS_ACROSS;
// Of vectors, because matrices are then read in whole ones: Vulkan takes that, Metal does not.
var<workgroup> x_tile: array<Elem4, TILE_ROWS * STRIDE4>;
var<workgroup> w_tile: array<Elem4, TILE_BLOCKS * SIZE * STRIDE4>;

// A thread stages the pieces that are counted `thread`, `thread + THREADS` and so on. All these are powers of two, so a place of
// `thread + others` is that of `thread` plus that of `others`, which is a constant.
const X_PIECES: u32 = STEP4 / 2u;        // of a row
const W_PIECES: u32 = SIZE * STEP4 / 2u; // of a tile's columns

// 0, as groups are fewer than 2^31, which a compiler does not know: Mesa's for AMD would write out a loop of 12 steps, and run out of
// registers.
fn unknown_zero() -> u32 {
    return batch.first_group >> 31u;
}

// Where a piece goes.
fn x_to(piece: u32) -> u32 {
    return piece / X_PIECES * STRIDE4 + piece % X_PIECES * 2u;
}

// In the order in which a tile's columns lie in the weight.
fn w_to(piece: u32) -> u32 {
    let in_tile = piece % W_PIECES * 2u;
    let column = piece / W_PIECES * SIZE + in_tile / SIZE4 % SIZE;
    return column * STRIDE4 + in_tile / (SIZE * SIZE4) * SIZE4 + in_tile % SIZE4;
}

// Where it comes from, in the first step. Rows and tiles behind the last are computed from the last, and not written.
fn x_from(first_row: u32, rows: u32, thread: u32, others: u32) -> u32 {
    let row = first_row + thread / X_PIECES + others / X_PIECES;
    return min(row, rows - 1u) * (IN4 / 2u) + thread % X_PIECES + others % X_PIECES;
}

fn w_from(first_tile: u32, matrix: u32, thread: u32, others: u32) -> u32 {
    var tile = first_tile + thread / W_PIECES + others / W_PIECES;
    if TILES % TILE_BLOCKS != 0u {
        tile = min(tile, TILES - 1u);
    }
    return (matrix * TILES + tile) * (IN4 * SIZE / 2u) + thread % W_PIECES + others % W_PIECES;
}

// The first vector of a part's rows and columns in the tiles.
fn x_at(part: u32) -> u32 {
    return part / PARTS_A_SIDE * PART_ROWS * STRIDE4;
}

fn w_at(part: u32) -> u32 {
    return part % PARTS_A_SIDE * BLOCKS_ACROSS * SIZE * STRIDE4;
}

@compute @workgroup_size(THREADS)
fn linear_cooperative_staged(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let first = group_index(workgroup, workgroups) * TILE_ROWS;
    let share = share_of(first);
    if first >= share.rows {
        return; // the whole workgroup
    }
    let first_tile = workgroup.z * TILE_BLOCKS;
    for (var i = 0u; i < PARTS; i += subgroups) {
        part(new_run(i + subgroup, first, first_tile, lane, lanes, share), first, first_tile, thread);
    }
}
