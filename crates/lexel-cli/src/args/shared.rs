//! Groups of options that several subcommands have.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use lexel::{Activation, Dtype};
use std::path::PathBuf;

/// Where a model comes from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct SourceArgs {
    /// A branch, tag or commit of the model's repository [default: main]
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// Use the cache only, never the network
    #[arg(long)]
    pub offline: bool,
    /// The hub's cache folder [default: that of the Python library]
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
}

/// What computes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// auto, cpu, gpu, gpu0, gpu1, ..., part of an adapter's name (see `lexel devices`), or several: gpu0,gpu1,cpu
    ///
    /// auto takes a real GPU if there is one that can run the model, else the CPU; a software adapter only runs when it is named.
    /// dx12 is a GPU through DX12 where Vulkan has it, too. Of several devices, each takes the next batch when it has room; if one
    /// fails, the others go on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// What to compute in; f16 needs a GPU that has it, or the CPU, which stores weights in it; bf16 needs the CPU
    ///
    /// The CPU computes in f32 with weights in 16 bits, in half the memory and at about the same speed; a single text is sooner done.
    /// With AMX, bf16 is computed in, two to three times as fast.
    #[arg(long, value_name = "DTYPE", default_value = "f32",
          value_parser = PossibleValuesParser::new(Dtype::ALL.map(Dtype::name)))]
    pub dtype: String,
    /// Someone works at this machine: queue no more than 20 ms of work on a GPU, so that no frame is late; slower
    ///
    /// Without it, 100 ms. How long work takes is known from the batches before. On the CPU it changes nothing.
    #[arg(long)]
    pub interactive: bool,
    /// Tokens a batch [default: what suits the device]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_tokens: Option<usize>,
}

/// A model on a device.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Where it comes from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Truncate texts (or pairs) to N tokens, special tokens included [default: the model's own maximum]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Model", visible_alias = "max-length")]
    pub max_seq_length: Option<usize>,
    /// Merge a LoRA adapter: a task of the model's own (`retrieval.query` of jina-embeddings-v3), a folder of PEFT's, or an id
    ///
    /// A folder is looked for by its path, then inside the model's folder; it has adapter_config.json and
    /// adapter_model.safetensors. So has a repository of the hub, of which it may be the id.
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub adapter: Option<String>,
    /// What it runs on.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What goes before each text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct PromptArgs {
    /// Text to put before every text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt_name", "query", "document"])]
    pub prompt: Option<String>,
    /// The name of one of the model's prompts, to put before every text
    #[arg(long, value_name = "NAME", conflicts_with_all = ["query", "document"])]
    pub prompt_name: Option<String>,
    /// The texts are search queries: use the model's prompt for them
    #[arg(long, conflicts_with = "document")]
    pub query: bool,
    /// The texts are documents to be found: use the model's prompt for them
    #[arg(long)]
    pub document: bool,
}

/// What happens to each text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct EmbeddingArgs {
    /// Divide each embedding by its length, after truncation
    #[arg(long)]
    pub normalize: bool,
    /// Keep only the first N dimensions of each embedding
    #[arg(long, value_name = "N", value_parser = positive)]
    pub truncate_dim: Option<usize>,
}

/// How a cross-encoder scores.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scores")]
pub struct ScoreArgs {
    /// Text to put before the first text of every pair
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    pub prompt: Option<String>,
    /// The name of one of the model's prompts, to put before the first text of every pair
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// What makes scores of the model's logits: identity, sigmoid, tanh, ... (any other name lists them)
    /// [default: the model's own, see `lexel info`]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Activation::ALL.map(Activation::name)),
          hide_possible_values = true)]
    pub activation: Option<String>,
}

/// Formats of input files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text a line; an empty line is an empty text
    Txt,
    /// A JSON object a line, or the bare text, a string (for pairs, an array of two); empty lines are skipped
    Jsonl,
    /// Columns separated by tabs: a line is a record, and a quote is a character like any other
    Tsv,
    /// Columns separated by commas: a field in double quotes may hold commas and line ends; empty lines are skipped
    Csv,
    /// Apache Parquet, with the text in a column of strings
    Parquet,
}

/// Formats of output files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// NumPy's array file: float32 [texts, dimensions], or int8 / uint8; for scores float32 [pairs] or [pairs, labels]
    Npy,
    /// {"index": 0, "embedding": [...]} a line; for scores {"index": 0, "score": ...} or {"index": 0, "scores": {LABEL: ...}}; for
    /// sparse embeddings {"index": 0, "embedding": {"indices": [...], "values": [...]}}; for several vectors a text
    /// {"index": 0, "embedding": [[...], ...]}
    Jsonl,
    /// Apache Parquet: the row's number, the kept columns, and a list of fixed size; for sparse embeddings a struct of two lists;
    /// for several vectors a text a list of them
    Parquet,
    /// A tensor `embeddings` (or `scores`), and the rows' numbers as `index`
    Safetensors,
}

