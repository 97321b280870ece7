//! Query parameters, decoded once.

use artifact::{Digest, ErrorCode, Tag};
use http::Uri;

use crate::error::Error;
use crate::http::error::Failure;
use crate::store::Page;

/// Tags that one manifest push may set; the specification asks for at least 10.
const MAX_TAGS: usize = 100;
/// Longest listing page, whatever the client asks for.
const MAX_PAGE: usize = 10_000;
/// Listing page when the client asks for no length.
const DEFAULT_PAGE: usize = 1_000;

/// The query parameters of a request, in order.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query part of `uri`.
    pub(crate) fn parse(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        Self(url::form_urlencoded::parse(query).into_owned().collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter that must be a digest if it is there.
    pub(crate) fn digest(&self, name: &str) -> Result<Option<Digest>, Failure> {
        let digest = self.get(name).map(Digest::parse).transpose();
        Ok(digest.map_err(Error::Digest)?)
    }

    /// Every `tag` parameter.
    pub(crate) fn tags(&self) -> Result<Vec<Tag>, Failure> {
        if self.all("tag").count() > MAX_TAGS {
            let message = format!("at most {MAX_TAGS} tags can be set by one push");
            return Err(Failure::Malformed(ErrorCode::ManifestInvalid, message));
        }
        let tags = self.all("tag").map(Tag::parse).collect::<Result<_, _>>();
        Ok(tags.map_err(Error::Name)?)
    }

    /// `n` and `last` of a listing.
    pub(crate) fn page(&self) -> Result<Page, Failure> {
        let limit = match self.get("n") {
            None => DEFAULT_PAGE,
            Some(text) => text
                .parse::<u32>()
                .ok()
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(|| {
                    let message = "n must be a whole number, 0 to 4294967295".to_owned();
                    Failure::Malformed(ErrorCode::Unsupported, message)
                })?
                .min(MAX_PAGE),
        };
        let after = self.get("last").filter(|last| !last.is_empty());
        if after.is_some_and(|last| last.len() > 512 || last.contains('\0')) {
            let message = "last must be a name from an earlier page".to_owned();
            return Err(Failure::Malformed(ErrorCode::Unsupported, message));
        }
        Ok(Page {
            after: after.map(str::to_owned),
            limit,
        })
    }
}
