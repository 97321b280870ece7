//! Repair: fetches again what the views name and the cache no longer has whole, after a blob was
//! found damaged or removed. It compares what is with what should be, so a restart forgets nothing.

use std::time::Duration;

use artifact::Reference;
use artifact::agent_api::EnsureRequest;

use crate::error::Error;
use crate::pull::Puller;

/// Time between two looks when nobody tells of damage.
const PERIOD: Duration = Duration::from_secs(600);
/// Time until what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Repairs for as long as it is polled.
pub(crate) async fn run(puller: Puller) {
    loop {
        let wait = match repair(&puller).await {
            Ok(true) => PERIOD,
            Ok(false) => RETRY,
            Err(error) => {
                tracing::warn!(error = %error.to_agent_error(), "the models could not be looked through");
                PERIOD
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = puller.cache().damaged() => {}
        }
    }
}

/// Whether every model is whole now.
async fn repair(puller: &Puller) -> Result<bool, Error> {
    let broken = puller
        .cache()
        .blocking(|cache| cache.broken_models())
        .await?;
    let mut is_whole = true;
    for reference in broken {
        is_whole &= fetch_again(puller, reference).await;
    }
    Ok(is_whole)
}

async fn fetch_again(puller: &Puller, reference: Reference) -> bool {
    tracing::warn!(%reference, "a model is not whole and is fetched again");
    let request = EnsureRequest {
        reference,
        plain_http: false,
        name: None,
    };
    match puller.ensure(&request, &mut |_| {}).await {
        Ok(_) => {
            tracing::info!(reference = %request.reference, "the model is whole again");
            true
        }
        Err(error) => {
            tracing::warn!(
                reference = %request.reference, error = %error.to_agent_error(),
                "the model could not be fetched again; it is tried later"
            );
            false
        }
    }
}
