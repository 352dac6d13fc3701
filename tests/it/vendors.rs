//! What sets one vendor's registries apart, against strict fakes of them.

mod alibaba;
mod artifactory;
mod asked;
mod azure;
mod believed;
mod ecr_public;
mod frame;
mod github;
mod gitlab;
mod google;
mod habits;
mod harbor;
mod huawei;
mod hub;
mod hub_mirrored;
mod logins;
mod made_by_administrators;
mod matrix;
mod nexus;
mod quay;
mod refusals;
mod tencent;
mod versions;
mod zot;
