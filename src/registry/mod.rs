//! The two kinds of ends that images travel between: registries by the distribution protocol, and OCI
//! image layout directories. Knows no rules. Nothing above this module sees a URL or an HTTP status.

mod account;
mod answers;
mod blob;
mod endpoint;
mod error;
mod facts;
mod habits;
mod hosts;
mod import;
mod kind;
mod layout;
mod local;
mod program;
mod remote;
mod settings;
mod tried;
mod vendor;

pub use account::Account;
pub use answers::Answers;
pub use blob::{BlobReader, BlobWrite, BodyStream, FinishedBlob, MountOutcome, Patience, SessionState};
pub use endpoint::{BulkListing, Endpoint, HeadManifest, ListedTag, Listing, ReferrerList, UploadHabit};
pub use error::{Error, ErrorKind, Operation, Place, Result, Side};
pub use facts::{ABSENT, ABSENT_LIFE, Fact, FactNews, Finding, KIND_LIFE, PRESENT, PRESENT_LIFE};
pub use habits::Habits;
pub use import::{ImportSource, ImportTerms, ImportedImage, Imports};
pub use kind::Kind;
pub use layout::{IMAGE_REPOSITORY, Layout};
pub use local::{LocalAnswer, LocalClient, NoAnswer, http_client, local_client};
pub use program::{NoOutput, output_of};
pub use remote::{
    Api, ApiAnswer, ApiCall, ApiLogin, ApiPages, Certificate, Greeting, Identity, Limiter, ListingRefusal,
    ListingRight, Located, NumberedPage, Probe, PushRight, numbered, numbered_and_seen_again, numbered_in_part,
    with_names,
};
pub use settings::{
    AlibabaSettings, AwsSettings, AzureImport, AzureSettings, CloudSettings, CreateSettings, Credentials, Encryption,
    GoogleSettings, HuaweiSettings, Limits, LoginSource, MirrorSettings, ProxySettings, RegistrySettings, RegistryUrl,
    RemoteSettings, TencentSettings, Timeouts, TlsSettings,
};
pub use vendor::{Created, Generic, Issued, Phrase, Told, Vendor, Ways};
