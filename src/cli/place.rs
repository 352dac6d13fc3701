//! The ends of `copy`, as written on the command line.

use std::path::PathBuf;

use crate::oci::{Digest, Reference, RepositoryName, Tag};
use crate::registry::IMAGE_REPOSITORY;

/// One end of `copy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which end.
    pub(super) target: Target,
    /// Its repository.
    pub(super) repository: RepositoryName,
    /// The tag or digest that was written; none that was not.
    pub(super) reference: Option<Reference>,
}

/// Which end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A registry.
    Registry {
        /// Its host, with the port where one is written.
        host: String,
        /// True after `http://`.
        plain_http: bool,
    },
    /// An OCI image layout directory.
    Layout(PathBuf),
}

impl Place {
    /// The end's name in messages.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Registry { host, .. } => host.clone(),
            Target::Layout(path) => format!("oci:{}", path.display()),
        }
    }

    /// Reads `[docker://]host[:port]/repository[:tag|@digest]`, Docker Hub's short names, `http://…` or `oci:DIR[:tag|@digest]`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("oci:") {
            Some(rest) => layout(text, rest),
            None => registry(text),
        }
    }
}

/// `DIR`, `DIR:tag` or `DIR@digest`. A directory whose own name looks like `name:tag` is written with a slash at its end.
fn layout(whole: &str, rest: &str) -> Result<Place, String> {
    let (path, reference) = if let Some((path, digest)) = rest.rsplit_once('@')
        && let Ok(digest) = digest.parse::<Digest>()
    {
        (path, Some(Reference::Digest(digest)))
    } else if let Some((path, tag)) = rest.rsplit_once(':')
        && !tag.contains('/')
    {
        let tag: Tag = tag.parse().map_err(|error| {
            format!("{whole:?}: {error}; a directory whose name holds a colon is written with / at its end")
        })?;
        (path, Some(Reference::Tag(tag)))
    } else {
        (rest, None)
    };
    if path.is_empty() {
        return Err(format!("{whole:?} names no directory: write oci:DIR or oci:DIR:TAG"));
    }
    let repository = IMAGE_REPOSITORY
        .parse()
        .map_err(|error: crate::oci::InvalidName| error.to_string())?;
    Ok(Place {
        target: Target::Layout(path.into()),
        repository,
        reference,
    })
}

fn registry(whole: &str) -> Result<Place, String> {
    let authority = whole.split_once("://").map_or(whole, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let user = authority
        .split_once('@')
        .is_some_and(|(_, after)| !after.starts_with("sha256:") && !after.starts_with("sha512:"));
    // Before any message that repeats what was written.
    if user || whole.contains(['?', '#']) {
        return Err(
            "an image holds neither a user, a password nor a query: give credentials by --src-creds-file or \
             --dst-creds-file"
                .to_owned(),
        );
    }
    let (scheme, rest) = match whole.split_once("://") {
        Some((scheme @ ("docker" | "https" | "http"), rest)) => (scheme, rest),
        Some((other, _)) => {
            return Err(format!(
                "{whole:?}: {other}:// is not known: write HOST/REPOSITORY:TAG, docker://…, http://… or oci:DIR"
            ));
        }
        None => ("docker", whole),
    };
    let name = rest.split(['@', ':']).next().unwrap_or(rest);
    if scheme != "docker" && !rest.contains('/') || !rest.contains('/') && name.contains('.') {
        return Err(format!(
            "{whole:?} names a host and no repository: write HOST/REPOSITORY:TAG (docker.io/library/NAME on Docker Hub)"
        ));
    }
    let parsed = oci_client::Reference::try_from(rest).map_err(|error| {
        format!("{whole:?} is no image ({error}): write HOST/REPOSITORY:TAG, HOST/REPOSITORY@DIGEST or oci:DIR")
    })?;
    // The parser fills in `latest`; what was written decides.
    let last = rest.rsplit('/').next().unwrap_or(rest);
    let reference = if let Some(digest) = parsed.digest() {
        let digest: Digest = digest.parse().map_err(|error| format!("{whole:?}: {error}"))?;
        Some(Reference::Digest(digest))
    } else if last.contains(':') {
        let tag = parsed.tag().unwrap_or_default();
        Some(Reference::Tag(
            tag.parse().map_err(|error| format!("{whole:?}: {error}"))?,
        ))
    } else {
        None
    };
    let repository = parsed
        .repository()
        .parse()
        .map_err(|error| format!("{whole:?}: {error}"))?;
    Ok(Place {
        target: Target::Registry {
            host: parsed.registry().to_ascii_lowercase(),
            plain_http: scheme == "http",
        },
        repository,
        reference,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let place = Place::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let suffix = place.reference.as_ref().map(Reference::suffix).unwrap_or_default();
        let http = matches!(place.target, Target::Registry { plain_http: true, .. });
        format!(
            "{}{} {}{suffix}",
            if http { "http " } else { "" },
            place.name(),
            place.repository
        )
    }

    #[test]
    fn registries() {
        let digest = Digest::of(b"");
        for (text, expected) in [
            ("alpine", "docker.io library/alpine".to_owned()),
            ("alpine:3", "docker.io library/alpine:3".to_owned()),
            ("grafana/grafana:11", "docker.io grafana/grafana:11".to_owned()),
            ("docker.io/alpine", "docker.io library/alpine".to_owned()),
            ("harbor.example/app/web:1.4", "harbor.example app/web:1.4".to_owned()),
            ("docker://harbor.example/app/web", "harbor.example app/web".to_owned()),
            ("https://harbor.example/app/web", "harbor.example app/web".to_owned()),
            ("localhost:5000/app:x", "localhost:5000 app:x".to_owned()),
            ("http://127.0.0.1:5000/a/b", "http 127.0.0.1:5000 a/b".to_owned()),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&format!("h.example/a@{digest}")), format!("h.example a@{digest}"));
        assert_eq!(
            shown(&format!("h.example/a:1@{digest}")),
            format!("h.example a@{digest}"),
            "the digest says more than the tag"
        );
    }

    #[test]
    fn layouts() {
        let digest = Digest::of(b"");
        for (text, expected) in [
            ("oci:./bundle", "oci:./bundle image".to_owned()),
            ("oci:./bundle:1.4", "oci:./bundle image:1.4".to_owned()),
            ("oci:/srv/a:b/bundle", "oci:/srv/a:b/bundle image".to_owned()),
            ("oci:/srv/a:b/bundle:v1", "oci:/srv/a:b/bundle image:v1".to_owned()),
            ("oci:/srv/a:b/", "oci:/srv/a:b/ image".to_owned()),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&format!("oci:b@{digest}")), format!("oci:b image@{digest}"));
    }

    #[test]
    fn what_is_no_image_is_refused_with_what_to_write() {
        for bad in [
            "",
            "oci:",
            "oci::tag",
            "oci:dir:",
            "ftp://h/x",
            "harbor.example",
            "harbor.example:5000",
            "http://harbor",
            "h.example/UPPER",
            "h.example/a:b:c",
            "user:pw@h.example/a",
            "user:pw@h.example",
            "ftp://user:pw@h.example/a",
            "http://user:pw@h.example",
            "h.example/a?x=1",
            "h.example/a@sha256:short",
        ] {
            let problem = Place::parse(bad).expect_err(bad);
            assert!(!problem.is_empty() && !problem.contains("pw"), "{bad}: {problem}");
        }
    }
}
