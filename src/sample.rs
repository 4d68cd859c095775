//! Texts of many kinds, for what a model has to have seen before it is used: int8 on a CPU rounds weights for them.

use crate::batch::Batch;
use crate::checkpoint::Tokenizer;
use crate::program::Program;

/// A text a line. Twice as many bring int8 of all-MiniLM-L6-v2 little nearer to f32, texts of the kind that is embedded later a
/// bit: 1e6 times 1 - cosine of 2,000 sentences, simulated with all bytes, is 146 with 32 texts, 143 with 64, 109 with 512 sentences
/// of the same source, 302 without any.
const TEXTS: &str = include_str!("sample.txt");

/// Some texts as a model reads them, without any given those of this file; in pairs with their neighbours, for a model of pairs.
/// None if there are none that it can read.
pub fn batch(texts: Option<Vec<&str>>, tokenizer: &Tokenizer, program: &Program, pairs: bool) -> Option<Batch> {
    let texts = texts.unwrap_or_else(|| TEXTS.lines().collect());
    let encodings: Vec<_> = match pairs {
        true => texts.chunks_exact(2).map(|pair| tokenizer.encode_pair(pair[0], pair[1])).collect(),
        false => texts.into_iter().map(|text| tokenizer.encode(text)).collect(),
    };
    let mut batch = Batch::with_padding(program.padding);
    for encoding in encodings {
        match encoding {
            Ok(encoding) => batch.push(&encoding.ids, &encoding.types, 0),
            Err(error) => log::debug!("a text of the sample: {error}"),
        }
    }
    (batch.tokens() > 0).then_some(batch)
}
