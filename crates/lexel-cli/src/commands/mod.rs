//! The subcommands, one file each.

pub mod bench;
pub mod devices;
pub mod download;
pub mod encode;
pub mod encode_multi_vector;
pub mod encode_sparse;
mod encoding;
pub mod info;
mod lengths;
pub mod merge;
pub mod predict;
mod profile;
pub mod rank;
pub mod similarity;
mod tune;
