//! How a registry is reached, and what is read from first.

use super::{Entry, Kind, Section, optional, required};

pub(super) const PROXY_ENTRY: Entry = optional(
    "proxy",
    Kind::TextOr("`none`, or an address such as http://proxy.example:3128", &PROXY),
    "what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say; none for a registry on this machine",
    "The proxy to the registry, its token server and its store of blobs. `none` is no proxy, whatever the environment says. Hosts that `NO_PROXY` names are reached directly.",
);
pub(super) const RESOLVE_ENTRY: Entry = optional(
    "resolve",
    Kind::Texts("an IP address such as 10.0.0.1 or \"10.0.0.1:8443\""),
    "the name server",
    "Addresses of hosts, by their names: of the registry, and of its token server, its API and its store of blobs. The certificate must still be for the name.",
);
pub(super) const HEADERS_ENTRY: Entry = optional(
    "headers",
    Kind::Texts("a text or a reference such as ${GATEWAY_TOKEN}"),
    "none",
    "Headers of every request to the registry itself, such as a gateway in front of it wants. They are kept like passwords, and sent to no other host.",
);
pub(super) const TIMEOUTS_ENTRY: Entry = optional(
    "timeouts",
    Kind::Map(&TIMEOUTS),
    "see there",
    "How long is waited for the registry.",
);
pub(super) const MIRRORS_ENTRY: Entry = optional(
    "mirrors",
    Kind::List {
        of: &NAME_OR_MIRROR,
        may_be_empty: true,
    },
    "[]",
    "Registries that blobs and manifests are read from first, in this order. What a mirror lacks, or gives with another digest, is read from the registry itself.",
);
pub(super) const BULK_LISTING_ENTRY: Entry = optional(
    "bulk_listing",
    Kind::Flag,
    "true; false for Nexus",
    "`false`: each tag is looked at by itself, not listed with all digests by the vendor's API. For a source that is a pull-through cache: \
     its API lists what it has fetched, and only a look makes it ask where it fetches from. `true` makes a difference with `kind: nexus` \
     alone: tags are listed by its search, which may be behind what the repository holds.",
);
pub(super) const NEXUS_REPOSITORY_ENTRY: Entry = optional(
    "nexus_repository",
    Kind::Text("a name such as docker-hosted"),
    "by the path of `url` (`/repository/<name>`)",
    "What Nexus calls the repository that is behind this address, for `bulk_listing: true`.",
);

pub(super) const MIRRORS_RESOLVE_TAGS_ENTRY: Entry = optional(
    "mirrors_resolve_tags",
    Kind::Flag,
    "false",
    "`true`: mirrors say what a tag points to, too. What they say may be old; the registry itself is asked where none has the tag.",
);

static NAME_OR_MIRROR: Kind = Kind::TextOr(
    "an address such as https://mirror.example, or the name of a registry",
    &MIRROR,
);

pub(super) static PROXY: Section = Section {
    path: "registries.<name>.proxy",
    about: "A proxy that wants to know who we are.",
    keys: &[
        required(
            "url",
            Kind::Text("an address such as http://proxy.example:3128"),
            "Scheme, host and port of the proxy. `http://` is usual: what is https stays encrypted on its way through.",
        ),
        optional(
            "username",
            Kind::Text("a user name"),
            "none",
            "Who we are at the proxy, with `password`.",
        ),
        optional(
            "password",
            Kind::Text("a password or a reference such as ${PROXY_PASSWORD}"),
            "none",
            "Sent to the proxy alone. Write a reference, not the password itself.",
        ),
    ],
};

pub(super) static TIMEOUTS: Section = Section {
    path: "registries.<name>.timeouts",
    about: "How long is waited. Blobs have no limit but that they must go on.",
    keys: &[
        optional(
            "connect",
            Kind::Duration,
            "20s",
            "For a connection, with its TLS handshake and its way through a proxy.",
        ),
        optional(
            "answer",
            Kind::Duration,
            "2m",
            "For the head of an answer where no blob is sent. Large indexes and listings take their time.",
        ),
    ],
};

pub(super) static MIRROR: Section = Section {
    path: "registries.<name>.mirrors[]",
    about: "A mirror that is a registry of the rules, with its login and its limits.",
    keys: &[
        required("registry", Kind::Text("the name of a registry"), "The registry."),
        optional(
            "prefix",
            Kind::Text("a name such as hub-proxy"),
            "none",
            "What stands before the repositories' names there, such as a proxy project of Harbor: `library/alpine` is `hub-proxy/library/alpine` then.",
        ),
    ],
};
