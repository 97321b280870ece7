//! Rules as people give them, and the tags that stay by them.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

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
