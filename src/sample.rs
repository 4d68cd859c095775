//! Texts of many kinds, for what a model has to have seen before it is used: int8 on a CPU rounds weights for them.

use crate::batch::Batch;
use crate::checkpoint::{Encoding, Tokenizer};
use crate::error::Result;
use crate::program::Program;

/// A text a line; a model of pairs reads each two as one, of which some belong together. More of them, and such as resemble what
/// is embedded later, bring int8 nearer to f32: 1e6 times 1 - cosine of all-MiniLM-L6-v2 on 2,000 sentences of technical
/// documents, simulated with one scale a row and a channel and without signs, is 163 with 32 texts, 141 with 64, 115 with 512
/// sentences of the same source.
const TEXTS: &str = include_str!("sample.txt");

/// These texts as a model reads them; of a model that cannot read one of them, the others. None if there is nothing to read.
pub fn of_all_kinds(tokenizer: &Tokenizer, program: &Program, pairs: bool) -> Option<Batch> {
    let texts: Vec<_> = TEXTS.lines().collect();
    let read = encodings(&texts, tokenizer, pairs).filter_map(|encoding| {
        encoding.inspect_err(|error| log::debug!("a text of the sample for int8: {error}")).ok()
    });
    batch(read, program)
}

/// An application's texts. None if there are none.
///
/// # Errors
/// Those of the tokenizer.
pub fn of_texts<T: AsRef<str>>(
    texts: &[T],
    tokenizer: &Tokenizer,
    program: &Program,
    pairs: bool,
) -> Result<Option<Batch>> {
    Ok(batch(encodings(texts, tokenizer, pairs).collect::<Result<Vec<_>>>()?, program))
}

/// In pairs with their neighbours, for a model of pairs; a last one without a neighbour with itself.
fn encodings<T: AsRef<str>>(texts: &[T], tokenizer: &Tokenizer, pairs: bool) -> impl Iterator<Item = Result<Encoding>> {
    texts.chunks(if pairs { 2 } else { 1 }).map(move |texts| {
        let (first, last) = (texts[0].as_ref(), texts[texts.len() - 1].as_ref());
        if pairs { tokenizer.encode_pair(first, last) } else { tokenizer.encode(first) }
    })
}

fn batch(encodings: impl IntoIterator<Item = Encoding>, program: &Program) -> Option<Batch> {
    let mut batch = Batch::with_padding(program.padding);
    encodings.into_iter().for_each(|encoding| batch.push(&encoding.ids, &encoding.types, 0));
    (batch.tokens() > 0).then_some(batch)
}
