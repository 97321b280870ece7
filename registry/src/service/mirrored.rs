//! Mirrored repositories: what is not here is fetched from an upstream when somebody asks for it.
//!
//! A mirrored repository is stored like any other one. Its manifests say that they are mirrored, so
//! that the blobs they name need not be here.

mod blobs;
mod fill;
mod listings;
mod manifests;
mod room;
pub(crate) mod status;
mod vet;
pub(crate) mod warm;

use std::sync::Arc;
use std::time::Duration;

use artifact::Repository;

use crate::error::Error;
use crate::mirror::Mirror;
use crate::mirror::routes::Route;
use crate::service::Registry;

/// A repository with its mirror.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mirrored<'a> {
    registry: &'a Registry,
    mirror: &'a Arc<Mirror>,
    route: &'a Arc<Route>,
    repository: &'a Repository,
}

impl Registry {
    /// The mirror, if there is one.
    pub(crate) fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.mirror.as_ref()
    }

    /// The repository as a mirrored one, if it is that.
    pub(crate) fn mirrored<'a>(&'a self, repository: &'a Repository) -> Option<Mirrored<'a>> {
        let mirror = self.mirror.as_ref()?;
        Some(Mirrored {
            registry: self,
            mirror,
            route: mirror.routes.of(repository)?,
            repository,
        })
    }

    /// Saves when mirrored blobs were used, and removes fills that nothing came of for `expiry`.
    pub(crate) async fn tend_mirror(self: &Arc<Self>, expiry: Duration) -> Result<(), Error> {
        let Some(mirror) = self.mirror().cloned() else {
            return Ok(());
        };
        let tending = tokio::task::spawn_blocking(move || {
            mirror.usage.save()?;
            let fills = &mirror.fills;
            fills
                .files
                .expire(expiry, |digest| fills.running(digest).is_some())
        });
        tending.await.map_err(Error::Task)?
    }

    /// What comes from an upstream is not for clients to change.
    pub(crate) fn refuse_if_mirrored(&self, repository: &Repository) -> Result<(), Error> {
        let Some(mirrored) = self.mirrored(repository) else {
            return Ok(());
        };
        let upstreams = mirrored.route.upstreams.iter();
        let names: Vec<String> = upstreams
            .map(|upstream| upstream.at().to_string())
            .collect();
        Err(Error::Mirrored {
            repository: repository.clone(),
            upstream: names.join(", "),
        })
    }
}

impl Mirrored<'_> {
    /// The error for something that is not here while nobody may be asked.
    fn offline(&self, what: impl ToString) -> Error {
        Error::Offline {
            repository: self.repository.clone(),
            what: what.to_string(),
        }
    }
}
