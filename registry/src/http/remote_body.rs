//! The body of a blob download whose bytes come from a bucket: passed on as they arrive, one piece
//! at a time, so that a slow client slows the bucket down and nothing piles up here.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};

use crate::error::Error;

/// A stream of known length as an HTTP body.
pub(crate) struct RemoteBody {
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    left: u64,
}

impl RemoteBody {
    /// The `length` bytes that `pieces` gives.
    pub(crate) fn new(pieces: BoxStream<'static, Result<Bytes, Error>>, length: u64) -> Self {
        Self {
            pieces,
            left: length,
        }
    }

    /// The status has been sent, so all that is left is to break the connection off: a body that
    /// ended early or went on too long would pass for a blob. Hence an error, and no end.
    fn fail(&mut self, error: Error) -> Error {
        tracing::warn!(%error, cause = ?std::error::Error::source(&error), left = self.left, "a download broke off");
        self.left = 0;
        error
    }
}

impl http_body::Body for RemoteBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = self.get_mut();
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(body.pieces.poll_next_unpin(context));
        Poll::Ready(Some(match piece {
            Some(Ok(piece)) if piece.len() as u64 <= body.left => {
                body.left -= piece.len() as u64;
                Ok(Frame::data(piece))
            }
            Some(Ok(_)) => Err(body.fail(Error::ContentLength)),
            Some(Err(error)) => Err(body.fail(error)),
            None => Err(body.fail(Error::ContentLength)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use bytes::Bytes;
    use futures::{StreamExt, stream};
    use http_body_util::BodyExt;

    use crate::error::Error;
    use crate::http::remote_body::RemoteBody;

    fn body(pieces: Vec<Result<Bytes, Error>>, length: u64) -> RemoteBody {
        RemoteBody::new(stream::iter(pieces).boxed(), length)
    }

    fn piece(text: &'static str) -> Result<Bytes, Error> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn pieces_are_passed_on_in_order() {
        let whole = body(vec![piece("hay"), piece("loft")], 7);
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "hayloft");
    }

    #[tokio::test]
    async fn content_of_another_length_is_an_error_not_an_end() {
        assert!(body(vec![piece("hay")], 7).collect().await.is_err());
        assert!(body(vec![piece("haylofts")], 7).collect().await.is_err());
        let broken = vec![piece("hay"), Err(Error::Closing)];
        assert!(body(broken, 7).collect().await.is_err());
    }
}
