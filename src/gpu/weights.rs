//! Weights on the device: packed as their kernel wants them, a piece at a time, so that the host never holds more than a
//! piece.

use super::device::GpuDevice;
use super::options::Dtype;
use crate::error::{Error, Result};
use crate::program::{Program, WeightId, WeightSource, WeightSpec};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// How a matrix lies in device memory: panels of some rows, one behind the other. A kernel defines its own.
#[derive(Debug)]
pub struct Packing {
    /// Tells packings apart: unique.
    pub name: &'static str,
    /// Rows of a panel.
    pub panel_rows: usize,
    /// Bytes of a panel of a matrix of so many columns: a multiple of 4.
    pub panel_bytes: fn(cols: usize, dtype: Dtype) -> usize,
    /// Appends one panel. `values` holds its rows, row-major; fewer than `panel_rows` at the end of the matrix.
    pub pack_panel: fn(values: &[f32], cols: usize, dtype: Dtype, out: &mut Vec<u8>),
}

/// Row by row, each padded with zeros to a whole `Elem4`: `[rows, stride4(cols)]` of `Elem4`.
pub static ROWS: Packing = Packing {
    name: "rows",
    panel_rows: 1,
    panel_bytes: |cols, dtype| cols.next_multiple_of(4) * dtype.size(),
    pack_panel: |values, cols, dtype, out| push_row(values, cols.next_multiple_of(4), dtype, out),
};

/// A vector (`cols` is 1), always in f32, padded with zeros: `[stride4(n)]` of `vec4<f32>`.
pub static VECTOR: Packing = Packing {
    name: "vector",
    panel_rows: 4,
    panel_bytes: |cols, _| 4 * cols * 4,
    pack_panel: |values, cols, _, out| push_row(values, 4 * cols, Dtype::F32, out),
};

/// Appends `values` in `dtype`, and zeros up to `length` numbers.
pub fn push_row(values: &[f32], length: usize, dtype: Dtype, out: &mut Vec<u8>) {
    let padded = values.iter().copied().chain(std::iter::repeat(0.0)).take(length);
    match dtype {
        Dtype::F32 => padded.for_each(|value| out.extend_from_slice(&value.to_le_bytes())),
        Dtype::F16 => padded.for_each(|value| out.extend_from_slice(&half::f16::from_f32(value).to_le_bytes())),
    }
}

impl Packing {
    /// Bytes of a matrix.
    pub fn bytes(&self, rows: usize, cols: usize, dtype: Dtype) -> u64 {
        rows.div_ceil(self.panel_rows) as u64 * (self.panel_bytes)(cols, dtype) as u64
    }
}

/// Rows of a weight in a packing: one buffer on the device, however many launches use it.
#[derive(Debug, Clone)]
pub struct WeightUse {
    /// The weight.
    pub weight: WeightId,
    /// Which of its rows.
    pub rows: Range<usize>,
    /// How they lie.
    pub packing: &'static Packing,
}

impl WeightUse {
    /// All rows of a weight.
    pub fn whole(weight: WeightId, spec: &WeightSpec, packing: &'static Packing) -> WeightUse {
        WeightUse { weight, rows: 0..spec.rows, packing }
    }
}

impl PartialEq for WeightUse {
    fn eq(&self, other: &WeightUse) -> bool {
        (self.weight, &self.rows, self.packing.name) == (other.weight, &other.rows, other.packing.name)
    }
}

impl Eq for WeightUse {}

impl Hash for WeightUse {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.weight, &self.rows, self.packing.name).hash(state);
    }
}

/// Bytes that are read, packed and handed to the queue at once.
const PIECE: usize = 8 << 20;
