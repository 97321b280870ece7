//! Making changes: whatever their number, a handful of statements in one transaction.

use std::collections::BTreeMap;

use artifact::Digest;
use sqlx::{Connection, PgConnection};

use crate::error::Error;
use crate::store::index::Change;
use crate::store::key::RecordKey;
use crate::store::postgres::PostgresIndex;
use crate::store::records::{Entry, LeaseRecord, ManifestRecord};

/// Columns of keys that are made of two names.
#[derive(Default)]
struct Pairs {
    first: Vec<String>,
    second: Vec<String>,
}

impl Pairs {
    fn push(&mut self, first: impl Into<String>, second: impl Into<String>) {
        self.first.push(first.into());
        self.second.push(second.into());
    }
}

/// The changes, sorted by table and turned into columns.
#[derive(Default)]
struct Rows {
    /// Every record that changes.
    paths: Vec<String>,
    gone: Gone,
    repositories: (Pairs,),
    tags: Put,
    manifests: PutManifests,
    blobs: Put,
    leases: PutLeases,
}

/// What is removed, put records among them: what followed from the old one may not follow from
/// the new one.
#[derive(Default)]
struct Gone {
    repositories: Vec<String>,
    tags: Pairs,
    manifests: Pairs,
    blobs: Pairs,
    leases: Vec<String>,
}

#[derive(Default)]
struct Put {
    keys: Pairs,
    digests: Vec<String>,
    records: Vec<String>,
}

#[derive(Default)]
struct PutManifests {
    keys: Pairs,
    subjects: Vec<Option<String>>,
    records: Vec<String>,
    content: Named,
}

/// What manifests name.
#[derive(Default)]
struct Named {
    keys: Pairs,
    contents: Vec<String>,
    are_manifests: Vec<bool>,
}

#[derive(Default)]
struct PutLeases {
    rows: Pairs,
    content: Pairs,
    expires: Vec<i64>,
}

impl PostgresIndex {
    /// Makes all changes or none, when nobody holds a lock.
    pub(super) async fn apply_unlocked(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.retry(|| async {
            let mut connection = self.queries.acquire().await?;
            self.apply_on(&mut connection, changes.clone()).await
        })
        .await
    }

    /// Makes all changes or none, on this connection.
    pub(super) async fn apply_on(
        &self,
        connection: &mut PgConnection,
        changes: Vec<Change>,
    ) -> Result<(), sqlx::Error> {
        let rows = Rows::of(changes).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        let readings = self.continuity.readings();
        let mut transaction = connection.begin().await?;
        rows.write(&mut transaction).await?;
        // Last, because the row is shared: it is locked only until the commit that follows.
        sqlx::query!(
            "INSERT INTO hayloft.changes (slot, count) VALUES (pg_backend_pid() % 64, 1)
             ON CONFLICT (slot) DO UPDATE SET count = changes.count + 1"
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.continuity.count_change(readings);
        Ok(())
    }
}

impl Rows {
    fn of(changes: Vec<Change>) -> Result<Self, serde_json::Error> {
        // The last change of a record counts.
        let mut last = BTreeMap::new();
        for change in changes {
            match change {
                Change::Put(entry) => last.insert(entry.key(), Some(*entry)),
                Change::Remove(key) => last.insert(key, None),
            };
        }
        let mut rows = Self::default();
        for (key, entry) in last {
            rows.paths.push(key.path());
            match entry {
                None => rows.remove(&key),
                Some(entry) => rows.put(&entry)?,
            }
        }
        Ok(rows)
    }

    fn remove(&mut self, key: &RecordKey) {
        let name = key.repository().as_str();
        match key {
            RecordKey::Repository(_) => self.gone.repositories.push(name.to_owned()),
            RecordKey::Manifest(_, digest) => self.gone.manifests.push(name, digest.to_string()),
            RecordKey::Tag(_, tag) => self.gone.tags.push(name, tag.as_str()),
            RecordKey::Blob(_, digest) => self.gone.blobs.push(name, digest.to_string()),
            RecordKey::Lease(..) => self.gone.leases.push(key.path()),
        }
    }

    fn put(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let json = text_of(entry)?;
        match entry {
            Entry::Repository(repository, _) => self.repositories.0.push(repository.as_str(), json),
            Entry::Tag(repository, tag, record) => {
                self.tags.keys.push(repository.as_str(), tag.as_str());
                self.tags.digests.push(record.digest.to_string());
                self.tags.records.push(json);
            }
            Entry::Blob(repository, digest, _) => {
                self.blobs
                    .keys
                    .push(repository.as_str(), digest.to_string());
                self.blobs.records.push(json);
            }
            Entry::Manifest(repository, digest, record) => {
                self.remove(&entry.key());
                self.manifests
                    .put(repository.as_str(), digest, record, json);
            }
            Entry::Lease(_, _, record) => {
                self.remove(&entry.key());
                self.leases.put(&entry.key().path(), record, json);
            }
        }
        Ok(())
    }

