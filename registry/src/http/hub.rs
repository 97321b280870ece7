//! `/hf`: the registry in Hugging Face's words, for its libraries (`HF_ENDPOINT=http://host:5000/hf`)
//! and for llama.cpp's `-hf`.
//!
//! No answer carries a hint at Xet, Hugging Face's own transfer protocol: a client that saw one would
//! go around this registry.

mod branch;
mod commit;
mod endpoint;
mod failure;
mod info;
mod lfs;
mod llama;
mod resolve;
mod tree;
mod upload;

use std::sync::Arc;

use artifact::Repository;
use axum::Router;
use axum::extract::{Request, State as Extracted};
use axum::response::Response;
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header;
use http::request::Parts;

use crate::error::Error;
use crate::http::access::{self, Access, Identity};
use crate::http::error::Failure;
use crate::http::hub::endpoint::{Asked, HubEndpoint, Named};
use crate::http::hub::failure::HubFailure;
use crate::http::incoming::Incoming;
use crate::http::metrics::Tally;
use crate::http::{State, base_url, header_text, uploads};
use crate::metrics::labels::{Route, Verb};
use crate::service::hub::{Reader, Snapshot};

use llama::is_llama;
pub(super) use llama::of_llama;

/// Where this protocol begins.
const ROOT: &str = "/hf";

/// The routes of the protocol.
pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/hf", any(api))
        .route("/hf/", any(api))
        .route("/hf/{*path}", any(api))
}

async fn api(Extracted(state): Extracted<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let setup = &state.setup;
    let verb = Verb::from(&parts.method);
    let counter = setup.metrics.request_bytes(Route::Hub, verb);
    let mut body = Incoming::new(
        body,
        setup.body_idle,
        setup.closing.clone(),
        Tally::new(counter),
    );
    let answered = answer(&state, &parts, &mut body).await;
    // A connection with a body left in it is closed, perhaps under the client's next request.
    uploads::drain(&mut body).await;
    let mut response = answered.unwrap_or_else(|failure| failure.into_response(&parts.headers));
    response.extensions_mut().insert(Route::Hub);
    response
}

/// Who asks, what for, whether they may: only then is anything looked up.
async fn answer(state: &State, parts: &Parts, body: &mut Incoming) -> Result<Response, HubFailure> {
    let path = parts.uri.path().strip_prefix(ROOT).unwrap_or_default();
    let parsed = HubEndpoint::parse(path, &parts.method);
    // The address of an upload is its own permission: clients send no login with the content.
    if let Ok(HubEndpoint::Upload(upload)) = parsed {
        require_writable(state)?;
        return upload::receive(state, parts, upload, body).await;
    }
    let policy = state.setup.policy.as_ref();
    let identity = access::identify(policy, &parts.headers).await?;
    let endpoint = match parsed {
        Ok(endpoint) => endpoint,
        Err(failure) => {
            // Whoever may not even ask whether there is an API learns nothing of its paths.
            access::require(policy, &identity, &Access::Ping)?;
            return Err(failure);
        }
    };
    if let Some(named) = endpoint.repository() {
        tracing::Span::current().record("repository", named.repository.as_str());
    }
    access::require(policy, &identity, &endpoint.access())?;
    if endpoint.changes() {
        require_writable(state)?;
    }
    let caller = Caller {
        state,
        parts,
        identity: &identity,
    };
    dispatch(&caller, endpoint, body).await
}

fn require_writable(state: &State) -> Result<(), HubFailure> {
    if state.setup.read_only {
        return Err(Failure::ReadOnly.into());
    }
    Ok(())
}

/// Who asks, and what: what every handler goes by.
struct Caller<'a> {
    state: &'a State,
    parts: &'a Parts,
    identity: &'a Identity,
}

