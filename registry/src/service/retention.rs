//! Retention: the rules, and which one a repository has. What it says of tags is in `tags`.

mod tags;

use std::fmt;
use std::time::Duration;

use artifact::Repository;
use globset::{Glob, GlobSet, GlobSetBuilder};
use jiff::Timestamp;

use crate::config::RetentionRule;
use crate::error::Error;
pub(crate) use tags::{TagPolicy, TagSurvey};

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
        self.rule
            .speaks_of_tags()
            .then(|| TagSurvey::new(self, now))
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

#[cfg(test)]
mod tests;
