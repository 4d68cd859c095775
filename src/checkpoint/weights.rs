//! The weights of a checkpoint, by the names that programs use. Every prefix and old name is resolved here and nowhere
//! else.
//!
//! The same backbone is stored bare (`embeddings...`) or under the name of a task model (`bert.embeddings...`), heads
//! always bare. So one prefix is found by a tensor that every backbone has, and a name is looked for with the prefix
//! first, then without. Old checkpoints call a norm's `weight` and `bias` `gamma` and `beta`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::adapter::{Adapter, Delta, ORIGINAL};
use super::config::JsonFile;
use super::files::{PICKLED_WEIGHTS, WEIGHTS_FILE, WEIGHTS_INDEX, pickled_weights_error, shards};
use super::modules::{Module, ModuleKind};
use super::safetensors::SafetensorsFile;
use crate::error::{Error, Result};
use crate::program::{Part, Program, TensorSpec, WeightSource};

/// What a backbone may be stored under.
pub(super) const PREFIXES: [&str; 18] = [
    "",
    "bert.",
    "roberta.",
    "xlm-roberta.",
    "camembert.",
    "distilbert.",
    "mpnet.",
    "albert.",
    "electra.",
    "deberta.",
    "ernie.",
    "ultrabert.",
    "data2vec_text.",
    "language_model.",
    "model.language_model.",
    "model.",
    "new.",
    "transformer.",
];

/// The table of tokens, as the families name it: BERT and its kin, ModernBERT, decoders, T5, GPT-2.
const SENTINELS: [&str; 6] = [
    "embeddings.word_embeddings.weight",
    "embeddings.tok_embeddings.weight",
    "embed_tokens.weight",
    "shared.weight",
    "encoder.embed_tokens.weight",
    "wte.weight",
];

/// Names of one tensor, of which a checkpoint may store either: T5's encoder has its table from the whole model.
const ALIASES: [(&str, &str); 1] = [("shared.weight", "encoder.embed_tokens.weight")];

/// The weights of every module of a checkpoint, memory-mapped.
pub struct CheckpointWeights {
    /// In the order of `modules.json`; `None` for a module without weights.
    modules: Vec<Option<ModuleWeights>>,
    /// What is added to tensors: by the module and their stored names.
    adapted: HashMap<usize, HashMap<String, Delta>>,
}

/// The files of one module.
pub(super) struct ModuleWeights {
    /// The file, or the index of several.
    path: PathBuf,
    files: Vec<SafetensorsFile>,
    /// What the backbone is stored under.
    pub(super) prefix: &'static str,
}

impl CheckpointWeights {
    /// Opens the weight files of `modules` and checks their headers. Numbers are read later, tensor by tensor, and those of an
    /// adapter added.
    pub(crate) fn open(modules: &[Module], adapter: Option<&Adapter>) -> Result<CheckpointWeights> {
        let (mut adapted, mut adapter, mut i) = (HashMap::new(), adapter, 0..);
        let modules = modules.iter().zip(&mut i).map(|(module, i)| match &module.kind {
            ModuleKind::SparseStaticEmbedding(config) if config.weights.is_some() => Ok(None),
            ModuleKind::Transformer(transformer) => {
                let weights = ModuleWeights::open(&transformer.backbone)?;
                let deltas = match transformer.backbone == module.path {
                    true => adapter.take().map(|adapter| adapter.deltas(&weights)),
                    false => Some(Adapter::of_peft("its own", &module.path)?.deltas(&weights)),
                };
                deltas.transpose()?.map(|deltas| adapted.insert(i, deltas));
                Ok(Some(weights))
            }
            ModuleKind::StaticEmbedding
            | ModuleKind::WeightedLayers(_)
            | ModuleKind::SparseStaticEmbedding(_)
            | ModuleKind::SparseAutoEncoder(_)
            | ModuleKind::Dense(_)
            | ModuleKind::LayerNorm { .. } => ModuleWeights::open(&module.path).map(Some),
            ModuleKind::Pooling(_)
            | ModuleKind::Normalize(_)
            | ModuleKind::LogitScore(_)
            | ModuleKind::SpladePooling(_)
            | ModuleKind::MultiVectorMask(_)
            | ModuleKind::TokenPooling(_)
            | ModuleKind::Router(_)
            | ModuleKind::Dropout => Ok(None),
        });
        Ok(CheckpointWeights { modules: modules.collect::<Result<_>>()?, adapted })
    }

    /// What the tensors are stored in, e.g. `F32`: each name once, sorted.
    pub fn dtypes(&self) -> Vec<String> {
        let files = self.modules.iter().flatten().flat_map(|module| &module.files);
        let mut dtypes: Vec<String> = files.flat_map(|file| file.dtypes()).map(str::to_string).collect();
        dtypes.sort();
        dtypes.dedup();
        dtypes
    }

