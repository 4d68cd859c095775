//! Every case of `support/table.rs` on every executor: CPU with one and several threads, GPU with every set of features that
//! the adapter has, in f32 and f16. What is right is defined by `support/naive.rs`.

mod support;

use support::case::Case;
#[cfg(feature = "gpu")]
use support::compare::Tolerance;
use support::executors;
#[cfg(feature = "gpu")]
use support::executors::Dtype;
use support::table::{short_table, table};

#[test]
fn every_case_on_the_cpu() {
    for kind in executors::cpu() {
        hold(&kind);
    }
}

/// On a software adapter whose subgroup size is chosen when the driver starts, once for each size, in a process of its own.
#[test]
fn every_case_on_the_gpu() {
    executors::for_each_subgroup_size("every_case_on_the_gpu", || {
        for kind in executors::gpu() {
            hold(&kind);
        }
    });
}

/// What a device would choose by measurement, on any device that can run it.
#[test]
#[cfg(feature = "gpu")]
fn every_kernel_of_the_matrix_product() {
    let kinds = executors::linear_kernels();
    // scripts/test-new-mesa: there are cooperative matrices, and a driver that hides them is a failure.
    let matrices = kinds.iter().any(|kind| kind.name.contains("cooperative"));
    assert!(matrices || std::env::var_os("REQUIRE_MATRICES").is_none(), "the adapter has no cooperative matrices");
    for kind in kinds {
        let sizes: &[&str] = match kind.dtype {
            Dtype::F32 => &["linear 37 -> 36", "linear 65 -> 129", "linear 128 -> 127", "linear 384 -> 256"],
            // Only how they load and store is another.
            Dtype::F16 | Dtype::F16Weights => &["linear 65 -> 129", "linear 128 -> 127", "linear 96 -> 200"],
        };
        let of_experts = "mixture of 2 of 4, 96 to 64 to 80 columns";
        let is_one = |case: &Case| sizes.contains(&case.name.as_str()) || case.name == of_experts;
        let cases: Vec<_> = table().into_iter().filter(is_one).collect();
        assert_eq!(cases.len(), sizes.len() + 1);
        hold_to(&kind, &cases);
    }
}

/// The same for attention, on batches of every class of lengths; with every mask and bias in one shape of each kernel.
#[test]
#[cfg(feature = "gpu")]
fn every_kernel_of_attention() {
    let kinds = executors::attention_kernels();
    let matrices = kinds.iter().any(|kind| kind.name.contains("cooperative"));
    assert!(matrices || std::env::var_os("REQUIRE_MATRICES").is_none(), "the adapter has no cooperative matrices");
    let mut kernels = std::collections::HashSet::new();
    for kind in kinds {
        let matrices = kind.name.contains("cooperative");
        let kernel: String = kind.name.split(&[',', ' ']).take(6).collect();
        let names: &[&str] = match (kernels.insert(kernel), kind.dtype, matrices) {
            (true, _, true) => &["over 2 of 4 heads of 8", "attention 3 heads of 64", "large scores, 1 heads of 32"],
            (false, _, true) => &["attention 12 heads of 32"],
            (true, Dtype::F32, false) => {
                &["attention 3 heads of 5", "over 2 of 4 heads of 8", "disentangled attention, 2 heads of 6"]
            }
            // Only how they load and store is another.
            (true, Dtype::F16 | Dtype::F16Weights, false) => &["attention 3 heads of 5", "attention 3 heads of 64"],
            (false, _, false) => &["attention 3 heads of 5"],
        };
        let mut cases = table();
        cases.retain(|case| case.name.contains("attention") && names.iter().any(|name| case.name.ends_with(name)));
        assert_eq!(cases.len(), names.len());
        if matrices {
            cases = cases.into_iter().map(with_rounded_weights).collect();
        }
        hold_to(&kind, &cases);
    }
}

/// Matrix units take the weights of attention in f16.
#[cfg(feature = "gpu")]
fn with_rounded_weights(case: Case) -> Case {
    let rounded =
        Tolerance::new("weights are rounded to f16, half a unit in 11 bits of values of size 1", 6e-4, 5.2e-4);
    if case.f16.absolute < rounded.absolute { case.f16(rounded) } else { case }
}

fn hold(kind: &executors::Kind) {
    hold_to(kind, &if kind.variation { short_table() } else { table() });
}

fn hold_to(kind: &executors::Kind, cases: &[Case]) {
    let start = std::time::Instant::now();
    let failures: Vec<String> = cases.iter().filter_map(|case| case.check(kind).err()).collect();
    println!("{}: {} cases in {:.1} s", kind.name, cases.len(), start.elapsed().as_secs_f32());
    assert!(failures.is_empty(), "{}: {} cases fail:\n{}", kind.name, failures.len(), failures.join("\n"));
}
