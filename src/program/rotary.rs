//! The angles of rotary positions.

/// A table `[positions, 2 * frequencies]` for [`Rotary`](super::Rotary): the cosines of `position * frequency`, then the sines. The
/// product is in f32, as the reference computes it: at position 8,000 its rounding is visible.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RotaryTable {
    /// Rows.
    pub positions: usize,
    /// Of each pair of columns, as the bits of an f32, so that tables can be compared.
    frequencies: Vec<u32>,
}

impl RotaryTable {
    /// `theta^(-2 i / head_dim)` for each i below half of the head's columns.
    pub fn new(theta: f32, head_dim: usize, positions: usize) -> RotaryTable {
        let frequency = |i: usize| 1.0 / f64::from(theta).powf((2 * i) as f64 / head_dim as f64) as f32;
        RotaryTable::of_frequencies((0..head_dim / 2).map(frequency), positions)
    }

    /// These frequencies.
    pub fn of_frequencies(frequencies: impl IntoIterator<Item = f32>, positions: usize) -> RotaryTable {
        RotaryTable { positions, frequencies: frequencies.into_iter().map(f32::to_bits).collect() }
    }

    /// The frequencies.
    pub fn frequencies(&self) -> impl ExactSizeIterator<Item = f32> + Clone + '_ {
        self.frequencies.iter().map(|&bits| f32::from_bits(bits))
    }

    /// Columns: twice the frequencies.
    pub fn cols(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// The row of a position.
    pub fn row(&self, position: usize) -> impl Iterator<Item = f32> + '_ {
        let angles = self.frequencies().map(move |frequency| position as f32 * frequency);
        angles.clone().map(f32::cos).chain(angles.map(f32::sin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_cosines_and_sines_of_growing_angles() {
        let table = RotaryTable::new(10_000.0, 4, 8);
        assert_eq!((table.cols(), table.positions), (4, 8));
        assert_eq!(table.row(0).collect::<Vec<_>>(), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(table.row(3).collect::<Vec<_>>(), [3f32.cos(), 0.03f32.cos(), 3f32.sin(), 0.03f32.sin()]);
    }
}
