//! `lexel predict`: a file of pairs of texts to a file of scores.

use crate::args::PredictCommand;
use crate::config::{self, ModelConfig};
use crate::failure::{DATA, Failure};
use crate::interrupt;
use crate::output::{OutputConfig, Rows};
use crate::work::Work;
use lexel::{CrossEncoder, PredictOptions};

/// Runs the subcommand.
pub fn run(args: PredictCommand, json: bool) -> Result<(), Failure> {
    let input = config::pairs(&args.input)?;
    let destination = OutputConfig::resolve(&args.output, args.output_format)?;
    let options = config::score(&args.score, args.softmax, args.on.device.batch_tokens);
    let config = ModelConfig::resolve(args.model, &args.on)?;
    // Everything that can be refused without the model comes first: a model takes seconds.
    let mut windows = input.windows(args.window)?;
    let mut output = destination.create()?;
    let model: CrossEncoder = config.load()?;
    if destination.is_jsonl() {
        check_labels(model.labels())?;
    }

    let options = PredictOptions { cancel: Some(interrupt::cancel_flag()), ..options };
    // No pairs: still the labels. And options that make no sense are refused at once.
    let none = model.predict_with::<&str, &str>(&[], &options)?;
    output.append(&Rows::Scores(none, model.labels()))?;
    let mut work = Work::begin(windows.bytes);
    while let Some(window) = windows.next()? {
        let scores = work.window(&window, |progress| {
            let options = PredictOptions { progress: Some(progress), ..options.clone() };
            model.predict_with(&window.pairs(), &options)
        })?;
        output.append(&Rows::Scores(scores, model.labels()))?;
    }
    output.finish()?;
    work.report(&model, config.dtype(), json, destination.is_stdout())
}

/// A line of .jsonl holds each score under its label.
fn check_labels(labels: &[String]) -> Result<(), Failure> {
    match labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
        Some((_, label)) => Err(Failure::new(
            DATA,
            format!("several labels of the model are named '{label}', which JSON cannot tell apart: write .npy"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_must_differ() {
        let labels = |labels: [&str; 3]| labels.map(str::to_string);
        assert!(check_labels(&labels(["a", "b", "c"])).is_ok());
        assert!(check_labels(&labels(["a", "b", "a"])).unwrap_err().message.contains("'a'"));
    }
}
