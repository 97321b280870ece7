//! Leases: a consumer says that it uses a model, and for how long.

use serde::{Deserialize, Serialize};

use crate::agent_api::ModelEntry;
use crate::digest::Digest;
use crate::reference::Reference;

/// Asks for a model to be kept on the node for a while; asking again with the same identifier renews.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The model; it must be in the cache.
    pub reference: Reference,
    /// Who uses it, for people.
    pub holder: String,
    /// How long from now, 1 to 86400.
    pub seconds: u32,
}

/// A lease that was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseGiven {
    /// The model that is kept.
    pub model: ModelEntry,
    /// Until when, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub expires: String,
}

/// A lease that is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseEntry {
    /// Its identifier, chosen by its holder.
    pub id: String,
    /// The model.
    pub reference: Reference,
    /// Digest of the model's manifest.
    pub digest: Digest,
    /// Who uses it.
    pub holder: String,
    /// Until when, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub expires: String,
}

/// Answer to the list of leases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseList {
    /// The leases, by identifier.
    pub leases: Vec<LeaseEntry>,
}
