//! What an output holds: rows of embeddings or of scores, as the bytes of .npy and the lines of .jsonl.

use crate::failure::{DATA, Failure};
use half::f16;
use lexel::quantization::{Quantized, QuantizedData};
use lexel::{Matrix, SparseMatrix};
use serde::Serialize;
use std::io::{self, Write};

/// Some rows, as they are written.
pub enum Rows<'a> {
    /// Embeddings as they are.
    Float32(Matrix),
    /// Embeddings as f16, and how many numbers a row has.
    Float16(usize, Vec<f16>),
    /// Embeddings in fewer bits.
    Quantized(Quantized),
    /// Sparse embeddings. Only .jsonl and .parquet have them.
    Sparse(SparseMatrix),
    /// Sparse embeddings by token. Only .jsonl has them.
    Tokens(Vec<Vec<(String, f32)>>),
    /// Several vectors for each text: how many each has, and all of them. Only .jsonl and .parquet have them.
    Vectors(Vec<usize>, Matrix),
    /// The same as f16, and how many numbers a vector has.
    HalfVectors(Vec<usize>, usize, Vec<f16>),
    /// Scores of pairs, and the names of their labels.
    Scores(Matrix, &'a [String]),
}

impl Rows<'_> {
    /// Embeddings as f16.
    pub fn half(matrix: &Matrix) -> Rows<'static> {
        Rows::Float16(matrix.cols, matrix.data.iter().map(|&x| f16::from_f32(x)).collect())
    }

    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Rows::Float32(matrix) | Rows::Scores(matrix, _) => matrix.rows,
            Rows::Float16(cols, data) => data.len() / cols.max(&1),
            Rows::Quantized(quantized) => quantized.rows,
            Rows::Sparse(matrix) => matrix.rows(),
            Rows::Tokens(rows) => rows.len(),
            Rows::Vectors(counts, _) | Rows::HalfVectors(counts, ..) => counts.len(),
        }
    }

    /// Numbers a row; `None`: a row is a number, or not a list of some length.
    pub fn cols(&self) -> Option<usize> {
        match self {
            Rows::Scores(_, [_]) | Rows::Sparse(_) | Rows::Tokens(_) => None,
            Rows::Vectors(..) | Rows::HalfVectors(..) => None,
            Rows::Float32(matrix) | Rows::Scores(matrix, _) => Some(matrix.cols),
            Rows::Float16(cols, _) => Some(*cols),
            Rows::Quantized(quantized) => Some(quantized.cols),
        }
    }

    /// Their type in .npy.
    pub fn descr(&self) -> &'static str {
        match self {
            Rows::Float32(_) | Rows::Scores(..) | Rows::Sparse(_) | Rows::Tokens(_) | Rows::Vectors(..) => "<f4",
            Rows::Float16(..) | Rows::HalfVectors(..) => "<f2",
            Rows::Quantized(Quantized { data: QuantizedData::I8(_), .. }) => "|i1",
            Rows::Quantized(Quantized { data: QuantizedData::U8(_), .. }) => "|u1",
        }
    }

    /// What they are called.
    pub fn name(&self) -> &'static str {
        match self {
            Rows::Scores(..) => "scores",
            _ => "embeddings",
        }
    }

    /// Their bytes in .npy.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Rows::Float32(matrix) | Rows::Scores(matrix, _) => {
                matrix.data.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
            Rows::Float16(_, data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Rows::Sparse(_) | Rows::Tokens(_) | Rows::Vectors(..) | Rows::HalfVectors(..) => {
                unreachable!("their commands refuse the formats of arrays")
            }
            Rows::Quantized(Quantized { data: QuantizedData::I8(codes), .. }) => {
                codes.iter().map(|&code| code as u8).collect()
            }
            Rows::Quantized(Quantized { data: QuantizedData::U8(codes), .. }) => codes.clone(),
        }
    }

    /// A row's line in .jsonl. `index` is its number in the whole output.
    pub fn line(&self, row: usize, index: usize) -> Result<Vec<u8>, Failure> {
        let mut line = format!("{{\"index\": {index}, ").into_bytes();
        let written = match self {
            Rows::Float32(matrix) => embedding(&mut line, finite(matrix.row(row), "embedding of text", index)?),
            Rows::Float16(cols, data) => {
                let row: Vec<f32> = data[row * cols..(row + 1) * cols].iter().map(|x| x.to_f32()).collect();
                embedding(&mut line, finite(&row, "embedding of text", index)?)
            }
            Rows::Quantized(quantized) => {
                let range = row * quantized.cols..(row + 1) * quantized.cols;
                match &quantized.data {
                    QuantizedData::I8(codes) => embedding(&mut line, &codes[range]),
                    QuantizedData::U8(codes) => embedding(&mut line, &codes[range]),
                }
            }
            Rows::Sparse(matrix) => {
                let (indices, values) = matrix.row(row);
                sparse(&mut line, indices, finite(values, "embedding of text", index)?)
            }
            Rows::Tokens(rows) => {
                let values: Vec<f32> = rows[row].iter().map(|(_, weight)| *weight).collect();
                finite(&values, "embedding of text", index)?;
                tokens(&mut line, &rows[row])
            }
            Rows::Vectors(counts, matrix) => vectors(
                &mut line,
                finite(own(row, counts, matrix.cols, &matrix.data), "embedding of text", index)?,
                matrix.cols,
            ),
            Rows::HalfVectors(counts, cols, data) => {
                let own: Vec<f32> = own(row, counts, *cols, data).iter().map(|x| x.to_f32()).collect();
                vectors(&mut line, finite(&own, "embedding of text", index)?, *cols)
            }
            Rows::Scores(matrix, labels) => scores(&mut line, finite(matrix.row(row), "score of pair", index)?, labels),
        };
        written.map_err(|error| Failure::new(DATA, format!("row {index}: {error}")))?;
        line.extend_from_slice(b"}\n");
        Ok(line)
    }
}

