//! Hugging Face as an origin: a tag is a quantisation, as llama.cpp's `-hf` names it, or a
//! revision; what it means at a commit is written down as a ModelPack manifest.
//!
//! ```text
//! tag ─► revision (commit) ─► tree (files) ─► choice ─► digests ─► manifest
//! ```
//! The manifest says which repository and commit it is of and each layer says its path, so that a
//! download can go on from the manifest alone, long after.

mod api;
mod documents;
mod pack;
mod quantisation;
mod tree;

use std::collections::HashSet;

use url::Url;

use crate::client::error::Error;
use crate::client::fetch::{BlobSource, WebFile};
use crate::client::origin::{Answer, Found, Known, OriginUrl, Selector};
use crate::client::registry::RegistryOptions;
use crate::client::retry::RetryPolicy;
use crate::client::transport::Transport;
use crate::digest::Digest;
use crate::hub::{REVISION, SOURCE};
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES, Manifest};
use crate::media_type::{OCI_MANIFEST, modelpack};
pub(crate) use api::Api;
use pack::About;
use quantisation::{NoChoice, choose, reads_like_one};
use tree::{File, Revision};

/// The branch that a repository is looked at without a revision.
const MAIN: &str = "main";

/// One repository of Hugging Face.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    api: Api,
    at: OriginUrl,
    name: String,
}

impl Hub {
    pub(super) fn open(
        transport: &Transport,
        at: &OriginUrl,
        repository: &str,
        options: &RegistryOptions,
    ) -> Result<Self, Error> {
        if !tree::is_name(repository) {
            return Err(Error::Url {
                url: format!("{at}/{}", repository.chars().take(300).collect::<String>()),
                reason: "that is not the name of a repository at Hugging Face: write OWNER/NAME",
            });
        }
        Ok(Self {
            api: Api::new(transport, at, &options.credentials)?,
            at: at.clone(),
            name: repository.to_owned(),
        })
    }

    pub(super) async fn manifest(
        &self,
        selector: &Selector,
        known: Option<&Known>,
    ) -> Result<Answer, Error> {
        let Selector::Tag(tag) = selector else {
            return Err(Error::Unsupported {
                what: format!("a manifest by its digest, {selector}"),
                place: self.at.to_string(),
                reason: "Hugging Face knows quantisations and revisions",
            });
        };
        let known = known.and_then(|known| known.etag.as_deref());
        if tag == "latest" || reads_like_one(tag) {
            let at = self.revision(MAIN).await?;
            return self.quantised(&at, tag, known, true).await;
        }
        match self.revision(tag).await {
            Ok(at) if known == Some(at.sha.as_str()) => Ok(unchanged(at)),
            Ok(at) => self.snapshot(&at).await,
            // A repository may name its quantisations as it likes.
            Err(error) if error.is_absent() => {
                let at = self.revision(MAIN).await?;
                self.quantised(&at, tag, known, false).await
            }
            Err(error) => Err(error),
        }
    }

    async fn revision(&self, revision: &str) -> Result<Revision, Error> {
        tree::revision(&self.api, &self.name, revision).await
    }

    /// The model that a quantisation means; when there is none and it was not asked yet, the
    /// revision of that name.
    async fn quantised(
        &self,
        at: &Revision,
        tag: &str,
        known: Option<&str>,
        try_revision: bool,
    ) -> Result<Answer, Error> {
        if known == Some(at.sha.as_str()) {
            return Ok(unchanged(at.clone()));
        }
        let files = tree::files(&self.api, at).await?;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let choice = match choose(&paths, tag) {
            Ok(choice) => choice,
            Err(NoChoice::MissingPart { path, parts }) => {
                return Err(Error::Absent {
                    what: format!("one of the {parts} parts of {path} in {}", at.id),
                    place: self.api.place(),
                    hint: "the model is not complete there",
                });
            }
            Err(NoChoice::NoMatch) if try_revision && tag != "latest" => {
                return match self.revision(tag).await {
                    Ok(at) => self.snapshot(&at).await,
                    Err(error) if error.is_absent() => Err(self.no_match(at, tag, &paths)),
                    Err(error) => Err(error),
                };
            }
            Err(NoChoice::NoMatch) => return Err(self.no_match(at, tag, &paths)),
        };
        let chosen = choice.weights.iter().chain(&choice.projector);
        let chosen: Vec<File> = chosen.map(|at| files[*at].clone()).collect();
        let name = chosen.first().map(|file| file.path.as_str());
        let quantisation = quantisation::names(name)
            .first()
            .map(|name| (*name).to_owned());
        self.pack(at, chosen, quantisation.as_deref()).await
    }

