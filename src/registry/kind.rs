//! The products that registries run, by their words in the rules (`kind:`) and in reports.

/// A registry product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Harbor.
    Harbor,
    /// Alibaba Cloud Container Registry, enterprise edition.
    AlibabaEnterprise,
    /// Alibaba Cloud Container Registry, personal edition.
    AlibabaPersonal,
    /// A private registry of AWS ECR.
    Ecr,
    /// AWS ECR Public.
    EcrPublic,
    /// Azure Container Registry.
    Azure,
    /// Docker Hub.
    DockerHub,
    /// CNCF distribution, 2.8 or 3.
    Distribution,
    /// zot.
    Zot,
    /// Tencent Container Registry, enterprise edition.
    TencentEnterprise,
    /// Tencent Container Registry, personal edition.
    TencentPersonal,
    /// Huawei Cloud SoftWare Repository for Container.
    Huawei,
    /// Sonatype Nexus Repository 3.
    Nexus,
    /// GitHub's registry.
    Github,
    /// Google Artifact Registry, and the old names of Container Registry that it serves.
    Google,
    /// Quay.
    Quay,
    /// GitLab's registry.
    Gitlab,
    /// JFrog Artifactory.
    Artifactory,
    /// Any other.
    Generic,
}

impl Kind {
    /// All of them, in the order of the documents.
    pub const ALL: &[Self] = &[
        Self::Harbor,
        Self::AlibabaEnterprise,
        Self::AlibabaPersonal,
        Self::Ecr,
        Self::EcrPublic,
        Self::Azure,
        Self::DockerHub,
        Self::Distribution,
        Self::Zot,
        Self::TencentEnterprise,
        Self::TencentPersonal,
        Self::Huawei,
        Self::Nexus,
        Self::Github,
        Self::Google,
        Self::Quay,
        Self::Gitlab,
        Self::Artifactory,
        Self::Generic,
    ];

    /// Their words, in the order of [`Kind::ALL`].
    pub const WORDS: &[&str] = &[
        "harbor",
        "alibaba_enterprise",
        "alibaba_personal",
        "ecr",
        "ecr_public",
        "azure",
        "docker_hub",
        "distribution",
        "zot",
        "tencent_enterprise",
        "tencent_personal",
        "huawei",
        "nexus",
        "github",
        "google",
        "quay",
        "gitlab",
        "artifactory",
        "generic",
    ];

    /// The kind's word in rules and reports.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_word() {
        assert_eq!(Kind::ALL.len(), Kind::WORDS.len());
        for (number, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, number, "{kind:?}");
            assert_eq!(Kind::from_word(kind.as_str()), Some(*kind));
        }
        assert_eq!(Kind::from_word("plain"), None);
    }
}
