// One row for each sequence from the rows of its tokens (common/pool.wgsl), divided by max(its L2 norm, 1e-12).
// A workgroup makes one sequence's row, COLUMNS columns of vec4 at a time. Of these BLOCKS blocks, each thread keeps its column of
// every LANES-th one.
@group(1) @binding(1) var<storage, read_write> out: array<Elem4>; // [sequences, STRIDE4]

const KEPT: u32 = (BLOCKS + LANES - 1u) / LANES;

var<workgroup> squares: array<f32, COLUMNS * LANES>;

@compute @workgroup_size(COLUMNS, LANES)
fn pool_normalize(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
) {
    let s = group_index(workgroup, workgroups);
    if s >= batch.sequences {
        return;
    }
    let span = span_of(s);
    var kept: array<vec4<f32>, KEPT>;
    var square = 0.0;
    for (var block = 0u; block < BLOCKS; block++) {
        let c = block * COLUMNS + thread.x;
        add_up(span, min(c, STRIDE4 - 1u), thread);
        workgroupBarrier();
        if thread.y == block % LANES {
            let exists = vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLS);
            let y = select(vec4<f32>(0.0), pooled(span, thread), exists);
            kept[block / LANES] = y;
            square += dot(y, y);
        }
        workgroupBarrier(); // before the next block overwrites what was added up
    }

    let at = thread.y * COLUMNS + thread.x;
    squares[at] = square;
    for (var half = COLUMNS * LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if at < half {
            squares[at] += squares[at + half];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / max(sqrt(squares[0]), 1e-12);
    for (var i = 0u; i < KEPT; i++) {
        let c = (i * LANES + thread.y) * COLUMNS + thread.x;
        if c < STRIDE4 {
            out[s * STRIDE4 + c] = Elem4(kept[i] * scale);
        }
    }
}
