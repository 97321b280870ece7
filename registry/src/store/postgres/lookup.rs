//! Lookups and listings. Every listing begins behind a name and follows an index.

use artifact::{Digest, Repository, Tag};
use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Error;
use crate::store::index::Page;
use crate::store::key::RecordKey;
use crate::store::mark::Mark;
use crate::store::postgres::PostgresIndex;
use crate::store::postgres::stored::{parse_all, parse_one, parse_record};
use crate::store::records::{BlobRecord, LeaseRecord, ManifestRecord, TagRecord};

/// The name that a page begins behind, and its length. No name is empty.
fn bounds(page: Page) -> (String, i64) {
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    (page.after.unwrap_or_default(), limit)
}

impl PostgresIndex {
    pub(super) async fn find_unsettled(
        &self,
        repository: Option<&Repository>,
    ) -> Result<Vec<RecordKey>, Error> {
        let paths = match repository {
            Some(repository) => {
                self.retry(|| {
                    sqlx::query_scalar!(
                        "SELECT path FROM hayloft.intents WHERE repository = $1 ORDER BY path",
                        repository.as_str()
                    )
                    .fetch_all(&self.queries)
                })
                .await?
            }
            None => {
                self.retry(|| {
                    sqlx::query_scalar!("SELECT path FROM hayloft.intents ORDER BY path")
                        .fetch_all(&self.queries)
                })
                .await?
            }
        };
        let keys = paths
            .iter()
            .map(|path| parse_one(path, RecordKey::parse(path)));
        keys.collect()
    }

