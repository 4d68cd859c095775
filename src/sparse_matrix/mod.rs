//! Rows of which most numbers are zero, as the others and their places.

mod similarity;

use crate::matrix::Matrix;

/// `[rows, cols]`, of which each row holds its non-zero numbers and their columns: compressed sparse rows.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseMatrix {
    cols: usize,
    /// Where each row begins among the numbers; last, how many there are.
    starts: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// How sparse embeddings are, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sparsity {
    /// Numbers of a row that are not zero.
    pub active_dims: f64,
    /// The share of a row that is zero.
    pub sparsity_ratio: f64,
}

impl SparseMatrix {
    /// A matrix without rows.
    ///
    /// # Panics
    /// If a u32 cannot count the columns.
    pub fn new(cols: usize) -> SparseMatrix {
        assert!(u32::try_from(cols).is_ok(), "{cols} columns");
        SparseMatrix { cols, starts: vec![0], indices: Vec::new(), values: Vec::new() }
    }

    /// Appends a row: the columns of its numbers, in ascending order, and the numbers.
    ///
    /// # Panics
    /// If the columns are out of order or beyond the matrix, or are not as many as the numbers.
    pub fn push_row(&mut self, indices: &[u32], values: &[f32]) {
        assert_eq!(indices.len(), values.len(), "the columns of a row and its numbers");
        assert!(indices.is_sorted_by(|a, b| a < b), "columns in ascending order");
        assert!(indices.last().is_none_or(|&last| (last as usize) < self.cols), "a column of {}", self.cols);
        self.indices.extend_from_slice(indices);
        self.values.extend_from_slice(values);
        self.starts.push(self.values.len());
    }

    /// The numbers of a dense matrix that are not zero.
    pub fn from_dense(dense: &Matrix) -> SparseMatrix {
        let mut sparse = SparseMatrix::new(dense.cols);
        for row in dense.iter() {
            let (indices, values): (Vec<u32>, Vec<f32>) = (0..).zip(row).filter(|(_, x)| **x != 0.0).unzip();
            sparse.push_row(&indices, &values);
        }
        sparse
    }

    /// All numbers, zeros too.
    pub fn to_dense(&self) -> Matrix {
        let mut dense = Matrix::zeros(self.rows(), self.cols);
        for (r, (indices, values)) in self.iter().enumerate() {
            let row = dense.row_mut(r);
            indices.iter().zip(values).for_each(|(&i, &value)| row[i as usize] = value);
        }
        dense
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `[rows, cols]`
    pub fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols]
    }

    /// The columns and the numbers of one row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.starts[row]..self.starts[row + 1];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// The rows, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u32], &[f32])> {
        (0..self.rows()).map(|row| self.row(row))
    }

    /// `[rows + 1]`: where each row begins among [`indices`](Self::indices) and [`values`](Self::values), and how many there are:
    /// SciPy's `indptr`.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The columns of all numbers.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// All numbers.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// How sparse the rows are, on average: the reference's `sparsity`.
    pub fn sparsity(&self) -> Sparsity {
        if self.rows() == 0 || self.cols == 0 {
            return Sparsity { active_dims: 0.0, sparsity_ratio: 1.0 };
        }
        let active_dims = self.values.len() as f64 / self.rows() as f64;
        Sparsity { active_dims, sparsity_ratio: 1.0 - active_dims / self.cols as f64 }
    }

    /// What row `row` shares with each row of `other`: the products of their numbers that are positive. Decoded, they tell why the
    /// two are alike.
    ///
    /// # Panics
    /// If the two differ in their columns.
    pub fn intersection(&self, row: usize, other: &SparseMatrix) -> SparseMatrix {
        assert_eq!(self.cols, other.cols, "embeddings of one model");
        let (indices, values) = self.row(row);
        let mut shared = SparseMatrix::new(self.cols);
        for (other_indices, other_values) in other.iter() {
            let product = |(&i, &value): (&u32, &f32)| {
                let at = other_indices.binary_search(&i).ok()?;
                Some((i, value * other_values[at])).filter(|&(_, product)| product > 0.0)
            };
            let (indices, values): (Vec<u32>, Vec<f32>) = indices.iter().zip(values).filter_map(product).unzip();
            shared.push_row(&indices, &values);
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> SparseMatrix {
        let mut matrix = SparseMatrix::new(5);
        matrix.push_row(&[0, 3], &[1.0, 2.0]);
        matrix.push_row(&[], &[]);
        matrix.push_row(&[1, 3, 4], &[-3.0, 0.5, 4.0]);
        matrix
    }

    #[test]
    fn there_and_back_again() {
        let sparse = matrix();
        assert_eq!(sparse.shape(), [3, 5]);
        assert_eq!(sparse.starts(), [0, 2, 2, 5]);
        let dense = sparse.to_dense();
        let expected = [[1.0, 0.0, 0.0, 2.0, 0.0], [0.0; 5], [0.0, -3.0, 0.0, 0.5, 4.0]];
        assert_eq!(dense.data, expected.concat());
        assert_eq!(SparseMatrix::from_dense(&dense), sparse);
    }

    #[test]
    fn how_sparse_they_are() {
        let Sparsity { active_dims, sparsity_ratio } = matrix().sparsity();
        assert!((active_dims - 5.0 / 3.0).abs() < 1e-12 && (sparsity_ratio - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(SparseMatrix::new(5).sparsity(), Sparsity { active_dims: 0.0, sparsity_ratio: 1.0 });
    }

    #[test]
    fn what_two_rows_share() {
        let shared = matrix().intersection(0, &matrix());
        assert_eq!(shared.row(0), (&[0, 3][..], &[1.0, 4.0][..]));
        assert_eq!(shared.row(1), (&[][..], &[][..]));
        assert_eq!(shared.row(2), (&[3][..], &[1.0][..]));
    }

    #[test]
    #[should_panic = "ascending"]
    fn columns_out_of_order() {
        SparseMatrix::new(5).push_row(&[3, 0], &[1.0, 1.0]);
    }
}
