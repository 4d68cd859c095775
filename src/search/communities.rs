//! Groups of texts that are close to one of them.

use super::best::Scored;
use super::scan::Scan;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::similarity::SimilarityFunction;
use std::cmp::Reverse;

/// Options of [`community_detection`]. The default is the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommunityOptions {
    /// The cosine similarity to the centre that a member has at least.
    pub threshold: f32,
    /// Members of a community at least, its centre included.
    pub min_community_size: usize,
}

impl Default for CommunityOptions {
    fn default() -> CommunityOptions {
        CommunityOptions { threshold: 0.75, min_community_size: 10 }
    }
}

/// Communities of rows, the largest first: in each the index of its centre first, then those of the other rows whose cosine
/// similarity to the centre is at least the threshold, most alike first. A row is in one community at most; where two would have
/// it, the larger one does.
///
/// Memory grows with the number of pairs of rows that are alike.
///
/// # Errors
/// [`Error::InvalidInput`] if a row or the threshold is not finite.
pub fn community_detection(embeddings: &Matrix, options: &CommunityOptions) -> Result<Vec<Vec<usize>>> {
    let CommunityOptions { threshold, min_community_size: least } = *options;
    if !threshold.is_finite() {
        return Err(Error::InvalidInput(format!("a threshold of {threshold}: give a cosine, from -1 to 1")));
    }
    let scan = Scan::new(embeddings, embeddings, SimilarityFunction::Cosine)?;
    let take = |near: &mut Vec<Scored<usize>>, id, score| {
        if score >= threshold {
            near.push(Scored { score, id });
        }
    };
    let join = |mut a: Vec<_>, mut b: Vec<_>| {
        a.append(&mut b);
        a
    };
    let mut candidates: Vec<(usize, Vec<usize>)> = Vec::new();
    for block in scan.blocks() {
        for (centre, mut near) in block.clone().zip(scan.fold(block, Vec::new, take, join)?) {
            if !near.is_empty() && near.len() >= least {
                near.sort_unstable_by_key(|&scored| Reverse(scored));
                candidates.push((centre, near.into_iter().map(|scored| scored.id).collect()));
            }
        }
    }
    candidates.sort_by_key(|(_, near)| Reverse(near.len()));
    let mut communities = apart(candidates, embeddings.rows, least);
    communities.sort_by_key(|community| Reverse(community.len()));
    Ok(communities)
}

/// Those that are left when each row has gone to the first community that wants it.
fn apart(candidates: Vec<(usize, Vec<usize>)>, rows: usize, least: usize) -> Vec<Vec<usize>> {
    let mut is_taken = vec![false; rows];
    let mut communities = Vec::new();
    for (centre, near) in candidates {
        if is_taken[centre] {
            continue;
        }
        let free = near.into_iter().filter(|&row| row != centre && !is_taken[row]);
        let community: Vec<usize> = std::iter::once(centre).chain(free).collect();
        if community.len() >= least {
            community.iter().for_each(|&row| is_taken[row] = true);
            communities.push(community);
        }
    }
    communities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_belongs_to_one_community() {
        // Directions in degrees: five around 0, three around 40, one alone.
        let degrees = [0.0f32, 2.0, -2.5, 3.0, -3.5, 40.0, 41.0, 38.0, 120.0];
        let rows = degrees.iter().flat_map(|x| [x.to_radians().cos(), x.to_radians().sin()]).collect();
        let embeddings = Matrix::new(degrees.len(), 2, rows);
        let detect = |degrees: f32, min_community_size| {
            let options = CommunityOptions { threshold: degrees.to_radians().cos(), min_community_size };
            community_detection(&embeddings, &options).unwrap()
        };
        assert_eq!(detect(5.0, 3), [vec![0, 1, 2, 3, 4], vec![5, 6, 7]]);
        assert_eq!(detect(5.0, 4), [[0, 1, 2, 3, 4]]);
        assert_eq!(detect(5.0, 1).len(), 3);
        assert_eq!(detect(5.0, 0).len(), 3);
        assert!(detect(5.0, 6).is_empty());
        assert!(community_detection(&Matrix::zeros(0, 2), &CommunityOptions::default()).unwrap().is_empty());
        let odd = CommunityOptions { threshold: f32::NAN, ..CommunityOptions::default() };
        assert!(community_detection(&embeddings, &odd).is_err());
    }
}
