//! Embeddings in fewer bits, as sentence-transformers 6 quantises them (`util/quantization.py`): a byte a dimension, or a
//! bit.

use crate::error::{Error, Result};
use crate::matrix::Matrix;
use std::str::FromStr;

/// What an embedding's numbers become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 256 steps between each dimension's smallest and largest value, as i8.
    Int8,
    /// The same as u8: 128 more than the i8.
    Uint8,
    /// One bit a dimension, set where the value is above 0; 8 a byte, the first in the highest bit; bytes less 128, as i8.
    Binary,
    /// The same bytes as u8.
    Ubinary,
}

/// `[2, dim]`: for each dimension the smallest value (row 0) and the largest (row 1). Keep them with an index: vectors are
/// only comparable if they were quantised with the same ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges(pub Matrix);

/// Quantised embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Rows.
    pub rows: usize,
    /// Bytes a row: the dimensions, or an eighth of them (rounded up) for the binary precisions.
    pub cols: usize,
    /// `rows * cols` numbers.
    pub data: QuantizedData,
}

/// The numbers of [`Quantized`], row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuantizedData {
    /// Int8 and Binary.
    I8(Vec<i8>),
    /// Uint8 and Ubinary.
    U8(Vec<u8>),
}

impl Precision {
    /// All precisions.
    pub const ALL: [Precision; 4] = [Precision::Int8, Precision::Uint8, Precision::Binary, Precision::Ubinary];

    /// The name in sentence-transformers.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Int8 => "int8",
            Precision::Uint8 => "uint8",
            Precision::Binary => "binary",
            Precision::Ubinary => "ubinary",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Precision> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            Error::InvalidInput(format!("unknown precision '{name}'; known: float32, int8, uint8, binary, ubinary"))
        })
    }
}

impl Ranges {
    /// The ranges of these embeddings. At least two rows: one alone has no range.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] with fewer than two rows.
    pub fn of(embeddings: &Matrix) -> Result<Ranges> {
        if embeddings.rows < 2 {
            return Err(Error::InvalidInput(format!(
                "int8 and uint8 need the range of each dimension, and {} embedding(s) have none: give ranges, or \
                 calibration embeddings of many texts",
                embeddings.rows
            )));
        }
        let mut ranges = Matrix::zeros(2, embeddings.cols);
        ranges.row_mut(0).copy_from_slice(embeddings.row(0));
        ranges.row_mut(1).copy_from_slice(embeddings.row(0));
        for i in 1..embeddings.rows {
            for (j, &x) in embeddings.row(i).iter().enumerate() {
                ranges.row_mut(0)[j] = ranges.row(0)[j].min(x);
                ranges.row_mut(1)[j] = ranges.row(1)[j].max(x);
            }
        }
        Ok(Ranges(ranges))
    }

    /// Whether they can be of embeddings: in each dimension a smallest value that is not above the largest. They may be
    /// equal in a dimension that is constant, as in the reference, but not in all.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] with the dimension and its values, or if there are not two rows.
    pub fn check(&self) -> Result<()> {
        if self.0.rows != 2 {
            let rows = self.0.rows;
            return Err(Error::InvalidInput(format!(
                "ranges have two rows, the smallest and the largest values, not {rows}"
            )));
        }
        let (low, high) = (self.0.row(0), self.0.row(1));
        let mut both = low.iter().zip(high);
        // A difference that is no number has an end that is none, or ends too far apart to divide by.
        if let Some(j) = both.position(|(lo, hi)| !(hi - lo).is_finite() || lo > hi) {
            return Err(Error::InvalidInput(format!(
                "the range of dimension {j} is from {} to {}: expected finite numbers, the smallest value in row 0 and the \
                 largest in row 1",
                low[j], high[j]
            )));
        }
        match low.first() {
            Some(first) if low == high => Err(Error::InvalidInput(format!(
                "the ranges are empty in every dimension (dimension 0 is from {first} to {first}): take them of many texts"
            ))),
            _ => Ok(()),
        }
    }
}

/// Quantises embeddings. `ranges` matter for int8 and uint8 only; without them, those of the embeddings themselves serve,
/// and the result depends on all rows of the call (the reference does the same, and warns below 100 rows).
///
/// # Errors
/// [`Error::InvalidInput`] if the ranges have other dimensions, or there are none to be had from a single row.
pub fn quantize_embeddings(embeddings: &Matrix, precision: Precision, ranges: Option<&Ranges>) -> Result<Quantized> {
    let [rows, dim] = embeddings.shape();
    let (cols, codes) = match precision {
        Precision::Binary | Precision::Ubinary => (dim.div_ceil(8), binary_codes(embeddings)),
        Precision::Int8 | Precision::Uint8 if rows == 0 => (dim, Vec::new()),
        Precision::Int8 | Precision::Uint8 => {
            let own = match ranges {
                Some(_) => None,
                None => Some(Ranges::of(embeddings)?),
            };
            if own.is_some() && rows < 100 {
                log::warn!(
                    "{} ranges from only {rows} embeddings: give ranges or more texts for stable codes",
                    precision.name()
                );
            }
            (dim, byte_codes(embeddings, ranges.or(own.as_ref()).expect("one of the two"))?)
        }
    };
    // 128 less, as a bit pattern, is the highest bit flipped.
    let data = match precision {
        Precision::Int8 | Precision::Binary => {
            QuantizedData::I8(codes.into_iter().map(|code| (code ^ 0x80) as i8).collect())
        }
        Precision::Uint8 | Precision::Ubinary => QuantizedData::U8(codes),
    };
    Ok(Quantized { rows, cols, data })
}

