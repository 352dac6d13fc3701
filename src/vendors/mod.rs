//! What sets one vendor's registries apart from a plain OCI registry: a file a vendor, with its row of the table, its login,
//! its listings and how its repositories are made.

mod acs3;
mod alibaba;
mod alibaba_api;
mod alibaba_enterprise;
mod alibaba_keys;
mod alibaba_personal;
mod artifactory;
mod artifactory_create;
mod artifactory_repositories;
mod asked;
mod awaited;
mod aws;
mod azure;
mod azure_import;
mod digests;
mod distribution;
mod ecr;
mod ecr_public;
mod entra;
mod gathered;
mod github;
mod gitlab;
mod gitlab_repositories;
mod google;
mod google_create;
mod google_credentials;
mod google_exchange;
mod google_key;
mod google_login;
mod harbor;
mod harbor_projects;
mod huawei;
mod huawei_api;
mod huawei_instance;
mod hub;
mod kept;
mod keyed;
mod names;
mod nexus;
mod once;
mod product;
mod quay;
mod sdk_hmac;
mod table;
mod tc3;
mod tencent;
mod tencent_api;
mod tencent_enterprise;
mod tencent_keys;
mod tencent_personal;
#[cfg(test)]
mod tests;
mod words;
mod zot;

pub use table::{for_registry, for_settings, habits_for, kind_of};
