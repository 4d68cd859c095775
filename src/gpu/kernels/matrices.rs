//! What the kernels of cooperative matrices share.

use super::{Prelude, Target};

/// Lanes of a subgroup. Where their number varies, it is 32 or 64, and this is 32: there are then half as many subgroups, and each
/// does the work of two.
pub fn lanes(target: &Target) -> usize {
    target.features.subgroup_size.unwrap_or(32) as usize
}

/// The prelude of a kernel for so many subgroups, with matrices of `size` x `size`. LANES is 0 where their number varies.
pub fn prelude(prelude: Prelude, target: &Target, subgroups: usize, size: usize) -> Prelude {
    prelude
        .cooperative()
        .constant("THREADS", subgroups * lanes(target))
        .constant("LANES", target.features.subgroup_size.unwrap_or(0))
        .constant("SIZE", size)
}

/// The type of a matrix of role A, B or C.
pub fn matrix(size: usize, role: char) -> String {
    format!("coop_mat{size}x{size}<{}, {role}>", if role == 'C' { "f32" } else { "Elem" })
}
