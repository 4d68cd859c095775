//! Chat templates: a text, or a pair, as the messages of a chat in one string, as transformers' `apply_chat_template` does.
//!
//! Templates are Jinja, written for Python: minijinja runs them with Python's methods and with what transformers adds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Serde};
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::config::JsonFile;
use crate::error::{Error, Result};

/// The file beside the tokenizer.
pub(crate) const TEMPLATE_FILE: &str = "chat_template.jinja";

/// Templates by name beside [`TEMPLATE_FILE`], which is then the one named `default`.
const NAMED_TEMPLATES: &str = "additional_chat_templates";

/// The name inside minijinja's environment, where messages show it with a line.
const NAME: &str = "chat_template";

/// The tokens that a template can name, by their keys in the tokenizer's configuration.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What shows that a template takes a message's content as a list of parts: the reference's patterns.
const STRUCTURED: [&str; 6] = ["content[0]", ".type", "'type'", "\"type\"", "item.type", "message.content["];

/// Arguments of `apply_chat_template` that are no variables of the template.
const ARGUMENTS: [&str; 14] = [
    "chat_template",
    "continue_final_message",
    "conversation",
    "common_kwargs",
    "max_length",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "sanitize_control_tokens",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
];

/// What stands around the texts of a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame<'a> {
    /// Before each text, or the first of each pair; in a chat a message of its own. Empty: nothing.
    pub prompt: &'a str,
    /// What the texts are encoded for, e.g. `query`: a chat template may look at it.
    pub task: Option<&'a str>,
}

/// What the messages of a chat hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// One text: the role `user`.
    Text(&'a str),
    /// Two texts: the roles `query` and `document`.
    Pair(&'a str, &'a str),
}

/// A tokenizer's chat template with its variables.
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    /// Whether a message's content is a list of parts, not a string.
    structured: bool,
    /// What a template sees beside the messages.
    variables: BTreeMap<String, Value>,
    /// Whether truncation leaves the template's end in place.
    restores_suffix: bool,
}

impl ChatTemplate {
    /// The template of the tokenizer in `folder`, with the defaults of `apply_chat_template`; `None` if there is none. Without
    /// a `format` (`flat` or `structured`), the template shows which it takes.
    pub(crate) fn read(folder: &Path, format: Option<&str>) -> Result<Option<ChatTemplate>> {
        let path = folder.join("tokenizer_config.json");
        let config =
            JsonFile::read_if_present(&path)?.unwrap_or_else(|| JsonFile::from_object(path, Default::default()));
        let Some(Source { path, text, is_one_of_several }) = Source::find(folder, &config)? else { return Ok(None) };
        let structured = match format {
            Some(format) => format == "structured",
            None => is_one_of_several || STRUCTURED.iter().any(|pattern| text.contains(pattern)),
        };
        let mut variables = special_tokens(folder, &config)?;
        variables.insert("tools".into(), Value::from(()));
        variables.insert("documents".into(), Value::from(()));
        variables.insert("add_generation_prompt".into(), Value::from(false));
        let environment = environment(&text)
            .map_err(|error| Error::invalid_file(&path, format!("not a chat template that is understood: {error}")))?;
        Ok(Some(ChatTemplate { path, environment, structured, variables, restores_suffix: true }))
    }

    /// Sets variables as `processing_kwargs.chat_template` names them.
    pub(crate) fn set_variables(&mut self, arguments: &JsonFile) -> Result<()> {
        self.restores_suffix = arguments.bool_or("restore_suffix", true)?;
        for name in arguments.keys().filter(|name| *name != "restore_suffix") {
            if ARGUMENTS.contains(&name) {
                return Err(arguments.unsupported(name, "restore_suffix, and variables of the template"));
            }
            self.variables.insert(name.to_string(), Value::from(Serde(arguments.get(name))));
        }
        Ok(())
    }

    /// Whether truncation leaves the template's end in place.
    pub(crate) fn restores_suffix(&self) -> bool {
        self.restores_suffix
    }

    /// The chat with `content`, behind a system message with the prompt, if there is one.
    pub(crate) fn render(&self, frame: Frame, content: Content) -> Result<String> {
        self.render_messages(frame, content)
            .map_err(|error| Error::invalid_file(&self.path, format!("the chat template failed: {error}")))
    }

    fn render_messages(&self, frame: Frame, content: Content) -> Result<String, minijinja::Error> {
        let message = |role: &str, text: &str| match self.structured {
            true => context! { role, content => [context! { type => "text", text }] },
            false => context! { role, content => text },
        };
        let mut messages = Vec::with_capacity(3);
        if !frame.prompt.is_empty() {
            messages.push(message("system", frame.prompt));
        }
        match content {
            Content::Text(text) => messages.push(message("user", text)),
            Content::Pair(first, second) => messages.extend([message("query", first), message("document", second)]),
        }
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let task = frame.task.map(|task| ("task", Value::from(task)));
        // Of two values of a variable the later one counts.
        let variables = task.into_iter().chain(variables).chain([("messages", Value::from(messages))]);
        self.environment.get_template(NAME)?.render(Value::from_pairs(variables))
    }

