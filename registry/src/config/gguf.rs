//! What becomes of GGUF files that llama.cpp would choke on.

use std::fmt;
use std::str::FromStr;

use artifact::Repository;

/// What becomes of a GGUF file that llama.cpp would choke on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GgufPolicy {
    /// It is refused, with the reason.
    #[default]
    Refuse,
    /// It is taken; answer and log warn of it.
    Warn,
    /// Nothing is looked at.
    Off,
}

/// The policy of some repositories; without a rule for it one has [`GgufPolicy::Refuse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufRule {
    /// A name, or a prefix followed by `*`. The longest match decides.
    pub repositories: String,
    /// What becomes of bad files there.
    pub policy: GgufPolicy,
}

/// Why a rule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGgufRule {
    /// No such policy.
    #[error("{word:?} is none of refuse, warn and off")]
    Policy {
        /// What was given.
        word: String,
    },
    /// The repositories are neither a name nor a prefix with `*`.
    #[error("{pattern:?} is neither the name of a repository nor a prefix followed by *")]
    Repositories {
        /// What was given.
        pattern: String,
    },
}

impl GgufRule {
    /// How many bytes of the name its pattern matches, `None` if it does not match.
    pub(crate) fn match_length(&self, name: &str) -> Option<usize> {
        match self.repositories.strip_suffix('*') {
            Some(prefix) if name.starts_with(prefix) => Some(prefix.len()),
            // One more than any prefix of it has.
            None if name == self.repositories => Some(name.len() + 1),
            _ => None,
        }
    }
}

/// `warn` for all repositories, `scratch/*=off` for some.
impl FromStr for GgufRule {
    type Err = InvalidGgufRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (repositories, policy) = text.split_once('=').unwrap_or(("*", text));
        let repositories = repositories.trim();
        let policy = match policy.trim() {
            "refuse" => GgufPolicy::Refuse,
            "warn" => GgufPolicy::Warn,
            "off" => GgufPolicy::Off,
            other => {
                let word = other.chars().take(80).collect();
                return Err(InvalidGgufRule::Policy { word });
            }
        };
        let is_prefix = repositories.strip_suffix('*').is_some_and(|prefix| {
            prefix.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte)
            })
        });
        if !is_prefix && Repository::parse(repositories).is_err() {
            let pattern = repositories.chars().take(80).collect();
            return Err(InvalidGgufRule::Repositories { pattern });
        }
        Ok(Self {
            repositories: repositories.to_owned(),
            policy,
        })
    }
}

impl fmt::Display for GgufRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match self.policy {
            GgufPolicy::Refuse => "refuse",
            GgufPolicy::Warn => "warn",
            GgufPolicy::Off => "off",
        };
        match self.repositories.as_str() {
            "*" => f.write_str(policy),
            repositories => write!(f, "{repositories}={policy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{GgufPolicy, GgufRule};

    #[test]
    fn rules_are_read_as_people_write_them_and_shown_the_same() {
        for (text, repositories, policy) in [
            ("refuse", "*", GgufPolicy::Refuse),
            ("warn", "*", GgufPolicy::Warn),
            ("scratch/*=off", "scratch/*", GgufPolicy::Off),
            ("team/model=warn", "team/model", GgufPolicy::Warn),
        ] {
            let repositories = repositories.to_owned();
            let expected = GgufRule {
                repositories,
                policy,
            };
            assert_eq!(text.parse(), Ok(expected.clone()));
            assert_eq!(expected.to_string(), text);
        }
        for text in [
            "",
            "perhaps",
            "Team/*=off",
            "=off",
            "a b=warn",
            "team/=warn",
        ] {
            assert!(text.parse::<GgufRule>().is_err(), "{text}");
        }
    }
}
