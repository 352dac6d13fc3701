//! Rights are tried on real repositories, also where rules have nothing but patterns.

use http::StatusCode;
use serde_json::Value;
use transship::demo::images::image;

use super::ping::{steps, walk};
use super::{registry, seed};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::sync;
use crate::support::fake::hub::Hub;
use crate::support::proxy::{Act, Fault, Proxy};

/// A step of a registry.
fn step<'d>(document: &'d Value, registry: &str, step: &str) -> &'d Value {
    let registries = document["registries"].as_array().expect("registries");
    let found = registries.iter().find(|found| found["registry"] == registry);
    let steps = found.expect("the registry")["steps"].as_array().expect("steps").iter();
    steps.into_iter().find(|found| found["step"] == step).expect("the step")
}

/// What was tried, as `repository=ok`.
fn tried(step: &Value) -> Vec<String> {
    let rights = step["repositories"].as_array().expect("repositories").iter();
    rights
        .map(|right| format!("{}={}", right["repository"].as_str().expect("a name"), right["ok"]))
        .collect()
}

fn rules(from: &str, to: &str) -> String {
    format!(
        "version: 1\nregistries:\n  from: {{ url: \"{from}\" }}\n  to: {{ url: \"{to}\" }}\nrules:\n  - name: web\n    \
         source: from\n    destinations: [{{ registry: to, to: \"mirror/{{1}}\" }}]\n    repositories: [{{ match: \"app/*\", exclude: [app/a] }}, \"zoo/*\"]\n"
    )
}

#[tokio::test]
async fn what_a_pattern_matches_first_is_tried_and_where_it_goes() {
    let (from, to) = (registry().await, DockerRegistry::plain().await);
    for name in ["app/a", "app/b", "app/c", "lib/a"] {
        seed(&from, name, "v1", &image(1, "amd64", &[100]));
    }
    let home = Transship::new(&rules(&from.url(), &to.url()));
    let document = home.run(&["ping", "-o", "json"]).await.expect(0).json();
    assert_eq!(
        steps(&document, "from")[6..],
        ["list=ok", "pull=ok", "push=-", "delete=-"]
    );
    assert_eq!(steps(&document, "to")[6..], ["list=-", "pull=-", "push=ok", "delete=-"]);
    let pull = step(&document, "from", "pull");
    assert_eq!(tried(pull), ["app/b=true"], "the first that the pattern takes");
    let message = pull["message"].as_str().expect("words");
    assert_eq!(
        message,
        "1 tags in app/b; zoo/* matches none of the 4 repositories of from"
    );
    assert_eq!(tried(step(&document, "to", "push")), ["mirror/b=true"]);
    assert_eq!(tried(step(&document, "to", "delete")), ["mirror/b=null"]);
    assert_eq!(
        walk(&to.storage()),
        Vec::<std::path::PathBuf>::new(),
        "nothing stays behind"
    );
    let catalogues = || {
        from.log()
            .iter()
            .filter(|entry| entry.path.contains("_catalog"))
            .count()
    };
    assert_eq!(catalogues(), 1, "the list of one is the list of both");

    // The source tells what is written, also where it is not pinged itself.
    let document = home.run(&["ping", "to", "-o", "json"]).await.expect(0).json();
    assert_eq!(document["registries"].as_array().map(Vec::len), Some(1));
    assert_eq!(tried(step(&document, "to", "push")), ["mirror/b=true"]);
    assert_eq!(catalogues(), 2);
    // One that does not have to be listed is not.
    home.run(&["ping", "from", "-o", "json"]).await.expect(0);
    assert_eq!(catalogues(), 3);
}

#[tokio::test]
async fn without_a_list_nothing_is_tried_and_that_is_told() {
    let to = registry().await;
    let home = Transship::new(&rules("http://127.0.0.1:1", &to.url()));
    for (arguments, code) in [(&["ping", "-o", "json"][..], 1), (&["ping", "to", "-o", "json"], 0)] {
        let document = home.run(arguments).await.expect(code).json();
        assert_eq!(steps(&document, "to")[8..], ["push=-", "delete=-"]);
        let message = step(&document, "to", "push")["message"].as_str().expect("words");
        assert!(
            message.contains("what app/* matches is not known without a list of the repositories of from"),
            "{message}"
        );
    }
    assert!(to.log().iter().all(|entry| entry.method != "POST"), "nothing was tried");
}

