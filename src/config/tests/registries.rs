//! Keys of registries that are of one vendor.

use super::*;
use crate::registry::{AwsSettings, CloudSettings, CreateSettings, Encryption, Kind};
use crate::telemetry::Secret;

#[test]
fn kind_endpoint_creation_and_a_cloud() {
    let loaded = good(
        "\
version: 1
registries:
  ecr:
    url: https://r.example
    kind: ecr
    endpoint: https://vpce-1.api.ecr.eu-west-1.vpce.amazonaws.com
    create_repositories: { tag_mutability: immutable, scan_on_push: true, encryption: kms_dsse, kms_key: alias/k, tags: { team: web } }
    aws: { role_arn: \"arn:aws:iam::1:role/r\", external_id: x, access_key_id: AKIA, secret_access_key: hunter2 }
  plain: { url: https://p.example, create_repositories: { enabled: false, public: true } }
",
    );
    let ecr = remote(&loaded, "ecr");
    assert_eq!(ecr.kind, Some(Kind::Ecr));
    let endpoint = ecr.endpoint.as_ref().expect("written");
    assert_eq!(endpoint.host, "vpce-1.api.ecr.eu-west-1.vpce.amazonaws.com");
    let create = CreateSettings {
        immutable_tags: Some(true),
        scan_on_push: Some(true),
        encryption: Some(Encryption::KmsDsse),
        kms_key: Some("alias/k".to_owned()),
        tags: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        ..CreateSettings::default()
    };
    assert_eq!(ecr.create, create);
    let aws = AwsSettings {
        role_arn: Some("arn:aws:iam::1:role/r".to_owned()),
        external_id: Some("x".to_owned()),
        access_key_id: Some("AKIA".to_owned()),
        secret_access_key: Some(Secret::new("hunter2")),
        ..AwsSettings::default()
    };
    assert_eq!(ecr.cloud, CloudSettings::Aws(aws));
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let plain = remote(&loaded, "plain");
    assert_eq!((plain.kind, plain.endpoint.clone()), (None, None));
    assert_eq!((plain.create.enabled, plain.create.public), (false, true));
}

#[test]
fn what_of_a_cloud_does_not_fit_together_is_told() {
    let text = "\
version: 1
registries:
  a: { url: https://a.example, aws: { access_key_id: AKIA, external_id: x }, azure: {} }
  b: { url: https://b.example, username: u, password: p, alibaba: { security_token: t } }
  c: { url: https://c.example, kind: harbour, create_repositories: { tags: [a] } }
";
    let told = told(&parse_as(text, Mode::Run, &Table::default()).expect_err("wrong"));
    for words in [
        "access_key_id without secret_access_key",
        "external_id without role_arn",
        "a registry has either aws or azure",
        "username and alibaba both say who we are",
        "security_token without access_key_secret",
        "harbor",
        "a map with a name for each entry",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
