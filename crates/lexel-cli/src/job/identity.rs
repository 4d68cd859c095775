//! What must be the same for a job to be continued: anything that changes a number in its parts.

use super::JobInput;
use super::tally::{Tally, TallyReader};
use crate::args::OutputFormat;
use crate::failure::Failure;
use crate::model::Model;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Endings of a model's files that matter.
const ENDINGS: [&str; 5] = ["json", "txt", "model", "safetensors", "jinja"];

/// The options of a job, by name.
#[derive(Default)]
pub struct Identity(pub Map<String, Value>);

impl Identity {
    /// Adds an option.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Identity {
        self.0.insert(name.to_string(), value.into());
        self
    }

    /// With what the model's files and the input say.
    pub fn of<const N: usize>(
        mut self,
        model: &impl Model,
        input: &JobInput<N>,
        output: OutputFormat,
    ) -> Result<Map<String, Value>, Failure> {
        self.0.insert("max_seq_length".into(), json!(model.max_seq_length()));
        self.0.insert("input_format".into(), json!(format!("{:?}", input.format)));
        self.0.insert("keep_columns".into(), json!(input.keep));
        self.0.insert("on_invalid".into(), json!([input.lossy, input.fail_on_reject]));
        self.0.insert("output_format".into(), json!(super::part::extension(output)));
        let mut files = Vec::new();
        collect(model.folder(), &mut files)?;
        files.sort();
        for path in files {
            let name = path.strip_prefix(model.folder()).unwrap_or(&path).display().to_string();
            self.0.insert(format!("model file {name}"), hash(&path)?.into());
        }
        Ok(self.0)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::reading(&folder.display().to_string(), &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if path.is_dir() {
            collect(&path, files)?;
        } else if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(path);
        }
    }
    Ok(())
}

/// The SHA-256 of a file. The hub's cache has it as the name of the file behind a link.
fn hash(path: &Path) -> Result<String, Failure> {
    if let Some(name) = fs::read_link(path).ok().as_deref().and_then(Path::file_name).and_then(|name| name.to_str())
        && name.len() == 64
        && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(name.to_string());
    }
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let tally = Arc::new(Tally::default());
    let mut reader =
        TallyReader::new(BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?), tally.clone());
    io::copy(&mut reader, &mut io::sink()).map_err(failed)?;
    Ok(tally.hash())
}