    /// Whether module `module` has a tensor of that name (without the backbone's prefix).
    pub fn contains(&self, module: usize, name: &str) -> bool {
        self.find(module, name).is_some()
    }

    /// What there is of layers that the program has not, a line a module: the configuration may be that of another model.
    /// Heads, poolers and buffers that no program needs are in no layer.
    pub(crate) fn unused_layers(&self, program: &Program) -> Vec<String> {
        let used = program.weights.iter().flat_map(|weight| &weight.parts).filter_map(Part::tensor);
        unused_layers(&self.modules, used)
    }

    /// The file and the stored name of a tensor.
    fn find(&self, module: usize, name: &str) -> Option<(&SafetensorsFile, String)> {
        let module = self.modules.get(module)?.as_ref()?;
        let old = if let Some(stem) = name.strip_suffix(".weight") {
            Some(format!("{stem}.gamma"))
        } else {
            name.strip_suffix(".bias").map(|stem| format!("{stem}.beta"))
        };
        let alias = ALIASES.iter().find(|(known, _)| *known == name).map(|(_, alias)| *alias);
        // Where adapters stand beside it.
        let original = name.strip_suffix("weight").map(|stem| format!("{stem}{ORIGINAL}"));
        for name in [Some(name), old.as_deref(), alias, original.as_deref()].into_iter().flatten() {
            for stored in [format!("{}{name}", module.prefix), name.to_string()] {
                if let Some(file) = module.files.iter().find(|file| file.shape(&stored).is_some()) {
                    return Some((file, stored));
                }
            }
        }
        None
    }
}

impl WeightSource for CheckpointWeights {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        let Some((file, stored)) = self.find(tensor.module, &tensor.name) else {
            let found = match self.modules.get(tensor.module).and_then(Option::as_ref) {
                None => format!("no weights in module {}", tensor.module),
                Some(module) => {
                    let none = format!("no such tensor in {}", module.path.display());
                    match module.prefix {
                        "" => none,
                        prefix => format!("{none}, with or without the prefix '{prefix}'"),
                    }
                }
            };
            return Err(Error::Weight { name: tensor.name.clone(), expected: format!("{:?}", tensor.shape), found });
        };
        let found = file.shape(&stored).unwrap_or_default();
        if found != tensor.shape {
            let (expected, found) = (format!("{:?}", tensor.shape), format!("{found:?} in {}", file.path().display()));
            return Err(Error::Weight { name: stored, expected, found });
        }
        let mut values = file.read(&stored, rows.clone())?;
        if let Some(delta) = self.adapted.get(&tensor.module).and_then(|deltas| deltas.get(&stored)) {
            delta.add(rows, &mut values);
        }
        Ok(values)
    }

    fn shape(&self, module: usize, name: &str) -> Option<Vec<usize>> {
        self.find(module, name).and_then(|(file, stored)| file.shape(&stored).map(<[usize]>::to_vec))
    }
}

impl ModuleWeights {
    fn open(folder: &Path) -> Result<ModuleWeights> {
        let (single, index) = (folder.join(WEIGHTS_FILE), folder.join(WEIGHTS_INDEX));
        let (path, files) = if single.is_file() {
            let file = SafetensorsFile::open(&single)?;
            (single, vec![file])
        } else if index.is_file() {
            let files = open_shards(folder, &index)?;
            (index, files)
        } else if folder.join(PICKLED_WEIGHTS).is_file() {
            return Err(pickled_weights_error(folder.display()));
        } else {
            return Err(Error::NotFound {
                what: format!("weights in {}", folder.display()),
                detail: format!("neither {WEIGHTS_FILE} nor {WEIGHTS_INDEX} is there"),
            });
        };
        let has = |prefix: &str| {
            let stored = SENTINELS.map(|sentinel| format!("{prefix}{sentinel}"));
            let adapted = stored.iter().filter_map(|name| Some(format!("{}{ORIGINAL}", name.strip_suffix("weight")?)));
            let adapted: Vec<String> = adapted.collect();
            stored.iter().chain(&adapted).any(|name| files.iter().any(|file| file.shape(name).is_some()))
        };
        let prefix = PREFIXES.into_iter().find(|prefix| has(prefix)).unwrap_or("");
        Ok(ModuleWeights { path, files, prefix })
    }
}

