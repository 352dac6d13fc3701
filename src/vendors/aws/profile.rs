//! What AWS's configuration files say of a role that a profile takes on.

use std::collections::BTreeMap;

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
}

/// The role of `profile` in the text of a config file; `None` where it has none. A role by web identity is left to the
/// library.
pub(super) fn role(config: &str, profile: &str) -> Option<RoleOfProfile> {
    let keys = section(config, profile)?;
    let get = |key: &str| keys.get(key).cloned();
    if keys.contains_key("web_identity_token_file") {
        return None;
    }
    Some(RoleOfProfile {
        role_arn: get("role_arn")?,
        external_id: get("external_id"),
        session_name: get("role_session_name"),
        by: match (get("source_profile"), get("credential_source")) {
            (_, Some(source)) => Base::Source(source),
            (Some(source), None) => Base::Profile(source),
            (None, None) => return None,
        },
    })
}

/// The region of `profile`.
pub(super) fn region(config: &str, profile: &str) -> Option<String> {
    section(config, profile)?.remove("region")
}

fn section(config: &str, profile: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in config.lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = text.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or_default().trim();
            let name = match name.split_once(char::is_whitespace) {
                Some(("profile", name)) => name.trim(),
                None if name == "default" => name,
                _ => "",
            };
            inside = !name.is_empty() && name == profile;
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

    #[test]
    fn roles_of_profiles() {
        let config = "\
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
";
        let ops = RoleOfProfile {
            role_arn: "arn:aws:iam::1:role/r".to_owned(),
            external_id: Some("x".to_owned()),
            session_name: None,
            by: Base::Profile("base".to_owned()),
        };
        assert_eq!(role(config, "ops"), Some(ops));
        let pod = role(config, "pod").expect("a role");
        assert_eq!(
            (pod.by, pod.session_name.as_deref()),
            (Base::Source("EcsContainer".to_owned()), Some("s"))
        );
        for none in ["default", "web", "missing", "services ops"] {
            assert_eq!(role(config, none), None, "{none}");
        }
        assert_eq!(region(config, "default").as_deref(), Some("eu-west-1"));
        assert_eq!(region(config, "ops"), None);
    }
}
