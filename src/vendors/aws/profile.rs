//! What the files of AWS's tools say of a profile: keys, roles, SSO sessions, programs.

use std::collections::BTreeMap;

use reqsign_aws_v4::Credential;

type Keys = BTreeMap<String, String>;

/// Both files, as they are; empty where one is not there.
#[derive(Default)]
pub(super) struct Files {
    /// `~/.aws/config`
    pub(super) config: String,
    /// `~/.aws/credentials`
    pub(super) credentials: String,
}

/// `[profile …]` with `role_arn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoleOfProfile {
    pub(super) role_arn: String,
    pub(super) external_id: Option<String>,
    pub(super) session_name: Option<String>,
    /// Who takes it on.
    pub(super) by: Base,
}

/// Who takes on the role of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// `source_profile`.
    Profile(String),
    /// `credential_source`: `Environment`, `Ec2InstanceMetadata` or `EcsContainer`.
    Source(String),
    /// `web_identity_token_file`.
    Token(String),
}

/// An account and a role in it, as IAM Identity Center (SSO) gives them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SsoOfProfile {
    pub(super) account: String,
    pub(super) role: String,
    /// Where the sign-in was, and so its portal is.
    pub(super) region: String,
    /// What the file with the token is named after: the session's name, or the address where the sign-in begins.
    pub(super) key: String,
}

impl Files {
    fn profile(&self, profile: &str) -> Option<Keys> {
        section(&self.config, "profile", profile)
    }

    /// Access keys, as they stand in one of both.
    pub(super) fn keys(&self, profile: &str) -> Option<Credential> {
        let of = |keys: Keys| {
            Some(Credential {
                access_key_id: keys.get("aws_access_key_id")?.clone(),
                secret_access_key: keys.get("aws_secret_access_key")?.clone(),
                session_token: keys.get("aws_session_token").cloned(),
                expires_in: None,
            })
        };
        let written = section(&self.credentials, "", profile).and_then(of);
        written.or_else(|| self.profile(profile).and_then(of))
    }

    /// The role that a profile takes on.
    pub(super) fn role(&self, profile: &str) -> Option<RoleOfProfile> {
        let keys = self.profile(profile)?;
        let get = |key: &str| keys.get(key).cloned();
        let by = get("web_identity_token_file").map(Base::Token);
        let by = by.or_else(|| get("credential_source").map(Base::Source));
        Some(RoleOfProfile {
            role_arn: get("role_arn")?,
            external_id: get("external_id"),
            session_name: get("role_session_name"),
            by: by.or_else(|| get("source_profile").map(Base::Profile))?,
        })
    }

    /// The role of IAM Identity Center. What it lacks, where it lacks something.
    pub(super) fn sso(&self, profile: &str) -> Option<Result<SsoOfProfile, String>> {
        let keys = self.profile(profile)?;
        let session = keys.get("sso_session");
        if session.is_none() && !keys.contains_key("sso_start_url") {
            return None;
        }
        // A session that several profiles share, or all of it in one profile, as it was before there were sessions.
        let (of_session, named) = match session {
            Some(name) => match section(&self.config, "sso-session", name) {
                Some(found) => (found, Some(name)),
                None => return Some(Err(format!("names the sso_session {name:?}, which is not there"))),
            },
            None => (keys.clone(), None),
        };
        let missing = |key: &str| format!("has no {key}");
        let get = |keys: &Keys, key: &str| keys.get(key).cloned().ok_or_else(|| missing(key));
        let read = || {
            let start = get(&of_session, "sso_start_url")?;
            Ok(SsoOfProfile {
                account: get(&keys, "sso_account_id")?,
                role: get(&keys, "sso_role_name")?,
                region: get(&of_session, "sso_region")?,
                key: named.cloned().unwrap_or(start),
            })
        };
        Some(read())
    }

    /// The program that has a profile's credential, with its arguments.
    pub(super) fn process(&self, profile: &str) -> Option<String> {
        let key = "credential_process";
        let written = section(&self.credentials, "", profile).and_then(|mut keys| keys.remove(key));
        written.or_else(|| self.profile(profile)?.remove(key))
    }

    /// The region of a profile.
    pub(super) fn region(&self, profile: &str) -> Option<String> {
        self.profile(profile)?.remove("region")
    }
}

