//! Kinds that run at their vendor's alone, beside those of `rows`.

use futures_util::future::FutureExt;

use super::{Bulk, End, Not, Referrers, Row, Scenario, Shown, Site};
use crate::support::fake::ecr_public::EcrPublic;
use crate::support::fake::github::Github;
use crate::support::fake::google::Google;
use crate::support::fake::huawei::Huawei;
use crate::support::fake::tencent;

pub static GITHUB: Row = Row {
    kind: "github",
    shown: Shown::Fake,
    by: "a fake of its token server and of the API of packages before an imitation of a registry",
    start: || {
        async {
            let (fake, github) = Github::start().await;
            let keys = Github::keys(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(github),
            }
        }
        .boxed()
    },
    repository: "octo-org/team/app",
    missing: "octocat/new",
    listing: Bulk::Images(100),
    api: Some(("GET", "/packages/")),
    referrers: Referrers::Tag,
    pattern: "octo-org/team/*",
    beside: "octo-org/tool",
    not: &[(Scenario::Immutable, Not::HasNone("it has no immutable tags"))],
    unchecked: &[
        "the order and the pages of its own list of tags",
        "what it answers for a package that is missing or hidden",
        "between which repositories it mounts blobs (it is tried)",
        "how the registry throttles, and what remains of an upload that broke off",
        "registries of GitHub Enterprise Server, whose API is named by `endpoint:`",
    ],
};

pub static GOOGLE: Row = Row {
    kind: "google",
    shown: Shown::Fake,
    by: "a fake of its token servers, its lists and its API before an imitation of a registry with referrers",
    start: || {
        async {
            let (fake, google) = Google::start().await;
            End {
                site: Site::Fake(fake),
                keys: Google::keys(),
                _kept: Box::new(google),
            }
        }
        .boxed()
    },
    repository: "project/images/team/app",
    missing: "project/images/new",
    // All in one answer.
    listing: Bulk::Tags(1_000_000),
    api: None,
    referrers: Referrers::Api,
    pattern: "project/images/team/*",
    beside: "project/images/tool",
    not: &[(
        Scenario::Immutable,
        Not::Unknown("what it answers for an immutable tag is not documented"),
    )],
    unchecked: &[
        "its answer for a repository that is missing (404 and 403 are both understood)",
        "which lengths its pieces of an upload may have, and what remains of one that broke off",
        "which registries of `gcr.io` make the repository with the first push",
        "how long a repository takes to be made (30 looks at its operation, a second apart)",
        "Google Cloud itself",
    ],
};

pub static ECR_PUBLIC: Row = Row {
    kind: "ecr_public",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server and its API, which checks every signature",
    start: || {
        async {
            let (fake, public) = EcrPublic::start().await;
            let keys = EcrPublic::keys(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(public),
            }
        }
        .boxed()
    },
    repository: "ours/made/app",
    missing: "ours/new",
    listing: Bulk::Tags(1000),
    api: Some(("POST", "/")),
    referrers: Referrers::Tag,
    pattern: "ours/made/*",
    beside: "ours/tool",
    not: &[(Scenario::Immutable, Not::HasNone("it has no immutable tags"))],
    unchecked: &[
        "its challenge (realm `/token/`, scope `aws`), and which scopes its token server heeds",
        "the lists of tags of others' repositories, which the registry gives without pages",
        "whether it has the referrers API (it is asked)",
        "what it answers to pieces of an upload: that it does as ECR is imitated",
        "AWS itself",
    ],
};

pub static HUAWEI: Row = Row {
    kind: "huawei",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server, its organisations and its API, which checks every signature",
    start: || {
        async {
            let (fake, huawei) = Huawei::start(&["team"]).await;
            huawei.signatures.take_any_date();
            let keys = Huawei::keys(&fake);
            End {
                site: Site::Fake(fake),
                keys,
                _kept: Box::new(huawei),
            }
        }
        .boxed()
    },
    repository: "team/web/app",
    missing: "new/app",
    listing: Bulk::Tags(1000),
    api: Some(("GET", "/v2/manage/")),
    referrers: Referrers::Tag,
    pattern: "team/web/*",
    beside: "team/tool",
    not: &[(
        Scenario::Immutable,
        Not::Unknown("what it answers for an immutable tag is not documented"),
    )],
    unchecked: &[
        "what its API says of an index (believed only where a look at a tag agrees), and of a repository that is missing",
        "its challenge (service `dockyard`), and its words for an organisation that is missing",
        "how the registry throttles, and what remains of an upload that broke off",
        "whether it has the referrers API (it is asked)",
        "the enterprise edition, which is another registry at hosts of its own",
        "Huawei Cloud itself",
    ],
};

pub static TENCENT_ENTERPRISE: Row = Row {
    kind: "tencent_enterprise",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server and its API, which checks every signature",
    start: || {
        async {
            let (fake, cloud) = tencent::enterprise().await;
            cloud.namespace("team");
            cloud.signatures.take_any_date();
            let keys = tencent::keys(&fake, "tencent_enterprise");
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
    api: Some(("POST", "/")),
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[],
    unchecked: &[
        "what its API says of an index (believed only where a look at a tag agrees)",
        "its challenge, and its answer for a namespace that is missing",
        "the refusal to move an immutable tag (Harbor's is imitated; others are understood too)",
        "the hosts inside a VPC, and the API of the international site but for its name",
        "Tencent Cloud itself",
    ],
};

pub static TENCENT_PERSONAL: Row = Row {
    kind: "tencent_personal",
    shown: Shown::Fake,
    by: "a fake of the registry, its token server and its API, which checks every signature",
    start: || {
        async {
            let (fake, cloud) = tencent::personal().await;
            cloud.namespace("team");
            cloud.signatures.take_any_date();
            let keys = tencent::keys(&fake, "tencent_personal");
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
    listing: Bulk::None,
    api: None,
    referrers: Referrers::Tag,
    pattern: "team/app*",
    beside: "team/tool",
    not: &[(Scenario::Immutable, Not::HasNone("it has no immutable tags"))],
    unchecked: &[
        "its challenge, and its answer for a namespace that is missing",
        "the regions of hosts beside `ccr`, `hkccr` and `sgccr`",
        "Tencent Cloud itself",
    ],
};
