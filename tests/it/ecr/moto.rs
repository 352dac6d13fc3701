//! ECR from end to end with software that is not ours: `moto_server` for the API, `docker-registry` for `/v2/`.

use transship::demo::images::image;

use super::source;
use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::moto::Moto;

/// moto's one password of ECR, `123456789012-auth-token`, as `htpasswd -Bbn` writes it.
const ACCOUNT: &str = "AWS:$2y$05$thnP3DGLWBgP6J2UXnVsN.4tPC7Ljtcn0Msl3gyxc9mBwka5hCQ1e\n";

#[tokio::test]
async fn a_first_copy_a_second_run_and_a_moved_tag() {
    let Some(moto) = Moto::start().await else { return };
    let config = DockerConfig {
        htpasswd_line: Some(ACCOUNT),
        ..DockerConfig::default()
    };
    let (from, registry) = (source(&["v1", "v2"]).await, DockerRegistry::start(config).await);
    let rules = format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  ecr: {{ url: \"{}\", kind: ecr, endpoint: \"{}\", aws: \
         {{ region: us-east-1, access_key_id: x, secret_access_key: y, role_arn: \"arn:aws:iam::123456789012:role/r\" }}, \
         create_repositories: {{ tag_mutability: mutable, scan_on_push: true }} }}\nrules:\n  - {{ name: up, source: src, \
         destinations: [ecr], repositories: [app/web] }}\n",
        from.url(),
        registry.url(),
        moto.url(),
    );
    let mut home = Transship::new(&rules);
    home.set_env("AWS_ENDPOINT_URL_STS", &format!("{}/", moto.url()));
    let sync = async || home.run(&["sync", "-o", "json"]).await.expect(0).json()["runs"][0].clone();
    let first = sync().await;
    assert_eq!(first["destinations"][0]["images"]["copied"], 2, "{first}");
    assert_eq!(moto.repositories().await, ["app/web"]);
    let second = sync().await;
    assert_eq!(second["destinations"][0]["images"]["in_step"], 2, "{second}");
    let newer = image(9, "amd64", &[1_000]);
    from.seed(
        &"app/web".parse().expect("a name"),
        &"v1".parse().expect("a tag"),
        &newer,
    );
    let third = sync().await;
    assert_eq!(third["destinations"][0]["images"]["copied"], 1, "{third}");
}
