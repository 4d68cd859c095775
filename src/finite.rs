//! Refuses numbers that are none: NaN and infinity, which nothing can be compared with.

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first row that holds what is no finite number, as cores find them.
pub(crate) struct Odd(AtomicUsize);

impl Default for Odd {
    fn default() -> Odd {
        Odd(AtomicUsize::new(usize::MAX))
    }
}

impl Odd {
    /// A row does.
    pub fn note(&self, row: usize) {
        self.0.fetch_min(row, Ordering::Relaxed);
    }

    /// The error for the first, if there is one.
    pub fn refuse(self, name: &str) -> Result<()> {
        match self.0.into_inner() {
            usize::MAX => Ok(()),
            row => Err(Error::InvalidInput(format!(
                "row {row} of the {name} holds NaN or infinity, which is like nothing: leave it out, or encode its text again"
            ))),
        }
    }
}

/// Whether all numbers are finite: in some lanes, so that the compiler vectorises.
pub(crate) fn is_finite(row: &[f32]) -> bool {
    let (lanes, rest) = row.as_chunks::<16>();
    let of_lanes = |found: [bool; 16], x: &[f32; 16]| std::array::from_fn(|i| found[i] & x[i].is_finite());
    lanes.iter().fold([true; 16], of_lanes) == [true; 16] && rest.iter().all(|x| x.is_finite())
}

/// Refuses rows that hold what is no finite number.
pub(crate) fn check_finite<'a>(name: &str, rows: usize, row: impl Fn(usize) -> &'a [f32] + Sync) -> Result<()> {
    let odd = Odd::default();
    (0..rows).into_par_iter().with_min_len(1024).filter(|&at| !is_finite(row(at))).for_each(|at| odd.note(at));
    odd.refuse(name)
}