impl Caller<'_> {
    /// The registry's repository that is meant: the one of this name, else one below a mirror of
    /// Hugging Face.
    async fn place(&self, named: &Named) -> Result<Repository, HubFailure> {
        let registry = &self.state.registry;
        for candidate in registry.hub_candidates(&named.id, &named.repository) {
            if self.allows(&Access::Pull(&candidate))
                && registry.has_hub_repository(&candidate).await?
            {
                return Ok(candidate);
            }
        }
        Err(Error::RepositoryUnknown {
            repository: named.repository.clone(),
        }
        .into())
    }

    /// The files of a revision.
    async fn snapshot(
        &self,
        named: &Named,
        asked: &Asked,
    ) -> Result<(Repository, Arc<Snapshot>), HubFailure> {
        let repository = self.place(named).await?;
        let revision = asked.of(&repository)?;
        let registry = &self.state.registry;
        let snapshot = registry.snapshot(&repository, revision, self.reader());
        let snapshot = snapshot.await?;
        Ok((repository, snapshot))
    }

    /// What the client makes of `main`.
    fn reader(&self) -> Reader {
        if is_llama(self.parts) {
            Reader::Picking
        } else {
            Reader::Whole
        }
    }

    fn allows(&self, access: &Access<'_>) -> bool {
        self.state.setup.policy.allows(self.identity, access)
    }

    fn require(&self, access: &Access<'_>) -> Result<(), HubFailure> {
        let policy = self.state.setup.policy.as_ref();
        Ok(access::require(policy, self.identity, access)?)
    }

    /// The address of this protocol, as the client reaches it.
    fn root_url(&self) -> String {
        format!("{}{ROOT}", base_url(self.state, self.parts))
    }
}

async fn dispatch(
    caller: &Caller<'_>,
    endpoint: HubEndpoint,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    match endpoint {
        HubEndpoint::WhoAmI => info::who_am_i(caller),
        HubEndpoint::Models => info::models(caller).await,
        HubEndpoint::Model(named, asked) => info::model(caller, &named, &asked).await,
        HubEndpoint::Refs(named) => info::refs(caller, &named).await,
        HubEndpoint::Commits(named, asked) => info::commits(caller, &named, &asked).await,
        HubEndpoint::Tree(named, asked, folder) => tree::tree(caller, &named, &asked, folder).await,
        HubEndpoint::PathsInfo(named, asked) => {
            tree::paths_info(caller, &named, &asked, body).await
        }
        HubEndpoint::Resolve(named, asked, path) => {
            resolve::resolve(caller, &named, &asked, path).await
        }
        HubEndpoint::LlamaManifest(named, tag) => {
            let repository = caller.place(&named).await?;
            llama::manifest(caller.state, &repository, &tag).await
        }
        HubEndpoint::ValidateYaml => Ok(commit::validate_yaml()),
        HubEndpoint::CreateRepository => commit::create(caller, body).await,
        HubEndpoint::Preupload(named, asked) => {
            commit::preupload(caller, &named, &asked, body).await
        }
        HubEndpoint::Commit(named, asked) => commit::commit(caller, &named, &asked, body).await,
        HubEndpoint::Branch(named, branch) => branch::make(caller, &named, &branch, body).await,
        HubEndpoint::DeleteBranch(named, branch) => branch::delete(caller, &named, &branch).await,
        HubEndpoint::LfsBatch(named) => lfs::batch(caller, &named, body).await,
        HubEndpoint::Upload(upload) => {
            upload::receive(caller.state, caller.parts, upload, body).await
        }
    }
}

/// The body of a request, of at most `most` bytes.
async fn read(body: &mut Incoming, most: usize) -> Result<Bytes, HubFailure> {
    let mut content = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|source| {
            let received = content.len() as u64;
            Failure::Registry(Error::BodyCutOff { received, source })
        })?;
        if content.len() + piece.len() > most {
            return Err(HubFailure::TooLarge(most));
        }
        content.extend_from_slice(&piece);
    }
    Ok(content.freeze())
}

/// The body of a request, as JSON.
async fn read_json<T: serde::de::DeserializeOwned>(
    body: &mut Incoming,
    most: usize,
) -> Result<T, HubFailure> {
    let content = read(body, most).await?;
    serde_json::from_slice(&content)
        .map_err(|error| HubFailure::Malformed(format!("the body is not what it must be: {error}")))
}

/// Whether the body is a form, as some clients send what others send as JSON.
fn is_form(parts: &Parts) -> bool {
    header_text(&parts.headers, &header::CONTENT_TYPE)
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}
