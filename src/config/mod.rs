//! (being written elsewhere)
use crate::oci::Digest;
use crate::registry::RegistrySettings;
use crate::rules::{RegistryName, Rule};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
#[derive(Clone, Debug)]
pub struct Config {
    pub registries: BTreeMap<RegistryName, RegistrySettings>,
    pub rules: Vec<Rule>,
    pub files: Vec<String>,
    pub content: Digest,
}
#[derive(Clone, Copy, Debug)]
pub enum Mode { Check, Run }
#[derive(Clone, Debug, serde::Serialize)]
pub struct Mistake { pub file: String, pub line: usize, pub column: usize, pub message: String, pub hint: Option<String>, pub severity: Severity }
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Severity { Error, Warning }
#[derive(Clone, Debug)]
pub struct Sources {}
#[derive(Clone, Debug)]
pub struct Loaded { pub config: Config, pub warnings: Vec<Mistake>, pub sources: Sources }
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    #[error("unreadable")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("wrong")]
    Wrong { mistakes: Vec<Mistake>, sources: Sources },
}
pub trait Lookup {}
pub struct Environment;
impl Lookup for Environment {}
pub fn load(path: &Path, lookup: &dyn Lookup, mode: Mode) -> Result<Loaded, LoadFailure> { let _ = (path, lookup, mode); unimplemented!() }
pub fn content(path: &Path) -> Result<Digest, LoadFailure> { let _ = path; unimplemented!() }
pub fn render(mistakes: &[Mistake], sources: &Sources, colour: bool) -> String { let _ = (mistakes, sources, colour); unimplemented!() }
pub fn json_schema() -> serde_json::Value { unimplemented!() }