/// How the input is written.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// The format of the input, where its name does not say
    #[arg(long, value_name = "FORMAT", requires = "input")]
    pub input_format: Option<InputFormat>,
    /// The first line of a .tsv or .csv file is data: columns have numbers, from 1, instead of names
    #[arg(long, requires = "input")]
    pub no_header: bool,
}

/// Which column of the input to read.
#[derive(Debug, Args)]
pub struct ColumnArgs {
    /// The column of a .tsv or .csv file, or the key of a .jsonl file, that holds the text
    /// [default: text; with --no-header, 1]
    #[arg(long, value_name = "NAME", requires = "input")]
    pub column: Option<String>,
    /// How the input is written.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Which texts to read.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// The file of texts: .txt, .jsonl, .tsv, .csv or .parquet, a folder or pattern of them, or - for standard input
    #[arg(long, short, value_name = "FILE|-", required = true)]
    pub input: PathBuf,
    /// Which column of it.
    #[command(flatten)]
    pub column: ColumnArgs,
}

/// Which texts to read, from any number of files.
#[derive(Debug, Args)]
pub struct InputsArgs {
    /// The files of texts: .txt, .jsonl, .tsv, .csv or .parquet; folders and patterns of them; or - for standard input
    ///
    /// All files have one format. Of a folder, all files with such an ending are read, in the order of their names. A job
    /// keeps standard input in its folder, and can be continued without it (< /dev/null).
    #[arg(long, short, value_name = "FILE|FOLDER|-", required = true, num_args = 1..)]
    pub input: Vec<PathBuf>,
    /// Which column of it.
    #[command(flatten)]
    pub column: ColumnArgs,
}

/// The same, where texts may come from elsewhere.
#[derive(Debug, Args)]
pub struct OptionalInputArgs {
    /// The file of texts: .txt, .jsonl, .tsv, .csv or .parquet, a folder or pattern of them, or - for standard input
    #[arg(long, short, value_name = "FILE|-")]
    pub input: Option<PathBuf>,
    /// Which column of it.
    #[command(flatten)]
    pub column: ColumnArgs,
}

/// Which pairs to read.
#[derive(Debug, Args)]
pub struct PairsArgs {
    /// The files of pairs: .jsonl, .tsv, .csv or .parquet; folders and patterns of them; or - for standard input
    ///
    /// All files have one format. Of a folder, all files with such an ending are read, in the order of their names. A job
    /// keeps standard input in its folder, and can be continued without it (< /dev/null).
    #[arg(long, short, value_name = "FILE|FOLDER|-", required = true, num_args = 1..)]
    pub input: Vec<PathBuf>,
    /// The two columns of a .tsv or .csv file, or keys of a .jsonl file, that hold the texts of a pair
    /// [default: text_a,text_b; with --no-header, 1,2]
    #[arg(long, value_name = "A,B")]
    pub columns: Option<String>,
    /// How the input is written.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Inputs and job folders: of `encode` and `predict`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Job")]
pub struct JobArgs {
    /// Rows a part of the job folder [default: 16384, or 1024 of several vectors each]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub part_rows: Option<usize>,
    /// Only part of the job: shard I of N, for machines that share no storage (see `lexel merge`)
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
    /// Columns to copy from the input into .parquet and .jsonl parts
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    pub keep_columns: Vec<String>,
    /// The column that identifies a row: kept, before all others
    #[arg(long, value_name = "NAME")]
    pub id_column: Option<String>,
    /// What to do with a row that cannot be read: end the job; leave it out and list it in _rejects.jsonl; or, for invalid
    /// UTF-8, put U+FFFD in its place [default: skip]
    #[arg(long, value_name = "WHAT")]
    pub on_invalid: Option<OnInvalid>,
}

impl JobArgs {
    /// The first of its options that was given: a single file of output takes none of them.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            (self.part_rows.is_some(), "--part-rows"),
            (self.shard.is_some(), "--shard"),
            (!self.keep_columns.is_empty(), "--keep-columns"),
            (self.id_column.is_some(), "--id-column"),
            (self.on_invalid.is_some(), "--on-invalid"),
        ];
        options.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// What becomes of rows that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnInvalid {
    /// The job ends.
    Fail,
    /// The row is a reject.
    Skip,
    /// Invalid UTF-8 is replaced; what else is wrong makes a reject.
    Replace,
}

/// How many vectors become one.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor >= 1.0 && factor.is_finite() => Ok(factor),
        _ => Err("not a number of at least 1".to_string()),
    }
}

/// A number of at least one.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(0) => Err("must be at least 1".to_string()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_string()),
    }
}
