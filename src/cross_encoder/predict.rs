//! `predict`: the scores of pairs.

use super::{CrossEncoder, PredictOptions};
use crate::checkpoint::{Frame, ModuleKind};
use crate::cpu;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::matrix::Matrix;
use crate::program::Output;
use crate::prompts;

impl CrossEncoder {
    /// The scores of pairs, in their order: `[pairs, labels]`, one column for most models. Equal pairs are computed once.
    ///
    /// # Errors
    /// [`Error::Run`] if the device fails.
    pub fn predict<A, B>(&self, pairs: &[(A, B)]) -> Result<Matrix>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        self.predict_with(pairs, &PredictOptions::default())
    }

    /// [`predict`](Self::predict) with options.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for options that make no sense for this model,
    /// [`Error::Cancelled`] once cancelled, [`Error::Run`] if the device fails.
    pub fn predict_with<A, B>(&self, pairs: &[(A, B)], options: &PredictOptions) -> Result<Matrix>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        let prompt = self.prompt(options)?;
        let job = Job {
            program: self.program(),
            executor: self.executor(),
            output: Output::Sentences,
            batch_tokens: options.batch_tokens,
            progress: options.progress.as_ref(),
            cancel: options.cancel.as_ref(),
            longest: self.model.tokenizer.max_seq_length(),
        };
        let tokenize = |pairs: &[(&str, &str)]| {
            let encodings = self.model.tokenizer.encode_pairs_in(Frame { prompt, task: None }, pairs)?;
            match self.scores_last_token() && encodings.iter().any(|encoding| encoding.ids.is_empty()) {
                true => {
                    Err(Error::InvalidInput("a pair has no token that could be scored: both texts are empty".into()))
                }
                false => Ok(encodings),
            }
        };
        let mut scores = Matrix::zeros(pairs.len(), self.labels().len());
        let mut done = vec![false; pairs.len()];
        let inputs = pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref()));
        let ran = job.run(inputs, 0, tokenize, |finished, s, targets| {
            for &target in targets {
                done[target] = true;
                scores.row_mut(target).copy_from_slice(finished.rows.row(s));
            }
        });
        cpu::activate(options.activation.unwrap_or(self.activation()), &mut scores.data);
        if options.softmax && scores.cols > 1 {
            (0..scores.rows).for_each(|i| softmax(scores.row_mut(i)));
        }
        match ran {
            Ok(()) => Ok(scores),
            Err(error) => Err(error.with_results(scores, &done)),
        }
    }

    /// Whether the logits are a language model's behind the last token, whichever that is.
    fn scores_last_token(&self) -> bool {
        self.modules().iter().any(|module| matches!(module.kind, ModuleKind::LogitScore(_)))
    }

    /// What goes before the first text of every pair: empty if nothing does.
    fn prompt<'a>(&'a self, options: &'a PredictOptions) -> Result<&'a str> {
        if options.prompt.is_some() && options.prompt_name.is_some() {
            log::warn!("both prompt and prompt_name are given: prompt_name is ignored");
        }
        let name = options.prompt_name.as_deref().or(self.default_prompt_name());
        prompts::resolve(self.prompts(), options.prompt.as_deref(), name)
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}
