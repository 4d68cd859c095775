// One row for each sequence from the rows of its tokens: one block of columns of the concatenated modes.
// A workgroup makes 4 * COLUMNS columns of one sequence; its LANES rows of threads take every LANES-th token and add up in
// workgroup memory, in an order that depends on the sequence alone.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;        // [tokens, STRIDE4]
@group(1) @binding(1) var<storage, read_write> out: array<Elem>; // [sequences, OUT_STRIDE], from column FIRST_COLUMN

const CLS: u32 = 0u;
const MAX: u32 = 1u;
const MEAN: u32 = 2u;
const MEAN_SQRT_LEN: u32 = 3u;
const WEIGHTED_MEAN: u32 = 4u;
const LAST_TOKEN: u32 = 5u;

const LOWEST: f32 = -3.4028234e38;

var<workgroup> scratch: array<vec4<f32>, COLUMNS * LANES>;

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
    let start = sequences[s].x;
    let end = sequences[s].y;
    let first = min(start + sequences[s].z, end);
    let c = workgroup.z * COLUMNS + thread.x;
    let column = min(c, STRIDE4 - 1u);

    // The tokens that take part, and their weights' sum.
    var from = first;
    var to = end;
    var divisor = f32(end - first);
    if MODE == CLS {
        // With nothing left, cls is the sequence's first token.
        from = select(first, start, first == end);
        to = min(from + 1u, end);
        divisor = 1.0;
    } else if MODE == LAST_TOKEN {
        from = max(first, max(end, 1u) - 1u);
        divisor = 1.0;
    } else if MODE == MEAN_SQRT_LEN {
        divisor = sqrt(divisor);
    } else if MODE == WEIGHTED_MEAN {
        // Weights 1, 2, 3, ... count from the sequence's first token: the sum of (first - start + 1) ..= (end - start).
        let a = f32(first - start);
        let b = f32(end - start);
        divisor = (b * (b + 1.0) - a * (a + 1.0)) * 0.5;
    }

    var sum = vec4<f32>(select(0.0, LOWEST, MODE == MAX));
    for (var t = from + thread.y; t < to; t += LANES) {
        let v = vec4<f32>(x[t * STRIDE4 + column]);
        if MODE == MAX {
            sum = max(sum, v);
        } else if MODE == WEIGHTED_MEAN {
            sum += v * f32(t - start + 1u);
        } else {
            sum += v;
        }
    }
    scratch[thread.y * COLUMNS + thread.x] = sum;
    workgroupBarrier();
    if thread.y != 0u || c >= STRIDE4 {
        return;
    }
    for (var lane = 1u; lane < LANES; lane++) {
        let other = scratch[lane * COLUMNS + thread.x];
        if MODE == MAX {
            sum = max(sum, other);
        } else {
            sum += other;
        }
    }
    var y = vec4<f32>(0.0);
    if from < to {
        y = sum;
        if MODE != MAX {
            y /= divisor;
        }
    }
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
