//! The transformer module: the backbone's `config.json`, the module's own file, and the maximum length they settle on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::adapter::{Bases, tokenizer_folder};
use super::chat_template::{ChatTemplate, TEMPLATE_FILE};
use super::config::JsonFile;
use super::files::is_empty;
use super::task_lengths::TaskLengths;
use super::tokenizer_arguments::{PROCESSOR_ARGS, tokenizer_arguments};
use crate::error::{Error, Result};

/// What a transformer module's files say.
#[derive(Debug, Clone)]
pub struct TransformerModule {
    /// The backbone's `config.json`, with stored overrides applied.
    pub config: JsonFile,
    /// What the backbone is loaded as: `feature-extraction` for embeddings, `sequence-classification` or `text-generation` for
    /// a cross-encoder, `fill-mask` for sparse embeddings.
    pub task: String,
    /// Longer texts are truncated to this many tokens, special tokens included. `None`: no limit is stored anywhere.
    pub max_seq_length: Option<usize>,
    /// Other lengths for queries and documents.
    pub lengths: TaskLengths,
    /// Prompts that are a token each, or begin with one, whatever else the tokenizer would make of them.
    pub whole_prompts: Vec<String>,
    /// Whether texts are lowercased before the tokenizer's own normalisation.
    pub do_lower_case: bool,
    /// What stands above the tokenizer's own configuration.
    pub tokenizer_arguments: JsonFile,
    /// Texts become messages of a chat in this template. `None`: they stay texts.
    pub chat: Option<Arc<ChatTemplate>>,
    /// The folder with the backbone's `config.json` and weights: the module's own, unless that has an adapter in their place.
    pub backbone: PathBuf,
}

/// The task of an embedding model's transformer.
pub(crate) const FEATURE_EXTRACTION: &str = "feature-extraction";
/// The task of a cross-encoder's transformer with a head of its own.
pub(crate) const SEQUENCE_CLASSIFICATION: &str = "sequence-classification";
/// The task of a cross-encoder's transformer whose tokens are the answer.
pub(crate) const TEXT_GENERATION: &str = "text-generation";

/// The task of a sparse encoder's transformer, whose logits are the embedding.
pub(crate) const FILL_MASK: &str = "fill-mask";

/// Where the module's own configuration may stand: the first is today's name, the others are those of version 1.
pub(crate) const OLD_CONFIG_NAMES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Keyword arguments of the backbone that change nothing here: lexel has its own dtype, devices and attention.
const HARMLESS_MODEL_ARGS: [&str; 9] = [
    "torch_dtype",
    "dtype",
    "attn_implementation",
    "add_pooling_layer",
    "trust_remote_code",
    "use_safetensors",
    "low_cpu_mem_usage",
    "device_map",
    "revision",
];

