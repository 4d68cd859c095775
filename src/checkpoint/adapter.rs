//! Low-rank adapters (LoRA, Hu et al. 2021): what fine-tuning adds to some matrices, `W + s * B * A`. They are added while weights
//! are read.
//!
//! They come in two forms: PEFT's, a folder with `adapter_config.json` and `adapter_model.safetensors`, and that of
//! jina-embeddings-v3, whose checkpoint has an adapter for each task beside every matrix.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::config::JsonFile;
use super::files::{classes, join_inside};
use super::module_weights::{ModuleWeights, PREFIXES};
use super::safetensors::SafetensorsFile;
use crate::error::{Error, Result};

/// Describes an adapter of PEFT.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// How PyTorch names a matrix that has something beside it.
pub(super) const ORIGINAL: &str = "parametrizations.weight.original";

/// An adapter that is to be merged into a model's weights.
pub(crate) struct Adapter {
    name: String,
    form: Form,
    /// What `B * A` is multiplied by.
    scaling: f32,
}

enum Form {
    /// A file of its own.
    Peft(SafetensorsFile),
    /// One of several in the model's own file.
    Task(usize),
}

/// What is added to a matrix `[rows, cols]`: `scaling * left * right`.
pub(super) struct Delta {
    /// `[rows, rank]`
    left: Vec<f32>,
    /// `[rank, cols]`
    right: Vec<f32>,
    rank: usize,
    cols: usize,
    scaling: f32,
}

impl Adapter {
    /// The adapter `name` for the transformer in the folder `module`: one of its configuration's tasks, a folder, or a folder inside
    /// the transformer's.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is none of these, [`Error::Unsupported`] for a kind of adapter that lexel does not know.
    pub fn find(name: &str, module: &Path, config: &JsonFile) -> Result<Adapter> {
        let tasks = tasks(config)?;
        if let Some(index) = tasks.iter().position(|task| task == name) {
            let (rank, alpha) = (config.usize_or("lora_rank", 4)?, config.f32_or("lora_alpha", 1.0)?);
            let scaling = alpha / positive(config, "lora_rank", rank)?;
            return Ok(Adapter { name: name.into(), form: Form::Task(index), scaling });
        }
        let folders = [Some(Path::new(name).to_path_buf()), join_inside(module, name).ok()];
        let found = folders.into_iter().flatten().find(|folder| folder.join(ADAPTER_CONFIG).is_file());
        let Some(folder) = found else {
            let tasks = match tasks[..] {
                [] => String::new(),
                _ => format!("; the model has {}", tasks.join(", ")),
            };
            let detail =
                format!("no folder of that name, here or in {}, has {ADAPTER_CONFIG}{tasks}", module.display());
            return Err(Error::NotFound { what: format!("adapter '{name}'"), detail });
        };
        Adapter::of_peft(name, &folder)
    }

    /// That of PEFT in `folder`.
    ///
    /// # Errors
    /// As [`Adapter::find`].
    pub fn of_peft(name: &str, folder: &Path) -> Result<Adapter> {
        let scaling = peft_scaling(&JsonFile::read(&folder.join(ADAPTER_CONFIG))?)?;
        let form = Form::Peft(SafetensorsFile::open(&folder.join(ADAPTER_WEIGHTS))?);
        Ok(Adapter { name: name.into(), form, scaling })
    }

    /// Its name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it adds to the matrices of a transformer, by their stored names.
    ///
    /// # Errors
    /// [`Error::Weight`] if it belongs to another model.
    pub(super) fn deltas(&self, module: &ModuleWeights) -> Result<HashMap<String, Delta>> {
        match &self.form {
            Form::Peft(file) => self.peft_deltas(file, module),
            Form::Task(index) => self.task_deltas(*index, module),
        }
    }

