//! The launches of each op: which kernel, which constants, which weights in which layout. One file an op, named as its
//! shader.

pub mod attention;
pub mod embed;
pub mod glu;
pub mod head_norm;
pub mod join;
pub mod linear;
mod matrices;
pub mod mixture;
pub mod norm;
pub mod normalize;
pub mod pool;
pub mod rotary;
pub mod short_conv;
pub mod sum;

use super::kernel::{Kernel, Prelude, Target};

const TEAM_SUBGROUP: &str = include_str!("../../../shaders/common/team_subgroup.wgsl");
const TEAM_WORKGROUP: &str = include_str!("../../../shaders/common/team_workgroup.wgsl");

/// Rows that one workgroup of a kernel that works row by row takes, and the prelude that says how: a subgroup a row
/// (whatever its size), or a workgroup a row where there are no subgroups.
fn team(kernel: &Kernel, prelude: Prelude, target: &Target) -> (Prelude, u32) {
    let rows = if target.features.subgroups { 8 } else { 1 };
    (team_of(rows, kernel, prelude, target), rows)
}

/// The same for a workgroup that takes so many rows.
fn team_of(rows: u32, kernel: &Kernel, prelude: Prelude, target: &Target) -> Prelude {
    let part = if target.features.subgroups { TEAM_SUBGROUP } else { TEAM_WORKGROUP };
    prelude.constant("TEAM_ROWS", rows).part(part.replace("KERNEL", kernel.name))
}
