//! Azure's clouds by their own names: the rules say no more than the registry's address and who we are.

use serde_json::{Value, json};

use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::images;
use crate::support::fake::azure::{self, CHINA, CLIENT, Cloud, GOVERNMENT, PUBLIC, SECRET, TENANT};
use crate::support::images::two_platforms;
use crate::support::names::Names;
use crate::support::wire::Wire;

/// Hosts of the other clouds: nobody may ask them.
fn others(of: &azure::Names) -> Vec<&'static str> {
    let all = [&PUBLIC, &CHINA, &GOVERNMENT];
    let others = all.into_iter().filter(|cloud| cloud.registry != of.registry);
    others.flat_map(|cloud| [cloud.authority, cloud.manager]).collect()
}

/// Up and down again, with this `azure:` of the rules. `manager_only`: a registry that takes no tokens for registries.
async fn replicates(cloud: &'static azure::Names, azure: &str, manager_only: bool) {
    let (fake, turned) = azure::start_as(cloud).await;
    let turned: &Cloud = &turned;
    turned
        .manager_only
        .store(manager_only, std::sync::atomic::Ordering::Relaxed);
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    let wanted = two_platforms(1, &[3000]);
    wire.push("app/web", "v1", &wanted).await;
    let others = others(cloud);
    let own = [cloud.registry, cloud.data, cloud.authority, cloud.manager];
    let at = own.iter().map(|name| (*name, Some(fake.addr())));
    let hosts: Vec<_> = at.chain(others.iter().map(|name| (*name, None))).collect();
    let names = Names::start(&hosts).await;
    let all: Vec<&str> = hosts.iter().map(|(name, _)| *name).collect();
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n  plain: {{ url: \"{}\" }}\n  acr:\n    url: https://{}\n    azure: {azure}\n    tls: {{ ca_file: \
         \"{}\" }}\n    resolve:\n{}rules:\n  - {{ name: up, source: plain, destinations: [acr], repositories: [app/web] }}\n  \
         - {{ name: down, source: acr, destinations: [plain], repositories: [{{ match: \"app/*\", to: \"back/{{name}}\" }}] }}\n",
        plain.url(),
        cloud.registry,
        names.authority().ca_file.display(),
        names.resolve(&all),
    ));
    home.set_env("SECRET", SECRET);
    home.set_env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &format!("http://{}", fake.host()));
    let sync = async |rule: &str| -> Value {
        let output = home.run(&["sync", "-o", "json", rule]).await.expect(0);
        output.json()["runs"][0].clone()
    };
    let up = sync("up").await;
    assert_eq!(images(&up, "copied"), 1, "{up:#}");
    assert_eq!(fake.resolve("app/web", "v1"), Some(wanted.digest()));
    let down = sync("down").await;
    assert_eq!(images(&down, "copied"), 1, "{down:#}");
    assert_eq!(wire.resolve("back/web", "v1").await, Some(wanted.digest()));
    // Reads of blobs are sent on to the dedicated data endpoint. The fake fails the test where a login goes there.
    assert_eq!(down["requests"][cloud.data], json!({ "GET": 4 }), "{down:#}");

    let application = azure.contains("client_secret");
    let mut wanted = vec![cloud.registry.to_owned(), cloud.data.to_owned()];
    wanted.extend(application.then(|| cloud.authority.to_owned()));
    wanted.sort();
    assert_eq!(names.called(), wanted, "other hosts were asked");
    fake.finish();
}

#[tokio::test]
async fn azure_clouds_are_asked_by_their_own_names() {
    let application = format!("{{ tenant_id: {TENANT}, client_id: {CLIENT}, client_secret: \"${{SECRET}}\" }}");
    for cloud in [&PUBLIC, &CHINA, &GOVERNMENT] {
        replicates(cloud, &application, false).await;
        replicates(cloud, &format!("{{ client_id: {CLIENT} }}"), false).await;
        // The fake takes tokens for this cloud's resource manager alone.
        replicates(cloud, &application, true).await;
    }
}
