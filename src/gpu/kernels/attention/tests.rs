//! Which kernel a batch gets.

use super::*;
use crate::gpu::options::{Dtype, Features};
use crate::gpu::tuning::Tuning;
use crate::program::{Builder, Distances, Index, Lookup, Pool, PoolMode};

fn program(head_dim: usize) -> Program {
    biased_program(head_dim, |_| None)
}

fn biased_program(head_dim: usize, bias: impl FnOnce(&mut Builder) -> Option<PositionBias>) -> Program {
    let mut b = Builder::new();
    let table = b.matrix("qkv", 8, 3 * head_dim);
    let qkv = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
    let bias = bias(&mut b);
    let y = b.attention(Attention { bias, ..Attention::new(qkv, 1, head_dim) });
    let pooled = b.pool(Pool::new(y, PoolMode::Cls));
    b.finish(pooled, y)
}

fn target(subgroup_size: Option<u32>, software: bool, tuning: Tuning) -> Target {
    let features = Features { subgroups: subgroup_size.is_some(), subgroup_size, ..Features::none() };
    Target { dtype: Dtype::F32, int8: false, features, limits: wgpu::Limits::default(), software, tuning }
}

#[test]
fn every_length_has_one_kernel() {
    let whole = Tuning::only_attention(Variant::Whole { queries: 32, lanes: 64, heads: 1 });
    for (subgroup_size, software, tuning, kernels) in [
        (Some(8), true, Tuning::default(), 1),
        (None, true, Tuning::default(), 1),
        (Some(32), false, Tuning::default(), 4),
        (Some(32), false, whole, 4),
    ] {
        for head_dim in [5, 32, 64, 128, 300] {
            let target = target(subgroup_size, software, tuning.clone());
            let chosen = choose(&program(head_dim), &target);
            assert!(chosen.len() <= kernels, "{head_dim}: {chosen:?}");
            assert_eq!((chosen[0].0.start, chosen.last().map(|(range, _)| range.end)), (0, Some(u32::MAX)));
            assert!(chosen.windows(2).all(|pair| pair[0].0.end == pair[1].0.start), "{chosen:?}");
        }
    }
}

#[test]
fn what_a_device_or_a_length_does_not_allow_is_not_taken() {
    let chosen = |variant, head_dim| choose(&program(head_dim), &target(None, false, Tuning::only_attention(variant)));
    let whole = Variant::Whole { queries: 32, lanes: 64, heads: 1 };
    let of_32 = chosen(whole, 32);
    assert_eq!(of_32[1], (17..33, whole));
    assert_ne!(of_32.last().map(|(_, variant)| *variant), Some(whole), "of any length");
    assert!(chosen(whole, 128).iter().all(|(_, variant)| *variant != whole), "beyond 16 KiB of workgroup memory");
    let matrices = Variant::Cooperative { size: 16, rows: 1, keys: 32 };
    assert!(chosen(matrices, 64).iter().all(|(_, variant)| *variant != matrices), "without cooperative matrices");
    let by_hand = Variant::Online { queries: 7, columns: 32, keys: 32 };
    assert!(chosen(by_hand, 64).iter().all(|(_, variant)| *variant != by_hand), "of a size that there is not");
}

#[test]
fn a_disentangled_bias_gets_the_largest_tiles_that_find_room() {
    let bias = |b: &mut Builder, head_dim| {
        let table = b.matrix("distances", 16, head_dim);
        Some(PositionBias::Disentangled { table, distances: Distances { span: 4, max_distance: None } })
    };
    let tiles = |dtype, memory, head_dim| {
        let mut target = target(None, false, Tuning::default());
        target.dtype = dtype;
        target.limits.max_compute_workgroup_storage_size = memory;
        choose(&biased_program(head_dim, |b| bias(b, head_dim)), &target)
    };
    let tiled = |queries, keys| vec![(Launch::ALWAYS, Variant::Tiled { queries, keys })];
    assert_eq!(tiles(Dtype::F16, 32 << 10, 64), tiled(32, 32));
    assert_eq!(tiles(Dtype::F32, 32 << 10, 64), tiled(32, 16));
    assert_eq!(tiles(Dtype::F32, 16 << 10, 64), tiled(16, 16));
    // No room, and no whole vectors.
    assert_eq!(tiles(Dtype::F32, 16 << 10, 128), [(Launch::ALWAYS, Variant::SAFE)]);
    assert_eq!(tiles(Dtype::F32, 32 << 10, 6), [(Launch::ALWAYS, Variant::SAFE)]);
}