    /// Refuses a template in whose chats a text of a pair leaves no trace: most know the roles of a conversation only.
    pub(crate) fn check_pairs(&self) -> Result<()> {
        let render = |first, second| self.render_messages(Frame::default(), Content::Pair(first, second));
        let probes = || Ok([render("alpha", "bravo")?, render("charlie", "bravo")?, render("alpha", "foxtrot")?]);
        let failure = match probes() {
            Ok([base, query, document]) => match (query == base, document == base) {
                (false, false) => return Ok(()),
                (true, true) => "it renders neither".to_string(),
                (true, false) => "it does not render the query".to_string(),
                (false, true) => "it does not render the document".to_string(),
            },
            Err(error) => minijinja::Error::to_string(&error),
        };
        let detail =
            format!("the chat template cannot carry a pair, as messages of roles query and document: {failure}");
        Err(Error::invalid_file(&self.path, detail))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("path", &self.path)
            .field("structured", &self.structured)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

/// Where a template comes from.
struct Source {
    path: PathBuf,
    text: String,
    is_one_of_several: bool,
}

impl Source {
    /// The file, else the tokenizer's configuration: a string, or a list of templates by name.
    fn find(folder: &Path, config: &JsonFile) -> Result<Option<Source>> {
        let path = folder.join(TEMPLATE_FILE);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
            return Ok(Some(Source { path, text, is_one_of_several: folder.join(NAMED_TEMPLATES).is_dir() }));
        }
        let source = |text: &str, is_one_of_several| {
            Ok(Some(Source { path: config.path().to_path_buf(), text: text.to_string(), is_one_of_several }))
        };
        match config.get(NAME) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => source(text, false),
            Some(serde_json::Value::Array(templates)) => {
                let default = templates.iter().find(|template| template["name"] == "default");
                match default.and_then(|template| template["template"].as_str()) {
                    Some(text) => source(text, true),
                    None => Err(config.invalid(NAME, "a template named default in the list")),
                }
            }
            Some(_) => Err(config.invalid(NAME, "a string, or a list of objects with name and template")),
        }
    }
}

/// The tokens that a template can name: as strings, or as objects that describe them.
fn special_tokens(folder: &Path, config: &JsonFile) -> Result<BTreeMap<String, Value>> {
    // The older file counts where the newer one does not describe its tokens.
    let older = match config.contains("added_tokens_decoder") {
        true => None,
        false => JsonFile::read_if_present(&folder.join("special_tokens_map.json"))?,
    };
    let mut tokens = BTreeMap::new();
    for key in SPECIAL_TOKENS {
        let stored = older.as_ref().and_then(|older| older.get(key)).or_else(|| config.get(key));
        if let Some(token) = stored.and_then(|token| token.get("content").unwrap_or(token).as_str()) {
            tokens.insert(key.to_string(), Value::from(token));
        }
    }
    Ok(tokens)
}

/// An environment as transformers sets it up, with the one template in it.
fn environment(text: &str) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    let text = without_generation_blocks(&text.replace("\r\n", "\n").replace('\r', "\n"));
    environment.add_template_owned(NAME, text)?;
    Ok(environment)
}

/// The blocks that mark an assistant's part for training do nothing else: they become blocks that minijinja knows.
fn without_generation_blocks(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once("{%") {
        let (inside, after) = tag.split_once("%}").unwrap_or((tag, ""));
        let signs = |c: char| c == '-' || c == '+' || c.is_whitespace();
        let inside = match inside.trim_matches(signs) {
            "generation" => inside.replace("generation", "with generation = true"),
            "endgeneration" => inside.replace("endgeneration", "endwith"),
            _ => inside.to_string(),
        };
        let end = if tag.contains("%}") { "%}" } else { "" };
        result.extend([before, "{%", &inside, end]);
        rest = after;
    }
    result + rest
}

/// Python's `json.dumps` with transformers' defaults: nothing is escaped that need not be.
fn to_json(value: Value, positional: Rest<Value>, options: Kwargs) -> Result<String, minijinja::Error> {
    let unsupported = |what: &str| minijinja::Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    if !positional.is_empty() || options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(unsupported("only indent is supported"));
    }
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        Some(spaces) => {
            let spaces = " ".repeat(spaces);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Python)),
    };
    written.map_err(|error| unsupported(&error.to_string()))?;
    String::from_utf8(json).map_err(|error| unsupported(&error.to_string()))
}

/// A blank behind each comma and colon.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests;
