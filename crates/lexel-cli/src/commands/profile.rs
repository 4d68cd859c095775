//! `lexel bench --profile`: where the time of a batch goes.

use crate::failure::Failure;
use lexel::batch::Batch;
use lexel::executor::{Ceilings, Dtype, Executor};
use lexel::program::{Cost, Program};
use lexel::scheduler::Sequence;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Runs of the batch, of which each step's shortest time counts.
const RUNS: usize = 7;

/// What all steps of an op take together, for one batch.
struct Row {
    op: &'static str,
    steps: usize,
    seconds: f64,
    cost: Cost,
}

/// Bytes of a number.
#[derive(Clone, Copy)]
struct Sizes {
    value: usize,
    /// Of a linear op's weight.
    matrix: usize,
    /// Of another's.
    other: usize,
}

/// A batch of the first sequences, of at most so many tokens, or as full as the executor likes it.
pub fn batch(executor: &dyn Executor, program: &Program, batch_tokens: Option<usize>, sequences: &[Sequence]) -> Batch {
    let most = batch_tokens.unwrap_or(executor.batch_tokens());
    let mut batch = Batch::with_padding(program.padding);
    for sequence in sequences {
        if batch.tokens() > 0 && batch.tokens() + sequence.ids.len() > most {
            break;
        }
        batch.push_expanded(&sequence.ids, &sequence.types, sequence.skip, sequence.unseen);
    }
    batch
}

/// Times the steps of a batch: a table, or with `json` an array of its rows.
pub fn run(
    executor: &dyn Executor,
    program: &Program,
    batch: &Batch,
    dtype: Dtype,
    json: bool,
) -> Result<String, Failure> {
    let times = shortest(executor, batch)?;
    let Ceilings { gflops, gb_per_s } = executor.ceilings().map_err(lexel::Error::from)?;
    let sizes = Sizes {
        value: executor.value_bytes(),
        matrix: dtype.size(),
        // In int8, tables are in f16.
        other: dtype.size().max(2),
    };
    let rows = rows(program, batch, &times);
    let total: f64 = rows.iter().map(|row| row.seconds).sum();
    Ok(match json {
        true => format!(
            "{}\n",
            json!({"tokens": batch.tokens(), "sequences": batch.sequences(),
            "ms": total * 1e3, "ops": rows.iter().map(|row| row.json(total, sizes)).collect::<Vec<_>>(),
            "ceilings": {"gflops": gflops, "gb_per_s": gb_per_s}})
        ),
        false => {
            let (tokens, sequences) = (batch.tokens(), batch.sequences());
            let mut out = format!("a batch of {tokens} tokens in {sequences} texts: {:.3} ms\n\n", total * 1e3);
            let _ =
                writeln!(out, "{:<10} {:>5} {:>10} {:>7} {:>9} {:>8}", "op", "steps", "ms", "share", "GFLOP/s", "GB/s");
            for row in &rows {
                let _ = writeln!(out, "{}", row.line(total, sizes));
            }
            let _ = writeln!(out, "{:<35} {gflops:>9.1} {gb_per_s:>8.1}", "the device, measured beside");
            out
        }
    })
}

fn shortest(executor: &dyn Executor, batch: &Batch) -> Result<Vec<Duration>, Failure> {
    let profile = || executor.profile(batch).map_err(lexel::Error::from);
    let mut shortest = profile()?;
    for _ in 1..RUNS {
        for (shortest, time) in shortest.iter_mut().zip(profile()?) {
            *shortest = time.min(*shortest);
        }
    }
    Ok(shortest)
}

/// By op, the longest first.
fn rows(program: &Program, batch: &Batch, times: &[Duration]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let needed = program.needed(lexel::program::Output::Sentences);
    let steps = program.steps.iter().zip(program.costs(batch)).zip(times).zip(needed);
    for (((step, cost), time), _) in steps.filter(|(_, needed)| *needed) {
        let op = step.op.name();
        let at = rows.iter().position(|row| row.op == op).unwrap_or_else(|| {
            rows.push(Row { op, steps: 0, seconds: 0.0, cost: Cost::default() });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.steps += 1;
        row.seconds += time.as_secs_f64();
        row.cost.flops += cost.flops;
        row.cost.values += cost.values;
        row.cost.weights += cost.weights;
    }
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows
}

impl Row {
    fn share(&self, total: f64) -> f64 {
        if total > 0.0 { self.seconds / total } else { 0.0 }
    }

    fn per_second(&self, amount: f64) -> f64 {
        if self.seconds > 0.0 { amount / self.seconds / 1e9 } else { 0.0 }
    }

    fn gflops(&self) -> f64 {
        self.per_second(self.cost.flops)
    }

    fn gigabytes(&self, sizes: Sizes) -> f64 {
        let weight = if self.op == "linear" { sizes.matrix } else { sizes.other };
        self.per_second(self.cost.values * sizes.value as f64 + self.cost.weights * weight as f64)
    }

    fn line(&self, total: f64, sizes: Sizes) -> String {
        format!(
            "{:<10} {:>5} {:>10.3} {:>6.1}% {:>9.1} {:>8.1}",
            self.op,
            self.steps,
            self.seconds * 1e3,
            100.0 * self.share(total),
            self.gflops(),
            self.gigabytes(sizes)
        )
    }

    fn json(&self, total: f64, sizes: Sizes) -> Value {
        json!({"op": self.op, "steps": self.steps, "ms": self.seconds * 1e3, "share": self.share(total),
               "gflops": self.gflops(), "gb_per_s": self.gigabytes(sizes)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lexel::models::Preset;

    #[test]
    fn steps_are_summed_by_op_and_the_longest_comes_first() {
        let program = Preset::named("all-MiniLM-L6-v2").unwrap().program(64);
        let mut batch = Batch::new();
        batch.push(&[7; 10], &[0; 10], 0);
        let time =
            |step: &lexel::program::Step| Duration::from_millis(if step.op.name() == "attention" { 5 } else { 1 });
        let times: Vec<_> = program.steps.iter().map(time).collect();
        let rows = rows(&program, &batch, &times);
        assert_eq!((rows[0].op, rows[0].steps), ("attention", 6));
        let linear = rows.iter().find(|row| row.op == "linear").unwrap();
        assert_eq!(linear.steps, 24);
        // 10 tokens through 6 layers of 12 * 384^2 weights.
        assert_eq!(linear.cost.flops, 2.0 * 10.0 * 6.0 * 12.0 * 384.0 * 384.0);
        assert!((linear.gflops() - linear.cost.flops / 0.024 / 1e9).abs() < 1e-6);
        let bytes = linear.cost.values * 4.0 + linear.cost.weights * 2.0;
        // With biases.
        assert_eq!(linear.cost.weights, 6.0 * (12.0 * 384.0 * 384.0 + 9.0 * 384.0));
        assert!(linear.cost.values > 0.0);
        assert!((linear.gigabytes(Sizes { value: 4, matrix: 2, other: 1 }) - bytes / 0.024 / 1e9).abs() < 1e-6);
    }
}
