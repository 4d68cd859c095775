//! Weights on the device: packed as their kernel wants them, a piece at a time, so that the host never holds more than a
//! piece.

use super::device::GpuDevice;
use super::options::Dtype;
use super::staging::Write;
use crate::error::{Error, Result};
use crate::program::{Blocks, Program, WeightId, WeightSource, WeightSpec};
use std::borrow::Cow;
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

/// The same, always in f32: `[rows, stride4(cols)]` of `vec4<f32>`.
pub static ROWS_F32: Packing = Packing {
    name: "rows of f32",
    panel_rows: 1,
    panel_bytes: |cols, _| cols.next_multiple_of(4) * 4,
    pack_panel: |values, cols, _, out| push_row(values, cols.next_multiple_of(4), Dtype::F32, out),
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
        Dtype::Bf16 | Dtype::Int8 => unreachable!("refused at load"),
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
    /// The matrices that those are: each is packed by itself, one behind the other.
    pub blocks: Blocks,
    /// How they lie.
    pub packing: &'static Packing,
}

impl WeightUse {
    /// All rows of a weight.
    pub fn whole(weight: WeightId, spec: &WeightSpec, packing: &'static Packing) -> WeightUse {
        WeightUse::blocks(weight, spec, Blocks::WHOLE, packing)
    }

    /// All matrices in a weight.
    pub fn blocks(weight: WeightId, spec: &WeightSpec, blocks: Blocks, packing: &'static Packing) -> WeightUse {
        WeightUse { weight, rows: 0..spec.rows, blocks, packing }
    }

    /// Rows and columns of each matrix.
    fn shape(&self, spec: &WeightSpec) -> [usize; 2] {
        let [down, across] = self.blocks.grid();
        [self.rows.len() / down, spec.cols / across]
    }

    /// Bytes of each matrix.
    fn block_bytes(&self, spec: &WeightSpec, dtype: Dtype) -> u64 {
        let [rows, cols] = self.shape(spec);
        self.packing.bytes(rows, cols, dtype)
    }
}

impl PartialEq for WeightUse {
    fn eq(&self, other: &WeightUse) -> bool {
        let key = |it: &WeightUse| (it.weight, it.rows.clone(), it.blocks, it.packing.name);
        key(self) == key(other)
    }
}

impl Eq for WeightUse {}

impl Hash for WeightUse {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.weight, &self.rows, self.blocks, self.packing.name).hash(state);
    }
}

/// Bytes that are read, packed and handed to the queue at once.
const PIECE: usize = 8 << 20;

/// Bytes after which the upload waits for the device, so that the queue's staging memory stays bounded.
const UNWAITED: u64 = 32 << 20;

/// The packed weights of a program, on the device.
#[derive(Debug)]
pub(super) struct Weights {
    /// By what lies in them, one behind the other.
    buffers: HashMap<Vec<WeightUse>, wgpu::Buffer>,
}

impl Weights {
    /// Reads, packs and uploads every weight that is used, those that are used together into one buffer.
    ///
    /// # Errors
    /// [`Error::Device`] if one is larger than the device's limits or its memory; those of the source.
    pub fn upload<'a>(
        uses: impl Iterator<Item = &'a [WeightUse]>,
        program: &Program,
        source: &dyn WeightSource,
        dtype: Dtype,
        device: &GpuDevice,
    ) -> Result<Weights> {
        let mut upload = Upload { device, dtype, unwaited: 0 };
        let mut buffers = HashMap::new();
        for weights in uses {
            if !buffers.contains_key(weights) {
                buffers.insert(weights.to_vec(), upload.buffer(weights, program, source)?);
            }
        }
        upload.wait()?;
        Ok(Weights { buffers })
    }

    /// The buffer of what is used together.
    pub fn buffer(&self, weights: &[WeightUse]) -> &wgpu::Buffer {
        &self.buffers[weights]
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.buffers.values().map(wgpu::Buffer::size).sum()
    }
}

struct Upload<'a> {
    device: &'a GpuDevice,
    dtype: Dtype,
    unwaited: u64,
}

