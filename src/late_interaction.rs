//! How alike texts are of which each has several vectors: late interaction (Khattab, Zaharia 2020).

use crate::cpu::PackedRows;
use crate::error::{Error, Result};
use crate::finite::{Odd, check_finite, is_finite};
use crate::matrix::Matrix;
use crate::search::{Best, SearchHit, hits};
use crate::similarity::{same_columns, same_rows};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The score of a document that has no vector, as in the reference: below that of every other.
pub const EMPTY_DOCUMENT: f32 = -1e9;

/// Vectors of queries that meet the documents together, about.
const TOGETHER: usize = 256;

/// Vectors of a document that meet them at a time: the products stay in the cache.
const ROWS: usize = 64;

/// A similarity of a query and a document that both have a vector for each token: for each of the query's, the largest dot product
/// with one of the document's, and those added up. A text is a `[vectors, dim]` matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LateInteraction {
    /// Their sum.
    #[default]
    MaxSim,
    /// Their mean.
    MeanMaxSim,
}

impl LateInteraction {
    /// All of them.
    pub const ALL: [LateInteraction; 2] = [LateInteraction::MaxSim, LateInteraction::MeanMaxSim];

    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            LateInteraction::MaxSim => "maxsim",
            LateInteraction::MeanMaxSim => "meanmaxsim",
        }
    }

    /// That of a model whose files name this one: older ones name one of single vectors, which says nothing here.
    pub fn of_files(name: Option<&str>) -> LateInteraction {
        name.and_then(|name| name.parse().ok()).unwrap_or_default()
    }

    /// Every query against every document: `[queries, documents]`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if two texts differ in their columns, or one holds NaN or infinity.
    pub fn matrix(self, queries: &[Matrix], documents: &[Matrix]) -> Result<Matrix> {
        let scan = Scan::new(self, queries, documents)?;
        let mut scores = Matrix::zeros(queries.len(), documents.len());
        for block in scan.blocks() {
            let packed = scan.pack(block.clone());
            let of_documents: Vec<Vec<f32>> = (0..documents.len())
                .into_par_iter()
                .map_init(Scratch::default, |scratch, document| scan.score(&packed, document, scratch).to_vec())
                .collect();
            for (document, of_queries) in of_documents.iter().enumerate() {
                block.clone().zip(of_queries).for_each(|(query, &score)| scores.row_mut(query)[document] = score);
            }
        }
        scan.odd.refuse("documents").map(|()| scores)
    }

    /// Query `i` against document `i`: one score a pair.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix), and if there are not as many documents as queries.
    pub fn pairwise(self, queries: &[Matrix], documents: &[Matrix]) -> Result<Vec<f32>> {
        same_rows(queries.len(), documents.len())?;
        let scan = Scan::new(self, queries, documents)?;
        let score = |scratch: &mut Scratch, i: usize| scan.score(&scan.pack(i..i + 1), i, scratch)[0];
        let scores = (0..queries.len()).into_par_iter().map_init(Scratch::default, score).collect();
        scan.odd.refuse("documents").map(|()| scores)
    }

    /// For each query, the `top_k` documents that are most like it, best first; of equal ones, the first. Every query is compared
    /// with every document: for more than some hundred thousand, an index is better.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn search(self, queries: &[Matrix], documents: &[Matrix], top_k: usize) -> Result<Vec<Vec<SearchHit>>> {
        let scan = Scan::new(self, queries, documents)?;
        let mut found = Vec::with_capacity(queries.len());
        for block in scan.blocks() {
            let packed = scan.pack(block.clone());
            let none = || vec![Best::new(top_k); block.len()];
            let folded = (0..documents.len()).into_par_iter().fold(
                || (none(), Scratch::default()),
                |(mut best, mut scratch), document| {
                    let scores = scan.score(&packed, document, &mut scratch);
                    best.iter_mut().zip(scores).for_each(|(best, &score)| best.offer(document, score));
                    (best, scratch)
                },
            );
            let merge = |a: Vec<Best<usize>>, b| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
            found.extend(folded.map(|(best, _)| best).reduce(none, merge).into_iter().map(hits));
        }
        scan.odd.refuse("documents").map(|()| found)
    }
}

