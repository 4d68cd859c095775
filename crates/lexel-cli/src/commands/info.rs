//! `lexel info`: what a model's files say. No weights are read and no device is opened.

use crate::args::InfoCommand;
use crate::config;
use crate::failure::Failure;
use crate::messages::{self, DownloadBar};
use lexel::LateInteraction;
use lexel::checkpoint::{
    Checkpoint, ModelType, Module, ModuleKind, QueryExpansion, SourceOptions, SpladeStrategy, TaskLengths,
    TransformerModule,
};
use lexel::cross_encoder::default_activation;
use lexel::models;
use lexel::program::Program;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// Runs the subcommand.
pub fn run(args: &InfoCommand, json: bool) -> Result<(), Failure> {
    let bar = DownloadBar::default();
    let mut source = config::source(&args.source);
    source.progress = Some(bar.shared_callback());
    let opened = open(&args.model, &source);
    bar.finish();
    let (model_type, checkpoint) = opened?;
    let routes = Route::all(model_type, &checkpoint)?;
    if args.program {
        let text: String = routes.iter().map(Route::program).collect();
        return match json {
            true => messages::stdout(&format!("{}\n", json!({"program": text}))),
            false => messages::stdout(&text),
        };
    }
    let facts = facts(model_type, &checkpoint, &routes)?;
    match json {
        true => messages::stdout(&format!("{facts}\n")),
        false => messages::stdout(&text(&facts)),
    }
}

/// The model, opened as what its files say that it is.
fn open(model: &str, source: &SourceOptions) -> lexel::Result<(ModelType, Checkpoint)> {
    let model_type = Checkpoint::type_of(model, source)?;
    Ok((model_type, Checkpoint::open_as(model_type, model, source)?))
}

/// One way of a text through the model: all there is, unless it has a Router.
struct Route {
    name: String,
    checkpoint: Checkpoint,
    /// None of weights of tokens.
    program: Option<Program>,
}

impl Route {
    fn all(model_type: ModelType, checkpoint: &Checkpoint) -> Result<Vec<Route>, Failure> {
        let route = |(names, checkpoint): (Vec<String>, Checkpoint)| {
            let (modules, weights) = (checkpoint.modules(), checkpoint.weights()?);
            let program = match model_type {
                ModelType::SentenceTransformer => Some(models::sentence_transformer(modules, &weights)?),
                ModelType::SparseEncoder => models::sparse_encoder(modules, &weights)?.map(|sparse| sparse.program),
                ModelType::MultiVectorEncoder => Some(models::multi_vector_encoder(modules, &weights)?),
                ModelType::CrossEncoder => Some(models::cross_encoder(modules, &weights)?),
            };
            Ok(Route { name: names.join(", "), checkpoint, program })
        };
        checkpoint.routes().into_iter().map(route).collect()
    }

    /// Numbers of an embedding: without a program, the tokens of the vocabulary.
    fn dimensions(&self) -> Option<usize> {
        match &self.program {
            Some(program) => Some(program.shape(program.sentences).cols),
            None => self.checkpoint.tokenizer().ok().map(|tokenizer| tokenizer.vocab_size()),
        }
    }

    /// Its program, under its name if it has one.
    fn program(&self) -> String {
        let none = || "no program: the weights of its tokens are the embedding\n".to_string();
        let program = self.program.as_ref().map_or_else(none, Program::to_string);
        match self.name.as_str() {
            "" => program,
            name => format!("route {name}:\n{program}"),
        }
    }

    /// What differs between routes.
    fn tell(&self, facts: &mut Map<String, Value>) -> Result<(), Failure> {
        // Not every bi-encoder has one.
        let found = self.checkpoint.transformer().ok();
        let transformer = found.map(|(_, transformer)| transformer);
        if let Some((i, transformer)) = found
            && transformer.backbone != self.checkpoint.modules()[i].path
        {
            facts.insert("adapter of".into(), json!(transformer.backbone));
        }
        let architecture = transformer.map(|transformer| transformer.config.str("model_type")).transpose()?;
        facts.insert("architecture".into(), json!(architecture));
        facts.insert("parameters".into(), json!(self.program.as_ref().map(Program::parameters)));
        facts.insert("max_seq_length".into(), json!(max_seq_length(transformer, self.program.as_ref())));
        let adapters =
            transformer.map_or(Ok(None), |transformer| transformer.config.strings_opt("lora_adaptations"))?;
        if let Some(adapters) = adapters {
            facts.insert("adapters".into(), json!(adapters));
        }
        let modules = self.checkpoint.modules().iter().map(module).collect::<Vec<_>>();
        facts.insert("modules".into(), json!(modules));
        Ok(())
    }

