//! Progress of long work: bars on a terminal, plain lines otherwise.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use artifact::Digest;
use bytesize::ByteSize;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a line is written when there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Shows the bytes of several blobs as they move.
pub(crate) struct Progress {
    bars: HashMap<Digest, Bar>,
    finished: HashSet<Digest>,
    last_note: String,
    terminal: Option<MultiProgress>,
}

struct Bar {
    label: String,
    total: u64,
    completed: u64,
    terminal: Option<ProgressBar>,
    started: Instant,
    started_at: u64,
    last_line: Instant,
}

impl Progress {
    /// Bars when standard error is a terminal, lines otherwise.
    pub(crate) fn new() -> Self {
        Self {
            bars: HashMap::new(),
            finished: HashSet::new(),
            last_note: String::new(),
            terminal: std::io::stderr().is_terminal().then(MultiProgress::new),
        }
    }

    /// A line that is not about bytes.
    pub(crate) fn note(&self, text: &str) {
        match &self.terminal {
            // Printing can only fail when the terminal is gone; there is nobody left to tell.
            Some(terminal) => drop(terminal.println(text)),
            None => tell!("{text}"),
        }
    }

    /// The same, unless it was the last thing noted.
    pub(crate) fn note_once(&mut self, text: &str) {
        if self.last_note != text {
            self.note(text);
            text.clone_into(&mut self.last_note);
        }
    }

    /// [`Progress::begin`] for a blob that was not seen before.
    pub(crate) fn begin_once(&mut self, blob: Digest, label: &str, total: u64) {
        if !self.bars.contains_key(&blob) && !self.finished.contains(&blob) {
            self.begin(blob, label, total);
        }
    }

    /// Begins a blob: `label` says what it is, such as `pulling 1f2e3d4c5b6a`.
    pub(crate) fn begin(&mut self, blob: Digest, label: &str, total: u64) {
        let terminal = self.terminal.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            bar.set_style(style());
            bar.set_message(label.to_owned());
            bar
        });
        let now = Instant::now();
        let bar = Bar {
            label: label.to_owned(),
            total,
            completed: 0,
            terminal,
            started: now,
            started_at: 0,
            last_line: now,
        };
        self.bars.insert(blob, bar);
    }

    /// Bytes of a blob that are done by now.
    pub(crate) fn advance(&mut self, blob: &Digest, completed: u64) {
        let Some(bar) = self.bars.get_mut(blob) else {
            return;
        };
        if bar.completed == 0 {
            bar.started_at = completed;
        }
        bar.completed = completed;
        match &bar.terminal {
            Some(terminal) => terminal.set_position(completed),
            None if bar.last_line.elapsed() >= LINE_EVERY => {
                bar.last_line = Instant::now();
                tell!("{}", bar.line());
            }
            None => {}
        }
    }

    /// A blob is done.
    pub(crate) fn finish(&mut self, blob: &Digest) {
        let Some(mut bar) = self.bars.remove(blob) else {
            return;
        };
        self.finished.insert(*blob);
        bar.completed = bar.total;
        match &bar.terminal {
            Some(terminal) => {
                terminal.set_position(bar.total);
                terminal.finish();
            }
            None => tell!("{}", bar.line()),
        }
    }
}

impl Bar {
    /// `label: 1.2 GiB of 4.1 GiB, 88.0 MiB/s, 33 s left`
    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate for people to read"
        )]
        let rate = ((self.completed - self.started_at.min(self.completed)) as f64 / seconds) as u64;
        let (label, completed, total) =
            (&self.label, ByteSize(self.completed), ByteSize(self.total));
        let mut line = format!("{label}: {completed} of {total}");
        // What came in one piece has no rate.
        if rate > 0 {
            line.push_str(&format!(", {}/s", ByteSize(rate)));
            if self.completed < self.total {
                line.push_str(&format!(
                    ", {} s left",
                    (self.total - self.completed) / rate
                ));
            }
        }
        line
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg:28} {bar:30} {binary_bytes:>11}/{binary_total_bytes:11} {binary_bytes_per_sec:>12} {eta:>5}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How far work has come whose parts have no names: a bar or a spinner on a terminal, a line every
/// few seconds otherwise.
pub(crate) struct Spinner {
    terminal: Option<ProgressBar>,
    last_line: Instant,
}

impl Spinner {
    /// On a terminal if standard error is one.
    pub(crate) fn new() -> Self {
        Self {
            terminal: std::io::stderr()
                .is_terminal()
                .then(ProgressBar::new_spinner),
            last_line: Instant::now(),
        }
    }

    /// From here on it is a bar of so many bytes.
    pub(crate) fn expect(&self, bytes: u64) {
        if let Some(terminal) = &self.terminal {
            terminal.set_length(bytes);
            terminal.set_style(style());
        }
    }

    /// Bytes that are done by now.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(terminal) = &self.terminal {
            terminal.set_position(bytes);
        }
    }

    /// What has been done by now.
    pub(crate) fn show(&mut self, text: &str) {
        match &self.terminal {
            Some(terminal) => terminal.set_message(text.to_owned()),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                tell!("{text}");
            }
            None => {}
        }
    }

    /// Writes something else without a bar in its way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.terminal {
            Some(terminal) => terminal.suspend(write),
            None => write(),
        }
    }

    /// Takes it off the terminal.
    pub(crate) fn finish(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.finish_and_clear();
        }
    }
}
