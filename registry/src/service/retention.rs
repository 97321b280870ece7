//! Retention: which tags of a repository its rule keeps, as a pure function of tags with their
//! times.
//!
//! A tag stays when any condition of the rule holds for it. `within` counts from the repository's
//! newest tag and not from now, so that neither a clock that jumped nor a repository that nobody
//! pushes to any more loses its last tags; a tag from the future is never dropped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use artifact::{Repository, Tag};
use globset::{Glob, GlobSet, GlobSetBuilder};
use jiff::Timestamp;

use crate::config::RetentionRule;
use crate::error::Error;

/// All rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retention {
    rules: Vec<CheckedRule>,
}

/// A rule whose patterns were read.
#[derive(Clone, Debug)]
pub(crate) struct CheckedRule {
    rule: RetentionRule,
    matching: GlobSet,
}

/// Why a rule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// The repositories are neither a name nor a prefix with `*`.
    #[error("{pattern:?} is neither the name of a repository nor a prefix followed by *")]
    Repositories {
        /// What was given.
        pattern: String,
    },
    /// A glob cannot be read.
    #[error("{glob:?} is not a glob: {reason}")]
    Glob {
        /// What was given.
        glob: String,
        /// What the reader met.
        reason: String,
    },
    /// It says nothing.
    #[error("the rule has no condition: give last, within, match or untagged")]
    Empty,
    /// It would keep no tag at all.
    #[error("the rule would keep no tag at all: give last a number above 0, or drop it")]
    KeepsNothing,
    /// The same repositories have another rule.
    #[error("{pattern:?} has two rules: write all conditions into one")]
    Twice {
        /// The pattern.
        pattern: String,
    },
}

impl RetentionRule {
    /// Whether the rule can be followed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), InvalidRule> {
        CheckedRule::new(self.clone()).map(drop)
    }

    /// Whether it says anything about tags; a rule about untagged manifests alone keeps all tags.
    fn speaks_of_tags(&self) -> bool {
        self.keep_last.is_some() || self.keep_within.is_some() || !self.keep_matching.is_empty()
    }

    /// How many bytes of the name its pattern matches, `None` if it does not match.
    fn match_length(&self, repository: &Repository) -> Option<usize> {
        match self.repositories.strip_suffix('*') {
            Some(prefix) if repository.as_str().starts_with(prefix) => Some(prefix.len()),
            // One more than any prefix of it has.
            None if repository.as_str() == self.repositories => Some(self.repositories.len() + 1),
            _ => None,
        }
    }
}

/// The form in which rules are given: `team/*=last:10,within:30d,match:v*,untagged:7d`.
impl fmt::Display for RetentionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut conditions = Vec::new();
        conditions.extend(self.keep_last.map(|count| format!("last:{count}")));
        conditions.extend(
            self.keep_within
                .map(|time| format!("within:{}", Time(time))),
        );
        conditions.extend(
            self.keep_matching
                .iter()
                .map(|glob| format!("match:{glob}")),
        );
        conditions.extend(
            self.untagged_after
                .map(|time| format!("untagged:{}", Time(time))),
        );
        write!(f, "{}={}", self.repositories, conditions.join(","))
    }
}

/// A time as people write it: whole days, hours, minutes, else seconds.
#[derive(Clone, Copy, Debug)]
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds == 0 && !self.0.is_zero() {
            return write!(f, "{}ms", self.0.as_millis());
        }
        for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60)] {
            if seconds > 0 && seconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", seconds / length);
            }
        }
        write!(f, "{seconds}s")
    }
}

impl Retention {
    /// Reads the patterns of all rules.
    pub(crate) fn new(rules: &[RetentionRule]) -> Result<Self, Error> {
        let mut checked: Vec<CheckedRule> = Vec::with_capacity(rules.len());
        for rule in rules {
            let fault = |fault| Error::RetentionRule {
                rule: rule.to_string(),
                source: fault,
            };
            let next = CheckedRule::new(rule.clone()).map_err(fault)?;
            if checked
                .iter()
                .any(|other| other.rule.repositories == rule.repositories)
            {
                let pattern = rule.repositories.clone();
                return Err(fault(InvalidRule::Twice { pattern }));
            }
            checked.push(next);
        }
        Ok(Self { rules: checked })
    }

    /// The rule of a repository: the one whose pattern matches most of its name.
    pub(crate) fn rule_of(&self, repository: &Repository) -> Option<&CheckedRule> {
        self.rules
            .iter()
            .filter_map(|rule| Some((rule.rule.match_length(repository)?, rule)))
            .max_by_key(|(length, _)| *length)
            .map(|(_, rule)| rule)
    }
}

