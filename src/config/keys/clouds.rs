//! Who we are at a cloud.

use super::{Entry, Kind, Section, optional};

pub(super) const GOOGLE_ENTRY: Entry = optional(
    "google",
    Kind::Map(&GOOGLE),
    "none",
    "Who we are at Google Cloud, where it is no user and password.",
);
pub(super) const HUAWEI_ENTRY: Entry = optional(
    "huawei",
    Kind::Map(&HUAWEI),
    "none",
    "Who we are at Huawei Cloud. Login and listings come from the access key.",
);
pub(super) const TENCENT_ENTRY: Entry = optional(
    "tencent",
    Kind::Map(&TENCENT),
    "none",
    "Who we are at Tencent Cloud's API, and which instance of its registry this is. It may stand beside `username`, which then logs in to the registry.",
);

pub(super) static GOOGLE: Section = Section {
    path: "registries.<name>.google",
    about: "Who we are at Google Cloud. `{}` is `GOOGLE_APPLICATION_CREDENTIALS`, else the login of `gcloud auth application-default login`, else the service account of the machine.",
    keys: &[
        optional(
            "credentials_file",
            Kind::Text("the path of a JSON file"),
            "`GOOGLE_APPLICATION_CREDENTIALS`",
            "Credentials as Google and gcloud write them: the key of a service account, a user's login, workload identity federation, or a service account that one of these takes on. A relative path starts at the folder of the rules file.",
        ),
        optional(
            "service_account",
            Kind::Text("an address such as sync@project.iam.gserviceaccount.com"),
            "default",
            "The service account of the machine that transship runs on, where it has several.",
        ),
    ],
};

pub(super) static HUAWEI: Section = Section {
    path: "registries.<name>.huawei",
    about: "Who we are at Huawei Cloud. Without an access key here that of the environment is used, else that of the agency of the ECS instance.",
    keys: &[
        optional(
            "region",
            Kind::Text("a region such as cn-north-4"),
            "by the host name",
            "The region of the registry.",
        ),
        optional(
            "access_key",
            Kind::Text("an id or a reference such as ${HUAWEI_AK}"),
            "`HUAWEICLOUD_SDK_AK`",
            "An access key (AK), with `secret_key`.",
        ),
        optional(
            "secret_key",
            Kind::Text("a reference such as ${HUAWEI_SK}"),
            "`HUAWEICLOUD_SDK_SK`",
            "The secret of the access key (SK). Write a reference, not the secret itself.",
        ),
        optional(
            "security_token",
            Kind::Text("a reference such as ${HUAWEI_TOKEN}"),
            "`HUAWEICLOUD_SDK_SECURITY_TOKEN`",
            "The token of a temporary access key.",
        ),
        optional(
            "project_name",
            Kind::Text("a name such as cn-north-4_team"),
            "the region",
            "The project that logs in to the registry, where it is not the region's own.",
        ),
        optional(
            "project_id",
            Kind::Text("an id"),
            "`HUAWEICLOUD_SDK_PROJECT_ID`",
            "The id of that project, where the API is to be asked for it.",
        ),
    ],
};

pub(super) static TENCENT: Section = Section {
    path: "registries.<name>.tencent",
    about: "Who we are at Tencent Cloud's API. Without a key here that of the environment is used.",
    keys: &[
        optional(
            "registry_id",
            Kind::Text("an id such as tcr-abc"),
            "by the host name, asked from the API",
            "The instance of the enterprise edition. Needed with a host of your own.",
        ),
        optional(
            "region",
            Kind::Text("a region such as ap-guangzhou"),
            "asked from the API; of the personal edition by the host name",
            "The region of the registry.",
        ),
        optional(
            "secret_id",
            Kind::Text("an id or a reference such as ${TENCENT_ID}"),
            "`TENCENTCLOUD_SECRET_ID`",
            "A key of the API, with `secret_key`.",
        ),
        optional(
            "secret_key",
            Kind::Text("a reference such as ${TENCENT_KEY}"),
            "`TENCENTCLOUD_SECRET_KEY`",
            "The secret of the key. Write a reference, not the secret itself.",
        ),
        optional(
            "token",
            Kind::Text("a reference such as ${TENCENT_TOKEN}"),
            "`TENCENTCLOUD_TOKEN`, else `TENCENTCLOUD_SESSION_TOKEN`",
            "The token of a temporary key.",
        ),
        optional(
            "cvm_role",
            Kind::Text("a name"),
            "none",
            "The role of the CVM instance that transship runs on.",
        ),
        optional(
            "international",
            Kind::Flag,
            "false",
            "The key is one of the international site, whose API is `tcr.intl.tencentcloudapi.com`.",
        ),
    ],
};
