//! POST below `/v2/_hayloft/`: work on the whole storage, told as NDJSON while it goes on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use artifact::{ErrorCode, Repository};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::request::Parts;
use http::{HeaderValue, Method, header};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::http::State;
use crate::http::endpoint::AdminTask;
use crate::http::error::Failure;
use crate::http::query::Query;
use crate::service::collect::CollectOptions;
use crate::service::events::{Outlet, Told};
use crate::service::fsck::FsckOptions;
use crate::service::manifests::ManifestReference;

/// Events that wait for a slow client; then the work waits too.
const EVENTS: usize = 64;

/// What becomes of work whose client went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orphaned {
    /// It goes on to its end.
    GoesOn,
    /// It ends with its client.
    Ends,
}

/// The work a path asks for.
pub(super) async fn dispatch(
    state: &State,
    parts: &Parts,
    task: AdminTask,
) -> Result<Response, Failure> {
    let (method, methods) = match task {
        AdminTask::Mirror => (Method::GET, "GET"),
        _ => (Method::POST, "POST"),
    };
    if parts.method != method {
        return Err(Failure::Method(methods));
    }
    let query = Query::parse(&parts.uri);
    match task {
        AdminTask::Mirror => {
            let status = state.registry.mirror_status().await?;
            Ok(axum::Json(status).into_response())
        }
        AdminTask::Warm => warm(state, &query).await,
        AdminTask::Collect => collect(state, &query).await,
        AdminTask::Fsck => fsck(state, &query).await,
        AdminTask::Reindex => {
            let registry = Arc::clone(&state.registry);
            let work = |outlet| async move { registry.reindex(&outlet).await };
            events(Orphaned::GoesOn, work).await
        }
    }
}

/// `?dry-run&force&grace=SECONDS`. A dry run ends with its client, a real one goes on.
async fn collect(state: &State, query: &Query) -> Result<Response, Failure> {
    let options = CollectOptions {
        dry_run: flag(query, "dry-run")?,
        force: flag(query, "force")?,
        grace: number(query, "grace")?.map(Duration::from_secs),
    };
    let orphaned = if options.dry_run {
        Orphaned::Ends
    } else {
        Orphaned::GoesOn
    };
    let registry = Arc::clone(&state.registry);
    events(orphaned, |outlet| async move {
        registry.collect(options, &outlet).await.map(drop)
    })
    .await
}

/// `?rate=BYTES&quarantine`. Ends with its client.
async fn fsck(state: &State, query: &Query) -> Result<Response, Failure> {
    let options = FsckOptions {
        rate: number(query, "rate")?,
        quarantine: flag(query, "quarantine")?,
    };
    let registry = Arc::clone(&state.registry);
    events(Orphaned::Ends, |outlet| async move {
        registry.fsck(options, &outlet).await.map(drop)
    })
    .await
}

/// `?repository=NAME&reference=TAG-OR-DIGEST`. A fill goes on when the client leaves; the next one
/// is not begun.
async fn warm(state: &State, query: &Query) -> Result<Response, Failure> {
    let part = |name: &str| {
        let missing = || malformed(format!("{name} is missing"));
        query.get(name).ok_or_else(missing)
    };
    let spelled = part("repository")?;
    let repository = Repository::parse(&spelled.to_ascii_lowercase()).map_err(Error::Name)?;
    let reference = ManifestReference::parse(part("reference")?)?;
    let registry = Arc::clone(&state.registry);
    if let Some(mirror) = registry.mirror() {
        mirror.note_spelling(&repository, spelled);
    }
    events(Orphaned::Ends, |outlet| async move {
        registry.warm(&repository, &reference, &outlet).await
    })
    .await
}

/// Runs `work` and answers with its events. Work that fails before its first event is answered as
/// any failed request is.
async fn events<E, W>(
    orphaned: Orphaned,
    work: impl FnOnce(Outlet<E>) -> W,
) -> Result<Response, Failure>
where
    E: Told + Serialize + Send + 'static,
    W: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(EVENTS);
    let task = tokio::spawn(work(Outlet::to(sender)));
    let end = (orphaned == Orphaned::Ends).then(|| EndsWork(task.abort_handle()));
    let first = receiver.recv().await.filter(|event| !event.is_failure());
    let Some(first) = first else {
        let outcome = task.await.map_err(Error::Task)?;
        return Err(outcome.err().unwrap_or(Error::Closing).into());
    };
    let state = (Some(first), receiver, end);
    let lines = stream::unfold(state, |(first, mut receiver, end)| async {
        let event = match first {
            Some(event) => event,
            None => receiver.recv().await?,
        };
        Some((Ok::<_, Infallible>(line(&event)), (None, receiver, end)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    Ok(response)
}

fn line(event: &impl Serialize) -> Bytes {
    // These types give the writer of JSON no cause to fail.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Ends the work when it is dropped.
struct EndsWork(AbortHandle);

impl Drop for EndsWork {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A parameter that is there or not.
fn flag(query: &Query, name: &str) -> Result<bool, Failure> {
    match query.get(name) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(malformed(format!("{name} is true or false"))),
    }
}

/// A parameter that is a whole number.
fn number(query: &Query, name: &str) -> Result<Option<u64>, Failure> {
    let parsed = query.get(name).map(str::parse).transpose();
    parsed.map_err(|_| malformed(format!("{name} is a whole number")))
}

fn malformed(message: String) -> Failure {
    Failure::Malformed(ErrorCode::Unsupported, message)
}
