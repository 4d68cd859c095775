//! Writes the WGSL of every kernel that a preset may get on a GPU, one file each, as the executor compiles it: for a driver's
//! offline compiler, which tells registers, spills and occupancy without that GPU.
//!
//!     cargo run --example wgsl -- FOLDER PRESET f32|f16|int8 [SUBGROUP SIZE] [SIZE OF COOPERATIVE MATRICES]

use lexel::gpu::compile::compile;
use lexel::gpu::kernel::Target;
use lexel::gpu::kernels::{attention, linear};
use lexel::gpu::tuning::{AttentionClass, LengthClass, RowClass};
use lexel::gpu::{Cooperative, Dtype, Features, Tuning};
use lexel::models::Preset;
use lexel::program::Program;
use std::collections::HashSet;
use std::error::Error;
use std::path::PathBuf;

/// Tokens of the longest text: of weights without numbers, only tables of positions depend on it.
const LONGEST: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, preset, dtype, sizes @ ..] = &arguments[..] else {
        return Err("usage: wgsl FOLDER PRESET f32|f16|int8 [SUBGROUP SIZE] [SIZE OF COOPERATIVE MATRICES]".into());
    };
    let folder = PathBuf::from(folder);
    let size = |i: usize| sizes.get(i).map(|size| size.parse::<u32>()).transpose();
    let (subgroup_size, matrices) = (size(0)?, size(1)?);
    let dtype: Dtype = dtype.parse()?;
    let int8 = dtype == Dtype::Int8;
    let features = Features {
        f16: true,
        subgroups: subgroup_size.is_some(),
        subgroup_size,
        int64: false,
        cooperative: Cooperative { f16: matrices, f32: None },
    };
    // What every GPU for desktops has.
    let limits = wgpu::Limits {
        max_compute_workgroup_storage_size: 32 << 10,
        max_compute_invocations_per_workgroup: 1024,
        max_compute_workgroup_size_x: 1024,
        max_storage_buffer_binding_size: 1 << 30,
        max_buffer_size: 1 << 30,
        ..wgpu::Limits::default()
    };
    let dtype = if int8 { Dtype::F16 } else { dtype };
    let target = Target { dtype, int8, features, limits, software: false, tuning: Tuning::default() };
    let program = Preset::named(preset)?.program(LONGEST);

    std::fs::create_dir_all(&folder)?;
    let mut seen = HashSet::new();
    for (tuning, value) in tunings(&target, &program) {
        let compiled = compile(&program, &Target { tuning: value, ..target.clone() })?;
        for (step, launches) in program.steps.iter().zip(&compiled.steps) {
            for launch in launches {
                let text = launch.prelude.text(launch.kernel);
                if seen.insert(text.clone()) {
                    let name = format!("{:03}-{}.wgsl", seen.len(), launch.kernel.name);
                    println!("{name}\t{tuning}\t{}\t{}", step.op.name(), step.label);
                    std::fs::write(folder.join(name), text)?;
                }
            }
        }
    }
    Ok(())
}

/// The kernels that the program gets unmeasured, then with each variant that a measurement may choose.
fn tunings(target: &Target, program: &Program) -> Vec<(String, Tuning)> {
    let mut tunings = vec![("default".to_string(), Tuning::default())];
    let linear = RowClass::ALL.into_iter().flat_map(|rows| linear::candidates(target, rows));
    tunings.extend(linear.map(|variant| (variant.to_string(), Tuning::only(variant))));
    if let Some(head_dim) = attention::widest_head(program) {
        for length in LengthClass::ALL {
            tunings.extend(attention::candidates(target, head_dim, length).into_iter().map(|variant| {
                let mut tuning = Tuning::default();
                tuning.set_attention(AttentionClass::new(length, head_dim), variant);
                (variant.to_string(), tuning)
            }));
        }
    }
    tunings
}
