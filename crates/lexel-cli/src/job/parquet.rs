//! A part of a Parquet file.

use super::Kept;
use crate::failure::Failure;
use crate::parquet::{bad, batch, guarded, strings};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, UInt32Array};
use lexel::jobs::{Part, PartRows, Reject};
use std::path::Path;

/// Reads a part, whose rows begin at `start` in this file.
pub fn read<const N: usize>(
    path: &Path,
    columns: &[String; N],
    keep: &[String],
    start: u64,
    part: &Part,
) -> Result<PartRows<[String; N], Kept>, Failure> {
    guarded(path, || {
        let batch = batch(path, columns, keep, start, part.rows)?;
        if batch.num_rows() as u64 != part.rows {
            return Err(bad(path, format!("{} rows where {} were announced", batch.num_rows(), part.rows)));
        }
        let texts: Vec<ArrayRef> = columns.iter().map(|name| strings(path, &batch, name)).collect::<Result<_, _>>()?;
        let (mut rows, mut numbers, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..batch.num_rows() {
            match texts.iter().position(|column| column.is_null(i)) {
                None => {
                    rows.push(std::array::from_fn(|n| texts[n].as_string::<i64>().value(i).to_string()));
                    numbers.push(i as u64);
                }
                Some(n) => {
                    let (row, column) = (start + i as u64, &columns[n]);
                    let reason = format!("{}, row {row}: '{column}' is null", path.display());
                    rejects.push(Reject { row: part.first_row + i as u64, reason });
                }
            }
        }
        let indices = UInt32Array::from_iter_values(numbers.iter().map(|&i| i as u32));
        let kept = |name: &String| {
            let column = batch.column_by_name(name).ok_or_else(|| bad(path, format!("no column '{name}'")))?;
            arrow_select::take::take(column, &indices, None).map_err(|error| bad(path, error))
        };
        let extra = Kept::Arrays(keep.iter().map(kept).collect::<Result<_, _>>()?);
        Ok(PartRows { rows, numbers, rejects, extra })
    })
}
