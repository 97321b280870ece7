//! The gate: what llama.cpp would choke on is not let in.
//!
//! A GGUF file is known by its first bytes, and its header comes before everything else, so a
//! blob is looked at while it streams in, from its first byte on: nothing is read twice, and a bad
//! file is refused after its header and not after its last gigabyte. Whatever is no GGUF file
//! passes after eight bytes. The rules are [`artifact::gguf::check()`]'s, the same as before a push
//! and before the runtime loads a model.
//!
//! A blob whose beginning did not pass here whole (an upload that went on in another process, a
//! mount, one from before the gate) is looked at when a manifest calls it weights: [`weights`].

mod held;
mod weights;

use std::collections::BTreeMap;

use artifact::gguf::{self, Feed, Header, MAGIC, annotations};
use artifact::{Digest, Repository};
use uuid::Uuid;

use crate::config::{GgufPolicy, GgufRule};
use crate::error::Error;
use crate::service::Registry;
use held::Held;

/// Bytes that tell a GGUF file from a text that begins with the same four letters: the magic and
/// the version.
const START: usize = 8;
/// Versions of the format that may come to be. No text has so small a number there.
const MAX_VERSION: u32 = 255;
/// Up to this much is parsed where it arrives; a larger header on a thread of its own.
const PARSED_AT_ONCE: usize = 256 * 1024;

/// What is known of a blob by its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is no GGUF file.
    NotGguf,
    /// A GGUF file that llama.cpp would take.
    Good(Facts),
    /// A GGUF file that llama.cpp would choke on: why.
    Refused(String),
}

/// What the header of a good file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Short texts, by the keys of [`artifact::gguf::annotations()`].
    pub(crate) annotations: BTreeMap<String, String>,
    /// The fewest bytes that the whole file can have.
    pub(crate) needs: u64,
}

/// Looks at one blob as it streams in.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Bytes that came by.
    seen: u64,
    /// The size of the whole blob, where it is known before the end.
    size: Option<u64>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Too little to tell.
    Start(Vec<u8>),
    /// A header that goes on.
    Reading(Box<Feed>),
    /// Nothing more is to be found out.
    Decided(Verdict),
}

impl Gate {
    /// Before the first byte. `size` is that of the whole blob, where it is known.
    pub(crate) fn new(size: Option<u64>) -> Self {
        Self {
            seen: 0,
            size,
            state: State::Start(Vec::new()),
        }
    }

    /// Takes the next bytes; gives the reason once the blob is found to be bad.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.seen += bytes.len() as u64;
        let feed = match &mut self.state {
            State::Decided(Verdict::Refused(reason)) => return Err(reason.clone()),
            State::Decided(_) => return Ok(()),
            State::Reading(feed) => {
                let kept = usize::try_from(feed.unread()).unwrap_or(usize::MAX);
                let is_small = feed.kept() + bytes.len() <= PARSED_AT_ONCE;
                if bytes.len() < kept || is_small {
                    fed(feed, bytes)
                } else {
                    fed_elsewhere(feed, bytes).await
                }
            }
            State::Start(start) => {
                start.extend_from_slice(bytes);
                if start.len() < START {
                    return Ok(());
                }
                if begins_as_gguf(start) {
                    let start = std::mem::take(start);
                    let mut feed = Box::new(Feed::new(self.size));
                    let verdict = fed(&mut feed, &start);
                    self.state = State::Reading(feed);
                    verdict
                } else {
                    Some(Verdict::NotGguf)
                }
            }
        };
        if let Some(verdict) = feed {
            self.state = State::Decided(verdict);
        }
        match &self.state {
            State::Decided(Verdict::Refused(reason)) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// The blob has ended: what it is.
    pub(crate) fn finish(self, size: u64) -> Verdict {
        match self.state {
            State::Start(_) => Verdict::NotGguf,
            State::Reading(feed) => match feed.finish() {
                Ok(header) => of_size(judged(&header), size),
                Err(error) => Verdict::Refused(error.to_string()),
            },
            State::Decided(verdict) => of_size(verdict, size),
        }
    }

    /// Whether nothing is left to be found out.
    pub(crate) fn is_decided(&self) -> bool {
        matches!(self.state, State::Decided(_))
    }
}

/// Whether this can be the beginning of a GGUF file, in either byte order.
fn begins_as_gguf(start: &[u8]) -> bool {
    let Some((magic, version)) = start.split_at_checked(MAGIC.len()) else {
        return false;
    };
    let version = version
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes));
    let is_version = |version: u32| (1..=MAX_VERSION).contains(&version);
    magic == MAGIC
        && version.is_some_and(|version| is_version(version) || is_version(version.swap_bytes()))
}

fn fed(feed: &mut Feed, bytes: &[u8]) -> Option<Verdict> {
    match feed.push(bytes) {
        Ok(None) => None,
        Ok(Some(header)) => Some(judged(&header)),
        Err(error) => Some(Verdict::Refused(error.to_string())),
    }
}

