//! What can be chosen about a registry.

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password, of a registry in memory: never a real one.
    pub password: String,
}

/// What a registry asks for and offers. The default is distribution 3 without accounts.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The family it belongs to.
    pub habits: Habits,
    /// Answers 401 with a Basic challenge to everybody else.
    pub basic: Option<Credentials>,
    /// Leaves `Docker-Content-Digest` out of every answer.
    pub omit_digest_header: bool,
    /// Answers 403 DENIED to every request that would change something.
    pub deny_push: bool,
    /// Answers 403 DENIED to a blob with which all blobs together would have more bytes, as Harbor does.
    pub quota: Option<u64>,
    /// Takes manifests whose layers have `urls`; distribution answers 500 where its configuration does not allow
    /// the URL.
    pub allow_foreign: bool,
    /// Answers `OCI-Subject` and serves the referrers API (distribution-spec 1.1), which distribution does not.
    pub referrers_api: bool,
    /// Takes manifests whose blobs the repository lacks, and is not known by the addresses of its uploads for one that refuses
    /// them, as distribution is. Not together with [`Habits::offset_in_location`].
    pub takes_incomplete: bool,
    /// Names this as the least length of a piece but the last (`OCI-Chunk-Min-Length`, distribution-spec 1.1), without insisting on it.
    pub least_piece: Option<u64>,
}

/// Where families of registries differ. Each field was seen on a running registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Habits {
    /// An upload's address holds its offset, and any other offset is answered 404. What a broken request
    /// brought is then out of reach.
    pub offset_in_location: bool,
    /// A `Content-Range` that does not fit is 416 RANGE_INVALID.
    pub checks_content_range: bool,
    /// Tags come sorted, and `n` and `last` are heeded.
    pub pages_tags: bool,
    /// A repository without tags lists `null` rather than `[]`.
    pub lists_no_tags_as_null: bool,
    /// DELETE of a manifest takes a tag and then removes only that tag.
    pub deletes_tags: bool,
    /// An OCI index is 404 where `Accept` does not name its type.
    pub index_needs_accept: bool,
}

impl Habits {
    /// CNCF distribution 3.
    pub fn distribution_3() -> Self {
        Self {
            offset_in_location: false,
            checks_content_range: true,
            pages_tags: true,
            lists_no_tags_as_null: false,
            deletes_tags: true,
            index_needs_accept: false,
        }
    }

    /// Docker distribution 2.8, which Harbor's registry is of. Not imitated: several ranges in one request
    /// (206 multipart there, 200 here), the wrong `Content-Length` of its 416, and its conversion to schema 1.
    pub fn distribution_2_8() -> Self {
        Self {
            offset_in_location: true,
            checks_content_range: false,
            pages_tags: false,
            lists_no_tags_as_null: true,
            deletes_tags: false,
            index_needs_accept: true,
        }
    }
}

impl Default for Habits {
    fn default() -> Self {
        Self::distribution_3()
    }
}
