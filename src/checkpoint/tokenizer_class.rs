//! Classes of tokenizers that the reference builds anew: from `tokenizer.json` they take the vocabulary and the added tokens, and
//! what stands before and behind it is the class', with options from `tokenizer_config.json`. So where the two files contradict
//! each other, that one wins.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{BertNormalizer, Lowercase, NFC, NormalizerWrapper, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, ModelWrapper, SplitDelimiterBehavior};

use super::config::JsonFile;
use crate::error::{Error, Result};

/// SentencePiece's space.
const SPACE: char = '▁';

/// A class that is built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Bert,
    Mpnet,
    DebertaV2,
    Llama,
}

/// A name without what fast tokenizers had at its end.
fn plain(class: &str) -> &str {
    class.strip_suffix("Fast").unwrap_or(class)
}

impl Class {
    /// That of the tokenizer in a folder: what its configuration names or, if it names none, what the model has. `None`: one whose
    /// `tokenizer.json` says all.
    pub fn of(folder: &Path, config: &JsonFile, tokenizer: &tokenizers::Tokenizer) -> Result<Option<Class>> {
        let model = JsonFile::read_if_present(&folder.join("config.json"))?;
        let family = model.as_ref().map_or(Ok(""), |model| model.str_or("model_type", ""))?;
        let class = match (config.str_opt("tokenizer_class")?.map(plain), family) {
            (Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer"), _) => Class::Bert,
            (None, "bert" | "distilbert" | "electra" | "ernie" | "nomic_bert") => Class::Bert,
            (Some("MPNetTokenizer"), _) | (None, "mpnet") => Class::Mpnet,
            (Some("DebertaV2Tokenizer"), _) | (None, "deberta-v2") => Class::DebertaV2,
            (Some("LlamaTokenizer"), "llama") => Class::Llama,
            _ => return Ok(None),
        };
        let fits = match (class, tokenizer.get_model()) {
            (Class::Bert | Class::Mpnet, ModelWrapper::WordPiece(_)) => true,
            (Class::DebertaV2, ModelWrapper::Unigram(_)) => true,
            // Those of Llama 3 say that they are this class, and are not.
            (Class::Llama, ModelWrapper::BPE(_)) => !has_byte_level(tokenizer.get_pre_tokenizer()),
            _ => false,
        };
        Ok(fits.then_some(class))
    }

    /// Its tokens of each kind, in the order of [`SPECIAL`].
    fn special(self) -> [Option<&'static str>; 7] {
        match self {
            Class::Bert => [None, None, Some("[UNK]"), Some("[SEP]"), Some("[PAD]"), Some("[CLS]"), Some("[MASK]")],
            Class::Mpnet => ["<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"].map(Some),
            Class::DebertaV2 => ["[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"].map(Some),
            Class::Llama => [Some("<s>"), Some("</s>"), Some("<unk>"), None, None, None, None],
        }
    }

    /// Builds a tokenizer anew.
    pub fn build(self, tokenizer: &mut tokenizers::Tokenizer, config: &JsonFile) -> std::result::Result<(), String> {
        match self {
            Class::Bert => word_pieces(tokenizer, config, ["[CLS]", "[SEP]"], false),
            Class::Mpnet => word_pieces(tokenizer, config, ["<s>", "</s>"], true),
            Class::DebertaV2 => deberta(tokenizer, config),
            Class::Llama => llama(tokenizer, config),
        }
    }
}

fn has_byte_level(pre_tokenizer: Option<&PreTokenizerWrapper>) -> bool {
    match pre_tokenizer {
        Some(PreTokenizerWrapper::ByteLevel(_)) => true,
        Some(PreTokenizerWrapper::Sequence(all)) => all.as_ref().iter().any(|one| has_byte_level(Some(one))),
        _ => false,
    }
}

fn message(error: impl ToString) -> String {
    error.to_string()
}

/// A special token of the vocabulary.
fn with_id(
    tokenizer: &tokenizers::Tokenizer,
    config: &JsonFile,
    key: &str,
    default: &str,
) -> std::result::Result<(String, u32), String> {
    let token = special_token(config, key, default).map_err(message)?;
    let id = tokenizer.token_to_id(&token);
    id.map(|id| (token.clone(), id)).ok_or(format!("the special token {token} is not in the vocabulary"))
}

/// Of BERT and its kin: a text between two special tokens, and a pair with one more; or with two, as in RoBERTa.
fn word_pieces(
    tokenizer: &mut tokenizers::Tokenizer,
    config: &JsonFile,
    [cls, sep]: [&str; 2],
    as_roberta: bool,
) -> std::result::Result<(), String> {
    let normalizer = BertNormalizer::new(
        true,
        config.bool_or("tokenize_chinese_chars", true).map_err(message)?,
        config.bool_opt("strip_accents").map_err(message)?,
        config.bool_or("do_lower_case", true).map_err(message)?,
    );
    tokenizer.with_normalizer(Some(normalizer)).map_err(message)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let unknown = special_token(config, "unk_token", "[UNK]").map_err(message)?;
    if let ModelWrapper::WordPiece(model) = tokenizer.get_model() {
        let usual = WordPiece::default();
        let is_usual = model.max_input_chars_per_word == usual.max_input_chars_per_word
            && model.continuing_subword_prefix == usual.continuing_subword_prefix;
        // A copy of the vocabulary takes time.
        if !is_usual || model.unk_token != unknown {
            let mut built = model.clone();
            built.unk_token = unknown;
            built.max_input_chars_per_word = usual.max_input_chars_per_word;
            built.continuing_subword_prefix = usual.continuing_subword_prefix;
            tokenizer.with_model(built);
        }
    }
    let (sep, cls) = (with_id(tokenizer, config, "sep_token", sep)?, with_id(tokenizer, config, "cls_token", cls)?);
    match as_roberta {
        false => tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls))),
        true => tokenizer.with_post_processor(Some(RobertaProcessing::new(sep, cls).add_prefix_space(false))),
    };
    Ok(())
}

