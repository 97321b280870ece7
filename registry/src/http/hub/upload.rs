//! Content on its way in: whole, or in parts of equal size, into an upload session of the registry.
//!
//! Clients send a whole part again when their connection broke. What the session has of it already
//! is skipped, and the digest of the whole decides whether it was the same.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::request::Parts;
use http::{Method, StatusCode, header};
use serde_json::json;

use crate::http::hub::endpoint::Upload;
use crate::http::hub::failure::HubFailure;
use crate::http::hub::read;
use crate::http::incoming::Incoming;
use crate::http::query::Query;
use crate::http::{State, insert, uploads};

/// Files up to this size are sent at once.
const SMALLEST_PART: u64 = 64 * 1024 * 1024;
/// Most parts of a file.
const MOST_PARTS: u64 = 1_000;
/// Largest body that ends an upload in parts.
const END_BYTES: usize = 1024 * 1024;

/// Which part of a file a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartOf {
    /// Counted from 1.
    number: u64,
    /// The size of all parts but the last one, in bytes.
    size: u64,
}

impl PartOf {
    /// The size of the parts in which a file of `size` bytes is sent; `None` when it is sent whole.
    pub(super) fn size_for(size: u64) -> Option<u64> {
        let part = SMALLEST_PART.max(size.div_ceil(MOST_PARTS));
        (size > SMALLEST_PART).then_some(part)
    }

    fn read(query: &Query) -> Result<Option<Self>, HubFailure> {
        let number = |name| {
            let text = query.get(name)?;
            text.parse::<u64>().ok().filter(|number| *number > 0)
        };
        if query.get("part").is_none() {
            return Ok(None);
        }
        match (number("part"), number("size")) {
            (Some(part), Some(size)) if part <= MOST_PARTS => Ok(Some(Self { number: part, size })),
            _ => Err(HubFailure::Malformed(
                "part and size must be numbers, as they were given".to_owned(),
            )),
        }
    }

    /// Where it begins in the file.
    fn start(self) -> u64 {
        (self.number - 1).saturating_mul(self.size)
    }
}

/// `PUT`: the file or a part of it. `POST`: the end of an upload in parts.
pub(super) async fn receive(
    state: &State,
    parts: &Parts,
    upload: Upload,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    let registry = &state.registry;
    let Upload {
        repository,
        id,
        digest,
    } = upload;
    if parts.method == Method::POST {
        // It lists the parts; the digest of the whole says more.
        drop(read(body, END_BYTES).await?);
        let nothing = futures::stream::empty();
        uploads::finish(state, &repository, id, None, digest, nothing, false).await?;
        return Ok(Json(json!({ "success": true })).into_response());
    }
    let part = PartOf::read(&Query::parse(&parts.uri))?;
    let offset = registry.upload_offset(&repository, id).await?;
    let start = part.map_or(0, PartOf::start);
    let Some(skip) = offset.checked_sub(start) else {
        let why = format!("{offset} bytes are here: parts are taken one after the other");
        return Err(HubFailure::Malformed(why));
    };
    let mut rest = Skipping { body, skip };
    if let Some(part) = part {
        let _receiving = state.setup.metrics.receiving();
        if skip >= part.size {
            // All of it is here. Taken off the connection, so that the client comes to the answer.
            while rest.next().await.is_some() {}
        } else {
            registry
                .append_upload(&repository, id, None, &mut rest)
                .await?;
        }
    } else {
        uploads::finish(state, &repository, id, None, digest, rest, false).await?;
    }
    let mut response = StatusCode::OK.into_response();
    let number = part.map_or(0, |part| part.number);
    insert(&mut response, header::ETAG, &format!("\"{number}\""));
    Ok(response)
}

/// A body without its first bytes.
struct Skipping<'a> {
    body: &'a mut Incoming,
    skip: u64,
}

impl Stream for Skipping<'_> {
    type Item = <Incoming as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let piece = ready!(self.body.poll_next_unpin(context));
            let Some(Ok(mut piece)) = piece else {
                return Poll::Ready(piece);
            };
            let skipped = piece
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            let rest: Bytes = piece.split_off(skipped);
            if !rest.is_empty() {
                return Poll::Ready(Some(Ok(rest)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::hub::upload::{MOST_PARTS, PartOf, SMALLEST_PART};

    #[test]
    fn files_of_every_size_have_few_parts() {
        assert_eq!(PartOf::size_for(0), None);
        assert_eq!(PartOf::size_for(SMALLEST_PART), None);
        assert_eq!(PartOf::size_for(SMALLEST_PART + 1), Some(SMALLEST_PART));
        for size in [400_000_000_000_u64, 1 << 53] {
            let part = PartOf::size_for(size).unwrap_or(1);
            assert!(size.div_ceil(part) <= MOST_PARTS, "{size}");
        }
        let third = PartOf { number: 3, size: 7 };
        assert_eq!(third.start(), 14);
    }
}
