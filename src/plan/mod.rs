//! From inventories to decisions: what differs, what to do about it and why. Pure.

mod belief;
mod budget;
mod failure;
mod flows;
mod image;
mod import;
mod inventory;
mod laggard;
mod lint;
mod mirror;
mod newest;
mod parking;
mod repository;
mod retry;
mod rights;
mod selected;
mod spool;
mod upload;

pub use belief::{Agreement, needs_look};
pub use budget::{Budget, Quota, Turn, newer_quota};
pub use failure::ErrorKind;
pub use flows::{AHEAD, FlowPlan, FlowSample, FoundFlows, MANY_FLOWS_FROM, MOST_FLOWS};
pub use image::{BlobAction, BlobStep, ImagePlan, ImageTree, IncompleteTree, KnownContent, ManifestStep, image_plan};
pub use import::{bytes_to_send, gives_up_imports, may_be_imported};
pub use inventory::{DestinationInventory, Observation, RepositoryInventory, Unknown, WantedImage};
pub use laggard::{HELD_UP, SharedTime, is_left_behind};
pub use lint::{Note, lint_image_plan, lint_repository_plan};
pub use mirror::{MirrorHealth, MirrorRefusal, MirrorTrouble, REFUSED_FOR, REFUSED_IN_A_ROW};
pub use newest::{PlannedTag, is_overtaken};
pub use parking::{MENDED_BY_SETTINGS, ParkedFailure, Parking, ParkingPlace, park, put_aside};
pub use repository::{
    CopyReason, Decision, FailReason, PlannedDestination, PlannedImage, RepositoryPlan, RepositoryProblem, over_held,
    plan_images, plan_repository, repository_problem,
};
pub use retry::{PAUSE_WAITED_FOR, RetryDecision, after_failure, is_gain};
pub use rights::{TriedRepositories, repositories_to_try};
pub use selected::SelectedTagsByPattern;
pub use spool::{
    Disk, SpoolDecision, SpoolEntry, SpoolFacts, keep_in_spool, make_room, may_be_spooled, spool_decision,
};
pub use upload::{
    Checkpoint, FILL_LIMIT, NextRequest, ResumePoint, UploadFacts, UploadHabit, checkpoint_due, next_request,
    resume_point,
};