    fn peft_deltas(&self, file: &SafetensorsFile, module: &ModuleWeights) -> Result<HashMap<String, Delta>> {
        const KINDS: [(&str, &str, bool); 2] =
            [(".lora_A.weight", ".lora_B.weight", false), (".lora_embedding_A", ".lora_embedding_B", true)];
        let mut deltas = HashMap::new();
        for a in file.names() {
            let Some((end_a, end_b, is_table)) = KINDS.into_iter().find(|(end_a, ..)| a.ends_with(end_a)) else {
                match KINDS.iter().any(|(_, end_b, _)| a.ends_with(end_b)) {
                    true => continue,
                    false => return Err(weight(a, "lora_A or lora_B", "another tensor in an adapter")),
                }
            };
            let path = a.strip_suffix(end_a).unwrap_or(a);
            let b = format!("{path}{end_b}");
            let path = path.strip_prefix("base_model.model.").unwrap_or(path);
            let bare = PREFIXES.into_iter().filter_map(|prefix| path.strip_prefix(prefix));
            let stored = bare.flat_map(|bare| [format!("{}{bare}.weight", module.prefix), format!("{bare}.weight")]);
            let stored = stored.into_iter().find(|name| module.shape(name).is_some());
            let Some(stored) = stored else {
                return Err(weight(path, "a matrix of the model", "an adapter that belongs to another"));
            };
            let read = |name: &str| {
                let shape = file.shape(name).filter(|shape| shape.len() == 2);
                let rows = shape.map_or(0, |shape| shape[0]);
                Ok::<_, Error>((file.read(name, 0..rows)?, rows))
            };
            let ((a, rank), (b, rows)) = (read(a)?, read(&b)?);
            let cols = a.len().checked_div(rank).unwrap_or(0);
            let (left, right, rows, cols) = match is_table {
                false => (b, a, rows, cols),
                true => (transposed(&a, cols), transposed(&b, rank), cols, rows),
            };
            let delta = Delta { left, right, rank, cols, scaling: self.scaling };
            deltas.insert(stored.clone(), delta.checked(&stored, rows, module)?);
        }
        Ok(deltas)
    }

    fn task_deltas(&self, index: usize, module: &ModuleWeights) -> Result<HashMap<String, Delta>> {
        let mut deltas = HashMap::new();
        for stored in module.names().filter(|name| name.ends_with(ORIGINAL)) {
            let beside = |which: &str| stored.replace("original", &format!("0.lora_{which}"));
            let read = |name: &str| {
                let shape = module.shape(name).filter(|shape| shape.len() == 3 && index < shape[0]);
                let shape = shape.ok_or_else(|| weight(name, "[tasks, rows, cols]", "another shape, or none"))?;
                Ok::<_, Error>((module.read(name, index..index + 1)?, shape[1], shape[2]))
            };
            let (a, b) = (read(&beside("A"))?, read(&beside("B"))?);
            // Of a table of tokens A comes first.
            let [rows, cols] = module.shape(stored).and_then(|shape| shape.try_into().ok()).unwrap_or([0, 0]);
            let (left, right) = if (b.1, a.2) == (rows, cols) { (b, a) } else { (a, b) };
            let (rows, rank, cols) = (left.1, right.1, right.2);
            let delta = Delta { left: left.0, right: right.0, rank, cols, scaling: self.scaling };
            deltas.insert(stored.to_string(), delta.checked(stored, rows, module)?);
        }
        match deltas.is_empty() {
            true => Err(weight(ORIGINAL, "matrices with adapters", "none in the model")),
            false => Ok(deltas),
        }
    }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").field("name", &self.name).field("scaling", &self.scaling).finish_non_exhaustive()
    }
}

impl Delta {
    /// Itself, if its shape is that of the tensor `stored`.
    fn checked(self, stored: &str, rows: usize, module: &ModuleWeights) -> Result<Delta> {
        let shape = module.shape(stored).unwrap_or_default();
        let fits = self.left.len() == rows * self.rank && self.right.len() == self.rank * self.cols;
        match fits && shape == [rows, self.cols] {
            true => Ok(self),
            false => Err(weight(stored, &format!("{shape:?}"), &format!("[{rows}, {}] in the adapter", self.cols))),
        }
    }

