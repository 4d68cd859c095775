//! From a repository's configuration to a [`Program`]. Each architecture is one file that reads like a forward pass.
//!
//! To add one: a file with a `backbone` function beside `bert.rs` (and a `classifier`, if it has rerankers), a line in
//! `ARCHITECTURES`, a golden case in `tests/golden/`. No executor changes.

mod activation;
mod bert;
mod distilbert;
mod electra;
mod head;
mod layers;
mod post_norm;
mod preset;
mod roberta;

pub use bert::BertConfig;
pub use preset::Preset;

use crate::checkpoint::{JsonFile, Module, ModuleKind, TransformerModule};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Program, Rows, Value, WeightSource};

/// Token ids to hidden states `[tokens, hidden]`, as the backbone's `config.json` says.
type Backbone = fn(&mut Builder, &JsonFile) -> Result<Value>;

/// Hidden states to the logits of so many labels `[sequences, labels]`.
type Classifier = fn(&mut Builder, &JsonFile, Value, usize) -> Result<Value>;

/// How a `model_type` of `config.json` is built.
struct Architecture {
    model_type: &'static str,
    backbone: Backbone,
    /// The head for sequence classification: `None` if no reranker of this kind is known.
    classifier: Option<Classifier>,
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture { model_type: "bert", backbone: bert::backbone, classifier: Some(bert::classifier) },
    Architecture { model_type: "roberta", backbone: roberta::backbone, classifier: Some(roberta::classifier) },
    Architecture { model_type: "xlm-roberta", backbone: roberta::backbone, classifier: Some(roberta::classifier) },
    Architecture { model_type: "camembert", backbone: roberta::backbone, classifier: Some(roberta::classifier) },
    Architecture { model_type: "distilbert", backbone: distilbert::backbone, classifier: Some(distilbert::classifier) },
    Architecture { model_type: "electra", backbone: electra::backbone, classifier: Some(electra::classifier) },
];

/// The program of a sentence-transformers repository: its modules, run in order. `weights` are looked at only where a
/// number decides what is computed (the slope of a PReLU).
///
/// # Errors
/// [`Error::Unsupported`] names the file, the key and the value that lexel does not implement.
pub fn sentence_transformer(modules: &[Module], weights: &dyn WeightSource) -> Result<Program> {
    let mut b = Builder::new();
    let Some((Module { kind: ModuleKind::Transformer(transformer), .. }, rest)) = modules.split_first() else {
        return Err(Error::unsupported(
            "modules.json",
            "type",
            "another first module",
            "Transformer, as the first module",
        ));
    };
    b.module(0);
    let mut x = backbone(&mut b, transformer)?;
    let mut tokens = x;
    for (i, module) in rest.iter().enumerate() {
        b.module(i + 1);
        b.label(&module.name);
        x = head::build(&mut b, module, weights, x)?;
        if b.shape(x).rows == Rows::Tokens {
            tokens = x;
        }
    }
    if b.shape(x).rows == Rows::Tokens {
        return Err(Error::unsupported("modules.json", "type", "no Pooling", "a model with a Pooling module"));
    }
    Ok(b.finish(x, tokens).pooled_early())
}

/// The program of a cross-encoder's repository: a transformer with its classification head. Its
/// [`Output::Sentences`](crate::program::Output) are the logits.
///
/// # Errors
/// As [`sentence_transformer`].
pub fn cross_encoder(modules: &[Module]) -> Result<Program> {
    let [Module { kind: ModuleKind::Transformer(transformer), .. }] = modules else {
        let supported = "one Transformer with a head for sequence classification";
        return Err(Error::unsupported("modules.json", "type", "other modules", supported));
    };
    let config = &transformer.config;
    let architectures = config.strings_opt("architectures")?.unwrap_or_default();
    if architectures.first().is_some_and(|name| !name.ends_with("ForSequenceClassification")) {
        return Err(config.unsupported("architectures", "a cross-encoder: ...ForSequenceClassification"));
    }
    let architecture = architecture(config)?;
    let Some(classifier) = architecture.classifier else {
        let names: Vec<_> = ARCHITECTURES.iter().filter(|a| a.classifier.is_some()).map(|a| a.model_type).collect();
        return Err(config.unsupported("model_type", names.join(", ")));
    };
    let mut b = Builder::new();
    let x = (architecture.backbone)(&mut b, config)?;
    b.label("classifier");
    let logits = classifier(&mut b, config, x, labels(config)?.len())?;
    Ok(b.finish(logits, x).pooled_early())
}

/// The names of a classifier's labels, in the order of its outputs.
///
/// # Errors
/// [`Error::InvalidFile`](crate::Error::InvalidFile) for labels that are not numbered from 0 without gaps.
pub fn labels(config: &JsonFile) -> Result<Vec<String>> {
    let Some(names) = config.object_opt("id2label")? else {
        // transformers' own default is two.
        let count = config.usize_or("num_labels", 2)?;
        return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
    };
    (0..names.keys().count()).map(|i| Ok(names.str(&i.to_string())?.to_string())).collect()
}

/// An activation by its PyTorch class path, e.g. `torch.nn.modules.activation.Sigmoid`: the classes without parameters.
pub fn torch_activation(class_path: &str) -> Option<Activation> {
    let class = class_path.strip_prefix("torch.")?.rsplit('.').next()?;
    activation::find(activation::TORCH_CLASS, class).ok()
}

/// The classes that [`torch_activation`] knows, for messages.
pub fn torch_activations() -> String {
    activation::TORCH_CLASS.iter().map(|(class, _)| *class).collect::<Vec<_>>().join(", ")
}

fn backbone(b: &mut Builder, transformer: &TransformerModule) -> Result<Value> {
    if transformer.task != "feature-extraction" {
        let supported = "feature-extraction";
        return Err(Error::unsupported("sentence_bert_config.json", "transformer_task", &transformer.task, supported));
    }
    (architecture(&transformer.config)?.backbone)(b, &transformer.config)
}

fn architecture(config: &JsonFile) -> Result<&'static Architecture> {
    let model_type = config.str("model_type")?;
    ARCHITECTURES.iter().find(|architecture| architecture.model_type == model_type).ok_or_else(|| {
        let names: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.model_type).collect();
        config.unsupported("model_type", names.join(", "))
    })
}
