//! From a repository's configuration to a [`Program`]. Each architecture is one file that reads like a forward pass.
//!
//! To add one: a file with a `backbone` function beside `bert.rs` (and a `classifier`, if it has rerankers, and a `masked_lm`, if
//! it has sparse encoders), a line in `ARCHITECTURES`, a golden case in `tests/golden/`. No executor changes.

mod activation;
mod albert;
mod bert;
mod deberta;
mod distilbert;
mod electra;
mod embedding_gemma2;
mod ernie;
mod gemma;
mod gte;
mod head;
mod jina_bert;
mod jina_v3;
mod late_interaction;
mod layers;
mod lfm2;
mod llama;
mod logit_score;
mod masked_lm;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod post_norm;
mod preset;
mod roberta;
mod rope;
mod sparse;
mod static_embedding;
mod t5;

pub use late_interaction::multi_vector_encoder;
pub use preset::Preset;
pub(crate) use sparse::token_weights;
pub use sparse::{SparseProgram, sparse_encoder};

use crate::checkpoint::{
    FEATURE_EXTRACTION, JsonFile, Module, ModuleKind, SEQUENCE_CLASSIFICATION, TEXT_GENERATION, TransformerModule,
    is_flash,
};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Program, Rows, Value, WeightSource};

/// Token ids to hidden states `[tokens, hidden]`, as the backbone's `config.json` says.
type Backbone = fn(&mut Builder, &JsonFile) -> Result<Value>;

/// Hidden states to the logits of so many labels `[sequences, labels]`.
type Classifier = fn(&mut Builder, &JsonFile, Value, usize) -> Result<Value>;

/// The head of its masked language model.
type MaskedLm = fn(&JsonFile) -> Result<masked_lm::Head>;

/// How a `model_type` of `config.json` is built.
struct Architecture {
    model_type: &'static str,
    /// What else a configuration must have, where two architectures share a name.
    is: fn(&JsonFile) -> Result<bool>,
    backbone: Backbone,
    /// The head for sequence classification: `None` if no reranker of this kind is known.
    classifier: Option<Classifier>,
    /// `None` if no sparse encoder of this kind is known.
    masked_lm: Option<MaskedLm>,
    /// If its causal language model is known, the backbone with a matrix `lm_head`: whether that is the table of tokens where the
    /// configuration does not say.
    language_model: Option<bool>,
}

impl Architecture {
    const fn new(model_type: &'static str, backbone: Backbone) -> Architecture {
        let (classifier, masked_lm) = (None, None);
        Architecture { model_type, is: |_| Ok(true), backbone, classifier, masked_lm, language_model: None }
    }

    const fn masked_lm(mut self, head: MaskedLm) -> Architecture {
        self.masked_lm = Some(head);
        self
    }

    const fn classifier(mut self, classifier: Classifier) -> Architecture {
        self.classifier = Some(classifier);
        self
    }

    const fn language_model(mut self, is_tied: bool) -> Architecture {
        self.language_model = Some(is_tied);
        self
    }

    const fn only_if(mut self, is: fn(&JsonFile) -> Result<bool>) -> Architecture {
        self.is = is;
        self
    }
}

