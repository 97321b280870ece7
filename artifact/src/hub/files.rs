//! The files of a manifest: each layer under the path that it was packed with, or under a name that
//! follows from what it is.

use std::collections::HashMap;

use crate::dialect::{Role, file_name_of, role_of};
use crate::digest::{Algorithm, Digest};
use crate::hub::MAX_FILES;
use crate::manifest::{Descriptor, Manifest};
use crate::media_type::modelpack;
use crate::reference::{Repository, Tag};

/// Longest path of a file, in bytes.
const MAX_PATH: usize = 1_024;
/// Deepest path.
const MAX_DEPTH: usize = 32;

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// Its path: names joined by `/`, none of them `.` or `..`.
    pub path: String,
    /// The digest of its content, a SHA-256.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is to its model.
    pub role: Role,
    /// The media type of its layer.
    pub media_type: String,
}

impl HubFile {
    /// Whether it lies in this folder or deeper.
    #[must_use]
    pub fn is_below(&self, folder: &str) -> bool {
        let rest = self.path.strip_prefix(folder);
        folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether it is a GGUF file by its name.
    #[must_use]
    pub fn is_gguf(&self) -> bool {
        let end = self.path.len().saturating_sub(5);
        self.path
            .get(end..)
            .is_some_and(|end| end.eq_ignore_ascii_case(".gguf"))
    }

    /// Whether it is a vision projector by its name, as llama.cpp tells them.
    #[must_use]
    pub fn is_projector(&self) -> bool {
        self.is_gguf() && self.path.to_lowercase().contains("mmproj")
    }

    /// Whether it is weights, or a part of them.
    #[must_use]
    pub fn is_weights(&self) -> bool {
        self.is_gguf() && !self.is_projector()
    }

    /// The size of the pointer that git would have in its place.
    #[must_use]
    pub fn pointer_size(&self) -> usize {
        let version = "version https://git-lfs.github.com/spec/v1\n";
        let oid = format!("oid sha256:{}\n", self.digest.hex());
        version.len() + oid.len() + format!("size {}\n", self.size).len()
    }
}

/// A path as it is kept; `None` when a file cannot have it.
#[must_use]
pub fn clean_path(path: &str) -> Option<&str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    let is_plain = !path.contains(|letter: char| letter.is_control() || letter == '\\');
    let is_clean = path.len() <= MAX_PATH
        && is_plain
        && path.split('/').count() <= MAX_DEPTH
        && path.split('/').all(is_name);
    is_clean.then_some(path)
}

/// `path` with something added before its extension.
#[must_use]
pub fn with_suffix(path: &str, suffix: &str) -> String {
    let (folder, name) = match path.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, path),
    };
    let name = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}-{suffix}.{extension}"),
        _ => format!("{name}-{suffix}"),
    };
    folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"))
}

/// What files without a name are called after: the manifest's tag, else the beginning of its
/// digest. Of several tags one that says more than `latest` is taken, the first in byte order.
#[must_use]
pub fn label(tags: &[Tag], digest: &Digest) -> String {
    let says_something = |tag: &&Tag| !matches!(tag.as_str(), "latest" | "main");
    let chosen = tags.iter().find(says_something).or_else(|| tags.first());
    chosen.map_or_else(
        || digest.hex().chars().take(12).collect(),
        |tag| tag.as_str().to_owned(),
    )
}

/// The files of a manifest. Layers that are neither named nor of a known kind, such as those of a
/// container image, are none.
#[must_use]
pub fn of_manifest(manifest: &Manifest, repository: &Repository, label: &str) -> Vec<HubFile> {
    let name = repository.segments().next_back().unwrap_or_default();
    let is_nameless = |layer: &&Descriptor| path_of(layer).is_none();
    let weights = manifest.layers().iter().filter(is_nameless);
    let parts = weights
        .filter(|layer| role_of(layer) == Role::Model)
        .count();
    let mut part = 0;
    let mut files: Vec<HubFile> = Vec::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for layer in manifest.layers().iter().take(MAX_FILES) {
        // Their content is elsewhere, or has no name in Hugging Face's world.
        if layer.is_foreign || layer.digest.algorithm() != Algorithm::Sha256 {
            continue;
        }
        let role = role_of(layer);
        let path = path_of(layer).or_else(|| {
            part += usize::from(role == Role::Model);
            name_of(role, name, label, part, parts)
        });
        let Some(mut path) = path else { continue };
        match at.get(&path).map(|there| files[*there].digest) {
            Some(same) if same == layer.digest => continue,
            Some(_) => path = with_suffix(&path, &layer.digest.hex()[..8]),
            None => {}
        }
        if at.insert(path.clone(), files.len()).is_none() {
            files.push(HubFile {
                path,
                digest: layer.digest,
                size: layer.size,
                role,
                media_type: layer.media_type.clone(),
            });
        }
    }
    files
}

/// The path that a layer was packed with, if it is one that a file can have. An archive is no file
/// of that name, so it keeps the ending that says so.
fn path_of(layer: &Descriptor) -> Option<String> {
    let said = layer.annotations.get(modelpack::FILEPATH);
    let path = said
        .and_then(|path| clean_path(path))
        .or_else(|| file_name_of(layer).and_then(clean_path))?;
    let ending = match layer.media_type.rsplit('.').next().unwrap_or_default() {
        "tar" => ".tar",
        "tar+gzip" => ".tar.gz",
        "tar+zstd" => ".tar.zst",
        _ => "",
    };
    Some(match path.strip_suffix(ending) {
        Some(stem) => format!("{stem}{ending}"),
        None => format!("{path}{ending}"),
    })
}

