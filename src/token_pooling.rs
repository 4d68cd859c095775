//! Fewer vectors for each text: what an index of late interaction has to keep.

use crate::error::{Error, Result};
use crate::finite::check_finite;
use crate::matrix::Matrix;
use kodama::{Method, Step, linkage};
use rayon::prelude::*;

/// Replaces vectors of a text that are alike by their mean, until a part of them is left: Ward's hierarchical clustering of their
/// cosine distances (Clavié et al. 2024). As sentence-transformers' module of that name, the vectors in its order.
///
/// ```
/// use lexel::{HierarchicalTokenPooling, Matrix};
/// # fn main() -> lexel::Result<()> {
/// let text = Matrix::new(5, 2, vec![0.0, 1.0, 1.0, 0.0, 0.6, 0.8, 0.96, 0.28, 0.8, 0.6]);
/// let pooled = HierarchicalTokenPooling::new(2.0).pool(&[text])?;
/// assert_eq!(pooled[0].shape(), [3, 2]); // the first is protected
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HierarchicalTokenPooling {
    /// Of `n` vectors, `n / pool_factor` stay, rounded down, one at least. 1: all of them.
    pub pool_factor: f64,
    /// Leading vectors that stay as they are, and do not count.
    pub num_protected_tokens: usize,
    /// Whether all vectors have length 1 in the end.
    pub normalize_embeddings: bool,
    /// The tasks whose texts it is for: `document` stands for a text for no task, too.
    pub tasks: Vec<String>,
}

impl HierarchicalTokenPooling {
    /// For documents, with the reference's defaults: one protected vector, and vectors of length 1.
    pub fn new(pool_factor: f64) -> HierarchicalTokenPooling {
        let tasks = vec!["document".into()];
        HierarchicalTokenPooling { pool_factor, num_protected_tokens: 1, normalize_embeddings: true, tasks }
    }

    /// Whether it is for texts of a task.
    pub fn applies_to(&self, task: Option<&str>) -> bool {
        self.tasks.iter().any(|known| known == task.unwrap_or("document"))
    }

    /// Fewer vectors for each text, a `[vectors, dim]` matrix a text; whatever they were encoded for. Takes 8 bytes for each two of
    /// a text's vectors: 268 MB for a text of 8,192, on each core.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a factor below 1, and for vectors that hold NaN or infinity.
    pub fn pool(&self, embeddings: &[Matrix]) -> Result<Vec<Matrix>> {
        if self.pool_factor.is_nan() || self.pool_factor < 1.0 {
            let factor = self.pool_factor;
            return Err(Error::InvalidInput(format!(
                "pool_factor is {factor}: give 1 (which keeps all vectors) or more"
            )));
        }
        check_finite("texts", embeddings.len(), |text| &embeddings[text].data)?;
        Ok(embeddings.par_iter().map(|embedding| self.pool_one(embedding)).collect())
    }

    fn pool_one(&self, embedding: &Matrix) -> Matrix {
        let protected = self.num_protected_tokens.min(embedding.rows);
        let rest: Vec<&[f32]> = embedding.iter().skip(protected).collect();
        let most = floor_division(rest.len() as f64, self.pool_factor).max(1.0) as usize;
        let mut pooled = embedding.clone();
        if most < rest.len() {
            let (clusters, count) = clusters(&rest, most);
            pooled.rows = protected + count;
            pooled.data.truncate(pooled.rows * pooled.cols);
            pooled.data[protected * pooled.cols..].fill(0.0);
            let mut members = vec![0f32; count];
            for (row, &cluster) in rest.iter().zip(&clusters) {
                members[cluster] += 1.0;
                pooled.row_mut(protected + cluster).iter_mut().zip(*row).for_each(|(sum, x)| *sum += x);
            }
            for (cluster, &members) in members.iter().enumerate() {
                pooled.row_mut(protected + cluster).iter_mut().for_each(|sum| *sum /= members);
            }
        }
        if self.normalize_embeddings {
            pooled.normalize_rows();
        }
        pooled
    }
}

/// Python's `x // y`, which differs from the floor of the quotient where that is rounded up to a whole number.
fn floor_division(x: f64, y: f64) -> f64 {
    ((x - x % y) / y).round()
}

