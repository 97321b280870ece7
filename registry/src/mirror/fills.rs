//! Fills: the board of what is on its way in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::Digest;
use artifact::client::partial::ChunkState;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use crate::error::Error;
use crate::mirror::fill::Fill;
use crate::mirror::fill::files::{FillFiles, FillNote};
use crate::mirror::freshness::Generations;
use crate::store::key::DataFolder;

/// Blobs that are downloaded at a time; each takes three threads. More wait for their turn.
const DOWNLOADS: usize = 24;

/// A place on the board; empty while the files are being opened.
type Place = Arc<OnceCell<Arc<Fill>>>;

/// The board.
#[derive(Debug)]
pub(crate) struct Fills {
    pub(crate) files: FillFiles,
    /// Downloads take one of these.
    pub(crate) turns: Arc<Semaphore>,
    board: Mutex<HashMap<Digest, Place>>,
    /// Blobs that were wrong, and why: they are not fetched again at once.
    wrong: Mutex<Generations<Digest, (Instant, Arc<Error>)>>,
}

impl Fills {
    /// An empty board; see [`FillFiles::left`] for what an earlier run left.
    pub(crate) fn open(data: &DataFolder) -> Result<Self, Error> {
        Ok(Self {
            files: FillFiles::open(data)?,
            turns: Arc::new(Semaphore::new(DOWNLOADS)),
            board: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    /// Works on the files where that may block.
    pub(crate) async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FillFiles) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || work(&files))
            .await
            .map_err(Error::Task)?
    }

    /// The fill of a digest that is on its way.
    pub(crate) fn running(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.board()
            .get(digest)
            .and_then(|place| place.get().cloned())
    }

    /// All that are on their way.
    pub(crate) fn all(&self) -> Vec<Arc<Fill>> {
        let board = self.board();
        board
            .values()
            .filter_map(|place| place.get().cloned())
            .collect()
    }

    /// Joins the fill of a blob, or begins it and hands it to `start` with what is here already.
    pub(crate) async fn join(
        &self,
        note: FillNote,
        start: impl FnOnce(Arc<Fill>, Vec<ChunkState>),
    ) -> Result<Arc<Fill>, Error> {
        let digest = note.digest;
        let place = Arc::clone(self.board().entry(digest).or_default());
        let begun = place
            .get_or_try_init(|| async {
                let open = |files: &FillFiles| {
                    let (part, states) = files.begin(&note)?;
                    let fill = Arc::new(Fill::new(note, part, &states));
                    Ok((fill, states))
                };
                let (fill, states) = self.with_files(open).await?;
                start(Arc::clone(&fill), states);
                Ok(fill)
            })
            .await;
        if begun.is_err() {
            self.leave(&digest);
        }
        begun.cloned()
    }

    /// Takes a digest off the board.
    pub(crate) fn leave(&self, digest: &Digest) {
        self.board().remove(digest);
    }

    /// Remembers that what is to be had of a blob is wrong.
    pub(crate) fn note_wrong(&self, digest: Digest, error: Arc<Error>) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.insert(digest, (Instant::now(), error));
    }

    /// Why a blob is not to be had, if that was found out within `time`.
    pub(crate) fn wrong(&self, digest: &Digest, time: Duration) -> Option<Arc<Error>> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, error) = wrong.get(digest)?;
        (at.elapsed() < time).then_some(error)
    }

    fn board(&self) -> MutexGuard<'_, HashMap<Digest, Place>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
