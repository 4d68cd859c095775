//! Rotary positions as configurations describe them: an old form with `rope_theta` and `rope_scaling`, and a new one with
//! `rope_parameters`, for all layers or for each type of layer.

use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{Builder, RotaryTable};
use std::f32::consts::PI;

/// How many positions a model was trained for before its frequencies were scaled.
const TRAINED: &str = "original_max_position_embeddings";

/// Where a family keeps its base, and what it is without.
pub(super) struct Base {
    pub key: &'static str,
    pub default: f32,
}

/// The table of a backbone whose layers all turn alike. `positions` is how many the model was made for: with a maximum length
/// of its own, the table is as long as that.
pub(super) fn table(
    b: &Builder,
    config: &JsonFile,
    base: Base,
    head_dim: usize,
    positions: usize,
) -> Result<RotaryTable> {
    let parameters = config.object_opt("rope_parameters")?;
    let scaling = config.object_opt("rope_scaling")?;
    // Where both are there, transformers takes the old form.
    let scaling = scaling.filter(|scaling| scaling.keys().next().is_some());
    build(b, config, scaling.or(parameters), base, head_dim, positions)
}

/// The table of the layers of one type, e.g. `full_attention`.
pub(super) fn table_of(
    b: &Builder,
    config: &JsonFile,
    layer_type: &str,
    base: Base,
    head_dim: usize,
    positions: usize,
) -> Result<RotaryTable> {
    if config.get("rope_scaling").is_some() {
        return Err(config.unsupported("rope_scaling", "null"));
    }
    let parameters = match config.object_opt("rope_parameters")? {
        Some(parameters) => parameters.object_opt(layer_type)?,
        None => None,
    };
    build(b, config, parameters, base, head_dim, positions)
}

fn build(
    b: &Builder,
    config: &JsonFile,
    parameters: Option<JsonFile>,
    base: Base,
    head_dim: usize,
    positions: usize,
) -> Result<RotaryTable> {
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        let detail = format!("heads of {head_dim} columns: rotary positions turn pairs of columns");
        return Err(Error::invalid_file(config.path(), detail));
    }
    let empty = JsonFile::from_object(config.path(), Default::default());
    let scaling = parameters.as_ref().unwrap_or(&empty);
    let key = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = scaling.str_or(key, "default")?;
    let partly = scaling.get("partial_rotary_factor").and_then(|factor| factor.as_f64()).unwrap_or(1.0);
    if partly != 1.0 && kind != "proportional" {
        return Err(scaling.unsupported("partial_rotary_factor", "1, but where rope_type is proportional"));
    }
    if config.f32_or("partial_rotary_factor", 1.0)? != 1.0 {
        return Err(config.unsupported("partial_rotary_factor", "1"));
    }
    let theta = match scaling.f32_opt("rope_theta")? {
        Some(theta) => theta,
        None => config.f32_or(base.key, base.default)?,
    };
    let plain = frequencies(theta, head_dim);
    let scaled: Vec<f32> = match kind {
        "default" => plain,
        // Of Gemma 4: some pairs of columns, as in heads that turn whole; the others do not turn.
        "proportional" => {
            let (turned, factor) = ((partly * head_dim as f64) as usize / 2, scaling.f32_or("factor", 1.0)?);
            let pairs = plain.into_iter().enumerate();
            pairs.map(|(i, frequency)| if i < turned { frequency / factor } else { 0.0 }).collect()
        }
        "linear" => {
            let factor = scaling.f32("factor")?;
            plain.into_iter().map(|frequency| frequency / factor).collect()
        }
        // Of the original gte-v1.5: a larger base, and all frequencies lowered a little.
        "ntk" => {
            if scaling.get("mixed_b").is_some() {
                return Err(scaling.unsupported("mixed_b", "null"));
            }
            let factor = scaling.f32("factor")?;
            let lower = f64::from(factor).powf(2.0 / head_dim as f64) as f32;
            frequencies(theta * factor, head_dim).into_iter().map(|frequency| frequency / lower).collect()
        }
        "llama3" => {
            let trained = config.usize_opt(TRAINED)?.or(scaling.usize_opt(TRAINED)?);
            llama3(scaling, plain, trained.unwrap_or(positions) as f32)?
        }
        // Only texts longer than the model was trained for would have a base of their own.
        "dynamic" => match b.limit() {
            Some(limit) if limit <= scaling.usize_or(TRAINED, positions)?.min(positions) => plain,
            _ => {
                let supported = format!("default, or dynamic with a max_seq_length of at most {positions}");
                return Err(scaling.unsupported(key, supported));
            }
        },
        _ => return Err(scaling.unsupported(key, "default, linear, ntk, llama3, proportional")),
    };
    Ok(RotaryTable::of_frequencies(scaled, b.limit().unwrap_or(positions)))
}

