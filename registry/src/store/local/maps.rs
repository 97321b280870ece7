//! The chunk maps of blobs in the local store: files named after their blobs.

use std::fs;
use std::io;
use std::path::Path;

use artifact::{Algorithm, Digest};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use uuid::Uuid;

use crate::error::Error;
use crate::store::MapStore;
use crate::store::local::blobs::{read_if_present, remove_if_present};
use crate::store::local::{LocalStore, blocking};

impl MapStore for LocalStore {
    fn map<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        let path = self.folder.map(blob);
        blocking(move || read_if_present(&path)).boxed()
    }

    fn keep_map<'a>(&'a self, blob: &'a Digest, map: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.folder.map(blob);
        let temporary = self.folder.temporary().join(Uuid::now_v7().to_string());
        async move {
            self.health.require()?;
            blocking(move || {
                let written = write(&temporary, &path, &map);
                if written.is_err() {
                    // Best effort: the next start empties the folder anyway.
                    let _ = fs::remove_file(&temporary);
                }
                written
            })
            .await
        }
        .boxed()
    }

    fn forget_map<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.folder.map(blob);
        blocking(move || remove_if_present(&path).map(drop)).boxed()
    }

    fn mapped(&self) -> BoxStream<'_, Result<Digest, Error>> {
        stream::iter(Algorithm::ALL)
            .then(|algorithm| {
                let folder = self.folder.maps(algorithm);
                blocking(move || listed(&folder, algorithm))
            })
            .map(|blobs| match blobs {
                Ok(blobs) => stream::iter(blobs).map(Ok).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            })
            .flatten()
            .boxed()
    }
}

/// In one step, so that nobody reads half a map; but without a sync. What a power cut leaves of it
/// is a whole map, or none that parses: each of its entries says a length that is not zero.
fn write(temporary: &Path, path: &Path, map: &[u8]) -> Result<(), Error> {
    fs::write(temporary, map).map_err(Error::storage("write", temporary))?;
    fs::rename(temporary, path).map_err(Error::storage("rename", temporary))
}

fn listed(folder: &Path, algorithm: Algorithm) -> Result<Vec<Digest>, Error> {
    let unreadable = |error: io::Error| Error::storage("list", folder)(error);
    let mut blobs = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let hex = name.to_str();
        blobs.extend(hex.and_then(|hex| Digest::from_hex(algorithm, hex).ok()));
    }
    Ok(blobs)
}
