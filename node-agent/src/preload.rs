//! Preload: keeps the models of a desired list on this node.
//!
//! Each turn compares what the list says with what is here, and pulls, pins and unpins what differs.
//! A model that leaves the list is not deleted: it may be evicted from then on, as any other.

mod list;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use artifact::agent_api::EnsureRequest;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::error::Error;
use crate::pull::{Pulled, Puller};
use list::{ListFile, Wanted};
pub(crate) use state::Board;

/// Time between two looks at the file and at what is here.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// Models that are pulled at a time.
const AT_A_TIME: usize = 4;

/// What is to be kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreloadOptions {
    /// The file with the list.
    pub file: PathBuf,
    /// Time from one look at what a model's tag points to, to the next.
    pub interval: Duration,
}

/// Keeps the list satisfied for as long as it is polled.
pub(crate) async fn keep(puller: Puller, options: PreloadOptions, board: Board) {
    let mut file = ListFile::new(&options.file);
    let mut pulls = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                file = look(&puller, file, &board).await;
                check_ready(&puller, &board).await;
            }
            Some(_) = pulls.join_next() => {}
        }
        for wanted in board.take_due(AT_A_TIME) {
            let turn = Turn {
                board: board.clone(),
                wanted,
                interval: options.interval,
                outcome: None,
            };
            pulls.spawn(pull(puller.clone(), turn));
        }
        puller.cache().metrics().preload(&board.status());
    }
}

/// Looks at the file; a good new list counts at once, and what left it is let go.
async fn look(puller: &Puller, mut file: ListFile, board: &Board) -> ListFile {
    let looked = tokio::task::spawn_blocking(move || {
        let said = file.look();
        (file, said)
    });
    let (file, said) = match looked.await {
        Ok(looked) => looked,
        // A look that panicked has taken the file along: begin anew.
        Err(_) => return ListFile::new(std::path::Path::new(&board.status().file)),
    };
    match said {
        Some(Ok(list)) => {
            tracing::info!(
                models = list.len(),
                "the list of models to keep here was read"
            );
            board.set_list(list);
            if let Err(error) = let_go(puller, board).await {
                tracing::warn!(%error, "models that left the list are still pinned");
            }
        }
        Some(Err(problem)) => {
            let file = board.status().file;
            tracing::warn!(
                file,
                problem,
                "the list is not read; the last good one counts"
            );
            board.set_problem(problem);
        }
        None => {}
    }
    file
}

/// Unpins what the list has pinned and names no more.
async fn let_go(puller: &Puller, board: &Board) -> Result<(), Error> {
    let mut kept = Vec::new();
    for wanted in board.list().iter().filter(|wanted| wanted.pin) {
        kept.extend(puller.references_of(&wanted.name)?);
    }
    let unpinned = puller
        .cache()
        .blocking(move |cache| cache.unpin_unlisted(&kept));
    for reference in unpinned.await? {
        tracing::info!(%reference, "left the list: it may be evicted now");
    }
    Ok(())
}

/// A model that was ready may have been removed or unpinned by hand.
async fn check_ready(puller: &Puller, board: &Board) {
    for (wanted, reference) in board.ready() {
        let found = puller.cache().blocking(move |cache| cache.find(&reference));
        match found.await {
            Ok(Some(model)) if model.pinned || !wanted.pin => {}
            Ok(_) => board.lost(&wanted),
            Err(error) => {
                tracing::warn!(model = %wanted.name, %error, "it is not known whether the model is still here");
            }
        }
    }
}

/// One pull of one model. However it ends, a panic included, the board is told.
struct Turn {
    board: Board,
    wanted: Wanted,
    interval: Duration,
    outcome: Option<Result<Pulled, Error>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let interrupted = || Error::Interrupted {
            what: "the pull".to_owned(),
        };
        let outcome = self.outcome.take().unwrap_or_else(|| Err(interrupted()));
        if let Err(error) = &outcome {
            let error = error.to_agent_error();
            tracing::warn!(model = %self.wanted.name, %error, "a model of the list could not be pulled");
        }
        self.board
            .ended(&self.wanted, outcome.as_ref(), self.interval);
    }
}

async fn pull(puller: Puller, mut turn: Turn) {
    let (board, wanted) = (turn.board.clone(), turn.wanted.clone());
    let request = EnsureRequest {
        plain_http: wanted.plain_http,
        ..EnsureRequest::from(&wanted.name)
    };
    let mut tell = |event: &_| board.tell(&wanted, event);
    let mut outcome = puller.ensure(&request, &mut tell).await;
    if let Ok(pulled) = &mut outcome {
        let is_listed = board.list().contains(&wanted);
        if wanted.pin && is_listed {
            let reference = pulled.model.reference.clone();
            let pinned = puller
                .cache()
                .blocking(move |cache| cache.pin_listed(&reference));
            if let Err(error) = pinned.await {
                outcome = Err(error);
            }
        }
        // The list may have changed while the pin was made.
        if wanted.pin
            && !board.list().contains(&wanted)
            && let Err(error) = let_go(&puller, &board).await
        {
            tracing::warn!(%error, "a model that left the list may still be pinned");
        }
    }
    turn.outcome = Some(outcome);
}
