//! Whether the time that a job says it will still take is right, although the longest texts of a part go first: within a fifth
//! once a tenth is done, with all-MiniLM-L6-v2 on the CPU. On a machine that does nothing else:
//! `cargo bench --workspace --bench progress -- TEXTS`, a file with a text a line. Status 1 if it is not.

use lexel::jobs::{self, Claim, Finished, JobOptions, JobProgress, Part, PartRows, Sink, Source};
use lexel::{Device, EncodeOptions, Result, SentenceTransformer};
use std::sync::{Arc, Mutex};

/// A text a line.
struct Lines {
    texts: Vec<String>,
    parts: Vec<Part>,
}

impl Source for Lines {
    type Row = String;
    type Extra = ();
    type Error = lexel::Error;

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn read(&self, part: &Part) -> Result<PartRows<String, ()>> {
        let rows = self.texts[part.first_row as usize..(part.first_row + part.rows) as usize].to_vec();
        Ok(PartRows { rows, numbers: (0..part.rows).collect(), rejects: Vec::new(), extra: () })
    }
}

/// A progress, and the CPU time so far.
type Seen = (JobProgress, f64);

/// CPU seconds of this process, where the system tells; else 0.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold spaces: user and system time, in hundredths.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Keeps which parts are done, and nothing of them.
struct Done(Mutex<Vec<bool>>);

impl Sink<Lines> for Done {
    type Lock = ();

    fn done(&self) -> Result<Vec<bool>> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn claim(&self, _: &Part) -> Result<Claim<()>> {
        Ok(Claim::Mine(()))
    }

    fn store(&self, (): (), finished: &Finished<Lines>) -> Result<()> {
        self.0.lock().unwrap()[finished.part.index] = true;
        Ok(())
    }
}

fn main() {
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let path = path.expect("give a file with a text a line: cargo bench --bench progress -- TEXTS");
    let mut is_right = true;
    let texts: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_string).collect();
    let model = SentenceTransformer::builder("all-MiniLM-L6-v2").device(Device::Cpu).load().unwrap();
    for part_rows in [texts.len() as u64, texts.len() as u64 / 4] {
        let mut parts = jobs::equal_parts(texts.len() as u64, part_rows);
        for part in &mut parts {
            let rows = &texts[part.first_row as usize..(part.first_row + part.rows) as usize];
            part.weight = rows.iter().map(|text| text.len() as u64 + 1).sum();
        }
        let sink = Done(Mutex::new(vec![false; parts.len()]));
        let source = Lines { texts: texts.clone(), parts };
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let cpu_before = cpu_seconds();
        let all = seen.clone();
        let progress =
            Arc::new(move |progress: &JobProgress| all.lock().unwrap().push((*progress, cpu_seconds() - cpu_before)));
        let compute = |rows: &[String], progress| {
            model.encode_with(rows, &EncodeOptions { progress: Some(progress), ..EncodeOptions::default() })
        };
        let options = JobOptions { progress: Some(progress), ..JobOptions::default() };
        let seconds = jobs::run(&source, &sink, &compute, &options).unwrap().seconds;
        let seen = seen.lock().unwrap();
        println!("{} parts, {seconds:.1} s", source.parts.len());
        let (last, cpu) = *seen.last().unwrap();
        // What else runs on the machine disturbs the first clock, the second less, and the third not at all.
        let worst = [
            check("seconds", &seen, seconds, |seen| seen.0.seconds),
            check("CPU seconds", &seen, cpu, |seen| seen.1),
            check("tokens", &seen, last.tokens as f64, |seen| seen.0.tokens as f64),
        ];
        is_right &= worst.iter().all(|&worst| worst < 0.2);
    }
    println!("{}", if is_right { "within a fifth" } else { "not within a fifth" });
    std::process::exit(i32::from(!is_right));
}

/// Compares what is said to be left with what was left, by a clock that ends at `end`; answers with the worst error.
fn check(unit: &str, seen: &[Seen], end: f64, clock: impl Fn(&Seen) -> f64) -> f64 {
    println!("  after     left  it said    error   ({unit})");
    let (mut worst, mut next) = (0.0f64, 0.1);
    for seen in seen {
        let (now, left, share) = (clock(seen), end - clock(seen), seen.0.share);
        // The last bit cannot be told from noise.
        if now < end / 10.0 || left < end / 50.0 {
            continue;
        }
        let said = now * (1.0 - share) / share;
        let error = said / left - 1.0;
        worst = worst.max(error.abs());
        if now / end >= next {
            println!("{:>6.0} % {left:>8.1} {said:>8.1} {:>+6.1} %", next * 100.0, error * 100.0);
            next += 0.1;
        }
    }
    println!("  worst: {:.1} %", worst * 100.0);
    worst
}