impl ModuleWeights {
    /// The stored names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(SafetensorsFile::names)
    }

    /// The shape of a tensor, by its stored name.
    pub(super) fn shape(&self, stored: &str) -> Option<&[usize]> {
        self.files.iter().find_map(|file| file.shape(stored))
    }

    /// Rows of a tensor, by its stored name, as f32.
    pub(super) fn read(&self, stored: &str, rows: Range<usize>) -> Result<Vec<f32>> {
        let file = self.files.iter().find(|file| file.shape(stored).is_some()).unwrap_or(&self.files[0]);
        file.read(stored, rows)
    }
}

fn unused_layers<'a>(modules: &[Option<ModuleWeights>], used: impl Iterator<Item = &'a TensorSpec>) -> Vec<String> {
    let mut layers: BTreeMap<(usize, &str), BTreeSet<usize>> = BTreeMap::new();
    for tensor in used {
        if let Some((stem, number)) = layer(&tensor.name) {
            layers.entry((tensor.module, stem)).or_default().insert(number);
        }
    }
    let line = |((i, stem), used): (&(usize, &str), &BTreeSet<usize>)| {
        let module = modules.get(*i)?.as_ref()?;
        let names = module.files.iter().flat_map(SafetensorsFile::names);
        let numbers = names.filter_map(|name| match layer(name.strip_prefix(module.prefix).unwrap_or(name)) {
            Some((found, number)) if found == *stem && !used.contains(&number) => Some(number),
            _ => None,
        });
        let unused: Vec<usize> = numbers.collect();
        let (first, last) = (unused.iter().min()?, unused.iter().max()?);
        let named = |number: &usize| format!("{}{stem}{number}", module.prefix);
        let layers = if first == last { named(first) } else { format!("{} to {}", named(first), named(last)) };
        let (path, count, used) = (module.path.display(), unused.len(), used.len());
        Some(format!(
            "{path}: {count} tensors of {layers} are not used: by its configuration the model has {used} layers"
        ))
    };
    layers.iter().filter_map(line).collect()
}

/// `encoder.layer.` and 4 of `encoder.layer.4.output.dense.weight`.
fn layer(name: &str) -> Option<(&str, usize)> {
    let (mut start, mut rest) = (0, name);
    while let Some((part, after)) = rest.split_once('.') {
        if let Ok(number) = part.parse() {
            return Some((&name[..start], number));
        }
        start += part.len() + 1;
        rest = after;
    }
    None
}