/// Of DeBERTa from version 2 on.
fn deberta(tokenizer: &mut tokenizers::Tokenizer, config: &JsonFile) -> std::result::Result<(), String> {
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if config.bool_or("do_lower_case", false).map_err(message)? {
        normalizers.push(Lowercase.into());
    }
    let spaces = Replace::new(ReplacePattern::Regex(r"\s{2,}|[\n\r\t]".into()), " ").map_err(message)?;
    normalizers.extend([NormalizerWrapper::from(spaces), NFC.into(), Strip::new(false, true).into()]);
    tokenizer.with_normalizer(Some(Sequence::new(normalizers))).map_err(message)?;
    let prefix = config.bool_or("add_prefix_space", true).map_err(message)?;
    let scheme = if prefix { PrependScheme::Always } else { PrependScheme::First };
    let mut pre_tokenizers: Vec<PreTokenizerWrapper> = Vec::new();
    if config.bool_or("split_by_punct", false).map_err(message)? {
        pre_tokenizers.push(Punctuation::new(SplitDelimiterBehavior::Isolated).into());
    }
    pre_tokenizers.push(Metaspace::new(SPACE, scheme, true).into());
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)));
    let (sep, cls) =
        (with_id(tokenizer, config, "sep_token", "[SEP]")?, with_id(tokenizer, config, "cls_token", "[CLS]")?);
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    Ok(())
}

/// Of Llama 1 and 2. Special tokens are added as `tokenizer.json` says.
fn llama(tokenizer: &mut tokenizers::Tokenizer, config: &JsonFile) -> std::result::Result<(), String> {
    let prefix = config.bool_or("add_prefix_space", true).map_err(message)?;
    let scheme = match (prefix, config.bool_or("legacy", false).map_err(message)?) {
        (false, _) => PrependScheme::Never,
        (true, true) => PrependScheme::Always,
        (true, false) => PrependScheme::First,
    };
    tokenizer.with_normalizer(None::<NormalizerWrapper>).map_err(message)?;
    tokenizer.with_pre_tokenizer(Some(Metaspace::new(SPACE, scheme, false)));
    Ok(())
}

