// Attention: what decides about a score besides q and k. position_bias() is generated (kernels/attention/bias.rs).
@group(1) @binding(1) var<storage, read> bias: array<Elem4>;     // a table of distances, its rows padded; if there is one

// Vectors of a head; the last is filled up with zeros.
const HEAD4: u32 = (HEAD_DIM + 3u) / 4u;
const LOG2_E: f32 = 1.442695;

// The scores of one query and four keys, as powers of two, from those of q and k: at most CAP in size, with the bias, and SMALLEST
// where the query does not see the key.
fn see(scores: vec4<f32>, head: u32, query: u32, keys: vec4<u32>, end: u32) -> vec4<f32> {
    return select(adjust(scores, head, query, keys, end), vec4<f32>(SMALLEST), hidden_keys(query, keys, end));
}

// The same of keys that are all seen.
fn adjust(scores: vec4<f32>, head: u32, query: u32, keys: vec4<u32>, end: u32) -> vec4<f32> {
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
    return seen;
}
