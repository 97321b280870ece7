//! OriginUrl: a kind of origin and where it is, written `KIND+URL`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// What is spoken at an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OriginKind {
    /// An OCI registry.
    #[serde(rename = "oci")]
    Oci,
    /// The Ollama library: a registry that knows tags alone.
    #[serde(rename = "ollama")]
    Ollama,
    /// Hugging Face.
    #[serde(rename = "hf")]
    HuggingFace,
}

impl OriginKind {
    /// Its name in configuration: `oci`, `ollama` or `hf`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Ollama => "ollama",
            Self::HuggingFace => "hf",
        }
    }
}

impl fmt::Display for OriginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OriginKind {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        match text {
            "oci" => Ok(Self::Oci),
            "ollama" => Ok(Self::Ollama),
            "hf" => Ok(Self::HuggingFace),
            _ => Err(InvalidOrigin::Kind {
                kind: text.chars().take(40).collect(),
            }),
        }
    }
}

/// Why a text is not an origin. None of the messages repeats the URL: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// No kind before the URL.
    #[error("write KIND+URL, such as oci+https://registry.example or hf+https://huggingface.co")]
    Form,
    /// A kind that does not exist.
    #[error("{kind:?} is not a kind of origin: write oci, ollama or hf")]
    Kind {
        /// What was given.
        kind: String,
    },
    /// Not a URL.
    #[error("what follows the kind is not a URL: {reason}")]
    Url {
        /// Why.
        reason: String,
    },
    /// A URL of another scheme.
    #[error("an origin is reached by http or https, not by {scheme:?}")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// A user or a password in the URL.
    #[error(
        "the URL of an origin holds no user and no password: give them by `hayloft login`, by a \
         file or by the environment"
    )]
    Credentials,
    /// A query or a fragment in the URL.
    #[error("the URL of an origin ends with its path: it has no query and no fragment")]
    Tail,
}

/// Where models come from: a kind and a base URL without credentials. Its path, if any, stands
/// before the name of every repository.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginUrl {
    /// What is spoken there.
    pub kind: OriginKind,
    /// The base; its path ends with `/`.
    pub url: Url,
}

impl OriginUrl {
    /// Joins a kind and a URL, which must be one that an origin can have.
    ///
    /// # Errors
    /// [`InvalidOrigin`] says what is wrong with the URL.
    pub fn new(kind: OriginKind, mut url: Url) -> Result<Self, InvalidOrigin> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidOrigin::Scheme {
                scheme: url.scheme().chars().take(40).collect(),
            });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidOrigin::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidOrigin::Tail);
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self { kind, url })
    }

    /// One that is written down in this program.
    ///
    /// # Panics
    /// When it is no URL, which a test would show.
    #[expect(clippy::expect_used, reason = "the text is a constant of this program")]
    pub(crate) fn well_known(kind: OriginKind, text: &'static str) -> Self {
        let url = Url::parse(text).expect("a URL that is written down here");
        Self::new(kind, url).expect("a URL that an origin can have")
    }

    /// `host[:port]`, the port only where it is not that of the scheme.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The path that stands before every name, without slashes at its ends; mostly empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.url.path().trim_matches('/')
    }
}

impl FromStr for OriginUrl {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        // What is no word is part of a URL, which is not to be shown.
        let (kind, url) = text
            .split_once('+')
            .filter(|(kind, _)| kind.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .ok_or(InvalidOrigin::Form)?;
        let kind = kind.parse()?;
        let url = Url::parse(url).map_err(|error| InvalidOrigin::Url {
            reason: error.to_string(),
        })?;
        Self::new(kind, url)
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_str();
        write!(f, "{}+{}", self.kind, url.strip_suffix('/').unwrap_or(url))
    }
}

impl fmt::Debug for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OriginUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OriginUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::client::origin::url::{InvalidOrigin, OriginKind, OriginUrl};

    #[test]
    fn an_origin_is_a_kind_and_a_url_and_prints_as_it_was_written() {
        for text in [
            "oci+https://registry.example",
            "oci+http://127.0.0.1:5000/team/models",
            "ollama+https://registry.ollama.ai",
            "hf+https://huggingface.co",
        ] {
            let origin: OriginUrl = text.parse().unwrap();
            assert_eq!(origin.to_string(), text);
        }
        let origin: OriginUrl = "oci+http://[::1]:5000/a/b/".parse().unwrap();
        assert_eq!(origin.kind, OriginKind::Oci);
        assert_eq!(origin.host(), "[::1]:5000");
        assert_eq!(origin.prefix(), "a/b");
    }

    #[test]
    fn what_could_leak_or_mislead_is_refused_and_no_message_shows_a_secret() {
        for (text, part) in [
            ("https://registry.example", "KIND+URL"),
            ("s3+https://x", "\"s3\""),
            ("oci+ftp://x", "\"ftp\""),
            ("oci+registry.example", "not a URL"),
            ("oci+https://me:geheim@x", "no password"),
            ("oci+https://geheim@x", "no password"),
            ("https://me:geheim+x@x", "KIND+URL"),
            ("oci+https://x/?token=geheim", "no query"),
            ("oci+https://x/#geheim", "no fragment"),
        ] {
            let error: InvalidOrigin = text.parse::<OriginUrl>().unwrap_err();
            let message = error.to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains("geheim"), "{message}");
        }
    }
}
