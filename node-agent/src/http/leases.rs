//! Leases of consumers: given, renewed, ended, listed.

use artifact::agent_api::{
    AgentError, LEASE_PATH, LEASES_PATH, LeaseGiven, LeaseList, LeaseRequest,
};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::error::Error;
use crate::http::{Api, bad_request};

/// Keeps a model on this node for a while, or longer.
#[utoipa::path(
    put,
    path = LEASE_PATH,
    params(("id" = String, Path, description = "Chosen by the holder")),
    request_body = LeaseRequest,
    responses(
        (status = 200, description = "The model is kept", body = LeaseGiven),
        (status = 400, description = "The request cannot be read, or there are too many leases", body = AgentError),
        (status = 404, description = "The model is not on this node", body = AgentError),
        (status = 500, description = "The cache cannot be read", body = AgentError),
    ),
)]
pub(super) async fn put_lease(
    State(api): State<Api>,
    Path(id): Path<String>,
    request: Result<Json<LeaseRequest>, JsonRejection>,
) -> Result<Json<LeaseGiven>, Error> {
    let Json(request) = request.map_err(|refusal| bad_request(refusal.body_text()))?;
    let cache = api.puller.cache();
    let given = cache.blocking(move |cache| cache.put_lease(&id, request));
    given.await.map(Json)
}

/// Ends a lease before its time.
#[utoipa::path(
    delete,
    path = LEASE_PATH,
    params(("id" = String, Path, description = "Chosen by the holder")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "There is no such lease", body = AgentError),
        (status = 500, description = "The cache cannot be changed", body = AgentError),
    ),
)]
pub(super) async fn end_lease(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    let cache = api.puller.cache();
    cache.blocking(move |cache| cache.end_lease(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The leases that are held, by identifier.
#[utoipa::path(
    get,
    path = LEASES_PATH,
    responses(
        (status = 200, description = "The leases", body = LeaseList),
        (status = 500, description = "The cache cannot be read", body = AgentError),
    ),
)]
pub(super) async fn list_leases(State(api): State<Api>) -> Result<Json<LeaseList>, Error> {
    let cache = api.puller.cache();
    let leases = cache.blocking(|cache| Ok(cache.list_leases())).await?;
    Ok(Json(LeaseList { leases }))
}
