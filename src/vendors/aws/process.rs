//! `credential_process` of a profile: a program that prints a credential (AWS SDKs and Tools Reference Guide, "Process
//! credential provider").

use std::time::Duration;

use reqsign_aws_v4::Credential;
use serde::Deserialize;

use crate::registry::{NoOutput, output_of};

/// As long as AWS's own Go library waits: it may ask for a role on its way.
const TIME_LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Runs the program; what is wrong with it, in words that go on after its name, and hold nothing of what it printed or
/// was called with.
pub(super) async fn credential(line: &str) -> Result<Credential, String> {
    let words = words(line).ok_or("has a quote that does not end")?;
    let Some((program, arguments)) = words.split_first() else {
        return Err("is empty".to_owned());
    };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    let (status, output) = output_of(command, b"", TIME_LIMIT).await.map_err(|why| match why {
        NoOutput::Missing => format!("names the program {program:?}, which is not there"),
        why => why.to_string(),
    })?;
    if !status.success() {
        return Err(format!("failed ({status}); run it by hand"));
    }
    read(&output)
}

fn read(output: &[u8]) -> Result<Credential, String> {
    // Serde's words for what it did not expect quote it.
    let Ok(read) = serde_json::from_slice::<Output>(output) else {
        return Err("printed no JSON with Version, AccessKeyId and SecretAccessKey".to_owned());
    };
    if read.version != 1 {
        return Err(format!("printed the version {}, and only 1 is known", read.version));
    }
    let expires_in = match read.expiration {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| "printed an Expiration that is no time")?),
    };
    Ok(Credential {
        access_key_id: read.access_key_id,
        secret_access_key: read.secret_access_key,
        session_token: read.session_token,
        expires_in,
    })
}

/// The words of a command line, as a shell takes them apart where nothing in it is special but quotes and backslashes.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' if c == '"' => match chars.next()? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_line() {
        for (line, wanted) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            (
                r#""/opt/with space/p" --name 'x "y"'"#,
                &["/opt/with space/p", "--name", "x \"y\""],
            ),
            (r#"a\ b "c\"d\e" ''"#, &["a b", "c\"d\\e", ""]),
            ("", &[]),
        ] {
            assert_eq!(
                words(line).as_deref(),
                Some(
                    wanted
                        .iter()
                        .map(|word| (*word).to_owned())
                        .collect::<Vec<_>>()
                        .as_slice()
                ),
                "{line}"
            );
        }
        assert_eq!(words("a 'b"), None);
        assert_eq!(words("a \\"), None);
    }

    #[test]
    fn what_is_wrong_is_told_without_what_was_printed() {
        for text in [
            r#"{"Version": 2, "AccessKeyId": "hidden", "SecretAccessKey": "hidden"}"#,
            r#"{"Version": "hidden", "AccessKeyId": "hidden", "SecretAccessKey": "hidden"}"#,
            r#"{"Version": 1, "AccessKeyId": "hidden", "SecretAccessKey": "hidden", "Expiration": "hidden"}"#,
            "hidden",
        ] {
            let why = read(text.as_bytes()).expect_err("refused");
            assert!(!why.contains("hidden"), "{why}");
        }
    }

    #[tokio::test]
    async fn programs_that_give_none() {
        for (line, said) in [
            ("", "is empty"),
            ("'", "has a quote"),
            ("/no/such/program-of-ours", "which is not there"),
            ("sh -c 'echo hidden >&2; exit 3'", "exit status: 3"),
        ] {
            let why = credential(line).await.expect_err("none");
            assert!(why.contains(said) && !why.contains("hidden"), "{why}");
        }
    }
}
