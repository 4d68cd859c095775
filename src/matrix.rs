//! A plain matrix of f32 in host memory.

/// `[rows, cols]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `rows * cols` numbers, row by row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// A matrix over `data`.
    ///
    /// # Panics
    /// If `data` does not hold `rows * cols` numbers.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Matrix {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] matrix over {} numbers", data.len());
        Matrix { rows, cols, data }
    }

    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// `[rows, cols]`
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// One row, to write.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }
}

/// As NumPy prints it, with four decimals: `[[1.0000, 0.6660],` newline ` [0.6660, 1.0000]]`.
impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: Vec<String> = (0..self.rows)
            .map(|r| format!("[{}]", self.row(r).iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(", ")))
            .collect();
        write!(f, "[{}]", rows.join(",\n "))
    }
}
