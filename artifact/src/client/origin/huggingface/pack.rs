//! The ModelPack manifest of files at a commit: from the same files always the same bytes.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::hub::{REVISION, SOURCE};
use crate::media_type::{OCI_MANIFEST, modelpack};

/// Media type of program code in ModelPack.
const CODE_RAW: &str = "application/vnd.cncf.model.code.v1.raw";

/// A file whose digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// What the manifest is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    /// URL of the repository.
    pub(super) source: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// The commit.
    pub(super) commit: &'a str,
    /// The quantisation, where the manifest is of one.
    pub(super) quantisation: Option<&'a str>,
}

/// The bytes of the config and of the manifest.
pub(super) fn pack(about: About<'_>, layers: &[Layer]) -> (Bytes, Vec<u8>) {
    let mut facts = Map::new();
    if let Some(format) = format_of(layers) {
        facts.insert("format".to_owned(), json!(format));
    }
    if let Some(quantisation) = about.quantisation {
        facts.insert("quantization".to_owned(), json!(quantisation));
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "descriptor": { "name": about.name, "sourceURL": about.source, "revision": about.commit },
        "modelfs": { "type": "layers", "diffIds": diff_ids },
        "config": facts,
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": modelpack::ARTIFACT,
        "config": {
            "mediaType": modelpack::CONFIG,
            "digest": Digest::sha256(config.as_bytes()),
            "size": config.len(),
        },
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
        "annotations": { REVISION: about.commit, SOURCE: about.source },
    });
    (Bytes::from(config), manifest.to_string().into_bytes())
}

fn descriptor(layer: &Layer) -> Value {
    json!({
        "mediaType": media_type_of(&layer.path),
        "digest": layer.digest,
        "size": layer.size,
        "annotations": { modelpack::FILEPATH: layer.path },
    })
}

fn media_type_of(path: &str) -> &'static str {
    let file = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "gguf" | "safetensors" | "bin" | "pt" | "pth" | "onnx" | "msgpack" | "h5" => {
            modelpack::WEIGHT_RAW
        }
        "md" | "pdf" | "png" | "jpg" | "jpeg" | "gif" | "svg" | "webp" => modelpack::DOC_RAW,
        "py" | "sh" | "cpp" | "ipynb" => CODE_RAW,
        _ if file.starts_with("license") || file.starts_with("notice") => modelpack::DOC_RAW,
        _ => modelpack::WEIGHT_CONFIG_RAW,
    }
}

fn format_of(layers: &[Layer]) -> Option<&'static str> {
    let has = |ending: &str| layers.iter().any(|layer| layer.path.ends_with(ending));
    if has(".gguf") {
        Some("gguf")
    } else if has(".safetensors") {
        Some("safetensors")
    } else {
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::client::origin::huggingface::pack::{About, Layer, pack};
    use crate::dialect::{Dialect, Role, role_of};
    use crate::digest::Digest;
    use crate::hub::HubOrigin;
    use crate::manifest::Manifest;

    #[test]
    fn files_become_layers_that_every_reader_of_model_packs_knows() {
        let layer = |path: &str| Layer {
            path: path.to_owned(),
            size: 3,
            digest: Digest::sha256(path.as_bytes()),
        };
        let layers = [
            layer("Q4_K_M/m-Q4_K_M.gguf"),
            layer("mmproj-F16.gguf"),
            layer("LICENSE"),
            layer("config.json"),
        ];
        let about = About {
            source: "https://huggingface.co/user/Model",
            name: "user/Model",
            commit: &"a".repeat(40),
            quantisation: Some("Q4_K_M"),
        };
        let (config, raw) = pack(about, &layers);
        assert_eq!(pack(about, &layers).1, raw);
        let manifest = Manifest::parse(raw, None).unwrap();
        assert_eq!(Dialect::of(&manifest), Dialect::ModelPack);
        assert_eq!(manifest.config().unwrap().digest, Digest::sha256(&config));
        let roles: Vec<_> = manifest.layers().iter().map(role_of).collect();
        let origin = HubOrigin::of(&manifest).unwrap();
        assert_eq!(origin.name, about.name);
        assert_eq!(origin.commit.as_str(), about.commit);
        assert_eq!(
            roles,
            [Role::Model, Role::Projector, Role::License, Role::Other]
        );
    }
}
