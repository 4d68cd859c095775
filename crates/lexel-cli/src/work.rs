//! A model's work on an input: the progress bar, Ctrl-C, what was done, the report. What `encode`, `predict` and `rank`
//! share.

use crate::failure::{Failure, INTERRUPTED};
use crate::input::{Window, noun};
use crate::messages::{self, WorkBar};
use crate::model::Model;
use lexel::{Dtype, Error, OnProgress, Progress};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The work on an input of `N` texts a record.
pub struct Work<const N: usize> {
    begun: Instant,
    bar: WorkBar,
    /// What was done.
    records: usize,
    tokens: usize,
    truncated: usize,
    bytes: u64,
    /// To what records are truncated, if that is not what the model says of itself.
    length: Option<usize>,
}

impl<const N: usize> Work<N> {
    /// Begins, and shows the bar; `bytes` is the size of the input, where it is known.
    pub fn begin(bytes: Option<u64>) -> Work<N> {
        let (begun, bar) = (Instant::now(), WorkBar::new(bytes));
        Work { begun, bar, records: 0, tokens: 0, truncated: 0, bytes: 0, length: None }
    }

    /// The same for records that are truncated to so many tokens.
    pub fn truncating_to(mut self, length: Option<usize>) -> Work<N> {
        self.length = length;
        self
    }

    /// Computes a window, moves the bar and counts. `compute` gets what the model must call after each batch.
    pub fn window<T>(
        &mut self,
        window: &Window<N>,
        compute: impl FnOnce(OnProgress) -> lexel::Result<T>,
    ) -> Result<T, Failure> {
        let last = Arc::new(Mutex::new(Progress::default()));
        let progress = {
            let (last, before, read, begun) = (last.clone(), self.records, self.bytes, self.begun);
            let bytes = window.bytes;
            move |progress: &Progress| {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = *progress;
                WorkBar::set(
                    read + (progress.share() * bytes as f64) as u64,
                    before + progress.texts,
                    noun::<N>(),
                    begun.elapsed().as_secs_f64(),
                );
            }
        };
        let computed = compute(Arc::new(progress)).map_err(|error| match error {
            Error::Cancelled { done, .. } => {
                let (done, noun) = (self.records + done, noun::<N>());
                let how = "a single file keeps none of them and starts over; --output FOLDER/ would continue";
                Failure::new(INTERRUPTED, format!("interrupted after {done} {noun}: {how}"))
            }
            error => error.into(),
        })?;
        let last = *last.lock().unwrap_or_else(PoisonError::into_inner);
        self.records += window.records.len();
        self.tokens += last.tokens;
        self.truncated += last.truncated;
        self.bytes += window.bytes;
        Ok(computed)
    }

    /// Says what was done.
    pub fn report(self, model: &impl Model, dtype: Dtype, json: bool, stdout_is_data: bool) -> Result<(), Failure> {
        let seconds = self.begun.elapsed().as_secs_f64();
        drop(self.bar);
        let (records, tokens, noun) = (self.records, self.tokens, noun::<N>());
        let rate = records as f64 / seconds.max(1e-9);
        let truncated = match (self.truncated, self.length.or(model.max_seq_length())) {
            (0, _) | (_, None) => String::new(),
            (count, Some(length)) => format!(", {count} of them truncated to {length} tokens"),
        };
        let (device, dtype) = (model.device(), dtype.name());
        let text = format!(
            "{records} {noun}{truncated}, {tokens} tokens, {seconds:.2} s, {rate:.0} {noun}/s, {device}, {dtype}"
        );
        let fields: Map<String, Value> = [
            (noun.to_string(), records.into()),
            ("tokens".to_string(), tokens.into()),
            ("truncated".to_string(), self.truncated.into()),
            ("seconds".to_string(), seconds.into()),
            (format!("{noun}_per_s"), rate.into()),
            ("device".to_string(), device.into()),
            ("dtype".to_string(), dtype.into()),
        ]
        .into_iter()
        .collect();
        messages::report(&text, fields, json, stdout_is_data)
    }
}
