//! The options of each subcommand.

use super::shared::*;
use clap::Args;
use std::path::PathBuf;

/// `lexel encode`
#[derive(Debug, Args)]
pub struct EncodeCommand {
    /// Hub id (all-MiniLM-L6-v2, org/name) or folder of the model
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// Which texts.
    #[command(flatten)]
    pub input: InputsArgs,
    /// Where the embeddings go: .npy, .jsonl, .parquet or .safetensors, - for standard output, or FOLDER/ for a job
    ///
    /// A folder (a name that ends in /) makes a job of it: parts are written as they are computed, and the same command
    /// given again continues where it was. Several processes may work on one folder at the same time.
    ///
    /// An existing file is replaced once the new one is complete. The header of .npy holds the number of rows, so that into
    /// a pipe all of it is written at the end and held in memory until then: .jsonl streams.
    #[arg(long, short, value_name = "FILE|FOLDER/|-")]
    pub output: PathBuf,
    /// The format of the output, where its name does not say
    #[arg(long, value_name = "FORMAT")]
    pub output_format: Option<OutputFormat>,
    /// What goes before each text.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// What happens to each text.
    #[command(flatten)]
    pub embedding: EmbeddingArgs,
    /// The numbers of the output: float32, float16, int8, uint8, or one bit a dimension
    ///
    /// int8 and uint8 divide the range of each dimension into 256 steps. The ranges come from --ranges; else from the whole
    /// input, and then all embeddings are held in memory until its end. binary and ubinary are eight dimensions a byte.
    #[arg(long, value_name = "PRECISION", default_value = "float32", help_heading = "Embeddings",
          value_parser = ["float32", "float16", "int8", "uint8", "binary", "ubinary"])]
    pub precision: String,
    /// The ranges for int8 and uint8: a .npy file of float32 [2, dimensions], smallest and largest values
    #[arg(long, value_name = "FILE.npy", help_heading = "Embeddings")]
    pub ranges: Option<PathBuf>,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
    /// Job folders.
    #[command(flatten)]
    pub job: JobArgs,
    /// Texts a window: read, encoded and written at once
    #[arg(long, value_name = "N", default_value_t = crate::input::WINDOW_RECORDS, value_parser = positive, hide = true)]
    pub window: usize,
}

/// `lexel encode-sparse`
#[derive(Debug, Args)]
pub struct EncodeSparseCommand {
    /// Hub id (org/name) or folder of the sparse encoder
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// Which texts.
    #[command(flatten)]
    pub input: InputsArgs,
    /// Where the embeddings go: .jsonl or .parquet, - for standard output, or FOLDER/ for a job
    ///
    /// A folder (a name that ends in /) makes a job of it, as for `lexel encode`; a part that is interrupted starts over.
    ///
    /// An existing file is replaced once the new one is complete.
    #[arg(long, short, value_name = "FILE|FOLDER/|-")]
    pub output: PathBuf,
    /// The format of the output, where its name does not say: jsonl (as parts are) or parquet
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub output_format: Option<OutputFormat>,
    /// What goes before each text.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Keep at most N numbers of each embedding, the largest [default: as the model's files say, else all]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Embeddings")]
    pub max_active_dims: Option<usize>,
    /// Write tokens instead of their numbers: {"index": 0, "embedding": {"token": weight, ...}}, in .jsonl only
    #[arg(long, help_heading = "Embeddings")]
    pub tokens: bool,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
    /// Job folders.
    #[command(flatten)]
    pub job: JobArgs,
    /// Texts a window: read, encoded and written at once
    #[arg(long, value_name = "N", default_value_t = crate::input::WINDOW_RECORDS, value_parser = positive, hide = true)]
    pub window: usize,
}

/// `lexel encode-multi-vector`
#[derive(Debug, Args)]
pub struct EncodeMultiVectorCommand {
    /// Hub id (org/name) or folder of the model
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// Which texts.
    #[command(flatten)]
    pub input: InputsArgs,
    /// Where the embeddings go: .jsonl or .parquet, - for standard output, or FOLDER/ for a job
    ///
    /// A folder (a name that ends in /) makes a job of it, as for `lexel encode`, in parts of 1024 rows; a part that is interrupted
    /// starts over.
    ///
    /// An existing file is replaced once the new one is complete.
    #[arg(long, short, value_name = "FILE|FOLDER/|-")]
    pub output: PathBuf,
    /// The format of the output, where its name does not say: parquet (as parts are) or jsonl
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub output_format: Option<OutputFormat>,
    /// What goes before each text.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Divide each vector by its length: models do it themselves, as a rule
    #[arg(long, help_heading = "Embeddings")]
    pub normalize: bool,
    /// Keep about one of F vectors of each text, e.g. 2 or 1.5: those that are alike become their mean; the first stays
    #[arg(long, value_name = "F", value_parser = factor, help_heading = "Embeddings")]
    pub pool_factor: Option<f64>,
    /// The numbers of the output: float32 or float16
    #[arg(long, value_name = "PRECISION", default_value = "float32", help_heading = "Embeddings",
          value_parser = ["float32", "float16"])]
    pub precision: String,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
    /// Job folders.
    #[command(flatten)]
    pub job: JobArgs,
    /// Texts a window: read, encoded and written at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = positive, hide = true)]
    pub window: usize,
}

