//! Keys of registries that are of one vendor.

use super::*;
use crate::registry::{
    AwsSettings, AzureImport, CloudSettings, CreateSettings, Encryption, HuaweiSettings, Kind, TencentSettings,
};
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
    create_repositories: { tag_mutability: immutable, tag_mutability_exceptions: [latest, dev-*], scan_on_push: true, encryption: kms_dsse, kms_key: alias/k, tags: { team: web }, artifactory_local: true }
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
        tag_mutability_exceptions: vec!["latest".to_owned(), "dev-*".to_owned()],
        scan_on_push: Some(true),
        encryption: Some(Encryption::KmsDsse),
        kms_key: Some("alias/k".to_owned()),
        tags: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        artifactory_local: true,
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
fn tencents_key_stands_beside_a_user_of_the_registry() {
    let loaded = good(
        "\
version: 1
registries:
  tcr:
    url: https://ccr.ccs.tencentyun.com
    username: u
    password: p
    tencent: { registry_id: tcr-1, region: ap-x, secret_id: AKID, secret_key: hunter2, token: hunter3, international: true }
  gar: { url: https://us-docker.pkg.dev, google: { credentials_file: keys/sync.json } }
",
    );
    let tencent = TencentSettings {
        registry_id: Some("tcr-1".to_owned()),
        region: Some("ap-x".to_owned()),
        secret_id: Some("AKID".to_owned()),
        secret_key: Some(Secret::new("hunter2")),
        token: Some(Secret::new("hunter3")),
        cvm_role: None,
        international: true,
    };
    assert_eq!(remote(&loaded, "tcr").cloud, CloudSettings::Tencent(tencent));
    // What is learnt holds for who the registry knows.
    assert_eq!(remote(&loaded, "tcr").account_name().as_deref(), Some("u AKID"));
    assert!(!format!("{loaded:?}").contains("hunter"));
    let CloudSettings::Google(google) = &remote(&loaded, "gar").cloud else {
        panic!("google");
    };
    let file = google.credentials_file.as_deref().expect("a file");
    assert!(file.ends_with("keys/sync.json"), "{}", file.display());
}

#[test]
fn huaweis_key_is_read_and_names_the_account() {
    let loaded = good(
        "\
version: 1
registries:
  swr:
    url: https://swr.cn-north-4.myhuaweicloud.com
    huawei: { region: cn-north-9, access_key: AK, secret_key: hunter2, security_token: hunter3, project_name: p, project_id: i }
  own: { url: https://swr.example, kind: huawei, huawei: {} }
",
    );
    let some = |text: &str| Some(text.to_owned());
    let huawei = HuaweiSettings {
        region: some("cn-north-9"),
        access_key: some("AK"),
        secret_key: Some(Secret::new("hunter2")),
        security_token: Some(Secret::new("hunter3")),
        project_name: some("p"),
        project_id: some("i"),
    };
    assert_eq!(remote(&loaded, "swr").cloud, CloudSettings::Huawei(huawei));
    assert_eq!(remote(&loaded, "swr").account_name().as_deref(), Some("AK p"));
    assert_eq!(remote(&loaded, "own").account_name(), None);
    assert!(!format!("{loaded:?}").contains("hunter"));
}

#[test]
fn exceptions_of_tags_are_those_that_ecr_takes() {
    let long = "a".repeat(129);
    for (create, words) in [
        (
            "{ tag_mutability_exceptions: [latest] }".to_owned(),
            "tag_mutability_exceptions without tag_mutability",
        ),
        (
            "{ tag_mutability: mutable, tag_mutability_exceptions: [a, b, c, d, e, f] }".to_owned(),
            "6 exceptions, and a repository has 5 at most",
        ),
        (
            "{ tag_mutability: mutable, tag_mutability_exceptions: [\"v[0-9]\"] }".to_owned(),
            "\"v[0-9]\" is no exception of tags",
        ),
        (
            format!("{{ tag_mutability: mutable, tag_mutability_exceptions: [{long}] }}"),
            "is no exception of tags",
        ),
    ] {
        let text =
            format!("version: 1\nregistries:\n  a: {{ url: https://a.example, create_repositories: {create} }}\n");
        let wrong = told(&parse_as(&text, Mode::Run, &Table::default()).expect_err("wrong"));
        assert!(wrong.contains(words), "{words}: {wrong}");
        assert_eq!(wrong.matches("error:").count(), 1, "{wrong}");
    }
}

#[test]
fn exceptions_of_tags_where_none_are_known_are_a_warning() {
    for (registry, kind) in [
        ("url: https://a.example, kind: google", Some("google")),
        ("url: https://us-docker.pkg.dev", Some("google")),
        (
            "url: https://a.example, kind: alibaba_enterprise",
            Some("alibaba_enterprise"),
        ),
        ("url: https://a.example, kind: ecr", None),
        ("url: \"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com\"", None),
        ("url: https://a.example", None),
    ] {
        let loaded = good(&format!(
            "version: 1\nregistries:\n  a: {{ {registry}, create_repositories: {{ tag_mutability: immutable, \
             tag_mutability_exceptions: [latest] }} }}\n"
        ));
        let told = loaded.warnings.iter().map(|it| it.message.as_str());
        let told: Vec<&str> = told.filter(|message| message.contains("exceptions")).collect();
        let wanted =
            kind.map(|kind| format!("tag_mutability_exceptions has no meaning for a registry of the kind {kind}:"));
        match wanted {
            Some(words) => assert!(told.len() == 1 && told[0].starts_with(&words), "{registry}: {told:?}"),
            None => assert!(told.is_empty(), "{registry}: {told:?}"),
        }
    }
}

#[test]
fn nexus_is_searched_where_its_repository_is_known() {
    let loaded = good(
        "\
version: 1
registries:
  path: { url: \"https://n.example/nexus/repository/hosted\", kind: nexus, bulk_listing: true }
  port: { url: \"https://n.example:5000\", kind: nexus, bulk_listing: true, nexus_repository: other }
  plain: { url: \"https://n.example/repository/hosted\", kind: nexus }
  never: { url: \"https://n.example/repository/hosted\", kind: nexus, bulk_listing: false }
  zot: { url: https://z.example/repository/hosted, kind: zot, bulk_listing: true }
",
    );
    for (name, search) in [
        ("path", Some("hosted")),
        ("port", Some("other")),
        ("plain", None),
        ("never", None),
        ("zot", None),
    ] {
        assert_eq!(remote(&loaded, name).nexus_search.as_deref(), search, "{name}");
        assert_eq!(remote(&loaded, name).lists_names_only, name == "never");
    }

    let text = "\
version: 1
registries:
  a: { url: \"https://a.example:5000\", kind: nexus, bulk_listing: true }
  b: { url: https://b.example, kind: nexus, nexus_repository: r }
  c: { url: https://c.example, bulk_listing: true, nexus_repository: r }
";
    let wrong = told(&parse_as(text, Mode::Run, &Table::default()).expect_err("wrong"));
    for words in [
        "neither nexus_repository nor the url tells which repository of Nexus this is",
        "nexus_repository without kind: nexus and bulk_listing: true",
    ] {
        assert!(wrong.contains(words), "{words}: {wrong}");
    }
    assert_eq!(wrong.matches("error:").count(), 3, "{wrong}");
    // Of an address that a reference gives nothing is said before it is known.
    let hidden = "version: 1\nregistries:\n  a: { url: \"${WHERE}\", kind: nexus, bulk_listing: true }\n";
    assert!(parse_as(hidden, Mode::Check, &Table::default()).is_ok());
}

#[test]
fn what_of_a_cloud_does_not_fit_together_is_told() {
    let text = "\
version: 1
registries:
  a: { url: https://a.example, aws: { access_key_id: AKIA, external_id: x }, azure: {} }
  b: { url: https://b.example, username: u, password: p, alibaba: { security_token: t } }
  c: { url: https://c.example, kind: harbour, create_repositories: { tags: [a] } }
  d: { url: https://d.example, kind: harbor, tencent: { secret_id: AKID, cvm_role: r } }
  e: { url: https://e.example, google: { credentials_file: k.json, service_account: a } }
  f: { url: https://f.example, kind: huawei, username: u, password: p, huawei: { access_key: AK, security_token: t } }
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
        "secret_id without secret_key",
        "secret_id and cvm_role both say who we are",
        "tencent has no meaning for a registry of the kind harbor",
        "credentials_file and service_account both say who we are",
        "access_key without secret_key",
        "security_token without secret_key",
        "username and huawei both say who we are",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_kind_that_the_host_belies_is_warned_of() {
    let loaded = good(
        "\
version: 1
registries:
  a: { url: https://123456789012.dkr.ecr.eu-west-1.amazonaws.com, kind: harbor }
  b: { url: https://corp.azurecr.io, kind: azure, azure: {} }
  c: { url: https://ghcr.io, kind: generic }
  d: { url: https://hub.example, kind: docker_hub }
  e: { url: https://public.ecr.aws, aws: { profile: ops } }
  f: { url: \"https://corp.azurecr.io:8443\", kind: zot }
",
    );
    let warned: Vec<&str> = loaded.warnings.iter().map(|it| it.message.as_str()).collect();
    let of_kinds: Vec<&str> = warned.into_iter().filter(|it| it.contains("of the kind")).collect();
    let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    assert_eq!(of_kinds, [format!("{host} is known to be of the kind ecr, not harbor")]);
}

#[test]
fn keys_of_a_cloud_want_its_host_or_its_kind() {
    let text = "\
version: 1
registries:
  a: { url: https://a.example, aws: { profile: ops } }
  b: { url: https://b.example, alibaba: { instance_id: cri-1 } }
  c: { url: \"http://127.0.0.1:5000\", azure: {} }
  d: { url: https://corp.azurecr.io, aws: { profile: ops } }
  e: { url: https://e.example, kind: ecr, aws: { profile: ops } }
  f: { url: https://f.example, kind: zot, aws: { profile: ops } }
  g: { url: https://corp.azurecr.io, azure: {} }
";
    let told = told(&parse_as(text, Mode::Run, &Table::default()).expect_err("wrong"));
    for words in [
        "aws without kind: a.example does not tell whether it is a registry of that cloud",
        "write kind: ecr or ecr_public",
        "alibaba without kind: b.example",
        "write kind: alibaba_enterprise or alibaba_personal",
        "azure without kind: 127.0.0.1:5000",
        "write kind: azure",
        "aws has no meaning for a registry of the kind azure",
        "remove it: corp.azurecr.io is known to be of that kind",
        "aws has no meaning for a registry of the kind zot",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(told.matches("error:").count(), 5, "{told}");
}

#[test]
fn where_a_registry_of_ecr_is_is_not_said_otherwise_than_by_its_host() {
    let text = "\
version: 1
registries:
  a: { url: https://123456789012.dkr.ecr.eu-west-1.amazonaws.com, aws: { region: us-east-1 } }
  b: { url: https://123456789012.dkr-ecr.eu-west-1.on.aws, aws: { region: us-east-2, registry_id: \"210987654321\" } }
  c: { url: https://123456789012.dkr.ecr-fips.us-east-1.amazonaws.com, aws: { region: us-east-1, registry_id: \"123456789012\" } }
  d: { url: https://d.example, kind: ecr, aws: { region: us-east-1, registry_id: \"12345678901\" } }
  e: { url: https://e.example, kind: ecr, aws: { region: us-east-1, registry_id: \"210987654321\" } }
  f: { url: https://public.ecr.aws, aws: { region: eu-west-1 } }
";
    let told = told(&parse_as(text, Mode::Run, &Table::default()).expect_err("wrong"));
    let count = |words: &str| told.matches(words).count();
    let wanted = [
        ("aws.region is another than the host of the registry says", 2),
        ("aws.registry_id is another than the host of the registry says", 1),
        ("the account of an ECR registry has twelve digits", 1),
        ("error:", 4),
    ];
    for (words, times) in wanted {
        assert_eq!(count(words), times, "{words}: {told}");
    }
}

#[test]
fn a_host_that_a_reference_gives_is_judged_when_known_and_never_shown() {
    let text = "version: 1\nregistries:\n  a: { url: \"${WHERE}\", aws: { profile: ops } }\n";
    let loaded = parse_as(text, Mode::Check, &Table::default()).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(loaded.warnings.iter().all(|warning| !warning.message.contains("aws")));

    let table = Table {
        variables: BTreeMap::from([("WHERE", "https://secret.example")]),
        ..Table::default()
    };
    let told = told(&parse_as(text, Mode::Check, &table).expect_err("wrong"));
    assert!(told.contains("aws without kind: this host"), "{told}");
    assert!(!told.contains("secret.example"), "{told}");
}

const AZURES: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries";

#[test]
fn imports_of_azure_are_read() {
    let loaded = good(&format!(
        "\
version: 1
registries:
  hub: {{ url: https://docker.io, username: u, password: p }}
  dev: {{ url: https://dev00.azurecr.io, azure: {{ client_id: a, client_secret: b, resource_id: {AZURES}/dev00/ }} }}
  a: {{ url: https://Corp1.azurecr.io, azure: {{ resource_id: {AZURES}/corp1, import: {{}} }} }}
  b: {{ url: https://corp1-a1b2.azurecr.us, azure: {{ resource_id: {AZURES}/Corp1, import: {{ at_least: 1GiB, credentials_of: [hub, dev] }} }} }}
  c: {{ url: https://corp1.westeurope.geo.azurecr.io, azure: {{ resource_id: {AZURES}/corp1, import: {{}} }} }}
"
    ));
    let azure = |name: &str| match &loaded.config.registries[&RegistryName::new(name)] {
        RegistrySettings::Remote(settings) => match &settings.cloud {
            CloudSettings::Azure(azure) => azure.clone(),
            other => panic!("{other:?}"),
        },
        RegistrySettings::Layout { .. } => panic!("a layout"),
    };
    assert_eq!(azure("dev").resource_id, Some(format!("{AZURES}/dev00")));
    assert_eq!(azure("dev").import, None);
    let import = |at_least, credentials_of: &[&str]| {
        Some(AzureImport {
            at_least,
            credentials_of: credentials_of.iter().map(ToString::to_string).collect(),
        })
    };
    assert_eq!(azure("a").import, import(16 << 20, &[]));
    assert_eq!(azure("b").import, import(1 << 30, &["hub", "dev"]));
}

#[test]
fn what_is_wrong_with_imports_of_azure_is_told() {
    let text = format!(
        "\
version: 1
registries:
  hub: {{ url: https://docker.io }}
  usb: {{ layout: /srv/bundle }}
  a: {{ url: https://corp1.azurecr.io, azure: {{ import: {{}} }} }}
  b: {{ url: https://corp1.azurecr.io, azure: {{ resource_id: corp1 }} }}
  c: {{ url: https://corp1.azurecr.io, azure: {{ resource_id: {AZURES}/corp12, import: {{ at_least: 5, credentials_of: [hup, usb, hub] }} }} }}
  d: {{ url: https://d.example, kind: azure, azure: {{ resource_id: {AZURES}/corp1, import: {{}} }} }}
  e: {{ url: \"http://corp1.azurecr.io\", azure: {{ resource_id: {AZURES}/corp1, import: {{}} }} }}
  f: {{ url: https://corp1.eastus.geo.azurecr.io, azure: {{ resource_id: {AZURES}/eastus }} }}
"
    );
    let told = told(&parse_as(&text, Mode::Run, &Table::default()).expect_err("wrong"));
    for (words, times) in [
        ("import without resource_id", 1),
        ("\"corp1\" is no id of a registry of Azure", 1),
        ("azure.resource_id is that of corp12, and the host is that of corp1", 1),
        ("azure.resource_id is that of eastus, and the host is that of corp1", 1),
        ("there is no registry \"hup\"", 1),
        ("did you mean \"hub\"?", 1),
        ("\"usb\" has no username and password", 1),
        ("\"hub\" has no username and password", 1),
        ("import has no meaning here", 2),
    ] {
        assert_eq!(told.matches(words).count(), times, "{words}: {told}");
    }
}
