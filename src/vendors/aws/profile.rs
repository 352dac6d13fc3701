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
    /// What both files say of a profile; of what is in both the credentials' file holds.
    fn profile(&self, profile: &str) -> Option<Keys> {
        let config = section(&self.config, "profile", profile);
        let credentials = section(&self.credentials, "", profile);
        if config.is_none() && credentials.is_none() {
            return None;
        }
        let mut keys = config.unwrap_or_default();
        keys.extend(credentials.unwrap_or_default());
        Some(keys)
    }

    /// True where one of them has this profile.
    pub(super) fn has(&self, profile: &str) -> bool {
        self.profile(profile).is_some()
    }

    /// Access keys, all of them as they stand in one of both. What is wrong with them, where one is not whole.
    pub(super) fn keys(&self, profile: &str) -> Option<Result<Credential, String>> {
        let (id, secret) = ("aws_access_key_id", "aws_secret_access_key");
        let of = |keys: Keys| match (keys.get(id), keys.get(secret)) {
            (Some(id), Some(secret)) => Some(Ok(Credential {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: keys.get("aws_session_token").cloned(),
                expires_in: None,
            })),
            (Some(_), None) => Some(Err(format!("has {id} without {secret}"))),
            (None, Some(_)) => Some(Err(format!("has {secret} without {id}"))),
            (None, None) => None,
        };
        let written = section(&self.credentials, "", profile).and_then(of);
        written.or_else(|| section(&self.config, "profile", profile).and_then(of))
    }

    /// The role that a profile takes on. What it lacks, where nobody is said to take it on.
    pub(super) fn role(&self, profile: &str) -> Option<Result<RoleOfProfile, String>> {
        let keys = self.profile(profile)?;
        let get = |key: &str| keys.get(key).cloned();
        let role_arn = get("role_arn")?;
        let by = get("web_identity_token_file").map(Base::Token);
        let by = by.or_else(|| get("credential_source").map(Base::Source));
        let Some(by) = by.or_else(|| get("source_profile").map(Base::Profile)) else {
            let message = "has role_arn without source_profile, credential_source or web_identity_token_file";
            return Some(Err(message.to_owned()));
        };
        Some(Ok(RoleOfProfile {
            role_arn,
            external_id: get("external_id"),
            session_name: get("role_session_name"),
            by,
        }))
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
        self.profile(profile)?.remove("credential_process")
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
    // How far the key before is set in; what is set in further belongs to its value, such as the lines below `s3 =`.
    let mut key_at: Option<usize> = None;
    for line in text.lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        let at = line.len() - line.trim_start().len();
        if key_at.is_some_and(|key_at| at > key_at) {
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
            key_at = None;
            continue;
        }
        key_at = Some(at);
        if let (true, Some(keys), Some((key, value))) = (inside, &mut found, text.split_once('=')) {
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
[profile half]
role_arn = arn:aws:iam::1:role/h
[services ops]
region = nowhere
",
        );
        let half = files.role("half").expect("a role").expect_err("of nobody");
        assert!(half.contains("role_arn without source_profile"), "{half}");
        let ops = RoleOfProfile {
            role_arn: "arn:aws:iam::1:role/r".to_owned(),
            external_id: Some("x".to_owned()),
            session_name: None,
            by: Base::Profile("base".to_owned()),
        };
        assert_eq!(files.role("ops"), Some(Ok(ops)));
        let role = |profile: &str| files.role(profile).expect("a role").expect("whole");
        let pod = role("pod");
        assert_eq!(
            (pod.by, pod.session_name.as_deref()),
            (Base::Source("EcsContainer".to_owned()), Some("s"))
        );
        let web = role("web");
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
        let keys = files.keys("a").expect("keys").expect("whole");
        assert_eq!(
            (
                keys.access_key_id.as_str(),
                keys.secret_access_key.as_str(),
                keys.session_token.as_deref()
            ),
            ("3", "t=/+", Some("u"))
        );
        // `[profile d]` is no name of the credentials' file.
        assert!(files.keys("c").is_none() && files.keys("d").is_none());
        let half = files.keys("b").expect("keys").expect_err("half a key");
        assert_eq!(half, "has aws_access_key_id without aws_secret_access_key");
        assert_eq!(files.process("a").as_deref(), Some("p x"));
        assert_eq!(files.process("c").as_deref(), Some("q"));
        assert_eq!(files.process("b"), None);
    }

    #[test]
    fn both_files_tell_of_a_profile() {
        let files = Files {
            config: "[profile a]\nregion = eu-west-1\nrole_session_name = of-config\n".to_owned(),
            credentials:
                "[a]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = b\nrole_session_name = of-credentials\n\
                          [b]\nregion = eu-west-2\naws_access_key_id = 1\naws_secret_access_key = s\n"
                    .to_owned(),
        };
        let role = files.role("a").expect("a role").expect("whole");
        assert_eq!(
            (role.by, role.session_name.as_deref()),
            (Base::Profile("b".to_owned()), Some("of-credentials"))
        );
        assert_eq!(files.region("a").as_deref(), Some("eu-west-1"));
        assert_eq!(files.region("b").as_deref(), Some("eu-west-2"));
        assert!(files.has("a") && files.has("b") && !files.has("c"));
    }

    /// As Python's configparser has it, which AWS's own program reads these files with.
    #[test]
    fn keys_that_are_set_in_are_keys_unless_they_are_below_another() {
        let files = Files {
            config: "[default]\n  region = eu-west-1\n  s3 =\n    region = nested\n\t  aws_session_token = nested\n\
                     \x20 credential_process = p\n[profile b]\nregion = eu-west-2\n  [profile c]\n"
                .to_owned(),
            credentials: "[default]\n    aws_access_key_id = 1\n\n    # of ours\n    aws_secret_access_key = s\n"
                .to_owned(),
        };
        assert_eq!(files.region("default").as_deref(), Some("eu-west-1"));
        assert_eq!(files.process("default").as_deref(), Some("p"));
        let keys = files.keys("default").expect("keys").expect("whole");
        assert_eq!(
            (
                keys.access_key_id.as_str(),
                keys.secret_access_key.as_str(),
                keys.session_token
            ),
            ("1", "s", None)
        );
        assert!(files.has("b") && !files.has("c"));
    }
}