/// The keys below `[<kind> <name>]`, or `[<name>]` where there is no kind. `[default]` needs none.
fn section(text: &str, kind: &str, wanted: &str) -> Option<Keys> {
    let mut found: Option<Keys> = None;
    let mut inside = false;
    for line in text.lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = text.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default().trim();
            let name = match header.split_once(char::is_whitespace) {
                _ if kind.is_empty() => header,
                Some((word, name)) if word == kind => name.trim().trim_matches(['"', '\'']),
                None if kind == "profile" && header == "default" => header,
                _ => "",
            };
            inside = !name.is_empty() && name == wanted;
            if inside {
                found.get_or_insert_default();
            }
            continue;
        }
        // Lines that are set in belong to a nested value, such as that of `s3 =`.
        let nested = line.starts_with([' ', '\t']);
        if let (true, false, Some(keys), Some((key, value))) = (inside, nested, &mut found, text.split_once('=')) {
            keys.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Files {
        Files {
            config: text.to_owned(),
            ..Files::default()
        }
    }

    #[test]
    fn roles_of_profiles() {
        let files = config(
            "\
[default]
region = eu-west-1
s3 =
  role_arn = nested
[profile ops]
# a comment
role_arn = arn:aws:iam::1:role/r
source_profile = base
external_id = x
[profile pod]
role_arn=arn:aws:iam::1:role/p
credential_source=EcsContainer
role_session_name = s
[profile web]
role_arn = arn:aws:iam::1:role/w
web_identity_token_file = /t
source_profile = base
[services ops]
region = nowhere
",
        );
        let ops = RoleOfProfile {
            role_arn: "arn:aws:iam::1:role/r".to_owned(),
            external_id: Some("x".to_owned()),
            session_name: None,
            by: Base::Profile("base".to_owned()),
        };
        assert_eq!(files.role("ops"), Some(ops));
        let pod = files.role("pod").expect("a role");
        assert_eq!(
            (pod.by, pod.session_name.as_deref()),
            (Base::Source("EcsContainer".to_owned()), Some("s"))
        );
        let web = files.role("web").expect("a role");
        assert_eq!(web.by, Base::Token("/t".to_owned()));
        for none in ["default", "missing", "services ops"] {
            assert_eq!(files.role(none), None, "{none}");
        }
        assert_eq!(files.region("default").as_deref(), Some("eu-west-1"));
        assert_eq!(files.region("ops"), None);
    }

    #[test]
    fn sso_of_a_session_and_of_a_profile_alone() {
        let files = config(
            "\
[profile new]
sso_session = corp
sso_account_id = 1
sso_role_name = r
[sso-session corp]
sso_region = eu-west-1
sso_start_url = https://corp.awsapps.com/start
[profile \"old one\"]
sso_start_url = https://old.awsapps.com/start
sso_region = us-east-1
sso_account_id = 2
sso_role_name = s
[profile lost]
sso_session = none
[profile half]
sso_session = corp
sso_account_id = 1
[default]
region = x
",
        );
        let sso = |account: &str, role: &str, region: &str, key: &str| SsoOfProfile {
            account: account.to_owned(),
            role: role.to_owned(),
            region: region.to_owned(),
            key: key.to_owned(),
        };
        assert_eq!(files.sso("new"), Some(Ok(sso("1", "r", "eu-west-1", "corp"))));
        let old = sso("2", "s", "us-east-1", "https://old.awsapps.com/start");
        assert_eq!(files.sso("old one"), Some(Ok(old)));
        assert_eq!(files.sso("default"), None);
        assert_eq!(files.sso("corp"), None);
        let wrong = |profile: &str| files.sso(profile).expect("SSO").expect_err("wrong");
        assert_eq!(wrong("lost"), "names the sso_session \"none\", which is not there");
        assert_eq!(wrong("half"), "has no sso_role_name");
    }

    #[test]
    fn keys_and_programs_of_either_file() {
        let files = Files {
            config: "[profile a]\naws_access_key_id = 1\naws_secret_access_key = s\ncredential_process = p x\n\
                     [profile b]\naws_access_key_id = 2\n"
                .to_owned(),
            credentials: "[a]\naws_access_key_id = 3\naws_secret_access_key = t=/+\naws_session_token = u\n\
                          [c]\ncredential_process = q\n[profile d]\naws_access_key_id = 4\naws_secret_access_key = v\n"
                .to_owned(),
        };
        let keys = files.keys("a").expect("keys");
        assert_eq!(
            (
                keys.access_key_id.as_str(),
                keys.secret_access_key.as_str(),
                keys.session_token.as_deref()
            ),
            ("3", "t=/+", Some("u"))
        );
        assert!(files.keys("b").is_none() && files.keys("c").is_none() && files.keys("d").is_none());
        assert_eq!(files.process("a").as_deref(), Some("p x"));
        assert_eq!(files.process("c").as_deref(), Some("q"));
        assert_eq!(files.process("b"), None);
    }
}
