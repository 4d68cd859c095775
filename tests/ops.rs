//! Every case of `support/table.rs` on every executor: CPU with one and several threads, GPU with every set of features that
//! the adapter has, in f32 and f16. What is right is defined by `support/naive.rs`.

mod support;

use support::executors;
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

fn hold(kind: &executors::Kind) {
    let start = std::time::Instant::now();
    let cases = if kind.variation { short_table() } else { table() };
    let failures: Vec<String> = cases.iter().filter_map(|case| case.check(kind).err()).collect();
    println!("{}: {} cases in {:.1} s", kind.name, cases.len(), start.elapsed().as_secs_f32());
    assert!(failures.is_empty(), "{}: {} cases fail:\n{}", kind.name, failures.len(), failures.join("\n"));
}