    /// What its tensors are stored in.
    fn dtypes(&self) -> Result<Vec<String>, Failure> {
        // Some files also hold a table of position ids, which are no weights.
        Ok(self.checkpoint.weights()?.dtypes().into_iter().filter(|dtype| dtype.contains('F')).collect())
    }
}

/// Everything that is told, by name.
fn facts(model_type: ModelType, checkpoint: &Checkpoint, routes: &[Route]) -> Result<Value, Failure> {
    let settings = checkpoint.settings();
    let mut facts = Map::new();
    facts.insert("model".into(), json!(checkpoint.name()));
    facts.insert("folder".into(), json!(checkpoint.folder()));
    facts.insert("commit".into(), json!(checkpoint.commit()));
    if let [route] = routes {
        route.tell(&mut facts)?;
    } else {
        for route in routes {
            let mut of_route = Map::new();
            route.tell(&mut of_route)?;
            facts.insert(format!("route {}", route.name), Value::Object(of_route));
        }
    }
    let mut tell = |name: &str, value: Value| facts.insert(name.to_string(), value);
    if model_type != ModelType::CrossEncoder {
        let full = routes.iter().find_map(Route::dimensions);
        let most = settings.truncate_dim.filter(|_| model_type == ModelType::SentenceTransformer);
        tell("dimensions", json!(full.map(|full| most.map_or(full, |dim| dim.min(full)))));
    }
    match model_type {
        ModelType::SentenceTransformer => {
            tell("similarity", json!(settings.similarity_fn_name.as_deref().unwrap_or("cosine")));
            tell("prompts", json!(settings.bi_encoder_prompts()));
        }
        ModelType::SparseEncoder => {
            tell("similarity", json!(settings.similarity_fn_name.as_deref().unwrap_or("dot")));
            tell("max_active_dims", json!(settings.max_active_dims));
            tell("prompts", json!(settings.bi_encoder_prompts()));
        }
        ModelType::MultiVectorEncoder => {
            let similarity = LateInteraction::of_files(settings.similarity_fn_name.as_deref());
            tell("similarity", json!(similarity.name()));
            // Of several routes, those that have some.
            let of = |route: &Route| Some(route.checkpoint.transformer().ok()?.1.lengths.clone());
            let lengths: Vec<TaskLengths> = routes.iter().filter_map(of).collect();
            tell("query_length", json!(lengths.iter().find_map(|lengths| lengths.query)));
            let expanded = lengths.iter().find_map(|lengths| lengths.expansion.as_ref());
            tell("query_expansion", json!(expanded.map(expansion)));
            tell("document_length", json!(lengths.iter().find_map(|lengths| lengths.document)));
            tell("prompts", json!(settings.bi_encoder_prompts()));
        }
        ModelType::CrossEncoder => {
            let labels = models::labels(checkpoint.modules())?;
            tell("activation", json!(default_activation(checkpoint, labels.len())?.name()));
            tell("labels", json!(labels));
            tell("prompts", json!(settings.prompts));
        }
    }
    tell("default_prompt", json!(settings.default_prompt_name));
    let dtypes = routes.iter().map(Route::dtypes).collect::<Result<Vec<_>, _>>()?;
    tell("dtype", json!(dtypes.into_iter().flatten().collect::<BTreeSet<_>>()));
    let modules: Vec<Module> = routes.iter().flat_map(|route| route.checkpoint.modules()).cloned().collect();
    tell("files", json!(files(checkpoint.folder(), &modules)));
    Ok(Value::Object(facts))
}

