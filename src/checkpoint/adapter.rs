//! Low-rank adapters (LoRA, Hu et al. 2021): what fine-tuning adds to some matrices, `W + s * B * A`. They are added while weights
//! are read.
//!
//! They come in two forms: PEFT's, a folder with `adapter_config.json` and `adapter_model.safetensors`, and that of
//! jina-embeddings-v3, whose checkpoint has an adapter for each task beside every matrix.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::adapter_names::{is_head, places};
use super::adapter_scaling::PeftScaling;
use super::config::JsonFile;
use super::files::{TOKENIZER_FILE, classes, join_inside};
use super::module_weights::{ModuleWeights, PREFIXES};
use super::modules::MODULES_FILE;
use super::safetensors::SafetensorsFile;
use crate::error::{Error, Result};

/// Describes an adapter of PEFT.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// How PyTorch names a matrix that has something beside it.
pub(super) const ORIGINAL: &str = "parametrizations.weight.original";

/// What is added to tensors, by their stored names.
pub(super) type Deltas = BTreeMap<String, Vec<Delta>>;

/// An adapter that is to be merged into a model's weights.
pub(crate) struct Adapter {
    name: String,
    /// Where it is from, unless it is one of the model's own.
    folder: Option<PathBuf>,
    form: Form,
}

enum Form {
    /// A file of its own.
    Peft { file: SafetensorsFile, scaling: Box<PeftScaling> },
    /// One of several in the model's own file, of this rank, and what its `B * A` is multiplied by.
    Task { index: usize, rank: usize, scaling: f32 },
}

/// What is added to some rows of a matrix, `[rows, cols]`: `scaling * left * right`.
pub(super) struct Delta {
    /// The first of the rows.
    first: usize,
    /// `[rows, rank]`
    left: Vec<f32>,
    /// `[rank, cols]`
    right: Vec<f32>,
    rank: usize,
    cols: usize,
    scaling: f32,
}

impl Adapter {
    /// The adapter `name` for a transformer of this configuration: one of its tasks, a folder, or a folder inside the model's
    /// `folders`, its own first.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is none of these, [`Error::Unsupported`] for a kind of adapter that lexel does not know.
    pub fn find(name: &str, folders: [&Path; 2], config: &JsonFile) -> Result<Adapter> {
        let tasks = tasks(config)?;
        if let Some(index) = tasks.iter().position(|task| task == name) {
            let (rank, alpha) = (config.usize_or("lora_rank", 4)?, config.f32_or("lora_alpha", 1.0)?);
            let scaling = alpha / positive(config, "lora_rank", rank)?;
            return Ok(Adapter { name: name.into(), folder: None, form: Form::Task { index, rank, scaling } });
        }
        let inside = folders.iter().filter_map(|folder| join_inside(folder, name).ok());
        let found = [Path::new(name).to_path_buf()].into_iter().chain(inside);
        let found = found.into_iter().find(|folder| folder.join(ADAPTER_CONFIG).is_file());
        let Some(folder) = found else {
            let tasks = match tasks[..] {
                [] => String::new(),
                _ => format!("; the model has {}", tasks.join(", ")),
            };
            let detail =
                format!("no folder of that name, here or in {}, has {ADAPTER_CONFIG}{tasks}", folders[0].display());
            return Err(Error::NotFound { what: format!("adapter '{name}'"), detail });
        };
        if folder.join(MODULES_FILE).is_file() {
            let supported = "none, in an adapter for another model: load this folder as the model";
            let file = folder.join(MODULES_FILE).display().to_string();
            return Err(Error::unsupported(file, "type", "modules of its own", supported));
        }
        Adapter::of_peft(name, &folder)
    }

    /// That of PEFT in `folder`.
    ///
    /// # Errors
    /// As [`Adapter::find`].
    pub fn of_peft(name: &str, folder: &Path) -> Result<Adapter> {
        let scaling = Box::new(PeftScaling::read(&JsonFile::read(&folder.join(ADAPTER_CONFIG))?)?);
        let path = folder.join(ADAPTER_WEIGHTS);
        if !path.is_file() {
            let detail = "an adapter that is stored otherwise must be saved as that";
            return Err(Error::NotFound { what: path.display().to_string(), detail: detail.into() });
        }
        let form = Form::Peft { file: SafetensorsFile::open(&path)?, scaling };
        Ok(Adapter { name: name.into(), folder: Some(folder.to_path_buf()), form })
    }

    /// Where it is from, unless it is one of the model's own.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Its name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it adds to the matrices of a transformer, by their stored names.
    ///
    /// # Errors
    /// [`Error::Weight`] if it belongs to another model.
    pub(super) fn deltas(&self, module: &ModuleWeights) -> Result<Deltas> {
        match &self.form {
            Form::Peft { file, scaling } => self.peft_deltas(file, scaling, module),
            Form::Task { index, rank, scaling } => task_deltas(*index, *rank, *scaling, module),
        }
    }

