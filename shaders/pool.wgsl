// One row for each sequence from the rows of its tokens (common/pool.wgsl): one block of columns of the concatenated modes.
// A workgroup makes 4 * COLUMNS columns of one sequence.
@group(1) @binding(1) var<storage, read_write> out: array<Elem>; // [sequences, OUT_STRIDE], from column FIRST_COLUMN

@compute @workgroup_size(COLUMNS, LANES)
fn pool(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
) {
    let s = group_index(workgroup, workgroups);
    if s >= batch.sequences {
        return;
    }
    let span = span_of(s);
    let c = workgroup.z * COLUMNS + thread.x;
    add_up(span, min(c, STRIDE4 - 1u), thread);
    workgroupBarrier();
    if thread.y != 0u || c >= STRIDE4 {
        return;
    }
    let y = pooled(span, thread);
    let at = s * OUT_STRIDE;
    for (var i = 0u; i < 4u; i++) {
        let column = FIRST_COLUMN + 4u * c + i;
        if 4u * c + i < COLS {
            out[at + column] = Elem(y[i]);
        } else if LAST && column < OUT_STRIDE {
            out[at + column] = Elem(0.0);
        }
    }
    // The concatenation may need more padding than the last block's own.
    if LAST && c == STRIDE4 - 1u {
        for (var column = FIRST_COLUMN + 4u * STRIDE4; column < OUT_STRIDE; column++) {
            out[at + column] = Elem(0.0);
        }
    }
}
