//! The command line as the user wrote it. What it means is decided in [`config`](crate::config).

mod commands;
mod shared;

pub use commands::*;
pub use shared::*;

use clap::{Parser, Subcommand};

const EXIT_STATUSES: &str = "\
Exit status:
  0    success (also when the reader of a pipe has gone away)
  2    usage: unknown option, or a value that makes no sense for this model
  65   bad data: invalid UTF-8, JSON or CSV, missing column, invalid or unsupported model files
  66   no input: file or model not found or not readable
  69   no such device, or the device failed
  74   reading or writing failed (disk full, read-only, ...)
  75   a job is not complete: the same command continues it
  130  interrupted

Environment:
  LEXEL_DEVICE             what `--device auto` takes: anything else that --device may be
  LEXEL_INSTRUCTIONS       the most that the CPU may use: amx, avx512, avx2, neon or portable [default: what it has]
  LEXEL_CACHE_DIR          where shaders and int8 weights are kept, or off [default: ~/.cache/lexel]
  HF_HUB_CACHE, HF_HOME    the cache of the Hugging Face hub;  HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE as usual
  RUST_LOG                 log level on standard error: error, warn (default), info, debug";

/// sentence-transformers on any GPU: texts to embeddings, pairs of texts to scores
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
    /// No messages but errors and the number of rows without a result, and no progress bar
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
    /// behind. A second process that would write the same file at the same time is refused.
    #[command(after_long_help = EXIT_STATUSES)]
    Encode(Box<EncodeCommand>),
    /// Encode a file of texts into a file of sparse embeddings (SPLADE and its like)
    ///
    /// Each text becomes a few weighted tokens, of which some need not be in it. Reads, encodes and writes as `lexel encode` does.
    /// The model's files name it as a sparse encoder, or it is a masked language model.
    #[command(after_long_help = EXIT_STATUSES)]
    EncodeSparse(Box<EncodeSparseCommand>),
    /// Encode a file of texts into a file with a vector for each of their tokens (ColBERT and its like)
    ///
    /// Reads, encodes and writes as `lexel encode` does. Queries (--query) and documents (--document) differ: each have a length of
    /// their own, queries are filled up with mask tokens, documents lose punctuation, as the model's files say.
    #[command(after_long_help = EXIT_STATUSES)]
    EncodeMultiVector(Box<EncodeMultiVectorCommand>),
    /// Score a file of pairs of texts with a cross-encoder
    ///
    /// Reads pairs window by window, scores them and writes the scores in the order of the pairs, with memory that does not
    /// grow with the file. The output is written aside, as for `lexel encode`: an existing file is replaced only once the
    /// new one is complete, and on an error or Ctrl-C nothing is left behind.
    #[command(after_long_help = EXIT_STATUSES)]
    Predict(Box<PredictCommand>),
    /// Join the parts of a job folder into one file
    ///
    /// Checks that every part is there and every row has a result or a reject, and writes one file of the parts' format;
    /// rejects go to FILE.rejects.jsonl. Several folders hold the shards of one job.
    #[command(after_long_help = EXIT_STATUSES)]
    Merge(MergeCommand),
    /// Order texts by how well they answer a query, with a cross-encoder or a model of late interaction
    ///
    /// Prints a line a text, the best first: its score, a tab, the text (a line end or tab in it as a space). With --json an
    /// array of {"corpus_id", "score", "text"}: corpus_id is the text's place in the input, counted from 0, and the text is
    /// as it was read. Equal scores keep the order of the input. All texts are held in memory.
    Rank(Box<RankCommand>),
    /// Print how alike texts are, as a matrix
    Similarity(SimilarityCommand),
    /// List the devices, and say which one `auto` takes and why
    ///
    /// With --tune, measure a GPU's kernels instead. lexel does so by itself at a GPU's first use, for 300 ms beside compiling them; this
    /// measures all of them, prints the rates, and keeps the fastest for the next starts, in a file that may be edited.
    Devices(DevicesCommand),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
