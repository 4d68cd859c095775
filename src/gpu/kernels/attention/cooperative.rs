//! The device's matrix units, through cooperative matrices, for long sequences.

use super::{BINDINGS, Chosen, LOAD_PART, MASK_PART, PART};
use crate::gpu::kernel::{Kernel, Prelude, Target};
use std::fmt::Write as _;

static ATTENTION_COOPERATIVE: Kernel = Kernel {
    name: "attention_cooperative",
    source: include_str!("../../../../shaders/attention_cooperative.wgsl"),
    parts: &[MASK_PART, PART, LOAD_PART],
    bindings: BINDINGS,
};

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
    rows + queries * ((keys + 4) * 4 + (keys + 8) * elem + 3 * 4) + 4 * 4
}

pub(super) fn choose(
    prelude: Prelude,
    target: &Target,
    head_dim: usize,
    size: usize,
    rows: usize,
    keys: usize,
) -> Chosen {
    // A subgroup a band; where their size varies, it is 32 or 64, and there are 4 or 2.
    let lanes = target.features.subgroup_size.unwrap_or(32) as usize;
    let prelude = prelude
        .cooperative()
        .constant("THREADS", BANDS * lanes)
        .constant("BANDS", BANDS)
        .constant("SIZE", size)
        .constant("BLOCKS_DOWN", rows)
        .constant("KEYS", keys)
        .part(unrolled(size, rows, head_dim / size, keys / size));
    Chosen { kernel: &ATTENTION_COOPERATIVE, prelude, heads: 1 }
}

/// `attend` of attention_cooperative.wgsl: a line for each of `rows` x `columns` blocks of a band, because cooperative matrices
/// belong into variables of their own and not into an array. Sums pass through workgroup memory `at_once` columns of blocks at a time.
fn unrolled(size: usize, rows: usize, columns: usize, at_once: usize) -> String {
    let matrix = |role: char| format!("coop_mat{size}x{size}<{}, {role}>", if role == 'C' { "f32" } else { "Elem" });
    let (a, b, c) = (matrix('A'), matrix('B'), matrix('C'));
    let blocks = || (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    // Where block `row` of the band begins in an array of that stride.
    let at = |row: usize, stride: &str| format!("(run.band + {}u) * {stride}", row * size);
    let mut text = String::from("fn attend(run: Run) {\n    fetch_queries(run);\n    workgroupBarrier();\n");
    for (row, column) in blocks() {
        let from = format!("&rows[{} + {}u]", at(row, "STRIDE"), column * size);
        let _ = writeln!(text, "    let q{row}_{column} = coopLoadT<{a}>({from}, STRIDE);");
        let _ = writeln!(text, "    var y{row}_{column}: {c};");
    }
    text.push_str(
        "    workgroupBarrier();
    for (var first = run.seen.x; first < run.seen.y; first += KEYS) {
        fetch_keys(run, first);
        workgroupBarrier();
        let width = min(KEYS, (run.seen.y - first + SIZE - 1u) / SIZE * SIZE);
        for (var key = 0u; key < width; key += SIZE) {\n",
    );
    for row in 0..rows {
        let _ = writeln!(text, "            var s{row}: {c};");
    }
    for column in 0..columns {
        let from = format!("&rows[key * STRIDE + {}u]", column * size);
        let _ = writeln!(text, "            let k{column} = coopLoad<{b}>({from}, STRIDE);");
        for row in 0..rows {
            let _ = writeln!(text, "            s{row} = coopMultiplyAdd(q{row}_{column}, k{column}, s{row});");
        }
    }
    for row in 0..rows {
        let _ = writeln!(text, "            coopStoreT(s{row}, &scores[{} + key], SCORES);", at(row, "SCORES"));
    }
    text.push_str(
        "        }
        workgroupBarrier();
        weigh(run, first, width);
        workgroupBarrier();
        if atomicLoad(&grown[0]) != 0u {\n",
    );
    let chunks = || (0..columns).step_by(at_once).map(|first| first..columns.min(first + at_once));
    let place = |row, column| format!("&scores[{} + {}u]", at(row, "SCORES"), column * size);
    for chunk in chunks() {
        let of_chunk = || (0..rows).flat_map(|row| chunk.clone().map(move |column| (row, column)));
        for (row, column) in of_chunk() {
            let to = place(row, column - chunk.start);
            let _ = writeln!(text, "            coopStoreT(y{row}_{column}, {to}, SCORES);");
        }
        let _ = writeln!(
            text,
            "            workgroupBarrier();\n            correct(run, {}u);\n            workgroupBarrier();",
            chunk.len() * size
        );
        for (row, column) in of_chunk() {
            let from = place(row, column - chunk.start);
            let _ = writeln!(text, "            y{row}_{column} = coopLoadT<{c}>({from}, SCORES);");
        }
        text.push_str("            workgroupBarrier();\n");
    }
    text.push_str("        }\n        for (var key = 0u; key < width; key += SIZE) {\n");
    for row in 0..rows {
        let from = format!("&weights[{} + key]", at(row, "WEIGHTS"));
        let _ = writeln!(text, "            let p{row} = coopLoadT<{a}>({from}, WEIGHTS);");
    }
    for column in 0..columns {
        let from = format!("&rows[(KEYS + key) * STRIDE + {}u]", column * size);
        let _ = writeln!(text, "            let v{column} = coopLoadT<{b}>({from}, STRIDE);");
        for row in 0..rows {
            let y = format!("y{row}_{column}");
            let _ = writeln!(text, "            {y} = coopMultiplyAdd(p{row}, v{column}, {y});");
        }
    }
    text.push_str("        }\n        workgroupBarrier();\n    }\n");
    for chunk in chunks() {
        for (row, column) in (0..rows).flat_map(|row| chunk.clone().map(move |column| (row, column))) {
            let to = place(row, column - chunk.start);
            let _ = writeln!(text, "    coopStoreT(y{row}_{column}, {to}, SCORES);");
        }
        let _ = writeln!(
            text,
            "    workgroupBarrier();\n    finish(run, {}u, {}u);\n    workgroupBarrier();",
            chunk.start * size,
            chunk.len() * size
        );
    }
    text.push_str("}\n");
    text
}
