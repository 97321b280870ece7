//! The manifest that offers chunk maps: the same maps always give the same bytes.

use std::collections::BTreeMap;

use artifact::chunk_map::{CHUNK_MAP, CHUNK_MAPS, MAP_OF};
use artifact::dialect::{Derived, Document};
use artifact::manifest::{Descriptor, Manifest};
use artifact::media_type::{OCI_EMPTY, OCI_MANIFEST};
use artifact::{Digest, media_type};
use bytes::Bytes;
use serde::Serialize;

/// OCI image-spec `manifest.md`, in the order in which its fields are written here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u8,
    media_type: &'static str,
    artifact_type: &'static str,
    config: Named,
    layers: Vec<Named>,
    subject: Named,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl From<&Descriptor> for Named {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            annotations: descriptor.annotations.clone(),
        }
    }
}

/// The referrer of `subject`, which is known by `digest`, with the encoded maps of these blobs.
///
/// # Errors
/// Only when the writer of JSON fails, which these types give no cause for.
pub(super) fn offering(
    subject: &Manifest,
    digest: Digest,
    maps: Vec<(Digest, Bytes)>,
) -> Result<Derived, serde_json::Error> {
    let mut documents = Vec::new();
    let mut layers = Vec::new();
    for (blob, map) in maps {
        let document = document(map.into(), CHUNK_MAP);
        let of = BTreeMap::from([(MAP_OF.to_owned(), blob.to_string())]);
        layers.push(descriptor(&document, of));
        documents.push(document);
    }
    let config = document(b"{}".to_vec(), OCI_EMPTY);
    let written = Written {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        artifact_type: CHUNK_MAPS,
        config: (&descriptor(&config, BTreeMap::new())).into(),
        layers: layers.iter().map(Named::from).collect(),
        subject: Named {
            media_type: subject.media_type().to_owned(),
            digest,
            size: subject.raw().len() as u64,
            annotations: BTreeMap::new(),
        },
    };
    documents.push(config);
    Ok(Derived {
        documents,
        layers,
        manifest: document(serde_json::to_vec(&written)?, media_type::OCI_MANIFEST),
    })
}

fn document(bytes: Vec<u8>, media_type: &'static str) -> Document {
    Document {
        digest: Digest::sha256(&bytes),
        bytes,
        media_type,
    }
}

fn descriptor(document: &Document, annotations: BTreeMap<String, String>) -> Descriptor {
    Descriptor {
        media_type: document.media_type.to_owned(),
        digest: document.digest,
        size: document.bytes.len() as u64,
        artifact_type: None,
        annotations,
        is_foreign: false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::manifest::Manifest;
    use artifact::{Digest, chunk_map};
    use serde_json::json;

    use crate::service::chunk_maps::manifest::offering;

    #[test]
    fn the_same_maps_give_the_same_manifest_as_documented() {
        let config = json!({ "mediaType": "a/b", "digest": Digest::sha256(b"{}"), "size": 2 });
        let subject = json!({ "schemaVersion": 2, "config": config, "layers": [] });
        let subject = Manifest::parse(subject.to_string().into(), None).unwrap();
        let blob = Digest::sha256(b"blob");
        let maps = || vec![(blob, "map".into())];
        let derived = offering(&subject, subject.digest(), maps()).unwrap();
        let expected = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"artifactType\":\"application/vnd.hayloft.chunk-maps.v1\",\
             \"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"{}\",\"size\":2}},\
             \"layers\":[{{\"mediaType\":\"application/vnd.hayloft.chunk-map.v1\",\"digest\":\"{}\",\"size\":3,\
             \"annotations\":{{\"org.hayloft.chunk-map.blob\":\"{blob}\"}}}}],\
             \"subject\":{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{}\",\"size\":{}}}}}",
            Digest::sha256(b"{}"),
            Digest::sha256(b"map"),
            subject.digest(),
            subject.raw().len(),
        );
        assert_eq!(String::from_utf8_lossy(&derived.manifest.bytes), expected);
        let read = Manifest::parse(derived.manifest.bytes.clone(), None).unwrap();
        assert_eq!(read.artifact_type(), Some(chunk_map::CHUNK_MAPS));
        let again = offering(&subject, subject.digest(), maps()).unwrap();
        assert_eq!(derived, again);
    }
}
