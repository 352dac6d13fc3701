//! Huawei SWR: mounts.

use super::mounts;
use crate::support::fake::huawei::Huawei;

#[tokio::test]
async fn huawei_mounts_blobs_of_another_repository() {
    let (fake, huawei) = Huawei::start(&["team"]).await;
    huawei.signatures.take_any_date();
    mounts(
        &fake,
        &fake.rules("dst", &Huawei::keys(&fake)),
        ["team/base", "team/web/app"],
    )
    .await;
}