/// A special token's text: a string in the configuration, or an object that describes it.
pub(super) fn special_token(config: &JsonFile, key: &str, default: &str) -> Result<String> {
    Ok(match config.get(key) {
        Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).unwrap_or(default).to_string(),
        _ => config.str_or(key, default)?.to_string(),
    })
}

/// The keys of `tokenizer_config.json` that name a special token each.
const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Adds the tokens that only `tokenizer_config.json` or the class names: where they stand in a text, they are whole from then on.
pub(super) fn add_named(tokenizer: &mut tokenizers::Tokenizer, config: &JsonFile, class: Option<Class>) -> Result<()> {
    if config.bool_or("split_special_tokens", false)? {
        return Err(config.unsupported("split_special_tokens", "false"));
    }
    let decoder = config.object_opt("added_tokens_decoder")?;
    let mut ids: Vec<u32> = decoder.iter().flat_map(JsonFile::keys).filter_map(|id| id.parse().ok()).collect();
    ids.sort_unstable();
    let of_decoder = ids.iter().filter_map(|id| decoder.as_ref()?.get(&id.to_string()));
    let defaults = class.map_or([None; 7], Class::special).map(|token| token.map(Value::from));
    // What is null there is no token.
    let special = SPECIAL.iter().zip(&defaults).filter_map(|(key, default)| match config.contains(key) {
        true => config.get(key),
        false => default.as_ref(),
    });
    let more = ["additional_special_tokens", "extra_special_tokens"].into_iter().filter_map(|key| config.get(key));
    let more = more.flat_map(|tokens| match tokens {
        Value::Array(tokens) => tokens.iter().collect(),
        Value::Object(tokens) => tokens.values().collect(),
        _ => Vec::new(),
    });
    let mut known: HashSet<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    let named = of_decoder.map(|token| (token, false)).chain(special.chain(more).map(|token| (token, true)));
    let missing: Vec<AddedToken> = named
        .filter_map(|(token, is_special)| added_token(token, is_special))
        .filter(|token| !token.content.is_empty() && known.insert(token.content.clone()))
        .collect();
    let failed = |error: tokenizers::Error| Error::invalid_file(config.path(), format!("added tokens: {error}"));
    for token in missing {
        match token.special {
            true => tokenizer.add_special_tokens([token]),
            false => tokenizer.add_tokens([token]),
        }
        .map_err(failed)?;
    }
    Ok(())
}

