//! The program as its users run it: the built binary, tiny models, files and pipes.

mod commands;
mod encode;
mod failures;
mod formats;
mod interrupt;
mod job_failures;
mod jobs;
mod merge;
mod outputs;
mod predict;
mod rank;
mod support;
