//! How failures of files, objects and the index become errors, and the errors their log lines.

use std::io;
use std::path::PathBuf;

use artifact::Digest;

use crate::error::Error;

impl Error {
    /// The error with everything that led to it, in one line.
    pub(crate) fn chain(&self) -> String {
        artifact::client::chain(self)
    }

    /// Wraps the failure of an upstream.
    pub(crate) fn upstream(source: artifact::client::Error) -> Self {
        Self::Upstream {
            source: Box::new(source),
        }
    }

    /// Wraps a failure of the file that a fill goes through.
    pub(crate) fn fill_file(fault: artifact::client::partial::Fault) -> Self {
        Self::storage(fault.action, "a fill")(fault.source)
    }

    /// Wraps a failure of the threads that a fill goes through.
    pub(crate) fn fill_pipeline(error: artifact::client::partial::Error) -> Self {
        match error {
            artifact::client::partial::Error::Disk(fault) => Self::fill_file(fault),
            artifact::client::partial::Error::Stopped => Self::Closing,
        }
    }

    /// The content has another digest than was claimed.
    pub(crate) fn digest_mismatch(expected: Digest, actual: Digest) -> Self {
        Self::DigestMismatch {
            expected: Box::new(expected),
            actual: Box::new(actual),
        }
    }

    /// Wraps what a full disk or bucket was met with.
    pub(crate) fn full(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::StorageFull {
            source: Box::new(source),
        }
    }

    /// Wraps a failed file operation; a full disk becomes [`Error::StorageFull`].
    pub(crate) fn storage(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            if is_full(&source) {
                Self::full(source)
            } else {
                Self::Storage {
                    action,
                    path,
                    source,
                }
            }
        }
    }

    /// Wraps a failed sync; a full disk becomes [`Error::StorageFull`].
    pub(crate) fn sync(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            if is_full(&source) {
                Self::full(source)
            } else {
                Self::Sync { path, source }
            }
        }
    }

    /// Wraps a failed request to the bucket; a full one becomes [`Error::StorageFull`].
    pub(crate) fn object(
        action: &'static str,
        key: impl Into<String>,
        source: object_store::Error,
    ) -> Self {
        let key = key.into();
        match source {
            source if is_full_bucket(&source) => Self::full(source),
            source @ (object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. }) => Self::ObjectDenied {
                action,
                key,
                source,
            },
            source => Self::Object {
                action,
                key,
                source,
            },
        }
    }

    /// Wraps a failed record operation; a full disk becomes [`Error::StorageFull`].
    pub(crate) fn record(action: &'static str, key: String, source: object_store::Error) -> Self {
        if is_full_bucket(&source) {
            return Self::full(source);
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_full) {
                return Self::full(source);
            }
            cause = error.source();
        }
        Self::Record {
            action,
            key,
            source,
        }
    }

    /// Wraps a failure of the index.
    pub(crate) fn index(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Index {
            source: Box::new(source),
        }
    }
}

/// Stores say in their own words that a quota or a disk is used up.
fn is_full_bucket(error: &object_store::Error) -> bool {
    let words = [
        "QuotaExceeded",
        "InsufficientStorage",
        "StorageFull",
        "InsufficientCapacity",
        "507 Insufficient Storage",
        "No space left on device",
    ];
    let text = error.to_string();
    words.iter().any(|word| text.contains(word))
}

/// Whether a file operation failed for want of room, on the disk or in a quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
