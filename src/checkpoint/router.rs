//! The module Router (once called Asym): several chains of modules, of which a text takes one by what it is encoded for.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::adapter::Bases;
use super::config::read_text;
use super::files::join_inside;
use super::modules::{Module, ModuleKind, read_module};
use crate::error::{Error, Result};

/// Where a router's chains are listed: today, and in version 1.
pub(crate) const ROUTER_FILES: [&str; 2] = ["router_config.json", "config.json"];

/// Chains of modules by name.
#[derive(Debug, Clone)]
pub struct Router {
    /// In the order of the file.
    pub routes: Vec<(String, Vec<Module>)>,
    /// The route of a text that is encoded for no task.
    default: Option<String>,
    mappings: Vec<Mapping>,
}

/// The task and the kind of input that take a route: `None` stands for any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    task: Option<String>,
    modality: Option<String>,
    route: String,
}

/// The only kind of input here.
const TEXT: &str = "text";

/// A router's file.
#[derive(serde::Deserialize)]
struct RouterFile {
    types: HashMap<String, String>,
    structure: Ordered<Vec<String>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(serde::Deserialize, Default)]
struct Parameters {
    default_route: Option<String>,
    allow_empty_key: Option<bool>,
    #[serde(default)]
    route_mappings: HashMap<String, String>,
}

impl Router {
    /// Reads the router in `module`, a folder of the model in `folder`, with the modules of its chains.
    pub(crate) fn read(module: &Path, bases: &Bases) -> Result<Router> {
        let (path, file) = read_file(module)?;
        let invalid = |detail: String| Error::invalid_file(&path, detail);
        let mut routes = Vec::new();
        for (route, ids) in file.structure.0 {
            let mut modules = Vec::new();
            for id in ids {
                let class_path =
                    file.types.get(&id).ok_or_else(|| invalid(format!("structure.{route}: no type for {id:?}")))?;
                let inside = join_inside(module, &id)
                    .map_err(|detail| invalid(format!("types: the folder {id:?} is refused: {detail}")))?;
                let kind = read_module(&path, class_path, &inside, bases)?;
                modules.push(Module { name: id, path: inside, kind });
            }
            routes.push((route, modules));
        }
        let parameters = file.parameters;
        let first = || routes.first().map(|(route, _)| route.clone());
        let default =
            parameters.default_route.or_else(|| first().filter(|_| parameters.allow_empty_key != Some(false)));
        let mut mappings = Vec::new();
        for (key, route) in parameters.route_mappings {
            let (task, modality) =
                parse_mapping(&key).ok_or_else(|| invalid(format!("parameters.route_mappings: the key {key:?}")))?;
            mappings.push(Mapping { task, modality, route });
        }
        let router = Router { routes, default, mappings };
        let mapped = router.mappings.iter().map(|mapping| &mapping.route);
        match mapped.chain(&router.default).find(|route| router.chain(route).is_none()) {
            Some(unknown) => Err(invalid(format!("no route {unknown:?}; there are {}", router.names()))),
            None if router.routes.is_empty() => Err(invalid("structure has no routes".into())),
            None => Ok(router),
        }
    }

    /// The modules of a route.
    pub fn chain(&self, route: &str) -> Option<&[Module]> {
        self.routes.iter().find(|(name, _)| name == route).map(|(_, modules)| modules.as_slice())
    }

    /// The route of a text that is encoded for `task`, in the order in which the reference looks.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if no route fits.
    pub fn route(&self, task: Option<&str>) -> Result<&str> {
        let wanted = [(task, Some(TEXT)), (task, None), (None, Some(TEXT)), (None, None)];
        let mapped = wanted.into_iter().find_map(|(task, modality)| {
            let fits = |m: &&Mapping| m.task.as_deref() == task && m.modality.as_deref() == modality;
            self.mappings.iter().find(fits).map(|mapping| mapping.route.as_str())
        });
        let named = |name: &str| self.routes.iter().map(|(route, _)| route.as_str()).find(|route| *route == name);
        let found = mapped.or_else(|| task.and_then(named)).or_else(|| named(TEXT));
        match (found, task) {
            (Some(route), _) => Ok(route),
            (None, Some(task)) => {
                Err(Error::InvalidInput(format!("the model has no route for the task {task:?}: {}", self.names())))
            }
            (None, None) => self.default.as_deref().ok_or_else(|| {
                Error::InvalidInput(format!("the model has no default route: give a task, of {}", self.names()))
            }),
        }
    }

