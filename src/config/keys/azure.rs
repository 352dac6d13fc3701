//! Who we are at Azure, and what its resource manager does for a registry.

use super::{Entry, Kind, Section, optional};

pub(super) const AZURE_ENTRY: Entry = optional(
    "azure",
    Kind::Map(&AZURE),
    "none",
    "Who we are at Azure, where it is no user of the registry itself.",
);

pub(super) static AZURE: Section = Section {
    path: "registries.<name>.azure",
    about: "Who we are at Azure. `{}` is the machine's managed identity, or the workload identity of a pod.",
    keys: &[
        optional(
            "tenant_id",
            Kind::Text("an id or a domain"),
            "`AZURE_TENANT_ID`",
            "The directory (tenant).",
        ),
        optional(
            "client_id",
            Kind::Text("an id"),
            "`AZURE_CLIENT_ID`",
            "The application, or the managed identity where the machine has several.",
        ),
        optional(
            "client_secret",
            Kind::Text("a reference such as ${AZURE_SECRET}"),
            "none",
            "The application's secret. Write a reference, not the secret itself.",
        ),
        optional(
            "federated_token_file",
            Kind::Text("the path of a file"),
            "`AZURE_FEDERATED_TOKEN_FILE`",
            "A token of another issuer that proves who we are (workload identity).",
        ),
        optional(
            "authority",
            Kind::Text("an address such as https://login.microsoftonline.com"),
            "by the host name",
            "Where Entra ID is.",
        ),
        optional(
            "resource_id",
            Kind::Text("an id of the resource manager"),
            "none",
            "What Azure's resource manager calls the registry: `/subscriptions/…/registries/NAME`, as `az acr show --query id` prints it. For `import` here, and for what other registries import from here.",
        ),
        optional(
            "import",
            Kind::Map(&IMPORT),
            "none",
            "Has the registry fetch images from their source by itself where it can, so that no blob comes by us. Wants `resource_id`; `{}` is enough.",
        ),
    ],
};

pub(super) static IMPORT: Section = Section {
    path: "registries.<name>.azure.import",
    about: "Images that the registry fetches by itself. What it cannot fetch is copied as ever.",
    keys: &[
        optional(
            "at_least",
            Kind::Size,
            "16MiB",
            "Images of which less is missing are copied by us, as an import takes some seconds.",
        ),
        optional(
            "credentials_of",
            Kind::List {
                of: &Kind::Text("a name from `registries:`"),
                may_be_empty: true,
            },
            "[]",
            "Registries whose user and password Azure is told when it fetches from them. From others it fetches what anybody may read, and from registries of Azure with a `resource_id`.",
        ),
    ],
};
