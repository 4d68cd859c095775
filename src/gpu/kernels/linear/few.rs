//! For few rows: what takes time is reading the weight, so that all threads of a workgroup read different parts of it.

use super::panels::{COLUMNS, PANELS};
use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude};

static LINEAR_FEW: Kernel = Kernel {
    name: "linear_few",
    source: include_str!("../../../../shaders/linear_few.wgsl"),
    parts: &[LINEAR_PART],
    bindings: BINDINGS,
};

/// Rows of a workgroup: what its partial sums leave of 16 KiB of workgroup memory.
const ROWS: usize = 4;

pub(super) fn choose(prelude: Prelude) -> Chosen {
    Chosen { kernel: &LINEAR_FEW, prelude: prelude.constant("ROWS", ROWS), packing: &PANELS, tile: [ROWS, COLUMNS] }
}
