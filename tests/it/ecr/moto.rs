//! ECR from end to end with software that is not ours: `moto_server` for the API, `docker-registry` for `/v2/`.

use serde_json::json;
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
         {{ region: us-east-1, registry_id: \"123456789012\", access_key_id: x, secret_access_key: y, role_arn: \"arn:aws:iam::123456789012:role/r\" }}, \
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
    assert_eq!(moto.repositories("us-east-1").await, ["app/web"]);
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

/// Hosts of one account's registry and of what belongs to it.
struct Hosts {
    region: &'static str,
    registry: &'static str,
    api: &'static str,
    sts: &'static str,
}

const HOSTS: &[Hosts] = &[
    Hosts {
        region: "us-east-1",
        registry: "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        api: "api.ecr.us-east-1.amazonaws.com",
        sts: "sts.us-east-1.amazonaws.com",
    },
    Hosts {
        region: "us-gov-west-1",
        registry: "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
        api: "api.ecr-fips.us-gov-west-1.amazonaws.com",
        sts: "sts.us-gov-west-1.amazonaws.com",
    },
    Hosts {
        region: "us-east-2",
        registry: "123456789012.dkr.ecr-fips.us-east-2.amazonaws.com",
        api: "api.ecr-fips.us-east-2.amazonaws.com",
        sts: "sts-fips.us-east-2.amazonaws.com",
    },
    Hosts {
        region: "eu-west-1",
        registry: "123456789012.dkr-ecr.eu-west-1.on.aws",
        api: "ecr.eu-west-1.api.aws",
        sts: "sts.eu-west-1.api.aws",
    },
    Hosts {
        region: "cn-north-1",
        registry: "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        api: "api.ecr.cn-north-1.amazonaws.com.cn",
        sts: "sts.cn-north-1.amazonaws.com.cn",
    },
];

/// Names of certificates: any host of a test.
const NAMES: &[&str] = &[
    "*.dkr.ecr.us-east-1.amazonaws.com",
    "*.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
    "*.dkr.ecr-fips.us-east-2.amazonaws.com",
    "*.dkr-ecr.eu-west-1.on.aws",
    "*.dkr.ecr.cn-north-1.amazonaws.com.cn",
];

/// The rule as its user writes it: nothing but the registry's own address says what it is. Only how the machine's names lead
/// to the stand-ins, and who vouches for them, is added.
#[tokio::test]
async fn by_the_names_that_aws_has_in_every_network_and_partition() {
    let apis: Vec<&str> = HOSTS.iter().flat_map(|hosts| [hosts.api, hosts.sts]).collect();
    let Some(moto) = Moto::start_as(&apis).await else {
        return;
    };
    for hosts in HOSTS {
        let config = DockerConfig {
            htpasswd_line: Some(ACCOUNT),
            tls: true,
            names: NAMES,
            ..DockerConfig::default()
        };
        let (from, registry) = (source(&["v1", "v2"]).await, DockerRegistry::start(config).await);
        let Hosts {
            region,
            registry: ecr,
            api,
            sts,
        } = hosts;
        let mut home = Transship::new("");
        let bundle = home.home().join("ca.pem");
        let both = format!("{}{}", moto.authority().ca_pem, registry.authority().ca_pem);
        std::fs::write(&bundle, both).expect("a file");
        home.set_rules(&format!(
            "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  ecr:\n    url: https://{ecr}\n    aws: {{ role_arn: \
             \"arn:aws:iam::123456789012:role/r\", external_id: x }}\n    tls: {{ ca_file: \"{}\" }}\n    resolve:\n      \
             {ecr}: \"{}\"\n      {api}: \"{}\"\n      {sts}: \"{}\"\nrules:\n  - {{ name: up, source: src, destinations: \
             [ecr], repositories: [app/web] }}\n  - {{ name: down, source: ecr, destinations: [src], repositories: \
             [{{ match: \"app/*\", to: \"back/{{name}}\" }}] }}\n",
            from.url(),
            bundle.display(),
            registry.host(),
            moto.host(),
            moto.host(),
        ));
        home.set_env("AWS_ACCESS_KEY_ID", "x");
        home.set_env("AWS_SECRET_ACCESS_KEY", "y");
        let sync = async |rule: &str| home.run(&["sync", "-o", "json", rule]).await.expect(0).json()["runs"][0].clone();

        let first = sync("up").await;
        assert_eq!(first["destinations"][0]["images"]["copied"], 2, "{first}");
        assert_eq!(moto.repositories(region).await, ["app/web"]);
        // The role; a token; the repository that is not there; its creation.
        assert_eq!(first["requests"][sts], json!({ "POST": 1 }), "{first}");
        assert_eq!(first["requests"][api], json!({ "POST": 3 }), "{first}");

        // moto learns what came to the registry, by its digest.
        for (number, tag) in ["v1", "v2"].into_iter().enumerate() {
            let image = image(number as u64, "amd64", &[300_000]);
            let put = json!({
                "repositoryName": "app/web",
                "imageTag": tag,
                "imageDigest": image.digest().to_string(),
                "imageManifest": String::from_utf8_lossy(&image.manifest),
                "imageManifestMediaType": image.media_type,
            });
            moto.ecr(region, "PutImage", &put).await;
        }
        let second = sync("up").await;
        assert_eq!(second["destinations"][0]["images"]["in_step"], 2, "{second}");
        // The listing has all that is to be known: the registry itself is not asked, and needs no token.
        assert_eq!(second["requests"][api], json!({ "POST": 1 }), "{second}");
        assert!(second["requests"].get("ecr").is_none(), "{second}");

        // A pattern is found by the API, and what is read comes from the registry.
        let down = sync("down").await;
        assert_eq!(down["destinations"][0]["images"]["copied"], 2, "{down}");
    }
}
