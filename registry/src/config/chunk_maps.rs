//! Whose chunk maps are offered.

use std::fmt;
use std::str::FromStr;

/// Which manifests get the chunk maps of their blobs as a referrer when somebody asks for those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkMapPolicy {
    /// Those of models, in any dialect.
    #[default]
    Models,
    /// All that name a blob large enough to have a map.
    All,
    /// None, and no map is made.
    Off,
}

/// A word that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} says nothing of chunk maps: write models, all or off")]
pub struct InvalidChunkMapPolicy {
    word: String,
}

impl FromStr for ChunkMapPolicy {
    type Err = InvalidChunkMapPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "models" => Ok(Self::Models),
            "all" => Ok(Self::All),
            "off" => Ok(Self::Off),
            other => {
                let word = other.chars().take(80).collect();
                Err(InvalidChunkMapPolicy { word })
            }
        }
    }
}

impl fmt::Display for ChunkMapPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Models => "models",
            Self::All => "all",
            Self::Off => "off",
        })
    }
}
