//! In 8 bits, four products at a time: x as it comes and the weight at load (W8A8), both by groups of their inner columns.
//!
//! What the size of a group costs (all-MiniLM-L6-v2, 2,000 short sentences; recall of the ten nearest): whole rows, 0.955;
//! 32 columns, 0.973, and with x off its middle instead of off zero 0.978; 16 columns so, 0.981. With one side exact: the
//! weight by whole rows 0.971, by 128 columns 0.980, by 32 0.985; x by whole rows 0.962, by 128 columns 0.975, by 32 0.978.

use super::panels::{COLUMNS, THREAD_ROWS, sums};
use super::{BINDINGS, By, Chosen, LINEAR_PART, Product};
use crate::gpu::compile::{Between, Context, Count, Grid, Launch, Room, Row, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, stride4};
use crate::gpu::weights::Packing;
use std::fmt::Write as _;

static QUANTIZE: Kernel = Kernel {
    name: "quantize",
    source: include_str!("../../../../shaders/quantize.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write, Binding::Read],
};

static LINEAR_INT8: Kernel = Kernel {
    name: "linear_int8",
    source: include_str!("../../../../shaders/linear_int8.wgsl"),
    parts: &[LINEAR_PART],
    bindings: BINDINGS,
};

/// Inner columns that share a scale, in x and in the weight.
const GROUP: usize = 16;

/// The largest number that a value becomes.
const LARGEST: f32 = 127.0;

/// Panels of 64 output columns: `[ceil(out / 64), ceil(in / 16), 2 + 4, 64]` words. Of each group the scale of each column and
/// the sum of its numbers, both `f32`; then the numbers, four inner columns a word, with zeros up to a whole group.
pub(super) static INT8_PANELS: Packing = Packing {
    name: "linear panels of 64 in 8 bits",
    panel_rows: COLUMNS,
    panel_bytes: |cols, _| groups(cols) * (2 + GROUP / 4) * COLUMNS * 4,
    pack_panel: |values, cols, _, out| {
        for first in (0..cols).step_by(GROUP) {
            let mut group = [[0.0; GROUP]; COLUMNS];
            for (to, row) in group.iter_mut().zip(values.chunks(cols)) {
                let row = &row[first..cols.min(first + GROUP)];
                to[..row.len()].copy_from_slice(row);
            }
            let scales = group.map(|row| row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / LARGEST);
            let number = |x: f32, scale: f32| if scale > 0.0 { (x / scale).round() as i8 } else { 0 };
            let sums = group
                .iter()
                .zip(&scales)
                .map(|(row, &scale)| row.iter().map(|&x| i32::from(number(x, scale))).sum::<i32>() as f32 * scale);
            out.extend(scales.iter().copied().chain(sums).flat_map(f32::to_le_bytes));
            for word in (0..GROUP).step_by(4) {
                for (row, &scale) in group.iter().zip(&scales) {
                    out.extend(row[word..word + 4].iter().map(|&x| number(x, scale) as u8));
                }
            }
        }
    },
};

fn groups(cols: usize) -> usize {
    cols.div_ceil(GROUP)
}

/// Words of a row: whole groups.
fn words(cols: usize) -> usize {
    groups(cols) * GROUP / 4
}

/// Words of a row of x with its scales and middles: a multiple of four.
fn stride(cols: usize) -> usize {
    words(cols) + (2 * groups(cols)).next_multiple_of(4)
}

/// Where x, of so many rows and columns, lies in 8 bits.
pub(super) fn quantized(rows: Count, cols: usize) -> Slot {
    Slot::Between(Between { room: Room::Quantized, rows, row: Row::Words(stride(cols)) })
}

/// Turns the x of a product into 8 bits.
pub(super) fn quantize(product: &Product, cols: usize, context: &Context) -> Launch {
    let owners = match &product.by {
        By::One { .. } => Slot::Unused,
        By::Experts { owners, .. } => owners.clone(),
    };
    let rows = (16 / groups(cols)).max(1); // a workgroup has 16 times 4 threads
    Launch {
        kernel: &QUANTIZE,
        prelude: product
            .with_rows(constants(context.prelude(), cols))
            .constant("IN4", stride4(cols))
            .constant("COLS", cols)
            .constant("ROWS", rows),
        params: vec![],
        slots: vec![product.x.clone(), quantized(product.count(), cols), owners],
        grid: Grid { count: product.count(), per_group: rows as u32, columns: 1 },
        items: Launch::ALWAYS,
    }
}

fn constants(prelude: Prelude, cols: usize) -> Prelude {
    prelude.constant("GROUP", GROUP).constant("GROUPS", groups(cols)).constant("STRIDE", stride(cols))
}

pub(super) fn choose(prelude: Prelude, cols: usize, rows: usize) -> Chosen {
    let prelude = constants(prelude, cols).constant("TILE_ROWS", rows).part(unrolled(rows / THREAD_ROWS));
    Chosen { kernel: &LINEAR_INT8, prelude, packing: &INT8_PANELS, tile: [rows, COLUMNS] }
}

/// `multiply` of linear_int8.wgsl, for the sums of `rows` rows; and those.
fn unrolled(rows: usize) -> String {
    let mut text = sums(rows, 1);
    text.push_str("fn multiply(sums: ptr<function, Sums>, x_at: u32, factors_at: u32, w_at: u32) {\n");
    for row in 0..rows {
        let _ = writeln!(text, "    let a{row} = x_tile[x_at + {row}u * X_STRIDE];\n    var d{row}: vec4<i32>;");
    }
    // Word by word: where products are taken byte by byte, a word's bytes are then needed for a short while only.
    for (word, part) in ["x", "y", "z", "w"].iter().enumerate() {
        let _ = writeln!(text, "    let w{word} = w_tile[w_at + {}u * COLUMNS4];", 2 + word);
        for row in 0..rows {
            let dot = |column| format!("dot4I8Packed(a{row}.{part}, w{word}.{column})");
            let _ = writeln!(text, "    d{row} += vec4<i32>({});", ["x", "y", "z", "w"].map(dot).join(", "));
        }
    }
    text.push_str("    let w_scale = bitcast<vec4<f32>>(w_tile[w_at]);\n");
    text.push_str("    let w_sum = bitcast<vec4<f32>>(w_tile[w_at + COLUMNS4]);\n");
    for row in 0..rows {
        let _ = writeln!(text, "    let f{row} = factors[factors_at + {row}u * GROUPS_A_STEP];");
        let sum = format!("vec4<f32>(d{row}) * (w_scale * f{row}.x) + w_sum * f{row}.y");
        let _ = writeln!(text, "    (*sums).s0_{row} += {sum};");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::options::Dtype;

    #[test]
    fn a_panel_has_the_scales_and_then_the_numbers_of_each_column() {
        let cols = 6;
        let values = [0.0, 1.0, -2.0, 0.5, 254.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let mut out = Vec::new();
        (INT8_PANELS.pack_panel)(&values, cols, Dtype::F16, &mut out);
        assert_eq!(out.len(), (INT8_PANELS.panel_bytes)(cols, Dtype::F16));
        assert_eq!(out[..4], 2.0f32.to_le_bytes());
        assert_eq!(out[4..8], [0; 4], "a column of zeros");
        let word = |word: usize, column: usize| &out[word * COLUMNS * 4 + column * 4..][..4];
        assert_eq!(word(1, 0), (2.0f32 * (1.0 - 1.0 + 127.0 + 2.0)).to_le_bytes(), "the sum");
        assert_eq!(word(2, 0), [0, 1, 255, 0], "1 / 2 rounds away from zero, 0.5 / 2 towards it");
        assert_eq!(word(3, 0), [127, 2, 0, 0]);
        assert_eq!(word(3, 1), [0; 4]);
        assert_eq!(word(5, 0), [0; 4]);
    }
}
