//! Reference: registry, repository, tag and digest, read by Docker's rules.
//!
//! Sources: OCI distribution-spec 1.1 "Pulling manifests" for the grammar of names and tags;
//! distribution's `reference` package for the defaults (`docker.io`, `library/`, `latest`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, InvalidDigest, shown};

/// The registry meant when a reference names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag meant when a reference names neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest repository name accepted, in bytes; common clients cap host and name together at 255.
pub const MAX_REPOSITORY_BYTES: usize = 255;
/// Longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 128;

/// Why a text is not a reference, a repository name or a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Nothing was given.
    #[error("the reference is empty: write it as HOST[:PORT]/NAMESPACE/NAME[:TAG]")]
    Empty,
    /// The part before the first slash is not a host name with an optional port.
    #[error("{host:?} is not a registry host: write HOST or HOST:PORT")]
    Host {
        /// The offending part.
        host: String,
    },
    /// The repository name breaks the grammar.
    #[error(
        "repository name {name:?} is not valid: use lower-case letters, digits and single separators \
         (. _ __ -) in segments joined by /, at most {MAX_REPOSITORY_BYTES} characters"
    )]
    Repository {
        /// The offending name, shortened.
        name: String,
    },
    /// The tag breaks the grammar.
    #[error(
        "tag {tag:?} is not valid: use letters, digits, _ . and -, not starting with . or -, \
         at most {MAX_TAG_BYTES} characters"
    )]
    Tag {
        /// The offending tag, shortened.
        tag: String,
    },
    /// The part after `@` is not a digest.
    #[error("the digest of the reference is not valid")]
    Digest(#[from] InvalidDigest),
}

/// A repository name: segments of lower-case letters, digits and separators, joined by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// Checks a name against the grammar of the distribution-spec.
    ///
    /// # Errors
    /// [`InvalidReference::Repository`] when it does not match.
    pub fn parse(name: &str) -> Result<Self, InvalidReference> {
        let valid =
            name.len() <= MAX_REPOSITORY_BYTES && name.split('/').all(is_repository_segment);
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidReference::Repository { name: shown(name) })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments between the slashes, at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

