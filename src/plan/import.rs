//! Whether a registry fetches an image by itself, where it can, or gets it from us.

use super::{BlobAction, BlobStep, ErrorKind, ImagePlan, ImageTree};

/// Imports in a row that may fail for reasons of their own before no more are tried: what fails at once costs seconds each time,
/// what fails late many minutes.
const FAILURES: u32 = 3;

/// True where an image may be fetched as it is, as far as its manifests tell: not too many of them (`most`), and no layers that
/// clients get elsewhere, of which nobody knows what an import makes.
pub fn may_be_imported(tree: &ImageTree, plan: &ImagePlan, most: usize) -> bool {
    tree.manifests.len() <= most && plan.foreign.is_empty()
}

/// Bytes that have to be sent, or may have to be: neither is the blob there as `is_there` knows, nor can it be mounted.
pub fn bytes_to_send(blobs: &[BlobStep], is_there: impl Fn(&BlobStep) -> bool) -> u64 {
    let lacks = |step: &&BlobStep| match step.action {
        BlobAction::Present => false,
        BlobAction::Find { ref mount_from } | BlobAction::Send { ref mount_from } => {
            mount_from.is_none() && !is_there(step)
        }
    };
    blobs
        .iter()
        .filter(lacks)
        .fold(0, |sum: u64, step| sum.saturating_add(step.size))
}

/// True where no more imports are tried after one that failed so, the last of `in_a_row`.
pub fn gives_up_imports(kind: ErrorKind, in_a_row: u32) -> bool {
    let next_fares_no_better = matches!(
        kind,
        ErrorKind::Denied
            | ErrorKind::Unauthorized
            | ErrorKind::NotFound
            | ErrorKind::Config
            | ErrorKind::Unsupported
            | ErrorKind::Throttled
    );
    next_fares_no_better || in_a_row >= FAILURES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn what_is_there_or_can_be_mounted_need_not_be_sent() {
        let mount = || Some("corp/base".parse().expect("a name"));
        let step = |seed: u8, action| BlobStep {
            digest: Digest::of(&[seed]),
            size: 1 << seed,
            action,
        };
        let steps = [
            step(0, BlobAction::Present),
            step(1, BlobAction::Find { mount_from: None }),
            step(2, BlobAction::Send { mount_from: None }),
            step(3, BlobAction::Find { mount_from: mount() }),
            step(4, BlobAction::Send { mount_from: mount() }),
            step(5, BlobAction::Find { mount_from: None }),
        ];
        assert_eq!(bytes_to_send(&steps, |_| false), 2 + 4 + 32);
        assert_eq!(bytes_to_send(&steps, |step| step.digest == Digest::of(&[5])), 2 + 4);
        let huge = [
            BlobStep {
                size: u64::MAX,
                ..steps[1].clone()
            },
            steps[2].clone(),
        ];
        assert_eq!(bytes_to_send(&huge, |_| false), u64::MAX);
    }

    #[test]
    fn imports_end_with_a_refusal_of_rights_and_after_three_failures() {
        for kind in [
            ErrorKind::Denied,
            ErrorKind::Config,
            ErrorKind::Throttled,
            ErrorKind::NotFound,
        ] {
            assert!(gives_up_imports(kind, 1), "{kind:?}");
        }
        for kind in [ErrorKind::Server, ErrorKind::Network, ErrorKind::Invalid] {
            assert!(!gives_up_imports(kind, 2), "{kind:?}");
            assert!(gives_up_imports(kind, 3), "{kind:?}");
        }
    }
}
