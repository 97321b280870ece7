//! The end of an upload session: from bytes that have arrived to a blob.
//!
//! Everything is stored before the pointer is put, and the state says what is about to become
//! visible, so that a crash anywhere in between leaves a session that can be committed again.

use artifact::{Digest, Digester};
use futures::TryStreamExt;

use crate::error::Error;
use crate::store::RemoteContent;
use crate::store::object::content::Data;
use crate::store::object::pointer::{self, Committed, INLINE_BYTES, Pointer};
use crate::store::object::session::Work;
use crate::store::object::state::{Phase, Progress};
use crate::store::object::{discard, sweep, unknown};

impl Work {
    /// Makes the content a blob, if it has this digest. After an error that is not the content's
    /// fault the session stays, so that the client can try again.
    pub(super) async fn commit(mut self, expected: Digest) -> Result<u64, Error> {
        let committed = self.try_commit(expected).await;
        match &committed {
            Ok(_) => {}
            Err(Error::DigestMismatch { .. }) => {
                if let Err(error) = self.end().await {
                    tracing::warn!(%error, "a refused upload is removed when it expires");
                }
            }
            Err(_) => {
                if let Err(error) = self.settle().await {
                    tracing::warn!(%error, "an upload session could not be left in order");
                }
            }
        }
        committed
    }

    async fn try_commit(&mut self, expected: Digest) -> Result<u64, Error> {
        let has_this_algorithm = self.digester.algorithm() == expected.algorithm();
        if has_this_algorithm {
            let actual = self.digester.clone().finish();
            matches_or(expected, actual)?;
        }
        if let Some(before) = self.completing {
            let objects = &self.inner.objects;
            if before != expected && discard::is_named(objects, self.id, &before).await? {
                return Err(unknown(self.id));
            }
        } else {
            self.land().await?;
            if self.multipart.is_none() {
                // All of it is still here.
                if !has_this_algorithm {
                    let mut digester = Digester::new(expected.algorithm());
                    self.buffer
                        .blocks()
                        .iter()
                        .for_each(|block| digester.update(block));
                    matches_or(expected, digester.finish())?;
                }
                if self.offset <= INLINE_BYTES {
                    return self.commit_inline(expected).await;
                }
                self.has_data = true;
                let content = self.buffer.payload();
                self.inner.objects.put(&self.key(), content).await?;
            } else if !self.buffer.is_empty() {
                self.send_part().await?;
                self.land().await?;
            }
        }
        self.complete(expected).await?;
        if !has_this_algorithm && self.multipart.is_some() {
            let actual = self.rehash(expected).await?;
            matches_or(expected, actual)?;
        }
        self.commit_data(expected).await
    }

    /// Small content lies in the pointer.
    async fn commit_inline(&mut self, digest: Digest) -> Result<u64, Error> {
        let pointer = Pointer::with_content(self.buffer.joined());
        pointer::commit(&self.inner.objects, &digest, &pointer).await?;
        self.clean_up().await;
        Ok(self.offset)
    }

    /// Notes what is about to become visible, and puts the parts together.
    async fn complete(&mut self, digest: Digest) -> Result<(), Error> {
        let progress = Progress {
            offset: self.offset,
            digester: self.digester.clone(),
            multipart: self.multipart.clone(),
            parts: self.parts.clone(),
            tail: None,
        };
        self.save(Phase::Completing(digest), progress, true).await?;
        self.completing = Some(digest);
        let Some(multipart) = &self.multipart else {
            return Ok(());
        };
        let parts = self.parts.clone();
        let objects = &self.inner.objects;
        objects
            .complete_parts(&self.key(), multipart, parts, self.offset)
            .await
    }

    async fn commit_data(&mut self, digest: Digest) -> Result<u64, Error> {
        let objects = &self.inner.objects;
        let pointer = Pointer::to_data(self.id, self.offset);
        match pointer::commit(objects, &digest, &pointer).await? {
            Committed::New => {}
            Committed::AlreadyThere => objects.delete(&self.key()).await?,
        }
        self.clean_up().await;
        Ok(self.offset)
    }

    /// The one case of a second pass: the client names another algorithm than it began with.
    async fn rehash(&self, expected: Digest) -> Result<Digest, Error> {
        let data = Data {
            objects: self.inner.objects.clone(),
            digest: expected,
            key: self.key(),
            size: self.offset,
        };
        let mut pieces = Box::new(data).read(0..self.offset).await?;
        let mut digester = Digester::new(expected.algorithm());
        while let Some(piece) = pieces.try_next().await? {
            digester.update(&piece);
        }
        Ok(digester.finish())
    }

    /// Removes what a committed session leaves. The blob is there, so nothing here may fail.
    async fn clean_up(&mut self) {
        self.file.lock().await.end();
        self.inner.count_ended();
        let removed = sweep::remove_session(&self.inner.objects, self.id).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "a finished upload session is removed when it expires");
        }
    }
}

fn matches_or(expected: Digest, actual: Digest) -> Result<(), Error> {
    if actual == expected {
        Ok(())
    } else {
        Err(Error::digest_mismatch(expected, actual))
    }
}
