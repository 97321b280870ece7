//! What the agent is doing.

use artifact::agent_api::{AgentError, AgentStatus, STATUS_PATH};
use axum::Json;
use axum::extract::State;

use crate::error::Error;
use crate::http::Api;

/// What the agent is doing: its disk, the desired list, downloads.
#[utoipa::path(
    get,
    path = STATUS_PATH,
    responses(
        (status = 200, description = "The status", body = AgentStatus),
        (status = 500, description = "The disk cannot be asked", body = AgentError),
    ),
)]
pub(super) async fn show_status(State(api): State<Api>) -> Result<Json<AgentStatus>, Error> {
    let cache = api.puller.cache();
    let disk = cache.blocking(|cache| cache.disk_status()).await?;
    Ok(Json(AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: api.started_at.clone(),
        cache: cache.layout().root().display().to_string(),
        disk,
        scrub: cache.scrub_status(),
        preload: api.preload.as_ref().map(|board| board.status()),
        downloads: api.puller.downloads(),
        leases: cache.list_leases(),
    }))
}
