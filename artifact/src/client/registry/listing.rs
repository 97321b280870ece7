//! What a repository has: sizes of blobs, tags, referrers.

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, LINK};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::client::answer::{header_number, json, read_bounded};
use crate::client::error::Error;
use crate::client::registry::{Operation, RegistryClient};
use crate::digest::Digest;
use crate::manifest::MAX_MANIFEST_BYTES;
use crate::media_type::OCI_INDEX;

/// Tags asked for at a time.
const PAGE: usize = 1000;
/// Most bytes of one page of tags.
const MAX_PAGE_BYTES: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Tags {
    /// Null where a registry writes an empty list so.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// The size of a blob in bytes, if the repository has it and the registry says.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self
            .send(Operation::Pull, || {
                self.http
                    .head(url.clone())
                    .header(ACCEPT_ENCODING, "identity")
                    .timeout(self.transport.timeouts().stall)
            })
            .await?;
        match answer.status() {
            StatusCode::OK => Ok(header_number(answer.headers(), "content-length")),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.fault(answer).await),
        }
    }

    /// The first `at_most` tags of the repository.
    ///
    /// # Errors
    /// [`Error::Absent`] when there is no such repository, and those of any request.
    pub async fn tags(&self, at_most: usize) -> Result<Vec<String>, Error> {
        let mut tags = Vec::new();
        let mut next = Some(self.url(&format!("tags/list?n={}", at_most.min(PAGE)))?);
        while let Some(url) = next.take().filter(|_| tags.len() < at_most) {
            let answer = self
                .send(Operation::Pull, || {
                    self.http
                        .get(url.clone())
                        .timeout(self.transport.timeouts().stall)
                })
                .await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Err(self.absent()),
                _ => return Err(self.fault(answer).await),
            }
            let following = next_page(&answer, &url);
            let page: Tags = json(answer, MAX_PAGE_BYTES).await?;
            let page = page.tags.unwrap_or_default();
            // A page that brings nothing new would never end the loop.
            next = following.filter(|following| !page.is_empty() && *following != url);
            tags.extend(page);
        }
        tags.truncate(at_most);
        Ok(tags)
    }

    /// The index of the manifests that refer to `subject`; nothing where the registry does not
    /// offer the question.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn referrers(&self, subject: &Digest) -> Result<Option<Bytes>, Error> {
        self.referrers_at(&format!("referrers/{subject}")).await
    }

    /// As [`RegistryClient::referrers`], asking only for those of one artifact type. A registry
    /// may pay no heed to that.
    pub(crate) async fn referrers_of_type(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Option<Bytes>, Error> {
        let path = format!("referrers/{subject}?artifactType={artifact_type}");
        self.referrers_at(&path).await
    }

    async fn referrers_at(&self, path: &str) -> Result<Option<Bytes>, Error> {
        let url = self.url(path)?;
        let answer = self
            .send(Operation::Pull, || {
                self.http
                    .get(url.clone())
                    .header(ACCEPT, OCI_INDEX)
                    .timeout(self.transport.timeouts().stall)
            })
            .await?;
        match answer.status() {
            StatusCode::OK => {
                let body = read_bounded(answer, MAX_MANIFEST_BYTES).await?;
                Ok(Some(Bytes::from(body)))
            }
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(None),
            _ => Err(self.fault(answer).await),
        }
    }

    fn absent(&self) -> Error {
        Error::Absent {
            what: format!("repository {}", self.reference.repository()),
            place: self.reference.registry().to_owned(),
            hint: "check the name",
        }
    }
}

/// Where the next page of a listing is, by the answer's `Link`: only at the place asked already.
pub(crate) fn next_page(answer: &Response, asked: &Url) -> Option<Url> {
    let links = answer.headers().get_all(LINK);
    let text = links
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
    let target = text.split_once('<')?.1.split_once('>')?.0;
    let url = asked.join(target).ok()?;
    (url.origin() == asked.origin()).then_some(url)
}