/// How queries get more tokens.
fn expansion(expansion: &QueryExpansion) -> String {
    let least = if expansion.is_fixed { "to" } else { "to at least" };
    let token = expansion.token.as_deref().unwrap_or("the tokenizer's mask token, or else that of the end");
    let attend = if expansion.attend { "" } else { ", which attention does not look at" };
    format!("{least} {} tokens by {token}{attend}", expansion.length)
}

/// As the model truncates when it is loaded without options.
fn max_seq_length(transformer: Option<&TransformerModule>, program: Option<&Program>) -> Option<usize> {
    transformer.and_then(|transformer| transformer.max_seq_length).or(program.and_then(Program::max_positions))
}

/// A module's class, and what matters of its configuration.
fn module(module: &Module) -> String {
    let detail = match &module.kind {
        ModuleKind::Pooling(pooling) => {
            let modes: Vec<_> = pooling.modes.iter().map(|mode| mode.name()).collect();
            let prompt = if pooling.include_prompt { "" } else { ", without the prompt" };
            format!("{}{prompt}", modes.join(" + "))
        }
        ModuleKind::Dense(dense) => format!("{} to {}, {}", dense.in_features, dense.out_features, dense.activation),
        ModuleKind::LayerNorm { dim } => dim.to_string(),
        ModuleKind::WeightedLayers(layers) => format!("hidden states {} to {}", layers.first, layers.layers),
        ModuleKind::Router(router) => {
            let routes: Vec<_> = router.routes.iter().map(|(name, _)| name.as_str()).collect();
            routes.join(", ")
        }
        ModuleKind::SpladePooling(splade) => {
            let strategy = if splade.strategy == SpladeStrategy::Max { "max" } else { "sum" };
            format!("{strategy}{}", if splade.twice { ", log1p twice" } else { "" })
        }
        ModuleKind::SparseAutoEncoder(coder) => format!("{} to {} of {}", coder.input, coder.k, coder.features),
        ModuleKind::MultiVectorMask(mask) if !mask.skiplist_words.is_empty() => {
            let (words, tasks) = (mask.skiplist_words.len(), mask.skiplist_tasks.join(" and "));
            format!("without {words} tokens for {tasks}")
        }
        ModuleKind::TokenPooling(pooling) => format!("1 of {}", pooling.pool_factor),
        _ => return module.kind.name().to_string(),
    };
    format!("{} ({detail})", module.kind.name())
}

/// The files of the root and of the modules' folders, with their sizes.
fn files(folder: &Path, modules: &[Module]) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for folder_of_files in modules.iter().map(|module| module.path.as_path()).chain([folder]) {
        // A module without weights may have no folder: git keeps no empty ones.
        for entry in std::fs::read_dir(folder_of_files).into_iter().flatten().flatten() {
            // Through links: the hub's cache is full of them.
            if let Ok(metadata) = std::fs::metadata(entry.path())
                && metadata.is_file()
            {
                let path = entry.path();
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                files.insert(name, metadata.len());
            }
        }
    }
    files
}

/// The facts as lines, without those that say nothing.
fn text(facts: &Value) -> String {
    let mut out = String::new();
    for (key, value) in facts.as_object().into_iter().flatten() {
        let name = key.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(_) if key.starts_with("route ") => {
                let _ = write!(out, "{key}\n{}", indented(&text(value)));
            }
            Value::String(value) => {
                let _ = writeln!(out, "{name:<16} {value}");
            }
            Value::Array(values) => {
                let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                let _ = writeln!(out, "{name:<16} {}", values.join(if key == "modules" { " -> " } else { ", " }));
            }
            Value::Object(entries) => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    let name = if i == 0 { name.as_str() } else { "" };
                    let value = match value.as_u64() {
                        Some(bytes) => format!("{} bytes", grouped(bytes)),
                        None => value.to_string(),
                    };
                    let _ = writeln!(out, "{name:<16} {key}: {value}");
                }
            }
            value => {
                let value = value.as_u64().map_or_else(|| value.to_string(), grouped);
                let _ = writeln!(out, "{name:<16} {value}");
            }
        }
    }
    out
}

/// Each line two columns further right.
fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// `22713216` as `22,713,216`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_groups() {
        let grouped = [0, 999, 1000, 22_713_216].map(grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "22,713,216"]);
    }
}
