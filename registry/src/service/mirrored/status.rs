//! How a mirror stands, for people and programs.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::service::Registry;

/// How a mirror stands: the answer of `GET /v2/_hayloft/mirror`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Whether no upstream is asked.
    pub offline: bool,
    /// Bytes of mirrored blobs.
    pub held_bytes: u64,
    /// Most bytes of them; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// The upstreams, in the order in which those of one prefix are asked.
    pub upstreams: Vec<UpstreamStatus>,
    /// The blobs on their way in, the oldest first.
    pub fills: Vec<FillStatus>,
}

/// How an upstream has been doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Repositories whose names begin so come from here.
    pub prefix: String,
    /// `KIND+URL`.
    pub origin: String,
    /// Whether it answered the last time that it was asked.
    pub healthy: bool,
    /// Failures in a row.
    pub failures: u32,
    /// It is left alone for so many more seconds.
    pub pause_seconds: u64,
    /// Its last failure, unless it has answered since.
    pub last_error: Option<String>,
    /// When it last answered, in RFC 3339.
    pub last_success: Option<String>,
    /// Questions about manifests since the registry started.
    pub requests: u64,
}

/// A blob on its way in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FillStatus {
    /// The blob.
    pub digest: String,
    /// The repository that it was asked for in.
    pub repository: String,
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that are here.
    pub completed: u64,
    /// Bytes a second, on average since the registry began it or went on with it.
    pub rate: u64,
    /// Requests that read it as it comes.
    pub readers: usize,
}

impl Registry {
    /// How the mirror stands.
    pub(crate) async fn mirror_status(&self) -> Result<MirrorStatus, Error> {
        let Some(mirror) = self.mirror() else {
            return Err(Error::Closing);
        };
        let held_bytes = match mirror.usage.held() {
            Some(bytes) => bytes,
            None => self.count_mirrored().await?,
        };
        let routes = mirror.routes.iter();
        let upstreams = routes.flat_map(|route| {
            let upstreams = route.upstreams.iter();
            upstreams.map(|upstream| upstream.status(route.prefix.as_str()))
        });
        let mut fills = mirror.fills.all();
        fills.sort_by_key(|fill| fill.note().since);
        Ok(MirrorStatus {
            offline: mirror.settings.offline,
            held_bytes,
            max_bytes: mirror.settings.max_bytes,
            upstreams: upstreams.collect(),
            fills: fills.iter().map(|fill| fill.status()).collect(),
        })
    }
}
