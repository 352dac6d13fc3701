//! `limits:` of registries and of all.

use super::*;
use crate::registry::Limits;

fn of_registry(loaded: &Loaded, name: &str) -> Limits {
    remote(loaded, name).limits
}

#[test]
fn limits_of_registries_and_of_all() {
    let loaded = good(
        "\
version: 1
limits: { concurrency: 20, requests_per_second: 0.5, bandwidth: 1GiB }
registries:
  a: { url: https://a.example, limits: { requests_per_second: 50, bandwidth: 100MiB } }
  b: { url: https://b.example, limits: {} }
",
    );
    let all = Limits {
        concurrency: Some(20),
        requests_per_second: Some(0.5),
        bandwidth: Some(1 << 30),
    };
    assert_eq!(loaded.config.limits, all);
    let a = Limits {
        concurrency: None,
        requests_per_second: Some(50.0),
        bandwidth: Some(100 << 20),
    };
    assert_eq!(of_registry(&loaded, "a"), a);
    assert_eq!(of_registry(&loaded, "b"), Limits::default());
    assert_eq!(good("version: 1\n").config.limits, Limits::default());
}

#[test]
fn limits_of_all_stand_in_one_file() {
    let files = ["a", "b"].map(|name| {
        let text = "version: 1\nlimits: { concurrency: 4 }\n".to_owned();
        (format!("{name}.yaml"), text)
    });
    let failure = parse(&files, &Table::default(), Mode::Run).expect_err("two");
    assert!(
        told(&failure).contains("limits is written in two files"),
        "{}",
        told(&failure)
    );
}