/// A token as a configuration describes it: its text, or that with how it is found.
fn added_token(token: &Value, is_special: bool) -> Option<AddedToken> {
    match token {
        Value::String(text) => Some(AddedToken::from(text.as_str(), is_special)),
        Value::Object(token) => {
            let flag = |key: &str, default| token.get(key).and_then(Value::as_bool).unwrap_or(default);
            let special = is_special || flag("special", false);
            Some(
                AddedToken::from(token.get("content")?.as_str()?, special)
                    .single_word(flag("single_word", false))
                    .lstrip(flag("lstrip", false))
                    .rstrip(flag("rstrip", false))
                    .normalized(flag("normalized", !special)),
            )
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Tokenizer;
    use crate::error::Result;
    use serde_json::{Value, json};

    /// A tokenizer of these files.
    fn load(tokenizer: &Value, config: &Value, family: &str, length: Option<usize>) -> Result<Tokenizer> {
        let folder = tempfile::tempdir().unwrap();
        let model = json!({"model_type": family});
        for (name, file) in [("tokenizer.json", tokenizer), ("tokenizer_config.json", config), ("config.json", &model)]
        {
            std::fs::write(folder.path().join(name), file.to_string()).unwrap();
        }
        Tokenizer::load(folder.path(), length, false)
    }

    fn ids(tokenizer: &Tokenizer, texts: &[&str]) -> Vec<Vec<u32>> {
        texts.iter().map(|text| tokenizer.encode(text).unwrap().ids).collect()
    }

    fn file(model: Value, normalizer: Value, pre_tokenizer: Value) -> Value {
        json!({"version": "1.0", "added_tokens": [], "model": model, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer})
    }

    fn vocabulary(tokens: &[&str]) -> Value {
        tokens.iter().zip(0u32..).map(|(token, id)| (token.to_string(), Value::from(id))).collect()
    }

    // What these files come to in transformers 5.24.

    #[test]
    fn a_deberta_tokenizer_is_its_class() {
        let special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"].map(|token| json!([token, 0.0]));
        let pieces = [("▁", -3.0), ("▁a", -1.0), ("▁b", -1.0), ("a", -2.0), ("b", -2.0), (".", -2.0)];
        let vocab: Vec<Value> = special.into_iter().chain(pieces.map(|piece| json!(piece))).collect();
        let model = json!({"type": "Unigram", "unk_id": 3, "byte_fallback": false, "vocab": vocab});
        let normalizer = json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFKC"}]});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true});
        let file = file(model, normalizer, metaspace);
        let texts = ["a b", "A b", "a  b ", "a\nb", " ab", "a….", "ａ", ""];
        let plain = [
            &[1, 5, 6, 2][..],
            &[1, 4, 3, 6, 2],
            &[1, 5, 6, 2],
            &[1, 5, 6, 2],
            &[1, 5, 8, 2],
            &[1, 5, 3, 9, 2],
            &[1, 4, 3, 2],
            &[1, 2],
        ];
        let tokenizer = load(&file, &json!({"tokenizer_class": "DebertaV2Tokenizer"}), "deberta-v2", None).unwrap();
        assert_eq!(ids(&tokenizer, &texts), plain);
        let pair = tokenizer.encode_pair("a", "b").unwrap();
        assert_eq!((pair.ids, pair.types), (vec![1, 5, 2, 6, 2], vec![0, 0, 0, 1, 1]));
        let lower = load(&file, &json!({"do_lower_case": true}), "deberta-v2", None).unwrap();
        assert_eq!(ids(&lower, &texts[1..2]), [[1, 5, 6, 2]]);
        let parted = json!({"tokenizer_class": "DebertaV2TokenizerFast", "split_by_punct": true});
        let parted = load(&file, &parted, "deberta-v2", None).unwrap();
        assert_eq!(ids(&parted, &["a…."]), [[1, 5, 4, 3, 4, 9, 2]]);
        let generic = load(&file, &json!({"tokenizer_class": "PreTrainedTokenizerFast"}), "deberta-v2", None).unwrap();
        assert_eq!(ids(&generic, &["A b", " ab"]), [[7, 6], [5, 8]]);
    }

    #[test]
    fn a_llama_tokenizer_is_its_class() {
        let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
        let special = ["<unk>", "<s>", "</s>"];
        let pieces = ["▁", "a", "b", "▁a", "▁b"];
        let tokens: Vec<&str> = special.into_iter().chain(pieces).chain(bytes.iter().map(String::as_str)).collect();
        let model = json!({"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary(&tokens), "merges": [["▁", "a"], ["▁", "b"]]});
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let normalizer = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
        let mut file = file(model, normalizer, Value::Null);
        let added = |(token, id): (&str, u32)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        file["added_tokens"] = special.into_iter().zip(0..).map(added).collect();
        let start = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        file["post_processor"] = json!({"type": "TemplateProcessing", "single": [start, text("A")],
            "pair": [start, text("A"), text("B")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
        let texts = ["a b", " a", "", "</s>a b", "a</s>a", " "];
        for (mut config, family, expected) in [
            (json!({}), "llama", [&[1, 6, 7][..], &[1, 6], &[1], &[1, 2, 4, 7], &[1, 6, 2, 4], &[1, 3]]),
            (json!({"legacy": true}), "llama", [&[1, 6, 7], &[1, 6], &[1], &[1, 2, 6, 7], &[1, 6, 2, 6], &[1, 3]]),
            (
                json!({"add_prefix_space": false}),
                "llama",
                [&[1, 4, 7], &[1, 6], &[1], &[1, 2, 4, 7], &[1, 4, 2, 4], &[1, 3]],
            ),
            // Whose class transformers does not believe.
            (json!({}), "mistral", [&[1, 6, 7], &[1, 3, 6], &[1], &[1, 2, 6, 7], &[1, 6, 2, 6], &[1, 3, 3]]),
        ] {
            config["tokenizer_class"] = "LlamaTokenizer".into();
            let tokenizer = load(&file, &config, family, None).unwrap();
            assert_eq!(ids(&tokenizer, &texts), expected, "{config} {family}");
        }
    }

    #[test]
    fn those_of_word_pieces_are_their_class() {
        let tokens =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", "hello", "Hello", "wor", "##ld", "x", "[MASK]"];
        let model = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 4, "vocab": vocabulary(&tokens)});
        let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": false});
        let mut file = file(model, normalizer, json!({"type": "WhitespaceSplit"}));
        file["truncation"] = json!({"direction": "Left", "max_length": 512, "strategy": "LongestFirst", "stride": 0});
        let texts = ["Hello world", "hello, x", "x y <z> x", "[MASK] <z>"];
        let whole = json!({"tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {"12": {"content": "<z>", "lstrip": true, "special": true}}});
        let cased = json!({"tokenizer_class": "ElectraTokenizer", "do_lower_case": false});
        let bert = [&[2, 6, 8, 9, 3][..], &[2, 6, 1, 10, 3], &[2, 10, 1, 1, 1, 1, 10, 3], &[2, 11, 1, 1, 1, 3]];
        let mpnet = [&[4, 6, 8, 9, 5][..], &[4, 6, 1, 10, 5], &[4, 10, 1, 1, 1, 1, 10, 5], &[4, 1, 1, 1, 1, 1, 1, 5]];
        for (config, family, expected, pair, cut) in [
            (json!({}), "distilbert", bert, &[2, 10, 3, 10, 3][..], [2, 10, 10, 3]),
            (cased, "electra", [&[2, 7, 8, 9, 3], bert[1], bert[2], bert[3]], &[2, 10, 3, 10, 3], [2, 10, 10, 3]),
            (json!({}), "mpnet", mpnet, &[4, 10, 5, 5, 10, 5], [4, 10, 10, 5]),
            (
                json!({"extra_special_tokens": ["<z>"]}),
                "ernie",
                [bert[0], bert[1], &[2, 10, 1, 12, 10, 3], &[2, 11, 12, 3]],
                &[2, 10, 3, 10, 3],
                [2, 10, 10, 3],
            ),
            (whole, "bert", [&[1, 1], &[1, 10], &[10, 1, 12, 10], &[1, 12]], &[10, 10], [1, 10, 10, 10]),
        ] {
            let tokenizer = load(&file, &config, family, None).unwrap();
            assert_eq!(ids(&tokenizer, &texts), expected, "{config} {family}");
            assert_eq!(tokenizer.encode_pair("x", "x").unwrap().ids, pair, "{config} {family}");
            // From the left, as the file says.
            let tokenizer = load(&file, &config, family, Some(4)).unwrap();
            assert_eq!(ids(&tokenizer, &["hello world x x x"]), [cut], "{config} {family}");
        }
        let split = load(&file, &json!({"split_special_tokens": true}), "bert", None).err().unwrap().to_string();
        assert!(split.contains("split_special_tokens"), "{split}");
    }
}