    /// All files at a commit.
    async fn snapshot(&self, at: &Revision) -> Result<Answer, Error> {
        let files = tree::files(&self.api, at).await?;
        self.pack(at, files, None).await
    }

    async fn pack(
        &self,
        at: &Revision,
        files: Vec<File>,
        quantisation: Option<&str>,
    ) -> Result<Answer, Error> {
        let source = self.api.url(at.id.split('/'))?.to_string();
        let (layers, mut documents) = documents::hashed(&self.api, at, files).await?;
        let about = About {
            source: &source,
            name: &at.id,
            commit: &at.sha,
            quantisation,
        };
        let (config, raw) = pack::pack(about, &layers);
        if raw.len() > MAX_MANIFEST_BYTES {
            return Err(Error::Unsupported {
                what: at.id.clone(),
                place: self.api.place(),
                reason: "it has more files than a manifest can name",
            });
        }
        documents.push((Digest::sha256(&config), config));
        let manifest = Manifest::parse(raw, Some(OCI_MANIFEST)).map_err(|error| Error::Answer {
            url: source.clone(),
            reason: error.to_string(),
        })?;
        Ok(Answer::Found(Box::new(Found {
            digest: manifest.digest(),
            manifest,
            etag: Some(at.sha.clone()),
            documents,
        })))
    }

    fn no_match(&self, at: &Revision, tag: &str, paths: &[&str]) -> Error {
        let names = quantisation::names(paths.iter().copied());
        let has = if names.is_empty() {
            "no GGUF file".to_owned()
        } else {
            names.join(", ")
        };
        Error::Absent {
            what: format!("quantisation {tag} of {} (it has {has})", at.id),
            place: self.api.place(),
            hint: "check the tag",
        }
    }

    /// Where a file of a manifest is. Nothing is asked.
    pub(super) fn blob(
        &self,
        layer: &Descriptor,
        manifest: &Manifest,
        retry: RetryPolicy,
    ) -> Result<BlobSource, Error> {
        let fault = |reason: &str| Error::Answer {
            url: self.at.to_string(),
            reason: format!("{reason}: {}", layer.digest),
        };
        let says = |key| manifest.annotations().get(key).map(String::as_str);
        let source = says(SOURCE)
            .and_then(|source| Url::parse(source).ok())
            .ok_or_else(|| fault("the manifest does not say which repository it is of"))?;
        let commit = says(REVISION)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .ok_or_else(|| fault("the manifest does not say which commit it is of"))?;
        let path = manifest
            .layers()
            .iter()
            .filter(|entry| entry.digest == layer.digest)
            .find_map(|entry| entry.annotations.get(modelpack::FILEPATH))
            .ok_or_else(|| fault("the manifest does not say which file this is"))?;
        let name = self.name_in(&source);
        let whole = name.split('/').chain(["resolve", commit]);
        let url = self.api.url(whole.chain(path.split('/')))?;
        let file = WebFile::new(self.api.clone(), url, name);
        Ok(BlobSource::on_the_web(
            file,
            layer.digest,
            layer.size,
            retry,
        ))
    }

    /// The repository's name in its canonical spelling, as an earlier manifest knew it: another
    /// mirror of Hugging Face may have given that one.
    fn name_in(&self, source: &Url) -> String {
        let parts = self.name.split('/').count();
        let mut tail: Vec<&str> = source.path().rsplit('/').take(parts).collect();
        tail.reverse();
        let name = tail.join("/");
        if tree::is_name(&name) && name.eq_ignore_ascii_case(&self.name) {
            name
        } else {
            self.name.clone()
        }
    }

    /// Quantisations, then branches.
    pub(super) async fn tags(&self, at_most: usize) -> Result<Vec<String>, Error> {
        let at = self.revision(MAIN).await?;
        let files = tree::files(&self.api, &at).await?;
        let mut tags: Vec<String> =
            quantisation::names(files.iter().map(|file| file.path.as_str()))
                .into_iter()
                .map(str::to_owned)
                .collect();
        let branches = tree::branches(&self.api, &at.id).await?;
        tags.extend(branches.into_iter().filter(|name| !name.contains('/')));
        let mut seen = HashSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        tags.truncate(at_most);
        Ok(tags)
    }
}

fn unchanged(at: Revision) -> Answer {
    Answer::Unchanged { etag: Some(at.sha) }
}