fn embedding<T: Serialize>(line: &mut Vec<u8>, embedding: &[T]) -> io::Result<()> {
    line.write_all(b"\"embedding\": ")?;
    Ok(serde_json::to_writer(line, embedding)?)
}

/// The numbers of a text, of texts with so many vectors each.
fn own<'a, T>(row: usize, counts: &[usize], cols: usize, data: &'a [T]) -> &'a [T] {
    let before: usize = counts[..row].iter().sum();
    &data[before * cols..(before + counts[row]) * cols]
}

fn vectors(line: &mut Vec<u8>, numbers: &[f32], cols: usize) -> io::Result<()> {
    let vectors: Vec<&[f32]> = numbers.chunks(cols.max(1)).collect();
    embedding(line, &vectors)
}

fn sparse(line: &mut Vec<u8>, indices: &[u32], values: &[f32]) -> io::Result<()> {
    line.write_all(b"\"embedding\": {\"indices\": ")?;
    serde_json::to_writer(&mut *line, indices)?;
    line.write_all(b", \"values\": ")?;
    serde_json::to_writer(&mut *line, values)?;
    line.write_all(b"}")
}

fn tokens(line: &mut Vec<u8>, tokens: &[(String, f32)]) -> io::Result<()> {
    line.write_all(b"\"embedding\": ")?;
    entries(line, tokens.iter().map(|(token, weight)| (token, weight)))
}

fn scores(line: &mut Vec<u8>, scores: &[f32], labels: &[String]) -> io::Result<()> {
    if let [score] = scores {
        line.write_all(b"\"score\": ")?;
        return Ok(serde_json::to_writer(line, score)?);
    }
    line.write_all(b"\"scores\": ")?;
    entries(line, labels.iter().zip(scores))
}

/// `{"name": number, ...}`
fn entries<'a>(line: &mut Vec<u8>, entries: impl Iterator<Item = (&'a String, &'a f32)>) -> io::Result<()> {
    line.write_all(b"{")?;
    for (i, (name, number)) in entries.enumerate() {
        line.write_all(if i == 0 { b"" } else { b", " })?;
        serde_json::to_writer(&mut *line, name)?;
        line.write_all(b": ")?;
        serde_json::to_writer(&mut *line, number)?;
    }
    line.write_all(b"}")
}

/// JSON has no way to write the others.
fn finite<'a>(row: &'a [f32], what: &str, index: usize) -> Result<&'a [f32], Failure> {
    match row.iter().all(|x| x.is_finite()) {
        true => Ok(row),
        false => Err(Failure::new(
            DATA,
            format!("the {what} {index} holds numbers that are not finite, which JSON cannot: write .npy"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rows: &Rows, row: usize) -> String {
        String::from_utf8(rows.line(row, row + 10).unwrap()).unwrap()
    }

    #[test]
    fn lines_of_embeddings_and_scores() {
        let matrix = || Matrix::new(2, 2, vec![0.1, -2.0, 1e-10, 3.0]);
        assert_eq!(line(&Rows::Float32(matrix()), 1), "{\"index\": 11, \"embedding\": [1e-10,3.0]}\n");
        let labels = ["no".to_string(), "a \"yes\"".to_string()];
        let scores = Rows::Scores(matrix(), &labels);
        assert_eq!((scores.cols(), scores.count()), (Some(2), 2));
        assert_eq!(line(&scores, 0), "{\"index\": 10, \"scores\": {\"no\": 0.1, \"a \\\"yes\\\"\": -2.0}}\n");
        let one = Rows::Scores(Matrix::new(1, 1, vec![0.25]), &labels[..1]);
        assert_eq!((one.cols(), one.count()), (None, 1));
        assert_eq!(line(&one, 0), "{\"index\": 10, \"score\": 0.25}\n");
        let mut matrix = SparseMatrix::new(9);
        matrix.push_row(&[2, 7], &[0.5, 2.0]);
        matrix.push_row(&[], &[]);
        let sparse = Rows::Sparse(matrix);
        assert_eq!(line(&sparse, 0), "{\"index\": 10, \"embedding\": {\"indices\": [2,7], \"values\": [0.5,2.0]}}\n");
        assert_eq!(line(&sparse, 1), "{\"index\": 11, \"embedding\": {\"indices\": [], \"values\": []}}\n");
        let tokens = Rows::Tokens(vec![vec![("a\"b".into(), 1.5), ("##c".into(), 0.25)]]);
        assert_eq!(line(&tokens, 0), "{\"index\": 10, \"embedding\": {\"a\\\"b\": 1.5, \"##c\": 0.25}}\n");
        let vectors = Rows::Vectors(vec![1, 0, 2], Matrix::new(3, 2, vec![0.5, 1.0, 2.0, -1.0, 0.0, 3.0]));
        assert_eq!((vectors.cols(), vectors.count()), (None, 3));
        assert_eq!(line(&vectors, 1), "{\"index\": 11, \"embedding\": []}\n");
        assert_eq!(line(&vectors, 2), "{\"index\": 12, \"embedding\": [[2.0,-1.0],[0.0,3.0]]}\n");
        let nan = Rows::Scores(Matrix::new(1, 1, vec![f32::NAN]), &labels[..1]);
        assert!(nan.line(0, 7).unwrap_err().message.contains("the score of pair 7 holds numbers that are not finite"));
    }
}
