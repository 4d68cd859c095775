//! The command line as the user wrote it. What it means is decided in [`config`](crate::config).

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_STATUSES: &str = "\
Exit status:
  0    success (also when the reader of a pipe has gone away)
  2    usage: unknown option, or a value that makes no sense for this model
  65   bad data: invalid UTF-8 or JSON, missing column, invalid or unsupported model files
  66   no input: file or model not found or not readable
  69   no such device, or the device failed
  74   reading or writing failed (disk full, read-only, ...)
  130  interrupted

Environment:
  LEXEL_DEVICE             what `--device auto` takes: cpu, gpu, or part of an adapter's name
  HF_HUB_CACHE, HF_HOME    the cache of the Hugging Face hub;  HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE as usual
  RUST_LOG                 log level on standard error: error, warn (default), info, debug";

/// sentence-transformers on any GPU: texts to embeddings
///
/// Runs sentence-transformers models straight from their files, on any GPU through Vulkan, Metal or DX12, or on the CPU.
/// Data goes to standard output or into files, messages go to standard error.
#[derive(Debug, Parser)]
#[command(name = "lexel", version, after_long_help = EXIT_STATUSES, max_term_width = 120, arg_required_else_help = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
    /// One line of JSON instead of text: results on standard output, a report on standard error where that holds data
    #[arg(long, global = true)]
    pub json: bool,
    /// No messages but errors, and no progress bar
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Encode a file of texts into a file of embeddings
    ///
    /// Reads texts window by window, encodes them and writes the embeddings in the order of the texts, with memory that
    /// does not grow with the file. The output is written aside, as .NAME.lexel-tmp in the same folder, and renamed when it
    /// is complete: an existing file of that name is replaced then, and only then. On an error or Ctrl-C nothing is left
    /// behind.
    #[command(after_long_help = EXIT_STATUSES)]
    Encode(Box<EncodeCommand>),
    /// Print how alike texts are, as a matrix
    Similarity(SimilarityCommand),
    /// List the devices, and say which one `auto` takes and why
    Devices,
    /// Describe a model, from its files alone
    Info(InfoCommand),
    /// Download a model into the cache and print its folder
    Download(DownloadCommand),
    /// Measure how fast this machine encodes
    ///
    /// Times the whole encode, from strings to embeddings, of a model on a file of texts; or, with --preset, a model's shape
    /// with random weights on random token ids, for which no files are needed. A warm-up goes first; the rates are those of
    /// the median repeat. Equal texts are computed once: `tokens` counts what was computed. `p50_ms` and `p95_ms` are the
    /// latency of one short text, `cpu_s` is the CPU time of all threads for one repeat.
    Bench(BenchCommand),
}

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
    /// auto, cpu, gpu, or part of an adapter's name (see `lexel devices`)
    ///
    /// auto takes a real GPU if there is one, else the CPU; a software adapter only runs when it is named.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// What to compute in; f16 needs a GPU that has it
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = ["f32", "f16"])]
    pub dtype: String,
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
    /// Truncate texts to N tokens, special tokens included [default: the model's own maximum]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Model")]
    pub max_seq_length: Option<usize>,
    /// What it runs on.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What happens to each text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct EmbeddingArgs {
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
    /// Divide each embedding by its length, after truncation
    #[arg(long)]
    pub normalize: bool,
    /// Keep only the first N dimensions of each embedding
    #[arg(long, value_name = "N", value_parser = positive)]
    pub truncate_dim: Option<usize>,
}

/// Formats of input files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text a line; an empty line is an empty text
    Txt,
    /// A JSON object (see --column) or a JSON string a line
    Jsonl,
}

/// Formats of output files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// NumPy's array file: float32 [texts, dimensions], or int8 / uint8
    Npy,
    /// {"index": 0, "embedding": [...]} a line
    Jsonl,
}

/// Which texts to read.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// The file of texts: .txt or .jsonl, or - for standard input
    #[arg(long, short, value_name = "FILE|-", required = true)]
    pub input: PathBuf,
    /// The key that holds the text in each line of a .jsonl file [default: text]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// The format of the input, where its name does not say
    #[arg(long, value_name = "FORMAT")]
    pub input_format: Option<InputFormat>,
}

/// The same, where texts may come from elsewhere.
#[derive(Debug, Args)]
pub struct OptionalInputArgs {
    /// The file of texts: .txt or .jsonl, or - for standard input
    #[arg(long, short, value_name = "FILE|-")]
    pub input: Option<PathBuf>,
    /// The key that holds the text in each line of a .jsonl file [default: text]
    #[arg(long, value_name = "NAME", requires = "input")]
    pub column: Option<String>,
    /// The format of the input, where its name does not say
    #[arg(long, value_name = "FORMAT", requires = "input")]
    pub input_format: Option<InputFormat>,
}

/// `lexel encode`
#[derive(Debug, Args)]
pub struct EncodeCommand {
    /// Hub id (all-MiniLM-L6-v2, org/name) or folder of the model
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// Which texts.
    #[command(flatten)]
    pub input: InputArgs,
    /// Where the embeddings go: .npy or .jsonl, or - for standard output
    ///
    /// An existing file is replaced once the new one is complete. The header of .npy holds the number of rows, so that into
    /// a pipe all of it is written at the end and held in memory until then: .jsonl streams.
    #[arg(long, short, value_name = "FILE|-")]
    pub output: PathBuf,
    /// The format of the output, where its name does not say
    #[arg(long, value_name = "FORMAT")]
    pub output_format: Option<OutputFormat>,
    /// What happens to each text.
    #[command(flatten)]
    pub embedding: EmbeddingArgs,
    /// The numbers of the output: float32, int8, uint8, or one bit a dimension
    ///
    /// int8 and uint8 divide the range of each dimension into 256 steps. The ranges come from --ranges; else from the whole
    /// input, and then all embeddings are held in memory until its end. binary and ubinary are eight dimensions a byte.
    #[arg(long, value_name = "PRECISION", default_value = "float32", help_heading = "Embeddings",
          value_parser = ["float32", "int8", "uint8", "binary", "ubinary"])]
    pub precision: String,
    /// The ranges for int8 and uint8: a .npy file of float32 [2, dimensions], smallest and largest values
    #[arg(long, value_name = "FILE.npy", help_heading = "Embeddings")]
    pub ranges: Option<PathBuf>,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
    /// Texts a window: read, encoded and written at once
    #[arg(long, value_name = "N", default_value_t = crate::input::WINDOW_TEXTS, value_parser = positive, hide = true)]
    pub window: usize,
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
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "input"])]
    pub preset: Option<String>,
    /// Tokens a text: short (28 on average), mixed (8 to 512, most of them short), long (256), or a number
    #[arg(long, value_name = "LENGTHS", requires = "preset", default_value = "short")]
    pub lengths: String,
    /// How many texts [default: all of the file; with --preset, as many as have 65,536 tokens]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub texts: Option<usize>,
    /// How often to measure
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub repeats: usize,
    /// What happens to each text.
    #[command(flatten)]
    pub embedding: EmbeddingArgs,
    /// The model on its device.
    #[command(flatten)]
    pub on: ModelArgs,
}

/// A number of at least one.
fn positive(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(0) => Err("must be at least 1".to_string()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