/// One segment: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository_segment(segment: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = segment.as_bytes();
    let ends_are_words =
        bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    ends_are_words
        && bytes.split(|byte| is_word(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// Checks a tag against the grammar of the distribution-spec.
    ///
    /// # Errors
    /// [`InvalidReference::Tag`] when it does not match.
    pub fn parse(tag: &str) -> Result<Self, InvalidReference> {
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let rest = |byte: u8| first(byte) || byte == b'.' || byte == b'-';
        let valid = tag.len() <= MAX_TAG_BYTES
            && tag.bytes().next().is_some_and(first)
            && tag.bytes().all(rest);
        if valid {
            Ok(Self(tag.to_owned()))
        } else {
            Err(InvalidReference::Tag { tag: shown(tag) })
        }
    }

    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tag {
    fn default() -> Self {
        Self(DEFAULT_TAG.to_owned())
    }
}

/// Where a manifest is: registry, repository, and a tag, a digest or both.
///
/// Without a digest there is always a tag. With both, the digest decides and the tag is a label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference by Docker's rules, with `docker.io` as the default registry.
    ///
    /// # Errors
    /// [`InvalidReference`] says which part breaks which rule.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::Empty);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (registry, path) = split_registry(name)?;
        // A colon after the last slash starts the tag; the host's own colon is already gone.
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(Tag::parse(tag)?)),
            None => (path, None),
        };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            Repository::parse(&format!("library/{path}"))?
        } else {
            Repository::parse(path)?
        };
        let tag = tag.or_else(|| digest.is_none().then(Tag::default));
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// Joins parts that were parsed already; `registry` is `host[:port]`.
    ///
    /// # Errors
    /// [`InvalidReference::Host`] when `registry` is not a host with an optional port.
    pub fn from_parts(
        registry: &str,
        repository: Repository,
        tag: Tag,
    ) -> Result<Self, InvalidReference> {
        if !is_host(registry) {
            return Err(InvalidReference::Host {
                host: shown(registry),
            });
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: Some(tag),
            digest: None,
        })
    }

    /// The registry as `host[:port]`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host without its port and without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        if let Some(rest) = self.registry.strip_prefix('[') {
            return rest.split(']').next().unwrap_or(rest);
        }
        self.registry.split(':').next().unwrap_or(&self.registry)
    }

    /// Whether the host is this machine: `localhost`, `*.localhost`, `127.0.0.0/8` or `::1`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one was given or assumed.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands after `/manifests/` in a request: the digest if there is one, else the tag.
    #[must_use]
    pub fn manifest_selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.as_str().to_owned(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The last path component of a view in the cache: the tag, else `<algorithm>-<hex>`.
    #[must_use]
    pub fn view_name(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => tag.as_str().to_owned(),
            (None, Some(digest)) => format!("{}-{}", digest.algorithm(), digest.hex()),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same place, pinned to a digest.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

/// Splits off the registry: a first component with a dot or a colon, or `localhost`, is a host.
fn split_registry(name: &str) -> Result<(&str, &str), InvalidReference> {
    let Some((first, rest)) = name.split_once('/') else {
        return Ok((DEFAULT_REGISTRY, name));
    };
    if !(first == "localhost" || first.contains(['.', ':'])) {
        return Ok((DEFAULT_REGISTRY, name));
    }
    if !is_host(first) {
        return Err(InvalidReference::Host { host: shown(first) });
    }
    // Docker's own alias, so that one model has one name.
    let first = if first == "index.docker.io" {
        DEFAULT_REGISTRY
    } else {
        first
    };
    Ok((first, rest))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; never a path, user or scheme.
fn is_host(text: &str) -> bool {
    if text.len() > 253 + 6 {
        return false;
    }
    let is_port = |port: &str| {
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

macro_rules! text_type {
    ($type:ty) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = InvalidReference;

            fn from_str(text: &str) -> Result<Self, InvalidReference> {
                Self::parse(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Reference);
text_type!(Repository);
text_type!(Tag);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use crate::reference::{Reference, Repository, Tag};

    #[test]
    fn defaults_are_those_of_docker() {
        for (text, full) in [
            ("llama", "docker.io/library/llama:latest"),
            ("ai/llama:8b", "docker.io/ai/llama:8b"),
            ("localhost/llama", "localhost/llama:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("ghcr.io/x/y", "ghcr.io/x/y:latest"),
            ("index.docker.io/ai/llama", "docker.io/ai/llama:latest"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full);
        }
    }

    #[test]
    fn a_digest_stands_without_a_tag() {
        let text = format!("h:1/a@sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&text).unwrap();
        assert!(reference.tag().is_none());
        assert_eq!(reference.to_string(), text);
        assert_eq!(reference.view_name(), format!("sha256-{}", "a".repeat(64)));
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            "h:1/../x",
            "h:1/A/b",
            "h:1/a//b",
            "h:1/a/",
            "h:1/a:.tag",
            "h:1/a:",
            "h:99999/a",
            "h:0/a",
            "user@h:1/a",
            "https://h/a",
            "h:1/a@sha256:xyz",
            "h_x.y/a",
            "[::zz]:1/a",
        ] {
            assert!(Reference::parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn loopback_hosts_are_known_as_such() {
        for (text, loopback) in [
            ("localhost:5000/a", true),
            ("127.1.2.3:5000/a", true),
            ("[::1]:5000/a", true),
            ("ghcr.io/a/b", false),
            ("127.0.0.1.example.com/a", false),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn repository_separators_follow_the_grammar() {
        for name in ["a", "a.b", "a_b", "a__b", "a---b", "a/b-c/d.e"] {
            assert!(Repository::parse(name).is_ok(), "{name}");
        }
        for name in ["", ".a", "a.", "a..b", "a___b", "a._b", "a/_b", "A", "é"] {
            assert!(Repository::parse(name).is_err(), "{name}");
        }
        assert!(Repository::parse(&"a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,300}") {
            let _ = Reference::parse(&text);
            let _ = Repository::parse(&text);
            let _ = Tag::parse(&text);
        }

        #[test]
        fn printed_references_parse_back(
            text in "([a-z]{1,8}(\\.[a-z]{2,3}|:[1-9][0-9]{0,3})/)?[a-z0-9]{1,9}(/[a-z0-9]{1,9}){0,3}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,20})?"
        ) {
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }
}
