//! Told: the progress of one blob as events.

use artifact::agent_api::{PlannedBlob, PullEvent};

use crate::pull::single_flight::{Phase, Seat};

/// What was told of a blob, so that nothing is told twice.
#[derive(Default)]
pub(super) struct Told {
    completed: Option<u64>,
    is_verifying: bool,
}

impl Told {
    pub(super) fn tell(
        &mut self,
        blob: &PlannedBlob,
        seat: &Seat,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) {
        let completed = seat.completed().min(blob.size);
        if self.completed != Some(completed) {
            self.completed = Some(completed);
            on_event(&PullEvent::Progress {
                digest: blob.digest,
                completed,
                total: blob.size,
            });
        }
        if matches!(seat.phase(), Phase::Verifying) {
            self.verifying(blob, on_event);
        }
    }

    pub(super) fn verifying(
        &mut self,
        blob: &PlannedBlob,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) {
        if !self.is_verifying {
            self.is_verifying = true;
            on_event(&PullEvent::Verifying {
                digest: blob.digest,
            });
        }
    }
}
