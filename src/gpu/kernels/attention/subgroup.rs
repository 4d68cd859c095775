//! Broadcasts instead of barriers and reductions, for software adapters with a fixed subgroup size.

use super::super::linear::words;
use super::{Chosen, MASK_PART};
use crate::gpu::kernel::{Binding, Kernel, Prelude, Target, stride4};
use crate::program::Attention;
use std::fmt::Write as _;

static ATTENTION_SUBGROUP: Kernel = Kernel {
    name: "attention_subgroup",
    source: include_str!("../../../../shaders/attention_subgroup.wgsl"),
    parts: &[MASK_PART],
    bindings: &[Binding::Read, Binding::Write],
};

/// Queries of a tile.
pub(super) const QUERIES: usize = 32;

/// Whether scores depend on q and k alone, in whole vectors: all that the kernel can.
pub(super) fn fits(op: &Attention) -> bool {
    op.head_dim.is_multiple_of(4) && op.bias.is_none() && op.softcap.is_none()
}

pub(super) fn choose(prelude: Prelude, target: &Target, op: &Attention, lanes: usize, out4: usize) -> Chosen {
    let part = words(target.dtype, target.features.int64);
    let prelude = prelude.constant("OUT_STRIDE4", out4).constant("SUBGROUP_SIZE", lanes).part(part);
    Chosen { kernel: &ATTENTION_SUBGROUP, prelude: unrolled(prelude, lanes, stride4(op.head_dim)), heads: 1 }
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
        let _ = writeln!(text, "    token{query}: u32,\n    largest{query}: f32,\n    total{query}: f32,");
    }
    for (query, column) in all() {
        let _ = writeln!(text, "    q{query}_{column}: vec4<f32>,\n    o{query}_{column}: vec4<f32>,");
    }
    text.push_str("}\nfn start(state: ptr<function, State>, tile: vec4<u32>, i: u32, head: u32) {\n");
    for query in 0..queries {
        // Lanes behind the tile's last query repeat it.
        let _ = writeln!(
            text,
            "    (*state).largest{query} = LEAST;\n    \
             (*state).token{query} = tile.x + min(i + {}u, tile.y - 1u);",
            query * lanes
        );
    }
    for (query, column) in all() {
        let _ =
            writeln!(text, "    (*state).q{query}_{column} = query((*state).token{query}, head * HEAD4 + {column}u);");
    }
    text.push_str("}\nfn attend(state: ptr<function, State>, first: u32, end: u32, column: u32, lane: u32) {\n");
    for (key, group) in (0..block).flat_map(|key| (0..groups).map(move |group| (key, group))) {
        let _ = writeln!(
            text,
            "    let at{key}_{group} = min(first + {key}u, end - 1u) * QKV_STRIDE4 + column + min(lane + {}u, HEAD4 - 1u);\n    \
             let k{key}_{group} = quad(qkv[at{key}_{group}]);\n    \
             let v{key}_{group} = quad(qkv[at{key}_{group} + KV_HEADS * HEAD4]);",
            group * lanes
        );
    }
    let broadcast = |text: &mut String, name: char, key: usize, column: usize| {
        let (group, lane) = (column / lanes, column % lanes);
        let _ = writeln!(text, "    let {name}b{key}_{column} = subgroupBroadcast({name}{key}_{group}, {lane}u);");
    };
    for query in 0..queries {
        let keys = "first + vec4<u32>(0u, 1u, 2u, 3u)";
        let _ = writeln!(text, "    let hidden{query} = hidden_keys((*state).token{query}, {keys}, end);");
    }
    for key in 0..block {
        for column in 0..head4 {
            broadcast(&mut text, 'k', key, column);
        }
        for query in 0..queries {
            let dots = (0..head4).map(|column| format!("dot((*state).q{query}_{column}, kb{key}_{column})"));
            let dots = dots.collect::<Vec<_>>().join(" + ");
            let of_key = ["x", "y", "z", "w"][key];
            let _ = writeln!(text, "    let s{query}_{key} = select({dots}, SMALLEST, hidden{query}.{of_key});");
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
            "    if i + {i}u < tile.y {{\n        let at = (tile.x + i + {i}u) * OUT_STRIDE4 + head * HEAD4;\n        \
             let total = divisor(state.total{query});"
        );
        for column in 0..head4 {
            let _ = writeln!(text, "        out[at + {column}u] = Elem4(state.o{query}_{column} / total);");
        }
        text.push_str("    }\n");
    }
    text.push_str("}\n");
    prelude.constant("QUERIES", queries).constant("BLOCK", block).part(text)
}
