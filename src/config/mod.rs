//! (being written elsewhere)
use crate::registry::RegistrySettings;
use crate::rules::{RegistryName, Rule};
use std::collections::BTreeMap;
/// The rules as read.
#[derive(Clone, Debug)]
pub struct Config {
    /// The registries.
    pub registries: BTreeMap<RegistryName, RegistrySettings>,
    /// The rules.
    pub rules: Vec<Rule>,
}
