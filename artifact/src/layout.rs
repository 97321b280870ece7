//! Paths of the node's cache, computed from digests and references: the contract between the node
//! agent, which writes them, and everything on the node that reads them.
//!
//! ```text
//! blobs/sha256/<hex>            complete, verified, read-only
//! ingest/<hex>.{part,map}       a download in progress
//! maps/sha256/<hex>             the chunk map of a complete blob, where it is known
//! views/plain/<host>/<repository>/<tag>/{model.gguf,manifest.json,…}   links into blobs/
//! views/ollama/{blobs,manifests}                                       an OLLAMA_MODELS folder
//! views/huggingface/models--<namespace>--<name>/{refs,snapshots,blobs} an HF_HUB_CACHE folder
//! index/                        can be rebuilt from the files
//! agent.sock                    the agent's Unix socket
//! ```

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::reference::Reference;

/// File name of the weights in the plain view.
pub const MODEL_FILE: &str = "model.gguf";
/// File name of the manifest in the plain view; its link target names the digest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Prefix of names that are being written and not yet visible to readers.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The cache below one root folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLayout {
    root: PathBuf,
}

impl CacheLayout {
    /// The layout below `root`. Nothing is created.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a complete blob lies.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(Self::blob_below_root(digest))
    }

    /// The same, relative to the root.
    #[must_use]
    pub fn blob_below_root(digest: &Digest) -> PathBuf {
        Path::new("blobs")
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// The folder of complete blobs of one algorithm.
    #[must_use]
    pub fn blobs(&self, algorithm: crate::digest::Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    /// The chunk map of a complete blob: can be lost, and counts for nothing unless it is right.
    #[must_use]
    pub fn chunk_map(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("maps")
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// The folder of downloads in progress.
    #[must_use]
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// The sparse file of a download in progress.
    #[must_use]
    pub fn ingest_part(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}.part", digest.hex()))
    }

    /// The map of finished chunks of a download in progress.
    #[must_use]
    pub fn ingest_map(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}.map", digest.hex()))
    }

    /// The plain view's root: one folder per host.
    #[must_use]
    pub fn plain_view(&self) -> PathBuf {
        self.root.join("views").join("plain")
    }

    /// The plain view's folder of one model.
    #[must_use]
    pub fn plain_view_of(&self, reference: &Reference) -> PathBuf {
        let mut path = self.plain_view().join(reference.registry());
        path.extend(reference.repository().segments());
        path.join(reference.view_name())
    }

    /// The Ollama view: usable as `OLLAMA_MODELS`.
    #[must_use]
    pub fn ollama_view(&self) -> PathBuf {
        self.root.join("views").join("ollama")
    }

    /// The link to a blob in the Ollama view: `sha256-<hex>`.
    #[must_use]
    pub fn ollama_view_blob(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}-{}", digest.algorithm(), digest.hex());
        self.ollama_view().join("blobs").join(name)
    }

    /// The manifest of a model in the Ollama view, or nothing when Ollama cannot express the
    /// name: it knows exactly host, namespace, model and tag.
    #[must_use]
    pub fn ollama_view_manifest(&self, reference: &Reference) -> Option<PathBuf> {
        let segments: Vec<_> = reference.repository().segments().collect();
        let (namespace, model) = match segments[..] {
            [model] => ("library", model),
            [namespace, model] => (namespace, model),
            _ => return None,
        };
        let tag = reference.tag()?;
        Some(
            self.ollama_view()
                .join("manifests")
                .join(reference.registry())
                .join(namespace)
                .join(model)
                .join(tag.as_str()),
        )
    }

    /// The Hugging Face view: usable as `HF_HUB_CACHE`.
    #[must_use]
    pub fn huggingface_view(&self) -> PathBuf {
        self.root.join("views").join("huggingface")
    }

    /// The rebuildable index.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The agent's Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("agent.sock")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use std::path::Path;

    use crate::digest::Digest;
    use crate::layout::CacheLayout;
    use crate::reference::Reference;

    #[test]
    fn paths_are_those_the_design_draws() {
        let layout = CacheLayout::new("/c");
        let digest = Digest::sha256(b"");
        let hex = digest.hex();
        assert_eq!(
            layout.blob(&digest),
            Path::new(&format!("/c/blobs/sha256/{hex}"))
        );
        assert_eq!(
            layout.ingest_map(&digest),
            Path::new(&format!("/c/ingest/{hex}.map"))
        );
        let reference = Reference::parse("h:1/ns/m:t").unwrap();
        assert_eq!(
            layout.plain_view_of(&reference),
            Path::new("/c/views/plain/h:1/ns/m/t")
        );
        assert_eq!(
            layout.ollama_view_manifest(&reference).unwrap(),
            Path::new("/c/views/ollama/manifests/h:1/ns/m/t")
        );
        assert_eq!(
            layout.ollama_view_blob(&digest),
            Path::new(&format!("/c/views/ollama/blobs/sha256-{hex}"))
        );
    }

    #[test]
    fn names_that_ollama_cannot_express_have_no_place_in_its_view() {
        let layout = CacheLayout::new("/c");
        let deep = Reference::parse("h:1/a/b/c:t").unwrap();
        assert!(layout.ollama_view_manifest(&deep).is_none());
    }
}
