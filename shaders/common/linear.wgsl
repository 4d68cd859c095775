// What most kernels of the matrix product share: what they bind but x, weight and bias, and what becomes of a sum.
@group(1) @binding(3) var<storage, read> residual: array<Elem4>;  // [rows, OUT4]; if RESIDUAL
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>; // [rows, OUT4]

// Writes four columns of a row, unless they lie behind the last row or column.
fn finish(sum: vec4<f32>, row: u32, rows: u32, column: u32) {
    if row < rows && column < OUT4 {
        finish_inside(sum, row, column);
    }
}

fn finish_inside(sum: vec4<f32>, row: u32, column: u32) {
    var y = activation(biased(sum, column));
    let at = row * OUT4 + column;
    if RESIDUAL {
        y += vec4<f32>(residual[at]);
    }
    out[at] = Elem4(y);
}
