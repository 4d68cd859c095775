//! `lexel merge`: the parts of a job as one file.

use crate::args::MergeCommand;
use crate::failure::Failure;
use crate::{job, messages};
use serde_json::Value;

/// Runs the subcommand.
pub fn run(args: &MergeCommand, json: bool) -> Result<(), Failure> {
    let summary = job::merge(&args.folders, &args.output)?;
    let path = args.output.display();
    if !summary.rejects.is_empty() {
        messages::warning(&format!("{} rows without a result: see {path}.rejects.jsonl", summary.rejects.len()));
    }
    let text = format!("{} rows, {} rejects, {} parts in {path}", summary.rows, summary.rejects.len(), summary.parts);
    let fields = [
        ("rows", Value::from(summary.rows)),
        ("rejects", summary.rejects.len().into()),
        ("parts", summary.parts.into()),
        ("output", path.to_string().into()),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    messages::report(&text, fields, json, false)
}
