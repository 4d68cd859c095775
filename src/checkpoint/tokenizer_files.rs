//! What the reference makes of a tokenizer's files besides `tokenizer.json`: a vocabulary alone; lowercasing; the special tokens
//! that no text has; and whether there are segments.

use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};

use super::config::JsonFile;
use super::files::{TOKENIZER_FILE, refuse_lfs_pointer};
use super::tokenizer_class::{Class, special_token};
use crate::error::{Error, Result};

/// Python's rule: only a Lowercase of its own, alone or in a sequence, counts as present.
pub(super) fn prepend_lowercase(tokenizer: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    let mut normalizers: Vec<NormalizerWrapper> = match tokenizer.get_normalizer() {
        None => Vec::new(),
        Some(NormalizerWrapper::Sequence(sequence)) => sequence.as_ref().to_vec(),
        Some(other) => vec![other.clone()],
    };
    if !normalizers.iter().any(|normalizer| matches!(normalizer, NormalizerWrapper::Lowercase(_))) {
        normalizers.insert(0, Lowercase.into());
        tokenizer.with_normalizer(Some(Sequence::new(normalizers)))?;
    }
    Ok(())
}

/// Reads `tokenizer.json`.
pub(super) fn from_file(path: &Path) -> Result<tokenizers::Tokenizer> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    refuse_lfs_pointer(path, &bytes)?;
    tokenizers::Tokenizer::from_bytes(&bytes)
        .map_err(|error| Error::invalid_file(path, format!("not a tokenizer that is understood: {error}")))
}

/// Whether the model gets the segments that the tokenizer makes: its file or its class says so.
pub(super) fn makes_segments(folder: &Path, config: &JsonFile) -> Result<bool> {
    if let Some(names) = config.strings_opt("model_input_names")? {
        return Ok(names.contains(&"token_type_ids"));
    }
    let class = config.str_opt("tokenizer_class")?.map(|class| class.strip_suffix("Fast").unwrap_or(class));
    match class {
        Some(class) => {
            Ok(["BertTokenizer", "ElectraTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer"].contains(&class))
        }
        None => match JsonFile::read_if_present(&folder.join("config.json"))? {
            Some(model) => {
                let with_segments = ["bert", "electra", "ernie", "nomic_bert", "distilbert", "deberta", "deberta-v2"];
                Ok(with_segments.contains(&model.str_or("model_type", "")?))
            }
            None => Ok(true),
        },
    }
}

/// What a tokenizer's configuration says of tokens that no text has.
pub(super) struct SpecialTokens {
    mask: Option<String>,
    /// Whether there is a mask token where no file names it.
    has_default: bool,
    /// The one that ends a sequence.
    pub end: Option<String>,
    /// Whether padding would go before a text.
    pub pads_left: bool,
}

impl SpecialTokens {
    /// Those of the tokenizer in a folder.
    pub fn read(folder: &Path) -> Result<SpecialTokens> {
        let read = |name: &str| JsonFile::read_if_present(&folder.join(name));
        let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let token = |key: &str| -> Result<Option<String>> {
            let named = [&config, &map].into_iter().flatten().find(|file| file.get(key).is_some());
            named.map(|file| special_token(file, key, "")).transpose()
        };
        let text = |key: &str, default| config.as_ref().map_or(Ok(default), |config| config.str_or(key, default));
        let class = text("tokenizer_class", "")?;
        // What is null there is no token, and none by default.
        let is_null = config.as_ref().is_some_and(|config| config.contains("mask_token"));
        Ok(SpecialTokens {
            mask: token("mask_token")?,
            has_default: !is_null && !["PreTrainedTokenizerFast", "TokenizersBackend"].contains(&class),
            end: token("eos_token")?,
            pads_left: text("padding_side", "right")? == "left",
        })
    }

    /// The mask token's id, of `known` ones. Where no file names it, it is the one that the class of tokenizers has by default, if
    /// it is a class of masked language models.
    pub fn mask(&self, known: impl Fn(&str) -> Option<u32>) -> Option<u32> {
        match &self.mask {
            Some(mask) => known(mask),
            None if self.has_default => ["[MASK]", "<mask>"].into_iter().find_map(known),
            None => None,
        }
    }
}

/// A BERT tokenizer from its vocabulary alone: what repositories from before `tokenizer.json` have.
pub(super) fn from_vocabulary(folder: &Path, config: &JsonFile) -> Result<tokenizers::Tokenizer> {
    let path = folder.join("vocab.txt");
    let class = config.str_or("tokenizer_class", "BertTokenizer")?;
    let is_bert = [
        "BertTokenizer",
        "BertTokenizerFast",
        "DistilBertTokenizer",
        "DistilBertTokenizerFast",
        "ElectraTokenizer",
        "ElectraTokenizerFast",
    ];
    if !path.is_file() || !is_bert.contains(&class) {
        return Err(Error::NotFound {
            what: format!("{TOKENIZER_FILE} in {}", folder.display()),
            detail: format!(
                "a {class} cannot be built without it; convert with Python: from transformers import AutoTokenizer; \
                 AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
            ),
        });
    }
    let invalid = |error: String| Error::invalid_file(&path, error);
    let unknown = special_token(config, "unk_token", "[UNK]")?;
    let text = path.to_str().ok_or_else(|| invalid("the path is not valid UTF-8".to_string()))?;
    let model =
        WordPiece::from_file(text).unk_token(unknown.clone()).build().map_err(|error| invalid(error.to_string()))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let mut tokens = vec![unknown];
    for (key, default) in
        [("sep_token", "[SEP]"), ("pad_token", "[PAD]"), ("cls_token", "[CLS]"), ("mask_token", "[MASK]")]
    {
        tokens.push(special_token(config, key, default)?);
    }
    let present: Vec<AddedToken> = tokens
        .into_iter()
        .filter(|token| tokenizer.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    tokenizer.add_special_tokens(present).map_err(|error| invalid(error.to_string()))?;
    Class::Bert.build(&mut tokenizer, config).map_err(invalid)?;
    Ok(tokenizer)
}
