//! What must be the same for a job to be continued: anything that changes a number in its parts.

use super::JobInput;
use crate::args::OutputFormat;
use crate::failure::Failure;
use crate::model::Model;
use lexel::jobs;
use serde_json::{Map, Value, json};

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
        self.0.extend(jobs::model_files(model.folders())?);
        Ok(self.0)
    }
}
