//! Rows back into records and names.

use std::collections::HashMap;

use artifact::{Digest, Repository, Tag};

use crate::error::Error;
use crate::store::key::RecordKey;
use crate::store::postgres::PostgresIndex;
use crate::store::records::Entry;

/// Names of one page, parsed again: only this program writes them, so a failure is damage.
pub(super) fn parse_all<T, E>(
    names: Vec<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let parsed = names.iter().map(|name| parse(name).map_err(Error::index));
    parsed.collect()
}

/// A name that only this program writes.
pub(super) fn parse_one<T>(name: &str, parsed: Option<T>) -> Result<T, Error> {
    parsed.ok_or_else(|| {
        Error::index(std::io::Error::other(format!(
            "the database holds an unreadable name: {name:?}"
        )))
    })
}

/// A record as it was written.
pub(super) fn parse_record<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(Error::index)
}

impl PostgresIndex {
    /// The keys of those `entries` that are not held as they are, in their order.
    pub(super) async fn find_differing(
        &self,
        entries: Vec<Entry>,
    ) -> Result<Vec<RecordKey>, Error> {
        let stored = self.find_stored(&entries).await?;
        let keys = entries.iter().map(|entry| (entry.key(), entry));
        let differing = keys.filter(|(key, entry)| {
            let json = stored.get(key);
            // Compared as records: the same record may be written in two ways.
            !json.is_some_and(|json| {
                Entry::from_json(key.clone(), json.as_bytes()).is_ok_and(|held| held == **entry)
            })
        });
        Ok(differing.map(|(key, _)| key).collect())
    }

    async fn find_stored(&self, entries: &[Entry]) -> Result<HashMap<RecordKey, String>, Error> {
        let mut stored = HashMap::new();
        let mut wanted: [(Vec<String>, Vec<String>); 3] = Default::default();
        let [tags, manifests, blobs] = &mut wanted;
        let (mut repositories, mut leases) = (Vec::new(), Vec::new());
        for entry in entries {
            let key = entry.key();
            let name = key.repository().as_str().to_owned();
            let (column, own) = match entry {
                Entry::Repository(..) => {
                    repositories.push(name);
                    continue;
                }
                Entry::Lease(..) => {
                    leases.push(key.path());
                    continue;
                }
                Entry::Tag(_, tag, _) => (&mut *tags, tag.as_str().to_owned()),
                Entry::Manifest(_, digest, _) => (&mut *manifests, digest.to_string()),
                Entry::Blob(_, digest, _) => (&mut *blobs, digest.to_string()),
            };
            column.0.push(name);
            column.1.push(own);
        }
        self.find_repositories_and_leases(&mut stored, &repositories, &leases)
            .await?;
        let [tags, manifests, blobs] = wanted;
        self.find_tags(&mut stored, tags).await?;
        self.find_manifests(&mut stored, manifests).await?;
        self.find_blobs(&mut stored, blobs).await?;
        Ok(stored)
    }

    async fn find_repositories_and_leases(
        &self,
        stored: &mut HashMap<RecordKey, String>,
        repositories: &[String],
        leases: &[String],
    ) -> Result<(), Error> {
        if !repositories.is_empty() {
            let found = self
                .retry(|| {
                    sqlx::query!(
                        "SELECT name, record FROM hayloft.repositories WHERE name = ANY($1)",
                        repositories
                    )
                    .fetch_all(&self.queries)
                })
                .await?;
            for row in found {
                let name = Repository::parse(&row.name).map_err(Error::index)?;
                stored.insert(RecordKey::Repository(name), row.record);
            }
        }
        if !leases.is_empty() {
            let found = self
                .retry(|| {
                    sqlx::query!(
                        "SELECT path, record FROM hayloft.leases WHERE path = ANY($1)",
                        leases
                    )
                    .fetch_all(&self.queries)
                })
                .await?;
            for row in found {
                let key = parse_one(&row.path, RecordKey::parse(&row.path))?;
                stored.insert(key, row.record);
            }
        }
        Ok(())
    }

    async fn find_tags(
        &self,
        stored: &mut HashMap<RecordKey, String>,
        (names, tags): (Vec<String>, Vec<String>),
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let found = self
            .retry(|| {
                sqlx::query!(
                    "SELECT repository, tag, record FROM hayloft.tags
                     WHERE (repository, tag) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                    &names,
                    &tags
                )
                .fetch_all(&self.queries)
            })
            .await?;
        for row in found {
            let name = Repository::parse(&row.repository).map_err(Error::index)?;
            let tag = Tag::parse(&row.tag).map_err(Error::index)?;
            stored.insert(RecordKey::Tag(name, tag), row.record);
        }
        Ok(())
    }

    async fn find_manifests(
        &self,
        stored: &mut HashMap<RecordKey, String>,
        (names, digests): (Vec<String>, Vec<String>),
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let found = self
            .retry(|| {
                sqlx::query!(
                    "SELECT repository, digest, record FROM hayloft.manifests
                     WHERE (repository, digest) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                    &names,
                    &digests
                )
                .fetch_all(&self.queries)
            })
            .await?;
        for row in found {
            let (name, digest) = parse_content(&row.repository, &row.digest)?;
            stored.insert(RecordKey::Manifest(name, digest), row.record);
        }
        Ok(())
    }

    async fn find_blobs(
        &self,
        stored: &mut HashMap<RecordKey, String>,
        (names, digests): (Vec<String>, Vec<String>),
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let found = self
            .retry(|| {
                sqlx::query!(
                    "SELECT repository, digest, record FROM hayloft.blobs
                     WHERE (repository, digest) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                    &names,
                    &digests
                )
                .fetch_all(&self.queries)
            })
            .await?;
        for row in found {
            let (name, digest) = parse_content(&row.repository, &row.digest)?;
            stored.insert(RecordKey::Blob(name, digest), row.record);
        }
        Ok(())
    }
}

fn parse_content(repository: &str, digest: &str) -> Result<(Repository, Digest), Error> {
    let repository = Repository::parse(repository).map_err(Error::index)?;
    let digest = Digest::parse(digest).map_err(Error::index)?;
    Ok((repository, digest))
}
