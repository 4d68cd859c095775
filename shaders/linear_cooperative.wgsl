// y = activation(x * weight^T + bias) + residual, by cooperative matrices of SIZE x SIZE.
// A workgroup computes PARTS_A_SIDE x PARTS_A_SIDE parts of BLOCKS_DOWN x BLOCKS_ACROSS blocks; each of its subgroups takes one
// part after the other, whose number its size must divide. part() is generated (kernels/linear/cooperative.rs): it keeps
// the sums of a part in cooperative matrices, and hands them to finish_blocks().
@group(1) @binding(0) var<storage, read> x: array<Elem>;          // [rows, INNER], rows filled up to whole blocks
@group(1) @binding(1) var<storage, read> weight: array<Elem>;     // [TILES, INNER / SIZE, SIZE, SIZE]: a column, then its inner ones

// The first element of a block of x. Blocks behind the last are computed from the last, and not written.
fn x_at(run: Run, block: u32) -> u32 {
    return min(run.row + block * SIZE, (run.rows - 1u) / SIZE * SIZE) * INNER;
}

// The first element of the weight's tiles for a block of columns.
fn w_at(run: Run, block: u32) -> u32 {
    return (run.matrix * TILES + min(run.tile + block, TILES - 1u)) * SIZE * INNER;
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
    let first = group_index(workgroup, workgroups) * PARTS_A_SIDE * PART_ROWS;
    let share = share_of(first);
    if first >= share.rows {
        return; // the whole workgroup
    }
    for (var i = 0u; i < PARTS; i += subgroups) {
        part(new_run(i + subgroup, first, workgroup.z * PARTS_A_SIDE * BLOCKS_ACROSS, lane, lanes, share));
    }
}
