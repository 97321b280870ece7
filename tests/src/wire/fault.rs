//! Fault: what is wrong with an answer, and for how many answers.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is wrong with the answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Sends half of what it announced, then closes the connection.
    DropAtHalf,
    /// Announces more bytes than the blob has, sends the blob, then closes.
    AnnounceMore,
    /// Announces and sends fewer bytes than the blob has.
    AnnounceLess,
    /// Answers a range with the whole blob and status 200.
    IgnoreRange,
    /// Answers a range with other bytes than were asked for, and says so.
    WrongOffset,
    /// Answers a range with a multipart body.
    Multipart,
    /// Flips a bit of every body.
    WrongBytes,
    /// Sends more than it announced in chunked coding, without end.
    Endless,
    /// Sends half of what it announced, then nothing, with the connection open.
    Stall,
    /// Answers with a status and no blob.
    Status(u16),
    /// Sends at most so many bytes a second on each connection.
    Slow(u64),
    /// Redirects to another place.
    Redirect(String),
    /// Redirects to the same place again.
    RedirectLoop,
    /// Sends the blob and claims that it is gzip.
    ContentEncoding,
    /// Sends a web page with status 200, as log-in portals do.
    Page,
}

impl Fault {
    /// Whether it spoils answers to ranges only.
    pub(super) fn is_of_ranges(&self) -> bool {
        matches!(
            self,
            Self::IgnoreRange | Self::WrongOffset | Self::Multipart
        )
    }

    /// Whether it leads away from the place that was asked.
    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self, Self::Redirect(_) | Self::RedirectLoop)
    }
}

/// The fault of the answers from now on.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fault: Option<Fault>,
    /// Answers that the fault still spoils; none means all.
    left: Option<usize>,
    retry_after: Option<u64>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, fault: Fault, answers: Option<usize>) {
        let mut inner = self.lock();
        inner.fault = Some(fault);
        inner.left = answers;
    }

    pub(crate) fn clear(&self) {
        self.lock().fault = None;
    }

    pub(crate) fn set_retry_after(&self, seconds: u64) {
        self.lock().retry_after = Some(seconds);
    }

    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.lock().retry_after
    }

    /// The fault for the next answer, if it is one that `concerns` it.
    pub(crate) fn next(&self, concerns: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut inner = self.lock();
        let fault = inner.fault.clone().filter(concerns)?;
        match &mut inner.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        Some(fault)
    }
}