    fn peft_deltas(&self, file: &SafetensorsFile, scaling: &PeftScaling, module: &ModuleWeights) -> Result<Deltas> {
        let mut deltas = Deltas::new();
        let mut names: Vec<&str> = file.names().collect();
        names.sort();
        for name in names {
            let Some((path, kind)) = KINDS.iter().find_map(|kind| Some((name.strip_suffix(kind.a)?, kind))) else {
                let other = KINDS.iter().find_map(|kind| Some(format!("{}{}", name.strip_suffix(kind.b)?, kind.a)));
                match other.is_some_and(|a| file.shape(&a).is_some()) {
                    true => continue, // read with the other
                    false => return Err(weight(name, "a pair of lora_A and lora_B", "another tensor in an adapter")),
                }
            };
            let layer = path.strip_prefix("base_model.model.").unwrap_or(path);
            let (rank, scaling) = scaling.of(layer)?;
            let read = |name: &str, expected: &str, fits: fn(&[usize], usize) -> bool| {
                let Some(&[rows, cols]) = file.shape(name).filter(|shape| fits(shape, rank)) else {
                    let found = file.shape(name).map_or("none".to_string(), |shape| format!("{shape:?}"));
                    return Err(weight(name, &expected.replace("RANK", &rank.to_string()), &found));
                };
                Ok((file.read(name, 0..rows)?, rows, cols))
            };
            let (a, _, cols) = read(name, "[RANK, columns]", |shape, rank| shape.len() == 2 && shape[0] == rank)?;
            let b = format!("{path}{}", kind.b);
            let (b, rows, _) = read(&b, "[rows, RANK]", |shape, rank| shape.len() == 2 && shape[1] == rank)?;
            let (left, right, rows, cols) = match kind.is_table {
                false => (b, a, rows, cols),
                true => (transposed(&a, cols), transposed(&b, rank), cols, rows),
            };
            let Some((stored, part, parts)) = place_of(layer, module) else {
                if PREFIXES.iter().any(|prefix| layer.strip_prefix(prefix).is_some_and(is_head)) {
                    log::warn!("{}: {layer} is in no tensor of {}", self.name, module.path.display());
                    continue;
                }
                return Err(weight(layer, "a matrix of the model", "an adapter that belongs to another"));
            };
            let shape = module.shape(&stored).unwrap_or_default();
            if shape != [rows * parts, cols] {
                let found = format!("[{rows}, {cols}] in the adapter, for one of {parts} parts");
                return Err(weight(&stored, &format!("{shape:?}"), &found));
            }
            let of_tensor = deltas.entry(stored.clone()).or_default();
            let first = part * rows;
            if of_tensor.iter().any(|delta: &Delta| delta.first == first) {
                return Err(weight(&stored, "one adapter", "two, by names that mean the same"));
            }
            of_tensor.push(Delta { first, left, right, rank, cols, scaling });
        }
        match deltas.is_empty() {
            true => Err(weight("lora_A", "some in an adapter", "none")),
            false => Ok(deltas),
        }
    }
}

/// What the adapter of one of the model's own tasks adds.
fn task_deltas(index: usize, rank: usize, scaling: f32, module: &ModuleWeights) -> Result<Deltas> {
    let mut deltas = Deltas::new();
    for stored in module.names().filter(|name| name.ends_with(ORIGINAL)) {
        let beside = |which: &str| stored.replace("original", &format!("0.lora_{which}"));
        let read = |name: &str| {
            let shape = module.shape(name).filter(|shape| shape.len() == 3 && index < shape[0]);
            let shape = shape.ok_or_else(|| weight(name, "[tasks, rows, columns]", "another shape, or none"))?;
            Ok::<_, Error>((module.read(name, index..index + 1)?, shape[1], shape[2]))
        };
        let (a, b) = (read(&beside("A"))?, read(&beside("B"))?);
        // Of a table of tokens A comes first.
        let [rows, cols] = module.shape(stored).and_then(|shape| shape.try_into().ok()).unwrap_or([0, 0]);
        let is_matrix = (b.1, b.2, a.1, a.2) == (rows, rank, rank, cols);
        let is_table = (a.1, a.2, b.1, b.2) == (rows, rank, rank, cols);
        if !is_matrix && !is_table {
            let found = format!("[{}, {}] and [{}, {}] of rank {rank} in the adapter", a.1, a.2, b.1, b.2);
            return Err(weight(stored, &format!("[{rows}, {cols}]"), &found));
        }
        let (left, right) = if is_matrix { (b.0, a.0) } else { (a.0, b.0) };
        deltas.insert(stored.to_string(), vec![Delta { first: 0, left, right, rank, cols, scaling }]);
    }
    match deltas.is_empty() {
        true => Err(weight(ORIGINAL, "matrices with adapters", "none in the model")),
        false => Ok(deltas),
    }
}

