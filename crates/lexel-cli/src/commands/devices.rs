//! `lexel devices`: what there is to compute on, and what `auto` takes.

use super::tune;
use crate::args::DevicesCommand;
use crate::failure::Failure;
use crate::messages;
use lexel::Dtype;
use serde_json::{Value, json};
use std::fmt::Write;

/// A device, for the list.
struct Entry {
    name: String,
    /// What is known of it, as `(key, value)`, for people.
    facts: Vec<(&'static str, String)>,
    /// The same for programs.
    json: Value,
    /// Whether `auto` may take it.
    real: bool,
}

/// Runs the subcommand.
pub fn run(args: &DevicesCommand, json: bool) -> Result<(), Failure> {
    if let Some(device) = &args.tune {
        return tune::run(device, json);
    }
    let (adapters, cpu) = (adapters(), cpu());
    let (auto, why) = choice(&adapters);
    if json {
        let devices: Vec<&Value> = adapters.iter().chain([&cpu]).map(|entry| &entry.json).collect();
        return messages::stdout(&format!("{}\n", json!({"devices": devices, "auto": auto, "why": why})));
    }
    let mut out = String::new();
    for entry in adapters.iter().chain([&cpu]) {
        let _ = writeln!(out, "{}", entry.name);
        for (key, value) in &entry.facts {
            let _ = writeln!(out, "    {key:<18} {value}");
        }
    }
    let _ = writeln!(out, "\nauto: {auto} ({why})");
    messages::stdout(&out)
}

/// What `auto` takes, and why.
fn choice(adapters: &[Entry]) -> (String, String) {
    if let Ok(name) = std::env::var("LEXEL_DEVICE")
        && !name.is_empty()
        && !name.trim().eq_ignore_ascii_case("auto")
    {
        return (name, "LEXEL_DEVICE says so".to_string());
    }
    match adapters.iter().find(|adapter| adapter.real) {
        Some(adapter) => (adapter.name.clone(), "the first real GPU".to_string()),
        None if cfg!(not(feature = "gpu")) => ("cpu".to_string(), "this build has no GPU support".to_string()),
        None if adapters.is_empty() => {
            ("cpu".to_string(), "there is no adapter for Vulkan, Metal or DX12; is a driver installed?".to_string())
        }
        None => ("cpu".to_string(), "there is no real GPU; a software adapter runs only when named".to_string()),
    }
}

fn cpu() -> Entry {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let facts = vec![
        ("device", "cpu".to_string()),
        ("type", "Cpu (native)".to_string()),
        ("threads", threads.to_string()),
        ("dtypes", "f32, f16 (weights), bf16 (weights, unless there is AMX), int8".to_string()),
    ];
    let dtypes = Dtype::ALL.map(Dtype::name);
    let json = json!({"name": "cpu", "device": "cpu", "type": "Cpu", "threads": threads, "dtypes": dtypes});
    Entry { name: "cpu".to_string(), facts, json, real: false }
}

#[cfg(feature = "gpu")]
fn adapters() -> Vec<Entry> {
    let mut gpus = 0..;
    let entry = |adapter: lexel::gpu::AdapterDescription| {
        // Software adapters come last.
        let index = if adapter.is_software() { None } else { gpus.next() };
        let option =
            index.map_or("part of the name".to_string(), |index: usize| format!("gpu{index}, or part of the name"));
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let (features, limits) = (&adapter.features, &adapter.limits);
        let dtypes = if features.f16 { &["f32", "f16", "int8"][..] } else { &["f32", "int8"] };
        let json = json!({
            "name": adapter.name,
            "device": index.map_or(adapter.name.clone(), |index| format!("gpu{index}")),
            "backend": format!("{:?}", adapter.backend),
            "type": format!("{:?}", adapter.device_type),
            "software": adapter.is_software(),
            "driver": adapter.driver,
            "features": {
                "f16": features.f16,
                "subgroups": features.subgroups,
                "subgroup_size": features.subgroup_size,
                "int64": features.int64,
                "f16_matrices": features.cooperative.f16,
                "f32_matrices": features.cooperative.f32,
            },
            "dtypes": dtypes,
            "largest_buffer_bytes": limits.max_buffer_size,
            "largest_binding_bytes": limits.max_storage_buffer_binding_size,
            "workgroup_memory_bytes": limits.max_compute_workgroup_storage_size,
            "workgroup_invocations": limits.max_compute_invocations_per_workgroup,
        });
        let facts = vec![
            ("device", option),
            ("backend", format!("{:?}", adapter.backend)),
            (
                "type",
                match adapter.is_software() {
                    true => "Cpu (software adapter)".to_string(),
                    false => format!("{:?}", adapter.device_type),
                },
            ),
            ("driver", adapter.driver.clone()),
            ("features", features.to_string()),
            ("dtypes", dtypes.join(", ")),
            ("largest buffer", mib(limits.max_buffer_size)),
            ("largest binding", mib(limits.max_storage_buffer_binding_size)),
            ("workgroup memory", format!("{} KiB", limits.max_compute_workgroup_storage_size >> 10)),
            ("workgroup size", format!("{} invocations", limits.max_compute_invocations_per_workgroup)),
        ];
        Entry { real: !adapter.is_software(), name: adapter.name.clone(), facts, json }
    };
    lexel::gpu::GpuDevice::adapters().into_iter().map(entry).collect()
}

#[cfg(not(feature = "gpu"))]
fn adapters() -> Vec<Entry> {
    Vec::new()
}
