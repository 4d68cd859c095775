//! Every shader variant that the GPU executor can generate is valid WGSL and can be translated for every backend: SPIR-V for
//! Vulkan, MSL for Metal, HLSL for DX12. By naga, so without any of them.

#![cfg(feature = "gpu")]

mod support;

use lexel::gpu::compile::compile;
use lexel::gpu::kernel::Target;
use lexel::gpu::kernels::{attention, linear};
use lexel::gpu::tuning::{LengthClass, RowClass};
use lexel::gpu::{AdapterSelector, Cooperative, Dtype, Features, GpuDevice, Tuning};
use lexel::program::Program;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, back};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use support::programs::{MINILM, SMALL_BERT, bert};
use support::table::table;

/// Fewer variants than this, and the list has lost some.
const AT_LEAST: usize = 500;

/// A kernel that takes longer to compile is worth a line.
const SLOW: Duration = Duration::from_millis(500);

struct Variant {
    name: String,
    entry: &'static str,
    text: String,
    features: Features,
    module: Module,
    info: ModuleInfo,
    /// What it was validated with.
    capabilities: Capabilities,
}

#[test]
fn every_variant_is_valid() {
    let variants = variants();
    assert!(variants.len() >= AT_LEAST, "only {} variants", variants.len());
    for variant in variants {
        assert_eq!(variant.module.entry_points.len(), 1, "{}: entry points", variant.name);
        assert_eq!(variant.module.entry_points[0].name, variant.entry, "{}", variant.name);
    }
    println!("{} shader variants are valid", variants.len());
}

#[test]
fn every_variant_translates_to_spirv() {
    let options = back::spv::Options { lang_version: (1, 3), ..Default::default() };
    for Variant { name, module, info, .. } in variants() {
        let words = back::spv::write_vec(module, info, &options, None)
            .unwrap_or_else(|error| panic!("{name}: SPIR-V: {error}"));
        assert_eq!(words[0], 0x0723_0203, "{name}: the magic number of SPIR-V");
    }
}

#[test]
fn every_variant_translates_to_msl() {
    let options = back::msl::Options { lang_version: (3, 0), ..Default::default() };
    for Variant { name, module, info, .. } in variants() {
        let (text, translated) = back::msl::write_string(module, info, &options, &Default::default())
            .unwrap_or_else(|error| panic!("{name}: MSL: {error}"));
        assert!(text.contains("kernel void"), "{name}: {text}");
        translated.entry_point_names.into_iter().for_each(|entry| {
            entry.unwrap_or_else(|error| panic!("{name}: MSL: {error:?}"));
        });
    }
}

#[test]
fn every_variant_translates_to_hlsl() {
    // 6.0 has subgroups ("wave intrinsics"), 6.2 native f16, 6.4 products of four bytes.
    let options = back::hlsl::Options { shader_model: back::hlsl::ShaderModel::V6_4, ..Default::default() };
    // DX12 has no cooperative matrices, so no device of its is given that kernel.
    for Variant { name, module, info, .. } in variants().iter().filter(|v| !v.entry.contains("_cooperative")) {
        let mut text = String::new();
        let translated = back::hlsl::Writer::new(&mut text, &options, &Default::default())
            .write(module, info, None)
            .unwrap_or_else(|error| panic!("{name}: HLSL: {error}"));
        assert!(text.contains("numthreads"), "{name}: {text}");
        translated.entry_point_names.into_iter().for_each(|entry| {
            entry.unwrap_or_else(|error| panic!("{name}: HLSL: {error:?}"));
        });
    }
}

