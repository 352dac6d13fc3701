//! Every key of a rules file: the one table from which the checks, the JSON Schema and the reference for users come.

mod azure;
mod clouds;
mod reach;

use azure::AZURE_ENTRY;
use reach::{
    BULK_LISTING_ENTRY, HEADERS_ENTRY, MIRRORS_ENTRY, MIRRORS_RESOLVE_TAGS_ENTRY, NEXUS_REPOSITORY_ENTRY, PROXY_ENTRY,
    RESOLVE_ENTRY, TIMEOUTS_ENTRY,
};

/// A map with known keys.
#[derive(Debug)]
pub(super) struct Section {
    /// Where it stands, such as `rules[].tags`; empty for the file itself.
    pub path: &'static str,
    /// What it describes.
    pub about: &'static str,
    pub keys: &'static [Entry],
}

/// One key.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// What holds without it, in words or as a value.
    pub default: &'static str,
    pub about: &'static str,
}

/// What may stand behind a key.
#[derive(Debug)]
pub(super) enum Kind {
    /// The number 1.
    Version,
    /// Text that is not empty; the words say what it means.
    Text(&'static str),
    /// `true` or `false`.
    Flag,
    /// A whole number from the one to the other.
    Count { least: i64, most: i64 },
    /// `5m`, `1h30m`.
    Duration,
    /// `100MiB`, `20GiB`.
    Size,
    /// A number greater than 0, whole or not.
    Rate { most: u64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A map with known keys.
    Map(&'static Section),
    /// A map from names to maps with known keys.
    Named(&'static Section),
    /// A map from names to texts; the words say what those mean.
    Texts(&'static str),
    /// A list.
    List { of: &'static Kind, may_be_empty: bool },
    /// Text, or a map where more than that is to be said.
    TextOr(&'static str, &'static Section),
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Entry {
    Entry {
        name,
        kind,
        required: true,
        default: "",
        about,
    }
}

const fn optional(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        kind,
        required: false,
        default,
        about,
    }
}

/// The file.
pub(super) static FILE: Section = Section {
    path: "",
    about: "What transship keeps in step.",
    keys: &[
        required("version", Kind::Version, "The version of this format. Always 1."),
        optional(
            "registries",
            Kind::Named(&REGISTRY),
            "none",
            "The ends that rules copy between, by a name of your choice.",
        ),
        optional(
            "defaults",
            Kind::Map(&DEFAULTS),
            "none",
            "Merged under every rule: maps by key, while lists and single values of the rule replace these.",
        ),
        optional(
            "rules",
            Kind::List {
                of: &Kind::Map(&RULE),
                may_be_empty: true,
            },
            "none",
            "What to keep in step.",
        ),
        optional(
            "spool",
            Kind::Map(&SPOOL),
            "off",
            "Keeps large blobs of slow sources on disk while they are copied, so that no byte is read twice, whatever breaks.",
        ),
        optional(
            "limits",
            Kind::Map(&TOTAL_LIMITS),
            "none",
            "How hard all registries together are pressed, beside what holds for each. One file of the rules has it.",
        ),
    ],
};

/// `spool`.
static SPOOL: Section = Section {
    path: "spool",
    about: "A bounded place on disk for large blobs that a slow source gives to a destination that may lose them. One file of the rules has it.",
    keys: &[
        required(
            "path",
            Kind::Text("the path of a directory such as /var/lib/transship/spool"),
            "A directory for nothing else, on a local disk. It is made where it is missing; nobody else may write to it. A relative path starts at the folder of the rules file.",
        ),
        optional(
            "max_size",
            Kind::Size,
            "10GiB",
            "The most that all files in it take together. A blob that does not fit is copied without. A tenth of the disk always stays free.",
        ),
    ],
};

/// `registries.<name>`.
pub(super) static REGISTRY: Section = Section {
    path: "registries.<name>",
    about: "A registry, or a directory with images. Either `url` or `layout` is needed.",
    keys: &[
        optional(
            "url",
            Kind::Text("an address such as https://harbor.example"),
            "none",
            "Scheme, host and port of a registry, and the path before `/v2/` where it has one. `http://` speaks without TLS.",
        ),
        optional(
            "layout",
            Kind::Text("the path of a directory"),
            "none",
            "An OCI image layout directory, as source or destination. A relative path starts at the folder of the rules file.",
        ),
        optional(
            "kind",
            Kind::Choice(crate::registry::Kind::WORDS),
            "found by the host name, or by asking",
            "What the registry is. It says which API lists tags with their digests and makes repositories, and how uploads are sent. Write it for a product that runs at a host of your own, such as Harbor or zot; `aws`, `alibaba` and `azure` want it there.",
        ),
        optional(
            "username",
            Kind::Text("a user name"),
            "from Docker's and Podman's login files, else anonymous",
            "Who logs in. `<token>` says that the password is an identity token.",
        ),
        optional(
            "password",
            Kind::Text("a password or a reference such as ${HARBOR_PASSWORD}"),
            "none",
            "Password, access key or token. Write a reference, not the password itself.",
        ),
        optional(
            "tls",
            Kind::Map(&TLS),
            "none",
            "How the registry's certificate is checked.",
        ),
        optional(
            "limits",
            Kind::Map(&LIMITS),
            "none",
            "How hard the registry is pressed.",
        ),
        optional(
            "token_hosts",
            Kind::List {
                of: &Kind::Text("a host such as auth.example or *.example"),
                may_be_empty: true,
            },
            "[]",
            "Hosts beside the registry's own that it may send our credentials to for a token. `*.` in front stands for every subdomain.",
        ),
        optional(
            "endpoint",
            Kind::Text("an address such as https://api.ecr.eu-west-1.amazonaws.com"),
            "where the vendor has it",
            "Where the vendor's API is, such as a private endpoint of a VPC. Our keys sign what goes there; it is not for images.",
        ),
        BULK_LISTING_ENTRY,
        NEXUS_REPOSITORY_ENTRY,
        PROXY_ENTRY,
        RESOLVE_ENTRY,
        HEADERS_ENTRY,
        TIMEOUTS_ENTRY,
        MIRRORS_ENTRY,
        MIRRORS_RESOLVE_TAGS_ENTRY,
        optional(
            "create_repositories",
            Kind::Map(&CREATE),
            "made where a push does not make them",
            "What repositories (and projects) are made like, where the registry does not make them by itself.",
        ),
        optional(
            "aws",
            Kind::Map(&AWS),
            "AWS's usual chain",
            "Who we are at AWS ECR. Without it: environment, web identity, profile (keys, SSO, process), container, instance, in this order.",
        ),
        optional(
            "alibaba",
            Kind::Map(&ALIBABA),
            "none",
            "Who we are at Alibaba Cloud, and which instance of its registry this is.",
        ),
        AZURE_ENTRY,
        clouds::GOOGLE_ENTRY,
        clouds::HUAWEI_ENTRY,
        clouds::TENCENT_ENTRY,
    ],
};

static CREATE: Section = Section {
    path: "registries.<name>.create_repositories",
    about: "What repositories (and projects) are made like. What a registry does not know of is left out.",
    keys: &[
        optional(
            "enabled",
            Kind::Flag,
            "true",
            "`false`: nothing is made, and a push to what is missing fails.",
        ),
        optional(
            "public",
            Kind::Flag,
            "false",
            "Anybody may read it (Harbor, Alibaba, Tencent).",
        ),
        optional(
            "tag_mutability",
            Kind::Choice(&["mutable", "immutable"]),
            "the registry's own",
            "Whether a tag may be moved (ECR, Alibaba, Google).",
        ),
        optional(
            "tag_mutability_exceptions",
            Kind::List {
                of: &Kind::Text("a tag, or a pattern such as dev-*"),
                may_be_empty: false,
            },
            "none",
            "Tags for which the opposite of `tag_mutability` holds, five at most (ECR; with it no other registry is told `tag_mutability: immutable`).",
        ),
        optional(
            "scan_on_push",
            Kind::Flag,
            "the registry's own",
            "Whether what is pushed is scanned for vulnerabilities (ECR, Harbor, Tencent).",
        ),
        optional(
            "encryption",
            Kind::Choice(&["aes256", "kms", "kms_dsse"]),
            "the registry's own",
            "How it is encrypted at rest (ECR).",
        ),
        optional(
            "kms_key",
            Kind::Text("the ARN or alias of a key"),
            "the registry's own",
            "The key of AWS KMS, with `encryption: kms` or `kms_dsse`.",
        ),
        optional(
            "tags",
            Kind::Texts("a text"),
            "none",
            "Labels in the cloud's sense (ECR, Google).",
        ),
        optional(
            "artifactory_local",
            Kind::Flag,
            "false",
            "`true`: a local Docker repository of Artifactory is made where a push finds none of its key, which its administrators may do.",
        ),
    ],
};

static AWS: Section = Section {
    path: "registries.<name>.aws",
    about: "Who we are at AWS ECR. What is left out is found as AWS's own tools find it.",
    keys: &[
        optional(
            "region",
            Kind::Text("a region such as eu-west-1"),
            "by the host name",
            "The region of the registry, where its host does not name it.",
        ),
        optional(
            "registry_id",
            Kind::Text("an account such as \"123456789012\""),
            "by the host name",
            "The account whose registry it is, where its host does not name it. Without it the API is asked for logins only.",
        ),
        optional(
            "profile",
            Kind::Text("a name"),
            "`AWS_PROFILE`, else default",
            "The profile of `~/.aws/config` and `~/.aws/credentials`.",
        ),
        optional(
            "role_arn",
            Kind::Text("an ARN such as arn:aws:iam::123456789012:role/replicator"),
            "none",
            "A role to take on.",
        ),
        optional(
            "external_id",
            Kind::Text("a text"),
            "none",
            "What the role's owner asks for, with `role_arn`.",
        ),
        optional(
            "session_name",
            Kind::Text("a name"),
            "transship",
            "What the session is called in AWS's logs, with `role_arn`.",
        ),
        optional(
            "access_key_id",
            Kind::Text("an id or a reference such as ${AWS_KEY}"),
            "none",
            "An access key, with `secret_access_key`.",
        ),
        optional(
            "secret_access_key",
            Kind::Text("a reference such as ${AWS_SECRET}"),
            "none",
            "The secret of the access key. Write a reference, not the secret itself.",
        ),
        optional(
            "session_token",
            Kind::Text("a reference such as ${AWS_TOKEN}"),
            "none",
            "The token of a temporary access key.",
        ),
    ],
};

static ALIBABA: Section = Section {
    path: "registries.<name>.alibaba",
    about: "Who we are at Alibaba Cloud. What is left out is found as Alibaba's own tools find it.",
    keys: &[
        optional(
            "instance_id",
            Kind::Text("an id such as cri-abc"),
            "none",
            "The instance of the enterprise edition.",
        ),
        optional(
            "region",
            Kind::Text("a region such as cn-hangzhou"),
            "by the host name",
            "The region of the registry.",
        ),
        optional(
            "access_key_id",
            Kind::Text("an id or a reference such as ${ALI_ID}"),
            "none",
            "An access key, with `access_key_secret`.",
        ),
        optional(
            "access_key_secret",
            Kind::Text("a reference such as ${ALI_SECRET}"),
            "none",
            "The secret of the access key. Write a reference, not the secret itself.",
        ),
        optional(
            "security_token",
            Kind::Text("a reference such as ${ALI_TOKEN}"),
            "none",
            "The token of a temporary access key.",
        ),
        optional(
            "role_arn",
            Kind::Text("an ARN such as acs:ram::123456789012:role/replicator"),
            "none",
            "A role to take on.",
        ),
        optional(
            "ram_role",
            Kind::Text("a name"),
            "none",
            "The RAM role of the ECS instance that transship runs on.",
        ),
    ],
};

static TLS: Section = Section {
    path: "registries.<name>.tls",
    about: "How the registry's certificate is checked.",
    keys: &[
        optional(
            "ca_file",
            Kind::Text("the path of a PEM file"),
            "none",
            "Certificates that are trusted beside the system's. A relative path starts at the folder of the rules file.",
        ),
        optional(
            "client_cert",
            Kind::Text("the path of a PEM file"),
            "none",
            "Our own certificate, with `client_key`. The path as for `ca_file`.",
        ),
        optional(
            "client_key",
            Kind::Text("the path of a PEM file"),
            "none",
            "The key of our own certificate. The path as for `ca_file`.",
        ),
        optional(
            "insecure_skip_verify",
            Kind::Flag,
            "false",
            "Trusts any certificate. Whoever is on the way can then read the password; `ca_file` is better.",
        ),
    ],
};

static LIMITS: Section = Section {
    path: "registries.<name>.limits",
    about: "How hard the registry is pressed.",
    keys: &[
        optional(
            "concurrency",
            CONCURRENCY,
            "found by trying",
            "The most requests under way at once. 1 counts as 2, as a copy within one registry reads and writes at once.",
        ),
        optional(
            "requests_per_second",
            REQUESTS,
            "none",
            "The most requests in a second. 0.5 is one every two seconds.",
        ),
        optional(
            "bandwidth",
            Kind::Size,
            "none",
            "The most bytes in a second from the registry, and as many to it. Blobs that are nearly done go first.",
        ),
    ],
};

static TOTAL_LIMITS: Section = Section {
    path: "limits",
    about: "How hard all registries together are pressed, by everything that one process does.",
    keys: &[
        optional(
            "concurrency",
            CONCURRENCY,
            "none",
            "The most requests under way at once. 1 counts as 2, as a copy reads and writes at once. Who waits for a \
             registry's pause or its `requests_per_second` takes no place, except for the rest of a blob. Logins are not \
             counted.",
        ),
        optional(
            "requests_per_second",
            REQUESTS,
            "none",
            "The most requests in a second.",
        ),
        optional(
            "bandwidth",
            Kind::Size,
            "none",
            "The most bytes in a second that come in, and as many that go out.",
        ),
    ],
};

const CONCURRENCY: Kind = Kind::Count { least: 1, most: 1000 };
const REQUESTS: Kind = Kind::Rate { most: 1_000_000 };

const TAGS_ENTRY: Entry = optional("tags", Kind::Map(&TAGS), "every tag", "Which tags are copied.");
const SCHEDULE_ENTRY: Entry = optional(
    "schedule",
    Kind::Text("a cron expression in quotes, such as \"*/30 * * * *\""),
    "by hand only",
    "When the rule runs: five fields (minute, hour, day, month, day of the week), or `@hourly`, `@daily`, `@weekly`, `@monthly`.",
);
const TIMEZONE_ENTRY: Entry = optional(
    "timezone",
    Kind::Text("a time zone such as Asia/Shanghai"),
    "UTC",
    "The zone of `schedule`, by its IANA name.",
);
const JITTER_ENTRY: Entry = optional(
    "jitter",
    Kind::Duration,
    "0s",
    "Each start is put off by up to this much, so that many rules do not start at once.",
);
const OVERLAP_ENTRY: Entry = optional(
    "overlap",
    Kind::Choice(&["skip", "queue"]),
    "skip",
    "When the rule is due while it still runs: pass over, or run once more afterwards.",
);
const MISSED_ENTRY: Entry = optional(
    "missed",
    Kind::Choice(&["run", "skip"]),
    "run",
    "What happens with due times at which no daemon ran: one run at start, or nothing.",
);
const MISSED_WITHIN_ENTRY: Entry = optional(
    "missed_within",
    Kind::Duration,
    "1h",
    "How old a missed due time may be to be run at start.",
);
const MOVED_TAGS_ENTRY: Entry = optional(
    "moved_tags",
    Kind::Choice(&["follow", "keep", "fail"]),
    "follow",
    "The destination's tag is one that transship wrote, and the source's has moved on: move it too, leave it, or fail.",
);
const ON_CONFLICT_ENTRY: Entry = optional(
    "on_conflict",
    Kind::Choice(&["overwrite", "keep", "fail"]),
    "overwrite",
    "The destination's tag is one that transship did not write, and differs: overwrite it, leave it, or fail.",
);
const TRUST_DESTINATION_ENTRY: Entry = optional(
    "trust_destination",
    Kind::Duration,
    "0s",
    "How long a destination's tag that transship saw or wrote counts as in step without asking again, while the destination still \
     lists it. `0s`: every run asks.",
);
const PLATFORMS_ENTRY: Entry = optional(
    "platforms",
    Kind::List {
        of: &Kind::Text("a platform such as linux/amd64"),
        may_be_empty: true,
    },
    "all",
    "Platforms to copy, as `os/architecture` or `os/architecture/variant`. `[]` means all.",
);
const INDEX_ENTRY: Entry = optional(
    "index",
    Kind::Choice(&["keep", "rewrite"]),
    "keep; with platforms or attestations: rewrite",
    "What becomes of a multi-platform index: copied byte for byte, or without the entries of other platforms.",
);
const ATTESTATIONS_ENTRY: Entry = optional(
    "attestations",
    Kind::Choice(&["keep", "strip"]),
    "keep",
    "What becomes of the attestations that BuildKit puts into an index: copied, or taken out for registries that refuse them.",
);
const PRIORITY_ENTRY: Entry = optional(
    "priority",
    Kind::Count { least: -100, most: 100 },
    "0",
    "Higher goes first where rules compete: for their start, for a place at a registry, for the pulls that a registry counts.",
);
const RETRY_ENTRY: Entry = optional("retry", Kind::Map(&RETRY), "see there", "How often an image is tried.");

/// `defaults`.
pub(super) static DEFAULTS: Section = Section {
    path: "defaults",
    about: "What holds for every rule that does not say otherwise. The keys mean what they mean in a rule.",
    keys: &[
        TAGS_ENTRY,
        SCHEDULE_ENTRY,
        TIMEZONE_ENTRY,
        JITTER_ENTRY,
        OVERLAP_ENTRY,
        MISSED_ENTRY,
        MISSED_WITHIN_ENTRY,
        MOVED_TAGS_ENTRY,
        ON_CONFLICT_ENTRY,
        TRUST_DESTINATION_ENTRY,
        PLATFORMS_ENTRY,
        INDEX_ENTRY,
        ATTESTATIONS_ENTRY,
        RETRY_ENTRY,
        PRIORITY_ENTRY,
    ],
};

/// `rules[]`.
pub(super) static RULE: Section = Section {
    path: "rules[]",
    about: "One source, one or more destinations, which repositories and tags, when.",
    keys: &[
        required(
            "name",
            Kind::Text("a name"),
            "Names the rule in commands, logs and reports. Letters, digits, `.`, `_` and `-`; each name once.",
        ),
        required(
            "source",
            Kind::Text("the name of a registry"),
            "The registry that images come from.",
        ),
        required(
            "destinations",
            Kind::List {
                of: &Kind::TextOr("the name of a registry", &DESTINATION),
                may_be_empty: false,
            },
            "The registries that they go to. Each blob is read once and written to all.",
        ),
        required(
            "repositories",
            Kind::List {
                of: &Kind::TextOr("a repository such as base/alpine or platform/**", &REPOSITORY),
                may_be_empty: false,
            },
            "Which repositories. One that several entries match belongs to the first.",
        ),
        TAGS_ENTRY,
        SCHEDULE_ENTRY,
        TIMEZONE_ENTRY,
        JITTER_ENTRY,
        OVERLAP_ENTRY,
        MISSED_ENTRY,
        MISSED_WITHIN_ENTRY,
        MOVED_TAGS_ENTRY,
        ON_CONFLICT_ENTRY,
        TRUST_DESTINATION_ENTRY,
        PLATFORMS_ENTRY,
        INDEX_ENTRY,
        ATTESTATIONS_ENTRY,
        RETRY_ENTRY,
        PRIORITY_ENTRY,
    ],
};

static DESTINATION: Section = Section {
    path: "rules[].destinations[]",
    about: "A destination with its own naming.",
    keys: &[
        required("registry", Kind::Text("the name of a registry"), "The registry."),
        optional(
            "to",
            Kind::Text("a name such as mirror/{name}"),
            "the `to` of the repository's entry",
            "What repositories are called there.",
        ),
    ],
};

static REPOSITORY: Section = Section {
    path: "rules[].repositories[]",
    about: "Repositories with their own naming or tags.",
    keys: &[
        required(
            "match",
            Kind::Text("a repository such as base/alpine or platform/**"),
            "A name or a glob over the whole name: `*` does not cross `/`, `**` does. A name without wildcards needs no listing of the registry.",
        ),
        optional(
            "exclude",
            Kind::List {
                of: &Kind::Text("a repository such as base/tmp-*"),
                may_be_empty: true,
            },
            "[]",
            "Globs of repositories that are left out again.",
        ),
        optional(
            "to",
            Kind::Text("a name such as mirror/{name}"),
            "{path}",
            "What they are called at the destination: `{path}`, `{name}`, `{flat}`, and `{1}`, `{2}` for what the wildcards matched.",
        ),
        optional(
            "tags",
            Kind::Map(&TAGS),
            "the rule's `tags`",
            "Replaces the rule's `tags` as a whole for these repositories.",
        ),
    ],
};

/// `tags` of a rule or of a repository's entry.
static TAGS: Section = Section {
    path: "rules[].tags",
    about: "Which tags are copied. The steps narrow in this order: include, exclude, semver, newest.",
    keys: &[
        optional(
            "include",
            Kind::List {
                of: &Kind::Text("a tag in quotes, a glob such as \"v*\" or a /regular expression/"),
                may_be_empty: true,
            },
            "every tag",
            "A tag must match any of these. Globs match the whole tag; `/regular expressions/` search in it.",
        ),
        optional(
            "exclude",
            Kind::List {
                of: &Kind::Text("a tag in quotes, a glob such as \"*-rc*\" or a /regular expression/"),
                may_be_empty: true,
            },
            "[]",
            "A tag must match none of these.",
        ),
        optional(
            "semver",
            Kind::Text("a range of versions such as \">=1.20, <3\""),
            "none",
            "A tag must be a version in this range. A leading `v` and two-part versions are fine; what is no version is left out.",
        ),
        optional(
            "suffix",
            Kind::Text("what follows the version, such as alpine for 1.20-alpine"),
            "none",
            "With `semver`: only versions with this suffix, which then does not count as a pre-release.",
        ),
        optional("newest", Kind::Map(&NEWEST), "all", "Only the newest of what is left."),
    ],
};

static NEWEST: Section = Section {
    path: "rules[].tags.newest",
    about: "How many of the newest tags stay.",
    keys: &[
        required(
            "count",
            Kind::Count {
                least: 1,
                most: 1_000_000,
            },
            "How many tags of each repository.",
        ),
        optional(
            "by",
            Kind::Choice(&["semver", "name"]),
            "semver",
            "By version (what is no version is left out), or by name, the last ones.",
        ),
    ],
};

static RETRY: Section = Section {
    path: "rules[].retry",
    about: "How often an image is tried before it counts as failed.",
    keys: &[
        optional(
            "attempts",
            Kind::Count { least: 1, most: 100 },
            "6",
            "Attempts in a row that gained nothing. One that moved 64 KiB, or the rest of a blob, begins the count anew.",
        ),
        optional(
            "max_delay",
            Kind::Duration,
            "5m",
            "The longest wait between two attempts.",
        ),
    ],
};

/// All sections, in the order in which a reader meets them.
#[cfg(test)]
pub(super) static SECTIONS: &[&Section] = &[
    &FILE,
    &SPOOL,
    &REGISTRY,
    &TLS,
    &LIMITS,
    &reach::PROXY,
    &reach::TIMEOUTS,
    &reach::MIRROR,
    &CREATE,
    &AWS,
    &ALIBABA,
    &azure::AZURE,
    &azure::IMPORT,
    &clouds::GOOGLE,
    &clouds::HUAWEI,
    &clouds::TENCENT,
    &TOTAL_LIMITS,
    &DEFAULTS,
    &RULE,
    &DESTINATION,
    &REPOSITORY,
    &TAGS,
    &NEWEST,
    &RETRY,
];
