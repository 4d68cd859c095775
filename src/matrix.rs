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

    /// The rows, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.rows).map(|row| self.row(row))
    }

    /// Appends a row. The first decides the columns of a matrix of none.
    ///
    /// # Panics
    /// If the row has another number of columns.
    pub fn push_row(&mut self, row: &[f32]) {
        if self.rows == 0 && self.cols == 0 {
            self.cols = row.len();
        }
        assert_eq!(row.len(), self.cols, "the columns of a row and of its matrix");
        self.data.extend_from_slice(row);
        self.rows += 1;
    }

    /// Divides each row by its L2 norm, floored at 1e-12 as in the reference.
    pub(crate) fn normalize_rows(&mut self) {
        (0..self.rows).for_each(|row| normalize(self.row_mut(row)));
    }

    /// One row, to write.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }
}

/// Divides by the L2 norm, floored at 1e-12 as in the reference.
pub(crate) fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|x| *x /= norm);
}

/// Some rows of a matrix: what a cancelled call has computed.
#[derive(Debug, Clone, PartialEq)]
pub struct SomeRows {
    /// Which rows.
    pub rows: Vec<usize>,
    /// Each of them, in this order.
    pub matrix: Matrix,
}

impl SomeRows {
    /// The rows of `matrix` that are `there`.
    pub fn of(mut matrix: Matrix, there: &[bool]) -> SomeRows {
        let rows: Vec<usize> = (0..matrix.rows).filter(|&row| there[row]).collect();
        for (to, &from) in rows.iter().enumerate() {
            matrix.data.copy_within(from * matrix.cols..(from + 1) * matrix.cols, to * matrix.cols);
        }
        matrix.rows = rows.len();
        matrix.data.truncate(rows.len() * matrix.cols);
        SomeRows { rows, matrix }
    }

    /// The rows below `total` that are not there.
    pub fn missing(&self, total: usize) -> Vec<usize> {
        let mut there = vec![false; total];
        self.rows.iter().filter(|&&row| row < total).for_each(|&row| there[row] = true);
        (0..total).filter(|&row| !there[row]).collect()
    }

    /// Adds others.
    ///
    /// # Panics
    /// If they have another number of columns.
    pub fn append(&mut self, rows: impl IntoIterator<Item = usize>, mut matrix: Matrix) {
        if self.rows.is_empty() {
            *self = SomeRows { rows: rows.into_iter().collect(), matrix };
            return;
        }
        assert_eq!(self.matrix.cols, matrix.cols, "rows of one matrix");
        self.rows.extend(rows);
        self.matrix.rows += matrix.rows;
        self.matrix.data.append(&mut matrix.data);
    }

    /// The whole matrix, once all of its rows are there.
    pub fn complete(self) -> Matrix {
        if self.rows.iter().copied().eq(0..self.matrix.rows) {
            return self.matrix;
        }
        let mut whole = Matrix::zeros(self.matrix.rows, self.matrix.cols);
        for (i, &row) in self.rows.iter().enumerate() {
            whole.row_mut(row).copy_from_slice(self.matrix.row(i));
        }
        whole
    }
}

impl Default for SomeRows {
    /// None.
    fn default() -> SomeRows {
        SomeRows { rows: Vec::new(), matrix: Matrix::zeros(0, 0) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_appended_and_walked() {
        let mut matrix = Matrix::zeros(0, 0);
        matrix.push_row(&[1.0, 2.0]);
        matrix.push_row(&[3.0, 4.0]);
        assert_eq!(matrix, Matrix::new(2, 2, vec![1.0, 2.0, 3.0, 4.0]));
        assert!(matrix.iter().eq([&[1.0, 2.0][..], &[3.0, 4.0]]));
        let mut without_columns = Matrix::zeros(1, 0);
        without_columns.push_row(&[]);
        assert_eq!(without_columns.iter().count(), 2);
    }

    #[test]
    fn a_zero_row_stays_zero_and_others_get_length_1() {
        let mut rows = Matrix::new(2, 2, vec![0.0, 0.0, 3.0, 4.0]);
        rows.normalize_rows();
        assert_eq!(rows.data, [0.0, 0.0, 0.6, 0.8]);
    }

    #[test]
    fn some_rows_and_the_others_are_the_whole() {
        let whole = Matrix::new(4, 2, (0..8).map(|x| x as f32).collect());
        let mut some = SomeRows::of(whole.clone(), &[false, true, false, true]);
        assert_eq!((&some.rows[..], &some.matrix.data[..]), (&[1, 3][..], &[2.0, 3.0, 6.0, 7.0][..]));
        let missing = some.missing(4);
        assert_eq!(missing, [0, 2]);
        some.append(missing, Matrix::new(2, 2, vec![0.0, 1.0, 4.0, 5.0]));
        assert_eq!((some.missing(4).len(), some.complete()), (0, whole.clone()));
        let mut none = SomeRows::default();
        none.append(0..4, whole.clone());
        assert_eq!(none.complete(), whole);
    }
}
