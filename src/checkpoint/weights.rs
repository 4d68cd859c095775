//! The weights of a checkpoint, by the names that programs use, with what an adapter adds to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use super::adapter::{Adapter, Deltas};
use super::module_weights::ModuleWeights;
use super::modules::{Module, ModuleKind};
use super::safetensors::SafetensorsFile;
use super::transformer::{FILL_MASK, TEXT_GENERATION, TransformerModule};
use crate::error::{Error, Result};
use crate::program::{Part, Program, TensorSpec, WeightSource};

/// The weights of every module of a checkpoint, memory-mapped.
pub struct CheckpointWeights {
    /// In the order of `modules.json`; `None` for a module without weights.
    modules: Vec<Option<ModuleWeights>>,
    /// What is added to tensors: by the module and their stored names.
    adapted: HashMap<usize, Deltas>,
}

impl CheckpointWeights {
    /// Opens the weight files of `modules` and checks their headers. Numbers are read later, tensor by tensor, and those of an
    /// adapter added.
    pub(crate) fn open(modules: &[Module], adapter: Option<&Adapter>) -> Result<CheckpointWeights> {
        let (mut opened, mut adapted, mut adapter) = (Vec::new(), HashMap::new(), adapter);
        for (i, module) in modules.iter().enumerate() {
            let weights = folder(module).map(ModuleWeights::open).transpose()?;
            if let (ModuleKind::Transformer(transformer), Some(weights)) = (&module.kind, &weights) {
                let own = match transformer.backbone != module.path {
                    true => Some(Adapter::of_peft("its own", &module.path)?),
                    false => None,
                };
                if let Some(adapter) = own.as_ref().or_else(|| adapter.take()) {
                    let deltas = adapter.deltas(weights)?;
                    check_head(transformer, weights, &deltas)?;
                    adapted.insert(i, deltas);
                }
            }
            opened.push(weights);
        }
        Ok(CheckpointWeights { modules: opened, adapted })
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
        self.modules.get(module)?.as_ref()?.find(name)
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
        let deltas = self.adapted.get(&tensor.module).and_then(|deltas| deltas.get(&stored));
        deltas.into_iter().flatten().for_each(|delta| delta.add(rows.clone(), &mut values));
        Ok(values)
    }

    fn shape(&self, module: usize, name: &str) -> Option<Vec<usize>> {
        self.find(module, name).and_then(|(file, stored)| file.shape(&stored).map(<[usize]>::to_vec))
    }
}

/// Refuses an adapter of a table of tokens that is a language model's head, too: the reference changes the one and not the other.
fn check_head(transformer: &TransformerModule, weights: &ModuleWeights, deltas: &Deltas) -> Result<()> {
    let has_head = [FILL_MASK, TEXT_GENERATION].contains(&transformer.task.as_str());
    let table = weights.table().filter(|table| has_head && deltas.contains_key(table));
    match table {
        Some(table) if transformer.config.bool_or("tie_word_embeddings", true)? => {
            let (expected, found) = ("no adapter of a table that is the output's matrix, too", "one");
            Err(Error::Weight { name: table, expected: expected.into(), found: found.into() })
        }
        _ => Ok(()),
    }
}

/// Where a module's weights are, if it has some.
fn folder(module: &Module) -> Option<&Path> {
    match &module.kind {
        ModuleKind::SparseStaticEmbedding(config) if config.weights.is_some() => None,
        ModuleKind::Transformer(transformer) => Some(&transformer.backbone),
        ModuleKind::StaticEmbedding
        | ModuleKind::WeightedLayers(_)
        | ModuleKind::SparseStaticEmbedding(_)
        | ModuleKind::SparseAutoEncoder(_)
        | ModuleKind::Dense(_)
        | ModuleKind::LayerNorm { .. } => Some(&module.path),
        ModuleKind::Pooling(_)
        | ModuleKind::Normalize(_)
        | ModuleKind::LogitScore(_)
        | ModuleKind::SpladePooling(_)
        | ModuleKind::MultiVectorMask(_)
        | ModuleKind::TokenPooling(_)
        | ModuleKind::Router(_)
        | ModuleKind::Dropout => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::files::{PICKLED_WEIGHTS, WEIGHTS_FILE, WEIGHTS_INDEX};
    use crate::checkpoint::module_weights::PREFIXES;
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
