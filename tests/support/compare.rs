//! Comparing an executor's numbers with those of `naive`: never a cosine alone, always the worst element and its place.

use super::naive::Wide;
use lexel::matrix::Matrix;

/// How far a number may lie from what is right: `absolute + relative * |right|`. Its cause says why it may at all.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub cause: &'static str,
    pub absolute: f64,
    pub relative: f64,
}

impl Tolerance {
    pub const fn new(cause: &'static str, absolute: f64, relative: f64) -> Tolerance {
        Tolerance { cause, absolute, relative }
    }

    fn allows(&self, want: f64) -> f64 {
        self.absolute + self.relative * want.abs()
    }
}

/// An error that names the element which is furthest beyond the tolerance, if one is.
pub fn compare(got: &Matrix, want: &Wide, tolerance: Tolerance) -> Result<(), String> {
    if (got.rows, got.cols) != (want.rows, want.cols) {
        return Err(format!("expected shape [{}, {}], found [{}, {}]", want.rows, want.cols, got.rows, got.cols));
    }
    let excess = |i: usize| {
        let excess = (f64::from(got.data[i]) - want.data[i]).abs() / tolerance.allows(want.data[i]);
        if excess.is_nan() { f64::INFINITY } else { excess }
    };
    let beyond = (0..want.data.len()).filter(|&i| excess(i) > 1.0).count();
    let Some(worst) = (0..want.data.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b))) else { return Ok(()) };
    if beyond == 0 {
        return Ok(());
    }
    let (row, col) = (worst / want.cols, worst % want.cols);
    Err(format!(
        "{beyond} of {} elements differ; the worst at [{row}, {col}]: expected {:e}, found {:e}, allowed {:.1e} ({})",
        want.data.len(),
        want.data[worst],
        got.data[worst],
        tolerance.allows(want.data[worst]),
        tolerance.cause
    ))
}
