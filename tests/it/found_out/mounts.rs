//! Mounts that a registry refuses, between two repositories.

use http::StatusCode;

use super::process;
use crate::support::docker_registry::DockerRegistry;
use crate::support::engine::Workshop;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Proxy};
use crate::support::wire::Wire;

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600 + 1);

#[tokio::test]
async fn mounts_that_were_refused_are_tried_by_no_later_process_for_a_day() {
    let registry = DockerRegistry::plain().await;
    let proxy = Proxy::start(&registry.url()).await;
    let wire = Wire::new(&registry.url());
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n  one: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: one\n    \
         destinations: [{{ registry: one, to: \"copy/{{name}}\" }}]\n    repositories: [team/app]\n",
        proxy.url()
    ));
    let refused = Act::Answer(StatusCode::METHOD_NOT_ALLOWED, None);
    proxy.add(Fault::once("POST", "/copy/app/blobs/uploads/", refused));
    wire.push("team/app", "v0", &image(0, "amd64", &[20])).await;
    process(&workshop).await;
    // Nothing is refused any more: what is known costs bytes for a day.
    for (number, passes) in [(1, false), (2, true)] {
        if passes {
            workshop.pass(DAY);
        }
        wire.push("team/app", &format!("v{number}"), &image(number, "amd64", &[20]))
            .await;
        let report = process(&workshop).await;
        let blobs = report.destinations[0].blobs;
        match passes {
            false => assert_eq!((blobs.mounted, blobs.copied > 0), (0, true), "{blobs:?}"),
            true => assert!(blobs.mounted > 0, "{blobs:?}"),
        }
    }
}