/// Queries and documents that can be compared.
struct Scan<'a> {
    function: LateInteraction,
    queries: &'a [Matrix],
    documents: &'a [Matrix],
    cols: usize,
    /// Of the documents, one that holds what is no finite number.
    odd: Odd,
}

/// Queries, their vectors packed for products, and how many each has.
struct Queries {
    vectors: Option<PackedRows>,
    counts: Vec<usize>,
}

#[derive(Default)]
struct Scratch {
    /// `[ROWS, vectors of the queries]`
    products: Vec<f32>,
    /// `[vectors of the queries]`
    largest: Vec<f32>,
    /// `[queries]`
    scores: Vec<f32>,
}

impl<'a> Scan<'a> {
    fn new(function: LateInteraction, queries: &'a [Matrix], documents: &'a [Matrix]) -> Result<Scan<'a>> {
        let mut texts = queries.iter().chain(documents).filter(|text| text.rows > 0);
        let cols = texts.next().map_or(0, |text| text.cols);
        texts.try_for_each(|text| same_columns(cols, text.cols))?;
        check_finite("queries", queries.len(), |text| &queries[text].data)?;
        Ok(Scan { function, queries, documents, cols, odd: Odd::default() })
    }

    /// The queries, as many at a time as have some vectors together.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<'_> {
        let mut end = 0;
        std::iter::from_fn(move || {
            let (start, mut vectors) = (end, 0);
            while let Some(query) =
                self.queries.get(end).filter(|query| end == start || vectors + query.rows <= TOGETHER)
            {
                vectors += query.rows;
                end += 1;
            }
            (start < end).then_some(start..end)
        })
    }

    fn pack(&self, block: Range<usize>) -> Queries {
        let queries = &self.queries[block];
        let counts: Vec<usize> = queries.iter().map(|query| query.rows).collect();
        let rows = queries.iter().flat_map(|query| query.data.iter().copied()).collect::<Vec<f32>>();
        let count = counts.iter().sum();
        let vectors = (self.cols > 0 && count > 0).then(|| PackedRows::pack(&rows, count, self.cols));
        Queries { vectors, counts }
    }

    /// The scores of a document for some queries.
    fn score<'s>(&self, queries: &Queries, document: usize, scratch: &'s mut Scratch) -> &'s [f32] {
        let Scratch { products, largest, scores } = scratch;
        let (index, document) = (document, &self.documents[document]);
        let count: usize = queries.counts.iter().sum();
        largest.clear();
        largest.resize(count, if self.cols > 0 { f32::NEG_INFINITY } else { 0.0 });
        if let Some(vectors) = &queries.vectors {
            for rows in document.data.chunks(ROWS * self.cols) {
                // While they are in the cache.
                if !is_finite(rows) {
                    self.odd.note(index);
                }
                products.resize(rows.len() / self.cols * count, 0.0);
                vectors.products(rows, products);
                for of_row in products.chunks_exact(count) {
                    largest.iter_mut().zip(of_row).for_each(|(largest, &x)| *largest = largest.max(x));
                }
            }
        }
        scores.clear();
        let mut rest = &largest[..];
        for &count in &queries.counts {
            let own = rest.split_off(..count).unwrap_or_default();
            let sum = if document.rows == 0 { EMPTY_DOCUMENT } else { own.iter().sum() };
            scores.push(match self.function {
                LateInteraction::MaxSim => sum,
                LateInteraction::MeanMaxSim => sum / count.max(1) as f32,
            });
        }
        scores
    }
}

impl fmt::Display for LateInteraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LateInteraction {
    type Err = Error;