    /// Adds its rows `rows` to `values`, those rows of the matrix.
    pub fn add(&self, rows: Range<usize>, values: &mut [f32]) {
        let left = self.left[rows.start * self.rank..rows.end * self.rank].chunks_exact(self.rank);
        for (row, left) in values.chunks_exact_mut(self.cols).zip(left) {
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

    /// The folder with the backbone of the module in `folder`: that one, unless an adapter is in its place.
    pub fn backbone_of<'a>(&'a self, folder: &'a Path) -> &'a Path {
        self.0.get(folder).map_or(folder, PathBuf::as_path)
    }
}

/// The tasks for which a checkpoint has adapters of its own.
pub(crate) fn tasks(config: &JsonFile) -> Result<Vec<String>> {
    let tasks = config.strings_opt("lora_adaptations")?.unwrap_or_default();
    Ok(tasks.into_iter().map(str::to_string).collect())
}

fn peft_scaling(config: &JsonFile) -> Result<f32> {
    if config.str("peft_type")? != "LORA" {
        return Err(config.unsupported("peft_type", "LORA"));
    }
    for key in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        if config.bool_or(key, false)? {
            return Err(config.unsupported(key, "false"));
        }
    }
    if config.str_or("bias", "none")? != "none" {
        return Err(config.unsupported("bias", "none"));
    }
    for key in ["modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices"] {
        let is_empty = |value: &serde_json::Value| {
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        if config.get(key).is_some_and(|value| !is_empty(value)) {
            return Err(config.unsupported(key, "null"));
        }
    }
    let (rank, alpha) = (config.usize_or("r", 8)?, config.f32_or("lora_alpha", 8.0)?);
    let rank = positive(config, "r", rank)?;
    Ok(alpha / if config.bool_or("use_rslora", false)? { rank.sqrt() } else { rank })
}

fn positive(config: &JsonFile, key: &str, number: usize) -> Result<f32> {
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
mod tests {
    use super::*;
    use serde_json::Value;

    fn config(text: &str) -> JsonFile {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { panic!("the test's JSON is an object") };
        JsonFile::from_object(ADAPTER_CONFIG, object)
    }

    #[test]
    fn what_pefts_adapters_are_multiplied_by() {
        for (text, expected) in [
            (r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", "rank_pattern": {}}"#, 1.5),
            (r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": true, "modules_to_save": null}"#, 3.0),
        ] {
            assert_eq!(peft_scaling(&config(text)).unwrap(), expected, "{text}");
        }
        for (more, named) in [
            (r#""use_dora": true"#, "use_dora"),
            (r#""bias": "lora_only""#, "bias"),
            (r#""modules_to_save": ["classifier"]"#, "modules_to_save"),
            (r#""alpha_pattern": {"query": 3}"#, "alpha_pattern"),
            (r#""r": 0"#, "r: expected at least 1"),
        ] {
            let message =
                peft_scaling(&config(&format!(r#"{{"peft_type": "LORA", {more}}}"#))).unwrap_err().to_string();
            assert!(message.contains(named) && message.contains(ADAPTER_CONFIG), "{message}");
        }
        assert!(peft_scaling(&config(r#"{"peft_type": "IA3"}"#)).is_err());
    }

    #[test]
    fn an_adapter_in_the_place_of_a_model_names_its_base() {
        let folder = tempfile::tempdir().unwrap();
        let bases = || Bases::of(folder.path(), |base| Ok(Path::new("models").join(base)));
        assert_eq!(bases().unwrap().backbone_of(folder.path()), folder.path());
        std::fs::write(folder.path().join(ADAPTER_CONFIG), r#"{"peft_type": "LORA"}"#).unwrap();
        assert!(bases().unwrap_err().to_string().contains("base_model_name_or_path"));
        let text = r#"{"base_model_name_or_path": "microsoft/mpnet-base"}"#;
        std::fs::write(folder.path().join(ADAPTER_CONFIG), text).unwrap();
        assert_eq!(bases().unwrap().backbone_of(folder.path()), Path::new("models/microsoft/mpnet-base"));
        assert_eq!(bases().unwrap().backbone_of(Path::new("1_Pooling")), Path::new("1_Pooling"));
    }

    #[test]
    fn a_delta_is_a_product_of_narrow_matrices() {
        let delta = Delta {
            left: vec![1.0, 2.0, 3.0, 4.0],
            right: vec![1.0, 0.0, 5.0, 0.0, 1.0, 7.0],
            rank: 2,
            cols: 3,
            scaling: 0.5,
        };
        let mut values = vec![1.0; 3];
        delta.add(1..2, &mut values);
        assert_eq!(values, [2.5, 3.0, 22.5]);
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(transposed(&[], 0).is_empty());
    }
}
