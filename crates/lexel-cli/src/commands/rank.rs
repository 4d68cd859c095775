//! `lexel rank`: texts by how well they answer a query.

use crate::args::RankCommand;
use crate::config::{self, ModelConfig};
use crate::failure::{DATA, Failure};
use crate::input::Window;
use crate::work::Work;
use crate::{interrupt, messages};
use lexel::checkpoint::ModelType;
use lexel::{CrossEncoder, MultiVectorEncodeOptions, MultiVectorEncoder, PredictOptions, RankOptions};
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
    let options = config::score(&args.score, false, args.on.device.batch_tokens);
    let config = ModelConfig::resolve(args.model.clone(), &args.on)?;
    let window = input.read(None)?;
    if window.records.is_empty() {
        return Err(Failure::new(DATA, format!("{} holds no texts to rank", input.name())));
    }
    match config.model_type()? {
        ModelType::MultiVectorEncoder => by_vectors(&args, &config, options, &window, json),
        _ => by_pairs(&args, &config, options, &window, json),
    }
}

/// With a cross-encoder.
fn by_pairs(
    args: &RankCommand,
    config: &ModelConfig,
    predict: PredictOptions,
    window: &Window<1>,
    json: bool,
) -> Result<(), Failure> {
    let model: CrossEncoder = config.load()?;
    let (texts, mut work) = (window.texts(), Work::begin(Some(window.bytes)));
    let hits = work.window(window, |progress| {
        let predict = PredictOptions { progress: Some(progress), cancel: Some(interrupt::cancel_flag()), ..predict };
        model.rank_with(&args.query, &texts, &RankOptions { top_k: args.top_k, predict, ..RankOptions::default() })
    })?;
    print(hits.iter().map(|hit| (hit.corpus_id, hit.score)), &texts, json)?;
    work.report(&model, config.dtype(), json, true)
}

/// With a model of late interaction. The prompt is the query's.
fn by_vectors(
    args: &RankCommand,
    config: &ModelConfig,
    query: PredictOptions,
    window: &Window<1>,
    json: bool,
) -> Result<(), Failure> {
    if let Some(activation) = &args.score.activation {
        return Err(Failure::usage(format!("--activation {activation} is for cross-encoders, and the model is none")));
    }
    let model: MultiVectorEncoder = config.load()?;
    let (texts, mut work) = (window.texts(), Work::begin(Some(window.bytes)).truncating_to(model.document_length()));
    let documents = MultiVectorEncodeOptions {
        batch_tokens: query.batch_tokens,
        cancel: Some(interrupt::cancel_flag()),
        ..MultiVectorEncodeOptions::default()
    };
    let PredictOptions { prompt, prompt_name, .. } = query;
    let queries =
        model.encode_query(&[&args.query], &MultiVectorEncodeOptions { prompt, prompt_name, ..documents.clone() })?;
    let embeddings = work.window(window, |progress| {
        model.encode_document(&texts, &MultiVectorEncodeOptions { progress: Some(progress), ..documents })
    })?;
    let hits = model.semantic_search(&queries, &embeddings, args.top_k.unwrap_or(texts.len()))?.remove(0);
    print(hits.iter().map(|hit| (hit.corpus_id, hit.score)), &texts, json)?;
    work.report(&model, config.dtype(), json, true)
}

/// The texts that were found, the best first.
fn print(hits: impl Iterator<Item = (usize, f32)>, texts: &[&str], json: bool) -> Result<(), Failure> {
    let lines = hits.map(|(corpus_id, score)| Line { corpus_id, score, text: texts[corpus_id] });
    let printed = match json {
        true => serde_json::to_string(&lines.collect::<Vec<_>>()).unwrap_or_default() + "\n",
        false => lines.map(|line| format!("{:.4}\t{}\n", line.score, messages::one_line(line.text))).collect(),
    };
    messages::stdout(&printed)
}
