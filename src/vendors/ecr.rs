//! AWS ECR, private.

use super::table::{Row, generic};
use crate::registry::{Habits, Kind};

const MIB: u64 = 1024 * 1024;

/// Hosts: goharbor/harbor, adapter awsecr.
pub(super) static ROW: Row = Row {
    kind: Kind::Ecr,
    hosts: &[
        "*.dkr.ecr.*.amazonaws.com",
        "*.dkr.ecr-fips.*.amazonaws.com",
        "*.dkr.ecr.*.amazonaws.com.cn",
        "*.dkr-ecr.*.on.aws",
    ],
    habits: uploads,
    vendor: |_| generic(Kind::Ecr),
};

/// Parts of 5 MiB at least: ECR's service quotas; 20 MiB (20,971,520 bytes) at most: `PartSize` in the API model of
/// ecr-2015-09-21. The stale Range: aws/containers-roadmap#2831.
pub(super) fn uploads(habits: &mut Habits) {
    habits.min_piece = 5 * MIB;
    habits.max_piece = Some(20 * MIB);
    habits.trust_upload_range = false;
}
