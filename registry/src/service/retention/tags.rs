//! Which tags of a repository its rule keeps, as a pure function of tags with their times.
//!
//! A tag stays when any condition of the rule holds for it. `within` counts from the repository's
//! newest tag and not from now, so that neither a clock that jumped nor a repository that nobody
//! pushes to any more loses its last tags; a tag from the future is never dropped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use artifact::Tag;
use jiff::Timestamp;

use crate::service::retention::CheckedRule;

/// The first look over a repository's tags: what the conditions count from. It remembers as many
/// tags as the rule keeps by count, and nothing of the others.
#[derive(Clone, Debug)]
pub(crate) struct TagSurvey<'r> {
    rule: &'r CheckedRule,
    now: Timestamp,
    latest: Option<Timestamp>,
    newest: BinaryHeap<Reverse<(Timestamp, Tag)>>,
}

impl<'r> TagSurvey<'r> {
    pub(super) fn new(rule: &'r CheckedRule, now: Timestamp) -> Self {
        Self {
            rule,
            now,
            latest: None,
            newest: BinaryHeap::new(),
        }
    }

    /// Takes note of a tag and of when it was set.
    pub(crate) fn see(&mut self, tag: &Tag, updated: Timestamp) {
        if updated <= self.now {
            self.latest = self.latest.max(Some(updated));
        }
        let Some(count) = self.rule.rule.keep_last.filter(|count| *count > 0) else {
            return;
        };
        let is_newer = |least: &Reverse<(Timestamp, Tag)>| (least.0.0, &least.0.1) < (updated, tag);
        if self.newest.len() < count {
            self.newest.push(Reverse((updated, tag.clone())));
        } else if self.newest.peek().is_some_and(is_newer) {
            self.newest.pop();
            self.newest.push(Reverse((updated, tag.clone())));
        }
    }

    /// After the last tag: what can be asked about each.
    pub(crate) fn conclude(self) -> TagPolicy<'r> {
        let reference = self.latest.unwrap_or(self.now);
        let within = self.rule.rule.keep_within.map(|time| {
            // Further back than time itself reaches is for ever.
            reference.checked_sub(time).unwrap_or(Timestamp::MIN)
        });
        TagPolicy {
            rule: self.rule,
            now: self.now,
            within,
            last: self.newest.into_iter().map(|Reverse(least)| least).min(),
        }
    }
}

/// Which tags of one repository stay.
#[derive(Clone, Debug)]
pub(crate) struct TagPolicy<'r> {
    rule: &'r CheckedRule,
    now: Timestamp,
    within: Option<Timestamp>,
    last: Option<(Timestamp, Tag)>,
}

impl TagPolicy<'_> {
    /// Whether a tag that was set at `updated` stays.
    pub(crate) fn keeps(&self, tag: &Tag, updated: Timestamp) -> bool {
        updated > self.now
            || self.within.is_some_and(|from| updated >= from)
            || self.rule.matching.is_match(tag.as_str())
            || self
                .last
                .as_ref()
                .is_some_and(|(time, name)| (updated, tag) >= (*time, name))
    }
}
