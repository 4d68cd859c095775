//! `lexel similarity`: how alike texts are.

use crate::args::SimilarityCommand;
use crate::config::{self, EncodeConfig, ModelConfig};
use crate::failure::Failure;
use crate::{interrupt, messages};
use lexel::{Matrix, SentenceTransformer};
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;

/// A matrix of more texts is not for people, and takes memory by the square.
const MOST_TEXTS: usize = 4096;

/// Characters of a text that a table shows.
const LABEL: usize = 48;

/// Runs the subcommand.
pub fn run(args: SimilarityCommand, json: bool) -> Result<(), Failure> {
    let mut texts = args.texts;
    if let Some(path) = &args.input.input {
        let input = config::texts(std::slice::from_ref(path), &args.input.column)?;
        texts.extend(input.read(Some(MOST_TEXTS + 1))?.records.into_iter().flatten());
    }
    if texts.len() > MOST_TEXTS {
        return Err(Failure::usage(format!(
            "more than {MOST_TEXTS} texts: encode them with `lexel encode`, and compare what you need of them"
        )));
    }
    let config = ModelConfig::resolve(args.model, &args.on)?;
    let mut encode = EncodeConfig::resolve(&args.prompt, &args.embedding, args.on.device.batch_tokens);
    let model: SentenceTransformer = config.load()?;
    encode.warn(&model);
    encode.options.cancel = Some(interrupt::cancel_flag());
    let embeddings = encode.encode(&model, &texts, Arc::new(|_| ()))?;
    let scores = model.similarity(&embeddings, &embeddings)?;
    if json {
        // Not through `json!`, which would widen each f32 and print digits that it does not have.
        let rows: Vec<Vec<String>> =
            (0..scores.rows).map(|i| scores.row(i).iter().map(f32::to_string).collect()).collect();
        let rows: Vec<String> = rows.iter().map(|row| format!("[{}]", row.join(","))).collect();
        let (name, texts) = (json!(model.similarity_function().name()), json!(texts));
        let line = format!("{{\"similarity\":{name},\"texts\":{texts},\"scores\":[{}]}}\n", rows.join(","));
        return messages::stdout(&line);
    }
    messages::stdout(&table(&texts, &scores))
}

/// A row a text: its number, its scores against all, the text itself.
fn table(texts: &[String], scores: &Matrix) -> String {
    let numbers = texts.len().to_string().len();
    let cells: Vec<String> = scores.data.iter().map(|score| format!("{score:.4}")).collect();
    let width = cells.iter().map(String::len).max().unwrap_or(0).max(numbers);
    let mut out = " ".repeat(numbers);
    for i in 1..=texts.len() {
        let _ = write!(out, "  {i:>width$}");
    }
    out.push('\n');
    for (i, text) in texts.iter().enumerate() {
        let _ = write!(out, "{:>numbers$}", i + 1);
        for cell in &cells[i * scores.cols..(i + 1) * scores.cols] {
            let _ = write!(out, "  {cell:>width$}");
        }
        let _ = writeln!(out, "  {}", label(text));
    }
    out
}

/// The beginning of a text on one line.
fn label(text: &str) -> String {
    let mut label = messages::one_line(&text.chars().take(LABEL).collect::<String>());
    if text.chars().nth(LABEL).is_some() {
        label.push_str("...");
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let texts = ["one".to_string(), "two\nlines".to_string()];
        let scores = Matrix::new(2, 2, vec![1.0, -0.5, -0.5, 1.0]);
        assert_eq!(
            table(&texts, &scores),
            "         1        2\n1   1.0000  -0.5000  one\n2  -0.5000   1.0000  two lines\n"
        );
    }
}
