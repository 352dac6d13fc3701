//! The chain in which AWS's own tools look, by the program as its users run it.

use crate::support::aws::{Aws, KEY, REGION};
use crate::support::command::{Output, Transship};

/// What `ping ecr` said, with this in the rules and in the environment.
async fn ping(aws: &Aws, more: &str, prepare: impl FnOnce(&mut Transship)) -> Output {
    let rules = format!("version: 1\nregistries:\n  ecr: {}\nrules: []\n", aws.rules(more));
    let mut home = Transship::new(&rules);
    home.set_env("AWS_REGION", REGION);
    home.set_env("AWS_ENDPOINT_URL_STS", &format!("{}/sts", aws.url()));
    // No machine of the test's is asked for its role unless the test says where.
    home.set_env("AWS_EC2_METADATA_DISABLED", "true");
    prepare(&mut home);
    let output = home.run(&["ping", "ecr"]).await;
    for secret in [
        KEY.1,
        "session/token+==",
        "machine-token",
        "ecr-token",
        "container-secret",
        "pod-token",
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
        missing.stdout.contains("the AWS profile \"none\" has no credential"),
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

#[tokio::test]
async fn by_web_identity_by_the_container_and_by_the_instance() {
    let aws = Aws::start().await;
    ping(&aws, "", |home| {
        file(home, "token", "pod-token");
        home.set_env("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
        home.set_env(
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            &home.home().join("token").display().to_string(),
        );
    })
    .await
    .expect(0);
    assert!(aws.book().others[0].starts_with("AssumeRoleWithWebIdentity arn:aws:iam::1:role/pod"));
    ping(&aws, "", |home| {
        home.set_env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/creds", aws.url()));
        home.set_env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-secret");
    })
    .await
    .expect(0);
    assert!(aws.book().others.iter().any(|path| path == "/creds"));
    ping(&aws, "", |home| {
        home.set_env("AWS_EC2_METADATA_DISABLED", "false");
        home.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.url());
    })
    .await
    .expect(0);
    assert!(
        aws.book()
            .others
            .iter()
            .any(|path| path.ends_with("/security-credentials/worker"))
    );
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