/// Writes what naga makes of every variant for the compilers of DX12, and for each compiler a list: `FILE ENTRY TARGET OPTIONS`.
#[test]
#[ignore = "for scripts/test-dx12-compilers"]
fn write_hlsl() {
    let folder = PathBuf::from(std::env::var_os("HLSL_FOLDER").expect("HLSL_FOLDER names no folder"));
    for (compiler, shader_model) in [("fxc", back::hlsl::ShaderModel::V5_1), ("dxc", back::hlsl::ShaderModel::V6_4)] {
        let folder = folder.join(compiler);
        std::fs::create_dir_all(&folder).unwrap();
        // As wgpu asks for it, for shaders that need no checks.
        let options = back::hlsl::Options {
            shader_model,
            special_constants_binding: Some(back::hlsl::BindTarget { space: 2, ..Default::default() }),
            zero_initialize_workgroup_memory: false,
            restrict_indexing: false,
            force_loop_bounding: false,
            ..Default::default()
        };
        let mut list = String::new();
        for (i, Variant { name, module, info, capabilities, .. }) in variants().iter().enumerate() {
            let beyond_fxc = Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::SHADER_INT64;
            let is_possible = match compiler {
                "fxc" => !capabilities.intersects(beyond_fxc | Capabilities::COOPERATIVE_MATRIX),
                _ => !capabilities.contains(Capabilities::COOPERATIVE_MATRIX),
            };
            if !is_possible || workgroup_memory(module) > 32 << 10 {
                continue;
            }
            let mut text = String::new();
            let translated =
                back::hlsl::Writer::new(&mut text, &options, &Default::default()).write(module, info, None);
            let entry = translated.unwrap().entry_point_names.remove(0).unwrap();
            let file = format!("{i:04}-{entry}.hlsl");
            std::fs::write(folder.join(&file), format!("// {name}\n{text}")).unwrap();
            let f16 = if capabilities.contains(Capabilities::SHADER_FLOAT16) { " -enable-16bit-types" } else { "" };
            writeln!(list, "{file} {entry} cs_{}{f16}", shader_model.to_str()).unwrap();
        }
        std::fs::write(folder.join("list"), list).unwrap();
    }
}

/// Compiles every variant that the adapter can run with its driver, as the executor does.
#[test]
#[ignore = "for scripts/test-gpu-compilers and test-intel-compiler, whose drivers compile for GPUs that are not there"]
fn every_variant_compiles_on_the_adapter() {
    let device = GpuDevice::open(&AdapterSelector::Any).unwrap();
    let description = device.description();
    println!("{description}, {}", description.features);
    let mut compiled = 0;
    for Variant { name, entry, text, features, module, .. } in variants() {
        // What it may use of this, and a size of subgroups only if it is this one's.
        let has = description.features.masked(*features);
        if has != *features || workgroup_memory(module) > description.limits.max_compute_workgroup_storage_size {
            continue;
        }
        let began = Instant::now();
        let errors = device.wgpu_device().push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(text.into()) };
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: it is compiled, and never run.
        let module = unsafe { device.wgpu_device().create_shader_module_trusted(source, checks) };
        let _ = device.wgpu_device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let took = began.elapsed();
        if took > SLOW {
            println!("{name}: {took:.1?}");
        }
        if let Some(error) = pollster::block_on(errors.pop()) {
            panic!("{name}: {error}\n{text}");
        }
        compiled += 1;
    }
    println!("{compiled} of {} variants compiled", variants().len());
    assert!(compiled >= AT_LEAST);
}

/// Bytes.
fn workgroup_memory(module: &Module) -> u32 {
    let variables = module.global_variables.iter().map(|(_, variable)| variable);
    let shared = variables.filter(|variable| variable.space == naga::AddressSpace::WorkGroup);
    shared.map(|variable| module.types[variable.ty].inner.size(module.to_ctx())).sum()
}

/// What kernels are chosen by: dtype, features, the kind of device and its limits.
fn targets() -> Vec<Target> {
    let mut targets = Vec::new();
    for subgroups in [None, Some(None), Some(Some(4)), Some(Some(8)), Some(Some(16)), Some(Some(32)), Some(Some(64))] {
        for (dtype, int64) in [(Dtype::F32, false), (Dtype::F32, true), (Dtype::F16, false), (Dtype::F16, true)] {
            for software in [false, true] {
                for limits in [wgpu::Limits::default(), generous()] {
                    let features = Features {
                        f16: dtype == Dtype::F16,
                        subgroups: subgroups.is_some(),
                        subgroup_size: subgroups.flatten(),
                        int64,
                        cooperative: Cooperative::default(),
                    };
                    targets.push(Target { dtype, features, limits, software, int8: false, tuning: Tuning::default() });
                }
            }
        }
    }
    targets.extend(tuned_targets());
    targets
}