/// The cluster of each row, `most` clusters at most, and how many there are: fewer only where merges are equally far apart. They are
/// numbered as SciPy's `fcluster` does, by the tree from its root on: of two branches that of the earlier cluster first, rows last.
fn clusters(rows: &[&[f32]], most: usize) -> (Vec<usize>, usize) {
    let n = rows.len();
    let mut distances = Vec::with_capacity(n * (n - 1) / 2);
    for (i, a) in rows.iter().enumerate() {
        let distance = |b: &&[f32]| 1.0 - a.iter().zip(*b).map(|(a, b)| a * b).sum::<f32>();
        distances.extend(rows[i + 1..].iter().map(|b| f64::from(distance(b).clamp(0.0, 2.0))));
    }
    let tree = linkage(&mut distances, n, Method::Ward);
    // What is merged farther apart than the last merge that is needed is not.
    let farthest = tree.steps()[n - 1 - most].dissimilarity;
    let (mut of_row, mut count) = (vec![0; n], 0);
    // Nodes to visit, and the cluster that they are in, if it has begun.
    let mut open: Vec<(usize, Option<usize>)> = vec![(2 * n - 2, None)];
    while let Some((node, cluster)) = open.pop() {
        let begin = || {
            count += 1;
            count - 1
        };
        match node.checked_sub(n) {
            None => of_row[node] = cluster.unwrap_or_else(begin),
            Some(step) => {
                let Step { cluster1, cluster2, dissimilarity, .. } = tree.steps()[step];
                let cluster = cluster.or_else(|| (dissimilarity <= farthest).then(begin));
                // A row by itself comes behind the other branch.
                let is_row = |&(child, _): &(usize, Option<usize>)| child < n;
                let (rows, branches): (Vec<_>, Vec<_>) =
                    [(cluster2, cluster), (cluster1, cluster)].into_iter().partition(is_row);
                open.extend(rows.into_iter().chain(branches));
            }
        }
    }
    (of_row, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_keeps_as_many_as_pythons_division_says() {
        // 11 / 1.1 is rounded to 10, but 1.1 is a little more than that.
        assert_eq!([floor_division(11.0, 1.1), floor_division(7.0, 2.0), floor_division(3.0, 1.5)], [9.0, 3.0, 2.0]);
        assert_eq!([floor_division(0.0, 3.0), floor_division(2.0, 100.0)], [0.0, 0.0]);
    }

    #[test]
    fn rows_that_are_alike_become_one() {
        let rows = [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]];
        let text = Matrix::new(5, 2, rows.concat());
        let pool = |factor, num_protected_tokens, normalize_embeddings| {
            let pooling = HierarchicalTokenPooling {
                num_protected_tokens,
                normalize_embeddings,
                ..HierarchicalTokenPooling::new(factor)
            };
            pooling.pool(std::slice::from_ref(&text)).unwrap().remove(0)
        };
        assert_eq!(pool(1.0, 0, false), text);
        // Equal rows are merged together, since their distances are equal.
        assert_eq!(pool(1.7, 1, false).rows, 3);
        let mut all = pool(100.0, 0, false).data;
        all.iter_mut().for_each(|x| *x = (*x * 1000.0).round());
        assert_eq!(all, [560.0, 520.0]);
        assert_eq!(pool(100.0, 9, true), text);
        let lengths = pool(2.0, 1, true).iter().map(|row| row.iter().map(|x| x * x).sum()).collect::<Vec<f32>>();
        assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-6), "{lengths:?}");
    }

    #[test]
    fn nothing_to_pool_and_what_cannot_be_pooled() {
        let empty = [Matrix::zeros(0, 3), Matrix::zeros(1, 3)];
        assert_eq!(HierarchicalTokenPooling::new(2.0).pool(&empty).unwrap(), empty);
        assert!(
            HierarchicalTokenPooling::new(0.5).pool(&empty).unwrap_err().to_string().contains("pool_factor is 0.5")
        );
        let odd = [Matrix::zeros(2, 1), Matrix::new(1, 1, vec![f32::NAN])];
        assert!(HierarchicalTokenPooling::new(2.0).pool(&odd).unwrap_err().to_string().contains("row 1 of the texts"));
    }
}
