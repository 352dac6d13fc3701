//! The shell that acts: observe, plan, execute, verify, schedule, recover. Decides nothing that `plan` can decide.

mod addresses;
mod attachments;
mod attachments_due;
mod blob_memory;
mod blob_table;
mod bring;
mod choice;
mod conduct;
mod context;
mod control;
mod copy;
pub mod daemon;
mod deferral;
mod event;
mod facade;
mod fallback_tags;
mod fault;
mod history;
mod image;
mod import;
mod job;
mod lanes;
mod latecomers;
mod learnt;
mod ledger;
mod listings;
mod looks;
mod manifests;
mod metered;
mod observe;
mod pace;
mod parking;
mod ping;
mod planned;
mod planning;
mod prepare;
mod put;
mod rates;
mod report;
mod requests;
mod resolve;
mod retry;
mod run;
mod settle;
mod several;
mod silent;
mod single;
mod tag_put;
mod tidy;
mod together;
mod transfer;
mod turn;
mod verify;

pub use control::{Control, ControlHandle, Stop};
pub use copy::copy;
pub use event::{Event, Events};
pub use facade::{Engine, EngineError};
pub use report::{
    BlobCounts, Change, DestinationBytes, DestinationReport, Failure, ImageCounts, PingCapability, PingCertificate,
    PingReport, PingRight, PingStep, RulePlan, RunReport, SCHEMA_VERSION, SourceBytes, SourceCounts, SyncReport,
    VerifyFinding, VerifyReport,
};
pub use requests::{CopyEnd, CopyRequest, Only, RunRequest, VerifyRequest, copy_state};
