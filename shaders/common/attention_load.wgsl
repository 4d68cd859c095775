@group(1) @binding(0) var<storage, read> qkv: array<Elem4>; // [tokens, QKV_STRIDE4]: all of q, all of k, all of v

// Columns 4 i to 4 i + 3 of a head, counted through q, k and v.
fn load(token: u32, head: u32, i: u32) -> vec4<f32> {
    let first = head * HEAD_DIM + i * 4u;
    let row = token * QKV_STRIDE4;
    if HEAD_DIM % 4u == 0u {
        return vec4<f32>(qkv[row + first / 4u]);
    }
    var x = vec4<f32>();
    for (var c = 0u; c < min(4u, HEAD_DIM - i * 4u); c++) {
        x[c] = f32(qkv[row + (first + c) / 4u][(first + c) % 4u]);
    }
    return x;
}
