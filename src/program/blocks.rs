//! Several matrices in one tensor.

use super::WeightSpec;
use std::borrow::Cow;

/// The matrices in a weight: an expert's each, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blocks {
    /// So many, stacked.
    Stacked(usize),
    /// So many, side by side.
    Beside(usize),
}

impl Blocks {
    /// All of a linear op's weight.
    pub const WHOLE: Blocks = Blocks::Stacked(1);

    /// How many.
    pub fn count(self) -> usize {
        self.grid().iter().product()
    }

    /// How many below each other, and how many side by side.
    pub fn grid(self) -> [usize; 2] {
        match self {
            Blocks::Stacked(count) => [count, 1],
            Blocks::Beside(count) => [1, count],
        }
    }

    /// Rows and columns of each.
    pub fn shape(self, spec: &WeightSpec) -> [usize; 2] {
        let [down, across] = self.grid();
        [spec.rows / down, spec.cols / across]
    }

    /// Each, row-major, of all of a weight's numbers.
    pub fn cut<'a>(self, values: &'a [f32], spec: &WeightSpec) -> impl Iterator<Item = Cow<'a, [f32]>> {
        let ([rows, cols], all) = (self.shape(spec), spec.cols);
        (0..self.count()).map(move |block| match self {
            Blocks::Stacked(_) => Cow::Borrowed(&values[block * rows * cols..][..rows * cols]),
            Blocks::Beside(_) => {
                values.chunks_exact(all).flat_map(|row| &row[block * cols..][..cols]).copied().collect()
            }
        })
    }
}
