//! Multi-head self-attention within each sequence.
//!
//! - `attention.wgsl`: one or more threads a query row, keys and values through workgroup memory; needs no feature, any head
//!   width, any mask and bias.
//! - `attention_subgroup.wgsl`: broadcasts instead of barriers, for software adapters with a fixed subgroup size.

use super::linear::words;
use crate::error::{Error, Result};
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, Target, stride4};
use crate::gpu::weights::{ROWS, WeightUse};
use crate::program::{Attention, Distances, PositionBias, alibi_slope, relative_bucket};
use std::fmt::Write as _;

static ATTENTION: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../../shaders/attention.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Write],
};

static ATTENTION_SUBGROUP: Kernel = Kernel {
    name: "attention_subgroup",
    source: include_str!("../../../shaders/attention_subgroup.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

/// Workgroup memory of `attention.wgsl`, in `vec4<f32>`: 16 KiB, which every device has.
const WORKGROUP_VEC4S: usize = 1024;

/// The subgroup size that `attention_subgroup.wgsl` would be compiled for.
fn lanes(target: &Target) -> Option<usize> {
    match target.features.subgroup_size {
        Some(lanes @ (4 | 8 | 16)) if target.software => Some(lanes as usize),
        _ => None,
    }
}

/// Queries of one tile: the host cuts sequences into tiles of at most so many.
pub fn query_tile(target: &Target) -> u32 {
    if lanes(target).is_some() { 32 } else { 64 }
}

/// Threads a query and keys at a time of `attention.wgsl`. A thread of 8 `vec4`s of q and as many sums takes about 80
/// vector registers on RDNA 2 and 3; one of 16 spills on RDNA 3 (RADV of Mesa 22.3).
fn shape(head4: usize, tile: usize) -> (usize, usize) {
    let keys = |split: usize| {
        let partial_scores = if split > 1 { tile * split / 4 } else { 0 };
        let vec4s = 2 * head4.next_multiple_of(split) + partial_scores;
        ((WORKGROUP_VEC4S - usize::from(split == 1)) / vec4s).min(32) / 4 * 4
    };
    // 256 invocations are what every device allows.
    let split = head4.div_ceil(8).next_power_of_two().min(256 / tile);
    if keys(split) > 0 { (split, keys(split)) } else { (1, keys(1)) }
}

/// The launches of attention.
///
/// # Errors
/// [`Error::Device`] if a head is so wide that four keys and values of it do not fit workgroup memory.
pub fn launches(op: &Attention, context: &Context) -> Result<Vec<Launch>> {
    let head4 = stride4(op.head_dim);
    let prelude = context
        .prelude()
        .constant("HEADS", op.heads)
        .constant("HEAD_DIM", op.head_dim)
        .constant("SCALE_LOG2", op.scale * std::f32::consts::LOG2_E)
        .constant("QKV_STRIDE4", stride4(context.shape(op.qkv).cols));
    let out4 = stride4(context.out_shape().cols);
    let mut slots = vec![Slot::Value(op.qkv), Slot::Value(context.out)];
    let (kernel, prelude) = match lanes(context.target) {
        Some(lanes) if op.head_dim.is_multiple_of(4) && is_plain(op) => {
            let part = words(context.target.dtype, context.target.features.int64);
            let prelude = prelude.constant("OUT_STRIDE4", out4).constant("SUBGROUP_SIZE", lanes).part(part);
            (&ATTENTION_SUBGROUP, unrolled(prelude, lanes, head4))
        }
        _ => {
            let tile = query_tile(context.target) as usize;
            let (split, keys) = shape(head4, tile);
            if keys == 0 {
                return Err(Error::Device(format!("a head of {} columns; attention takes at most 496", op.head_dim)));
            }
            let table = op.table().map(|table| WeightUse::whole(table, context.weight(table), &ROWS));
            slots.insert(1, table.map_or(Slot::Unused, Slot::Weight));
            let prelude = prelude
                .constant("OUT_STRIDE", out4 * 4)
                .constant("QUERY_TILE", tile)
                .constant("SPLIT", split)
                .constant("KEYS", keys)
                .constant("KV_HEADS", op.kv_heads)
                .constant("WINDOW", op.window.map_or(u32::MAX, |window| window.min(u32::MAX as usize) as u32))
                .constant("CAUSAL", op.causal)
                .constant("BIASED", op.bias.is_some())
                .part(position_bias(op, context));
            (&ATTENTION, prelude)
        }
    };
    Ok(vec![Launch {
        kernel,
        prelude,
        items: Launch::ALWAYS,
        params: vec![],
        slots,
        grid: Grid { count: Count::QueryTiles, per_group: 1, columns: op.heads as u32 },
    }])
}

/// Whether every query sees every key and scores depend on q and k alone: all that attention_subgroup.wgsl can.
fn is_plain(op: &Attention) -> bool {
    op.kv_heads == op.heads && op.window.is_none() && !op.causal && op.bias.is_none()
}

/// `position_bias(head, query, key)` of attention.wgsl.
fn position_bias(op: &Attention, context: &Context) -> String {
    let body = match op.bias {
        None => "return 0.0;".to_string(),
        Some(PositionBias::Alibi) => {
            let slopes = (0..op.heads).map(|head| format!("{:?}", alibi_slope(head, op.heads)));
            let slopes = slopes.collect::<Vec<_>>().join(", ");
            format!(
                "var slopes = array<f32, {}>({slopes});\n    \
                 return -slopes[head] * f32(max(query, key) - min(query, key));",
                op.heads
            )
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
        Some(PositionBias::Disentangled { table, distances }) => {
            disentangled(op, &distances, context.weight(table).cols)
        }
    };
    format!("fn position_bias(head: u32, query: u32, key: u32) -> f32 {{\n    {body}\n}}\n")
}

/// The body of `position_bias`: the row of the distance, found among the distances at which rows change, and its products with q
/// and k, whose halves of the table lie one behind the other.
fn disentangled(op: &Attention, distances: &Distances, cols: usize) -> String {
    let (span, stride) = (distances.span, 4 * stride4(cols));
    let furthest = (1..).find(|&far| distances.row(far) == 2 * span - 1 && distances.row(-far) == 0).unwrap_or(1);
    let changes: Vec<String> = (1..=furthest)
        .filter(|&far| distances.row(far) > distances.row(far - 1) || distances.row(-far) < distances.row(1 - far))
        .map(|far| format!("{far}u"))
        .collect();
    let count = changes.len();
    let changes = changes.join(", ");
    let columns = op.head_dim.div_ceil(4);
    format!(
        "var changes = array<u32, {count}>({changes});
    let far = max(query, key) - min(query, key);
    var rows = 0u;
    var end = {count}u;
    while rows < end {{
        let middle = (rows + end) / 2u;
        if far >= changes[middle] {{ rows = middle + 1u; }} else {{ end = middle; }}
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
    )
}

/// `State`, `start`, `attend` and `store` of attention_subgroup.wgsl. The sums are named fields, because an array that
/// is indexed by a variable stays in memory. The code is kept to about 1,024 multiplications, for its compile time: wide
/// heads take fewer keys at once, then fewer queries.
fn unrolled(prelude: Prelude, lanes: usize, head4: usize) -> Prelude {
    let block = (32 / head4).clamp(1, 4);
    let queries = (1024 / (lanes * head4 * block)).clamp(1, 32 / lanes);
    let groups = head4.div_ceil(lanes);
    let all = || (0..queries).flat_map(|query| (0..head4).map(move |column| (query, column)));

    let mut text = String::from("struct State {\n");
    for query in 0..queries {
        let _ = writeln!(text, "    largest{query}: f32,\n    total{query}: f32,");
    }
    for (query, column) in all() {
        let _ = writeln!(text, "    q{query}_{column}: vec4<f32>,\n    o{query}_{column}: vec4<f32>,");
    }
    text.push_str("}\nfn start(state: ptr<function, State>, tile: vec4<u32>, i: u32, head: u32) {\n");
    for query in 0..queries {
        let _ = writeln!(text, "    (*state).largest{query} = SMALLEST;");
    }
    for (query, column) in all() {
        let i = query * lanes;
        let _ = writeln!(text, "    (*state).q{query}_{column} = query(tile, i + {i}u, head * HEAD4 + {column}u);");
    }
    text.push_str("}\nfn attend(state: ptr<function, State>, first: u32, end: u32, column: u32, lane: u32) {\n");
    for (key, group) in (0..block).flat_map(|key| (0..groups).map(move |group| (key, group))) {
        let _ = writeln!(
            text,
            "    let at{key}_{group} = min(first + {key}u, end - 1u) * QKV_STRIDE4 + column + min(lane + {}u, HEAD4 - 1u);\n    \
             let k{key}_{group} = quad(qkv[at{key}_{group}]);\n    \
             let v{key}_{group} = quad(qkv[at{key}_{group} + HEADS * HEAD4]);",
            group * lanes
        );
    }
    let broadcast = |text: &mut String, name: char, key: usize, column: usize| {
        let (group, lane) = (column / lanes, column % lanes);
        let _ = writeln!(text, "    let {name}b{key}_{column} = subgroupBroadcast({name}{key}_{group}, {lane}u);");
    };
    for key in 0..block {
        for column in 0..head4 {
            broadcast(&mut text, 'k', key, column);
        }
        for query in 0..queries {
            let dots = (0..head4).map(|column| format!("dot((*state).q{query}_{column}, kb{key}_{column})"));
            let dots = dots.collect::<Vec<_>>().join(" + ");
            let _ = writeln!(text, "    let s{query}_{key} = select(SMALLEST, {dots}, first + {key}u < end);");
        }
    }
    for query in 0..queries {
        let _ = writeln!(text, "    var highest{query} = (*state).largest{query};");
        for key in 0..block {
            let _ = writeln!(text, "    highest{query} = max(highest{query}, s{query}_{key});");
        }
        let _ = writeln!(text, "    let keep{query} = exp2((*state).largest{query} - highest{query});");
        for key in 0..block {
            let _ = writeln!(text, "    let p{query}_{key} = exp2(s{query}_{key} - highest{query});");
        }
        let sum = (0..block).map(|key| format!("p{query}_{key}")).collect::<Vec<_>>().join(" + ");
        let _ = writeln!(
            text,
            "    (*state).largest{query} = highest{query};\n    \
             (*state).total{query} = (*state).total{query} * keep{query} + ({sum});"
        );
    }
    for column in 0..head4 {
        for key in 0..block {
            broadcast(&mut text, 'v', key, column);
        }
        for query in 0..queries {
            let sum = (0..block).map(|key| format!("p{query}_{key} * vb{key}_{column}")).collect::<Vec<_>>();
            let o = format!("(*state).o{query}_{column}");
            let _ = writeln!(text, "    {o} = {o} * keep{query} + {};", sum.join(" + "));
        }
    }
    text.push_str("}\nfn store(state: State, tile: vec4<u32>, i: u32, head: u32) {\n");
    for query in 0..queries {
        let i = query * lanes;
        let _ = writeln!(
            text,
            "    if i + {i}u < tile.y {{\n        let at = (tile.x + i + {i}u) * OUT_STRIDE4 + head * HEAD4;"
        );
        for column in 0..head4 {
            let _ =
                writeln!(text, "        out[at + {column}u] = Elem4(state.o{query}_{column} / state.total{query});");
        }
        text.push_str("    }\n");
    }
    text.push_str("}\n");
    prelude.constant("QUERIES", queries).constant("BLOCK", block).part(text)
}
