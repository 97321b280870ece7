//! Sources: which origins the names of models lead to on a node.

use std::fmt;
use std::str::FromStr;

use crate::client::error::Error;
use crate::client::origin::{InvalidOrigin, Origin, OriginKind, OriginUrl};
use crate::client::registry::{Credentials, RegistryClient, RegistryOptions};
use crate::client::transport::Transport;
use crate::name::ModelName;
use crate::reference::InvalidReference;

/// Hosts that mean Hugging Face.
const HUGGING_FACE_HOSTS: [&str; 2] = ["hf.co", "huggingface.co"];
/// Where Hugging Face is.
pub const HUGGING_FACE: &str = "https://huggingface.co";
/// Hosts that mean the Ollama library.
const OLLAMA_HOSTS: [&str; 2] = ["ollama.com", "registry.ollama.ai"];
/// Where the Ollama library is.
pub const OLLAMA_LIBRARY: &str = "https://registry.ollama.ai";
/// What stands before a bare name: Ollama's own name for its library, under which an Ollama that
/// reads the cache shows the model by its bare name. There is no second prefix by default: who
/// mistypes a name must not get a model of the same name from somebody else.
pub const DEFAULT_BARE_NAMES: &str = "registry.ollama.ai/library";

/// Names below a prefix come from an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// A host, or a host and a path, without a slash at its end, in lower case.
    pub prefix: String,
    /// The origin.
    pub at: OriginUrl,
}

/// Why a text is not an upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpstream {
    /// No prefix.
    #[error("write PREFIX=KIND+URL, such as hf.co=oci+https://registry.example/hf")]
    Form,
    /// A prefix that no name can have.
    #[error("the prefix is no host or host and path of names: {0}")]
    Prefix(#[source] InvalidReference),
    /// No origin.
    #[error(transparent)]
    Origin(#[from] InvalidOrigin),
}

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let (prefix, at) = text.split_once('=').ok_or(InvalidUpstream::Form)?;
        let prefix = prefix.trim().trim_end_matches('/').to_ascii_lowercase();
        // A name below it must be one; a first part without dot, colon and `localhost` is no host.
        let below = ModelName::parse(&format!("{prefix}/x")).map_err(InvalidUpstream::Prefix)?;
        let reference = below.reference();
        let whole = format!("{}/{}", reference.registry(), reference.repository());
        if whole != format!("{prefix}/x") {
            return Err(InvalidUpstream::Form);
        }
        Ok(Self {
            prefix,
            at: at.trim().parse()?,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.prefix, self.at)
    }
}

/// Which origins the names of models lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// What is configured; the longest prefix wins, and of equal ones the order decides.
    pub upstreams: Vec<Upstream>,
    /// What is put before a bare name, in the order in which it is tried.
    pub bare_names: Vec<String>,
    /// Hugging Face itself, or what stands in for it: `HF_ENDPOINT`.
    pub hugging_face: OriginUrl,
    /// The token for Hugging Face, which goes to that one host.
    pub hugging_face_token: Credentials,
    /// The Ollama library.
    pub ollama_library: OriginUrl,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            bare_names: vec![DEFAULT_BARE_NAMES.to_owned()],
            hugging_face: OriginUrl::well_known(OriginKind::HuggingFace, HUGGING_FACE),
            hugging_face_token: Credentials::Anonymous,
            ollama_library: OriginUrl::well_known(OriginKind::Ollama, OLLAMA_LIBRARY),
        }
    }
}

impl Sources {
    /// The full names that a name may stand for, in the order in which they are tried.
    ///
    /// # Errors
    /// [`InvalidReference`] when a prefix for bare names cannot stand before this one.
    pub fn candidates(&self, name: &ModelName) -> Result<Vec<ModelName>, InvalidReference> {
        if !name.is_bare() {
            return Ok(vec![name.clone()]);
        }
        let prefixes = self.bare_names.iter();
        prefixes.map(|prefix| name.below(prefix)).collect()
    }

