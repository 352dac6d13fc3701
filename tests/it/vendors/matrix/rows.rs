//! The kinds.

use futures_util::future::FutureExt;
use transship::demo::registry::Options;

use super::clouds::{ECR_PUBLIC, GITHUB, GOOGLE, HUAWEI, TENCENT_ENTERPRISE, TENCENT_PERSONAL};
use super::scenarios::{one, run};
use super::stores::{Docker, Ecr};
use super::{Bulk, End, Not, Referrers, Row, Scenario, Shown, Site};
use crate::support::aws::{ACCOUNT, Aws, KEY};
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::fake::artifactory::Artifactory;
use crate::support::fake::gitlab::Gitlab;
use crate::support::fake::harbor::Harbor;
use crate::support::fake::hub::Hub;
use crate::support::fake::nexus::Nexus;
use crate::support::fake::quay::Quay;
use crate::support::fake::zot::Zot;
use crate::support::fake::{Fake, alibaba, azure};
use crate::support::proxy::Proxy;
use crate::support::token_server::TokenServer;
use crate::support::{PASSWORD, USERNAME};
use crate::vendors::frame::Guarded;

/// Makes a test of each kind, and the list of all.
macro_rules! kinds {
    ($($test:ident: $row:expr,)*) => {
        pub static KINDS: &[&Row] = &[$(&$row),*];

        $(
            #[tokio::test]
            async fn $test() {
                Box::pin(run(&$row)).await;
            }
        )*
    };
}

kinds! {
    matrix_of_harbor: HARBOR,
    matrix_of_alibaba_enterprise: ALIBABA_ENTERPRISE,
    matrix_of_alibaba_personal: ALIBABA_PERSONAL,
    matrix_of_ecr: ECR,
    matrix_of_azure: AZURE,
    matrix_of_docker_hub: DOCKER_HUB,
    matrix_of_distribution: DISTRIBUTION,
    matrix_of_zot: ZOT,
    matrix_of_quay: QUAY,
    matrix_of_artifactory: ARTIFACTORY,
    matrix_of_nexus: NEXUS,
    matrix_of_gitlab: GITLAB,
    matrix_of_github: GITHUB,
    matrix_of_google: GOOGLE,
    matrix_of_ecr_public: ECR_PUBLIC,
    matrix_of_huawei: HUAWEI,
    matrix_of_tencent_enterprise: TENCENT_ENTERPRISE,
    matrix_of_tencent_personal: TENCENT_PERSONAL,
    matrix_of_generic: GENERIC,
}

static HARBOR: Row = Row {
    kind: "harbor",
    shown: Shown::Fake,
    by: "a fake of Harbor 2.13 before an imitation of its registry (distribution 2.8)",
    start: || {
        async {
            let (fake, harbor) = Harbor::start(&["team"]).await;
            End {
                site: Site::Fake(fake),
                keys: Harbor::keys(),
                _kept: Box::new(harbor),
            }
        }
        .boxed()
    },
    repository: "team/web/app",
    missing: "new/app",
    listing: Bulk::Images(100),
    api: Some(("GET", "/artifacts")),
    referrers: Referrers::Api,
    pattern: "team/web/*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "which permissions exactly a robot needs for the lists of the API",
        "what the API says of Harbor before 2.0, which is taken for one without it",
    ],
};