    /// Reads a [`name`](Self::name).
    fn from_str(name: &str) -> Result<LateInteraction> {
        let known = LateInteraction::ALL;
        known.into_iter().find(|function| function.name() == name).ok_or_else(|| {
            let known = known.map(LateInteraction::name).join(", ");
            Error::InvalidInput(format!("no similarity of several vectors is called '{name}'; there are: {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::numbers;

    /// Texts of so many vectors each, of numbers that a seed decides.
    fn texts(seed: u32, counts: &[usize], cols: usize) -> Vec<Matrix> {
        let all = numbers(seed, counts.iter().sum(), cols);
        let mut rest = &all.data[..];
        let mut text = |&count: &usize| Matrix::new(count, cols, rest.split_off(..count * cols).unwrap().to_vec());
        counts.iter().map(&mut text).collect()
    }

    /// The formula, in f64.
    fn plain(query: &Matrix, document: &Matrix) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        query.iter().map(|q| document.iter().map(|d| dot(q, d)).fold(f64::NEG_INFINITY, f64::max)).sum()
    }

    #[test]
    fn scores_are_those_of_the_formula_at_awkward_sizes() {
        for cols in [1, 5, 37, 128] {
            let queries = texts(1, &[3, 1, 0, 250, 32, 300, 7], cols);
            let documents = texts(2, &[5, 64, 0, 65, 1, 200], cols);
            let [sums, means] = LateInteraction::ALL.map(|function| function.matrix(&queries, &documents).unwrap());
            for (q, query) in queries.iter().enumerate() {
                for (d, document) in documents.iter().enumerate() {
                    let expected = if document.rows == 0 { -1e9 } else { plain(query, document) };
                    let found = f64::from(sums.row(q)[d]);
                    assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{cols}: {found}, {expected}");
                    let mean = f64::from(means.row(q)[d]) * query.rows.max(1) as f64;
                    assert!((mean - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{cols}: {mean}, {expected}");
                }
            }
            let pairs = LateInteraction::MaxSim.pairwise(&queries[..6], &documents).unwrap();
            assert!(pairs.iter().enumerate().all(|(i, &score)| score == sums.row(i)[i]), "{cols}");
            for (q, hits) in LateInteraction::MaxSim.search(&queries, &documents, 4).unwrap().iter().enumerate() {
                let mut expected: Vec<f32> = sums.row(q).to_vec();
                expected.sort_by(|a, b| b.total_cmp(a));
                assert_eq!(hits.iter().map(|hit| hit.score).collect::<Vec<_>>(), expected[..4], "{cols}");
                assert!(hits.iter().all(|hit| sums.row(q)[hit.corpus_id] == hit.score));
            }
        }
    }

    #[test]
    fn nothing_to_score_and_what_cannot_be_scored() {
        let (some, other) = (texts(1, &[2, 3], 4), texts(1, &[2], 3));
        let function = LateInteraction::MaxSim;
        assert_eq!(function.matrix(&[], &some).unwrap().shape(), [0, 2]);
        assert_eq!(function.matrix(&some, &[]).unwrap().shape(), [2, 0]);
        assert_eq!(function.search(&some, &[], 3).unwrap(), [vec![], vec![]]);
        let flat = [Matrix::zeros(2, 0)];
        assert_eq!(function.matrix(&flat, &flat).unwrap().data, [0.0]);
        let message = |a: &[Matrix], b: &[Matrix]| function.matrix(a, b).unwrap_err().to_string();
        assert!(message(&some, &other).contains("of 4 and of 3 dimensions"));
        let odd = [some[0].clone(), Matrix::new(1, 4, vec![0.0, f32::NAN, 0.0, 0.0])];
        assert!(message(&some, &odd).contains("row 1 of the documents"));
        assert!(function.pairwise(&some, &some[..1]).is_err());
        assert!("cosine".parse::<LateInteraction>().unwrap_err().to_string().contains("maxsim, meanmaxsim"));
    }
}