/// The same where a parse takes longer than a worker of the runtime should be kept.
async fn fed_elsewhere(feed: &mut Feed, bytes: &[u8]) -> Option<Verdict> {
    let mut moved = std::mem::replace(feed, Feed::new(None));
    let bytes = bytes.to_vec();
    let parsed = tokio::task::spawn_blocking(move || {
        let verdict = fed(&mut moved, &bytes);
        (moved, verdict)
    });
    match parsed.await {
        Ok((moved, verdict)) => {
            *feed = moved;
            verdict
        }
        Err(error) => Some(Verdict::Refused(format!("it could not be read: {error}"))),
    }
}

fn judged(header: &Header) -> Verdict {
    match gguf::check(header) {
        Ok(kind) => Verdict::Good(Facts {
            annotations: gguf::annotations(header, kind),
            needs: header.min_file_size(),
        }),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

/// A file that ends before its weights do is cut off, however good its header is.
fn of_size(verdict: Verdict, size: u64) -> Verdict {
    match verdict {
        Verdict::Good(facts) if facts.needs > size => Verdict::Refused(format!(
            "its weights end at byte {}, and it has only {size}; it was cut off: fetch or copy it \
             again",
            facts.needs
        )),
        verdict => verdict,
    }
}

/// The policies of a registry, and the gates of upload sessions between two requests.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    rules: Vec<GgufRule>,
    held: Held,
}

impl Gates {
    pub(crate) fn new(rules: Vec<GgufRule>) -> Self {
        Self {
            rules,
            held: Held::default(),
        }
    }

    /// What becomes of a bad file in this repository: the longest pattern decides.
    pub(crate) fn policy(&self, repository: &Repository) -> GgufPolicy {
        let name = repository.as_str();
        let matching = self.rules.iter().filter_map(|rule| {
            let length = rule.match_length(name)?;
            Some((length, rule.policy))
        });
        let longest = matching.max_by_key(|(length, _)| *length);
        longest.map_or(GgufPolicy::default(), |(_, policy)| policy)
    }

    /// The gate of a session that stands at `offset`: a new one at the start, else the one that
    /// has seen everything up to there. `None` where nothing is looked at.
    pub(crate) fn enter(&self, repository: &Repository, id: Uuid, offset: u64) -> Option<Gate> {
        let held = self.held.take(id);
        match self.policy(repository) {
            GgufPolicy::Off => None,
            _ if offset == 0 => Some(Gate::new(None)),
            _ => held.filter(|gate| gate.seen == offset),
        }
    }

    /// Keeps the gate of a session that goes on with another request.
    pub(crate) fn keep(&self, id: Uuid, gate: Gate) {
        if !matches!(gate.state, State::Decided(Verdict::NotGguf)) {
            self.held.put(id, gate);
        }
    }

    /// Forgets the gate of a session that has ended.
    pub(crate) fn forget(&self, id: Uuid) {
        self.held.take(id);
    }
}

impl Registry {
    /// What a blob's gate comes to at its end: what is noted with it, and what its client is
    /// warned of.
    ///
    /// # Errors
    /// [`Error::GgufRefused`] where bad files are not let in.
    pub(crate) fn leave_gate(
        &self,
        repository: &Repository,
        gate: Option<Gate>,
        size: u64,
    ) -> Result<Passed, Error> {
        let verdict = gate.map_or(Verdict::NotGguf, |gate| gate.finish(size));
        let reason = match verdict {
            Verdict::NotGguf => return Ok(Passed::default()),
            Verdict::Good(facts) => {
                let annotations = facts.annotations;
                return Ok(Passed {
                    annotations,
                    warning: None,
                });
            }
            Verdict::Refused(reason) => reason,
        };
        match self.gates.policy(repository) {
            GgufPolicy::Off => Ok(Passed::default()),
            GgufPolicy::Refuse => Err(Error::GgufRefused { reason }),
            GgufPolicy::Warn => {
                tracing::warn!(%repository, reason, "a GGUF file that llama.cpp would choke on");
                Ok(Passed::at_fault(reason))
            }
        }
    }

    /// What becomes of bad files in a repository.
    pub(crate) fn gate_policy(&self, repository: &Repository) -> GgufPolicy {
        self.gates.policy(repository)
    }

    /// What is known of a stored blob by its beginning, which is read. `None` when it is gone.
    pub(crate) async fn look_at_blob(&self, digest: &Digest) -> Result<Option<Verdict>, Error> {
        use futures::TryStreamExt;
        let Some(mut open) = self.blobs.open(digest).await? else {
            return Ok(None);
        };
        let size = open.size;
        open.size = size.min(gguf::MAX_HEADER_BYTES);
        let mut pieces = open.stream().await?;
        let mut gate = Gate::new(Some(size));
        while !gate.is_decided()
            && let Some(piece) = pieces.try_next().await?
        {
            // The reason comes again at the end.
            let _ = gate.push(&piece).await;
        }
        Ok(Some(gate.finish(size)))
    }
}

/// What a blob that was let in brings along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// To be noted with the blob.
    pub(crate) annotations: BTreeMap<String, String>,
    /// What is wrong with it.
    pub(crate) warning: Option<String>,
}

impl Passed {
    fn at_fault(reason: String) -> Self {
        Self {
            annotations: BTreeMap::from([(annotations::FAULT.to_owned(), reason.clone())]),
            warning: Some(reason),
        }
    }
}

#[cfg(test)]
mod tests;