/// `theta^(-2 i / head_dim)`, rounded to f32 after each operation as the reference does.
fn frequencies(theta: f32, head_dim: usize) -> Vec<f32> {
    let exponent = |i: usize| (2 * i) as f32 / head_dim as f32;
    (0..head_dim / 2).map(|i| 1.0 / f64::from(theta).powf(f64::from(exponent(i))) as f32).collect()
}

/// Llama 3.1: slow turns are stretched by `factor`, fast ones stay, and between the two it fades.
fn llama3(scaling: &JsonFile, frequencies: Vec<f32>, trained: f32) -> Result<Vec<f32>> {
    let (factor, low, high) =
        (scaling.f32("factor")?, scaling.f32("low_freq_factor")?, scaling.f32("high_freq_factor")?);
    let scaled = |frequency: f32| {
        let length = 2.0 * PI / frequency;
        if length < trained / high {
            frequency
        } else if length > trained / low {
            frequency / factor
        } else {
            let smooth = (trained / length - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    };
    Ok(frequencies.into_iter().map(scaled).collect())
}

/// The types of a backbone's layers, `true` for those that see a window only: `layer_types`, else `is_local` of each.
pub(super) fn local_layers(config: &JsonFile, layers: usize, is_local: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    layers_of_type("sliding_attention", config, layers, is_local)
}

/// The same of another type than `full_attention`.
pub(super) fn layers_of_type(
    other: &str,
    config: &JsonFile,
    layers: usize,
    is_other: impl Fn(usize) -> bool,
) -> Result<Vec<bool>> {
    let Some(types) = config.strings_opt("layer_types")? else { return Ok((0..layers).map(is_other).collect()) };
    if types.len() != layers {
        let detail = format!("layer_types has {} entries for {layers} layers", types.len());
        return Err(Error::invalid_file(config.path(), detail));
    }
    let is_other = |name: &str| match name {
        "full_attention" => Ok(false),
        name if name == other => Ok(true),
        _ => Err(config.unsupported("layer_types", format!("full_attention, {other}"))),
    };
    types.into_iter().map(is_other).collect()
}

/// Whether each token sees those before it only: the key is absent in most configurations of decoders.
pub(super) fn is_causal(config: &JsonFile) -> Result<bool> {
    match config.bool_or("use_bidirectional_attention", false)? {
        // Transformers' models of all families but Gemma 3 do not look at it.
        true => Err(config.unsupported("use_bidirectional_attention", "false; is_causal = false in its place")),
        false => config.bool_or("is_causal", true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    fn config(text: &str) -> JsonFile {
        let Ok(Json::Object(object)) = serde_json::from_str(text) else { panic!("the test's JSON is an object") };
        JsonFile::from_object("config.json", object)
    }

    fn frequencies_of(text: &str) -> Result<Vec<f32>> {
        let base = Base { key: "rope_theta", default: 10_000.0 };
        Ok(table(&Builder::new(), &config(text), base, 4, 64)?.frequencies().collect())
    }

    #[test]
    fn old_and_new_forms_give_the_same_frequencies() {
        assert_eq!(frequencies_of("{}").unwrap(), [1.0, 0.01]);
        for text in [
            r#"{"rope_theta": 100}"#,
            r#"{"rope_parameters": {"rope_theta": 100, "rope_type": "default"}}"#,
            r#"{"rope_theta": 100, "rope_scaling": null}"#,
            r#"{"rope_theta": 100, "rope_parameters": {"rope_type": "default"}}"#,
        ] {
            assert_eq!(frequencies_of(text).unwrap(), [1.0, 0.1], "{text}");
        }
        let linear = r#"{"rope_theta": 100, "rope_scaling": {"type": "linear", "factor": 2}}"#;
        assert_eq!(frequencies_of(linear).unwrap(), [0.5, 0.05]);
        let ntk = frequencies_of(r#"{"rope_theta": 25, "rope_scaling": {"type": "ntk", "factor": 4}}"#).unwrap();
        assert_eq!(ntk, [0.5, 0.05]);
        // The old form wins, and has no base of its own.
        let both = r#""rope_parameters": {"rope_theta": 100, "rope_type": "default"}"#;
        let linear = frequencies_of(&format!(r#"{{{both}, "rope_scaling": {{"type": "linear", "factor": 2}}}}"#));
        assert_eq!(linear.unwrap(), [0.5, 0.005]);
        assert_eq!(frequencies_of(&format!(r#"{{{both}, "rope_scaling": {{}}}}"#)).unwrap(), [1.0, 0.1]);
        let message = frequencies_of(r#"{"rope_scaling": {"rope_type": "yarn"}}"#).unwrap_err().to_string();
        assert!(message.contains("rope_scaling.rope_type") && message.contains("yarn"), "{message}");
        assert!(frequencies_of(r#"{"partial_rotary_factor": 0.5}"#).is_err());
        let half = r#""rope_type": "proportional", "partial_rotary_factor": 0.5"#;
        let proportional = frequencies_of(&format!(r#"{{"rope_parameters": {{{half}, "factor": 4}}}}"#)).unwrap();
        assert_eq!(proportional, [0.25, 0.0]);
    }

    #[test]
    fn a_base_for_each_text_is_refused_only_where_there_are_such_texts() {
        let dynamic = |limit, more: &str| {
            let mut b = Builder::new();
            b.set_limit(limit);
            let config = config(&format!(r#"{{"rope_scaling": {{"type": "dynamic", "factor": 2{more}}}}}"#));
            table(&b, &config, Base { key: "rope_theta", default: 100.0 }, 4, 64)
                .map(|table| table.frequencies().collect())
        };
        let plain: Vec<f32> = dynamic(Some(64), "").unwrap();
        assert_eq!(plain, [1.0, 0.1]);
        let error = dynamic(Some(65), "").unwrap_err().to_string();
        assert!(error.contains("dynamic with a max_seq_length of at most 64"), "{error}");
        assert!(dynamic(None, "").is_err());
        assert!(dynamic(Some(33), r#", "original_max_position_embeddings": 32"#).is_err());
    }

    #[test]
    fn the_trained_length_beside_the_scaling_wins() {
        let scaling = r#""rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
            "original_max_position_embeddings": 8192}"#;
        let long = frequencies_of(&format!("{{{scaling}}}")).unwrap();
        assert_eq!(long, [1.0, 0.01]);
        let short = frequencies_of(&format!(r#"{{{scaling}, "original_max_position_embeddings": 16}}"#)).unwrap();
        assert_eq!(short[1], 0.00125, "a turn takes 628 positions");
    }

    #[test]
    fn layer_types_win_over_the_pattern() {
        let layers = |text| local_layers(&config(text), 3, |i| i == 1);
        assert_eq!(layers("{}").unwrap(), [false, true, false]);
        let named = r#"{"layer_types": ["sliding_attention", "full_attention", "full_attention"]}"#;
        assert_eq!(layers(named).unwrap(), [true, false, false]);
        assert!(layers(r#"{"layer_types": ["full_attention"]}"#).is_err());
        assert!(layers(r#"{"layer_types": ["a", "b", "c"]}"#).unwrap_err().to_string().contains("layer_types"));
    }
}
