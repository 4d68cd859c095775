// Normalisation of each group of columns of q and of k by itself: a head (Qwen3, Gemma 3), or all heads (JinaBERT). v passes
// through.
// A workgroup takes a token, a thread a group: its columns twice around their mean, or once for the root mean square.
@group(1) @binding(0) var<storage, read> qkv: array<Elem>;       // [tokens, STRIDE]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read> weight: array<f32>;     // [2 * GROUP]: of q, then of k
@group(1) @binding(2) var<storage, read> bias: array<f32>;       // the same; if BIAS
@group(1) @binding(3) var<storage, read_write> out: array<Elem>; // [tokens, STRIDE]

@compute @workgroup_size(64)
fn head_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group_index(workgroup, workgroups);
    if t >= batch.tokens {
        return;
    }
    let row = t * STRIDE;
    for (var group = lane; group < GROUPS; group += 64u) {
        let at = row + group * GROUP;
        var mean = 0.0;
        if CENTRED {
            for (var c = 0u; c < GROUP; c++) {
                mean += f32(qkv[at + c]);
            }
            mean /= f32(GROUP);
        }
        var squares = 0.0;
        for (var c = 0u; c < GROUP; c++) {
            let d = f32(qkv[at + c]) - mean;
            squares += d * d;
        }
        let scale = 1.0 / sqrt(squares / f32(GROUP) + EPS);
        let of_k = select(0u, GROUP, group >= GROUPS_OF_Q);
        for (var c = 0u; c < GROUP; c++) {
            var y = (f32(qkv[at + c]) - mean) * scale * weight[of_k + c];
            if BIAS {
                y += bias[of_k + c];
            }
            out[at + c] = Elem(y);
        }
    }
    for (var c = GROUPS * GROUP + lane; c < STRIDE; c += 64u) {
        out[row + c] = qkv[row + c];
    }
}
