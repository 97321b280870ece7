//! Content that a manifest carries in its descriptors (`data`, image-spec "Embedded Content").

use artifact::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::Error;

/// A manifest as far as embedded content goes.
#[derive(Deserialize)]
struct Carrier {
    config: Option<Embedded>,
    subject: Option<Embedded>,
    #[serde(default)]
    layers: Vec<Embedded>,
    #[serde(default)]
    manifests: Vec<Embedded>,
}

#[derive(Deserialize)]
struct Embedded {
    digest: String,
    size: u64,
    data: Option<String>,
}

/// Refuses a manifest that carries other content than it names: a client which takes it from there
/// instead of fetching it must get the same bytes.
pub(super) fn check(manifest: &[u8]) -> Result<(), Error> {
    // Rare, and to be found without reading the manifest as JSON once more. A name written with
    // escapes is another spelling that no tool uses, but it must not get through.
    let is_named = |word: &[u8]| manifest.windows(word.len()).any(|window| window == word);
    if !is_named(b"\"data\"") && !is_named(b"\\u00") {
        return Ok(());
    }
    // What is not even this has been refused by whoever parsed the manifest.
    let Ok(carrier) = serde_json::from_slice::<Carrier>(manifest) else {
        return Ok(());
    };
    let single = carrier.config.into_iter().chain(carrier.subject);
    let many = carrier.layers.into_iter().chain(carrier.manifests);
    single.chain(many).try_for_each(|embedded| embedded.check())
}

impl Embedded {
    fn check(&self) -> Result<(), Error> {
        let Some(data) = &self.data else {
            return Ok(());
        };
        let digest = Digest::parse(&self.digest).map_err(Error::Digest)?;
        let content = STANDARD.decode(data).ok();
        let fits = content.is_some_and(|content| {
            content.len() as u64 == self.size && Digest::of(digest.algorithm(), &content) == digest
        });
        if fits {
            Ok(())
        } else {
            Err(Error::EmbeddedContent {
                digest: Box::new(digest),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use artifact::Digest;
    use serde_json::json;

    use crate::service::embedded::check;

    #[test]
    fn embedded_content_is_checked_wherever_it_stands() {
        let descriptor =
            |data: &str| json!({ "digest": Digest::sha256(b"{}"), "size": 2, "data": data });
        for place in ["config", "subject"] {
            let good = json!({ place: descriptor("e30=") }).to_string();
            assert!(check(good.as_bytes()).is_ok(), "{place}");
            let bad = json!({ place: descriptor("e31=") }).to_string();
            assert!(check(bad.as_bytes()).is_err(), "{place}");
            let hidden = bad.replace("\"data\"", "\"d\\u0061ta\"");
            assert!(check(hidden.as_bytes()).is_err(), "{place}");
        }
        for place in ["layers", "manifests"] {
            let bad = json!({ place: [descriptor("e30="), descriptor("")] }).to_string();
            assert!(check(bad.as_bytes()).is_err(), "{place}");
        }
        let mut short = descriptor("e30=");
        short["size"] = 3.into();
        let wrong_size = json!({ "config": short }).to_string();
        assert!(check(wrong_size.as_bytes()).is_err());
        assert!(check(b"{}").is_ok());
    }
}
