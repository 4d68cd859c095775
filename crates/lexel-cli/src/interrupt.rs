//! Ctrl-C (and SIGTERM, SIGHUP): a running encode finishes the batch in flight, saves what it can and cleans up; anything
//! else ends at once, and so does an encode at the second time.

use crate::failure::INTERRUPTED;
use crate::{messages, process};
use lexel::Cancel;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the handler must know.
struct State {
    /// Set while something runs that looks at it.
    cancel: Option<Cancel>,
    /// A file to remove when the program must end at once.
    temporary: Option<PathBuf>,
}

static STATE: Mutex<State> = Mutex::new(State { cancel: None, temporary: None });

/// Begins to listen to those signals that the parent has not made this process ignore. Where that is refused, Ctrl-C simply
/// ends the program.
pub fn listen() {
    if let Err(error) = process::keep_ignored_signals(|| ctrlc::set_handler(interrupted)) {
        log::warn!("Ctrl-C will not be handled: {error}");
    }
}

/// The flag that Ctrl-C sets from now on, instead of ending the program at once.
pub fn cancel_flag() -> Cancel {
    state().cancel.get_or_insert_with(Cancel::new).clone()
}

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    state().cancel.as_ref().is_some_and(Cancel::is_cancelled)
}

/// Which file to remove when the program must end at once.
pub fn set_temporary(path: Option<PathBuf>) {
    state().temporary = path;
}

/// Runs on a thread of its own. The first time it asks, the second time it ends the program.
fn interrupted() {
    let state = state();
    if let Some(cancel) = &state.cancel
        && !cancel.is_cancelled()
    {
        cancel.cancel();
        messages::note("interrupted: finishing the batch in flight (once more ends at once)");
        return;
    }
    if let Some(path) = &state.temporary {
        let _ = std::fs::remove_file(path);
    }
    messages::error("interrupted");
    std::process::exit(INTERRUPTED.into());
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
