//! What a score has besides the product of q and k: the code of a [`PositionBias`].

use crate::gpu::compile::Context;
use crate::gpu::kernel::stride4;
use crate::program::{Attention, Distances, PositionBias, alibi_slope, relative_bucket};
use std::fmt::Write as _;

/// `position_bias(head, query, key)` of common/attention.wgsl.
pub(super) fn position_bias(op: &Attention, context: &Context) -> String {
    // Tables stand outside of the function: within it, FXC gives every thread its own.
    let mut table = String::new();
    let body = match op.bias {
        None => "return 0.0;".to_string(),
        Some(PositionBias::Alibi) => {
            let slopes = (0..op.heads).map(|head| format!("{:?}", alibi_slope(head, op.heads)));
            let slopes = slopes.collect::<Vec<_>>().join(", ");
            table = format!("const SLOPES = array<f32, {}>({slopes});\n", op.heads);
            "return -SLOPES[head] * f32(max(query, key) - min(query, key));".to_string()
        }
        Some(PositionBias::Relative { table, max_distance }) => {
            let buckets = context.weight(table).rows;
            let bucket = |distance| relative_bucket(distance, buckets, max_distance);
            // The bucket within a direction is the number of thresholds that the distance has reached.
            let mut within = String::from("0u");
            for far in 1..=max_distance as i64 {
                for _ in bucket(1 - far)..bucket(-far) {
                    let _ = write!(within, " + u32(far >= {far}u)");
                }
            }
            let half = buckets / 2;
            format!(
                "let far = max(query, key) - min(query, key);\n    \
                 let bucket = {within} + select(0u, {half}u, key > query);\n    \
                 return f32(bias[bucket * {}u + head]);",
                4 * stride4(op.heads)
            )
        }
        Some(PositionBias::Disentangled { table: table_id, distances }) => {
            let (changes, body) = disentangled(op, &distances, context.weight(table_id).cols);
            table = changes;
            body
        }
    };
    format!("{table}fn position_bias(head: u32, query: u32, key: u32) -> f32 {{\n    {body}\n}}\n")
}

/// The table of the distances at which rows change, and the body of `position_bias`: the row of the distance, found in that table, and its products with q
/// and k, whose halves of the table lie one behind the other.
fn disentangled(op: &Attention, distances: &Distances, cols: usize) -> (String, String) {
    let (span, stride) = (distances.span, 4 * stride4(cols));
    let furthest = (1..).find(|&far| distances.row(far) == 2 * span - 1 && distances.row(-far) == 0).unwrap_or(1);
    let changes: Vec<String> = (1..=furthest)
        .filter(|&far| distances.row(far) > distances.row(far - 1) || distances.row(-far) < distances.row(1 - far))
        .map(|far| format!("{far}u"))
        .collect();
    let count = changes.len();
    let changes = changes.join(", ");
    let columns = op.head_dim.div_ceil(4);
    let body = format!(
        "let far = max(query, key) - min(query, key);
    var rows = 0u;
    var end = {count}u;
    while rows < end {{
        let middle = (rows + end) / 2u;
        if far >= CHANGES[middle] {{ rows = middle + 1u; }} else {{ end = middle; }}
    }}
    let row = select({span}u - rows, min({span}u + rows, {last}u), query >= key);
    var sum = 0.0;
    for (var i = 0u; i < {columns}u; i++) {{
        let q = load(query, head, i);
        let k = load(key, HEADS + head, i);
        let at = row * {stride}u + head * HEAD_DIM + i * 4u;
        for (var c = 0u; c < min(4u, HEAD_DIM - i * 4u); c++) {{
            sum += q[c] * f32(bias[at + c]) + k[c] * f32(bias[at + {half}u + c]);
        }}
    }}
    return sum * SCALE_LOG2 / LOG2_E;",
        last = 2 * span - 1,
        half = 2 * span * stride,
    );
    (format!("const CHANGES = array<u32, {count}>({changes});\n"), body)
}
