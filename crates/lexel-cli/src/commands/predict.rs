//! `lexel predict`: a file of pairs of texts to a file of scores.

use crate::args::{OutputFormat, PredictCommand};
use crate::config::{self, ModelConfig};
use crate::failure::{DATA, Failure};
use crate::interrupt;
use crate::job::{self, JobInput, JobOutput};
use crate::output::{OutputConfig, Rows};
use crate::work::Work;
use lexel::{CrossEncoder, PredictOptions};

/// Runs the subcommand.
pub fn run(args: PredictCommand, json: bool) -> Result<(), Failure> {
    if job::is_folder(&args.output) {
        return run_job(&args, json);
    }
    job::refuse_options(&args.job)?;
    let input = config::pairs(&args.input)?;
    let destination = OutputConfig::resolve(&args.output, args.output_format)?;
    config::refuse_overwriting(&args.output, &input.files)?;
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

/// Into a folder of parts.
fn run_job(args: &PredictCommand, json: bool) -> Result<(), Failure> {
    let output = JobOutput::resolve(&args.output, args.output_format.unwrap_or(OutputFormat::Npy), &args.job)?;
    let input = config::pairs(&args.input)?;
    let options = config::score(&args.score, args.softmax, args.on.device.batch_tokens);
    let config = ModelConfig::resolve(args.model.clone(), &args.on)?;
    let input = JobInput::resolve(input, &output, &args.job)?;
    let load = || {
        let model: CrossEncoder = config.load()?;
        check_labels(model.labels())?;
        // What makes no sense for the model is refused before there is a folder.
        model.predict_with::<&str, &str>(&[], &options)?;
        let identity = config
            .identity()
            .with("task", "predict")
            .with("prompt", options.prompt.clone())
            .with("prompt_name", options.prompt_name.clone().or(model.default_prompt_name().map(str::to_string)))
            .with("activation", options.activation.unwrap_or(model.activation()).name())
            .with("softmax", options.softmax);
        Ok((model, identity))
    };
    job::run(
        input,
        &output,
        json,
        config.dtype().name(),
        load,
        |model: &CrossEncoder, rows: &[[String; 2]], progress| {
            let pairs: Vec<(&str, &str)> = rows.iter().map(|[a, b]| (a.as_str(), b.as_str())).collect();
            let cancel = Some(interrupt::cancel_flag());
            model.predict_with(&pairs, &PredictOptions { progress: Some(progress), cancel, ..options.clone() })
        },
        |model, scores| Ok(Rows::Scores(scores, model.labels())),
    )
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
