//! The values that labels can take: closed sets, so that their number is known beforehand.

use std::fmt::Error;

use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// An enum whose variants are the values of a label, each with its text.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// The value of the label.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
                self.text().encode(encoder)
            }
        }
    };
}

label! {
    /// Which part of the API a request is about.
    Route {
        /// `/v2/`
        Ping = "ping",
        /// `/v2/_catalog`
        Catalog = "catalog",
        /// `/v2/<name>/blobs/<digest>`
        Blob = "blob",
        /// `/v2/<name>/blobs/uploads/` and below
        Upload = "upload",
        /// `/v2/<name>/manifests/<reference>`
        Manifest = "manifest",
        /// `/v2/<name>/tags/list`
        Tags = "tags",
        /// `/v2/<name>/referrers/<digest>`
        Referrers = "referrers",
        /// Hugging Face's protocol, `/hf/` and below
        Hub = "hub",
        /// Paths of our own, below `_hayloft`
        Own = "hayloft",
        /// `/healthz`, `/readyz`, `/metrics`
        Health = "health",
        /// Everything else
        Other = "other",
    }
}

label! {
    /// The methods that are told apart.
    Verb {
        /// Read.
        Get = "GET",
        /// Look.
        Head = "HEAD",
        /// Begin an upload, mount.
        Post = "POST",
        /// A part of an upload.
        Patch = "PATCH",
        /// The end of an upload, a manifest.
        Put = "PUT",
        /// Remove, cancel.
        Delete = "DELETE",
        /// Everything else.
        Other = "other",
    }
}

impl From<&Method> for Verb {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PATCH => Self::Patch,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }
}

label! {
    /// The hundred a status belongs to.
    StatusClass {
        /// Below 300.
        Success = "2xx",
        /// Somewhere else, or not changed.
        Redirect = "3xx",
        /// The client's doing.
        Client = "4xx",
        /// Ours.
        Server = "5xx",
    }
}

impl From<StatusCode> for StatusClass {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            0..300 => Self::Success,
            300..400 => Self::Redirect,
            400..500 => Self::Client,
            _ => Self::Server,
        }
    }
}

label! {
    /// What happened to an upload session.
    UploadEvent {
        /// Opened.
        Begun = "begun",
        /// Became a blob.
        Finished = "finished",
        /// Given up by its client.
        Cancelled = "cancelled",
        /// Removed after a time without progress.
        Expired = "expired",
        /// Ended without a blob: another digest than was claimed, too large, or our own failure.
        Failed = "failed",
    }
}

label! {
    /// What failed inside the registry.
    Fault {
        /// Files or objects.
        Storage = "storage",
        /// No room is left.
        StorageFull = "storage_full",
        /// The metadata index.
        Index = "index",
        /// A task that ended without a result, and whatever has no other place.
        Internal = "internal",
    }
}

label! {
    /// Where the bytes came from that a chunk map was made of.
    MapSource {
        /// An upload, as it streamed in.
        Upload = "upload",
        /// An upstream, as a mirrored blob came in.
        Fill = "fill",
        /// The stored blob, which was read for it.
        Read = "read",
    }
}

label! {
    /// How a collection ended.
    CollectionOutcome {
        /// Went through.
        Completed = "completed",
        /// Stopped at an error, or because another one runs.
        Aborted = "aborted",
        /// Would have removed more than it may without force.
        HeldBack = "held_back",
    }
}

/// The labels of a request that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) route: Route,
    pub(super) method: Verb,
    pub(super) status: StatusClass,
}

/// The labels of what is measured by route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabels {
    pub(super) route: Route,
    pub(super) method: Verb,
}

/// The label of what happens to upload sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UploadLabels {
    pub(super) event: UploadEvent,
}

/// The label of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FaultLabels {
    pub(super) part: Fault,
}

/// The label of a chunk map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MapLabels {
    pub(super) source: MapSource,
}

/// The label of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CollectionLabels {
    pub(super) outcome: CollectionOutcome,
}
