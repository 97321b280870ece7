//! The one place where a request becomes an identity and asks a policy.
//!
//! Every request below `/v2/`, and every one for the metrics, passes here before anything else is
//! looked at. Without configuration everybody may do everything ([`OpenPolicy`]); with an htpasswd
//! file whoever is in it may, and nobody else anything ([`Accounts`]). Tokens, rules and quotas
//! are further policies behind the same two questions.

mod basic;
pub(crate) mod htpasswd;
mod hub_token;
mod proven;

use std::fmt::Debug;
use std::sync::Arc;

use artifact::Repository;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method};

use crate::http::endpoint::Endpoint;
use crate::http::error::Failure;

pub(crate) use htpasswd::Accounts;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// Somebody whose password was right.
    User(Arc<str>),
}

/// What a request wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Ask whether the API is there.
    Ping,
    /// List the repositories.
    Catalog,
    /// Read the counters.
    Metrics,
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
            | Endpoint::Annotations(repository, _)
            | Endpoint::Referrers(repository, _) => repository,
        };
        match *method {
            Method::GET | Method::HEAD => Self::Pull(repository),
            Method::DELETE => Self::Delete(repository),
            _ => Self::Push(repository),
        }
    }
}

/// Why nobody could be identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unidentified {
    /// The credentials are wrong, or of a kind that is not known here.
    Wrong,
    /// Too many passwords are being checked.
    Busy,
}

/// Decides who may do what.
pub(crate) trait Policy: Debug + Send + Sync {
    /// Finds out who makes the request.
    fn identify<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Identity, Unidentified>>;

    /// Whether `identity` may do this.
    fn allows(&self, identity: &Identity, access: &Access<'_>) -> bool;

    /// How to log in: the value of `WWW-Authenticate`.
    fn challenge(&self) -> HeaderValue;

    /// Whether anybody has to log in for anything.
    fn wants_logins(&self) -> bool {
        true
    }
}

/// Finds out who makes the request; a login that fails is answered with how to log in.
pub(crate) async fn identify(
    policy: &dyn Policy,
    headers: &HeaderMap,
) -> Result<Identity, Failure> {
    policy
        .identify(headers)
        .await
        .map_err(|reason| match reason {
            Unidentified::Wrong => Failure::Unauthorized(policy.challenge()),
            Unidentified::Busy => Failure::Busy("too many logins at once"),
        })
}

/// Lets `identity` do this, or says what it lacks: a login, or the right.
pub(crate) fn require(
    policy: &dyn Policy,
    identity: &Identity,
    access: &Access<'_>,
) -> Result<(), Failure> {
    if policy.allows(identity, access) {
        return Ok(());
    }
    match identity {
        Identity::Anonymous => Err(Failure::Unauthorized(policy.challenge())),
        Identity::User(_) => Err(Failure::Denied),
    }
}

/// Everybody may do everything.
#[derive(Debug)]
pub(crate) struct OpenPolicy;

impl Policy for OpenPolicy {
    fn identify<'a>(
        &'a self,
        _headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Identity, Unidentified>> {
        Box::pin(std::future::ready(Ok(Identity::Anonymous)))
    }

    fn allows(&self, _identity: &Identity, _access: &Access<'_>) -> bool {
        true
    }

    fn challenge(&self) -> HeaderValue {
        basic::challenge()
    }

    fn wants_logins(&self) -> bool {
        false
    }
}
