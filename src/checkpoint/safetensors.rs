//! One memory-mapped safetensors file: which tensors it holds, and rows of them as f32.
//!
//! The header comes from strangers. Its length is checked against the file before it is read, and every tensor's place
//! against the file before anything is computed from it, so that a truncated or lying file is an error with the offset,
//! never a large allocation or a read behind the end.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use serde::Deserialize;

use super::files::refuse_lfs_pointer;
use crate::error::{Error, Result};

/// The format's own limit for the JSON header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A memory-mapped safetensors file.
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    map: Mmap,
    tensors: HashMap<String, Tensor>,
}

/// Where a tensor lies, checked against the file.
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A tensor as the header describes it, unchecked.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl SafetensorsFile {
    /// Opens `path` and checks its header.
    pub(crate) fn open(path: &Path) -> Result<SafetensorsFile> {
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        if size < 8 {
            let detail = format!("offset 0: expected the 8 bytes of the header's length, the file has {size} bytes");
            return Err(Error::invalid_file(path, detail));
        }
        // SAFETY: the map is read-only. A file that another process shortens meanwhile would fault, as every
        // memory-mapping reader of weights accepts; blobs of the hub's cache are never rewritten in place.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        refuse_lfs_pointer(path, &map)?;
        let tensors = read_header(&map).map_err(|detail| Error::invalid_file(path, detail))?;
        Ok(SafetensorsFile { path: path.to_path_buf(), map, tensors })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What its tensors are stored in; the same name comes once a tensor.
    pub(crate) fn dtypes(&self) -> impl Iterator<Item = &str> {
        self.tensors.values().map(|tensor| tensor.dtype.as_str())
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Rows `rows` (along the first dimension) of a tensor, as f32.
    pub(crate) fn read(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>> {
        let weight = |expected: String, found: String| Error::Weight { name: name.to_string(), expected, found };
        let file = self.path.display();
        let Some(tensor) = self.tensors.get(name) else {
            return Err(weight("a tensor".to_string(), format!("no such tensor in {file}")));
        };
        let all = tensor.shape.first().copied().unwrap_or(1);
        if rows.start > rows.end || rows.end > all {
            return Err(weight(format!("rows {rows:?}"), format!("{all} rows in {file}")));
        }
        let row_bytes = tensor.bytes.len().checked_div(all).unwrap_or(0);
        let start = tensor.bytes.start;
        let bytes = &self.map[start + rows.start * row_bytes..start + rows.end * row_bytes];
        let values: Vec<f32> = match tensor.dtype.as_str() {
            "F32" => bytes.as_chunks().0.iter().map(|&element| f32::from_le_bytes(element)).collect(),
            "F16" => bytes.as_chunks().0.iter().map(|&element| f16::from_le_bytes(element).to_f32()).collect(),
            "BF16" => bytes.as_chunks().0.iter().map(|&element| bf16::from_le_bytes(element).to_f32()).collect(),
            "F64" => bytes.as_chunks().0.iter().map(|&element| f64::from_le_bytes(element) as f32).collect(),
            "I64" => bytes.as_chunks().0.iter().map(|&element| i64::from_le_bytes(element) as f32).collect(),
            "I32" => bytes.as_chunks().0.iter().map(|&element| i32::from_le_bytes(element) as f32).collect(),
            other => {
                return Err(weight(
                    "dtype F32, F16, BF16, F64, I64 or I32".to_string(),
                    format!("dtype {other} in {file}"),
                ));
            }
        };
        if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
            let columns = tensor.shape.iter().product::<usize>().checked_div(all).unwrap_or(0);
            let index = rows.start * columns + bad;
            return Err(weight("finite numbers".to_string(), format!("{} at element {index} in {file}", values[bad])));
        }
        self.forget(start + rows.start * row_bytes, bytes.len());
        Ok(values)
    }

    /// Takes read bytes out of this process's memory, so that loading holds a tensor at a time and not the whole file. They
    /// stay in the system's cache, and reading them again is right, only slower.
    fn forget(&self, start: usize, length: usize) {
        #[cfg(unix)]
        if length > 0 {
            // SAFETY: the mapping is read-only and backed by its file: what is dropped is read from there again.
            let dropped = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
            if let Err(error) = dropped {
                log::debug!("{}: {error}", self.path.display()); // more memory for a while, and nothing else
            }
        }
        #[cfg(not(unix))]
        let _ = (start, length);
    }
}

/// The tensors that the file `map` describes; else what is wrong with it.
fn read_header(map: &[u8]) -> Result<HashMap<String, Tensor>, String> {
    let (length, rest) = map.split_first_chunk::<8>().ok_or("offset 0: the header's length is cut short")?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(format!("offset 0: a header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed"));
    }
    if length > rest.len() as u64 {
        return Err(format!("offset 8: expected a header of {length} bytes, the file has only {} more", rest.len()));
    }
    let (header, data) = rest.split_at(length as usize);
    let data_start = 8 + header.len();
    let mut described: HashMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| format!("offset 8: the header is not valid JSON: {error}"))?;
    described.remove("__metadata__");

    let mut tensors = HashMap::with_capacity(described.len());
    for (name, value) in described {
        let Described { dtype, shape, data_offsets: [begin, end] } = serde_json::from_value(value)
            .map_err(|error| format!("offset 8: the header's entry of tensor '{name}' is malformed: {error}"))?;
        if begin > end || end > data.len() {
            return Err(format!(
                "tensor '{name}': expected bytes {begin}..{end} behind offset {data_start}, the file has {} there: it is \
                 truncated or its header lies; get the file again",
                data.len()
            ));
        }
        let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if let Some(size) = element_bytes(&dtype) {
            let expected = elements.and_then(|count| count.checked_mul(size));
            if expected != Some(end - begin) {
                let expected = expected.map_or("more than can be counted".to_string(), |bytes| bytes.to_string());
                let (at, found) = (data_start + begin, end - begin);
                return Err(format!(
                    "tensor '{name}' at offset {at}: shape {shape:?} of {dtype} needs {expected} bytes, it has {found}"
                ));
            }
        }
        tensors.insert(name, Tensor { dtype, shape, bytes: data_start + begin..data_start + end });
    }
    Ok(tensors)
}

