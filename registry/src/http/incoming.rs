//! Request bodies: counted, and given up when the client brings too little or the server ends.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::Body as _;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::http::metrics::Tally;

/// Less than this within the time that a client has is as good as nothing: whoever drips a byte
/// now and then to hold a session cannot.
const LEAST_BYTES: usize = 1024;

/// Why a body ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The client brings nothing, or next to nothing.
    #[error("nothing, or next to nothing, arrived for {} s", .0.as_secs_f32())]
    Idle(Duration),
    /// The server ends and the grace time is over.
    #[error("the registry is shutting down: go on when it is back")]
    Closing,
}

/// A request body as a stream.
pub(crate) struct Incoming {
    stream: BodyDataStream,
    size: Option<u64>,
    idle: Duration,
    /// Since when the client is waited for, if it is.
    waiting: Option<Instant>,
    /// Time waited, and bytes brought, since there were last enough of them.
    waited: Duration,
    brought: usize,
    /// Set now and then, not for each piece: it is moved when it goes off too early.
    alarm: Pin<Box<Sleep>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    tally: Tally,
}

impl Incoming {
    /// The body of a request whose client has `idle` to bring the next bytes, cut off by `closing`.
    pub(crate) fn new(
        body: Body,
        idle: Duration,
        closing: CancellationToken,
        tally: Tally,
    ) -> Self {
        Self {
            size: body.size_hint().exact(),
            stream: body.into_data_stream(),
            idle,
            waiting: None,
            waited: Duration::ZERO,
            brought: 0,
            alarm: Box::pin(tokio::time::sleep(idle)),
            closing: Box::pin(closing.cancelled_owned()),
            tally,
        }
    }

    /// Its size, if it was announced.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    fn arrived(&mut self, bytes: usize) {
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.brought += bytes;
        if self.brought >= LEAST_BYTES {
            self.brought = 0;
            self.waited = Duration::ZERO;
        }
        self.tally.add(bytes);
    }

    /// Ready when the client has had its time, or the server's is over. Only the time in which we
    /// wait for the client counts: that our storage is slow is not its fault.
    fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        if self.closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Broken::Closing);
        }
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let end = since + self.idle.saturating_sub(self.waited);
        while self.alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= end {
                return Poll::Ready(Broken::Idle(self.idle));
            }
            self.alarm.as_mut().reset(end);
        }
        if self.alarm.deadline() > end {
            self.alarm.as_mut().reset(end);
            return self.poll_broken(context);
        }
        Poll::Pending
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.stream.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(piece))) => {
                self.arrived(piece.len());
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(end) => Poll::Ready(end.map(|piece| piece.map_err(Into::into))),
            Poll::Pending => self
                .poll_broken(context)
                .map(|broken| Some(Err(broken.into()))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use bytes::Bytes;
    use futures::StreamExt;
    use prometheus_client::metrics::counter::Counter;
    use tokio_util::sync::CancellationToken;

    use crate::http::incoming::{Broken, Incoming};
    use crate::http::metrics::Tally;

    const IDLE: Duration = Duration::from_millis(500);

    fn dripping(bytes: usize, pause: u64, pieces: usize) -> Body {
        let drops = futures::stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; bytes]))
        });
        Body::from_stream(drops)
    }

    async fn received(body: Body, closing: CancellationToken) -> Result<usize, Broken> {
        let mut incoming = Incoming::new(body, IDLE, closing, Tally::new(Counter::default()));
        let mut bytes = 0;
        while let Some(piece) = incoming.next().await {
            bytes += piece
                .map_err(|error| *error.downcast::<Broken>().unwrap())?
                .len();
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_slow_client_is_served_and_one_that_drips_or_sleeps_is_not() {
        let never = CancellationToken::new();
        let (slow, drips, sleeps) = tokio::join!(
            received(dripping(2048, 50, 20), never.clone()),
            received(dripping(1, 20, 1000), never.clone()),
            received(dripping(2048, 5_000, 2), never.clone()),
        );
        assert_eq!(slow, Ok(40_960));
        assert_eq!(drips, Err(Broken::Idle(IDLE)));
        assert_eq!(sleeps, Err(Broken::Idle(IDLE)));
    }

    #[tokio::test]
    async fn a_server_that_ends_cuts_a_body_off() {
        let closing = CancellationToken::new();
        let endless = received(dripping(2048, 20, usize::MAX), closing.clone());
        let cut = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            closing.cancel();
        };
        let (outcome, ()) = tokio::join!(endless, cut);
        assert_eq!(outcome, Err(Broken::Closing));
    }
}