/// Opens the shards that `index` lists, and checks that each tensor lies in the shard that the index says.
fn open_shards(folder: &Path, index: &Path) -> Result<Vec<SafetensorsFile>> {
    let names = shards(index)?;
    let mut files = Vec::new();
    for name in &names {
        let path = folder.join(name);
        if !path.is_file() {
            let what = format!("shard {}", path.display());
            return Err(Error::NotFound { what, detail: format!("{} lists it; get it again", index.display()) });
        }
        files.push(SafetensorsFile::open(&path)?);
    }
    let listed = JsonFile::read(index)?.object_opt("weight_map")?;
    for tensor in listed.iter().flat_map(|map| map.keys()) {
        let shard = listed.as_ref().map_or(Ok(""), |map| map.str(tensor))?;
        let file = names.iter().position(|name| name == shard).map(|i| &files[i]);
        if file.is_none_or(|file| file.shape(tensor).is_none()) {
            let found = format!("no such tensor in {}", folder.join(shard).display());
            return Err(Error::Weight {
                name: tensor.to_string(),
                expected: format!("in {shard}, as the index says"),
                found,
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::{Dtype, serialize_to_file, tensor::TensorView};

    fn write(path: &Path, tensors: &[(&str, &[usize])]) {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, shape)| (0..shape.iter().product::<usize>()).flat_map(|x| (x as f32).to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
            (name.to_string(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        serialize_to_file(views, None, path).unwrap();
    }

    fn weights(folder: &Path) -> Result<CheckpointWeights> {
        let modules = vec![Some(ModuleWeights::open(folder)?), None];
        Ok(CheckpointWeights { modules, adapted: Default::default() })
    }

    fn spec(name: &str, shape: &[usize]) -> TensorSpec {
        TensorSpec { module: 0, name: name.to_string(), shape: shape.to_vec() }
    }

    const TABLE: &str = "embeddings.word_embeddings.weight";

    #[test]
    fn every_prefix_and_the_old_norm_names() {
        for prefix in PREFIXES {
            let folder = tempfile::tempdir().unwrap();
            let names =
                [TABLE, "embeddings.LayerNorm.gamma", "embeddings.LayerNorm.beta"].map(|n| format!("{prefix}{n}"));
            let shapes: [&[usize]; 3] = [&[3, 2], &[2], &[2]];
            let mut tensors: Vec<(&str, &[usize])> = names.iter().map(String::as_str).zip(shapes).collect();
            tensors.push(("classifier.weight", &[1, 2]));
            write(&folder.path().join(WEIGHTS_FILE), &tensors);
            let weights = weights(folder.path()).unwrap();
            assert_eq!(weights.read(&spec(TABLE, &[3, 2]), 1..3).unwrap(), [2.0, 3.0, 4.0, 5.0], "{prefix}");
            assert_eq!(weights.read(&spec("embeddings.LayerNorm.weight", &[2]), 1..2).unwrap(), [1.0]);
            assert!(weights.contains(0, "embeddings.LayerNorm.bias") && weights.contains(0, "classifier.weight"));
            assert!(!weights.contains(0, "pooler.dense.weight") && !weights.contains(1, TABLE));
            assert_eq!(weights.shape(0, TABLE), Some(vec![3, 2]));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join(WEIGHTS_FILE), &[("bert.embeddings.word_embeddings.weight", &[3, 2])]);
        let weights = weights(folder.path()).unwrap();
        let message = weights.read(&spec(TABLE, &[3, 4]), 0..3).unwrap_err().to_string();
        let file = folder.path().join(WEIGHTS_FILE).display().to_string();
        let expected = "weight 'bert.embeddings.word_embeddings.weight': expected [3, 4], found [3, 2] in ";
        assert_eq!(message, format!("{expected}{file}"));
        let message = weights.read(&spec("pooler.weight", &[3, 4]), 0..3).unwrap_err().to_string();
        let expected = "weight 'pooler.weight': expected [3, 4], found no such tensor in ";
        assert_eq!(message, format!("{expected}{file}, with or without the prefix 'bert.'"));
        assert!(weights.read(&TensorSpec { module: 9, ..spec(TABLE, &[3, 2]) }, 0..1).is_err());
    }

    #[test]
    fn layers_that_are_stored_in_vain_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["pooler.dense.weight", "cls.predictions.decoder.0.weight", "bert.embeddings.position_ids"];
        let layers = (0..5).flat_map(|i| ["weight", "bias"].map(|kind| format!("bert.encoder.layer.{i}.dense.{kind}")));
        let names = [format!("bert.{TABLE}")].into_iter().chain(names.map(str::to_string)).chain(layers);
        let names: Vec<String> = names.collect();
        let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[2, 2][..])).collect();
        write(&folder.path().join(WEIGHTS_FILE), &tensors);
        let weights = weights(folder.path()).unwrap();
        let unused = |layers: usize| {
            let used = (0..layers).map(|i| spec(&format!("encoder.layer.{i}.dense.weight"), &[2, 2]));
            let used: Vec<TensorSpec> = used.chain([spec(TABLE, &[2, 2])]).collect();
            unused_layers(&weights.modules, used.iter())
        };
        assert_eq!(unused(5), [""; 0]);
        assert_eq!(unused(0), [""; 0]);
        let path = folder.path().join(WEIGHTS_FILE).display().to_string();
        let what = "4 tensors of bert.encoder.layer.3 to bert.encoder.layer.4 are not used";
        assert!(unused(4)[0].contains(": 2 tensors of bert.encoder.layer.4 are not used: "), "{:?}", unused(4));
        assert_eq!(unused(3), [format!("{path}: {what}: by its configuration the model has 3 layers")]);
    }

    #[test]
    fn shards() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.safetensors"), &[(TABLE, &[3, 2])]);
        write(&folder.path().join("b.safetensors"), &[("x", &[2])]);
        let index = |x: &str| {
            let text = format!(r#"{{"metadata": {{}}, "weight_map": {{"{TABLE}": "a.safetensors", "x": "{x}"}}}}"#);
            std::fs::write(folder.path().join(WEIGHTS_INDEX), text).unwrap();
        };
        index("b.safetensors");
        assert_eq!(weights(folder.path()).unwrap().read(&spec("x", &[2]), 0..2).unwrap(), [0.0, 1.0]);
        for (shard, complaint) in
            [("a.safetensors", "'x'"), ("c.safetensors", "c.safetensors"), ("../b", "weight_map.x")]
        {
            index(shard);
            let message = weights(folder.path()).err().expect("refused").to_string();
            assert!(message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn a_pickle_is_refused_with_how_to_convert() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(weights(folder.path()), Err(Error::NotFound { .. })));
        std::fs::write(folder.path().join(PICKLED_WEIGHTS), "").unwrap();
        let message = weights(folder.path()).err().expect("refused").to_string();
        assert!(message.contains("pytorch_model.bin") && message.contains("convert"), "{message}");
    }
}
