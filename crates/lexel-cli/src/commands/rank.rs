//! `lexel rank`: texts by how well they answer a query.

use crate::args::RankCommand;
use crate::config::{self, ModelConfig};
use crate::failure::{DATA, Failure};
use crate::work::Work;
use crate::{interrupt, messages};
use lexel::{CrossEncoder, PredictOptions, RankOptions};
use serde::Serialize;

/// A text as --json prints it.
#[derive(Serialize)]
struct Line<'a> {
    corpus_id: usize,
    score: f32,
    text: &'a str,
}

/// Runs the subcommand.
pub fn run(args: RankCommand, json: bool) -> Result<(), Failure> {
    let input = config::texts(std::slice::from_ref(&args.input.input), &args.input.column)?;
    let predict = config::score(&args.score, false, args.on.device.batch_tokens);
    let config = ModelConfig::resolve(args.model, &args.on)?;
    let window = input.read(None)?;
    if window.records.is_empty() {
        return Err(Failure::new(DATA, format!("{} holds no texts to rank", input.name())));
    }
    let model: CrossEncoder = config.load()?;

    let texts = window.texts();
    let mut work = Work::begin(Some(window.bytes));
    let hits = work.window(&window, |progress| {
        let (progress, cancel) = (Some(progress), Some(interrupt::cancel_flag()));
        let predict = PredictOptions { progress, cancel, ..predict };
        model.rank_with(&args.query, &texts, &RankOptions { top_k: args.top_k, predict, ..RankOptions::default() })
    })?;
    let lines = hits.iter().map(|hit| Line { corpus_id: hit.corpus_id, score: hit.score, text: texts[hit.corpus_id] });
    let printed = match json {
        true => serde_json::to_string(&lines.collect::<Vec<_>>()).unwrap_or_default() + "\n",
        false => lines.map(|line| format!("{:.4}\t{}\n", line.score, messages::one_line(line.text))).collect(),
    };
    messages::stdout(&printed)?;
    work.report(&model, config.dtype(), json, true)
}