static ALIBABA_ENTERPRISE: Row = Row {
    kind: "alibaba_enterprise",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server and its API, which checks every signature",
    start: || {
        async {
            let (fake, cloud) = alibaba::enterprise().await;
            cloud.namespace("team", true);
            cloud.signatures.take_any_date();
            let keys = alibaba::keys(&fake, "alibaba_enterprise");
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(cloud),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::Tags(100),
    api: Some(("POST", "/?")),
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "what its API says of an index (believed only where a look at a tag agrees)",
        "the status and the code of a refusal to move an immutable tag (its words are documented)",
        "the codes for what exists already and for what is missing, but a few",
        "Alibaba Cloud itself",
    ],
};

static ALIBABA_PERSONAL: Row = Row {
    kind: "alibaba_personal",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server and its API, which checks every signature",
    start: || {
        async {
            let (fake, cloud) = alibaba::personal().await;
            cloud.namespace("team", true);
            cloud.signatures.take_any_date();
            let keys = alibaba::keys(&fake, "alibaba_personal");
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(cloud),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::Tags(100),
    api: Some(("GET", "/repos/")),
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[(Scenario::Immutable, Not::HasNone("it has no immutable tags"))],
    unchecked: &[
        "what its API says of an index (believed only where a look at a tag agrees)",
        "which pages of more than 30 tags it gives (its own total is followed)",
        "Alibaba Cloud itself",
    ],
};

static ECR: Row = Row {
    kind: "ecr",
    shown: Shown::Fake,
    by: "a stand-in for AWS that checks signatures; the API's calls also against `moto_server`",
    start: || {
        async {
            let aws = Aws::start().await;
            let proxy = Proxy::start(&aws.url()).await;
            let keys = format!(
                "kind: ecr, endpoint: \"{}\", aws: {{ region: eu-west-1, registry_id: \"{ACCOUNT}\", access_key_id: {}, \
                 secret_access_key: \"{}\" }}",
                proxy.url(),
                KEY.0,
                KEY.1
            );
            End {
                site: Site::Behind {
                    store: Box::new(Ecr(aws)),
                    proxy,
                },
                keys,
                _kept: Box::new(()),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::Images(1000),
    api: Some(("POST", "/")),
    referrers: Referrers::Api,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "the status of a refusal to move an immutable tag (400 is imitated; any is understood)",
        "what `/v2/` answers for an image that was archived",
        "AWS itself",
    ],
};

static AZURE: Row = Row {
    kind: "azure",
    shown: Shown::Fake,
    by: "a fake of the registry, its tokens and scopes, and of Entra ID",
    start: || {
        async {
            let (fake, cloud) = azure::start().await;
            let keys = azure::keys(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(cloud),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::Tags(100),
    api: Some(("GET", "/acr/v1/")),
    referrers: Referrers::Api,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "whether pages of its API have more than 100 tags (they are asked for)",
        "Azure itself",
    ],
};

static DOCKER_HUB: Row = Row {
    kind: "docker_hub",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server and the Hub API",
    start: || {
        async {
            let (fake, hub) = Hub::start().await;
            let keys = Hub::keys(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(hub),
            }
        }
        .boxed()
    },
    repository: "corp/app",
    missing: "corp/new",
    listing: Bulk::Tags(100),
    api: Some(("GET", "/hub/v2/namespaces/")),
    referrers: Referrers::Tag,
    pattern: "corp/app*",
    beside: "corp/tool",
    not: &[(
        Scenario::Immutable,
        Not::Unknown("what it answers for an immutable tag is not documented"),
    )],
    unchecked: &[
        "for which old tags the API has no digest (they are looked at one by one)",
        "the rate limit of the API, which is not documented (5 requests a second are sent at most)",
        "how long a token of the API is good (used for 5 minutes)",
    ],
};

static DISTRIBUTION: Row = Row {
    kind: "distribution",
    shown: Shown::Real,
    by: "docker-registry 2.8 as a process, with a token server; the imitations at the other ends have the habits of 3.x",
    start: || {
        async {
            let server = TokenServer::start(false).await;
            let config = DockerConfig {
                token: Some(server.docker_auth()),
                ..DockerConfig::default()
            };
            let realm = server.docker_auth().realm;
            let host = realm.trim_start_matches("http://").trim_end_matches("/token");
            let login = format!("username: {USERNAME}, password: {PASSWORD}, token_hosts: [\"{host}\"]");
            let registry = DockerRegistry::start(config).await;
            let proxy = Proxy::start(&registry.url()).await;
            End {
                site: Site::Behind {
                    store: Box::new(Docker(registry)),
                    proxy,
                },
                keys: format!("kind: distribution, {login}"),
                _kept: Box::new(server),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::None,
    api: None,
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[(Scenario::Immutable, Not::HasNone("it has no immutable tags"))],
    unchecked: &["3.x as a process: only its habits are imitated"],
};

static ZOT: Row = Row {
    kind: "zot",
    shown: Shown::Fake,
    by: "a fake of its search and of a token server before an imitation of a registry with referrers",
    start: || {
        async {
            let (fake, zot) = Zot::with_tokens().await;
            End {
                site: Site::Fake(fake),
                keys: Zot::keys(),
                _kept: Box::new(zot),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::Tags(1000),
    api: Some(("GET", "/_zot/ext/")),
    referrers: Referrers::Api,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[(Scenario::Immutable, Not::HasNone("it has no immutable tags"))],
    unchecked: &[
        "what its search leaves out (tags that it does not show are looked at one by one)",
        "what remains of an upload that broke off",
    ],
};

static GENERIC: Row = Row {
    kind: "generic",
    shown: Shown::Fake,
    by: "an imitation of distribution 3 behind a strict token server",
    start: || {
        async {
            let fake = Fake::start(Guarded::at("/token", "guarded"), Options::default()).await;
            End {
                site: Site::Fake(fake),
                keys: format!("kind: generic, username: {USERNAME}, password: {PASSWORD}"),
                _kept: Box::new(()),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "new/app",
    listing: Bulk::None,
    api: None,
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[(Scenario::Immutable, Not::HasNone("distribution has no immutable tags"))],
    unchecked: &[],
};

static QUAY: Row = Row {
    kind: "quay",
    shown: Shown::Fake,
    by: "a fake of its token server and its API before an imitation of a registry with referrers",
    start: || {
        async {
            let (fake, quay) = Quay::start().await;
            End {
                site: Site::Fake(fake),
                keys: Quay::keys(),
                _kept: Box::new(quay),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "team/new",
    listing: Bulk::Tags(100),
    api: Some(("GET", "/api/v1/repository/")),
    referrers: Referrers::Api,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "how quay.io throttles",
        "an organisation that is missing: Quay makes repositories, and organisations only where it is set up so",
    ],
};

static ARTIFACTORY: Row = Row {
    kind: "artifactory",
    shown: Shown::Fake,
    by: "a fake of its storage API and its tokens before an imitation of a registry",
    start: || {
        async {
            End {
                site: Site::Fake(Artifactory::with_tokens().await),
                keys: Artifactory::keys(),
                _kept: Box::new(()),
            }
        }
        .boxed()
    },
    repository: "docker/app",
    missing: "docker/new",
    // All in one answer.
    listing: Bulk::Tags(1_000_000),
    api: Some(("GET", "/artifactory/api/storage/")),
    referrers: Referrers::Tag,
    pattern: "docker/app*",
    beside: "docker/tool",
    not: &[],
    unchecked: &[
        "what the storage says of an index (it is compared with looks at tags first)",
        "the service and the scopes of its tokens",
        "repositories by host or port, virtual and remote ones",
        "the status with which a tag is not overwritten for want of the right to delete (403 is imitated)",
        "which versions have referrers",
    ],
};

static NEXUS: Row = Row {
    kind: "nexus",
    shown: Shown::Fake,
    by: "an imitation of a registry with tokens that lists what is no tag, as Nexus does",
    start: || {
        async {
            End {
                site: Site::Fake(Nexus::with_tokens().await),
                keys: Nexus::keys(),
                _kept: Box::new(()),
            }
        }
        .boxed()
    },
    repository: "team/app",
    missing: "team/new",
    listing: Bulk::None,
    api: None,
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "its search, whose index lags behind: it is used with `bulk_listing: true` alone, and its no-op is at most 50 requests a side",
        "the service of its tokens, and how long they are good",
        "group repositories, and the caps of the Community Edition",
    ],
};

/// With `bulk_listing: true`. Its pages are as long as Nexus likes: some 50 components.
pub static NEXUS_WITH_SEARCH: Row = Row {
    start: || {
        async {
            let (fake, nexus) = Nexus::start_with_search().await;
            let keys = Nexus::keys_with_search(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(nexus),
            }
        }
        .boxed()
    },
    listing: Bulk::Tags(50),
    api: Some(("GET", "/service/rest/v1/search")),
    ..NEXUS
};

#[tokio::test]
async fn nexus_nothing_to_do_over_2000_tags_costs_pages_of_its_search() {
    one(&NEXUS_WITH_SEARCH, Scenario::NoOp).await;
}

#[tokio::test]
async fn nexus_search_that_wants_to_be_asked_later_is() {
    one(&NEXUS_WITH_SEARCH, Scenario::Throttled).await;
}

static GITLAB: Row = Row {
    kind: "gitlab",
    shown: Shown::Fake,
    by: "a fake of its token server and its API before an imitation of a registry",
    start: || {
        async {
            let (fake, gitlab) = Gitlab::start().await;
            let keys = Gitlab::keys_with_api(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(gitlab),
            }
        }
        .boxed()
    },
    repository: "group/project/app",
    missing: "group/project/new",
    listing: Bulk::Tags(1000),
    api: Some(("GET", "/gitlab/v1/")),
    referrers: Referrers::Tag,
    pattern: "group/project/*",
    beside: "group/sub/tool",
    not: &[(
        Scenario::Immutable,
        Not::Unknown("its words for protected tags are not documented"),
    )],
    unchecked: &[
        "how its API pages, and which of its versions have it (it is left alone where it is not there)",
        "the answer to a push below a project that is missing",
    ],
};