    async fn write(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "DELETE FROM hayloft.intents WHERE path = ANY($1)",
            &self.paths
        )
        .execute(&mut *on)
        .await?;
        self.gone.write(on).await?;
        let repositories = &self.repositories.0;
        if !repositories.first.is_empty() {
            sqlx::query!(
                "INSERT INTO hayloft.repositories (name, record)
                 SELECT * FROM unnest($1::text[], $2::text[])
                 ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                &repositories.first,
                &repositories.second
            )
            .execute(&mut *on)
            .await?;
        }
        if !self.tags.records.is_empty() {
            sqlx::query!(
                "INSERT INTO hayloft.tags (repository, tag, digest, record)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                 ON CONFLICT (repository, tag)
                 DO UPDATE SET digest = excluded.digest, record = excluded.record",
                &self.tags.keys.first,
                &self.tags.keys.second,
                &self.tags.digests,
                &self.tags.records
            )
            .execute(&mut *on)
            .await?;
        }
        if !self.blobs.records.is_empty() {
            sqlx::query!(
                "INSERT INTO hayloft.blobs (repository, digest, record)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
                 ON CONFLICT (repository, digest) DO UPDATE SET record = excluded.record",
                &self.blobs.keys.first,
                &self.blobs.keys.second,
                &self.blobs.records
            )
            .execute(&mut *on)
            .await?;
        }
        self.manifests.write(on).await?;
        self.leases.write(on).await
    }
}

impl Gone {
    async fn write(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        if !self.repositories.is_empty() {
            sqlx::query!(
                "DELETE FROM hayloft.repositories WHERE name = ANY($1)",
                &self.repositories
            )
            .execute(&mut *on)
            .await?;
        }
        if !self.tags.first.is_empty() {
            sqlx::query!(
                "DELETE FROM hayloft.tags WHERE (repository, tag) IN
                 (SELECT * FROM unnest($1::text[], $2::text[]))",
                &self.tags.first,
                &self.tags.second
            )
            .execute(&mut *on)
            .await?;
        }
        if !self.blobs.first.is_empty() {
            sqlx::query!(
                "DELETE FROM hayloft.blobs WHERE (repository, digest) IN
                 (SELECT * FROM unnest($1::text[], $2::text[]))",
                &self.blobs.first,
                &self.blobs.second
            )
            .execute(&mut *on)
            .await?;
        }
        if !self.manifests.first.is_empty() {
            sqlx::query!(
                "WITH gone AS (SELECT * FROM unnest($1::text[], $2::text[]) AS g (repository, digest)),
                 content AS (DELETE FROM hayloft.manifest_content
                             WHERE (repository, digest) IN (SELECT * FROM gone))
                 DELETE FROM hayloft.manifests WHERE (repository, digest) IN (SELECT * FROM gone)",
                &self.manifests.first,
                &self.manifests.second
            )
            .execute(&mut *on)
            .await?;
        }
        if !self.leases.is_empty() {
            sqlx::query!(
                "WITH content AS (DELETE FROM hayloft.lease_content WHERE path = ANY($1))
                 DELETE FROM hayloft.leases WHERE path = ANY($1)",
                &self.leases
            )
            .execute(&mut *on)
            .await?;
        }
        Ok(())
    }
}

impl PutManifests {
    fn put(&mut self, repository: &str, digest: &Digest, record: &ManifestRecord, json: String) {
        let own = digest.to_string();
        // A manifest may name one digest several times, and as both.
        let mut named: BTreeMap<&Digest, bool> =
            record.blobs.iter().map(|blob| (blob, false)).collect();
        named.extend(record.manifests.iter().map(|manifest| (manifest, true)));
        for (content, is_manifest) in named {
            self.content.keys.push(repository, own.clone());
            self.content.contents.push(content.to_string());
            self.content.are_manifests.push(is_manifest);
        }
        self.keys.push(repository, own);
        let subject = record.subject.as_ref().map(Digest::to_string);
        self.subjects.push(subject);
        self.records.push(json);
    }

    async fn write(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO hayloft.manifests (repository, digest, subject, record)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])",
            &self.keys.first,
            &self.keys.second,
            &self.subjects as &[Option<String>],
            &self.records
        )
        .execute(&mut *on)
        .await?;
        sqlx::query!(
            "INSERT INTO hayloft.manifest_content (repository, digest, content, is_manifest)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[])",
            &self.content.keys.first,
            &self.content.keys.second,
            &self.content.contents,
            &self.content.are_manifests
        )
        .execute(&mut *on)
        .await?;
        Ok(())
    }
}

impl PutLeases {
    fn put(&mut self, path: &str, record: &LeaseRecord, json: String) {
        let mut digests: Vec<&Digest> = record.digests.iter().collect();
        digests.sort_unstable();
        digests.dedup();
        for digest in digests {
            self.content.push(digest.to_string(), path);
            self.expires.push(record.expires.as_microsecond());
        }
        self.rows.push(path, json);
    }

    async fn write(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.rows.first.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO hayloft.leases (path, record) SELECT * FROM unnest($1::text[], $2::text[])",
            &self.rows.first,
            &self.rows.second
        )
        .execute(&mut *on)
        .await?;
        sqlx::query!(
            "INSERT INTO hayloft.lease_content (digest, path, expires)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])",
            &self.content.first,
            &self.content.second,
            &self.expires
        )
        .execute(&mut *on)
        .await?;
        Ok(())
    }
}

fn text_of(entry: &Entry) -> Result<String, serde_json::Error> {
    let json = entry.to_json()?;
    // JSON is UTF-8 by definition, and here by its writer.
    Ok(String::from_utf8_lossy(&json).into_owned())
}
