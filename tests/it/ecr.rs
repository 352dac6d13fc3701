//! AWS ECR: its API, its credentials and its habits, against a strict stand-in and against `moto_server`.

mod api;
mod credentials;
mod habits;
mod moto;
mod pushes;

use transship::demo::images::image;
use transship::demo::registry::{Options, Registry, Running};

use crate::support::aws::{ACCOUNT, Aws, KEY};

/// Where the registry is, which its host does not say, and our access key, as the rules have it.
fn key() -> String {
    format!(
        "aws: {{ region: eu-west-1, registry_id: \"{ACCOUNT}\", {} }}",
        access_key()
    )
}

fn access_key() -> String {
    format!("access_key_id: {}, secret_access_key: \"{}\"", KEY.0, KEY.1)
}

/// A source with `tags` of `app/web`.
async fn source(tags: &[&str]) -> Running {
    let registry = Registry::start(Options::default()).await.expect("a registry");
    for (seed, tag) in tags.iter().enumerate() {
        let name = "app/web".parse().expect("a name");
        registry.seed(
            &name,
            &tag.parse().expect("a tag"),
            &image(seed as u64, "amd64", &[300_000]),
        );
    }
    registry
}

/// From a plain registry to ECR, with these keys there.
fn rules(from: &Running, aws: &Aws, more: &str) -> String {
    format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  ecr: {}\nrules:\n  - {{ name: up, source: src, destinations: \
         [ecr], repositories: [app/web] }}\n",
        from.url(),
        aws.rules(more)
    )
}
