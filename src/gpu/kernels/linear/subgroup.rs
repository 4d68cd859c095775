//! Broadcasts instead of barriers, for software adapters with a fixed subgroup size.
//!
//! What decides on lavapipe (Mesa 22.3.6, LLVM 15, 8 lanes, AVX2 Zen 3; 512 x 384 x 384): a lane loads word by word, and
//! each word is put into its vector through the stack, a failed store forwarding of about 25 cycles, against which the
//! multiplications hardly count (37 GFLOP a CPU-second without any loads). So a tile is as large as compile time allows,
//! and a word is 64 bits wide. GFLOP a CPU-second, on a machine busy with other work: 8 x 32 1.8, 16 x 32 2.7, 32 x 32 3.7
//! to 4.0, 32 x 64 4.5; in 64-bit words 32 x 32 6.8, 32 x 64 8.5, 64 x 32 7.0. With 16-row tiles an AVX-512 machine, where
//! LLVM has a masked insertion, had reached 12.4. An array of sums that is indexed by a variable anywhere compiles for
//! minutes.

use super::panels::{COLUMNS, PANELS};
use super::{BINDINGS, Chosen};
use crate::gpu::kernel::{Kernel, Prelude};
use crate::gpu::options::Dtype;
use std::fmt::Write as _;

static LINEAR_SUBGROUP: Kernel = Kernel {
    name: "linear_subgroup",
    source: include_str!("../../../../shaders/linear_subgroup.wgsl"),
    parts: &[],
    bindings: BINDINGS,
};

pub(super) fn choose(prelude: Prelude, dtype: Dtype, lanes: usize, rows: usize, wide: bool) -> Chosen {
    let prelude = prelude
        .constant("SUBGROUP_SIZE", lanes)
        .constant("ROWS", rows)
        .part(words(dtype, wide))
        .part(unrolled(lanes, rows));
    Chosen { kernel: &LINEAR_SUBGROUP, prelude, packing: &PANELS, tile: [rows, COLUMNS] }
}

/// How numbers are loaded two and four at once.
pub(in crate::gpu) fn words(dtype: Dtype, wide: bool) -> &'static str {
    match (dtype, wide) {
        (Dtype::F32, false) => include_str!("../../../../shaders/common/words_f32.wgsl"),
        (Dtype::F32, true) => include_str!("../../../../shaders/common/words_f32_int64.wgsl"),
        (Dtype::F16, false) => include_str!("../../../../shaders/common/words_f16.wgsl"),
        (Dtype::F16, true) => include_str!("../../../../shaders/common/words_f16_int64.wgsl"),
        (Dtype::Bf16 | Dtype::Int8, _) => unreachable!("refused at load"),
    }
}

/// `Sums`, `multiply` and `scatter` of linear_subgroup.wgsl: the accumulators as named fields, because an array stays in
/// memory, and one line for each because a broadcast names its lane.
fn unrolled(lanes: usize, rows: usize) -> String {
    let groups = COLUMNS / 4 / lanes;
    let sums = || (0..rows).flat_map(|row| (0..groups).map(move |group| (row, group)));
    let mut text = String::new();
    let _ = writeln!(text, "struct Sums {{");
    for (row, group) in sums() {
        let _ = writeln!(text, "    s{row}_{group}: vec4<f32>,");
    }
    let rows_a_lane = rows / lanes;
    let _ = writeln!(
        text,
        "}}\nfn multiply(sums: ptr<function, Sums>, x_at: array<u32, {rows_a_lane}>, k: u32, w_at: u32) {{"
    );
    for (k, group) in (0..2).flat_map(|k| (0..groups).map(move |group| (k, group))) {
        let _ = writeln!(text, "    let w{k}_{group} = quad(weight[w_at + {}u]);", k * COLUMNS / 4 + group * lanes);
    }
    for i in 0..rows_a_lane {
        let _ = writeln!(text, "    let x{i} = pair(x[x_at[{i}] + k]);");
    }
    for row in 0..rows {
        let _ = writeln!(text, "    let a{row} = subgroupBroadcast(x{}, {}u);", row / lanes, row % lanes);
        for group in 0..groups {
            let _ = writeln!(text, "    (*sums).s{row}_{group} += a{row}.x * w0_{group} + a{row}.y * w1_{group};");
        }
    }
    text.push_str("}\nfn scatter(sums: Sums, lane: u32) {\n");
    for (i, (row, group)) in sums().enumerate() {
        let _ = writeln!(text, "    scattered[{}u + lane] = sums.s{row}_{group};", i * lanes);
    }
    text.push_str("}\n");
    text
}