/// A name for a layer that has none. llama.cpp finds weights by what their names contain: the tag,
/// and `mmproj` for the projector; several weights are the parts of one model.
fn name_of(role: Role, name: &str, label: &str, part: usize, parts: usize) -> Option<String> {
    Some(match role {
        Role::Model if parts > 1 => format!("{name}-{label}-{part:05}-of-{parts:05}.gguf"),
        Role::Model => format!("{name}-{label}.gguf"),
        Role::Projector => format!("mmproj-{name}.gguf"),
        Role::Adapter => format!("{name}-{label}-lora.gguf"),
        Role::Modelfile => "Modelfile".to_owned(),
        Role::Template => "template".to_owned(),
        Role::ChatTemplate => "chat_template.jinja".to_owned(),
        Role::System => "system".to_owned(),
        Role::Params => "params".to_owned(),
        Role::Messages => "messages".to_owned(),
        Role::License => "LICENSE".to_owned(),
        Role::Config | Role::Other => return None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use serde_json::{Value, json};

    use crate::digest::Digest;
    use crate::hub::files::{clean_path, label, of_manifest, with_suffix};
    use crate::manifest::Manifest;
    use crate::reference::{Repository, Tag};

    fn layer(media_type: &str, content: &str, path: Option<&str>) -> Value {
        let mut layer = json!({
            "mediaType": media_type,
            "digest": Digest::sha256(content.as_bytes()),
            "size": content.len(),
        });
        if let Some(path) = path {
            layer["annotations"] = json!({ "org.cncf.model.filepath": path });
        }
        layer
    }

    fn paths(layers: &[Value]) -> Vec<String> {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layer("application/vnd.cncf.model.config.v1+json", "{}", None),
            "layers": layers,
        });
        let manifest = Manifest::parse(manifest.to_string().into_bytes(), None).unwrap();
        let repository = Repository::parse("team/tiny").unwrap();
        let files = of_manifest(&manifest, &repository, "q4");
        files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn paths_are_kept_and_never_lead_out_of_the_repository() {
        let raw = "application/vnd.cncf.model.weight.v1.raw";
        assert_eq!(
            paths(&[
                layer(raw, "a", Some("dir/model.gguf")),
                layer(raw, "b", Some("../../etc/passwd")),
                layer(raw, "c", Some("/root/x.bin")),
                layer("application/vnd.cncf.model.weight.v1.tar", "d", Some("set")),
            ]),
            ["dir/model.gguf", "passwd", "x.bin", "set.tar"]
        );
        for bad in ["", "/a", "a//b", "a/../b", ".", "a/.", "a\\b", "a\nb"] {
            assert_eq!(clean_path(bad), None, "{bad:?}");
        }
        assert_eq!(clean_path(&"a/".repeat(40)), None);
        assert_eq!(clean_path("./a/b"), Some("a/b"));
    }

    #[test]
    fn layers_without_a_name_are_named_after_what_they_are() {
        let ollama = |kind: &str| format!("application/vnd.ollama.image.{kind}");
        assert_eq!(
            paths(&[
                layer(&ollama("model"), "w", None),
                layer(&ollama("projector"), "p", None),
                layer(&ollama("template"), "t", None),
                layer(&ollama("system"), "s", None),
                layer(&ollama("params"), "{}", None),
                layer(&ollama("license"), "one", None),
                layer(&ollama("license"), "one", None),
            ]),
            [
                "tiny-q4.gguf",
                "mmproj-tiny.gguf",
                "template",
                "system",
                "params",
                "LICENSE"
            ]
        );
        let docker = "application/vnd.docker.ai.gguf.v3";
        assert_eq!(
            paths(&[layer(docker, "1", None), layer(docker, "2", None)]),
            ["tiny-q4-00001-of-00002.gguf", "tiny-q4-00002-of-00002.gguf"]
        );
        let image = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert!(paths(&[layer(image, "x", None)]).is_empty());
    }

    #[test]
    fn two_files_never_share_a_path() {
        let raw = "application/vnd.cncf.model.weight.v1.raw";
        let made = paths(&[
            layer(raw, "one", Some("m.gguf")),
            layer(raw, "two", Some("m.gguf")),
            layer(raw, "one", Some("m.gguf")),
        ]);
        let two = Digest::sha256(b"two").hex();
        assert_eq!(made, ["m.gguf".to_owned(), format!("m-{}.gguf", &two[..8])]);
        assert_eq!(with_suffix("a.b/LICENSE", "q4"), "a.b/LICENSE-q4");
        assert_eq!(with_suffix(".gitattributes", "q4"), ".gitattributes-q4");
    }

    #[test]
    fn the_label_is_a_tag_that_says_something() {
        let tags = |names: &[&str]| -> Vec<Tag> {
            names.iter().map(|name| Tag::parse(name).unwrap()).collect()
        };
        let digest = Digest::sha256(b"x");
        assert_eq!(label(&tags(&["latest", "q4"]), &digest), "q4");
        assert_eq!(label(&tags(&["latest"]), &digest), "latest");
        assert_eq!(label(&[], &digest), digest.hex()[..12]);
    }
}