/// `lexel predict`
#[derive(Debug, Args)]
pub struct PredictCommand {
    /// Hub id (org/name) or folder of the cross-encoder
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// Which pairs.
    #[command(flatten)]
    pub input: PairsArgs,
    /// Where the scores go: .npy, .jsonl, .parquet or .safetensors, - for standard output, or FOLDER/ for a job
    ///
    /// A folder (a name that ends in /) makes a job of it, as for `lexel encode`.
    ///
    /// An existing file is replaced once the new one is complete. The header of .npy holds the number of rows, so that into
    /// a pipe all of it is written at the end and held in memory until then: .jsonl streams.
    #[arg(long, short, value_name = "FILE|FOLDER/|-")]
    pub output: PathBuf,
    /// The format of the output, where its name does not say
    #[arg(long, value_name = "FORMAT")]
    pub output_format: Option<OutputFormat>,
    /// How pairs are scored.
    #[command(flatten)]
    pub score: ScoreArgs,
    /// Turn the scores of each pair into probabilities; nothing for a model of one label
    #[arg(long, help_heading = "Scores")]
    pub softmax: bool,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
    /// Job folders.
    #[command(flatten)]
    pub job: JobArgs,
    /// Pairs a window: read, scored and written at once
    #[arg(long, value_name = "N", default_value_t = crate::input::WINDOW_RECORDS, value_parser = positive, hide = true)]
    pub window: usize,
}

/// `lexel merge`
#[derive(Debug, Args)]
pub struct MergeCommand {
    /// The folders of a job, or of its shards
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// The file: its ending is that of the parts
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// `lexel rank`
#[derive(Debug, Args)]
pub struct RankCommand {
    /// Hub id (org/name) or folder of the cross-encoder, or of a model of late interaction
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// What the texts should answer
    #[arg(long, value_name = "TEXT")]
    pub query: String,
    /// Which texts.
    #[command(flatten)]
    pub input: InputArgs,
    /// Print only the best N texts
    #[arg(long, value_name = "N", value_parser = positive)]
    pub top_k: Option<usize>,
    /// How texts are scored.
    #[command(flatten)]
    pub score: ScoreArgs,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
}

/// `lexel similarity`
#[derive(Debug, Args)]
pub struct SimilarityCommand {
    /// Hub id (all-MiniLM-L6-v2, org/name) or folder of the model
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// The texts to compare, each with each
    #[arg(value_name = "TEXT", required_unless_present = "input")]
    pub texts: Vec<String>,
    /// More texts, from a file.
    #[command(flatten)]
    pub input: OptionalInputArgs,
    /// What goes before each text.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// What happens to each text.
    #[command(flatten)]
    pub embedding: EmbeddingArgs,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
}

/// `lexel info`
#[derive(Debug, Args)]
pub struct InfoCommand {
    /// Hub id (all-MiniLM-L6-v2, org/name) or folder of the model
    pub model: String,
    /// Print the model as the program that lexel runs, step by step
    #[arg(long)]
    pub program: bool,
    /// Where it comes from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `lexel devices`
#[derive(Debug, Args)]
pub struct DevicesCommand {
    /// Measure the kernels of this GPU: gpu, gpu0, gpu1, ..., or part of its name
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "gpu")]
    pub tune: Option<String>,
}

/// `lexel download`
#[derive(Debug, Args)]
pub struct DownloadCommand {
    /// Hub id (all-MiniLM-L6-v2, org/name)
    pub model: String,
    /// Where it comes from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `lexel bench`
#[derive(Debug, Args)]
pub struct BenchCommand {
    /// Hub id (all-MiniLM-L6-v2, org/name) or folder of the model
    #[arg(long, short, value_name = "MODEL", requires = "input")]
    pub model: Option<String>,
    /// Which texts.
    #[command(flatten)]
    pub input: OptionalInputArgs,
    /// A model's shape, with random weights: all-MiniLM-L6-v2, bert-base, ... (any other name lists them)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "input", "adapter", "column", "no_header", "input_format", "SourceArgs", "PromptArgs", "EmbeddingArgs"])]
    pub preset: Option<String>,
    /// Tokens a text: short (28 on average), mixed (8 to 512, most of them short), long (256), or a number
    #[arg(long, value_name = "LENGTHS", conflicts_with_all = ["model", "input"], default_value = "short")]
    pub lengths: String,
    /// How many texts [default: all of the file; with --preset, as many as have 65,536 tokens]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub texts: Option<usize>,
    /// How often to measure
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub repeats: usize,
    /// Show where the time of one batch goes, by op, instead of timing all texts
    #[arg(long, conflicts_with_all = ["repeats", "PromptArgs", "EmbeddingArgs"])]
    pub profile: bool,
    /// What goes before each text.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// What happens to each text.
    #[command(flatten)]
    pub embedding: EmbeddingArgs,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
}
