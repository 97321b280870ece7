//! Requests are counted by operation and outcome, both of them closed sets: operations as the
//! description names them, outcomes as the codes of [`AgentErrorCode`].

use std::collections::HashMap;
use std::sync::Arc;

use artifact::agent_api::AgentErrorCode;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use utoipa::openapi::OpenApi;

use crate::metrics::Metrics;

/// What has no operation.
const OTHER: &str = "other";

/// Counts requests. A clone counts into the same.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    metrics: Metrics,
    /// By path.
    operations: Arc<HashMap<String, Vec<Operation>>>,
}

#[derive(Clone, Debug)]
struct Operation {
    method: Method,
    name: Arc<str>,
}

impl Observer {
    pub(super) fn new(description: &OpenApi, metrics: Metrics) -> Self {
        let operations = description.paths.paths.iter().map(|(path, item)| {
            let methods = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
            ];
            let named = methods.into_iter().filter_map(|(method, operation)| {
                let name = Arc::from(operation.as_ref()?.operation_id.as_deref()?);
                Some(Operation { method, name })
            });
            (path.clone(), named.collect())
        });
        Self {
            operations: Arc::new(operations.collect()),
            metrics,
        }
    }

    fn operation(&self, request: &Request) -> Arc<str> {
        let path = request.extensions().get::<MatchedPath>();
        let methods = path.and_then(|path| self.operations.get(path.as_str()));
        let named = methods
            .into_iter()
            .flatten()
            .find(|operation| operation.method == request.method());
        named.map_or_else(|| Arc::from(OTHER), |operation| Arc::clone(&operation.name))
    }
}

/// Counts one request when its answer begins.
pub(super) async fn count(
    State(observer): State<Observer>,
    request: Request,
    next: Next,
) -> Response {
    let operation = observer.operation(&request);
    let response = next.run(request).await;
    let outcome = match response.extensions().get::<AgentErrorCode>() {
        Some(code) => code.as_str(),
        None if response.status().is_server_error() => AgentErrorCode::Internal.as_str(),
        None => "ok",
    };
    observer.metrics.answered(operation, outcome);
    response
}