    pub(super) async fn find_repository(&self, repository: &Repository) -> Result<bool, Error> {
        self.retry(|| {
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM hayloft.repositories WHERE name = $1) AS "exists!""#,
                repository.as_str()
            )
            .fetch_one(&self.queries)
        })
        .await
    }

    pub(super) async fn find_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, Error> {
        let found = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT record FROM hayloft.manifests WHERE repository = $1 AND digest = $2",
                    repository.as_str(),
                    digest.to_string()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        found.as_deref().map(parse_record).transpose()
    }

    pub(super) async fn find_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, Error> {
        let found = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT record FROM hayloft.tags WHERE repository = $1 AND tag = $2",
                    repository.as_str(),
                    tag.as_str()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        found.as_deref().map(parse_record).transpose()
    }

    pub(super) async fn find_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<BlobRecord>, Error> {
        let found = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT record FROM hayloft.blobs WHERE repository = $1 AND digest = $2",
                    repository.as_str(),
                    digest.to_string()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        found.as_deref().map(parse_record).transpose()
    }

    pub(super) async fn list_repositories(&self, page: Page) -> Result<Vec<Repository>, Error> {
        let (after, limit) = bounds(page);
        let names = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT name FROM hayloft.repositories WHERE name > $1 ORDER BY name LIMIT $2",
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        parse_all(names, Repository::parse)
    }

    pub(super) async fn list_tags(
        &self,
        repository: &Repository,
        page: Page,
    ) -> Result<Vec<Tag>, Error> {
        let (after, limit) = bounds(page);
        let names = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT tag FROM hayloft.tags WHERE repository = $1 AND tag > $2
                     ORDER BY tag LIMIT $3",
                    repository.as_str(),
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        parse_all(names, Tag::parse)
    }

    pub(super) async fn list_tag_records(
        &self,
        repository: &Repository,
        page: Page,
    ) -> Result<Vec<(Tag, TagRecord)>, Error> {
        let (after, limit) = bounds(page);
        let rows = self
            .retry(|| {
                sqlx::query!(
                    "SELECT tag, record FROM hayloft.tags WHERE repository = $1 AND tag > $2
                     ORDER BY tag LIMIT $3",
                    repository.as_str(),
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        let rows = rows.iter().map(|row| {
            let tag = Tag::parse(&row.tag).map_err(Error::index)?;
            Ok((tag, parse_record(&row.record)?))
        });
        rows.collect()
    }

    pub(super) async fn list_tags_of(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<Tag>, Error> {
        let names = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT tag FROM hayloft.tags WHERE repository = $1 AND digest = $2
                     ORDER BY tag",
                    repository.as_str(),
                    digest.to_string()
                )
                .fetch_all(&self.queries)
            })
            .await?;
        parse_all(names, Tag::parse)
    }

    pub(super) async fn list_manifests(
        &self,
        repository: &Repository,
        page: Page,
    ) -> Result<Vec<(Digest, ManifestRecord)>, Error> {
        let (after, limit) = bounds(page);
        let rows = self
            .retry(|| {
                sqlx::query!(
                    "SELECT digest, record FROM hayloft.manifests
                     WHERE repository = $1 AND digest > $2 ORDER BY digest LIMIT $3",
                    repository.as_str(),
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        by_digest(rows.iter().map(|row| (&row.digest, &row.record)))
    }

    pub(super) async fn list_blobs(
        &self,
        repository: &Repository,
        page: Page,
    ) -> Result<Vec<(Digest, BlobRecord)>, Error> {
        let (after, limit) = bounds(page);
        let rows = self
            .retry(|| {
                sqlx::query!(
                    "SELECT digest, record FROM hayloft.blobs
                     WHERE repository = $1 AND digest > $2 ORDER BY digest LIMIT $3",
                    repository.as_str(),
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        by_digest(rows.iter().map(|row| (&row.digest, &row.record)))
    }

    pub(super) async fn list_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        page: Page,
    ) -> Result<Vec<(Digest, ManifestRecord)>, Error> {
        let (after, limit) = bounds(page);
        let rows = self
            .retry(|| {
                sqlx::query!(
                    "SELECT digest, record FROM hayloft.manifests
                     WHERE repository = $1 AND subject = $2 AND digest > $3
                     ORDER BY digest LIMIT $4",
                    repository.as_str(),
                    subject.to_string(),
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        by_digest(rows.iter().map(|row| (&row.digest, &row.record)))
    }

    pub(super) async fn find_holder(&self, digest: &Digest) -> Result<Option<Repository>, Error> {
        let name = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT repository FROM hayloft.blobs WHERE digest = $1
                     ORDER BY repository LIMIT 1",
                    digest.to_string()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        Ok(parse_all(name.into_iter().collect(), Repository::parse)?.pop())
    }

    pub(super) async fn find_any_holder(&self, digest: &Digest) -> Result<bool, Error> {
        self.retry(|| {
            sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM hayloft.blobs WHERE digest = $1)
                       OR EXISTS (SELECT FROM hayloft.manifests WHERE digest = $1) AS "held!""#,
                digest.to_string()
            )
            .fetch_one(&self.queries)
        })
        .await
    }

    pub(super) async fn find_manifest_naming(
        &self,
        repository: &Repository,
        content: &Digest,
    ) -> Result<Option<Digest>, Error> {
        let name = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT digest FROM hayloft.manifest_content
                     WHERE repository = $1 AND content = $2 ORDER BY digest LIMIT 1",
                    repository.as_str(),
                    content.to_string()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        Ok(parse_all(name.into_iter().collect(), Digest::parse)?.pop())
    }

    pub(super) async fn find_index_naming(
        &self,
        repository: &Repository,
        manifest: &Digest,
    ) -> Result<Option<Digest>, Error> {
        let name = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT digest FROM hayloft.manifest_content
                     WHERE repository = $1 AND content = $2 AND is_manifest
                     ORDER BY digest LIMIT 1",
                    repository.as_str(),
                    manifest.to_string()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        Ok(parse_all(name.into_iter().collect(), Digest::parse)?.pop())
    }

    pub(super) async fn list_leases(
        &self,
        page: Page,
    ) -> Result<Vec<(Repository, Uuid, LeaseRecord)>, Error> {
        let (after, limit) = bounds(page);
        let rows = self
            .retry(|| {
                sqlx::query!(
                    "SELECT path, record FROM hayloft.leases WHERE path > $1
                     ORDER BY path LIMIT $2",
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        let rows = rows.iter().map(|row| {
            let key = RecordKey::parse(&row.path).and_then(|key| match key {
                RecordKey::Lease(repository, id) => Some((repository, id)),
                _ => None,
            });
            let (repository, id) = parse_one(&row.path, key)?;
            Ok((repository, id, parse_record(&row.record)?))
        });
        rows.collect()
    }

    pub(super) async fn find_last_lease(
        &self,
        digest: &Digest,
    ) -> Result<Option<Timestamp>, Error> {
        let expires = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT max(expires) FROM hayloft.lease_content WHERE digest = $1",
                    digest.to_string()
                )
                .fetch_one(&self.queries)
            })
            .await?;
        let expires = expires.map(Timestamp::from_microsecond);
        expires.transpose().map_err(Error::index)
    }

    pub(super) async fn find_mark(&self, mark: &Mark) -> Result<Option<Timestamp>, Error> {
        let since = self
            .retry(|| {
                sqlx::query_scalar!(
                    "SELECT since FROM hayloft.marks WHERE name = $1",
                    mark.name()
                )
                .fetch_optional(&self.queries)
            })
            .await?;
        let since = since.map(|since| since.parse());
        since.transpose().map_err(Error::index)
    }

    pub(super) async fn list_marks(&self, page: Page) -> Result<Vec<(Mark, Timestamp)>, Error> {
        let (after, limit) = bounds(page);
        let rows = self
            .retry(|| {
                sqlx::query!(
                    "SELECT name, since FROM hayloft.marks WHERE name > $1 ORDER BY name LIMIT $2",
                    after,
                    limit
                )
                .fetch_all(&self.queries)
            })
            .await?;
        let rows = rows.iter().map(|row| {
            let mark = parse_one(&row.name, Mark::parse(&row.name))?;
            Ok((mark, row.since.parse().map_err(Error::index)?))
        });
        rows.collect()
    }

    pub(super) async fn put_mark(&self, mark: &Mark, since: Timestamp) -> Result<(), Error> {
        self.retry(|| {
            sqlx::query!(
                "INSERT INTO hayloft.marks (name, since) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET since = excluded.since",
                mark.name(),
                since.to_string()
            )
            .execute(&self.queries)
        })
        .await
        .map(drop)
    }

    pub(super) async fn remove_mark(&self, mark: &Mark) -> Result<(), Error> {
        // Looked for first: what is not marked can be touched on a read-only database too.
        if self.find_mark(mark).await?.is_none() {
            return Ok(());
        }
        self.retry(|| {
            sqlx::query!("DELETE FROM hayloft.marks WHERE name = $1", mark.name())
                .execute(&self.queries)
        })
        .await
        .map(drop)
    }

    pub(super) async fn clock(&self) -> Result<Timestamp, Error> {
        let micros = self
            .retry(|| {
                sqlx::query_scalar!(
                    r#"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "now!""#
                )
                .fetch_one(&self.queries)
            })
            .await?;
        Timestamp::from_microsecond(micros).map_err(Error::index)
    }

    pub(super) async fn put_note(&self, name: &str, value: &str) -> Result<(), Error> {
        self.retry(|| {
            sqlx::query!(
                "INSERT INTO hayloft.notes (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                name,
                value
            )
            .execute(&self.queries)
        })
        .await
        .map(drop)
    }

    pub(super) async fn find_note(&self, name: &str) -> Result<Option<String>, Error> {
        self.retry(|| {
            sqlx::query_scalar!("SELECT value FROM hayloft.notes WHERE name = $1", name)
                .fetch_optional(&self.queries)
        })
        .await
    }
}

fn by_digest<'a, R: serde::de::DeserializeOwned>(
    rows: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<(Digest, R)>, Error> {
    rows.map(|(digest, json)| {
        let digest = Digest::parse(digest).map_err(Error::index)?;
        Ok((digest, parse_record(json)?))
    })
    .collect()
}
