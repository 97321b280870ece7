//! Where long work tells what it does, event by event: to whoever asked for it, or to nobody.

use tokio::sync::mpsc;

/// Takes the events of one piece of work.
#[derive(Clone, Debug)]
pub(crate) struct Outlet<E> {
    listener: Option<mpsc::Sender<E>>,
}

impl<E> Outlet<E> {
    /// Tells `listener`, who may go away at any time without harm to the work.
    pub(crate) fn to(listener: mpsc::Sender<E>) -> Self {
        Self {
            listener: Some(listener),
        }
    }

    /// Tells nobody.
    pub(crate) fn silent() -> Self {
        Self { listener: None }
    }

    /// Tells one event; waits while the listener has not taken earlier ones.
    pub(crate) async fn tell(&self, event: E) {
        if let Some(listener) = &self.listener {
            // An error means that the listener is gone, which concerns only whoever owns the work.
            let _ = listener.send(event).await;
        }
    }
}

/// An event that may say that the work failed.
pub(crate) trait Told {
    /// Whether it does.
    fn is_failure(&self) -> bool;
}