impl Upload<'_> {
    fn buffer(&mut self, parts: &[WeightUse], program: &Program, source: &dyn WeightSource) -> Result<wgpu::Buffer> {
        let (device, dtype) = (self.device, self.dtype);
        let spec = |part: &WeightUse| program.weight(part.weight);
        let bytes = |part: &WeightUse| part.blocks.count() as u64 * part.block_bytes(spec(part), dtype);
        let size = parts.iter().map(bytes).sum::<u64>().max(16);
        let limits = &device.description().limits;
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let refuse = |why: String| {
            let shape =
                |part: &WeightUse| format!("'{}' [{}, {}]", spec(part).name(), part.rows.len(), spec(part).cols);
            let weights: Vec<_> = parts.iter().map(shape).collect();
            let description = device.description();
            Error::Device(format!("{description}: weight {} takes {size} bytes: {why}", weights.join(" and ")))
        };
        if size > largest {
            return Err(refuse(format!("the device binds at most {largest}")));
        }
        let created = device.scoped(|| {
            device.device.create_buffer(&wgpu::BufferDescriptor {
                label: parts.first().map(|part| spec(part).name()).as_deref(),
                size,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let buffer = created.map_err(|error| refuse(error.to_string()))?;

        let mut offset = 0;
        for part in parts {
            self.write(part, spec(part), source, (&buffer, offset), &refuse)?;
            offset += bytes(part);
        }
        Ok(buffer)
    }

    /// Packs a weight into a buffer, from some byte on.
    fn write(
        &mut self,
        part: &WeightUse,
        spec: &WeightSpec,
        source: &dyn WeightSource,
        (buffer, offset): (&wgpu::Buffer, u64),
        refuse: &impl Fn(String) -> Error,
    ) -> Result<()> {
        let (packing, [rows, cols], [down, across]) = (part.packing, part.shape(spec), part.blocks.grid());
        let (panel_bytes, block_bytes) = ((packing.panel_bytes)(cols, self.dtype), part.block_bytes(spec, self.dtype));
        // Of all matrices that lie side by side.
        let piece_rows = (PIECE / (across * panel_bytes).max(1)).max(1) * packing.panel_rows;
        let mut packed = Vec::new();
        for (block, first) in (0..down).flat_map(|block| (0..rows).step_by(piece_rows).map(move |first| (block, first)))
        {
            let first_row = part.rows.start + block * rows;
            let values = spec.read(source, first_row + first..first_row + (first + piece_rows).min(rows))?;
            let first_byte = offset + (first / packing.panel_rows * panel_bytes) as u64;
            for beside in 0..across {
                let values: Cow<[f32]> = match across {
                    1 => Cow::Borrowed(&values),
                    _ => {
                        let rows = values.chunks_exact(spec.cols);
                        rows.flat_map(|row| &row[beside * cols..][..cols]).copied().collect()
                    }
                };
                packed.clear();
                for panel in values.chunks(packing.panel_rows * cols) {
                    (packing.pack_panel)(panel, cols, self.dtype, &mut packed);
                }
                let write =
                    Write { buffer, offset: first_byte + (block + beside) as u64 * block_bytes, bytes: &packed };
                let written = self.device.scoped(|| self.device.write(&[write]));
                if !written.map_err(|error| refuse(error.to_string()))? {
                    return Err(self.device.unwritten().into());
                }
                self.unwaited += packed.len() as u64;
                if self.unwaited >= UNWAITED {
                    self.wait()?;
                }
            }
        }
        Ok(())
    }

    /// Until the device has everything.
    fn wait(&mut self) -> Result<()> {
        self.device.flush()?;
        self.unwaited = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn rows_are_padded_to_four_columns_with_zeros() {
        let mut out = Vec::new();
        (ROWS.pack_panel)(&[1.0, 2.0, 3.0, 4.0, 5.0], 5, Dtype::F32, &mut out);
        assert_eq!(floats(&out), [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
        assert_eq!((out.len(), ROWS.bytes(1, 5, Dtype::F32)), (32, 32));

        out.clear();
        (ROWS.pack_panel)(&[1.5], 1, Dtype::F16, &mut out);
        assert_eq!(out, [0, 0x3e, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_vector_is_f32_in_every_dtype() {
        for dtype in [Dtype::F32, Dtype::F16] {
            let mut out = Vec::new();
            for panel in [1.0f32, 2.0, 3.0, 4.0, 5.0].chunks(VECTOR.panel_rows) {
                (VECTOR.pack_panel)(panel, 1, dtype, &mut out);
            }
            assert_eq!(floats(&out), [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
            assert_eq!(out.len() as u64, VECTOR.bytes(5, 1, dtype));
        }
    }
}
