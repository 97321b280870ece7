//! Going through a listing of the index to its end, page by page.

use artifact::{Digest, Repository, Tag};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::error::Error;
use crate::store::key::RecordKey;
use crate::store::records::LeaseRecord;
use crate::store::{Answer, Mark, Page};

/// Something that listings of the index are made of.
pub(crate) trait Listed: Send {
    /// The name by which the listing is paged.
    fn listed_as(&self) -> String;
}

impl Listed for Repository {
    fn listed_as(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Listed for Tag {
    fn listed_as(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Listed for Digest {
    fn listed_as(&self) -> String {
        self.to_string()
    }
}

impl Listed for Mark {
    fn listed_as(&self) -> String {
        self.name()
    }
}

impl<N: Listed, R: Send> Listed for (N, R) {
    fn listed_as(&self) -> String {
        self.0.listed_as()
    }
}

impl Listed for (Repository, Uuid, LeaseRecord) {
    fn listed_as(&self) -> String {
        RecordKey::Lease(self.0.clone(), self.1).path()
    }
}

/// The pages of a listing from `first` on, none of them empty. Each is asked for when it is taken,
/// so what changes behind the last one that was taken is seen.
pub(crate) fn pages<'a, T: Listed + 'a>(
    first: Page,
    list: impl Fn(Page) -> Answer<'a, Vec<T>> + Send + 'a,
) -> BoxStream<'a, Result<Vec<T>, Error>> {
    stream::try_unfold((first, list), |(mut page, list)| async move {
        let listed = list(page.clone()).await?;
        let Some(last) = listed.last() else {
            return Ok(None);
        };
        page.after = Some(last.listed_as());
        Ok(Some((listed, (page, list))))
    })
    .boxed()
}

/// What a listing holds from `first` on, one by one; it is asked for page by page.
pub(crate) fn each<'a, T: Listed + 'a>(
    first: Page,
    list: impl Fn(Page) -> Answer<'a, Vec<T>> + Send + 'a,
) -> BoxStream<'a, Result<T, Error>> {
    pages(first, list)
        .map_ok(|page| stream::iter(page.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}
