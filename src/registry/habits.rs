//! What is known of a kind of registry before it is asked. Values per kind stand in `vendors`.

/// Habits of one registry. `Default` is a plain OCI registry of which nothing is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Habits {
    /// The host that answers `/v2/`, where it is not the one in the rules (Docker Hub: `registry-1.docker.io`).
    pub api_host: Option<String>,
    /// The key under which Docker's files hold its credentials, where it is not the host (Docker Hub).
    pub credential_key: Option<String>,
    /// Prefix of repository names of one component (Docker Hub: `library`).
    pub default_namespace: Option<String>,
    /// Hosts, beside its own, that it may name as token realm. A leading `*.` stands for any one subdomain or more.
    pub token_hosts: Vec<String>,
    /// Smallest piece of an upload but the last, in bytes.
    pub min_piece: u64,
    /// Largest piece, in bytes; `None` where no limit is known.
    pub max_piece: Option<u64>,
    /// False where the `Range` of an upload's answers must not be believed (ECR's is stale).
    pub trust_upload_range: bool,
    /// True where reading a manifest counts against a quota and asking for it by `HEAD` does not.
    pub metered: bool,
    /// How broken bodies are treated, where the kind is known for it; `None`: learn it.
    pub upload: Option<crate::plan::UploadHabit>,
    /// True where a manifest is refused whose blobs the repository lacks, so that a blob remembered wrongly is noticed.
    pub refuses_missing_blobs: bool,
    /// Requests a second that the vendor's API takes at another host than the registry's; `None` where no limit is known.
    pub api_per_second: Option<u32>,
    /// True where the login is sent with the first request, without waiting for a challenge.
    pub login_first: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            api_host: None,
            credential_key: None,
            default_namespace: None,
            token_hosts: Vec::new(),
            // S3 refuses parts under 5 MiB, and distribution's S3 driver copies smaller ones again.
            min_piece: 5 * 1024 * 1024,
            max_piece: None,
            trust_upload_range: true,
            metered: false,
            upload: None,
            refuses_missing_blobs: false,
            api_per_second: None,
            login_first: false,
        }
    }
}
