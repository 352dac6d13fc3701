//! Invariants of plans, checked apart from the code that makes them.

use super::image::{ImagePlan, ImageTree};
use super::inventory::RepositoryInventory;
use super::repository::RepositoryPlan;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note(pub String);

/// Every selected tag has one decision a destination, nothing unknown is read as absent, nothing is copied that is in step …
pub fn lint_repository_plan(inventory: &RepositoryInventory, plan: &RepositoryPlan) -> Vec<Note> {
    let _ = (inventory, plan);
    unimplemented!()
}

/// Children before parents, the tag last, every blob once, nothing outside the tree …
pub fn lint_image_plan(tree: &ImageTree, plan: &ImagePlan) -> Vec<Note> {
    let _ = (tree, plan);
    unimplemented!()
}
