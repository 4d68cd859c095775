//! What computes products of two matrices of floats.

#[cfg(target_arch = "x86_64")]
use super::{amx, instruction_set::InstructionSet};
use crate::executor::Dtype;

/// How near to f32's products they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// As near as another order of sums.
    F32,
    /// Where it is faster, both sides may be rounded to bf16.
    Bf16,
}

impl Products {
    /// That of attention: beside int8's error, bf16's is small.
    pub fn of_attention(dtype: Dtype) -> Products {
        match dtype {
            Dtype::Bf16 | Dtype::Int8 => Products::Bf16,
            Dtype::F32 | Dtype::F16 => Products::F32,
        }
    }
}

/// What computes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Vectors of f32: [`gemm`](super::gemm), and [`matmul`](super::matmul).
    Vectors,
    /// AMX's matrices of bf16: [`split`](super::split).
    #[cfg(target_arch = "x86_64")]
    Matrices(Products),
}

impl Kernel {
    /// The fastest of this CPU for large products.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
    pub fn best(products: Products) -> Kernel {
        #[cfg(target_arch = "x86_64")]
        if InstructionSet::current() == InstructionSet::Amx && amx::exists() {
            return Kernel::Matrices(products);
        }
        Kernel::Vectors
    }
}
