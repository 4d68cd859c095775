//! Whether the time that a job says it will still take is right, although the longest texts of a part go first.
//!
//! ```text
//! LEXEL_TEXTS=texts.txt cargo test --release --test progress -- --ignored --nocapture
//! ```

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

#[test]
#[ignore = "takes minutes, and a quiet machine: see above"]
fn the_time_left_is_right_within_a_fifth_after_the_first_tenth() {
    let path = std::env::var("LEXEL_TEXTS").expect("LEXEL_TEXTS: a file with a text a line");
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
        let seen: Arc<Mutex<Vec<JobProgress>>> = Arc::default();
        let all = seen.clone();
        let progress = Arc::new(move |progress: &JobProgress| all.lock().unwrap().push(*progress));
        let compute = |rows: &[String], progress| {
            model.encode_with(rows, &EncodeOptions { progress: Some(progress), ..EncodeOptions::default() })
        };
        let options = JobOptions { progress: Some(progress), ..JobOptions::default() };
        let seconds = jobs::run(&source, &sink, &compute, &options).unwrap().seconds;
        check(&seen.lock().unwrap(), seconds, source.parts.len());
    }
}

fn check(seen: &[JobProgress], seconds: f64, parts: usize) {
    println!("{parts} parts, {seconds:.1} s\n  after     left   it said   error");
    let (mut worst, mut next) = (0.0f64, 0.1);
    for progress in seen.iter().filter(|progress| progress.seconds >= seconds / 10.0) {
        let left = seconds - progress.seconds;
        // The last seconds cannot be told from noise.
        let Some(said) = progress.seconds_left.filter(|_| left > seconds / 50.0) else { continue };
        let error = said / left - 1.0;
        worst = worst.max(error.abs());
        if progress.seconds / seconds >= next {
            println!("{:>6.0} % {left:>6.1} s  {said:>6.1} s  {:>+5.1} %", next * 100.0, error * 100.0);
            next += 0.1;
        }
    }
    println!("  worst: {:.1} %", worst * 100.0);
    assert!(worst < 0.2, "{worst}");
}
