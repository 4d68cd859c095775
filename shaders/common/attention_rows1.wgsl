// What attention_cooperative.wgsl has in workgroup memory, element by element: Metal, whose matrices are of 8, reads them from
// nothing else. Places are counted in vectors; for those of matrices, UNIT elements are a vector.
const UNIT: u32 = 4u;
// The tile's queries; then, over and over, keys and behind them values.
var<workgroup> rows: array<Elem, 4u * ROW_VECTORS>;
var<workgroup> scores: array<f32, 4u * SCORE_VECTORS>;
var<workgroup> weights: array<Elem, 4u * WEIGHT_VECTORS>;

fn put_row(at: u32, x: Elem4) {
    rows[4u * at] = x.x;
    rows[4u * at + 1u] = x.y;
    rows[4u * at + 2u] = x.z;
    rows[4u * at + 3u] = x.w;
}

fn score_at(at: u32) -> vec4<f32> {
    return vec4<f32>(scores[4u * at], scores[4u * at + 1u], scores[4u * at + 2u], scores[4u * at + 3u]);
}

fn put_score(at: u32, x: vec4<f32>) {
    scores[4u * at] = x.x;
    scores[4u * at + 1u] = x.y;
    scores[4u * at + 2u] = x.z;
    scores[4u * at + 3u] = x.w;
}

fn put_weight(at: u32, x: Elem4) {
    weights[4u * at] = x.x;
    weights[4u * at + 1u] = x.y;
    weights[4u * at + 2u] = x.z;
    weights[4u * at + 3u] = x.w;
}
