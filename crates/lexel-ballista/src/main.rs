//! The program `lexel-ballista`: a scheduler, executors, and the client that has them embed a data set.

use clap::{Parser, Subcommand};
use lexel_ballista::client::Client;
use lexel_ballista::cluster::{Executor, Scheduler};
use lexel_ballista::dataset::{DatasetSource, Settings};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Embeds Parquet data sets on a cluster of Apache DataFusion Ballista.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the scheduler: one for a cluster
    Scheduler {
        /// The address to listen on
        #[arg(long, default_value = "127.0.0.1:50050")]
        listen: SocketAddr,
        /// The name under which executors reach it
        #[arg(long, default_value = "127.0.0.1")]
        host: String,
        /// Seconds of silence after which an executor is lost
        #[arg(long, default_value_t = 15)]
        executor_timeout: u64,
    },
    /// Runs an executor: one for a device (LEXEL_DEVICE chooses it)
    Executor {
        /// Host and port of the scheduler
        #[arg(long, default_value = "127.0.0.1:50050", value_parser = host_and_port)]
        scheduler: (String, u16),
        /// The address to listen on
        #[arg(long, default_value = "127.0.0.1")]
        bind: IpAddr,
        /// The name under which scheduler and clients reach it
        #[arg(long, default_value = "127.0.0.1")]
        host: String,
        /// The port for results
        #[arg(long, default_value_t = 50051)]
        port: u16,
        /// The port for tasks
        #[arg(long, default_value_t = 50052)]
        grpc_port: u16,
        /// Parts at once
        #[arg(long, default_value_t = 2)]
        slots: usize,
        /// Seconds between signs of life
        #[arg(long, default_value_t = 3)]
        heartbeat: u64,
    },
    /// Embeds a data set into a job folder, and continues what is there
    Embed {
        /// The scheduler
        #[arg(long, default_value = "df://127.0.0.1:50050")]
        scheduler: String,
        /// A model's id, or its folder
        #[arg(long)]
        model: String,
        /// A branch, tag or commit of the hub's repository
        #[arg(long)]
        revision: Option<String>,
        /// Parquet files, or folders of them
        #[arg(long, required = true, num_args = 1..)]
        input: Vec<PathBuf>,
        /// The job's folder, which all machines see under this path
        #[arg(long)]
        output: PathBuf,
        /// The column of texts
        #[arg(long, default_value = "text")]
        text_column: String,
        /// A column to keep
        #[arg(long)]
        id_column: Option<String>,
        /// Divide each embedding by its L2 norm
        #[arg(long)]
        normalize: bool,
        /// The most rows of a part
        #[arg(long, default_value_t = 16384)]
        part_rows: u64,
        /// Seconds without a new part after which the query is made again
        #[arg(long, default_value_t = 600)]
        stall: u64,
    },
}

fn main() -> ExitCode {
    let filter = "warn,lexel=info,lexel_ballista=info,ballista_scheduler=info,ballista_executor=info";
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .format_timestamp_millis()
        .init();
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lexel-ballista: {error}");
            // EX_TEMPFAIL, as `lexel encode`: the same command continues the job.
            let incomplete = matches!(error.downcast_ref(), Some(lexel::Error::Incomplete(_)));
            ExitCode::from(if incomplete { 75 } else { 1 })
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Scheduler { listen, host, executor_timeout } => {
            runtime.block_on(Scheduler { listen, host, executor_timeout }.run())?;
        }
        Command::Executor { scheduler, bind, host, port, grpc_port, slots, heartbeat } => {
            runtime.block_on(Executor { scheduler, bind, host, port, grpc_port, slots, heartbeat }.run())?;
        }
        Command::Embed {
            scheduler,
            model,
            revision,
            input,
            output,
            text_column,
            id_column,
            normalize,
            part_rows,
            stall,
        } => {
            let settings = Settings { model, revision, text_column, id_column, normalize };
            let source = DatasetSource::plan(&input, settings, part_rows)?;
            let client = Client::begin(&scheduler, &source, &output, Duration::from_secs(stall))?;
            let summary = runtime.block_on(client.run())?;
            let (path, devices) = (output.display(), summary.devices.iter().map(String::as_str).collect::<Vec<_>>());
            println!(
                "{} texts, {} rejects, {} parts in {path}; {:.1} s of work on {}",
                summary.rows,
                summary.rejected,
                summary.parts,
                summary.work_seconds,
                devices.join(", ")
            );
        }
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_string(), port.parse().ok()?)));
    parsed.ok_or_else(|| format!("'{text}': give HOST:PORT"))
}
