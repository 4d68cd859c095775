// Rotary positions (Su et al. 2021): in each head of q and k, the columns i and i + HEAD_DIM / 2 are turned by the angle of the
// token's position and i. v passes through.
// A workgroup takes a token.
@group(1) @binding(0) var<storage, read> qkv: array<Elem>;       // [tokens, STRIDE]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read> table: array<f32>;      // [positions, TABLE_STRIDE]: cosines, then sines
@group(1) @binding(2) var<storage, read_write> out: array<Elem>; // [tokens, STRIDE]

const HALF: u32 = HEAD_DIM / 2u;

@compute @workgroup_size(64)
fn rotary(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group_index(workgroup, workgroups);
    if t >= batch.tokens {
        return;
    }
    let row = t * STRIDE;
    let angles = tokens[t].y * TABLE_STRIDE;
    for (var i = lane; i < HEADS * HALF; i += 64u) {
        let pair = i % HALF;
        let at = row + i / HALF * HEAD_DIM + pair;
        let a = f32(qkv[at]);
        let b = f32(qkv[at + HALF]);
        let cosine = table[angles + pair];
        let sine = table[angles + HALF + pair];
        out[at] = Elem(a * cosine - b * sine);
        out[at + HALF] = Elem(b * cosine + a * sine);
    }
    for (var c = HEADS * HEAD_DIM + lane; c < STRIDE; c += 64u) {
        out[row + c] = qkv[row + c];
    }
}
