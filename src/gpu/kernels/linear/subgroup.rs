//! The matrix product with its epilogue: bias, activation, residual.
//!
//! Two algorithms over one packing:
//!
//! - `linear.wgsl`: register tiles fed from workgroup memory, for GPUs; needs no feature.
//! - `linear_subgroup.wgsl`: broadcasts instead of barriers, for software adapters with a fixed subgroup size.
//!
//! What decides on lavapipe (Mesa 22.3.6, LLVM 15, 8 lanes, AVX2 Zen 3; 512 x 384 x 384): a lane loads word by word, and
//! each word is put into its vector through the stack, a failed store forwarding of about 25 cycles, against which the
//! multiplications hardly count (37 GFLOP a CPU-second without any loads). So a tile is as large as compile time allows,
//! and a word is 64 bits wide. GFLOP a CPU-second, on a machine busy with other work: 8 x 32 1.8, 16 x 32 2.7, 32 x 32 3.7
//! to 4.0, 32 x 64 4.5; in 64-bit words 32 x 32 6.8, 32 x 64 8.5, 64 x 32 7.0. With 16-row tiles an AVX-512 machine, where
//! LLVM has a masked insertion, had reached 12.4. An array of sums that is indexed by a variable anywhere compiles for
//! minutes.

use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, Target, stride4};
use crate::gpu::options::Dtype;
use crate::gpu::weights::{Packing, VECTOR, WeightUse, push_row};
use crate::program::{Linear, Rows};
use std::fmt::Write as _;

const BINDINGS: &[Binding] = &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write];

static LINEAR: Kernel =
    Kernel { name: "linear", source: include_str!("../../../shaders/linear.wgsl"), parts: &[], bindings: BINDINGS };

static LINEAR_SUBGROUP: Kernel = Kernel {
    name: "linear_subgroup",
    source: include_str!("../../../shaders/linear_subgroup.wgsl"),
    parts: &[],
    bindings: BINDINGS,
};

/// Output columns of a workgroup, and of a panel of packed weights.
const COLUMNS: usize = 64;

/// Panels of 64 output columns, each by input columns: `[ceil(out / 64), 4 * stride4(in), 64]` of `Elem`. The zeros behind
/// the last input column cancel whatever the padding of x holds.
static PANELS: Packing = Packing {
    name: "linear panels of 64",
    panel_rows: COLUMNS,
    panel_bytes: |cols, dtype| stride4(cols) * 4 * COLUMNS * dtype.size(),
    pack_panel: |values, cols, dtype, out| {
        let mut column = [0.0; COLUMNS];
        for k in 0..cols {
            for (to, row) in column.iter_mut().zip(values.chunks(cols)) {
                *to = row[k];
            }
            push_row(&column, COLUMNS, dtype, out);
        }
        push_row(&[], (stride4(cols) * 4 - cols) * COLUMNS, dtype, out);
    },
};

/// Which kernel computes a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// `linear.wgsl` with so many rows a workgroup.
    Tiled { rows: usize },
    /// `linear_subgroup.wgsl` for so many lanes and rows a workgroup; `wide`: loads in 64-bit words.
    Subgroup { lanes: usize, rows: usize, wide: bool },
}

/// The kernel for a device. There are few sequences in a batch: then few rows waste less and compile faster.
fn choose(target: &Target, rows: Rows) -> Variant {
    match target.features.subgroup_size {
        Some(lanes @ (4 | 8 | 16)) if target.software => {
            let lanes = lanes as usize;
            let rows = if rows == Rows::Sequences { lanes } else { 32 };
            Variant::Subgroup { lanes, rows, wide: target.features.int64 }
        }
        _ => Variant::Tiled { rows: if rows == Rows::Sequences { 16 } else { 64 } },
    }
}

/// The launches of a matrix product. A weight that is larger than one binding is refused where it is uploaded.
pub fn launches(op: &Linear, context: &Context) -> Result<Vec<Launch>> {
    let (x, out) = (context.shape(op.x), context.out_shape());
    let variant = choose(context.target, x.rows);
    let mut prelude = context
        .prelude()
        .activation(op.activation)
        .constant("IN4", stride4(x.cols))
        .constant("OUT4", stride4(out.cols))
        .constant("ROWS_ARE_TOKENS", x.rows == Rows::Tokens)
        .constant("BIAS", op.bias.is_some())
        .constant("RESIDUAL", op.residual.is_some());
    let (kernel, rows) = match variant {
        Variant::Tiled { rows } => {
            prelude = prelude.constant("TILE_ROWS", rows);
            (&LINEAR, rows)
        }
        Variant::Subgroup { lanes, rows, wide } => {
            prelude = prelude
                .constant("SUBGROUP_SIZE", lanes)
                .constant("ROWS", rows)
                .part(words(context.target.dtype, wide))
                .part(unrolled(lanes, rows));
            (&LINEAR_SUBGROUP, rows)
        }
    };
    Ok(vec![Launch {
        kernel,
        prelude,
        params: vec![],
        slots: vec![
            Slot::Value(op.x),
            Slot::Weight(WeightUse::whole(op.weight, context.weight(op.weight), &PANELS)),
            op.bias.map_or(Slot::Unused, |bias| Slot::Weight(WeightUse::whole(bias, context.weight(bias), &VECTOR))),
            op.residual.map_or(Slot::Unused, Slot::Value),
            Slot::Value(context.out),
        ],
        grid: Grid { count: x.rows.into(), per_group: rows as u32, columns: out.cols.div_ceil(COLUMNS) as u32 },
    }])
}

/// How numbers are loaded two and four at once.
pub(super) fn words(dtype: Dtype, wide: bool) -> &'static str {
    match (dtype, wide) {
        (Dtype::F32, false) => include_str!("../../../shaders/common/words_f32.wgsl"),
        (Dtype::F32, true) => include_str!("../../../shaders/common/words_f32_int64.wgsl"),
        (Dtype::F16, false) => include_str!("../../../shaders/common/words_f16.wgsl"),
        (Dtype::F16, true) => include_str!("../../../shaders/common/words_f16_int64.wgsl"),
        (Dtype::Int8, _) => unreachable!("refused at load"),
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
