//! From inventories to decisions: what differs, what to do about it and why. Pure.

mod failure;
mod upload;

pub use failure::ErrorKind;
pub use upload::UploadHabit;
