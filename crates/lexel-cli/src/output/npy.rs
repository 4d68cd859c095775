//! NumPy's array file, version 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use crate::failure::{DATA, Failure};
use lexel::Matrix;
use std::path::Path;

/// Bytes of every header written here: room for any number of rows, so that it can be rewritten in place once their
/// number is known. A multiple of 64, as the format asks.
pub const HEADER_BYTES: usize = 128;

const MAGIC: &[u8] = b"\x93NUMPY";

/// The header of a C-ordered array `[rows, cols]`, or `[rows]`.
pub fn header(descr: &str, rows: usize, cols: Option<usize>) -> [u8; HEADER_BYTES] {
    let cols = cols.map_or_else(String::new, |cols| format!(" {cols}"));
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows},{cols}), }}");
    let mut header = [b' '; HEADER_BYTES];
    header[..6].copy_from_slice(MAGIC);
    header[6..8].copy_from_slice(&[1, 0]);
    header[8..10].copy_from_slice(&((HEADER_BYTES - 10) as u16).to_le_bytes());
    // At most 40 digits and 58 other characters: it fits.
    header[10..10 + dict.len()].copy_from_slice(dict.as_bytes());
    header[HEADER_BYTES - 1] = b'\n';
    header
}

/// The type and shape of a file that begins so.
pub fn describe(bytes: &[u8]) -> Option<(String, Vec<usize>)> {
    let dict = std::str::from_utf8(bytes.strip_prefix(MAGIC)?.get(4..)?).ok()?;
    let between =
        |key: &str, open: char, close: char| Some(dict.split_once(&format!("'{key}': {open}"))?.1.split_once(close)?.0);
    let shape = between("shape", '(', ')')?.split(',').map(str::trim).filter(|n| !n.is_empty());
    Some((between("descr", '\'', '\'')?.to_string(), shape.map(str::parse).collect::<Result<_, _>>().ok()?))
}

/// Reads a file of little-endian float32 in two dimensions.
pub fn read(path: &Path) -> Result<Matrix, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
    parse(&bytes).ok_or_else(|| {
        Failure::new(DATA, format!("{} is not a .npy file of float32 with two dimensions", path.display()))
    })
}

fn parse(bytes: &[u8]) -> Option<Matrix> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (dict_start, dict_len) = match rest.first()? {
        1 => (10, u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?) as usize),
        2 | 3 => (12, u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize),
        _ => return None,
    };
    let dict = std::str::from_utf8(bytes.get(dict_start..dict_start + dict_len)?).ok()?;
    let data = &bytes[dict_start + dict_len..];
    let value = |key: &str| Some(dict.split_once(&format!("'{key}':"))?.1.trim_start());
    if !value("descr")?.starts_with("'<f4'") || !value("fortran_order")?.starts_with("False") {
        return None;
    }
    let shape = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let shape: Vec<usize> = shape.split(',').map(|n| n.trim().parse()).collect::<Result<_, _>>().ok()?;
    let [rows, cols] = shape[..] else { return None };
    if data.len() != rows.checked_mul(cols)?.checked_mul(4)? {
        return None;
    }
    let numbers = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Some(Matrix::new(rows, cols, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_header_fits_and_the_data_begins_where_it_says() {
        let header = header("<f4", usize::MAX, Some(usize::MAX));
        assert_eq!(header[HEADER_BYTES - 1], b'\n');
        assert_eq!(u16::from_le_bytes([header[8], header[9]]) as usize + 10, HEADER_BYTES);
        assert!(String::from_utf8_lossy(&header).contains("18446744073709551615), }"));
        assert!(String::from_utf8_lossy(&super::header("<f4", 7, None)).contains("'shape': (7,), }"));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = header("<f4", 2, Some(1)).to_vec();
        bytes.extend([1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()));
        assert_eq!(parse(&bytes), Some(Matrix::new(2, 1, vec![1.5, -2.0])));
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(parse(b"\x93NUMPY"), None);
        assert_eq!(parse(&header("<f8", 0, Some(1))), None);
    }
}