    /// The origins that have a model, in the order in which they are asked.
    ///
    /// # Errors
    /// Those of [`Origin::open`].
    pub async fn open(
        &self,
        transport: &Transport,
        name: &ModelName,
        options: &RegistryOptions,
    ) -> Result<Vec<Origin>, Error> {
        let places = self.places(name);
        if places.is_empty() {
            // A registry is where its name says, and speaks what it answers with.
            let registry = RegistryClient::open(transport, name.reference(), options).await?;
            return Ok(vec![Origin::from_registry(registry)?]);
        }
        let mut origins = Vec::new();
        for (at, repository) in places {
            let mut options = options.clone();
            if at.kind == OriginKind::HuggingFace
                && at.url.origin() == self.hugging_face.url.origin()
                && self.hugging_face_token != Credentials::Anonymous
            {
                options.credentials = self.hugging_face_token.clone();
            }
            origins.push(Origin::open(transport, &at, &repository, &options).await?);
        }
        Ok(origins)
    }

    /// Origins and the names of the repository there; none when the name itself says where it is.
    fn places(&self, name: &ModelName) -> Vec<(OriginUrl, String)> {
        let host = name.reference().registry();
        let whole = format!("{host}/{}", name.reference().repository());
        let rest_of = |prefix: &str| {
            let rest = whole.strip_prefix(prefix)?.strip_prefix('/')?;
            // The same length in both spellings.
            let spelling = name.spelling();
            spelling.get(spelling.len().checked_sub(rest.len())?..)
        };
        let longest = self
            .upstreams
            .iter()
            .filter(|upstream| rest_of(&upstream.prefix).is_some())
            .map(|upstream| upstream.prefix.len())
            .max();
        if let Some(longest) = longest {
            return self
                .upstreams
                .iter()
                .filter(|upstream| upstream.prefix.len() == longest)
                .filter_map(|upstream| {
                    let rest = rest_of(&upstream.prefix)?;
                    Some((upstream.at.clone(), rest.to_owned()))
                })
                .collect();
        }
        let known = if HUGGING_FACE_HOSTS.contains(&host) {
            &self.hugging_face
        } else if OLLAMA_HOSTS.contains(&host) {
            &self.ollama_library
        } else {
            return Vec::new();
        };
        vec![(known.clone(), name.spelling().to_owned())]
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::client::sources::{Sources, Upstream};
    use crate::name::ModelName;

    fn places(sources: &Sources, name: &str) -> Vec<String> {
        let name = ModelName::parse(name).unwrap();
        let places = sources.places(&name).into_iter();
        places.map(|(at, name)| format!("{at} {name}")).collect()
    }

    #[test]
    fn well_known_hosts_lead_to_their_kind_and_others_to_themselves() {
        let sources = Sources::default();
        assert_eq!(
            places(&sources, "hf.co/User/Repo:Q4_0"),
            ["hf+https://huggingface.co User/Repo"]
        );
        assert_eq!(
            places(&sources, "ollama.com/library/x"),
            ["ollama+https://registry.ollama.ai library/x"]
        );
        assert!(places(&sources, "ghcr.io/a/b").is_empty());
        let bare = ModelName::parse("llama3.2").unwrap();
        let names = sources.candidates(&bare).unwrap();
        assert_eq!(names[0].as_str(), "registry.ollama.ai/library/llama3.2");
    }

    #[test]
    fn the_longest_prefix_wins_and_of_equal_ones_the_first_comes_first() {
        let upstream = |text: &str| text.parse::<Upstream>().unwrap();
        let sources = Sources {
            upstreams: vec![
                upstream("hf.co=oci+http://a:5000/hf"),
                upstream("hf.co/Team=hf+https://b"),
                upstream("HF.co/=hf+https://c"),
                upstream("localhost:5000/x=oci+https://d"),
            ],
            ..Sources::default()
        };
        assert_eq!(
            places(&sources, "hf.co/User/Repo"),
            ["oci+http://a:5000/hf User/Repo", "hf+https://c User/Repo"]
        );
        assert_eq!(places(&sources, "hf.co/team/Repo"), ["hf+https://b Repo"]);
        assert_eq!(places(&sources, "localhost:5000/x/y"), ["oci+https://d y"]);
        assert!(places(&sources, "localhost:5000/xx/y").is_empty());
        for text in [
            "hf.co",
            "=oci+https://x",
            "hub=oci+https://x",
            "hf.co=ftp://x",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }
}
