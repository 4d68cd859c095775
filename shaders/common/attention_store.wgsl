// For heads of whole vectors.
@group(1) @binding(2) var<storage, read_write> out: array<Elem4>; // [tokens, OUT_STRIDE / 4]

// Writes columns 4 i to 4 i + 3 of a head.
fn store(query: u32, head: u32, i: u32, y: vec4<f32>) {
    out[query * (OUT_STRIDE / 4u) + head * (HEAD_DIM / 4u) + i] = Elem4(y);
}
