//! A lease at the node agent for as long as a model is loaded, so that nothing evicts what is used.
//!
//! It is a courtesy: an agent that is away, or too old to know leases, is no reason not to serve, and
//! a lease that is not ended ends by itself.

use std::time::Duration;

use artifact::Reference;
use artifact::agent_api::LeaseRequest;
use artifact::client::AgentClient;
use tokio::sync::oneshot;

/// How long it is asked for at a time.
const SECONDS: u32 = 600;
/// When it is renewed: twice may fail.
const RENEW: Duration = Duration::from_secs(180);

/// A lease that is renewed until this is dropped, and then ended.
#[derive(Debug)]
pub(crate) struct AgentLease {
    _stop: oneshot::Sender<()>,
}

impl AgentLease {
    /// Takes the lease in the background.
    pub(crate) fn take(agent: &AgentClient, reference: &Reference) -> Self {
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(hold(agent.clone(), reference.clone(), stopped));
        Self { _stop: stop }
    }
}

async fn hold(agent: AgentClient, reference: Reference, mut stopped: oneshot::Receiver<()>) {
    let id = format!("runtime-{}", uuid::Uuid::new_v4());
    let request = LeaseRequest {
        reference,
        holder: format!("hayloft runtime, process {}", std::process::id()),
        seconds: SECONDS,
    };
    loop {
        if let Err(error) = agent.put_lease(&id, &request).await {
            tracing::debug!(%error, "the agent gives no lease");
        }
        if tokio::time::timeout(RENEW, &mut stopped).await.is_ok() {
            break;
        }
    }
    if let Err(error) = agent.end_lease(&id).await {
        tracing::debug!(%error, "a lease is left to end by itself");
    }
}
