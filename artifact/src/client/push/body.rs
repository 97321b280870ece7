//! FileBody: a file as the body of one or more requests, each byte read and hashed once even when
//! some are sent again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::stream::unfold;
use tokio::sync::mpsc;

use crate::client::error::Error;
use crate::digest::{Algorithm, Digest, Digester};

/// Bytes read, hashed and sent at a time.
const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces that may wait between the reader and the connection.
const PIECES_AHEAD: usize = 4;

/// Where the count of bytes sent is told.
#[derive(Clone)]
pub(crate) struct Progress(Arc<dyn Fn(u64) + Send + Sync>);

impl Progress {
    pub(crate) fn new(tell: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

/// The file and what is known of its digest.
pub(crate) struct FileBody {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
    progress: Progress,
    hashed: Arc<Mutex<Hashed>>,
    reader: Option<tokio::task::JoinHandle<()>>,
}

/// The digest of the first bytes of the file, and why reading ended early if it did.
struct Hashed {
    digester: Digester,
    until: u64,
    fault: Option<io::Error>,
}

impl FileBody {
    pub(crate) async fn open(path: &Path, progress: Progress) -> Result<Self, Error> {
        let path = path.to_owned();
        let opened = {
            let path = path.clone();
            in_thread(move || {
                let file = File::open(path)?;
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "it is not a file",
                    ));
                }
                Ok((file, metadata.len()))
            })
        };
        let (file, size) = opened.await.map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            file: Arc::new(file),
            path,
            size,
            progress,
            hashed: Arc::new(Mutex::new(Hashed {
                digester: Digester::new(Algorithm::Sha256),
                until: 0,
                fault: None,
            })),
            reader: None,
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `offset` on as a request body. An earlier reader is waited for: it ends as
    /// soon as its connection is gone.
    pub(crate) async fn stream_from(&mut self, offset: u64) -> Result<reqwest::Body, Error> {
        self.join_reader().await;
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let reader = PieceReader {
            file: Arc::clone(&self.file),
            size: self.size,
            progress: self.progress.clone(),
            hashed: Arc::clone(&self.hashed),
        };
        self.reader = Some(tokio::task::spawn_blocking(move || {
            reader.run(offset, &sender)
        }));
        let stream = unfold(
            receiver,
            |mut receiver: mpsc::Receiver<io::Result<Bytes>>| async {
                let piece = receiver.recv().await?;
                Some((piece, receiver))
            },
        );
        Ok(reqwest::Body::wrap_stream(stream))
    }

    /// The digest of the whole file, once all of it was sent.
    pub(crate) async fn digest(&mut self) -> Result<Digest, Error> {
        self.join_reader().await;
        if let Some(fault) = self.take_fault() {
            return Err(fault);
        }
        // A registry may know bytes of an earlier run that were never hashed here.
        let reader = PieceReader {
            file: Arc::clone(&self.file),
            size: self.size,
            progress: self.progress.clone(),
            hashed: Arc::clone(&self.hashed),
        };
        let path = self.path.clone();
        in_thread(move || reader.finish())
            .await
            .map_err(|source| Error::File { path, source })
    }

    /// Why reading the file ended early, if it did.
    pub(crate) fn take_fault(&mut self) -> Option<Error> {
        let fault = lock(&self.hashed).fault.take()?;
        Some(Error::File {
            path: self.path.clone(),
            source: fault,
        })
    }

    async fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A panic of the reader shows as a short body; there is nothing more to learn here.
            let _ = reader.await;
        }
    }
}

/// Reads the file on a thread of its own.
struct PieceReader {
    file: Arc<File>,
    size: u64,
    progress: Progress,
    hashed: Arc<Mutex<Hashed>>,
}

impl PieceReader {
    fn run(&self, mut offset: u64, sender: &mpsc::Sender<io::Result<Bytes>>) {
        let mut sent = VecDeque::new();
        while offset < self.size {
            let piece = match self.read(offset, reclaim(&mut sent)) {
                Ok(piece) => piece,
                Err(fault) => {
                    let told = io::Error::new(fault.kind(), fault.to_string());
                    lock(&self.hashed).fault = Some(fault);
                    let _ = sender.blocking_send(Err(told));
                    return;
                }
            };
            self.hash(offset, &piece);
            offset += piece.len() as u64;
            let piece = piece.freeze();
            sent.push_back(piece.clone());
            // The connection is gone: what was hashed stays hashed.
            if sender.blocking_send(Ok(piece)).is_err() {
                return;
            }
            (self.progress.0)(offset);
        }
    }

    fn read(&self, offset: u64, mut piece: BytesMut) -> io::Result<BytesMut> {
        let left = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
        piece.resize(left.min(PIECE_BYTES), 0);
        self.file
            .read_exact_at(&mut piece, offset)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    io::Error::new(error.kind(), "it became shorter while it was sent")
                } else {
                    error
                }
            })?;
        Ok(piece)
    }

    /// Takes the part of the piece that was not hashed before.
    fn hash(&self, offset: u64, piece: &[u8]) {
        let mut hashed = lock(&self.hashed);
        let Ok(skip) = usize::try_from(hashed.until.saturating_sub(offset)) else {
            return;
        };
        if hashed.until >= offset && skip < piece.len() {
            hashed.digester.update(&piece[skip..]);
            hashed.until = offset + piece.len() as u64;
        }
    }

    fn finish(&self) -> io::Result<Digest> {
        loop {
            let until = lock(&self.hashed).until;
            if until >= self.size {
                return Ok(lock(&self.hashed).digester.clone().finish());
            }
            let piece = self.read(until, BytesMut::new())?;
            self.hash(until, &piece);
        }
    }
}

/// A piece that the connection is done with, to be filled again: new memory for each one would have
/// to be cleared by the kernel first.
fn reclaim(sent: &mut VecDeque<Bytes>) -> BytesMut {
    if sent.len() <= PIECES_AHEAD {
        return BytesMut::new();
    }
    let oldest = sent.pop_front().map(Bytes::try_into_mut);
    oldest.and_then(Result::ok).unwrap_or_default()
}

fn lock(hashed: &Mutex<Hashed>) -> std::sync::MutexGuard<'_, Hashed> {
    hashed.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