/// What only a measurement chooses, and 8 bits.
fn tuned_targets() -> Vec<Target> {
    let mut targets = Vec::new();
    let (f16, f32) = (|size| Cooperative { f16: Some(size), f32: None }, Cooperative { f16: None, f32: Some(8) });
    let without = (Cooperative::default(), None);
    for (dtype, int8, (cooperative, subgroup_size)) in [
        (Dtype::F32, false, without),
        (Dtype::F16, false, without),
        (Dtype::F32, true, without),
        (Dtype::F16, true, without),
        (Dtype::F32, false, (f32, Some(32))),
        (Dtype::F16, false, (f16(8), Some(32))),
        (Dtype::F16, false, (f16(16), Some(32))),
        (Dtype::F16, false, (f16(16), None)),
    ] {
        let matrices = cooperative != Cooperative::default();
        let features =
            Features { f16: dtype == Dtype::F16, subgroups: matrices, subgroup_size, int64: false, cooperative };
        let limits = wgpu::Limits::default();
        let target = Target { dtype, features, limits, software: false, int8, tuning: Tuning::default() };
        for variant in RowClass::ALL.into_iter().flat_map(|rows| linear::candidates(&target, rows)) {
            targets.push(Target { tuning: Tuning::only(variant), ..target.clone() });
        }
        let target = Target { limits: generous(), ..target };
        for variant in LengthClass::ALL.into_iter().flat_map(|length| attention::candidates(&target, 32, length)) {
            targets.push(Target { tuning: Tuning::only_attention(variant), ..target.clone() });
        }
    }
    targets
}

/// The limits of a large GPU.
fn generous() -> wgpu::Limits {
    wgpu::Limits {
        max_compute_workgroup_storage_size: 48 << 10,
        max_compute_invocations_per_workgroup: 1024,
        max_compute_workgroup_size_x: 1024,
        max_storage_buffers_per_shader_stage: 64,
        max_storage_buffer_binding_size: 2 << 30,
        max_buffer_size: 2 << 30,
        ..wgpu::Limits::default()
    }
}

/// The texts of every kernel that the table of cases and two whole models make on every target, each once; parsed, and
/// validated with nothing allowed that the target lacks.
fn variants() -> &'static [Variant] {
    static VARIANTS: OnceLock<Vec<Variant>> = OnceLock::new();
    VARIANTS.get_or_init(|| {
        let mut programs: Vec<Arc<Program>> = table().into_iter().map(|case| case.program).collect();
        programs.extend([SMALL_BERT, MINILM].map(|shape| Arc::new(bert(shape))));
        let mut seen = HashSet::new();
        let mut variants = Vec::new();
        for target in targets() {
            for program in &programs {
                let compiled = compile(program, &target).expect("a program of the tests compiles");
                for launch in compiled.steps.iter().flatten() {
                    let text = launch.prelude.text(launch.kernel);
                    if seen.insert(text.clone()) {
                        let name = format!("{}, {}, {}", launch.kernel.name, target.dtype.name(), target.features);
                        variants.push(parse(name, launch.kernel.name, &text, &target));
                    }
                }
            }
        }
        variants
    })
}

fn parse(name: String, entry: &'static str, text: &str, target: &Target) -> Variant {
    // `unpack2x16float`, which every adapter but a few of GL's has.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SHADER_FLOAT16, target.dtype == Dtype::F16);
    capabilities.set(Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER, target.features.subgroups);
    capabilities.set(Capabilities::SHADER_INT64, target.features.int64);
    let matrices = entry.contains("_cooperative") && target.features.cooperative != Cooperative::default();
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, matrices);
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{name}:\n{}", error.emit_to_string_with_path(text, &name)));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}:\n{}", error.emit_to_string_with_path(text, &name)));
    Variant { name, entry, text: text.into(), features: target.features, module, info, capabilities }
}