/// Families whose position ids begin behind the padding id, so that part of the position table is never used.
const OFFSET_POSITIONS: [&str; 7] =
    ["roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "roberta-prelayernorm", "mpnet"];

/// Families with a table of positions, beyond which the reference fails.
const TABLE_POSITIONS: [&str; 5] = ["bert", "ernie", "distilbert", "albert", "electra"];

/// What tokenizers store for "no limit" is 1e30; nothing real comes near this.
const UNSET_LENGTH: f64 = 1e9;

impl TransformerModule {
    /// Reads the module in `folder`, which `modules.json` names.
    pub(crate) fn read(folder: &Path, bases: &Bases) -> Result<TransformerModule> {
        TransformerModule::read_as(folder, bases, FEATURE_EXTRACTION)
    }

    /// The same, where the module's class says what the backbone is loaded as if its file does not.
    pub(crate) fn read_as(folder: &Path, bases: &Bases, task: &str) -> Result<TransformerModule> {
        let module = own_file(folder)?;
        let chat = chat(folder, &module)?;
        TransformerModule::new(folder, bases, module, task, chat)
    }

    /// Of the backbone in a folder, where something else says what a module's own file would; that is not looked at.
    pub(crate) fn of_backbone(
        folder: &Path,
        bases: &Bases,
        settings: &Map<String, Value>,
    ) -> Result<TransformerModule> {
        let module = JsonFile::from_object(folder.join(OLD_CONFIG_NAMES[0]), settings.clone());
        TransformerModule::new(folder, bases, module, FEATURE_EXTRACTION, None)
    }

    /// [`read`](Self::read), where something else says what the module's own file does not.
    pub(crate) fn read_with(folder: &Path, bases: &Bases, more: &Map<String, Value>) -> Result<TransformerModule> {
        let mut module = own_file(folder)?;
        for (key, value) in more.iter().filter(|(key, _)| !module.contains(key)).collect::<Vec<_>>() {
            module.set(key, value.clone());
        }
        let chat = chat(folder, &module)?;
        TransformerModule::new(folder, bases, module, FEATURE_EXTRACTION, chat)
    }

    /// Reads the backbone in `folder` of a repository without `modules.json`: the module's own file is not looked at, and a
    /// chat template is used if there is one.
    pub(crate) fn read_without_modules(folder: &Path, bases: &Bases) -> Result<TransformerModule> {
        let chat = ChatTemplate::read(folder, None)?;
        TransformerModule::new(folder, bases, no_module(folder), FEATURE_EXTRACTION, chat)
    }

    /// The most tokens of a text, whatever it is encoded for. `None`: no limit is stored anywhere.
    pub fn longest(&self) -> Option<usize> {
        let TaskLengths { query, document, expansion } = &self.lengths;
        let of_tasks = [*query, *document, expansion.as_ref().map(|expansion| expansion.length)];
        self.max_seq_length.map(|length| of_tasks.into_iter().flatten().fold(length, usize::max))
    }

    fn new(
        folder: &Path,
        bases: &Bases,
        module: JsonFile,
        task: &str,
        chat: Option<ChatTemplate>,
    ) -> Result<TransformerModule> {
        let backbone = bases.backbone_of(folder).to_path_buf();
        let mut config = text_config(JsonFile::read(&backbone.join("config.json"))?)?;
        for key in ["config_kwargs", "config_args"] {
            if let Some(overrides) = module.object_opt(key)? {
                for name in overrides.keys().filter(|name| *name != "trust_remote_code") {
                    config.set(name, overrides.get(name).cloned().unwrap_or(Value::Null));
                }
            }
        }
        let task = module.str_or("transformer_task", task)?.to_string();
        check_module(&module, &task)?;
        let tokenizer = tokenizer_config(tokenizer_folder(folder, &backbone))?;
        let max_seq_length = max_seq_length(&module, &tokenizer, &config)?;
        let do_lower_case = module.bool_or("do_lower_case", false)?;
        let (lengths, chat) = (TaskLengths::read(&module)?, chat.map(Arc::new));
        let whole_prompts = Vec::new();
        let tokenizer_arguments = tokenizer_arguments(&module)?;
        Ok(TransformerModule {
            config,
            task,
            max_seq_length,
            lengths,
            whole_prompts,
            do_lower_case,
            tokenizer_arguments,
            chat,
            backbone,
        })
    }
}

/// Models of several kinds of input, of which lexel runs the part for text.
const MULTIMODAL: [&str; 2] = ["embedding_gemma2", "qwen3_vl"];

/// The configuration of a model's part for text.
fn text_config(config: JsonFile) -> Result<JsonFile> {
    if !MULTIMODAL.contains(&config.str_or("model_type", "")?) {
        return Ok(config);
    }
    config.object_opt("text_config")?.ok_or_else(|| config.unsupported("text_config", "the part for text"))
}

/// The module's own file, or what stands for it.
fn own_file(folder: &Path) -> Result<JsonFile> {
    for name in OLD_CONFIG_NAMES {
        if let Some(module) = JsonFile::read_if_present(&folder.join(name))? {
            return Ok(module);
        }
    }
    Ok(no_module(folder))
}

/// What stands for the module's own file.
fn no_module(folder: &Path) -> JsonFile {
    JsonFile::from_object(folder.join(OLD_CONFIG_NAMES[0]), Default::default())
}

/// The chat template, if the module takes messages.
fn chat(folder: &Path, module: &JsonFile) -> Result<Option<ChatTemplate>> {
    let modalities = module.object_opt("modality_config")?;
    let Some(message) = modalities.map_or(Ok(None), |modalities| modalities.object_opt("message"))? else {
        return Ok(None);
    };
    let format = match message.str_or("format", "auto")? {
        "auto" => None,
        format @ ("flat" | "structured") => Some(format),
        _ => return Err(message.unsupported("format", "flat, structured, auto")),
    };
    let Some(mut template) = ChatTemplate::read(folder, format)? else {
        let what = format!("{TEMPLATE_FILE} in {}", folder.display());
        let detail = format!("modality_config in {} asks for messages", module.path().display());
        return Err(Error::NotFound { what, detail });
    };
    if let Some(variables) = module.object_opt("processing_kwargs")?
        && let Some(variables) = variables.object_opt("chat_template")?
    {
        template.set_variables(&variables)?;
    }
    Ok(Some(template))
}

fn tokenizer_config(folder: &Path) -> Result<JsonFile> {
    let path = folder.join("tokenizer_config.json");
    Ok(JsonFile::read_if_present(&path)?.unwrap_or_else(|| JsonFile::from_object(path, Default::default())))
}

/// Refuses what would change the numbers: another output of the backbone, arguments to the model.
fn check_module(module: &JsonFile, task: &str) -> Result<()> {
    let (method_output, module_output) = match task {
        FEATURE_EXTRACTION => ("last_hidden_state", "token_embeddings"),
        SEQUENCE_CLASSIFICATION => ("logits", "scores"),
        TEXT_GENERATION => ("logits", "causal_logits"),
        FILL_MASK => ("logits", "token_embeddings"),
        _ => {
            let supported = [FEATURE_EXTRACTION, SEQUENCE_CLASSIFICATION, TEXT_GENERATION, FILL_MASK].join(", ");
            return Err(module.unsupported("transformer_task", supported));
        }
    };
    if module.str_or("module_output_name", module_output)? != module_output {
        return Err(module.unsupported("module_output_name", module_output));
    }
    if let Some(modalities) = module.object_opt("modality_config")? {
        let text = modalities.object_opt("text")?.ok_or_else(|| modalities.unsupported("text", "a model for text"))?;
        for modality in [Some(text), modalities.object_opt("message")?].into_iter().flatten() {
            for (key, supported) in [("method", "forward"), ("method_output_name", method_output)] {
                if modality.str_or(key, supported)? != supported {
                    return Err(modality.unsupported(key, supported));
                }
            }
        }
    }
    if let Some(arguments) = module.object_opt("processing_kwargs")? {
        for key in ["common", "text"] {
            if arguments.get(key).is_some_and(|value| !is_empty(value)) {
                return Err(arguments.unsupported(key, "an empty object"));
            }
        }
    }
    for key in ["model_kwargs", "model_args"] {
        if let Some(arguments) = module.object_opt(key)?
            && let Some(name) = arguments.keys().find(|name| !HARMLESS_MODEL_ARGS.contains(name))
        {
            return Err(arguments.unsupported(name, HARMLESS_MODEL_ARGS.join(", ")));
        }
    }
    Ok(())
}

/// The limit of the tokenizer in `folder`, if its files name one.
pub(crate) fn tokenizer_limit(folder: &Path) -> Result<Option<usize>> {
    model_max_length(&tokenizer_config(folder)?)
}

fn model_max_length(tokenizer: &JsonFile) -> Result<Option<usize>> {
    let key = "model_max_length";
    let length = tokenizer.get(key).and_then(Value::as_f64).filter(|&length| length < UNSET_LENGTH);
    length.map(|_| tokenizer.usize(key)).transpose()
}

/// Whether a configuration is that of the code called XLM-RoBERTa flash: jina-embeddings-v3 as it was published first.
pub(crate) fn is_flash(config: &JsonFile) -> Result<bool> {
    let Some(classes) = config.object_opt("auto_map")? else { return Ok(false) };
    Ok(classes.str_or("AutoConfig", "")?.ends_with("XLMRobertaFlashConfig"))
}

/// The rule of the reference: a stored length replaces the tokenizer's limit, even above `max_position_embeddings`; only
/// without it is the tokenizer's limit lowered to that. On top of it, positions that the backbone's table does not have
/// are never used: there the reference fails with an index out of range.
fn max_seq_length(module: &JsonFile, tokenizer: &JsonFile, config: &JsonFile) -> Result<Option<usize>> {
    let mut stored = module.usize_opt("max_seq_length")?;
    for key in PROCESSOR_ARGS {
        if let Some(arguments) = module.object_opt(key)? {
            stored = arguments.usize_opt("model_max_length")?.or(stored);
        }
    }
    let family = config.str_or("model_type", "")?;
    // XLNet's -1 means that there is no table.
    let is_unset = config.get("max_position_embeddings").and_then(Value::as_i64) == Some(-1);
    let mut positions = if is_unset { None } else { config.usize_opt("max_position_embeddings")? };
    let default = if is_flash(config)? { "rotary" } else { "absolute" };
    let absolute = config.str_or("position_embedding_type", default)? == "absolute";
    let offset = absolute && OFFSET_POSITIONS.contains(&family);
    if let Some(size) = positions
        && offset
    {
        // MPNet fixes its padding index at 1 whatever the configuration says.
        let padding = if family == "mpnet" { 1 } else { config.usize_or("pad_token_id", 1)? };
        positions = Some(size.saturating_sub(padding + 1));
    }
    let has_table = offset || absolute && TABLE_POSITIONS.contains(&family);
    let limit = match stored {
        Some(length) if has_table => Some(length.min(positions.unwrap_or(length))),
        Some(length) => Some(length),
        None => model_max_length(tokenizer)?.into_iter().chain(positions).min(),
    };
    match limit {
        Some(0) => {
            let file = if stored.is_some() { module } else { tokenizer };
            Err(Error::invalid_file(file.path(), "the maximum length is 0: no text has a token"))
        }
        _ => Ok(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> JsonFile {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { panic!("the test's JSON is an object") };
        JsonFile::from_object("x.json", object)
    }

    #[test]
    fn the_length_of_each_kind_of_model() {
        let bert = r#"{"model_type": "bert", "max_position_embeddings": 512}"#;
        let roberta = r#"{"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}"#;
        let mpnet = r#"{"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 0}"#;
        let modern = r#"{"model_type": "modernbert", "max_position_embeddings": 8192}"#;
        let jina = r#"{"model_type": "bert", "max_position_embeddings": 512, "position_embedding_type": "alibi"}"#;
        let xlnet = r#"{"model_type": "xlnet", "max_position_embeddings": -1}"#;
        let huge = r#"{"model_max_length": 1000000000000000019884624838656}"#;
        let cases = [
            (r#"{"max_seq_length": 256}"#, r#"{"model_max_length": 512}"#, bert, Some(256)),
            ("{}", r#"{"model_max_length": 128}"#, bert, Some(128)),
            ("{}", r#"{"model_max_length": 1024}"#, bert, Some(512)),
            ("{}", huge, bert, Some(512)),
            ("{}", "{}", roberta, Some(512)),
            (r#"{"max_seq_length": 514}"#, "{}", roberta, Some(512)),
            ("{}", r#"{"model_max_length": 512}"#, mpnet, Some(512)),
            (r#"{"max_seq_length": null}"#, huge, mpnet, Some(512)),
            (r#"{"max_seq_length": 600}"#, "{}", bert, Some(512)),
            (r#"{"max_seq_length": 10000}"#, "{}", modern, Some(10000)),
            (r#"{"max_seq_length": 8192}"#, "{}", jina, Some(8192)),
            (r#"{"max_seq_length": 64, "tokenizer_args": {"model_max_length": 32}}"#, "{}", bert, Some(32)),
            ("{}", huge, xlnet, None),
            ("{}", r#"{"model_max_length": 300}"#, xlnet, Some(300)),
        ];
        for (module, tokenizer, config, expected) in cases {
            let found = max_seq_length(&json(module), &json(tokenizer), &json(config)).unwrap();
            assert_eq!(found, expected, "{module} {tokenizer} {config}");
        }
        assert!(max_seq_length(&json(r#"{"max_seq_length": 0}"#), &json("{}"), &json(bert)).is_err());
        assert!(max_seq_length(&json(r#"{"max_seq_length": "long"}"#), &json("{}"), &json(bert)).is_err());
    }

    #[test]
    fn what_changes_the_numbers_is_refused() {
        let version_6 = r#"{"transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "unpad_inputs": null, "query_length": null, "query_expansion": false, "processing_kwargs": {},
            "model_args": {"torch_dtype": "float16"}}"#;
        check_module(&json(version_6), "feature-extraction").unwrap();
        for (module, named) in [
            (r#"{"module_output_name": "sentence_embedding"}"#, "module_output_name"),
            (r#"{"modality_config": {"text": {"method": "get_text_features"}}}"#, "modality_config.text.method"),
            (r#"{"modality_config": {"image": {"method": "forward"}}}"#, "modality_config.text"),
            (r#"{"processor_kwargs": {"chat_template": "x"}}"#, "processor_kwargs.chat_template"),
            (r#"{"tokenizer_args": {"add_eos_token": true}}"#, "tokenizer_args.add_eos_token"),
            (r#"{"model_args": {"num_labels": 3}}"#, "model_args.num_labels"),
            (r#"{"processing_kwargs": {"text": {"padding": "max_length"}}}"#, "processing_kwargs.text"),
            (
                r#"{"modality_config": {"text": {}, "message": {"method_output_name": "logits"}}}"#,
                "modality_config.message.method_output_name",
            ),
        ] {
            let module = json(module);
            let result = check_module(&module, "feature-extraction").and_then(|()| tokenizer_arguments(&module));
            let message = result.unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
        assert!(check_module(&json(r#"{"transformer_task": "any-to-any"}"#), "any-to-any").is_err());
        let arguments =
            r#"{"processor_kwargs": {"truncation_side": "left", "model_max_length": 9}, "tokenizer_args": {}}"#;
        let arguments = tokenizer_arguments(&json(arguments)).unwrap();
        assert!(arguments.keys().eq(["truncation_side"]) && arguments.str("truncation_side").unwrap() == "left");
    }
}