/// How PEFT ends the names of a pair.
struct Kind {
    a: &'static str,
    b: &'static str,
    /// Of a table of tokens, whose parts are stored as they meet a token's number.
    is_table: bool,
}

const KINDS: [Kind; 2] = [
    Kind { a: ".lora_A.weight", b: ".lora_B.weight", is_table: false },
    Kind { a: ".lora_embedding_A", b: ".lora_embedding_B", is_table: true },
];

/// The stored tensor that has a layer of an adapter, the layer's part of it, and how many parts there are.
fn place_of(path: &str, module: &ModuleWeights) -> Option<(String, usize, usize)> {
    let bare = PREFIXES.into_iter().filter_map(|prefix| path.strip_prefix(prefix));
    bare.flat_map(places).find_map(|place| {
        let (_, stored) = module.find(&format!("{}.weight", place.name))?;
        Some((stored, place.part, place.parts))
    })
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Delta {
    /// Adds what it has of the rows `rows` to `values`, those rows of the matrix.
    pub fn add(&self, rows: Range<usize>, values: &mut [f32]) {
        let own = self.first..self.first + self.left.len() / self.rank;
        let (from, to) = (rows.start.max(own.start), rows.end.min(own.end));
        if from >= to {
            return;
        }
        let values = &mut values[(from - rows.start) * self.cols..(to - rows.start) * self.cols];
        let left = &self.left[(from - own.start) * self.rank..(to - own.start) * self.rank];
        for (row, left) in values.chunks_exact_mut(self.cols).zip(left.chunks_exact(self.rank)) {
            for (factor, right) in left.iter().zip(self.right.chunks_exact(self.cols)) {
                let factor = factor * self.scaling;
                row.iter_mut().zip(right).for_each(|(value, right)| *value += factor * right);
            }
        }
    }
}

/// The folders of the models that adapters change which stand in the place of a transformer, by the adapters' folders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bases(BTreeMap<PathBuf, PathBuf>);

impl Bases {
    /// Those of a repository's transformers; `resolve` finds the folder of a model by its id.
    ///
    /// # Errors
    /// Those of `resolve`; [`Error::InvalidFile`] for an adapter that does not say what it changes.
    pub fn of(folder: &Path, resolve: impl Fn(&str) -> Result<PathBuf>) -> Result<Bases> {
        let mut bases = BTreeMap::new();
        for (class, module) in classes(folder)? {
            let path = join_inside(folder, &module).map_err(|detail| Error::invalid_file(folder, detail))?;
            if matches!(class.as_str(), "Transformer" | "MLMTransformer") && path.join(ADAPTER_CONFIG).is_file() {
                let base = resolve(JsonFile::read(&path.join(ADAPTER_CONFIG))?.str("base_model_name_or_path")?)?;
                bases.insert(path, base);
            }
        }
        Ok(Bases(bases))
    }

    /// The models' folders.
    pub fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.values()
    }

    /// The folder with the backbone of the module in `folder`: that one, unless an adapter is in its place.
    pub fn backbone_of<'a>(&'a self, folder: &'a Path) -> &'a Path {
        self.0.get(folder).map_or(folder, PathBuf::as_path)
    }
}

/// The folder with the tokenizer of a module in the folder `own`: an adapter may leave it with its base model.
pub(super) fn tokenizer_folder<'a>(own: &'a Path, backbone: &'a Path) -> &'a Path {
    let has_own = [TOKENIZER_FILE, "vocab.txt"].iter().any(|name| own.join(name).is_file());
    if has_own { own } else { backbone }
}

/// The tasks for which a checkpoint has adapters of its own.
pub(crate) fn tasks(config: &JsonFile) -> Result<Vec<String>> {
    let tasks = config.strings_opt("lora_adaptations")?.unwrap_or_default();
    Ok(tasks.into_iter().map(str::to_string).collect())
}

pub(super) fn positive(config: &JsonFile, key: &str, number: usize) -> Result<f32> {
    match number {
        0 => Err(config.invalid(key, "at least 1")),
        number => Ok(number as f32),
    }
}

fn weight(name: &str, expected: &str, found: &str) -> Error {
    Error::Weight { name: name.to_string(), expected: expected.to_string(), found: found.to_string() }
}

/// `[rows, cols]` to `[cols, rows]`.
fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|column| values[column.min(values.len())..].iter().step_by(cols.max(1))).copied().collect()
}

#[cfg(test)]
mod tests;
