//! Well-known shapes without their checkpoints: for benchmarks on machines that have no model at hand.

use super::architecture;
use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{Builder, Pool, PoolMode, Program};

/// A model's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// The name of the model that has it.
    pub name: &'static str,
    /// What decides the shape in its `config.json`.
    config: &'static str,
    /// Its pooling; a Normalize follows.
    pub pooling: PoolMode,
    /// The length at which the model truncates.
    pub max_seq_length: usize,
}

/// The layers of all-MiniLM-L12-v2 and of bge-small.
const MINILM_L12: &str = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 1536}"#;

/// All presets.
const PRESETS: [Preset; 11] = [
    preset(
        "all-MiniLM-L6-v2",
        PoolMode::Mean,
        256,
        r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
                    "num_attention_heads": 12, "intermediate_size": 1536}"#,
    ),
    preset("all-MiniLM-L12-v2", PoolMode::Mean, 128, MINILM_L12),
    preset("bge-small", PoolMode::Cls, 512, MINILM_L12),
    preset(
        "bert-base",
        PoolMode::Mean,
        512,
        r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
                    "num_attention_heads": 12, "intermediate_size": 3072}"#,
    ),
    preset(
        "bge-large",
        PoolMode::Cls,
        512,
        r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 1024, "num_hidden_layers": 24,
                    "num_attention_heads": 16, "intermediate_size": 4096}"#,
    ),
    preset(
        "all-mpnet-base-v2",
        PoolMode::Mean,
        384,
        r#"{"model_type": "mpnet", "vocab_size": 30527, "hidden_size": 768, "num_hidden_layers": 12,
                    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514}"#,
    ),
    preset(
        "xlm-r-base",
        PoolMode::Mean,
        512,
        r#"{"model_type": "xlm-roberta", "vocab_size": 250002, "hidden_size": 768, "num_hidden_layers": 12,
                    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514,
                    "type_vocab_size": 1, "layer_norm_eps": 1e-5}"#,
    ),
    preset(
        "deberta-v3-base",
        PoolMode::Cls,
        512,
        r#"{"model_type": "deberta-v2", "vocab_size": 128100, "hidden_size": 768, "num_hidden_layers": 12,
                    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512,
                    "position_biased_input": false, "type_vocab_size": 0, "relative_attention": true,
                    "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": true,
                    "pos_att_type": "p2c|c2p", "max_relative_positions": -1, "layer_norm_eps": 1e-7}"#,
    ),
    preset(
        "modernbert-base",
        PoolMode::Mean,
        8192,
        r#"{"model_type": "modernbert", "vocab_size": 50368, "hidden_size": 768, "num_hidden_layers": 22,
                    "num_attention_heads": 12, "intermediate_size": 1152}"#,
    ),
    preset(
        "nomic-embed-text-v1.5",
        PoolMode::Mean,
        8192,
        r#"{"model_type": "nomic_bert", "vocab_size": 30528, "n_embd": 768, "n_layer": 12, "n_head": 12,
                    "n_inner": 3072, "n_positions": 8192, "activation_function": "swiglu", "rotary_emb_base": 1000,
                    "layer_norm_epsilon": 1e-12, "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false}"#,
    ),
    preset(
        "Qwen3-Embedding-0.6B",
        PoolMode::LastToken,
        32_768,
        r#"{"model_type": "qwen3", "vocab_size": 151669, "hidden_size": 1024, "num_hidden_layers": 28,
                    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
                    "max_position_embeddings": 32768, "rope_theta": 1000000}"#,
    ),
];

const fn preset(name: &'static str, pooling: PoolMode, max_seq_length: usize, config: &'static str) -> Preset {
    Preset { name, config, pooling, max_seq_length }
}

impl Preset {
    /// All presets.
    pub fn all() -> &'static [Preset] {
        &PRESETS
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] with the known names.
    pub fn named(name: &str) -> Result<Preset> {
        PRESETS.into_iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
            Error::InvalidInput(format!("unknown preset '{name}'; known: {}", names.join(", ")))
        })
    }

    /// Its program, for sequences of at most `longest` tokens. [`RandomWeights`](crate::program::RandomWeights) gives it
    /// weights.
    ///
    /// # Panics
    /// Never: the configurations are constants, and a test builds each.
    pub fn program(&self, longest: usize) -> Program {
        self.build(longest).expect("a preset's configuration is a constant that a test builds")
    }

    /// How many token ids there are.
    ///
    /// # Panics
    /// Never, as [`Preset::program`].
    pub fn vocabulary(&self) -> usize {
        let vocabulary = self.config().and_then(|config| config.usize("vocab_size"));
        vocabulary.expect("a preset's configuration is a constant that a test reads")
    }

    fn config(&self) -> Result<JsonFile> {
        let keys = serde_json::from_str(self.config);
        let keys = keys.map_err(|error| Error::invalid_file(self.name, format!("not valid JSON: {error}")))?;
        Ok(JsonFile::from_object(self.name, keys))
    }

    fn build(&self, longest: usize) -> Result<Program> {
        let config = self.config()?;
        let mut b = Builder::new();
        b.set_limit(Some(longest));
        let x = (architecture(&config)?.backbone)(&mut b, &config)?;
        b.label("pooling");
        let embedding = b.pool(Pool { normalize: true, ..Pool::new(x, self.pooling) });
        Ok(b.finish(embedding, x).pooled_early())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_have_the_known_numbers_of_parameters() {
        // Published: 22.7 M, 33.4 M, 109 M and 335 M, poolers (hidden * (hidden + 1)) included, which are not used here.
        let parameters = |name| Preset::named(name).unwrap().program(512).parameters();
        assert_eq!(parameters("all-MiniLM-L6-v2"), 22_713_216 - 384 * 385);
        assert_eq!(parameters("bert-base"), 109_482_240 - 768 * 769);
        assert_eq!(parameters("bge-large"), 335_141_888 - 1024 * 1025);
        // Published: 278 M, 149 M, 137 M and 596 M; DeBERTa's 184 M, of which its table of distances is no weight of its own here.
        let millions = |name| parameters(name) / 1_000_000;
        let names =
            ["xlm-r-base", "modernbert-base", "nomic-embed-text-v1.5", "Qwen3-Embedding-0.6B", "deberta-v3-base"];
        assert_eq!(names.map(millions), [277, 149, 136, 595, 183]);
        assert!(Preset::named("bert").unwrap_err().to_string().contains("bert-base"));
    }

    #[test]
    fn the_norm_of_the_embeddings_and_the_last_normalisation_take_no_step() {
        let steps = |name, op| {
            let program = Preset::named(name).unwrap().program(512);
            program.steps.iter().filter(|step| step.op.name() == op).count()
        };
        assert_eq!(["embed", "norm", "pool", "normalize"].map(|op| steps("all-MiniLM-L6-v2", op)), [1, 12, 1, 0]);
        // Pre-norm: the residual begins with the sum itself. The last token is taken before the last layer's rest.
        assert_eq!(["embed", "norm", "normalize"].map(|op| steps("Qwen3-Embedding-0.6B", op) > 0), [true; 3]);
    }

    #[test]
    fn every_preset_is_built() {
        for preset in Preset::all() {
            let program = preset.build(preset.max_seq_length).unwrap();
            assert!(preset.vocabulary() > 30_000, "{}", preset.name);
            let table = program.max_positions().unwrap_or(usize::MAX);
            assert!(table >= preset.max_seq_length, "{}: {table} positions", preset.name);
        }
    }
}
