//! `lexel download`: a model into the cache.

use crate::args::DownloadCommand;
use crate::config;
use crate::failure::Failure;
use crate::messages::{self, DownloadBar};
use lexel::checkpoint;
use serde_json::json;

/// Runs the subcommand.
pub fn run(args: &DownloadCommand, json: bool) -> Result<(), Failure> {
    let bar = DownloadBar::default();
    let mut source = config::source(&args.source);
    source.progress = Some(bar.shared_callback());
    let downloaded = checkpoint::download(&args.model, &source);
    bar.finish();
    let folder = downloaded?;
    match json {
        true => messages::stdout(&format!("{}\n", json!({"model": args.model, "folder": folder}))),
        false => messages::stdout(&format!("{}\n", folder.display())),
    }
}
