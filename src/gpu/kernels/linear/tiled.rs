//! Register tiles fed from workgroup memory, for any GPU.

use super::panels::{COLUMNS, PANELS};
use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude};

static LINEAR: Kernel = Kernel {
    name: "linear",
    source: include_str!("../../../../shaders/linear.wgsl"),
    parts: &[LINEAR_PART],
    bindings: BINDINGS,
};

pub(super) fn choose(prelude: Prelude, rows: usize, panels: usize) -> Chosen {
    let prelude = prelude.constant("TILE_ROWS", rows).constant("PANELS", panels);
    Chosen { kernel: &LINEAR, prelude, packing: &PANELS, tile: [rows, panels * COLUMNS] }
}
