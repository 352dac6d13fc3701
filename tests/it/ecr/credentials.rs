//! The chain in which AWS's own tools look, by the program as its users run it.

use crate::support::aws::{Aws, KEY, REGION};
use crate::support::command::{Output, Transship};

/// What `ping ecr` said, with this in the rules and in the environment.
async fn ping(aws: &Aws, more: &str, prepare: impl FnOnce(&mut Transship)) -> Output {
    let rules = format!("version: 1\nregistries:\n  ecr: {}\nrules: []\n", aws.rules(more));
    let mut home = Transship::new(&rules);
    home.set_env("AWS_REGION", REGION);
    home.set_env("AWS_ENDPOINT_URL_STS", &format!("{}/sts", aws.url()));
    home.set_env("AWS_ENDPOINT_URL_SSO", &aws.url());
    // No machine of the test's is asked for its role unless the test says where.
    home.set_env("AWS_EC2_METADATA_DISABLED", "true");
    prepare(&mut home);
    // Whatever is logged is logged here.
    let output = home.run(&["-vv", "ping", "ecr"]).await;
    for secret in [
        KEY.1,
        "session/token+==",
        "machine-token",
        "ecr-token",
        "container-secret",
        "pod-token",
        "sso-token",
        "sso/secret+",
        "secret/of+",
        "imds-token",
    ] {
        assert!(
            !output.stderr.contains(secret) && !output.stdout.contains(secret),
            "{output:?}"
        );
    }
    output
}

