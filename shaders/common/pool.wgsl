// One mode of pooling: the rows of a sequence's tokens, added up by LANES threads for each of COLUMNS columns of vec4 in workgroup
// memory, in an order that depends on the sequence alone.
@group(1) @binding(0) var<storage, read> x: array<Elem4>; // [tokens, STRIDE4]

const CLS: u32 = 0u;
const MAX: u32 = 1u;
const MEAN: u32 = 2u;
const MEAN_SQRT_LEN: u32 = 3u;
const WEIGHTED_MEAN: u32 = 4u;
const LAST_TOKEN: u32 = 5u;
const SUM: u32 = 6u;

const LOWEST: f32 = -3.4028234e38;

var<workgroup> scratch: array<vec4<f32>, COLUMNS * LANES>;

// The tokens from `begin` to `stop` take part, of the sequence that begins at `start`; their sum is divided by `divisor`.
struct Span { start: u32, begin: u32, stop: u32, divisor: f32 }

fn span_of(s: u32) -> Span {
    let start = sequences[s].x;
    let end = sequences[s].y;
    let first = min(start + sequences[s].z, end);
    var span = Span(start, first, end, f32(end - first));
    if MODE == CLS {
        // With nothing left, cls is the sequence's first token.
        span.begin = select(first, start, first == end);
        span.stop = min(span.begin + 1u, end);
        span.divisor = 1.0;
    } else if MODE == LAST_TOKEN {
        span.begin = max(first, max(end, 1u) - 1u);
        span.divisor = 1.0;
    } else if MODE == SUM {
        span.divisor = 1.0;
    } else if MODE == MEAN_SQRT_LEN {
        span.divisor = sqrt(span.divisor);
    } else if MODE == WEIGHTED_MEAN {
        // Weights 1, 2, 3, ... count from the sequence's first token: the sum of (first - start + 1) ..= (end - start).
        let a = f32(first - start);
        let b = f32(end - start);
        span.divisor = (b * (b + 1.0) - a * (a + 1.0)) * 0.5;
    }
    return span;
}

fn joined(sum: vec4<f32>, other: vec4<f32>) -> vec4<f32> {
    if MODE == MAX {
        return max(sum, other);
    }
    return sum + other;
}

// A token's four columns, as they count.
fn counted(span: Span, t: u32, column: u32) -> vec4<f32> {
    let v = vec4<f32>(x[t * STRIDE4 + column]);
    if MODE == WEIGHTED_MEAN {
        return v * f32(t - span.start + 1u);
    }
    return v;
}

// Leaves what every LANES-th token adds up to in workgroup memory. Four tokens at a time: their loads do not wait for each other.
fn add_up(span: Span, column: u32, thread: vec3<u32>) {
    var sum = vec4<f32>(select(0.0, LOWEST, MODE == MAX));
    var t = span.begin + thread.y;
    for (; t + 3u * LANES < span.stop; t += 4u * LANES) {
        let a = counted(span, t, column);
        let b = counted(span, t + LANES, column);
        let c = counted(span, t + 2u * LANES, column);
        let d = counted(span, t + 3u * LANES, column);
        sum = joined(sum, joined(joined(a, b), joined(c, d)));
    }
    for (; t < span.stop; t += LANES) {
        sum = joined(sum, counted(span, t, column));
    }
    scratch[thread.y * COLUMNS + thread.x] = sum;
}

// What all threads of a column have left there. After a barrier.
fn pooled(span: Span, thread: vec3<u32>) -> vec4<f32> {
    if span.begin >= span.stop {
        return vec4<f32>(0.0);
    }
    var sum = scratch[thread.x];
    for (var lane = 1u; lane < LANES; lane++) {
        sum = joined(sum, scratch[lane * COLUMNS + thread.x]);
    }
    if MODE == MAX {
        return sum;
    }
    return sum / span.divisor;
}
