//! The format of safetensors: <https://github.com/huggingface/safetensors#format>.

use serde_json::json;

/// Bytes of every header written here, its length included: room for any number of rows, so that it can be rewritten in
/// place once their number is known.
pub const HEADER_BYTES: usize = 320;

/// The header of a file that holds rows and, behind them, their numbers.
pub fn header(descr: &str, name: &str, rows: u64, cols: Option<usize>) -> [u8; HEADER_BYTES] {
    let (dtype, size) = match descr {
        "<f2" => ("F16", 2),
        "|i1" => ("I8", 1),
        "|u1" => ("U8", 1),
        _ => ("F32", 4),
    };
    let shape: Vec<u64> = std::iter::once(rows).chain(cols.map(|cols| cols as u64)).collect();
    let bytes = shape.iter().product::<u64>() * size;
    let tensors = json!({
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, bytes]},
        "index": {"dtype": "I64", "shape": [rows], "data_offsets": [bytes, bytes + 8 * rows]},
    });
    let tensors = tensors.to_string();
    let mut header = [b' '; HEADER_BYTES];
    header[..8].copy_from_slice(&(HEADER_BYTES as u64 - 8).to_le_bytes());
    // At most 140 digits and 125 other characters: it fits.
    header[8..8 + tensors.len()].copy_from_slice(tensors.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_header_fits() {
        let header = header("<f4", "embeddings", u64::MAX / (1 << 40), Some(1 << 20));
        assert_eq!(header.len() % 8, 0);
        let tensors: serde_json::Value = serde_json::from_slice(&header[8..]).unwrap();
        assert_eq!(tensors["index"]["shape"][0], u64::MAX / (1 << 40));
        assert!(header.iter().filter(|byte| **byte == b' ').count() > 40);
    }
}