    fn names(&self) -> String {
        self.routes.iter().map(|(route, _)| format!("{route:?}")).collect::<Vec<_>>().join(", ")
    }
}

/// The folders of a router's modules, with the last component of each one's class path.
pub(crate) fn folders(module: &Path) -> Result<Vec<(String, String)>> {
    let (_, file) = read_file(module)?;
    let class = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
    let mut folders: Vec<_> = file.types.into_iter().map(|(id, path)| (class(&path), id)).collect();
    folders.sort();
    Ok(folders)
}

fn read_file(module: &Path) -> Result<(std::path::PathBuf, RouterFile)> {
    let found = ROUTER_FILES.map(|name| module.join(name)).into_iter().find(|path| path.is_file());
    let path = found.unwrap_or_else(|| module.join(ROUTER_FILES[0]));
    let text = read_text(&path)?;
    let file =
        serde_json::from_slice(&text).map_err(|error| Error::invalid_file(&path, format!("a router: {error}")))?;
    Ok((path, file))
}

/// `('query', None)`: how Python prints a pair. A tuple of several kinds of input fits no text.
fn parse_mapping(key: &str) -> Option<(Option<String>, Option<String>)> {
    let (task, modality) = key.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let part = |text: &str| {
        let text = text.trim();
        match text {
            "None" => Some(None),
            _ if text.starts_with('(') => Some(Some(text.to_string())),
            _ => {
                let quoted = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
                quoted('\'').or_else(|| quoted('"')).map(|text| Some(text.to_string()))
            }
        }
    };
    Some((part(task)?, part(modality)?))
}

/// The entries of a JSON object in their order.
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Ordered<T>, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

/// The names of the routes that a text for `task` takes: one a router.
///
/// # Errors
/// As [`Router::route`].
pub(crate) fn route(modules: &[Module], task: Option<&str>) -> Result<Vec<String>> {
    let routers = modules.iter().filter_map(|module| match &module.kind {
        ModuleKind::Router(router) => Some(router),
        _ => None,
    });
    routers.map(|router| router.route(task).map(str::to_string)).collect()
}

/// `modules` with each router replaced by the chain of one of its routes: all combinations, with the names of the routes.
pub(crate) fn flattened(modules: &[Module]) -> Vec<(Vec<String>, Vec<Module>)> {
    let mut paths: Vec<(Vec<String>, Vec<Module>)> = vec![Default::default()];
    for module in modules {
        let ModuleKind::Router(router) = &module.kind else {
            paths.iter_mut().for_each(|(_, path)| path.push(module.clone()));
            continue;
        };
        let extend = |(names, path): &(Vec<String>, Vec<Module>)| {
            let extended = router.routes.iter().map(|(route, chain)| {
                ([names.as_slice(), std::slice::from_ref(route)].concat(), [path.as_slice(), chain].concat())
            });
            extended.collect::<Vec<_>>()
        };
        paths = paths.iter().flat_map(extend).collect();
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(parameters: &str) -> Result<Router> {
        let folder = tempfile::tempdir().unwrap();
        let file = format!(
            r#"{{"types": {{"a": "x.Dropout", "b": "x.Dropout"}}, "structure": {{"query": ["a"], "doc": ["b"]}},
               "parameters": {parameters}}}"#
        );
        std::fs::write(folder.path().join("router_config.json"), file).unwrap();
        Router::read(folder.path(), &Bases::default())
    }

    #[test]
    fn a_task_takes_a_route_of_its_name_unless_a_mapping_fits() {
        let plain = router("{}").unwrap();
        assert_eq!(plain.route(None).unwrap(), "query");
        assert_eq!(plain.route(Some("doc")).unwrap(), "doc");
        assert!(plain.route(Some("document")).unwrap_err().to_string().contains(r#""document": "query", "doc""#));
        let mapped =
            router(r#"{"route_mappings": {"('document', 'text')": "doc", "(None, ('image', 'text'))": "query"}}"#);
        assert_eq!(mapped.unwrap().route(Some("document")).unwrap(), "doc");
        let strict = router(r#"{"allow_empty_key": false}"#).unwrap();
        assert!(strict.route(None).unwrap_err().to_string().contains("default route"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (parameters, complaint) in [
            (r#"{"default_route": "lost"}"#, "lost"),
            (r#"{"route_mappings": {"query": "doc"}}"#, "route_mappings"),
            (r#"{"route_mappings": {"('a', None)": "gone"}}"#, "gone"),
        ] {
            let message = router(parameters).unwrap_err().to_string();
            assert!(message.contains(complaint) && message.contains("router_config.json"), "{message}");
        }
    }
}
