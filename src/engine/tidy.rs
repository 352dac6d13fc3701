//! Uploads and files of the spool that no run will take up any more are given up.

use std::time::Duration;

use super::context::RunContext;
use crate::registry::BlobWrite;
use crate::rules::RegistryName;

/// An upload unused for so long, after a run in which every job ended well, belongs to an image that is wanted no longer.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// After a run without failures: cancels and forgets old uploads at the rule's destinations that nobody is using, and removes
/// old files from the spool.
pub(super) async fn give_up_old_uploads(context: &RunContext) {
    if let Some(spool) = &context.transfer.spool {
        spool.remove_idle(context.clock.now()).await;
    }
    let uploads = match context.store.uploads().await {
        Ok(uploads) => uploads,
        Err(error) => {
            tracing::warn!("cannot look for old uploads: {error}");
            return;
        }
    };
    let now = context.clock.now();
    for upload in uploads {
        let Some(endpoint) = context
            .destinations
            .get(&RegistryName::new(upload.key.registry.as_str()))
        else {
            continue;
        };
        let idle = now.duration_since(upload.used_at);
        let in_use = idle.is_negative() || idle.unsigned_abs() < IDLE;
        if in_use
            || context
                .blobs
                .is_moving(&upload.key.registry, &upload.key.repository, &upload.key.digest)
        {
            continue;
        }
        // Forgotten first, so that nobody takes up what is being cancelled.
        match context.store.forget_idle_upload(&upload).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                tracing::warn!("cannot forget an old upload: {error}");
                continue;
            }
        }
        if let Some(write) = BlobWrite::from_stored(&upload.write) {
            endpoint.cancel_write(&write).await;
        }
        tracing::info!(
            destination = %format!("{}/{}", upload.key.registry, upload.key.repository), digest = %upload.key.digest,
            "an old upload that no rule needs was given up"
        );
    }
}
