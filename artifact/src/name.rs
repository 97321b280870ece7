//! ModelName: a model as people call it, and the reference that it has on a node.
//!
//! References are in lower case; the names of Hugging Face and of Ollama need not be. A name keeps
//! the spelling for those who are asked for it, and folds it for the cache.

use std::fmt;
use std::str::FromStr;

use crate::reference::{InvalidReference, Reference};

/// A model as it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    text: String,
    reference: Reference,
    spelling: String,
}

impl ModelName {
    /// Reads a reference whose repository may be in upper case.
    ///
    /// # Errors
    /// [`InvalidReference`] says which part breaks which rule.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let end = name_end(text);
        let (name, rest) = text.split_at(end);
        let reference = Reference::parse(&format!("{}{rest}", name.to_ascii_lowercase()))?;
        let folded = reference.repository().as_str();
        // The repository is the end of the name, whatever stands before it; `library/`, which
        // Docker's rules put before a bare name, is not in the text.
        let spelling = match name.len().checked_sub(folded.len()) {
            Some(start) => name.get(start..).unwrap_or(folded).to_owned(),
            None => folded.to_owned(),
        };
        Ok(Self {
            text: text.to_owned(),
            spelling,
            reference,
        })
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The reference that it has on a node, by Docker's rules.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The name as it was given, in lower case but for its tag.
    #[must_use]
    pub fn folded(&self) -> String {
        let (name, rest) = self.text.split_at(name_end(&self.text));
        format!("{}{rest}", name.to_ascii_lowercase())
    }

    /// The repository as it was spelled.
    #[must_use]
    pub fn spelling(&self) -> &str {
        &self.spelling
    }

    /// Whether it is a bare name, `llama3.2` or `llama3.2:3b`: one that says nothing of where the
    /// model is.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        !self.text.contains(['/', '@'])
    }

    /// A bare name as one below a prefix, such as `registry.ollama.ai/library`.
    ///
    /// # Errors
    /// [`InvalidReference`] when the prefix cannot stand before a name.
    pub fn below(&self, prefix: &str) -> Result<Self, InvalidReference> {
        Self::parse(&format!("{}/{}", prefix.trim_end_matches('/'), self.text))
    }
}

impl From<Reference> for ModelName {
    fn from(reference: Reference) -> Self {
        Self {
            text: reference.to_string(),
            spelling: reference.repository().as_str().to_owned(),
            reference,
        }
    }
}

impl FromStr for ModelName {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        Self::parse(text)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where host and repository end: at the digest or at the tag, which keep their case.
fn name_end(text: &str) -> usize {
    let digest = text.find('@').unwrap_or(text.len());
    let path = text[..digest].rfind('/').map_or(0, |slash| slash + 1);
    text[path..digest]
        .find(':')
        .map_or(digest, |colon| path + colon)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use proptest::prelude::proptest;

    use crate::name::ModelName;

    #[test]
    fn upper_case_is_folded_for_the_reference_and_kept_as_the_spelling() {
        for (text, reference, spelling) in [
            (
                "hf.co/Bartowski/Llama-GGUF:Q4_K_M",
                "hf.co/bartowski/llama-gguf:Q4_K_M",
                "Bartowski/Llama-GGUF",
            ),
            ("HF.co/User/Repo", "hf.co/user/repo:latest", "User/Repo"),
            ("localhost:5000/A/b:C", "localhost:5000/a/b:C", "A/b"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1", "a/b"),
            (
                "Llama3.2",
                "docker.io/library/llama3.2:latest",
                "library/llama3.2",
            ),
        ] {
            let name = ModelName::parse(text).unwrap();
            assert_eq!(name.reference().to_string(), reference);
            assert_eq!(name.spelling(), spelling, "{text}");
        }
        assert!(ModelName::parse("hf.co/User/../x").is_err());
        assert!(ModelName::parse("").is_err());
    }

    #[test]
    fn a_bare_name_goes_below_a_prefix() {
        let name = ModelName::parse("llama3.2:3b").unwrap();
        assert!(name.is_bare());
        let below = name.below("registry.ollama.ai/library").unwrap();
        assert_eq!(
            below.reference().to_string(),
            "registry.ollama.ai/library/llama3.2:3b"
        );
        assert!(!ModelName::parse("ai/llama").unwrap().is_bare());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,200}") {
            let _ = ModelName::parse(&text);
        }
    }
}
