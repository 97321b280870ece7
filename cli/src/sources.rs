//! What the command line and the environment say of where models come from, put together.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use artifact::client::sources::HUGGING_FACE;
use artifact::client::{Credentials, OriginKind, OriginUrl, Sources, TransportOptions};
use url::Url;

use crate::args::sources::{ReachArgs, SourcesArgs};

/// Largest file with a token that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

impl SourcesArgs {
    /// Where names lead.
    pub(crate) fn to_sources(&self) -> Result<Sources> {
        Ok(Sources {
            upstreams: self.upstreams.clone(),
            bare_names: self.rest.bare_names.clone(),
            hugging_face: hugging_face()?,
            hugging_face_token: hugging_face_token()?,
            ..Sources::default()
        })
    }
}

impl ReachArgs {
    /// How places are reached.
    pub(crate) fn to_transport(&self) -> TransportOptions {
        TransportOptions {
            ca_files: self.ca_files.clone(),
            ..TransportOptions::default()
        }
    }
}

/// Hugging Face, or what `HF_ENDPOINT` says.
pub(crate) fn hugging_face() -> Result<OriginUrl> {
    let text = variable("HF_ENDPOINT").unwrap_or_else(|| HUGGING_FACE.to_owned());
    // The text may hold a password: only the reason is told.
    let url = Url::parse(&text).context("HF_ENDPOINT is not a URL")?;
    OriginUrl::new(OriginKind::HuggingFace, url).context("HF_ENDPOINT cannot be used")
}

/// The token as Hugging Face's own tools find it: `HF_TOKEN`, else the file that `HF_TOKEN_PATH`
/// names, else the one that `hf auth login` writes.
pub(crate) fn hugging_face_token() -> Result<Credentials> {
    if let Some(token) = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
        return token_of(&token).context("HF_TOKEN");
    }
    if let Some(path) = variable("HF_TOKEN_PATH") {
        let path = PathBuf::from(path);
        let token = read(&path)?
            .with_context(|| format!("HF_TOKEN_PATH={}: there is no such file", path.display()))?;
        return token_of(&token).context("HF_TOKEN_PATH");
    }
    let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
        Some(cache.join("huggingface"))
    });
    match home
        .map(|home| read(&home.join("token")))
        .transpose()?
        .flatten()
    {
        Some(token) if !token.trim().is_empty() => {
            token_of(&token).context("the stored token of Hugging Face")
        }
        _ => Ok(Credentials::Anonymous),
    }
}

/// A token, which must be one word: anything else would not pass in a header.
fn token_of(text: &str) -> Result<Credentials> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("it does not hold a token");
    }
    Ok(Credentials::Token(token.to_owned()))
}

fn read(path: &Path) -> Result<Option<String>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", path.display()));
        }
    };
    let mut text = String::new();
    file.take(MAX_TOKEN_BYTES)
        .read_to_string(&mut text)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Some(text))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
