//! The models of the cache: listed, shown, removed, pinned.

use artifact::Reference;
use artifact::agent_api::{
    AgentError, MODEL_PATH, MODELS_PATH, ModelEntry, ModelList, PIN_PATH, PinRequest,
};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::Error;
use crate::http::{Api, bad_request};

/// Which model.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ModelQuery {
    /// The model.
    reference: Reference,
}

/// Which model, and whether it goes although it is used.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// The model.
    reference: Reference,
    /// Take it out although a lease or a process uses it.
    #[serde(default)]
    force: bool,
}

/// The models on this node, by name.
#[utoipa::path(
    get,
    path = MODELS_PATH,
    responses(
        (status = 200, description = "The models", body = ModelList),
        (status = 500, description = "The cache cannot be read", body = AgentError),
    ),
)]
pub(super) async fn list_models(State(api): State<Api>) -> Result<Json<ModelList>, Error> {
    let models = api.puller.cache().blocking(|cache| cache.list()).await?;
    Ok(Json(ModelList { models }))
}

/// One model.
#[utoipa::path(
    get,
    path = MODEL_PATH,
    params(ModelQuery),
    responses(
        (status = 200, description = "The model", body = ModelEntry),
        (status = 400, description = "The reference cannot be read", body = AgentError),
        (status = 404, description = "The model is not on this node", body = AgentError),
        (status = 500, description = "The cache cannot be read", body = AgentError),
    ),
)]
pub(super) async fn show_model(
    State(api): State<Api>,
    query: Result<Query<ModelQuery>, QueryRejection>,
) -> Result<Json<ModelEntry>, Error> {
    let Query(ModelQuery { reference }) = query.map_err(|e| bad_request(e.body_text()))?;
    let cache = api.puller.cache();
    let found = cache.blocking(move |cache| {
        cache.find(&reference)?.ok_or_else(|| Error::NotCached {
            reference: Box::new(reference),
        })
    });
    found.await.map(Json)
}

/// Takes a model out of the cache. Blobs that another model names stay.
#[utoipa::path(
    delete,
    path = MODEL_PATH,
    params(RemoveQuery),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "The reference cannot be read", body = AgentError),
        (status = 404, description = "The model is not on this node", body = AgentError),
        (status = 409, description = "The model is pinned or in use", body = AgentError),
        (status = 500, description = "The cache cannot be changed", body = AgentError),
    ),
)]
pub(super) async fn remove_model(
    State(api): State<Api>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<StatusCode, Error> {
    let Query(RemoveQuery { reference, force }) = query.map_err(|e| bad_request(e.body_text()))?;
    let cache = api.puller.cache();
    cache
        .blocking(move |cache| cache.remove(&reference, force))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pins a model, so that it is never removed to make room, or lets it go.
#[utoipa::path(
    post,
    path = PIN_PATH,
    request_body = PinRequest,
    responses(
        (status = 200, description = "The model", body = ModelEntry),
        (status = 400, description = "The request cannot be read", body = AgentError),
        (status = 404, description = "The model is not on this node", body = AgentError),
        (status = 500, description = "The cache cannot be changed", body = AgentError),
    ),
)]
pub(super) async fn pin_model(
    State(api): State<Api>,
    request: Result<Json<PinRequest>, JsonRejection>,
) -> Result<Json<ModelEntry>, Error> {
    let Json(request) = request.map_err(|refusal| bad_request(refusal.body_text()))?;
    let cache = api.puller.cache();
    let pinned = cache.blocking(move |cache| cache.set_pinned(&request.reference, request.pinned));
    pinned.await.map(Json)
}
