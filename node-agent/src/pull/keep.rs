//! Kept: a lease at the registry for as long as a pull goes on, where the registry offers leases.
//!
//! It is a kindness that a pull can do without: whatever goes wrong here is only logged, and a
//! lease that is not ended ends by itself.

use std::time::Duration;

use artifact::Digest;
use artifact::client::RegistryClient;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long a lease is asked for at a time.
const LEASE: Duration = Duration::from_secs(600);
/// When it is renewed: twice may fail.
const RENEW: Duration = Duration::from_secs(180);
/// How long the registry may take to give or to end it, while the pull waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Digests that a registry takes in one lease.
const MOST_DIGESTS: usize = 1000;

/// Content that the registry keeps for this pull. Dropped without [`Kept::end`], for instance
/// because the pull failed, it ends the lease in the background.
#[derive(Debug)]
pub(crate) struct Kept {
    renewing: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Kept {
    /// Asks the registry to keep this content.
    pub(crate) async fn take(registry: &RegistryClient, mut digests: Vec<Digest>) -> Self {
        digests.truncate(MOST_DIGESTS);
        let lease = Lease {
            registry: registry.clone(),
            id: Uuid::new_v4().to_string(),
            digests,
        };
        if !lease.put().await {
            return Self { renewing: None };
        }
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(lease.renew_until(stopped));
        Self {
            renewing: Some((stop, task)),
        }
    }

    /// Ends the lease, and waits a while until the registry knows.
    pub(crate) async fn end(self) {
        if let Some((stop, task)) = self.renewing {
            drop(stop);
            let _ = tokio::time::timeout(PATIENCE, task).await;
        }
    }
}

struct Lease {
    registry: RegistryClient,
    id: String,
    digests: Vec<Digest>,
}

impl Lease {
    /// Takes or renews it; `false` when the registry has none to give.
    async fn put(&self) -> bool {
        let holder = concat!("hayloft agent ", env!("CARGO_PKG_VERSION"));
        let asked = self
            .registry
            .put_lease(&self.id, &self.digests, LEASE, holder);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(given)) => given,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the registry gives no lease");
                false
            }
            Err(_) => {
                tracing::debug!("the registry takes too long to give a lease");
                false
            }
        }
    }

    /// Renews it until `stopped` completes or its sender is dropped; then ends it.
    async fn renew_until(self, mut stopped: oneshot::Receiver<()>) {
        while tokio::time::timeout(RENEW, &mut stopped).await.is_err() {
            self.put().await;
        }
        if let Err(error) = self.registry.delete_lease(&self.id).await {
            tracing::debug!(%error, "a lease is left to end by itself");
        }
    }
}
