//! How far a job is, and what was done.

use crate::failure::Failure;
use crate::input::noun;
use crate::messages;
use lexel::jobs::{JobFolder, JobProgress, OnJobProgress, RunReport, Shard, Summary};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Shows a bar; gives what moves it.
pub fn bar<const N: usize>() -> OnJobProgress {
    messages::show_job_bar();
    Arc::new(|progress: &JobProgress| {
        let JobProgress { parts_done, parts, rows, tokens, seconds, .. } = *progress;
        let (noun, seconds) = (noun::<N>(), seconds.max(1e-3));
        let (texts, tokens) = (rows as f64 / seconds, tokens as f64 / seconds);
        let message = format!("{parts_done} of {parts} parts, {texts:.0} {noun}/s, {tokens:.0} tokens/s");
        messages::set_job_bar(progress.share, message, progress.seconds_left);
    })
}

/// Says what was done.
#[expect(clippy::too_many_arguments, reason = "each is said once, here")]
pub fn report<const N: usize>(
    summary: &Summary,
    ran: &RunReport,
    before: usize,
    folder: &JobFolder,
    shard: Option<Shard>,
    device: &str,
    dtype: &str,
    json: bool,
) -> Result<(), Failure> {
    let noun = noun::<N>();
    let (path, rate) = (folder.path().display().to_string(), ran.rows as f64 / ran.seconds.max(1e-9));
    if summary.rejected > 0 {
        // A shard cannot list them before the others are there.
        let list = folder.path().join("_rejects.jsonl");
        let listed = match list.exists() {
            true => format!("see {}", list.display()),
            false => "the complete job, or `lexel merge`, lists them".to_string(),
        };
        messages::warning(&format!("{} rows without a result: {listed}", summary.rejected));
    }
    let resumed = if before > 0 { format!(" ({before} of them before)") } else { String::new() };
    let part = shard.map_or(String::new(), |shard| format!("shard {} of {}: ", shard.index + 1, shard.count));
    let truncated = if summary.truncated > 0 { format!(", {} truncated", summary.truncated) } else { String::new() };
    let text = format!(
        "{part}{} {noun}{truncated}, {} rejects, {} parts{resumed} in {path}; here {} {noun}, {} tokens, {:.2} s, {rate:.0} \
         {noun}/s, {device}, {dtype}",
        summary.rows, summary.rejected, summary.parts, ran.rows, ran.tokens, ran.seconds
    );
    let fields: Map<String, Value> = [
        (noun, summary.rows.into()),
        ("rows_in", summary.rows_in.into()),
        ("rejects", summary.rejected.into()),
        ("tokens", summary.tokens.into()),
        ("truncated", summary.truncated.into()),
        ("parts", summary.parts.into()),
        ("work_seconds", summary.work_seconds.into()),
        ("parts_before", before.into()),
        ("parts_here", ran.parts.into()),
        ("rows_here", ran.rows.into()),
        ("tokens_here", ran.tokens.into()),
        ("seconds", ran.seconds.into()),
        ("rows_per_s", rate.into()),
        ("tokens_per_s", (ran.tokens as f64 / ran.seconds.max(1e-9)).into()),
        ("device", device.into()),
        ("dtype", dtype.into()),
        ("output", path.into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_string(), value))
    .collect();
    messages::report(&text, fields, json, false)
}
