// The gated short convolution of LFM2: y = c * (bias + the sum over TAPS tokens of weight * b * x), each column by itself, over a
// token and those before it in its sequence.
// A workgroup takes a token.
@group(1) @binding(0) var<storage, read> bcx: array<Elem>;       // [tokens, STRIDE]: all of b, all of c, all of x
@group(1) @binding(1) var<storage, read> weight: array<Elem>;    // [TAPS, OUT_STRIDE]: the last is the token's own
@group(1) @binding(2) var<storage, read> bias: array<f32>;       // [COLS], if BIAS
@group(1) @binding(3) var<storage, read_write> out: array<Elem>; // [tokens, OUT_STRIDE]

@compute @workgroup_size(64)
fn short_conv(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group_index(workgroup, workgroups);
    if t >= batch.tokens {
        return;
    }
    let taps = min(TAPS, t - sequences[tokens[t].w].x + 1u);
    for (var column = lane; column < COLS; column += 64u) {
        var sum = 0.0;
        if BIAS {
            sum = bias[column];
        }
        for (var back = 0u; back < taps; back++) {
            let at = (t - back) * STRIDE + column;
            sum += f32(weight[(TAPS - 1u - back) * OUT_STRIDE + column]) * f32(bcx[at]) * f32(bcx[at + 2u * COLS]);
        }
        out[t * OUT_STRIDE + column] = Elem(sum * f32(bcx[t * STRIDE + COLS + column]));
    }
    for (var column = COLS + lane; column < OUT_STRIDE; column += 64u) {
        out[t * OUT_STRIDE + column] = Elem(0.0);
    }
}
