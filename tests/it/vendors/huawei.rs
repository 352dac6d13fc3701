//! Huawei Cloud: organisations.

use transship::demo::registry::{Options, Registry};

use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::huawei::Huawei;
use crate::support::images::image;

#[tokio::test]
async fn huawei_organisations_are_made_once_for_all_that_need_them() {
    let (fake, _huawei) = Huawei::start(&[]).await;
    let src = Registry::start(Options::default()).await.expect("a registry");
    let sample = image(1, "amd64", &[20]);
    let tag = "v1".parse().expect("a tag");
    for name in ["team/app", "team/web"] {
        src.seed(&name.parse().expect("a name"), &tag, &sample);
    }
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{}  src: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [team/app, team/web] }}\n",
        fake.rules("dst", &Huawei::keys()),
        src.url()
    ));
    let engine = workshop.engine().await;
    let report = by_hand(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for name in ["team/app", "team/web"] {
        assert_eq!(fake.resolve(name, "v1"), Some(sample.digest()));
    }
    assert_eq!(
        fake.count("POST", "/dockyard/v2/namespaces"),
        1,
        "{:?}",
        fake.exchanges()
    );
    fake.finish();
}
