//! The device's matrix units, through cooperative matrices, for long sequences.

use super::{BINDINGS, Chosen, LOAD_PART, MASK_PART, PART};
use crate::gpu::kernel::{Kernel, Prelude, Target};
use crate::gpu::kernels::matrices::{self, matrix};
use std::fmt::Write as _;
use std::ops::Range;

static ATTENTION_COOPERATIVE: Kernel = Kernel {
    name: "attention_cooperative",
    source: include_str!("../../../../shaders/attention_cooperative.wgsl"),
    parts: &[MASK_PART, PART, LOAD_PART],
    bindings: BINDINGS,
};

/// What it has in workgroup memory: in vectors, and element by element for Metal, whose matrices are of 8. Those of lavapipe are so,
/// too, and can be read from vectors.
const ROWS_PART: &str = include_str!("../../../../shaders/common/attention_rows.wgsl");
const ROWS1_PART: &str = include_str!("../../../../shaders/common/attention_rows1.wgsl");

/// Bands of a query tile. A subgroup computes a band; where there are fewer, each computes several.
const BANDS: usize = 4;

/// Sums of a band, which a subgroup has in registers. 4,096 spill on RDNA 3 (RADV of Mesa 25), 2,048 take 204 registers there with
/// 64 lanes.
pub(super) const MOST_SUMS: usize = 2048;

/// Queries of a tile.
pub(super) fn queries(size: usize, rows: usize) -> usize {
    BANDS * rows * size
}

/// Bytes of workgroup memory: the arrays of attention_cooperative.wgsl.
pub(super) fn bytes(target: &Target, head_dim: usize, queries: usize, keys: usize) -> usize {
    let elem = target.dtype.size();
    let rows = queries.max(2 * keys) * (head_dim + 8) * elem;
    rows + queries * ((keys + 4) * 4 + (keys + 8) * elem + 3 * 4)
}

pub(super) fn choose(
    prelude: Prelude,
    target: &Target,
    head_dim: usize,
    size: usize,
    rows: usize,
    keys: usize,
) -> Chosen {
    let lanes = matrices::lanes(target);
    let parts = (lanes / (rows * size)).max(1);
    let prelude = matrices::prelude(prelude, target, BANDS, size)
        .constant("BANDS", BANDS)
        .constant("BLOCKS_DOWN", rows)
        .constant("KEYS", keys)
        .constant("SCORES_A_LANE", (keys / 4).div_ceil(parts))
        .part(if size == 8 && !target.software { ROWS1_PART } else { ROWS_PART })
        .part(unrolled(size, rows, head_dim / size, keys, BANDS * lanes));
    Chosen { kernel: &ATTENTION_COOPERATIVE, prelude, heads: 1 }
}

