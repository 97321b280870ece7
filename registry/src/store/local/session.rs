//! The async side of one upload session: bytes go to a blocking thread that hashes and writes
//! them while the next ones come in from the network.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use artifact::{Algorithm, Digest};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::store::UploadSession;
use crate::store::local::ingest::Ingest;
use crate::store::local::{Shared, blocking};

/// How many pieces of body may wait between network and disk. A piece is at most the connection's
/// read buffer, so this bounds the memory of an upload.
const QUEUED_PIECES: usize = 8;

/// [`UploadSession`] of the local store.
#[derive(Debug)]
pub(crate) struct LocalSession {
    place: Place,
    offset: u64,
    shared: Arc<Shared>,
}

/// Where the ingest is.
#[derive(Debug)]
enum Place {
    /// Here, with nothing going on.
    Here(Box<Ingest>),
    /// With the thread that writes.
    Writing(Writer),
    /// Lost to a panic of that thread.
    Lost,
}

#[derive(Debug)]
struct Writer {
    sender: mpsc::Sender<Message>,
    task: JoinHandle<(Box<Ingest>, Result<(), Error>)>,
}

#[derive(Debug)]
enum Message {
    /// The next bytes.
    Bytes(Bytes),
    /// Give the ingest back as it is.
    Leave,
}

impl LocalSession {
    /// A session over an open ingest.
    pub(crate) fn new(ingest: Ingest, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            offset: ingest.offset(),
            place: Place::Here(Box::new(ingest)),
        }
    }

    /// Takes the ingest back from the writing thread.
    async fn recall(&mut self) -> Result<Box<Ingest>, Error> {
        let (ingest, outcome) = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(ingest) => (ingest, Ok(())),
            Place::Writing(writer) => {
                // If the thread has ended already, its outcome says why.
                let _ = writer.sender.send(Message::Leave).await;
                writer.task.await.map_err(Error::Task)?
            }
            Place::Lost => return Err(lost()),
        };
        self.offset = ingest.offset();
        if outcome.is_err() {
            self.place = Place::Here(ingest);
            return Err(outcome.err().unwrap_or_else(lost));
        }
        Ok(ingest)
    }

    /// Runs `work` on the ingest where it may block, and keeps the ingest.
    async fn with_ingest(
        &mut self,
        work: impl FnOnce(&mut Ingest) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let mut ingest = self.recall().await?;
        let (ingest, outcome) = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut ingest);
            (ingest, outcome)
        })
        .await
        .map_err(Error::Task)?;
        self.offset = ingest.offset();
        self.place = Place::Here(ingest);
        outcome
    }

    fn start_writing(&mut self) -> Result<&mut Writer, Error> {
        if let Place::Here(ingest) = std::mem::replace(&mut self.place, Place::Lost) {
            let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
            let task = tokio::task::spawn_blocking(move || write_all(ingest, receiver));
            self.place = Place::Writing(Writer { sender, task });
        }
        match &mut self.place {
            Place::Writing(writer) => Ok(writer),
            Place::Here(_) | Place::Lost => Err(lost()),
        }
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        // From here on a newcomer waits for the settling instead of being refused.
        self.shared.receiving.store(false, Ordering::Release);
    }
}

impl UploadSession for LocalSession {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let length = bytes.len() as u64;
            if !matches!(self.place, Place::Writing(_)) {
                self.start_writing()?;
            }
            if let Place::Writing(writer) = &self.place
                && writer.sender.send(Message::Bytes(bytes)).await.is_ok()
            {
                self.offset += length;
                return Ok(());
            }
            // The thread has stopped, which it only does for an error.
            match self.recall().await {
                Ok(_) => Err(lost()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<u64, Error>> {
        async move {
            self.with_ingest(Ingest::settle).await?;
            Ok(self.offset)
        }
        .boxed()
    }

    fn rewind(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.with_ingest(Ingest::rewind).boxed()
    }

    fn commit(mut self: Box<Self>, digest: Digest) -> BoxFuture<'static, Result<u64, Error>> {
        async move {
            let ingest = self.recall().await?;
            blocking(move || ingest.commit(digest)).await
        }
        .boxed()
    }

    fn cancel(mut self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        async move {
            let ingest = self.recall().await?;
            blocking(move || ingest.cancel()).await
        }
        .boxed()
    }

    fn expect_algorithm(&mut self, algorithm: Algorithm) {
        if let Place::Here(ingest) = &mut self.place {
            ingest.expect_algorithm(algorithm);
        }
    }
}

/// The writing thread: it ends when told to leave, when a write fails, or when the session is
/// dropped, and in the last case settles what has arrived.
fn write_all(
    mut ingest: Box<Ingest>,
    mut receiver: mpsc::Receiver<Message>,
) -> (Box<Ingest>, Result<(), Error>) {
    loop {
        let outcome = match receiver.blocking_recv() {
            Some(Message::Bytes(bytes)) => ingest.write(&bytes),
            Some(Message::Leave) => return (ingest, Ok(())),
            None => {
                ingest.stop_receiving();
                let settled = ingest.settle();
                if settled.is_err() {
                    ingest.fall_back();
                }
                return (ingest, settled);
            }
        };
        if outcome.is_err() {
            ingest.stop_receiving();
            ingest.fall_back();
            return (ingest, outcome);
        }
    }
}

fn lost() -> Error {
    Error::Storage {
        action: "go on with",
        path: "upload session".into(),
        source: std::io::Error::other("its writing thread has gone"),
    }
}
