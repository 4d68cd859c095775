//! Everything that goes to standard error: notes, errors, the log, progress bars, the final report. A line that is printed
//! while a bar is shown goes above it. A standard error that cannot be written is nobody's loss.

use crate::failure::Failure;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use lexel::checkpoint::DownloadProgress;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static QUIET: AtomicBool = AtomicBool::new(false);

/// The bar that is shown.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Starts the log. `quiet` leaves only errors and warnings of lost rows, and no bars.
pub fn start(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
    // Which device `auto` took, and why, is always told; and what a first load may take long for.
    let default = if quiet { "error" } else { "warn,lexel::device=info,lexel::cpu::calibrate=info" };
    let log = env_logger::Env::default().default_filter_or(default);
    env_logger::Builder::from_env(log)
        .format(|out, record| match record.level() {
            log::Level::Error => writeln!(out, "lexel: {}", record.args()),
            log::Level::Warn => writeln!(out, "lexel: warning: {}", record.args()),
            log::Level::Info => writeln!(out, "lexel: {}", record.args()),
            _ => writeln!(
                out,
                "lexel: {}: {}: {}",
                record.level().as_str().to_lowercase(),
                record.target(),
                record.args()
            ),
        })
        .target(env_logger::Target::Pipe(Box::new(AboveBar)))
        .init();
}

/// An error: shown whatever the options say.
pub fn error(message: &str) {
    print(&format!("lexel: {message}"));
}

/// Something that the user must know to trust the result: shown whatever the options say.
pub fn warning(message: &str) {
    print(&format!("lexel: warning: {message}"));
}

/// A line for people.
pub fn note(message: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        print(message);
    }
}

/// The report of what was done: a JSON line (with `json`; on stdout unless that holds data), or else `text` as a note.
pub fn report(text: &str, fields: Map<String, Value>, json: bool, stdout_is_data: bool) -> Result<(), Failure> {
    match (json, stdout_is_data) {
        (false, _) => note(text),
        (true, true) => print(&Value::Object(fields).to_string()),
        (true, false) => stdout(&format!("{}\n", Value::Object(fields)))?,
    }
    Ok(())
}

/// A text on one line: control characters as spaces.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Data for the user or the next program.
pub fn stdout(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::writing_stdout(&error))
}

fn print(line: &str) {
    let write = || {
        let _ = writeln!(io::stderr(), "{line}");
    };
    match &*bar() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Shows a bar of `length` units, or a spinner where the length is unknown. On a terminal only.
fn show(length: Option<u64>, template: &str) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let new = match length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::no_length(),
    };
    // A template that indicatif refuses is our mistake, and a bar in its own style is good enough then.
    new.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    new.enable_steady_tick(Duration::from_millis(200));
    *bar() = Some(new);
}

fn hide() {
    if let Some(bar) = bar().take() {
        bar.finish_and_clear();
    }
}

fn bar() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the bar of a job.
pub fn show_job_bar() {
    show(Some(1000), "{wide_bar} {percent:>3}%  {msg}");
}

/// Moves it to a share of the work; `left` are seconds.
pub fn set_job_bar(share: f64, message: String, left: Option<f64>) {
    if let Some(bar) = &*bar() {
        bar.set_position((share * 1000.0) as u64);
        let left = left.map(|left| format!(", {} left", HumanDuration(Duration::from_secs_f64(left.min(1e9)))));
        bar.set_message(message + &left.unwrap_or_default());
    }
}

/// Removes it.
pub fn hide_bar() {
    hide();
}

/// The bar of a model's work: bytes of the input, which are in proportion to it, unlike texts. Removed when dropped.
pub struct WorkBar(());

impl WorkBar {
    /// Shows it; `bytes` is the size of the input, where it is known.
    pub fn new(bytes: Option<u64>) -> WorkBar {
        show(
            bytes,
            match bytes {
                Some(_) => "{wide_bar} {percent:>3}%  {msg}",
                None => "{spinner} {msg}  {elapsed}",
            },
        );
        WorkBar(())
    }

    /// Moves it. `noun` is what is counted.
    pub fn set(bytes: u64, count: usize, noun: &str, seconds: f64) {
        if let Some(bar) = &*bar() {
            bar.set_position(bytes);
            let left = match bar.length() {
                // By bytes, not by texts: the longest go first.
                Some(length) if bytes > 0 => {
                    let left = seconds * length.saturating_sub(bytes) as f64 / bytes as f64;
                    format!(", {} left", HumanDuration(Duration::from_secs_f64(left)))
                }
                _ => String::new(),
            };
            bar.set_message(format!("{count} {noun}, {:.0} {noun}/s{left}", count as f64 / seconds.max(1e-3)));
        }
    }
}

impl Drop for WorkBar {
    fn drop(&mut self) {
        hide();
    }
}

/// The bar of a download, shown once there is something to download.
#[derive(Default)]
pub struct DownloadBar(());

impl DownloadBar {
    /// What the library calls.
    pub fn callback(&self) -> impl Fn(&DownloadProgress) + Send + Sync + 'static + use<> {
        |progress: &DownloadProgress| {
            if bar().is_none() {
                show(Some(progress.total), "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}");
            }
            if let Some(bar) = &*bar() {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(progress.file.clone());
            }
        }
    }

    /// The same, shared, as the options of a source take it.
    pub fn shared_callback(&self) -> Arc<dyn Fn(&DownloadProgress) + Send + Sync> {
        Arc::new(self.callback())
    }

    /// Removes it.
    pub fn finish(&self) {
        hide();
    }
}

/// The log's way to stderr.
struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        print(String::from_utf8_lossy(bytes).trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
