//! `lexel devices --tune`: how fast each kernel of the matrix product and of attention is on a GPU, and which one it gets.

use crate::failure::Failure;

/// Measures a device: as `--device` names it, but one.
#[cfg(feature = "gpu")]
pub fn run(device: &str, json: bool) -> Result<(), Failure> {
    use crate::messages;
    use lexel::gpu::{AdapterSelector, Dtype, GpuDevice};
    use std::fmt::Write;

    let lower = device.to_ascii_lowercase();
    let selector = match lower.strip_prefix("gpu").map(str::parse) {
        Some(Ok(index)) => AdapterSelector::Nth(index),
        Some(Err(_)) if lower == "gpu" => AdapterSelector::Auto,
        _ => AdapterSelector::Name(device.to_string()),
    };
    let device = GpuDevice::open(&selector)?;
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::Int8];
    let (mut text, mut all) = (format!("{}\n", device.description()), Vec::new());
    let mut failure = None;
    for dtype in dtypes.into_iter().filter(|&dtype| dtype != Dtype::F16 || device.description().features.f16) {
        let (measurement, path) = device.tune(dtype);
        if measurement.linear.is_empty() {
            let device = device.description();
            let message =
                format!("{device}: nothing measured: it has no timestamp queries, or a warning above says why");
            return Err(Failure::new(crate::failure::DEVICE, message));
        }
        let name = dtype.name();
        let _ = writeln!(text, "\n{name}");
        let tuning = &measurement.tuning;
        let linear = measurement.linear.iter().map(|trial| {
            let chosen = tuning.linear(trial.class) == Some(trial.variant);
            ("linear", trial.class.to_string(), trial.variant.to_string(), chosen, &trial.flops)
        });
        let attention = measurement.attention.iter().map(|trial| {
            let chosen = tuning.attention(trial.class) == Some(trial.variant);
            ("attention", trial.class.to_string(), trial.variant.to_string(), chosen, &trial.flops)
        });
        let mut trials = Vec::new();
        for (op, class, kernel, chosen, flops) in linear.chain(attention) {
            let mark = if chosen { '*' } else { ' ' };
            let rate = flops.as_ref().map(|flops| flops / 1e9);
            let _ = match &rate {
                Ok(rate) => writeln!(text, "  {mark} {op:<9} {class:<46} {kernel:<38} {rate:>9.1} GFLOP/s"),
                Err(reason) => writeln!(text, "  {mark} {op:<9} {class:<46} {kernel:<38} not used: {reason}"),
            };
            trials.push(serde_json::json!({
                "op": op, "class": class, "kernel": kernel, "chosen": chosen,
                "gflop_per_s": rate.as_ref().ok(), "not_used": rate.as_ref().err().map(ToString::to_string),
            }));
        }
        let forgone = measurement.forgone.as_ref().map(ToString::to_string);
        if let Some(reason) = &forgone {
            let what = if tuning.without_subgroups { "subgroup operations" } else { "cooperative matrices" };
            let _ = writeln!(text, "  without {what}, because with them: {reason}");
        }
        let _ = match &path {
            Some(path) => writeln!(text, "  kept in {}", path.display()),
            None if device.description().is_software() => {
                writeln!(text, "  not kept: software adapters use the defaults")
            }
            None if measurement.fault.is_some() => writeln!(text, "  not kept: the device is unfit"),
            None => writeln!(
                text,
                "  not kept: something failed that may not fail the next time, or LEXEL_CACHE_DIR is off"
            ),
        };
        let unfit = measurement.fault.as_ref().map(|fault| device.unfit(dtype, fault));
        let reason = unfit.as_ref().map(ToString::to_string);
        all.push(serde_json::json!({
            "dtype": name, "file": path, "trials": trials, "without_subgroups": tuning.without_subgroups,
            "forgone": forgone, "unfit": reason,
        }));
        failure = failure.or(unfit);
    }
    if json {
        let device = device.description().to_string();
        text = format!("{}\n", serde_json::json!({"device": device, "dtypes": all}));
    }
    messages::stdout(&text)?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Built without GPUs.
#[cfg(not(feature = "gpu"))]
pub fn run(_: &str, _: bool) -> Result<(), Failure> {
    Err(Failure::usage("this build of lexel has no GPU support: there is nothing to measure"))
}