impl CheckedRule {
    fn new(rule: RetentionRule) -> Result<Self, InvalidRule> {
        let name = rule
            .repositories
            .strip_suffix('*')
            .unwrap_or(&rule.repositories);
        // A prefix may end anywhere in a name, so only its characters can be checked.
        let is_plain = name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte)
        });
        let is_name = rule.repositories.ends_with('*') || Repository::parse(name).is_ok();
        if !is_plain || !is_name {
            let pattern = rule.repositories;
            return Err(InvalidRule::Repositories { pattern });
        }
        if !rule.speaks_of_tags() && rule.untagged_after.is_none() {
            return Err(InvalidRule::Empty);
        }
        let keeps_others = rule.keep_within.is_some() || !rule.keep_matching.is_empty();
        if rule.keep_last == Some(0) && !keeps_others {
            return Err(InvalidRule::KeepsNothing);
        }
        let matching = globs(&rule.keep_matching)?;
        Ok(Self { rule, matching })
    }

    /// How long a manifest without a tag is kept; `None` for ever.
    pub(crate) fn untagged_after(&self) -> Option<Duration> {
        self.rule.untagged_after
    }

    /// A look over the tags of one repository; `None` when the rule keeps them all anyway.
    pub(crate) fn tags(&self, now: Timestamp) -> Option<TagSurvey<'_>> {
        self.rule.speaks_of_tags().then(|| TagSurvey {
            rule: self,
            now,
            latest: None,
            newest: BinaryHeap::new(),
        })
    }
}

