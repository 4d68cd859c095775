//! Weights by a formula, in place of their bytes: the other half of `tests/golden/formula.py`, which says how.

use half::f16;
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;

/// What ends the name of such a file, in place of `.safetensors`.
pub const SUFFIX: &str = ".formula.json";

/// The shape of a tensor, its seed, mean and amplitude.
type Formula = (Vec<usize>, u64, f64, f64);

/// The safetensors file that a file of formulas stands for.
pub fn expand(formulas: &[u8]) -> Vec<u8> {
    let formulas: BTreeMap<String, Formula> = serde_json::from_slice(formulas).unwrap();
    let tensors: Vec<_> = formulas.iter().map(|(name, formula)| (name, &formula.0, bytes(formula))).collect();
    let view = |(name, shape, bytes)| (name, TensorView::new(Dtype::F16, Vec::clone(shape), bytes).unwrap());
    safetensors::serialize(tensors.iter().map(|(name, shape, bytes)| view((*name, *shape, bytes))), None).unwrap()
}

fn bytes((shape, seed, mean, amplitude): &Formula) -> Vec<u8> {
    let number = |i: u64| {
        let z = ((seed << 32) + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ z >> 31;
        let u = (z >> 40) as f64 / f64::from(1 << 23) - 1.0;
        f16::from_f32((mean + amplitude * u) as f32)
    };
    (0..shape.iter().product::<usize>() as u64).flat_map(|i| number(i).to_le_bytes()).collect()
}
