//! What a score has besides the product of q and k: the code of a [`PositionBias`].

use crate::gpu::compile::Context;
use crate::gpu::kernel::stride4;
use crate::program::{Attention, Distances, PositionBias, alibi_slope};

/// `position_bias(head, query, key)` of common/attention.wgsl.
pub(super) fn position_bias(op: &Attention, context: &Context) -> String {
    // Tables stand outside of the function: within it, FXC gives every thread its own.
    let (before, body) = match op.bias {
        None => (String::new(), "return 0.0;".to_string()),
        Some(PositionBias::Alibi) => {
            let slopes = (0..op.heads).map(|head| format!("{:?}", alibi_slope(head, op.heads)));
            let slopes = slopes.collect::<Vec<_>>().join(", ");
            (
                format!("const SLOPES = array<f32, {}>({slopes});\n", op.heads),
                "return -SLOPES[head] * f32(max(query, key) - min(query, key));".to_string(),
            )
        }
        Some(PositionBias::Relative { table }) => {
            let distances = context.weight(table).cols;
            let body = format!(
                "let at = head * {stride}u + min({furthest}u + key - min(query, {furthest}u + key), {last}u);
    return f32(bias[at / 4u][at % 4u]);",
                stride = 4 * stride4(distances),
                furthest = distances / 2,
                last = distances - 1,
            );
            (String::new(), body)
        }
        Some(PositionBias::Disentangled { distances, .. }) => {
            let body = "let row = table_row(query, key) * TABLE_STRIDE4 * 4u + head * HEAD_DIM;
    let half = 8u * SPAN * TABLE_STRIDE4;
    var sum = 0.0;
    for (var i = 0u; i < HEAD4; i++) {
        let q = load(query, head, i);
        let k = load(key, HEADS + head, i);
        for (var c = 0u; c < min(4u, HEAD_DIM - i * 4u); c++) {
            let at = row + i * 4u + c;
            sum += q[c] * f32(bias[at / 4u][at % 4u]) + k[c] * f32(bias[(half + at) / 4u][at % 4u]);
        }
    }
    return sum * SCALE_LOG2 / LOG2_E;";
            (table_rows(op, &distances), body.to_string())
        }
    };
    format!("{before}fn position_bias(head: u32, query: u32, key: u32) -> f32 {{\n    {body}\n}}\n")
}

/// The table of a disentangled bias: its constants, and `table_row(query, key)`, the row of their distance, which is found among
/// the distances at which rows change. The half of the table that q meets comes first.
pub(super) fn table_rows(op: &Attention, distances: &Distances) -> String {
    let span = distances.span;
    let furthest = (1..).find(|&far| distances.row(far) == 2 * span - 1 && distances.row(-far) == 0).unwrap_or(1);
    let changes: Vec<String> = (1..=furthest)
        .filter(|&far| distances.row(far) > distances.row(far - 1) || distances.row(-far) < distances.row(1 - far))
        .map(|far| format!("{far}u"))
        .collect();
    format!(
        "const CHANGES = array<u32, {count}>({changes});
const SPAN: u32 = {span}u;
const TABLE_STRIDE4: u32 = {stride}u;
fn table_row(query: u32, key: u32) -> u32 {{
    let far = max(query, key) - min(query, key);
    var rows = 0u;
    var end = {count}u;
    while rows < end {{
        let middle = (rows + end) / 2u;
        if far >= CHANGES[middle] {{ rows = middle + 1u; }} else {{ end = middle; }}
    }}
    return select(SPAN - rows, min(SPAN + rows, 2u * SPAN - 1u), query >= key);
}}
",
        count = changes.len(),
        changes = changes.join(", "),
        stride = stride4(op.heads * op.head_dim),
    )
}