impl fmt::Display for CheckedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule.fmt(f)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, InvalidRule> {
    let fault = |glob: &str, error: &globset::Error| InvalidRule::Glob {
        glob: glob.to_owned(),
        reason: error.kind().to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| fault(pattern, &error))?);
    }
    set.build().map_err(|error| fault("", &error))
}

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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::Duration;

    use artifact::{Repository, Tag};
    use jiff::Timestamp;
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use crate::config::RetentionRule;
    use crate::error::Error;
    use crate::service::retention::{InvalidRule, Retention};

    const DAY: u64 = 86_400;

    fn rule(repositories: &str) -> RetentionRule {
        RetentionRule {
            repositories: repositories.to_owned(),
            ..RetentionRule::default()
        }
    }

    fn day(number: i64) -> Timestamp {
        Timestamp::from_second(number * 86_400).unwrap()
    }

    /// The tags that stay, of those set on these days.
    fn kept(rule: RetentionRule, now: i64, tags: &[(&str, i64)]) -> Vec<String> {
        let retention = Retention::new(&[rule]).unwrap();
        let repository = Repository::parse("team/llama").unwrap();
        let rule = retention.rule_of(&repository).unwrap();
        let tags: Vec<(Tag, Timestamp)> = tags
            .iter()
            .map(|(tag, set)| (Tag::parse(tag).unwrap(), day(*set)))
            .collect();
        let Some(mut survey) = rule.tags(day(now)) else {
            return tags
                .iter()
                .map(|(tag, _)| tag.as_str().to_owned())
                .collect();
        };
        for (tag, updated) in &tags {
            survey.see(tag, *updated);
        }
        let policy = survey.conclude();
        let stay = tags
            .iter()
            .filter(|(tag, updated)| policy.keeps(tag, *updated));
        stay.map(|(tag, _)| tag.as_str().to_owned()).collect()
    }

    const TAGS: &[(&str, i64)] = &[("v1", 1), ("v2", 10), ("nightly", 20), ("test", 30)];

    #[test]
    fn the_last_tags_stay() {
        let last = RetentionRule {
            keep_last: Some(2),
            ..rule("team/*")
        };
        assert_eq!(kept(last.clone(), 40, TAGS), ["nightly", "test"]);
        assert_eq!(kept(last, 40, &TAGS[..1]), ["v1"]);
    }

    #[test]
    fn tags_set_at_one_instant_are_told_apart_by_name() {
        let last = RetentionRule {
            keep_last: Some(1),
            ..rule("*")
        };
        assert_eq!(kept(last, 40, &[("b", 1), ("c", 1), ("a", 1)]), ["c"]);
    }

    #[test]
    fn within_counts_from_the_newest_tag_and_not_from_now() {
        let time = Some(Duration::from_secs(15 * DAY));
        let within = RetentionRule {
            keep_within: time,
            ..rule("team/llama")
        };
        assert_eq!(kept(within.clone(), 31, TAGS), ["nightly", "test"]);
        // A year later, or a clock that says so: the same.
        assert_eq!(kept(within, 400, TAGS), ["nightly", "test"]);
    }

    #[test]
    fn a_tag_from_the_future_stays_and_pushes_nothing_out_of_its_time() {
        let time = Some(Duration::from_secs(15 * DAY));
        let within = RetentionRule {
            keep_within: time,
            ..rule("*")
        };
        let mut tags = TAGS.to_vec();
        tags.push(("future", 1000));
        assert_eq!(kept(within, 31, &tags), ["nightly", "test", "future"]);
    }

    #[test]
    fn any_condition_is_enough() {
        let both = RetentionRule {
            keep_last: Some(1),
            keep_matching: vec!["v*".to_owned(), "stable".to_owned()],
            ..rule("*")
        };
        assert_eq!(kept(both, 40, TAGS), ["v1", "v2", "test"]);
    }

    #[test]
    fn a_rule_about_untagged_manifests_alone_keeps_all_tags() {
        let untagged = RetentionRule {
            untagged_after: Some(Duration::ZERO),
            ..rule("*")
        };
        assert_eq!(kept(untagged, 40, TAGS).len(), 4);
    }

    #[test]
    fn the_longest_match_decides() {
        let rules = ["*", "team/*", "team/l*", "team/llama", "other"];
        let rules = rules.map(|name| RetentionRule {
            keep_last: Some(1),
            ..rule(name)
        });
        let retention = Retention::new(&rules).unwrap();
        for (name, decides) in [
            ("team/llama", "team/llama"),
            ("team/llama2", "team/l*"),
            ("team/x", "team/*"),
            ("teams", "*"),
        ] {
            let repository = Repository::parse(name).unwrap();
            let found = retention.rule_of(&repository).unwrap();
            assert_eq!(found.to_string(), format!("{decides}=last:1"), "{name}");
        }
        let none = Retention::new(&rules[4..]).unwrap();
        assert!(none.rule_of(&Repository::parse("team").unwrap()).is_none());
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused() {
        let wrong = [
            rule("team"),
            RetentionRule {
                keep_last: Some(0),
                ..rule("team")
            },
            RetentionRule {
                keep_last: Some(1),
                ..rule("Team")
            },
            RetentionRule {
                keep_last: Some(1),
                ..rule("a*b")
            },
            RetentionRule {
                keep_last: Some(1),
                ..rule("")
            },
            RetentionRule {
                keep_matching: vec!["v[".to_owned()],
                ..rule("team")
            },
        ];
        for rule in wrong {
            assert!(rule.check().is_err(), "{rule}");
        }
        let once = RetentionRule {
            keep_last: Some(1),
            ..rule("team")
        };
        let twice = Retention::new(&[once.clone(), once]).unwrap_err();
        let expected = matches!(
            &twice,
            Error::RetentionRule {
                source: InvalidRule::Twice { .. },
                ..
            }
        );
        assert!(expected, "{twice}");
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        let all = RetentionRule {
            repositories: "team/*".to_owned(),
            keep_last: Some(10),
            keep_within: Some(Duration::from_secs(30 * DAY)),
            keep_matching: vec!["v*".to_owned()],
            untagged_after: Some(Duration::from_secs(5400)),
        };
        let expected = "team/*=last:10,within:30d,match:v*,untagged:90m";
        assert_eq!(all.to_string(), expected);
    }

    proptest! {
        #[test]
        fn as_many_as_asked_for_stay_and_none_older_than_one_that_goes(
            days in prop::collection::vec(0_i64..50, 0..40),
            count in 1_usize..10,
        ) {
            let names: Vec<String> = (0..days.len()).map(|at| format!("t{at}")).collect();
            let tags: Vec<(&str, i64)> =
                names.iter().map(String::as_str).zip(days.iter().copied()).collect();
            let last = RetentionRule { keep_last: Some(count), ..rule("*") };
            let stay = kept(last, 100, &tags);
            prop_assert_eq!(stay.len(), count.min(tags.len()));
            let set = |name: &str| tags.iter().find(|(tag, _)| *tag == name).unwrap().1;
            let oldest = stay.iter().map(|name| set(name)).min();
            for (tag, day) in &tags {
                let goes = !stay.iter().any(|name| name == tag);
                prop_assert!(!goes || Some(*day) <= oldest);
            }
        }
    }
}
