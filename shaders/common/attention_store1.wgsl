// For heads whose last vector is not whole: column by column.
@group(1) @binding(2) var<storage, read_write> out: array<Elem>; // [tokens, OUT_STRIDE]

// Writes columns 4 i to 4 i + 3 of a head. Padding behind the last head stays finite.
fn store(query: u32, head: u32, i: u32, y: vec4<f32>) {
    let column = i * 4u;
    let at = query * OUT_STRIDE + head * HEAD_DIM + column;
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