/// `attend` of attention_cooperative.wgsl, by so many threads: a line for each of `rows` x `columns` blocks of a band, because
/// cooperative matrices belong into variables of their own and not into an array.
fn unrolled(size: usize, rows: usize, columns: usize, keys: usize, threads: usize) -> String {
    let [a, b, c] = ['A', 'B', 'C'].map(|role| matrix(size, role));
    let blocks = || (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    // The block from row `row` and vector `at` on, in an array of that stride.
    let matrix_at = |array: &str, row: &str, stride: &str, at: &str| {
        format!("&{array}[UNIT * (({row}) * {stride} + {at})], UNIT * {stride}")
    };
    let vectors = |column: usize| format!("{}u", column * size / 4);
    let block = |row: &str, column: usize| matrix_at("rows", row, "STRIDE4", &vectors(column));
    let of_band = |array: &str, row: usize, stride: &str, at: &str| {
        matrix_at(array, &format!("run.band + {}u", row * size), stride, at)
    };
    // Begins what is done for each block of keys. Few are written out, so that a compiler can mix their loads and products.
    let each_key = || match keys / size {
        few @ 1..=2 => (0..few).map(|i| format!("        {{\n            const key = {}u;\n", i * size)).collect(),
        _ => vec![String::from("        for (var key = 0u; key < KEYS; key += SIZE) {\n")],
    };
    let mut text = String::from("fn attend(run: Run) {\n    fetch_queries(run);\n    workgroupBarrier();\n");
    for (row, column) in blocks() {
        let from = of_band("rows", row, "STRIDE4", &vectors(column));
        let _ = writeln!(text, "    let q{row}_{column} = coopLoadT<{a}>({from});");
        let _ = writeln!(text, "    var y{row}_{column}: {c};");
    }
    text.push_str(
        "    workgroupBarrier();
    let k_head = HEADS + kv_head(run.head);
    let v_head = HEADS + KV_HEADS + kv_head(run.head);
    let last = max(run.seen.y, 1u) - 1u; // where no key is seen, there may be none before it\n",
    );
    // What each thread has of a step's keys and values, and the vectors before it.
    let loads = || (0..(keys * columns * size / 4).div_ceil(threads)).map(|i| (i, i * threads));
    for (i, others) in loads() {
        for of in ["k", "v"] {
            let _ = writeln!(text, "    var {of}{i} = fetch({of}_head, run.seen.x, last, run.thread + {others}u);");
        }
    }
    text.push_str("    for (var first = run.seen.x; first < run.seen.y; first += KEYS) {\n");
    for (i, others) in loads() {
        let _ = writeln!(text, "        put_key(0u, run.thread + {others}u, k{i});");
        let _ = writeln!(text, "        put_key(KEYS, run.thread + {others}u, v{i});");
    }
    text.push_str("        workgroupBarrier();\n");
    for (i, others) in loads() {
        for of in ["k", "v"] {
            let _ = writeln!(text, "        {of}{i} = fetch({of}_head, first + KEYS, last, run.thread + {others}u);");
        }
    }
    for key in each_key() {
        text.push_str(&key);
        for row in 0..rows {
            let _ = writeln!(text, "            var s{row}: {c};");
        }
        for column in 0..columns {
            let from = block("key", column);
            let _ = writeln!(text, "            let k{column} = coopLoad<{b}>({from});");
            for row in 0..rows {
                let _ = writeln!(text, "            s{row} = coopMultiplyAdd(q{row}_{column}, k{column}, s{row});");
            }
        }
        for row in 0..rows {
            let to = of_band("scores", row, "SCORES4", "key / 4u");
            let _ = writeln!(text, "            coopStoreT(s{row}, {to});");
        }
        text.push_str("        }\n");
    }
    // A band is its subgroup's alone.
    text.push_str(
        "        subgroupBarrier();\n        var has_grown = weigh(run, first);\n        subgroupBarrier();\n",
    );
    // Once: not `if`, because naga does not know that it is the same for all of a subgroup.
    text.push_str("        while has_grown {\n            has_grown = false;\n");
    let at_once = keys / size;
    let chunks = || (0..columns).step_by(at_once).map(|first| first..columns.min(first + at_once));
    let of_chunk = |chunk: &Range<usize>| {
        let (first, chunk) = (chunk.start, chunk.clone());
        (0..rows).flat_map(move |row| chunk.clone().map(move |column| (row, column, column - first)))
    };
    for chunk in chunks() {
        for (row, column, place) in of_chunk(&chunk) {
            let to = of_band("scores", row, "SCORES4", &vectors(place));
            let _ = writeln!(text, "            coopStoreT(y{row}_{column}, {to});");
        }
        let correct = format!("correct(run, {}u);", chunk.len() * size);
        let _ = writeln!(text, "            subgroupBarrier();\n            {correct}\n            subgroupBarrier();");
        for (row, column, place) in of_chunk(&chunk) {
            let from = of_band("scores", row, "SCORES4", &vectors(place));
            let _ = writeln!(text, "            y{row}_{column} = coopLoadT<{c}>({from});");
        }
        text.push_str("            subgroupBarrier();\n");
    }
    text.push_str("        }\n");
    for key in each_key() {
        text.push_str(&key);
        for row in 0..rows {
            let from = of_band("weights", row, "WEIGHTS4", "key / 4u");
            let _ = writeln!(text, "            let p{row} = coopLoadT<{a}>({from});");
        }
        for column in 0..columns {
            let from = block("KEYS + key", column);
            let _ = writeln!(text, "            let v{column} = coopLoadT<{b}>({from});");
            for row in 0..rows {
                let y = format!("y{row}_{column}");
                let _ = writeln!(text, "            {y} = coopMultiplyAdd(p{row}, v{column}, {y});");
            }
        }
        text.push_str("        }\n");
    }
    text.push_str("        workgroupBarrier();\n    }\n");
    for chunk in chunks() {
        for (row, column, place) in of_chunk(&chunk) {
            let _ = writeln!(
                text,
                "    coopStoreT(y{row}_{column}, {});",
                of_band("scores", row, "SCORES4", &vectors(place))
            );
        }
        let finish = format!("finish(run, {}u, {}u);", chunk.start * size, chunk.len() * size);
        let _ = writeln!(text, "    subgroupBarrier();\n    {finish}\n    subgroupBarrier();");
    }
    text.push_str("    workgroupBarrier();\n}\n");
    text
}
