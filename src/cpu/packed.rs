//! Matrices that rows are multiplied with, as inner loops read them.

#[cfg(target_arch = "x86_64")]
use super::kernel::{self, Products};
use super::linear_int8::{Kernel, Rounded};
use super::rounding::Rounding;
use super::storage::Storage;
use super::team::Team;
use super::{linear, linear_int8};
use crate::executor::Dtype;
use crate::program::Activation;

/// The matrix of a linear op, or of an expert.
pub enum Packed {
    /// Multiplied in f32, or by matrices of bf16.
    Float(linear::Weight),
    Int8(linear_int8::Weight),
}

/// Matrices that are smaller are multiplied in f32: what makes classes or gates of a row is too little work to be worth any error.
const LARGE: usize = 32;

/// Whether a matrix is large enough for int8 and bf16.
pub fn is_large([rows, cols]: [usize; 2]) -> bool {
    rows.min(cols) >= LARGE
}

/// Memory kept from product to product.
#[derive(Default)]
pub struct Scratch {
    float: linear::Scratch,
    int8: linear_int8::Scratch,
}

impl Packed {
    /// Packs `[rows, cols]`, row-major.
    pub fn new(values: &[f32], [rows, cols]: [usize; 2], dtype: Dtype) -> Packed {
        match dtype {
            Dtype::Int8 if is_large([rows, cols]) => {
                let (rounding, kernel) = (Rounding::nearest(cols), Kernel::best());
                let rounded = Rounded::new(values, rows, rounding, kernel, 1);
                Packed::Int8(linear_int8::Weight::pack(&rounded, kernel))
            }
            #[cfg(target_arch = "x86_64")]
            Dtype::Bf16
                if is_large([rows, cols]) && kernel::Kernel::best(Products::Bf16) != kernel::Kernel::Vectors =>
            {
                Packed::Float(linear::Weight::pack_matrices(values, rows, cols))
            }
            _ => {
                let dtype = if dtype == Dtype::Int8 { Dtype::F32 } else { dtype };
                Packed::Float(linear::Weight::pack(values, rows, cols, Storage::of(values, dtype)))
            }
        }
    }

    /// `out = activation(x * matrix^T + bias) + residual`: `x` is `[n, cols]`, `bias` `[rows]`, `residual` and `out` are `[n, rows]`.
    #[allow(clippy::too_many_arguments)]
    pub fn multiply(
        &self,
        team: &Team<'_>,
        x: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        residual: Option<&[f32]>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        match self {
            Packed::Float(weight) => {
                let (kernel, scratch) = (linear::best_kernel(out.len(), weight), &mut scratch.float);
                linear::linear(kernel, team, x, weight, bias, activation, residual, scratch, out);
            }
            Packed::Int8(weight) => {
                linear_int8::linear_int8(team, x, weight, bias, activation, residual, &mut scratch.int8, out);
            }
        }
    }
}