/// In the words of the run, which would fail for it.
#[tokio::test]
async fn patterns_where_repositories_are_not_listed_are_a_fault_of_ping_as_of_a_run() {
    let (from, to) = (registry().await, registry().await);
    let proxy = Proxy::start(&from.url()).await;
    let missing = Act::Answer(StatusCode::NOT_FOUND, None);
    proxy.add(Fault::every("GET", "/v2/_catalog", missing));
    let home = Transship::new(&rules(&proxy.url(), &to.url()));
    let (run, _) = sync(&home, 1).await;
    let document = home.run(&["ping", "from", "-o", "json"]).await.expect(1).json();
    let list = step(&document, "from", "list");
    assert_eq!(
        (&list["ok"], &list["message"]),
        (&false.into(), &run["failures"][0]["message"])
    );
    let message = list["message"].as_str().expect("words");
    assert!(message.contains("name them in the rule"), "{message}");

    // A part of a list is none of it.
    let (hub, state) = Hub::start().await;
    state.change(|state| state.hidden = Some("secret".to_owned()));
    for name in ["corp/app", "secret/app"] {
        hub.seed(name, "v1", &image(1, "amd64", &[100]));
    }
    home.set_rules(&format!(
        "version: 1\nregistries:\n{}  to: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: hub, destinations: [to], \
         repositories: [\"corp/*\", \"secret/*\"] }}\n",
        hub.rules("hub", &Hub::keys(&hub)),
        to.url()
    ));
    let (run, _) = sync(&home, 1).await;
    let document = home.run(&["ping", "hub", "-o", "json"]).await.expect(1).json();
    let list = step(&document, "hub", "list");
    let message = list["message"].as_str().expect("words");
    let failed = run["failures"][0]["message"].as_str().expect("words");
    assert_eq!(message, format!("1 repositories listed, but not all: {failed}"));
    assert_eq!(tried(step(&document, "hub", "pull")), ["corp/app=true"]);
}

/// What a registry is is kept by `ping` as by runs.
#[tokio::test]
async fn what_ping_found_a_registry_to_be_is_not_asked_by_the_next_run() {
    let (first, other, to) = (registry().await, registry().await, registry().await);
    // So many tags that a listing with digests would be worth the questions.
    for number in 0..20 {
        for from in [&first, &other] {
            seed(from, "app/web", &format!("v{number}"), &image(1, "amd64", &[100]));
        }
    }
    let asked = |registry: &transship::demo::registry::Running| {
        let log = registry.log();
        log.iter().filter(|entry| entry.path == "/api/v2.0/ping").count()
    };
    let home = Transship::new(&super::rules(&first.url(), &to.url()));
    let document = home.run(&["ping", "from", "-o", "json"]).await.expect(0).json();
    assert_eq!(asked(&first), 1);
    let known = document["registries"][0]["capabilities"].as_array().expect("a list");
    assert!(known.iter().any(|known| known["name"] == "kind"), "{known:?}");
    // Another registry has come by its name before the first run.
    home.set_rules(&super::rules(&other.url(), &to.url()));
    home.run(&["sync"]).await.expect(0);
    assert_eq!(asked(&other), 1);
    // What ping finds out of a place where no run has been stays its own.
    home.set_rules(&super::rules(&first.url(), &to.url()));
    home.run(&["ping", "from"]).await.expect(0);
    home.set_rules(&super::rules(&other.url(), &to.url()));
    home.run(&["sync"]).await.expect(0);
    assert_eq!((asked(&first), asked(&other)), (2, 1));

    let home = Transship::new(&super::rules(&first.url(), &to.url()));
    home.run(&["ping", "from"]).await.expect(0);
    home.run(&["sync"]).await.expect(0);
    assert_eq!(asked(&first), 3, "only ping has asked");
}
