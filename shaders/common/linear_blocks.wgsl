// What the kernels of cooperative matrices share: a workgroup's parts, and how their sums leave the matrices, whose elements cannot
// be named: through workgroup memory, SCRATCH_BLOCKS blocks of a row of blocks at a time.
const INNER: u32 = 4u * IN4;
const_assert INNER % SIZE == 0u;
const TILES: u32 = (4u * OUT4 + SIZE - 1u) / SIZE;
const PARTS: u32 = PARTS_A_SIDE * PARTS_A_SIDE;
const PART_ROWS: u32 = BLOCKS_DOWN * SIZE;
const SCRATCH_STRIDE: u32 = SCRATCH_BLOCKS * SIZE;
const SCRATCH4: u32 = SCRATCH_STRIDE / 4u;
// Whether every workgroup has columns in all of its blocks.
const WHOLE_TILES: bool = 4u * OUT4 % (PARTS_A_SIDE * BLOCKS_ACROSS * SIZE) == 0u;
var<workgroup> scratch: array<f32, PARTS * SIZE * SCRATCH_STRIDE>;

// What a subgroup is doing: the part's number, its first row and tile of columns; its lanes; the rows of x, and the matrix.
struct Run { part: u32, row: u32, tile: u32, lane: u32, lanes: u32, rows: u32, matrix: u32 }

fn new_run(part: u32, first_row: u32, first_tile: u32, lane: u32, lanes: u32, share: Share) -> Run {
    let row = first_row + part / PARTS_A_SIDE * PART_ROWS;
    let tile = first_tile + part % PARTS_A_SIDE * BLOCKS_ACROSS;
    return Run(part, row, tile, lane, lanes, share.rows, share.matrix);
}

// The part's place in `scratch`.
fn scratch_at(run: Run) -> u32 {
    return run.part * SIZE * SCRATCH_STRIDE;
}

// Some blocks of the part, from `scratch` on: `block` counts down and across. Where the lanes are known, each keeps to its columns.
fn finish_blocks(run: Run, block: vec2<u32>) {
    let lanes = select(LANES, run.lanes, LANES == 0u);
    let first = vec2<u32>(run.row + block.x * SIZE, (run.tile + block.y) * SIZE / 4u);
    for (var n = 0u; n < (SIZE * SCRATCH4 + lanes - 1u) / lanes; n++) {
        let i = n * lanes + run.lane;
        let row = first.x + i / SCRATCH4;
        let column = first.y + i % SCRATCH4;
        let is_column = WHOLE_TILES || column < OUT4;
        if row < run.rows && is_column && (SIZE * SCRATCH4 % lanes == 0u || i < SIZE * SCRATCH4) {
            let at = scratch_at(run) + i * 4u;
            finish_inside(vec4<f32>(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u]), row, column);
        }
    }
}