/// The first that fits a configuration counts.
const ARCHITECTURES: &[Architecture] = &[
    Architecture::new("bert", jina_bert::backbone).only_if(jina_bert::is_jina).classifier(bert::classifier),
    Architecture::new("bert", bert::backbone).classifier(bert::classifier).masked_lm(bert::masked_lm),
    Architecture::new("ernie", ernie::backbone).classifier(bert::classifier).masked_lm(bert::masked_lm),
    Architecture::new("roberta", roberta::backbone).classifier(roberta::classifier).masked_lm(roberta::masked_lm),
    Architecture::new("data2vec-text", roberta::backbone).classifier(roberta::classifier).masked_lm(roberta::masked_lm),
    Architecture::new("xlm-roberta", jina_v3::original).only_if(is_flash).classifier(roberta::classifier),
    Architecture::new("jina_embeddings_v3", jina_v3::backbone)
        .classifier(roberta::classifier)
        .masked_lm(jina_v3::masked_lm),
    Architecture::new("xlm-roberta", roberta::backbone).classifier(roberta::classifier).masked_lm(roberta::masked_lm),
    Architecture::new("camembert", roberta::backbone).classifier(roberta::classifier).masked_lm(roberta::masked_lm),
    Architecture::new("mpnet", mpnet::backbone).classifier(mpnet::classifier).masked_lm(mpnet::masked_lm),
    Architecture::new("distilbert", distilbert::backbone)
        .classifier(distilbert::classifier)
        .masked_lm(distilbert::masked_lm),
    Architecture::new("electra", electra::backbone).classifier(electra::classifier).masked_lm(electra::masked_lm),
    Architecture::new("albert", albert::backbone).classifier(albert::classifier).masked_lm(albert::masked_lm),
    Architecture::new("modernbert", modernbert::backbone)
        .classifier(modernbert::classifier)
        .masked_lm(modernbert::masked_lm),
    Architecture::new("nomic_bert", nomic_bert::backbone).classifier(bert::classifier),
    Architecture::new("new", gte::backbone).classifier(bert::classifier),
    Architecture::new("gte", gte::backbone).classifier(bert::classifier),
    Architecture::new("deberta-v2", deberta::backbone).classifier(deberta::classifier),
    Architecture::new("t5", t5::backbone),
    Architecture::new("eurobert", llama::eurobert).classifier(llama::eurobert_classifier),
    Architecture::new("ultrabert", llama::ultrabert).classifier(llama::ultrabert_classifier),
    Architecture::new("qwen3", llama::qwen3).classifier(llama::last_token_classifier).language_model(false),
    Architecture::new("qwen3_vl_text", llama::qwen3_vl),
    Architecture::new("qwen2", llama::qwen2).classifier(llama::last_token_classifier).language_model(false),
    Architecture::new("mistral", llama::mistral).classifier(llama::last_token_classifier).language_model(false),
    Architecture::new("llama", llama::llama).classifier(llama::last_token_classifier).language_model(false),
    Architecture::new("lfm2", lfm2::backbone).classifier(llama::last_token_classifier).language_model(true),
    Architecture::new("gemma", gemma::gemma).classifier(llama::last_token_classifier).language_model(true),
    Architecture::new("gemma2", gemma::gemma2).classifier(llama::last_token_classifier),
    Architecture::new("gemma3_text", gemma::gemma3).classifier(llama::last_token_classifier),
    Architecture::new("embedding_gemma2_text", embedding_gemma2::backbone),
];

/// What a bi-encoder begins with.
const FIRST_MODULES: &str = "Transformer or StaticEmbedding, as the first module";

/// The program of a sentence-transformers repository: its modules, run in order. `weights` are looked at only where a
/// number decides what is computed (the slope of a PReLU).
///
/// # Errors
/// [`Error::Unsupported`] names the file, the key and the value that lexel does not implement.
pub fn sentence_transformer(modules: &[Module], weights: &dyn WeightSource) -> Result<Program> {
    let (b, sentences, tokens) = dense(modules, weights)?;
    Ok(b.finish(sentences, tokens).pooled_early())
}

/// The steps of modules that end with one embedding a text: its value, and that of the tokens' embeddings.
fn dense<'a>(modules: &[Module], weights: &'a dyn WeightSource) -> Result<(Builder<'a>, Value, Value)> {
    let mut rest = modules.iter().enumerate();
    let Some((_, first)) = rest.next() else {
        return Err(Error::unsupported("modules.json", "type", "no modules", FIRST_MODULES));
    };
    let mut rest = rest.peekable();
    let mut b = Builder::with_weights(weights);
    b.module(0);
    let mut tokens;
    let mut x;
    match &first.kind {
        ModuleKind::Transformer(transformer) => {
            x = backbone(&mut b, transformer)?;
            tokens = x;
        }
        ModuleKind::StaticEmbedding => {
            tokens = static_embedding::tokens(&mut b)?;
            let normalize = rest.next_if(|(_, next)| head::is_normalize(next)).is_some();
            x = static_embedding::mean(&mut b, tokens, normalize);
        }
        _ => return Err(Error::unsupported("modules.json", "type", "another first module", FIRST_MODULES)),
    }
    while let Some((i, module)) = rest.next() {
        b.module(i);
        b.label(&module.name);
        let normalize = head::pools_once(module) && rest.next_if(|(_, next)| head::is_normalize(next)).is_some();
        x = head::build(&mut b, module, normalize, x)?;
        if b.shape(x).rows == Rows::Tokens {
            tokens = x;
        }
    }
    if b.shape(x).rows == Rows::Tokens {
        return Err(Error::unsupported("modules.json", "type", "no Pooling", "a model with a Pooling module"));
    }
    Ok((b, x, tokens))
}

