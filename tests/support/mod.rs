//! What the tests of the executors share.

#![allow(dead_code)] // each test binary uses its own part of it

pub mod attentions;
pub mod case;
pub mod compare;
pub mod data;
pub mod encoding;
pub mod executors;
pub mod formula;
pub mod golden;
pub mod minilm;
pub mod naive;
pub mod programs;
pub mod scoring;
pub mod sentences;
pub mod table;
