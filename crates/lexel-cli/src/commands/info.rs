//! `lexel info`: what a model's files say. No weights are read and no device is opened.

use crate::args::InfoCommand;
use crate::config;
use crate::failure::Failure;
use crate::messages::{self, DownloadBar};
use lexel::checkpoint::{Checkpoint, Module, ModuleKind, TransformerModule};
use lexel::models;
use lexel::program::Program;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Runs the subcommand.
pub fn run(args: &InfoCommand, json: bool) -> Result<(), Failure> {
    let bar = DownloadBar::default();
    let mut source = config::source(&args.source);
    source.progress = Some(bar.shared_callback());
    let opened = Checkpoint::open(&args.model, &source);
    bar.finish();
    let checkpoint = opened?;
    let program = models::sentence_transformer(checkpoint.modules())?;
    if args.program {
        return match json {
            true => messages::stdout(&format!("{}\n", json!({"program": program.to_string()}))),
            false => messages::stdout(&program.to_string()),
        };
    }
    let facts = facts(&checkpoint, &program)?;
    match json {
        true => messages::stdout(&format!("{facts}\n")),
        false => messages::stdout(&text(&facts)),
    }
}

/// Everything that is told, by name.
fn facts(checkpoint: &Checkpoint, program: &Program) -> Result<Value, Failure> {
    let (_, transformer) = checkpoint.transformer()?;
    let settings = checkpoint.settings();
    let full = program.shape(program.sentences).cols;
    // Some files also hold a table of position ids, which are no weights.
    let mut dtypes = checkpoint.weights()?.dtypes();
    dtypes.retain(|dtype| dtype.contains('F'));
    Ok(json!({
        "model": checkpoint.name(),
        "folder": checkpoint.folder(),
        "commit": checkpoint.commit(),
        "architecture": transformer.config.str("model_type")?,
        "parameters": program.parameters(),
        "dimensions": settings.truncate_dim.map_or(full, |dim| dim.min(full)),
        "max_seq_length": max_seq_length(transformer, program),
        "modules": checkpoint.modules().iter().map(module).collect::<Vec<_>>(),
        "similarity": settings.similarity_fn_name.as_deref().unwrap_or("cosine"),
        "prompts": settings.bi_encoder_prompts(),
        "default_prompt": settings.default_prompt_name,
        "dtype": dtypes,
        "files": files(checkpoint.folder(), checkpoint.modules()),
    }))
}

/// As the model truncates when it is loaded without options.
fn max_seq_length(transformer: &TransformerModule, program: &Program) -> Option<usize> {
    transformer.max_seq_length.or(program.max_positions())
}

fn module(module: &Module) -> String {
    match &module.kind {
        ModuleKind::Pooling(pooling) => {
            let modes: Vec<_> = pooling.modes.iter().map(|mode| mode.name()).collect();
            let prompt = if pooling.include_prompt { "" } else { ", without the prompt" };
            format!("Pooling ({}{prompt})", modes.join(" + "))
        }
        ModuleKind::Dense(dense) => {
            format!("Dense ({} to {}, {})", dense.in_features, dense.out_features, dense.activation)
        }
        ModuleKind::LayerNorm { dim } => format!("LayerNorm ({dim})"),
        ModuleKind::Transformer(_) => "Transformer".to_string(),
        ModuleKind::Normalize(_) => "Normalize".to_string(),
        ModuleKind::Dropout => "Dropout".to_string(),
    }
}

/// The files of the root and of the modules' folders, with their sizes.
fn files(folder: &Path, modules: &[Module]) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for folder_of_files in modules.iter().map(|module| module.path.as_path()).chain([folder]) {
        // A module without weights may have no folder: git keeps no empty ones.
        for entry in std::fs::read_dir(folder_of_files).into_iter().flatten().flatten() {
            // Through links: the hub's cache is full of them.
            if let Ok(metadata) = std::fs::metadata(entry.path())
                && metadata.is_file()
            {
                let path = entry.path();
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                files.insert(name, metadata.len());
            }
        }
    }
    files
}

/// The facts as lines, without those that say nothing.
fn text(facts: &Value) -> String {
    let mut out = String::new();
    for (key, value) in facts.as_object().into_iter().flatten() {
        let name = key.replace('_', " ");
        match value {
            Value::Null => {}
            Value::String(value) => {
                let _ = writeln!(out, "{name:<16} {value}");
            }
            Value::Array(values) => {
                let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                let _ = writeln!(out, "{name:<16} {}", values.join(if key == "modules" { " -> " } else { ", " }));
            }
            Value::Object(entries) => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    let name = if i == 0 { name.as_str() } else { "" };
                    let value = match value.as_u64() {
                        Some(bytes) => format!("{} bytes", grouped(bytes)),
                        None => value.to_string(),
                    };
                    let _ = writeln!(out, "{name:<16} {key}: {value}");
                }
            }
            value => {
                let value = value.as_u64().map_or_else(|| value.to_string(), grouped);
                let _ = writeln!(out, "{name:<16} {value}");
            }
        }
    }
    out
}

/// `22713216` as `22,713,216`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_groups() {
        let grouped = [0, 999, 1000, 22_713_216].map(grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "22,713,216"]);
    }
}