/// The program of a cross-encoder's repository: a transformer with its classification head, or a language model with a
/// LogitScore. Its [`Output::Sentences`](crate::program::Output) are the logits. `weights` are asked for shapes only.
///
/// # Errors
/// As [`sentence_transformer`].
pub fn cross_encoder(modules: &[Module], weights: &dyn WeightSource) -> Result<Program> {
    let [Module { kind: ModuleKind::Transformer(transformer), .. }, head @ ..] = modules else {
        return Err(Error::unsupported("modules.json", "type", "another first module", "Transformer"));
    };
    refuse_expansion(transformer)?;
    let mut b = Builder::with_weights(weights);
    b.set_limit(transformer.longest());
    let config = &transformer.config;
    let (logits, x) = match head {
        [] => classifier(&mut b, transformer)?,
        [module @ Module { kind: ModuleKind::LogitScore(score), .. }] => {
            check_task(transformer, TEXT_GENERATION)?;
            let architecture = architecture(config)?;
            let Some(is_tied) = architecture.language_model else {
                return Err(config.unsupported("model_type", names_of(|other| other.language_model.is_some())));
            };
            let x = (architecture.backbone)(&mut b, config)?;
            b.label("score");
            (logit_score::build(&mut b, config, module, score, is_tied, x)?, x)
        }
        _ => {
            let supported = "a Transformer alone, or a Transformer and a LogitScore";
            return Err(Error::unsupported("modules.json", "type", "other modules", supported));
        }
    };
    Ok(b.finish(logits, x).pooled_early())
}

/// The logits and the hidden states of a transformer with its classification head.
fn classifier(b: &mut Builder, transformer: &TransformerModule) -> Result<(Value, Value)> {
    check_task(transformer, SEQUENCE_CLASSIFICATION)?;
    let config = &transformer.config;
    let architectures = config.strings_opt("architectures")?.unwrap_or_default();
    if architectures.first().is_some_and(|name| !name.ends_with("ForSequenceClassification")) {
        let supported = "a cross-encoder: ...ForSequenceClassification. If the model makes embeddings, load it as a \
                         SentenceTransformer";
        return Err(config.unsupported("architectures", supported));
    }
    let architecture = architecture(config)?;
    let Some(classifier) = architecture.classifier else {
        return Err(config.unsupported("model_type", names_of(|architecture| architecture.classifier.is_some())));
    };
    let x = (architecture.backbone)(b, config)?;
    b.label("classifier");
    Ok((classifier(b, config, x, class_names(config)?.len())?, x))
}

/// The names of a cross-encoder's labels, in the order of its outputs.
///
/// # Errors
/// [`Error::InvalidFile`] for labels that are not numbered from 0 without gaps.
pub fn labels(modules: &[Module]) -> Result<Vec<String>> {
    match modules {
        [Module { kind: ModuleKind::Transformer(transformer), .. }] => class_names(&transformer.config),
        _ => Ok(vec!["LABEL_0".into()]),
    }
}

fn class_names(config: &JsonFile) -> Result<Vec<String>> {
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

/// The hidden states of a backbone whose tokens are all of its text.
fn backbone(b: &mut Builder, transformer: &TransformerModule) -> Result<Value> {
    refuse_expansion(transformer)?;
    hidden_states(b, transformer)
}

/// Refuses queries with more tokens than their texts have, which only late interaction knows what to do with.
fn refuse_expansion(transformer: &TransformerModule) -> Result<()> {
    match transformer.lengths.expansion {
        None => Ok(()),
        Some(_) => {
            let supported = "null but in a model that is loaded as a MultiVectorEncoder";
            Err(Error::unsupported("sentence_bert_config.json", "query_expansion", "an object", supported))
        }
    }
}

fn hidden_states(b: &mut Builder, transformer: &TransformerModule) -> Result<Value> {
    check_task(transformer, FEATURE_EXTRACTION)?;
    b.set_limit(transformer.longest());
    (architecture(&transformer.config)?.backbone)(b, &transformer.config)
}

fn check_task(transformer: &TransformerModule, task: &str) -> Result<()> {
    match transformer.task == task {
        true => Ok(()),
        false => Err(Error::unsupported("sentence_bert_config.json", "transformer_task", &transformer.task, task)),
    }
}

fn architecture(config: &JsonFile) -> Result<&'static Architecture> {
    let model_type = config.str("model_type")?;
    for architecture in ARCHITECTURES.iter().filter(|architecture| architecture.model_type == model_type) {
        if (architecture.is)(config)? {
            return Ok(architecture);
        }
    }
    Err(config.unsupported("model_type", names_of(|_| true)))
}

/// The model types of some architectures, for messages.
fn names_of(which: impl Fn(&Architecture) -> bool) -> String {
    let mut names: Vec<_> = ARCHITECTURES.iter().filter(|&a| which(a)).map(|a| a.model_type).collect();
    names.dedup();
    names.join(", ")
}
