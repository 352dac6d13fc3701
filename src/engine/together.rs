//! The destinations that share one image: who is done, and for whom it is that the image still holds its place.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::context::RunContext;
use super::image::Target;
use super::pace::{Shared, Sharing};

/// How often it is looked whether an image waits only for destinations that were left behind.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The targets of one image.
pub(super) struct Together<'a> {
    context: &'a RunContext,
    targets: &'a [Target],
    open: Mutex<Open>,
}

struct Open {
    targets: BTreeSet<usize>,
    /// With one target there is nobody to share with.
    sharing: Option<Sharing>,
}

impl<'a> Together<'a> {
    pub(super) fn new(context: &'a RunContext, targets: &'a [Target]) -> Self {
        let registries = targets.iter().map(Target::registry);
        let open = Open {
            targets: (0..targets.len()).collect(),
            sharing: (targets.len() > 1).then(|| context.transfer.pace.share(Shared::Image, registries)),
        };
        Self {
            context,
            targets,
            open: Mutex::new(open),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image has ended at a target; `well`: it is there.
    pub(super) fn ended(&self, index: usize, well: bool) {
        let mut open = self.open();
        open.targets.remove(&index);
        if let Some(sharing) = &mut open.sharing {
            sharing.ended(index, well);
        }
    }

    /// Gives up the image's place once nobody who keeps pace needs it. Never ends.
    pub(super) async fn watch(&self) -> Infallible {
        if self.targets.len() < 2 {
            return pending().await;
        }
        let mut looks = interval(LOOK_AGAIN);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let behind = |index: &usize| self.context.transfer.pace.is_behind(self.targets[*index].registry());
            if self.open().targets.iter().all(behind) {
                self.context.turn.leave();
            }
        }
    }
}
