//! What the registry has promised: for each thing, what may be found there now, and how that came.

use std::fmt::Debug;
use std::time::Instant;

/// A thing that was not found as it was promised, with everything that happened to it.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) history: Vec<String>,
}

/// One thing (a tag, a manifest, a blob) whose changes come one after the other.
///
/// An operation that was begun and not answered leaves two possibilities: it happened or not.
/// Looking after the restart leaves one again, and from then on that one is as good as promised.
#[derive(Clone, Debug)]
pub(crate) struct Promise<T> {
    name: String,
    possible: Vec<T>,
    history: Vec<String>,
}

impl<T: Clone + PartialEq + Debug> Promise<T> {
    pub(crate) fn new(name: String, state: T) -> Self {
        Self {
            name,
            possible: vec![state],
            history: Vec::new(),
        }
    }

    /// An operation that would lead to `state` is about to be asked for.
    pub(crate) fn begin(&mut self, operation: &str, state: T) {
        self.note(&format!("{operation} begins"));
        if !self.possible.contains(&state) {
            self.possible.push(state);
        }
    }

    /// The registry has acknowledged: this is what holds now.
    pub(crate) fn acknowledged(&mut self, answer: &str, state: T) {
        self.note(&format!("acknowledged: {answer}"));
        self.possible = vec![state];
    }

    /// The registry has refused: nothing but `before` holds.
    pub(crate) fn refused(&mut self, answer: &str, before: Vec<T>) {
        self.note(&format!("refused: {answer}"));
        self.possible = before;
    }

    /// No answer came; both states remain possible.
    pub(crate) fn unanswered(&mut self) {
        self.note("no answer");
    }

    /// From now on `state` is possible too, without anyone asking for it.
    pub(crate) fn may_become(&mut self, why: &str, state: T) {
        if !self.possible.contains(&state) {
            self.note(why);
            self.possible.push(state);
        }
    }

    /// What may be found now.
    pub(crate) fn possible(&self) -> &[T] {
        &self.possible
    }

    /// What must be found now, if there is no doubt.
    pub(crate) fn certain(&self) -> Option<&T> {
        match self.possible.as_slice() {
            [state] => Some(state),
            _ => None,
        }
    }

    /// Compares with what was found; from then on only that is possible.
    pub(crate) fn found(&mut self, state: T) -> Result<(), Loss> {
        let is_kept = self.possible.contains(&state);
        if self.possible.len() > 1 || !is_kept {
            self.note(&format!("found {state:?}"));
        }
        let expected = std::mem::replace(&mut self.possible, vec![state.clone()]);
        if is_kept {
            return Ok(());
        }
        Err(self.loss(format!("found {state:?}, promised {expected:?}")))
    }

    /// A loss of this thing.
    pub(crate) fn loss(&self, found: String) -> Loss {
        Loss {
            what: self.name.clone(),
            found,
            history: self.history.clone(),
        }
    }

    /// Adds a line to the history.
    pub(crate) fn note(&mut self, event: &str) {
        self.history.push(format!("{:9.3} s  {event}", elapsed()));
    }
}

/// Seconds since the soak began.
fn elapsed() -> f64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64()
}
