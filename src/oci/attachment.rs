//! Tags that are not images of their own but belong to another manifest.

use super::digest::Digest;
use super::name::Tag;

/// What an attachment tag holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttachmentKind {
    /// `sha256-<hex>`: the referrers fallback index (distribution-spec 1.1, "Referrers Tag Schema").
    Referrers,
    /// `sha256-<hex>.sig`: cosign signatures.
    Signature,
    /// `sha256-<hex>.att`: cosign attestations.
    Attestation,
    /// `sha256-<hex>.sbom`: a cosign SBOM.
    Sbom,
}

impl AttachmentKind {
    /// The kinds that cosign keeps as tags of their own, in the order in which they are copied.
    pub const COSIGN: [Self; 3] = [Self::Signature, Self::Attestation, Self::Sbom];

    /// What stands behind the hex digits.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Referrers => "",
            Self::Signature => ".sig",
            Self::Attestation => ".att",
            Self::Sbom => ".sbom",
        }
    }
}

/// A tag `sha256-<hex>[.sig|.att|.sbom]`, which names the manifest that it goes with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttachmentTag {
    /// The manifest that the attachment belongs to.
    pub subject: Digest,
    /// What it holds.
    pub kind: AttachmentKind,
}

impl AttachmentTag {
    /// Reads a tag; `None` for a tag that names an image of its own.
    pub fn parse(tag: &Tag) -> Option<Self> {
        let rest = tag.as_str().strip_prefix("sha256-")?;
        let hex = rest.get(..64)?;
        let subject = format!("sha256:{hex}").parse().ok()?;
        let kind = match &rest[64..] {
            "" => AttachmentKind::Referrers,
            ".sig" => AttachmentKind::Signature,
            ".att" => AttachmentKind::Attestation,
            ".sbom" => AttachmentKind::Sbom,
            _ => return None,
        };
        Some(Self { subject, kind })
    }

    /// The tag's text.
    pub fn tag(&self) -> Tag {
        Tag::from_valid(format!("{}{}", self.subject.fallback_tag(), self.kind.suffix()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_attachment_tags() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (suffix, kind) in [
            ("", AttachmentKind::Referrers),
            (".sig", AttachmentKind::Signature),
            (".att", AttachmentKind::Attestation),
            (".sbom", AttachmentKind::Sbom),
        ] {
            let tag: Tag = format!("sha256-{hex}{suffix}").parse().expect("valid tag");
            let read = AttachmentTag::parse(&tag).expect("an attachment");
            assert_eq!(read.kind, kind);
            assert_eq!(read.subject, Digest::of(b""));
            assert_eq!(read.tag(), tag);
        }
        for text in [
            "sha256-abc",
            "v1",
            &format!("sha256-{hex}.txt"),
            &format!("sha256-{hex}-x"),
            &format!("sha256-{}", hex.to_uppercase()),
            "sha256-",
        ] {
            let tag: Tag = text.parse().expect("valid tag");
            assert_eq!(AttachmentTag::parse(&tag), None, "{text}");
        }
    }
}
