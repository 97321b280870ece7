//! The one place where a request becomes an identity and asks a policy.
//!
//! Every request below `/v2/` passes here before anything else is looked at. What stands here now
//! lets everybody do everything; accounts, tokens and rules take the place of [`OpenPolicy`].

use std::fmt::Debug;

use artifact::Repository;
use http::{HeaderMap, Method};

use crate::http::endpoint::Endpoint;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nobody in particular.
    Anonymous,
}

/// What a request wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Ask whether the API is there.
    Ping,
    /// List the repositories.
    Catalog,
    /// Read from a repository.
    Pull(&'a Repository),
    /// Write to a repository.
    Push(&'a Repository),
    /// Delete from a repository.
    Delete(&'a Repository),
    /// Look after the storage as a whole.
    Admin,
}

impl<'a> Access<'a> {
    /// What `method` on `endpoint` comes to.
    pub(crate) fn of(method: &Method, endpoint: &'a Endpoint) -> Self {
        let repository = match endpoint {
            Endpoint::Ping => return Self::Ping,
            Endpoint::Catalog => return Self::Catalog,
            Endpoint::Admin(_) => return Self::Admin,
            // Whoever may pull something may keep it while they do.
            Endpoint::Lease(repository, _) => return Self::Pull(repository),
            // Whatever is done to a session, a pending push is all it touches.
            Endpoint::Uploads(repository) | Endpoint::Upload(repository, _) => {
                return Self::Push(repository);
            }
            Endpoint::Blob(repository, _)
            | Endpoint::Manifest(repository, _)
            | Endpoint::Tags(repository)
            | Endpoint::Referrers(repository, _) => repository,
        };
        match *method {
            Method::GET | Method::HEAD => Self::Pull(repository),
            Method::DELETE => Self::Delete(repository),
            _ => Self::Push(repository),
        }
    }
}

/// Decides who may do what.
pub(crate) trait Policy: Debug + Send + Sync {
    /// Finds out who makes the request.
    fn identify(&self, headers: &HeaderMap) -> Identity;

    /// Whether `identity` may do this.
    fn allows(&self, identity: &Identity, access: &Access<'_>) -> bool;
}

/// Everybody may do everything.
#[derive(Debug)]
pub(crate) struct OpenPolicy;

impl Policy for OpenPolicy {
    fn identify(&self, _headers: &HeaderMap) -> Identity {
        Identity::Anonymous
    }

    fn allows(&self, _identity: &Identity, _access: &Access<'_>) -> bool {
        true
    }
}
