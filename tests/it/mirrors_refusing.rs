//! Mirrors that refuse what they are asked for: one repository, a whole namespace, everything.

use http::StatusCode;
use transship::demo::registry::{Options, Registry, Running};
use transship::engine::Engine;

use crate::support::command::Transship;
use crate::support::ends::{images, sync};
use crate::support::engine::{Workshop, by_hand};
use crate::support::images::image;
use crate::support::ours::{Ours, tag};
use crate::support::proxy::{Act, Fault, Proxy};

/// A source with these repositories, and a mirror that has them below `cache/`.
struct Scene {
    ours: Ours,
    _mirror: Running,
    near: Proxy,
    repositories: Vec<String>,
}

impl Scene {
    async fn start(repositories: &[String]) -> Self {
        let ours = Ours::start().await;
        let mirror = Registry::start(Options::default()).await.expect("a registry");
        let near = Proxy::start(&mirror.url()).await;
        for (seed, name) in (1..).zip(repositories) {
            let image = image(seed, "amd64", &[100]);
            for (registry, name) in [(&ours.source, name), (&mirror, &format!("cache/{name}"))] {
                registry.seed(&name.parse().expect("a name"), &tag("v1"), &image);
            }
        }
        Self {
            ours,
            _mirror: mirror,
            near,
            repositories: repositories.to_vec(),
        }
    }

    /// Refuses what is below, as one does that was given a wrong password and has no token server.
    fn refuse(&self, path: &str, status: StatusCode) {
        self.near.add(Fault::every("GET", path, Act::Answer(status, None)));
    }

    fn rules(&self, rules: impl Iterator<Item = String>) -> String {
        let mut text = format!(
            "version: 1\nregistries:\n  near: {{ url: \"{}\" }}\n  \
             src: {{ url: \"{}\", mirrors: [{{ registry: near, prefix: cache }}] }}\n  dst: {{ url: \"{}\" }}\nrules:\n",
            self.near.url(),
            self.ours.src.url(),
            self.ours.dst.url()
        );
        text.extend(rules);
        text
    }

    async fn engine(&self) -> (Workshop, Engine) {
        let rules = self.repositories.iter().enumerate().map(|(number, name)| {
            format!("  - name: r{number}\n    source: src\n    destinations: [dst]\n    repositories: [{name}]\n")
        });
        let workshop = Workshop::new(&self.rules(rules));
        let engine = workshop.engine().await;
        (workshop, engine)
    }

    /// Copies each repository by itself, whatever the mirror does. Gives which of them the mirror was asked for.
    async fn asked(&self, engine: &Engine) -> Vec<&str> {
        let mut asked = Vec::new();
        for (number, name) in self.repositories.iter().enumerate() {
            self.near.reset();
            let report = by_hand(engine, &format!("r{number}")).await;
            assert!(report.failures.is_empty(), "{:?}", report.failures);
            let of_it = name.parse().expect("a name");
            let copied = self.ours.destination.resolve(&of_it, &tag("v1"));
            assert_eq!(copied, self.ours.source.resolve(&of_it, &tag("v1")), "{name}");
            if self.near.count("GET", &format!("/v2/cache/{name}/")) > 0 {
                asked.push(name.as_str());
            }
        }
        asked
    }
}

fn names(namespace: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{namespace}/app{number}"))
}

#[tokio::test]
async fn a_mirror_that_refuses_everything_is_left_alone_after_a_few_repositories() {
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        // Of the second one's namespace no more than two count.
        let all = ["a/app", "b/one", "b/two", "b/three", "c/app", "d/app", "e/app", "f/app"].map(str::to_owned);
        let scene = Scene::start(&all).await;
        scene.refuse("", status);
        let (_workshop, engine) = scene.engine().await;
        assert_eq!(scene.asked(&engine).await, all[..6], "{status}");
    }
}

#[tokio::test]
async fn a_namespace_of_a_mirror_that_is_refused_costs_the_others_nothing() {
    // The private one comes first, and has more than any number that one might count to.
    let all: Vec<String> = names("private", 8)
        .chain(names("public", 2))
        .chain(names("private2", 2))
        .chain(names("public2", 2))
        .collect();
    let scene = Scene::start(&all).await;
    scene.refuse("/v2/cache/private", StatusCode::FORBIDDEN);
    let (_workshop, engine) = scene.engine().await;
    let asked = scene.asked(&engine).await;
    let first: Vec<&str> = all[..5].iter().chain(&all[8..]).map(String::as_str).collect();
    assert_eq!(asked, first);
    // What is public came from the mirror.
    let blobs = scene.ours.src.exchanges();
    let blobs = blobs.iter().filter(|one| one.is("GET", "/blobs/"));
    assert!(blobs.clone().count() > 0 && !blobs.clone().any(|one| one.path.contains("/public")));
}

#[tokio::test]
async fn a_mirror_that_refuses_everything_is_told_of_once_with_what_to_do() {
    let all: Vec<String> = (0..12).map(|number| format!("team{number}/app")).collect();
    let scene = Scene::start(&all).await;
    scene.refuse("", StatusCode::UNAUTHORIZED);
    let rule = "  - name: r\n    source: src\n    destinations: [dst]\n    repositories: ['team*/app']\n";
    let home = Transship::new(&scene.rules(std::iter::once(rule.to_owned())));
    let (run, output) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 12, "{run:#}");
    let told: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("is left alone"))
        .collect();
    let [told] = told.as_slice() else {
        panic!("{}", output.stderr)
    };
    assert!(
        told.contains("for 900 s") && told.contains("check the mirror's credentials"),
        "{told}"
    );
}
