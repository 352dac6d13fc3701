//! What sets one vendor's registries apart from a plain OCI registry: a file a vendor, with its row of the table, its login,
//! its listings and how its repositories are made.

mod alibaba;
mod artifactory;
mod asked;
mod aws;
mod azure;
mod distribution;
mod ecr;
mod ecr_public;
mod github;
mod gitlab;
mod google;
mod harbor;
mod huawei;
mod hub;
mod nexus;
mod once;
mod quay;
mod table;
mod tencent;
mod words;
mod zot;

pub use table::{for_registry, for_settings, habits_for, kind_of};
