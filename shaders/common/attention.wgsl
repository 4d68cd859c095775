// Attention: what decides about a score besides q and k, and what is written. `load(token, head, i)` is the kernel's: columns
// 4 i to 4 i + 3 of a head, counted through q, k and v. position_bias() is generated (kernels/attention/bias.rs).
@group(1) @binding(1) var<storage, read> bias: array<Elem4>;     // a table of distances, its rows padded; if there is one
@group(1) @binding(2) var<storage, read_write> out: array<Elem>; // [tokens, OUT_STRIDE]

// Vectors of a head; the last is filled up with zeros.
const HEAD4: u32 = (HEAD_DIM + 3u) / 4u;
const LOG2_E: f32 = 1.442695;

// The scores of one query and four keys, as powers of two, from those of q and k: at most CAP in size, with the bias, and SMALLEST
// where the query does not see the key.
fn see(scores: vec4<f32>, head: u32, query: u32, keys: vec4<u32>, end: u32) -> vec4<f32> {
    var seen = scores;
    if CAPPED {
        // tanh of a large number is NaN on drivers that compute it by exp, and of a small one it is not exact.
        let x = clamp(seen / CAP, vec4<f32>(-10.0), vec4<f32>(10.0));
        seen = CAP * select(tanh(x), x - x * x * x / 3.0, abs(x) < vec4<f32>(0.02));
    }
    if BIASED {
        seen += LOG2_E * vec4<f32>(
            position_bias(head, query, min(keys.x, end - 1u)),
            position_bias(head, query, min(keys.y, end - 1u)),
            position_bias(head, query, min(keys.z, end - 1u)),
            position_bias(head, query, min(keys.w, end - 1u)),
        );
    }
    return select(seen, vec4<f32>(SMALLEST), hidden_keys(query, keys, end));
}

// Writes columns 4 i to 4 i + 3 of a head. Padding behind the last head stays finite.
fn store(query: u32, head: u32, i: u32, y: vec4<f32>) {
    let column = i * 4u;
    let at = query * OUT_STRIDE + head * HEAD_DIM + column;
    if HEAD_DIM % 4u == 0u {
        out[at] = Elem(y.x);
        out[at + 1u] = Elem(y.y);
        out[at + 2u] = Elem(y.z);
        out[at + 3u] = Elem(y.w);
        return;
    }
    if column < HEAD_DIM { out[at] = Elem(y.x); }
    if column + 1u < HEAD_DIM { out[at + 1u] = Elem(y.y); }
    if column + 2u < HEAD_DIM { out[at + 2u] = Elem(y.z); }
    if column + 3u < HEAD_DIM { out[at + 3u] = Elem(y.w); }
    if head == HEADS - 1u && i == HEAD4 - 1u {
        for (var c = HEADS * HEAD_DIM; c < OUT_STRIDE; c++) {
            out[query * OUT_STRIDE + c] = Elem(0.0);
        }
    }
}
