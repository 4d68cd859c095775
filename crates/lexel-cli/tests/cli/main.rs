//! The program as its users run it: the built binary, tiny models, files and pipes. What has links, modes of files, signals and
//! devices is for Unix only.

mod commands;
mod encode;
mod failures;
mod formats;
#[cfg(unix)]
mod interrupt;
mod job_failures;
mod jobs;
#[cfg(unix)]
mod merge;
mod multi_vector;
mod outputs;
mod predict;
mod rank;
mod sparse;
mod support;
