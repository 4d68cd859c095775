//! Random token ids of a given distribution of lengths: the same for every machine.

use crate::failure::Failure;
use lexel::scheduler::Sequence;

/// How long texts are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// Sentences: 28 on average, as `short.txt` of the project's corpus has them.
    Short,
    /// From 8 to 512, the median at 40: many sentences and a few pages.
    Mixed,
    /// Passages: 256, all of them.
    Long,
    /// A number.
    Exactly(usize),
}

impl Lengths {
    /// `short`, `mixed`, `long` or a number.
    pub fn parse(text: &str) -> Result<Lengths, Failure> {
        match (text, text.parse()) {
            ("short", _) => Ok(Lengths::Short),
            ("mixed", _) => Ok(Lengths::Mixed),
            ("long", _) => Ok(Lengths::Long),
            (_, Ok(length @ 1..)) => Ok(Lengths::Exactly(length)),
            _ => Err(Failure::usage(format!("--lengths {text}: give short, mixed, long, or a number of at least 1"))),
        }
    }

    /// About how many tokens a text has.
    pub fn mean(self) -> usize {
        match self {
            Lengths::Short => 28,
            Lengths::Mixed => 70,
            Lengths::Long => 256,
            Lengths::Exactly(length) => length,
        }
    }

    /// One length.
    fn sample(self, random: &mut Random) -> usize {
        // Lengths of texts are close to log-normal.
        let log_normal = |normal: f64, median: f64, spread: f64, low, high| {
            (median * (spread * normal).exp()).round().clamp(low, high) as usize
        };
        match self {
            Lengths::Short => log_normal(random.normal(), 26.3, 0.36, 8.0, 128.0),
            Lengths::Mixed => log_normal(random.normal(), 40.0, 1.05, 8.0, 512.0),
            Lengths::Long => 256,
            Lengths::Exactly(length) => length,
        }
    }

    /// So many sequences, none longer than `longest`, of ids below `vocab`; longest first, as texts are encoded.
    pub fn sequences(self, count: usize, longest: usize, vocab: usize) -> Vec<Sequence> {
        let mut random = Random(0x1e8e1);
        let mut sequences: Vec<Sequence> = (0..count)
            .map(|key| {
                let length = self.sample(&mut random).min(longest);
                let ids = (0..length).map(|_| (random.next() % vocab.max(1) as u64) as u32).collect();
                Sequence { key, ids, types: vec![0; length], skip: 0, unseen: 0 }
            })
            .collect();
        sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.ids.len()));
        sequences
    }
}

/// splitmix64 (Steele et al. 2014): seeded, and good enough for lengths and ids.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1 (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        radius * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributions_have_the_stated_means_and_limits() {
        for (lengths, low, high) in [(Lengths::Short, 8, 128), (Lengths::Mixed, 8, 512), (Lengths::Long, 256, 256)] {
            let sequences = lengths.sequences(4000, 512, 100);
            let all: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
            let mean = all.iter().sum::<usize>() as f64 / all.len() as f64;
            let stated = lengths.mean() as f64;
            assert!((mean / stated - 1.0).abs() < 0.05, "{lengths:?}: mean {mean}");
            assert!(all.is_sorted_by(|a, b| a >= b) && all[0] <= high && all[3999] >= low);
            assert!(sequences.iter().all(|sequence| sequence.ids.iter().all(|&id| id < 100)));
            assert_eq!(sequences, lengths.sequences(4000, 512, 100));
        }
        assert!(Lengths::Exactly(900).sequences(1, 512, 9)[0].ids.len() == 512);
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(Lengths::parse("mixed").unwrap(), Lengths::Mixed);
        assert_eq!(Lengths::parse("77").unwrap(), Lengths::Exactly(77));
        assert!(Lengths::parse("0").is_err() && Lengths::parse("tiny").is_err());
    }
}
