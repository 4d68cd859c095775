@group(1) @binding(0) var<storage, read> qkv: array<Elem4>; // [tokens, QKV_STRIDE4]: all of q, all of k, all of v

// Columns 4 i to 4 i + 3 of a head, counted through q, k and v.
fn load(token: u32, head: u32, i: u32) -> vec4<f32> {
    let row = token * QKV_STRIDE4;
    if HEAD_DIM % 4u == 0u {
        return vec4<f32>(qkv[row + head * (HEAD_DIM / 4u) + i]);
    }
    let c = 4u * i;
    return vec4<f32>(load1(row, head, c), load1(row, head, c + 1u), load1(row, head, c + 2u), load1(row, head, c + 3u));
}

// A column of a head; 0 behind the last. (Written one by one, `x[c] = ...`, they are more than FXC, an HLSL compiler, can do.)
fn load1(row: u32, head: u32, column: u32) -> f32 {
    var x = 0.0;
    if column < HEAD_DIM {
        let at = head * HEAD_DIM + column;
        x = f32(qkv[row + at / 4u][at % 4u]);
    }
    return x;
}