fn file(home: &Transship, path: &str, text: &str) {
    let path = home.home().join(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

fn keys() -> String {
    format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", KEY.0, KEY.1)
}

#[tokio::test]
async fn by_the_rules_and_by_the_environment() {
    let aws = Aws::start().await;
    let of_rules = format!("aws: {{ access_key_id: {}, secret_access_key: \"{}\" }}", KEY.0, KEY.1);
    ping(&aws, &of_rules, |_| {}).await.expect(0);
    ping(&aws, "", |home| {
        home.set_env("AWS_ACCESS_KEY_ID", KEY.0);
        home.set_env("AWS_SECRET_ACCESS_KEY", KEY.1);
    })
    .await
    .expect(0);
    assert_eq!(aws.asked("GetAuthorizationToken"), 2);
}

#[tokio::test]
async fn by_a_profile_and_by_the_role_that_it_takes_on() {
    let aws = Aws::start().await;
    ping(&aws, "", |home| {
        file(home, ".aws/credentials", &format!("[default]\n{}", keys()))
    })
    .await
    .expect(0);
    let both = |home: &mut Transship| {
        file(home, ".aws/credentials", &format!("[base]\n{}", keys()));
        file(
            home,
            ".aws/config",
            "[profile ops]\nrole_arn = arn:aws:iam::1:role/ops\nsource_profile = base\nexternal_id = x-1\nrole_session_name = s-1\n",
        );
    };
    ping(&aws, "aws: { profile: ops }", both).await.expect(0);
    assert_eq!(aws.book().others, ["AssumeRole arn:aws:iam::1:role/ops x-1 s-1"]);
    // The profile of the rules goes before the environment.
    ping(&aws, "aws: { profile: ops }", |home| {
        both(home);
        home.set_env("AWS_ACCESS_KEY_ID", "nobody");
        home.set_env("AWS_SECRET_ACCESS_KEY", "nothing");
    })
    .await
    .expect(0);
    let missing = ping(&aws, "aws: { profile: none }", both).await.expect(1);
    assert!(
        missing.stdout.contains("the AWS profile \"none\" is not there"),
        "{}",
        missing.stdout
    );
}

#[tokio::test]
async fn by_a_role_of_the_rules_with_its_external_id() {
    let aws = Aws::start().await;
    let role = |name: &str| {
        format!(
            "aws: {{ role_arn: \"arn:aws:iam::1:role/{name}\", external_id: x, access_key_id: {}, secret_access_key: \"{}\" }}",
            KEY.0, KEY.1
        )
    };
    ping(&aws, &role("r"), |_| {}).await.expect(0);
    assert_eq!(aws.book().others, ["AssumeRole arn:aws:iam::1:role/r x transship"]);
    let shut = ping(&aws, &role("shut"), |_| {}).await.expect(1);
    assert!(
        shut.stdout.contains("role/shut cannot be taken on") && shut.stdout.contains("may not assume"),
        "{shut:?}"
    );
}

/// A program that answers as `credential_process`, in a folder whose name has a space.
fn program(home: &Transship, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    file(home, "of ours/keys", &format!("#!/bin/sh\n{script}\n"));
    let path = home.home().join("of ours/keys");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let line = format!(
        "[profile tool]\ncredential_process = \"{}\" --for 'two words'\n",
        path.display()
    );
    file(home, ".aws/config", &line);
}

#[tokio::test]
async fn by_the_process_of_a_profile() {
    let aws = Aws::start().await;
    let prints = |more: &str| {
        format!(
            "[ \"$1 $2\" = '--for two words' ] || exit 9\necho '{{\"Version\": 1, \"AccessKeyId\": \"{}\", \
             \"SecretAccessKey\": \"{}\"{more}}}'",
            KEY.0, KEY.1
        )
    };
    let tool = "aws: { profile: tool }";
    ping(&aws, tool, |home| program(home, &prints(""))).await.expect(0);
    ping(&aws, "", |home| {
        program(home, &prints(", \"Expiration\": \"2099-01-01T00:00:00Z\""));
        home.set_env("AWS_PROFILE", "tool");
    })
    .await
    .expect(0);
    assert_eq!(aws.asked("GetAuthorizationToken"), 2);
    // Neither what it prints nor what it complains of is repeated.
    let wrong = format!("echo '{{\"Version\": \"{}\"}}'", KEY.1);
    for (script, said) in [
        (wrong.as_str(), "printed no JSON with Version"),
        (&format!("echo {} >&2; exit 4", KEY.1), "failed (exit status: 4)"),
    ] {
        let told = ping(&aws, tool, |home| program(home, script)).await.expect(1).stdout;
        let whose = "credential_process of the AWS profile \"tool\"";
        assert!(told.contains(whose) && told.contains(said), "{told}");
    }
}

/// The file that `aws sso login` leaves for this sign-in.
fn signed_in(home: &Transship, key: &str, token: &str, ends: &str) {
    use sha1::Digest as _;
    let name: String = sha1::Sha1::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let text = format!(r#"{{"startUrl": "x", "region": "x", "accessToken": "{token}", "expiresAt": "{ends}"}}"#);
    file(home, &format!(".aws/sso/cache/{name}.json"), &text);
}

#[tokio::test]
async fn by_the_sign_in_of_a_profile() {
    let aws = Aws::start().await;
    let start = "https://corp.awsapps.com/start";
    let role = "sso_account_id = 123456789012\nsso_role_name = Push All\n";
    let config = format!(
        "[profile dev]\nsso_session = corp\n{role}[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = {start}\n\
         sso_registration_scopes = sso:account:access\n\
         [profile old]\nsso_start_url = {start}\nsso_region = eu-west-1\n{role}"
    );
    let (later, past) = ("2099-01-01T00:00:00Z", "2020-01-01T00:00:00Z");
    let try_one = async |profile: &str, key: &str, token: &str, ends: &str| {
        ping(&aws, &format!("aws: {{ profile: {profile} }}"), |home| {
            file(home, ".aws/config", &config);
            signed_in(home, key, token, ends);
        })
        .await
    };
    // A session has its file by its name; a profile without one by the address of the sign-in.
    try_one("dev", "corp", "sso-token", later).await.expect(0);
    try_one("old", start, "sso-token", later).await.expect(0);
    assert_eq!(aws.asked("GetAuthorizationToken"), 2);
    let path = "GET /federation/credentials?role_name=Push+All&account_id=123456789012";
    assert_eq!(aws.book().others, [path, path]);
    // As a base for a role, too.
    ping(
        &aws,
        "aws: { profile: dev, role_arn: \"arn:aws:iam::1:role/r\", session_name: s-2 }",
        |home| {
            file(home, ".aws/config", &config);
            signed_in(home, "corp", "sso-token", later);
        },
    )
    .await
    .expect(0);
    assert_eq!(aws.book().others[2..], [path, "AssumeRole arn:aws:iam::1:role/r  s-2"]);

    let asked = aws.book().others.len();
    for (key, token, ends) in [("corp", "sso-token", past), (start, "sso-token", later)] {
        let told = try_one("dev", key, token, ends).await.expect(1).stdout;
        assert!(told.contains("run aws sso login --profile dev"), "{told}");
    }
    assert_eq!(aws.book().others.len(), asked, "nobody was asked with an ended token");
    let told = try_one("dev", "corp", "sso-token-of-yesterday", later)
        .await
        .expect(1)
        .stdout;
    assert!(told.contains("run aws sso login --profile dev"), "{told}");
    let told = try_one("dev", "corp", "sso-token-without-role", later)
        .await
        .expect(1)
        .stdout;
    assert!(told.contains("the role Push All of the account 123456789012"), "{told}");
}

#[tokio::test]
async fn by_web_identity_of_the_environment_and_of_a_profile() {
    let aws = Aws::start().await;
    let token = |home: &Transship, text: &str| {
        file(home, "token", text);
        home.home().join("token").display().to_string()
    };
    let pod = |home: &mut Transship, text: &str| {
        let path = token(home, text);
        home.set_env("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
        home.set_env("AWS_WEB_IDENTITY_TOKEN_FILE", &path);
        home.set_env("AWS_ROLE_SESSION_NAME", "s-3");
    };
    ping(&aws, "", |home| pod(home, "pod-token\n")).await.expect(0);
    ping(&aws, "aws: { profile: web }", |home| {
        let path = token(home, "pod-token");
        let text = format!(
            "[profile web]\nrole_arn = arn:aws:iam::1:role/web\nweb_identity_token_file = {path}\nrole_session_name = s-4\n"
        );
        file(home, ".aws/config", &text);
    })
    .await
    .expect(0);
    let action = "AssumeRoleWithWebIdentity";
    let wanted = ["pod  s-3", "web  s-4"].map(|end| format!("{action} arn:aws:iam::1:role/{end}"));
    assert_eq!(aws.book().others, wanted);
    // STS repeats the token in what it says.
    let told = ping(&aws, "", |home| pod(home, "pod-token-of-another"))
        .await
        .expect(1)
        .stdout;
    assert!(told.contains("role/pod cannot be taken on"), "{told}");
}

#[tokio::test]
async fn by_the_container_and_by_the_instance() {
    let aws = Aws::start().await;
    let container = |home: &mut Transship, path: &str| {
        home.set_env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}{path}", aws.url()));
    };
    // ECS gives the token, EKS a file that it writes anew.
    ping(&aws, "", |home| {
        container(home, "/creds");
        home.set_env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-secret");
    })
    .await
    .expect(0);
    let by_file = |home: &mut Transship| {
        file(home, "eks-token", "container-secret\n");
        let path = home.home().join("eks-token").display().to_string();
        home.set_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &path);
    };
    ping(&aws, "", |home| {
        container(home, "/creds");
        by_file(home);
    })
    .await
    .expect(0);
    assert_eq!(aws.book().others, ["/creds", "/creds"]);
    let told = ping(&aws, "", |home| {
        container(home, "/creds-of-nobody");
        by_file(home);
    })
    .await
    .expect(1)
    .stdout;
    assert!(told.contains("the container's role cannot be had"), "{told}");
    // The token is not for anybody who is named there.
    let told = ping(&aws, "", |home| {
        home.set_env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://creds.invalid/creds");
        by_file(home);
    })
    .await
    .expect(1)
    .stdout;
    assert!(told.contains("leads to creds.invalid by http"), "{told}");

    ping(&aws, "", |home| {
        home.set_env("AWS_EC2_METADATA_DISABLED", "false");
        home.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.url());
    })
    .await
    .expect(0);
    let asked = aws.book().others.last().cloned();
    assert!(asked.is_some_and(|path| path.ends_with("/security-credentials/worker")));
}

#[tokio::test]
async fn without_any_docker_s_files_hold_and_the_chain_goes_before_them() {
    let aws = Aws::start().await;
    let login = |home: &Transship, password: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("AWS:{password}"));
        let host = aws.url().trim_start_matches("http://").to_owned();
        file(
            home,
            "config.json",
            &format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#),
        );
    };
    aws.book().tokens = 7;
    ping(&aws, "", |home| login(home, "ecr-token-7")).await.expect(0);
    assert_eq!(aws.asked("GetAuthorizationToken"), 0);
    // Yesterday's docker login is the usual state.
    ping(&aws, "", |home| {
        login(home, "ecr-token-of-yesterday");
        home.set_env("AWS_ACCESS_KEY_ID", KEY.0);
        home.set_env("AWS_SECRET_ACCESS_KEY", KEY.1);
    })
    .await
    .expect(0);
    assert_eq!(aws.asked("GetAuthorizationToken"), 1);
}

