//! The dispatches of a batch. A launch that would keep the device for too long is computed in several: an application that
//! draws with the same GPU gets its turn between them, and no driver takes the device for hung.

use super::compile::{Compiled, Launch};
use super::upload::Sizes;
use super::work::Work;
use std::ops::Range;

/// The most dispatches that a launch is planned to become: a layer's attention over 32,768 tokens is 4e12 operations. What they are
/// rounded to may make them twice as many.
const MOST_PARTS: u32 = 256;

/// Groups of a launch's grid that one dispatch computes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub step: usize,
    /// Of the step's launches.
    pub launch: usize,
    /// Of those along the folded x and y axes.
    pub groups: Range<u32>,
    pub work: Work,
    /// That it should take.
    pub seconds: f64,
}

/// A step, as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub step: usize,
    pub work: Work,
    /// That it should take.
    pub seconds: f64,
}

/// The dispatches of some steps, in order, each of at most about `most` seconds.
pub(super) fn pieces(compiled: &Compiled, steps: &[Whole], sizes: Sizes, most: f64, per_axis: u32) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(steps.len());
    for &Whole { step, work, seconds } in steps {
        let launches: Vec<(usize, u32)> = (0..)
            .zip(&compiled.steps[step])
            .filter_map(|(i, launch)| groups(launch, sizes).map(|groups| (i, groups)))
            .collect();
        // How its launches share a step's work is not known. Any of them may be most of it.
        for &(launch, groups) in &launches {
            let size = part(groups, seconds / most, per_axis);
            let firsts = (0..groups).step_by(size as usize);
            pieces.extend(firsts.map(|first| {
                let end = groups.min(first.saturating_add(size));
                let share = f64::from(end - first) / f64::from(groups) / launches.len() as f64;
                Piece { step, launch, groups: first..end, work: work * share, seconds: seconds * share }
            }));
        }
    }
    pieces
}

/// Groups of a launch's grid along the folded axes; `None` if it is left out.
fn groups(launch: &Launch, sizes: Sizes) -> Option<u32> {
    let count = launch.grid.count;
    let groups = launch.grid.groups(count.of(sizes));
    (groups > 0 && launch.items.contains(&count.decides(sizes))).then_some(groups)
}

/// Groups of a dispatch, where all would take so many times as long as one should: all, or a power of two of them that fits
/// one axis. So the launches of a batch have few beginnings in all, and no group is computed twice: a folded grid has some
/// behind its last.
fn part(groups: u32, times: f64, per_axis: u32) -> u32 {
    let axis = 1 << per_axis.max(1).ilog2();
    if times <= 1.0 || groups.div_ceil(axis) > 2 * MOST_PARTS {
        return groups;
    }
    let parts = times.ceil().min(f64::from(MOST_PARTS)) as u32;
    (1 << (groups / parts).max(1).ilog2()).min(axis)
}

/// The distinct beginnings of pieces, ascending from 0.
pub(super) fn firsts(pieces: &[Piece]) -> Vec<u32> {
    let mut firsts: Vec<u32> = pieces.iter().map(|piece| piece.groups.start).chain([0]).collect();
    firsts.sort_unstable();
    firsts.dedup();
    firsts
}

/// No batch has more distinct beginnings: 0, and less than `2 * MOST_PARTS` times a power of two.
pub(super) const MOST_FIRSTS: usize = 1 + 32 * MOST_PARTS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_enough_and_begin_in_few_places() {
        let mut all = std::collections::BTreeSet::from([0]);
        for groups in (1..200).chain([1000, 65_535, 65_536, 100_000, 131_071, 2_000_000]) {
            for parts in [0.5, 1.0, 1.5, 7.0, 31.0, 32.0, 33.0, 255.0, 256.0, 257.0, 1e9] {
                let size = part(groups, parts, 65_535);
                if parts <= 1.0 {
                    assert_eq!(size, groups);
                    continue;
                }
                assert!(size.is_power_of_two() && size <= 32_768 || size == groups);
                let count = groups.div_ceil(size);
                assert!(count >= groups.min(parts.min(256.0) as u32) && count <= 512, "{groups} in {parts}: {size}");
                all.extend((0..groups).step_by(size as usize));
            }
        }
        assert!(all.len() <= MOST_FIRSTS, "{}", all.len());
        assert_eq!(part(20_000_000, 9.0, 65_535), 20_000_000, "more than fit the axis, in parts");
    }
}