fn binary_codes(embeddings: &Matrix) -> Vec<u8> {
    let mut codes = Vec::with_capacity(embeddings.rows * embeddings.cols.div_ceil(8));
    for i in 0..embeddings.rows {
        codes.extend(embeddings.row(i).chunks(8).map(|eight| {
            eight.iter().enumerate().fold(0u8, |byte, (bit, &x)| byte | (u8::from(x > 0.0) << (7 - bit)))
        }));
    }
    codes
}

fn byte_codes(embeddings: &Matrix, Ranges(ranges): &Ranges) -> Result<Vec<u8>> {
    if ranges.shape() != [2, embeddings.cols] {
        return Err(Error::InvalidInput(format!(
            "quantisation ranges of shape {:?} for embeddings of {} dimensions: expected [2, {}]",
            ranges.shape(),
            embeddings.cols,
            embeddings.cols
        )));
    }
    let (low, high) = (ranges.row(0), ranges.row(1));
    let steps: Vec<f32> = low.iter().zip(high).map(|(lo, hi)| (hi - lo) / 255.0).collect();
    let code = |x: f32, j: usize| {
        let step = if steps[j] == 0.0 { 1.0 } else { steps[j] };
        ((x - low[j]) / step).floor().clamp(0.0, 255.0) as u8
    };
    Ok((0..embeddings.rows).flat_map(|i| embeddings.row(i).iter().enumerate().map(move |(j, &x)| code(x, j))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_packed_from_the_highest() {
        let m = Matrix::new(1, 10, vec![1.0, -1.0, 0.0, 0.5, -0.1, 2.0, 3.0, -4.0, 1.0, 1.0]);
        let packed = quantize_embeddings(&m, Precision::Ubinary, None).unwrap();
        assert_eq!((packed.cols, packed.data), (2, QuantizedData::U8(vec![0b1001_0110, 0b1100_0000])));
        let signed = quantize_embeddings(&m, Precision::Binary, None).unwrap();
        assert_eq!(signed.data, QuantizedData::I8(vec![22, 64]));
    }

    #[test]
    fn bytes_cover_the_range_and_saturate_beyond_it() {
        let ranges = Ranges(Matrix::new(2, 2, vec![-1.0, 5.0, 254.0, 5.0]));
        let m = Matrix::new(4, 2, vec![-1.0, 5.0, 254.0, 5.0, -9.0, 4.0, 900.0, 6.5]);
        let codes = quantize_embeddings(&m, Precision::Uint8, Some(&ranges)).unwrap();
        assert_eq!(codes.data, QuantizedData::U8(vec![0, 0, 255, 0, 0, 0, 255, 1]));
    }

    #[test]
    fn ranges_that_none_can_have_are_told() {
        let ranges = |low: [f32; 2], high: [f32; 2]| Ranges(Matrix::new(2, 2, [low, high].concat()));
        assert!(ranges([-1.0, 0.5], [1.0, 0.5]).check().is_ok());
        assert!(Ranges(Matrix::zeros(1, 2)).check().is_err());
        let infinity = f32::INFINITY;
        for (low, high, told) in [
            ([0.0, 1.0], [1.0, -1.0], "dimension 1 is from 1 to -1"),
            ([0.0, f32::NAN], [1.0, 1.0], "dimension 1 is from NaN to 1"),
            ([0.0, 0.0], [infinity, 1.0], "dimension 0 is from 0 to inf"),
            ([-infinity, 0.0], [-infinity, 1.0], "dimension 0 is from -inf to -inf"),
            ([0.0, 0.0], [0.0, 0.0], "empty in every dimension"),
        ] {
            let error = ranges(low, high).check().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_single_row_needs_ranges_and_no_rows_need_nothing() {
        let one = Matrix::zeros(1, 4);
        assert!(quantize_embeddings(&one, Precision::Int8, None).is_err());
        assert!(quantize_embeddings(&one, Precision::Int8, Some(&Ranges(Matrix::zeros(2, 3)))).is_err());
        assert_eq!(quantize_embeddings(&Matrix::zeros(0, 4), Precision::Int8, None).unwrap().cols, 4);
    }
}
