//! A causal language model as a cross-encoder: how much it expects one token, or one rather than another, behind the pair.
//! Qwen3-Reranker, mxbai-rerank-v2.

use crate::checkpoint::{JsonFile, LogitScoreConfig, Module};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Difference, Linear, Part, Pool, PoolMode, TensorSpec, Value};

/// The logit of the last token, or the difference of two: `[sequences, 1]`. Of the vocabulary's matrix, no other rows are
/// needed.
pub(super) fn build(
    b: &mut Builder,
    config: &JsonFile,
    module: &Module,
    score: &LogitScoreConfig,
    is_tied: bool,
    x: Value,
) -> Result<Value> {
    let table = head(b, config, is_tied, b.shape(x).cols)?;
    for (key, token) in [("true_token_id", Some(score.true_token)), ("false_token_id", score.false_token)] {
        if let Some(token) = token.filter(|&token| token >= table.rows()) {
            let detail = format!("{key} = {token}, but the vocabulary has {} tokens", table.rows());
            return Err(Error::invalid_file(module.path.join("config.json"), detail));
        }
    }
    let x = b.pool(Pool::new(x, PoolMode::LastToken));
    let difference = Difference { table, row: score.true_token, other: score.false_token };
    let weight = b.weight(vec![Part::Difference(Box::new(difference))]);
    Ok(b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual: None }))
}

/// The matrix from hidden states to logits. Where it is not stored, it is the table of tokens, if the configuration says so, or, where
/// that is silent, `is_tied`.
fn head(b: &Builder, config: &JsonFile, is_tied: bool, hidden: usize) -> Result<TensorSpec> {
    let vocab = config.usize("vocab_size")?;
    let head = b.tensor("lm_head.weight", vec![vocab, hidden]);
    // LFM2 has another key for it, too.
    let is_tied = config.bool_or("tie_embedding", config.bool_or("tie_word_embeddings", is_tied)?)?;
    match is_tied && b.stored_shape(&head.name).is_none() {
        true => Ok(b.tensor("embed_tokens.weight", vec![vocab, hidden])),
        false => Ok(head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{ModuleKind, TransformerModule};
    use crate::models;
    use crate::program::{Output, Program, RandomWeights, Rows};

    fn program(config: &str, score: LogitScoreConfig) -> Result<Program> {
        let Ok(serde_json::Value::Object(object)) = serde_json::from_str(config) else { panic!("{config}") };
        let transformer = TransformerModule {
            config: JsonFile::from_object("config.json", object),
            task: "text-generation".into(),
            max_seq_length: Some(8),
            lengths: Default::default(),
            whole_prompts: vec![],
            do_lower_case: false,
            tokenizer_arguments: JsonFile::from_object("module.json", Default::default()),
            chat: None,
            backbone: "folder".into(),
        };
        let kinds = [ModuleKind::Transformer(Box::new(transformer)), ModuleKind::LogitScore(score)];
        let modules = kinds.map(|kind| Module { name: "m".into(), path: "folder".into(), kind });
        models::cross_encoder(&modules, &RandomWeights { seed: 1 })
    }

    const CONFIG: &str = r#"{"model_type": "qwen3", "hidden_size": 8, "num_attention_heads": 2, "head_dim": 4, "vocab_size": 30,
        "num_hidden_layers": 2, "intermediate_size": 16, "tie_word_embeddings": true}"#;

    #[test]
    fn one_row_of_the_vocabulary_for_one_token_of_a_sequence() {
        let score = LogitScoreConfig { true_token: 29, false_token: Some(3) };
        let program = program(CONFIG, score).unwrap();
        let needed = program.needed(Output::Sentences);
        let Some(last_attention) = program.steps.iter().rposition(|step| step.op.name() == "attention") else {
            panic!()
        };
        let behind = program.steps.iter().zip(needed).skip(last_attention + 1).filter(|(_, needed)| *needed);
        assert!(behind.clone().count() > 4 && behind.clone().all(|(step, _)| step.shape.rows == Rows::Sequences));
        assert!(behind.clone().all(|(step, _)| step.shape.cols <= 32));
        assert_eq!(program.shape(program.sentences).cols, 1);
        let weight = program.weights.iter().find(|weight| matches!(weight.parts[0], Part::Difference(_))).unwrap();
        assert_eq!((weight.rows, weight.cols, weight.name()), (1, 8, "embed_tokens.weight".to_string()));
    }

    #[test]
    fn refusals() {
        let outside = LogitScoreConfig { true_token: 1, false_token: Some(30) };
        let message = program(CONFIG, outside).unwrap_err().to_string();
        assert!(message.contains("false_token_id = 30, but the vocabulary has 30 tokens"), "{message}");
        let inside = LogitScoreConfig { true_token: 1, false_token: None };
        let message = program(r#"{"model_type": "bert", "vocab_size": 30}"#, inside).unwrap_err().to_string();
        assert!(message.contains("model_type = \"bert\"") && message.contains("qwen2"), "{message}");
        // Without a tie, the matrix must be there.
        let untied = program(&CONFIG.replace("true}", "false}"), inside).unwrap();
        assert!(untied.weights.iter().any(|weight| weight.name() == "lm_head.weight"));
    }
}
