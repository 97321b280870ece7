//! The marker beside the records: which registry they are, and which generation of which index was
//! made from them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::store::records::Records;

/// Which keys the index has. To be raised whenever what an index holds for a record changes.
const FORMAT: u32 = 2;
/// Its name. No repository begins with an underscore, so it cannot be one.
const NAME: &str = "_index.state";

/// Which index the generation is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    #[default]
    Sled,
    Postgres,
}

/// What is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// Which registry the records are, for a database to be compared with.
    pub(super) registry: Uuid,
    pub(super) index: Kind,
    pub(super) generation: u64,
    /// Whether the index has followed the records: of sled known after a clean stop only, of
    /// PostgreSQL unless a change is known to have been missed.
    pub(super) is_whole: bool,
    pub(super) format: u32,
    /// How often the database had changed.
    #[serde(default)]
    pub(super) changes: i64,
}

impl Marker {
    /// Of records that have none.
    pub(super) fn new() -> Self {
        Self {
            registry: Uuid::new_v4(),
            index: Kind::default(),
            generation: 0,
            is_whole: false,
            format: FORMAT,
            changes: 0,
        }
    }

    /// The one beside `records`; a new one where there is none, or none that can be read.
    pub(super) async fn read(records: &Records) -> Result<Self, Error> {
        let Some(json) = records.aside(NAME).await? else {
            return Ok(Self::new());
        };
        Ok(serde_json::from_slice(&json).unwrap_or_else(|error| {
            tracing::warn!(%error, "the marker beside the records is damaged");
            Self::new()
        }))
    }

    /// Writes it; it is durable when this returns.
    pub(super) async fn write(&self, records: &Records) -> Result<(), Error> {
        let json = serde_json::to_vec(self).map_err(Error::index)?;
        records.put_aside(NAME, json).await
    }

    /// Whether an index of this kind may be believed if it is of this generation.
    pub(super) fn vouches_for(&self, index: Kind) -> bool {
        self.is_whole && self.index == index && self.format == FORMAT
    }

    /// The generation after this one.
    pub(super) fn next(self, index: Kind) -> Self {
        Self {
            index,
            generation: self.generation + 1,
            is_whole: false,
            format: FORMAT,
            changes: 0,
            ..self
        }
    }
}
