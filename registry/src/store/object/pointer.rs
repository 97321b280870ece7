//! Pointers: the objects that make blobs exist.

use artifact::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::data_key;
use crate::store::object::objects::{Objects, Put};

/// Content up to this size that comes as an upload lies in its pointer: a config costs one small
/// object then, not two and the notes about them.
pub(super) const INLINE_BYTES: u64 = 64 * 1024;

/// What lies under `blobs/<algorithm>/<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct Pointer {
    /// The content's size in bytes.
    pub(super) size: u64,
    #[serde(flatten)]
    pub(super) place: Place,
}

/// Where the content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// Under `data/<uuid>`.
    Data(Uuid),
    /// Here, in base64. All manifests are kept this way: reading one takes one request.
    Content(#[serde(with = "base64_text")] Bytes),
}

impl Pointer {
    /// To the data of an upload.
    pub(super) fn to_data(id: Uuid, size: u64) -> Self {
        Self {
            size,
            place: Place::Data(id),
        }
    }

    /// With the content itself.
    pub(super) fn with_content(content: Bytes) -> Self {
        Self {
            size: content.len() as u64,
            place: Place::Content(content),
        }
    }
}

/// The key of a blob's pointer.
pub(super) fn key(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The digest that a key in `blobs/` stands for.
pub(super) fn digest_of(key: &str) -> Option<Digest> {
    let (algorithm, hex) = key.strip_prefix("blobs/")?.split_once('/')?;
    Digest::from_hex(algorithm.parse().ok()?, hex).ok()
}

/// The pointer of a blob and its version, or `None`.
pub(super) async fn read(
    objects: &Objects,
    digest: &Digest,
) -> Result<Option<(Pointer, UpdateVersion)>, Error> {
    let key = key(digest);
    let Some((json, version)) = objects.get(&key).await? else {
        return Ok(None);
    };
    let pointer =
        serde_json::from_slice(&json).map_err(|source| Error::DamagedObject { key, source })?;
    Ok(Some((pointer, version)))
}

/// Whether the content that the pointer names is there, in the size that it says.
pub(super) async fn is_whole(objects: &Objects, pointer: &Pointer) -> Result<bool, Error> {
    match &pointer.place {
        Place::Content(content) => Ok(content.len() as u64 == pointer.size),
        Place::Data(id) => Ok(objects.size(&data_key(*id)).await? == Some(pointer.size)),
    }
}

/// What came of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Committed {
    /// The blob is what the given pointer says.
    New,
    /// Equal content was there already; what the given pointer names is not needed.
    AlreadyThere,
}

/// Makes a blob exist, unless it does. A pointer whose content has gone or that cannot be read is
/// replaced, which heals the blob.
pub(super) async fn commit(
    objects: &Objects,
    digest: &Digest,
    pointer: &Pointer,
) -> Result<Committed, Error> {
    let key = key(digest);
    let json = serde_json::to_vec(pointer).map_err(|source| Error::DamagedObject {
        key: key.clone(),
        source,
    })?;
    let json = Bytes::from(json);
    for _ in 0..ATTEMPTS {
        if let Put::Done(_) = objects.create(&key, json.clone()).await? {
            return Ok(Committed::New);
        }
        // Removed in between: once more.
        let Some((found, version)) = objects.get(&key).await? else {
            continue;
        };
        if let Ok(found) = serde_json::from_slice::<Pointer>(&found) {
            if found == *pointer {
                return Ok(Committed::New);
            }
            if is_whole(objects, &found).await? {
                return Ok(Committed::AlreadyThere);
            }
        }
        tracing::warn!(%digest, "a blob's content had gone from the bucket: replaced by a new push");
        if let Put::Done(_) = objects.swap(&key, version, json.clone()).await? {
            return Ok(Committed::New);
        }
    }
    let source = "it keeps changing".into();
    let store = "bucket";
    let source = object_store::Error::Generic { store, source };
    Err(Error::object("write", key, source))
}

/// How often a commit starts over when somebody else changes the pointer meanwhile.
const ATTEMPTS: usize = 5;

mod base64_text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{BASE64, Bytes, Engine};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        BASE64
            .decode(text)
            .map(Bytes::from)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::Digest;
    use bytes::Bytes;
    use uuid::Uuid;

    use crate::store::object::pointer::{Pointer, digest_of, key};

    #[test]
    fn pointers_read_back_and_look_as_documented() {
        let data = Pointer::to_data(Uuid::nil(), 7);
        let json = serde_json::to_string(&data).unwrap();
        assert_eq!(
            json,
            r#"{"size":7,"data":"00000000-0000-0000-0000-000000000000"}"#
        );
        assert_eq!(serde_json::from_str::<Pointer>(&json).unwrap(), data);
        let inline = Pointer::with_content(Bytes::from_static(b"hay"));
        let json = serde_json::to_string(&inline).unwrap();
        assert_eq!(json, r#"{"size":3,"content":"aGF5"}"#);
        assert_eq!(serde_json::from_str::<Pointer>(&json).unwrap(), inline);
    }

    #[test]
    fn keys_and_digests_belong_together() {
        let digest = Digest::sha256(b"x");
        assert_eq!(digest_of(&key(&digest)), Some(digest));
        assert_eq!(digest_of("blobs/sha256/../x"), None);
        assert_eq!(digest_of("data/sha256/00"), None);
    }
}
