//! What ECR's API answers of images and layers.

use jiff::Timestamp;
use serde::Deserialize;

use crate::oci::{Digest, Tag};
use crate::registry::ListedTag;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Images {
    pub(super) image_ids: Vec<ImageId>,
    pub(super) next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageId {
    pub(super) image_tag: Option<Tag>,
    pub(super) image_digest: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    pub(super) image_details: Vec<ImageDetail>,
    pub(super) next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageDetail {
    image_digest: Option<Digest>,
    #[serde(default)]
    image_tags: Vec<Tag>,
    /// In seconds since 1970.
    image_pushed_at: Option<f64>,
    image_manifest_media_type: Option<String>,
    /// Not said before images could be archived.
    image_status: Option<String>,
}

/// A time of AWS's APIs, in seconds since 1970.
pub(in crate::vendors) fn pushed_at(seconds: Option<f64>) -> Option<Timestamp> {
    Timestamp::from_second(seconds? as i64).ok()
}

impl ImageDetail {
    /// Its tags.
    pub(super) fn tags(self) -> impl Iterator<Item = ListedTag> {
        let is_active = self.image_status.is_none_or(|status| status == "ACTIVE");
        let digest = self.image_digest.filter(|_| is_active);
        let pushed = pushed_at(self.image_pushed_at);
        let media_type = self.image_manifest_media_type;
        self.image_tags.into_iter().map(move |tag| ListedTag {
            tag,
            digest: digest.clone(),
            media_type: media_type.clone(),
            pushed,
        })
    }
}
