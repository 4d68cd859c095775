// What attention_cooperative.wgsl has in workgroup memory, in vectors: matrices are then read in whole ones. Places are counted in
// vectors; for those of matrices, UNIT elements are a vector.
const UNIT: u32 = 1u;
// The tile's queries; then, over and over, keys and behind them values.
var<workgroup> rows: array<Elem4, ROW_VECTORS>;
var<workgroup> scores: array<vec4<f32>, SCORE_VECTORS>;
var<workgroup> weights: array<Elem4, WEIGHT_VECTORS>;

fn put_row(at: u32, x: Elem4) {
    rows[at] = x;
}

fn score_at(at: u32) -> vec4<f32> {
    return scores[at];
}

fn put_score(at: u32, x: vec4<f32>) {
    scores[at] = x;
}

fn put_weight(at: u32, x: Elem4) {
    weights[at] = x;
}