/// Bytes of one element; `None` for a dtype that is never read.
fn element_bytes(dtype: &str) -> Option<usize> {
    match dtype {
        "F64" | "I64" => Some(8),
        "F32" | "I32" => Some(4),
        "F16" | "BF16" => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn rows_in_every_dtype() {
        let header = r#"{"__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "F16", "shape": [3], "data_offsets": [16, 22]},
            "c": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [22, 26]},
            "ids": {"dtype": "I64", "shape": [1], "data_offsets": [26, 34]},
            "mask": {"dtype": "BOOL", "shape": [1], "data_offsets": [34, 35]}}"#;
        let mut data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        data.extend([0.5f32, -1.0, 65504.0].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
        data.extend([1.5f32, -2.0].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
        data.extend(7i64.to_le_bytes());
        data.push(1);
        let (_folder, path) = file_with(&with_header(header, &data));
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.read("a", 1..2).unwrap(), [3.0, 4.0]);
        assert_eq!(file.read("a", 0..0).unwrap(), [0f32; 0]);
        assert_eq!(file.read("b", 0..3).unwrap(), [0.5, -1.0, 65504.0]);
        assert_eq!(file.read("c", 0..1).unwrap(), [1.5, -2.0]);
        assert_eq!(file.read("ids", 0..1).unwrap(), [7.0]);
        assert!(file.read("mask", 0..1).unwrap_err().to_string().contains("BOOL"));
        assert!(file.read("a", 1..3).is_err() && file.read("z", 0..1).is_err());
        assert_eq!(file.shape("a"), Some(&[2, 2][..]));
        assert_eq!(file.tensors.len(), 5);
    }

    #[test]
    fn truncated_and_lying_files() {
        let tensor = |shape: &str, end: &str| {
            format!(r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, {end}]}}}}"#)
        };
        let cases = [
            (vec![], "the file has 0 bytes"),
            (vec![1, 0, 0], "the file has 3 bytes"),
            (u64::MAX.to_le_bytes().to_vec(), "offset 0: a header of 18446744073709551615 bytes"),
            (1000u64.to_le_bytes().to_vec(), "offset 8: expected a header of 1000 bytes, the file has only 0 more"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(), "run `git lfs pull`"),
            (with_header("{", &[]), "offset 8: the header is not valid JSON"),
            (with_header(r#"{"a": 1}"#, &[]), "entry of tensor 'a'"),
            (with_header(&tensor("[2]", "8"), &[0; 7]), "expected bytes 0..8"),
            (with_header(&tensor("[3]", "8"), &[0; 8]), "needs 12 bytes, it has 8"),
            (with_header(&tensor("[4294967296, 4294967296]", "8"), &[0; 8]), "more than can be counted"),
            (with_header(&tensor("[2]", "-8"), &[0; 8]), "malformed"),
        ];
        for (bytes, complaint) in cases {
            let (_folder, path) = file_with(&bytes);
            let message = SafetensorsFile::open(&path).err().expect("refused").to_string();
            assert!(message.contains("model.safetensors") && message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn not_a_number_is_named() {
        let header = r#"{"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}"#;
        let data: Vec<u8> = [1f32, 2.0, 3.0, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        let (_folder, path) = file_with(&with_header(header, &data));
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.read("w", 0..1).unwrap(), [1.0, 2.0]);
        let message = file.read("w", 1..2).unwrap_err().to_string();
        assert!(message.contains("'w'") && message.contains("NaN at element 3"), "{message}");
    }

    #[test]
    fn agrees_with_the_format_crate() {
        let data: Vec<u8> = (0..6).flat_map(|x| (x as f32).to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3, 2], &data).unwrap();
        let bytes = safetensors::serialize([("x", &view)], None).unwrap();
        let (_folder, path) = file_with(&bytes);
        assert_eq!(SafetensorsFile::open(&path).unwrap().read("x", 0..3).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}
