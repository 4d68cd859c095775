//! Compares a data set, the job folder that was made of it, and what `lexel encode` made of some of its files:
//! `check_rows DATASET FOLDER ENCODED`. Every id must be there once, and each vector that both have must be the same.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float32Type, Int64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use std::error::Error;

/// What two runs may differ by: a text is summed in another order where it shares its batch with others.
const TOLERANCE: f32 = 1e-6;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dataset, folder, encoded] = &args[..] else { return Err("give DATASET FOLDER ENCODED".into()) };
    let context = SessionContext::new();
    for (name, folder) in [("input", dataset), ("output", folder), ("encoded", encoded)] {
        context.register_parquet(name, format!("{folder}/"), ParquetReadOptions::default()).await?;
    }
    let count = async |query: &str| -> Result<i64, Box<dyn Error>> {
        let batches = context.sql(query).await?.collect().await?;
        Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
    };
    let rows = count("SELECT count(*) FROM input").await?;
    let found = count("SELECT count(*) FROM output").await?;
    let distinct = count("SELECT count(DISTINCT id) FROM output").await?;
    let missing = count("SELECT count(*) FROM input WHERE id NOT IN (SELECT id FROM output)").await?;
    let foreign = count("SELECT count(*) FROM output WHERE id NOT IN (SELECT id FROM input)").await?;
    println!("{rows} rows in, {found} out: {} double, {missing} missing, {foreign} foreign", found - distinct);

    let both = "SELECT output.embedding, encoded.embedding FROM output JOIN encoded ON output.id = encoded.id";
    let (mut compared, mut worst) = (0, 0.0_f32);
    for batch in context.sql(both).await?.collect().await? {
        let (ours, theirs) = (batch.column(0).as_fixed_size_list(), batch.column(1).as_fixed_size_list());
        for row in 0..batch.num_rows() {
            let (ours, theirs) = (ours.value(row), theirs.value(row));
            let (ours, theirs) = (ours.as_primitive::<Float32Type>(), theirs.as_primitive::<Float32Type>());
            assert_eq!(ours.len(), theirs.len(), "dimensions");
            let differences = ours.values().iter().zip(theirs.values()).map(|(a, b)| (a - b).abs());
            worst = differences.fold(worst, f32::max);
            compared += 1;
        }
    }
    println!("{compared} vectors compared with those of `lexel encode`: they differ by {worst:e} at most");
    let is_right = found == rows && distinct == rows && missing == 0 && foreign == 0;
    match is_right && compared > 0 && worst <= TOLERANCE {
        true => Ok(()),
        false => Err("the job is not what it should be".into()),
    }
}