#[tokio::test]
async fn a_key_that_aws_does_not_know_is_told_with_what_to_do() {
    let aws = Aws::start().await;
    let output = ping(
        &aws,
        "aws: { access_key_id: AKIDUNKNOWN00000, secret_access_key: s }",
        |_| {},
    )
    .await;
    let output = output.expect(1);
    assert!(
        output.stdout.contains("UnrecognizedClientException") && output.stdout.contains("check `aws`"),
        "{output:?}"
    );
}

/// A machine with a role of its own, which is somebody else.
fn on_an_instance(home: &mut Transship, aws: &Aws) {
    home.set_env("AWS_EC2_METADATA_DISABLED", "false");
    home.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.url());
}

/// How often the machine was asked for its role.
fn asked_machine(aws: &Aws) -> usize {
    let book = aws.book();
    book.others.iter().filter(|path| path.starts_with("/latest/")).count()
}

fn web_identity(home: &mut Transship, role: &str, token: &str) {
    file(home, "token", token);
    let path = home.home().join("token").display().to_string();
    home.set_env("AWS_ROLE_ARN", &format!("arn:aws:iam::1:role/{role}"));
    home.set_env("AWS_WEB_IDENTITY_TOKEN_FILE", &path);
}

#[tokio::test]
async fn what_is_set_up_and_fails_gives_no_way_to_the_machine_s_role() {
    let aws = Aws::start().await;
    let key_id = format!("[default]\naws_access_key_id = {}\n", KEY.0);
    let sso = "[default]\nsso_start_url = https://corp.awsapps.com/start\nsso_region = eu-west-1\nsso_account_id = 123456789012\n\
               sso_role_name = Push All\n";
    type Prepare<'a> = &'a dyn Fn(&mut Transship);
    let cases: [(&str, Prepare<'_>, &str); 9] = [
        (
            "a token that is refused",
            &|home| web_identity(home, "pod", "another"),
            "role/pod cannot be taken on",
        ),
        (
            "an STS in trouble",
            &|home| web_identity(home, "broken", "pod-token"),
            "role/broken cannot be taken on",
        ),
        (
            "a token that is not there",
            &|home| {
                web_identity(home, "pod", "");
            },
            "the token for the role arn:aws:iam::1:role/pod cannot be read",
        ),
        (
            "a container's service",
            &|home| {
                home.set_env(
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    &format!("{}/creds-of-nobody", aws.url()),
                )
            },
            "the container's role cannot be had",
        ),
        (
            "a sign-in that ended",
            &|home| file(home, ".aws/config", sso),
            "run aws sso login",
        ),
        (
            "a program",
            &|home| {
                program(home, "exit 4");
                home.set_env("AWS_PROFILE", "tool");
            },
            "failed (exit status: 4)",
        ),
        (
            "half a key",
            &|home| file(home, ".aws/credentials", &key_id),
            "without aws_secret_access_key",
        ),
        (
            "a role that nobody takes on",
            &|home| {
                file(
                    home,
                    ".aws/credentials",
                    "[default]\nrole_arn = arn:aws:iam::1:role/r\n",
                )
            },
            "has role_arn without source_profile",
        ),
        (
            "a name that is misspelt",
            &|home| {
                file(home, ".aws/credentials", &format!("[replicator]\n{}", keys()));
                home.set_env("AWS_PROFILE", "replicatr");
            },
            "the AWS profile \"replicatr\" is not there",
        ),
    ];
    for (what, set_up, said) in cases {
        let output = ping(&aws, "", |home| {
            on_an_instance(home, &aws);
            set_up(home);
        })
        .await;
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        assert!(output.stdout.contains(said), "{what}: {output:?}");
        assert_eq!(asked_machine(&aws), 0, "{what}");
    }
    assert_eq!(aws.asked("GetAuthorizationToken"), 0);
}

#[tokio::test]
async fn the_order_is_that_of_aws_s_own_libraries() {
    let aws = Aws::start().await;
    let of_default = |home: &Transship| {
        file(
            home,
            ".aws/credentials",
            "[default]\naws_access_key_id = nobody\naws_secret_access_key = s\n",
        )
    };
    // A pod's own identity goes before what lies in the image.
    ping(&aws, "", |home| {
        of_default(home);
        web_identity(home, "pod", "pod-token");
    })
    .await
    .expect(0);
    // A profile by name goes before both, wherever its role stands; keys of the environment go before that.
    let by_name = |home: &mut Transship| {
        let text = format!(
            "[default]\naws_access_key_id = nobody\naws_secret_access_key = s\n[base]\n{}[ops]\nrole_arn = arn:aws:iam::1:role/ops\nsource_profile = base\n",
            keys()
        );
        file(home, ".aws/credentials", &text);
        home.set_env("AWS_PROFILE", "ops");
        web_identity(home, "pod", "pod-token");
        on_an_instance(home, &aws);
    };
    ping(&aws, "", |home| by_name(home)).await.expect(0);
    let web = "AssumeRoleWithWebIdentity arn:aws:iam::1:role/pod  transship";
    let role = "AssumeRole arn:aws:iam::1:role/ops  transship";
    assert_eq!(aws.book().others, [web, role]);
    ping(&aws, "", |home| {
        by_name(home);
        home.set_env("AWS_ACCESS_KEY_ID", KEY.0);
        home.set_env("AWS_SECRET_ACCESS_KEY", KEY.1);
    })
    .await
    .expect(0);
    assert_eq!(aws.book().others.len(), 2);
    // One that says nothing of who we are leaves that to the machine, as with AWS's tools.
    ping(&aws, "", |home| {
        file(home, ".aws/config", "[profile here]\nregion = eu-west-1\n");
        home.set_env("AWS_PROFILE", "here");
        on_an_instance(home, &aws);
    })
    .await
    .expect(0);
    assert_eq!(asked_machine(&aws), 3);
}
