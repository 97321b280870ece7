//! One client: it chooses operations by its seed, and remembers what it was promised.
//!
//! Tags, manifests and private blobs belong to one worker, so that their changes come in a known
//! order. Repositories and the blobs that manifests are made of are everybody's: there the
//! workers meet.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;

use crate::api::{Answer, Api};
use crate::content::{Contents, MANIFESTS, Manifest, OCI_MANIFEST, REPOSITORIES, TAGS};
use crate::ledger::{Loss, Promise};
use crate::uploads::OpenUpload;

/// Private blobs per worker and repository.
pub(crate) const PRIVATE_BLOBS: usize = 3;

/// What a worker was promised in one repository.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) repository: &'static str,
    /// For each tag the manifest it points to.
    pub(crate) tags: Vec<Promise<Option<usize>>>,
    /// For each manifest whether it is there.
    pub(crate) manifests: Vec<Promise<bool>>,
    /// For each private blob whether it is there.
    pub(crate) blobs: Vec<Promise<bool>>,
}

impl Shelf {
    fn new(repository: &'static str, worker: usize) -> Self {
        let name = |what: &str, number| format!("{repository}: {what} {number} of worker {worker}");
        let absent = |what: &str, count| {
            let one = |number| Promise::new(name(what, number), false);
            (0..count).map(one).collect()
        };
        Self {
            repository,
            tags: (0..TAGS)
                .map(|number| Promise::new(name("tag", number), None))
                .collect(),
            manifests: absent("manifest", MANIFESTS),
            blobs: absent("private blob", PRIVATE_BLOBS),
        }
    }
}

/// A client and all it knows.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) contents: Arc<Contents>,
    pub(crate) shelves: Vec<Shelf>,
    pub(crate) upload: Option<OpenUpload>,
    pub(crate) losses: Vec<Loss>,
    pub(crate) choices: StdRng,
    /// Whether this round collects what no manifest names.
    pub(crate) is_collected: bool,
}

impl Worker {
    pub(crate) fn new(number: usize, seed: u64, contents: Arc<Contents>) -> Self {
        Self {
            number,
            contents,
            shelves: REPOSITORIES
                .iter()
                .map(|repository| Shelf::new(repository, number))
                .collect(),
            upload: None,
            losses: Vec::new(),
            choices: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            is_collected: false,
        }
    }

    /// Whether the workers of the coming round collect without a grace time. No manifest names a
    /// private blob, so such a round may take it at any time.
    pub(crate) fn prepare(&mut self, is_collected: bool) {
        self.is_collected = is_collected;
        if is_collected {
            for promise in self.shelves.iter_mut().flat_map(|shelf| &mut shelf.blobs) {
                promise.may_become("may be collected from now on", false);
            }
        }
    }

    /// Works until the registry does not answer any more.
    pub(crate) async fn work(mut self, api: Api) -> Self {
        while self.operate(&api).await.is_some() {}
        if !api.round().is_over() {
            // A kill that is a moment away looks the same from here.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            if !api.round().is_over() {
                let number = self.number;
                self.surprise(format!(
                    "worker {number} got no answer from a running registry"
                ));
            }
        }
        self
    }

    /// One operation; `None` when there was no answer.
    async fn operate(&mut self, api: &Api) -> Option<()> {
        let shelf = self.choices.random_range(0..self.shelves.len());
        match self.choices.random_range(0..100) {
            0..40 => self.push(api, shelf).await,
            40..50 => self.delete_tag(api, shelf).await,
            50..57 => self.delete_manifest(api, shelf).await,
            57..63 => self.delete_shared_blob(api, shelf).await,
            63..75 => self.push_private_blob(api, shelf).await,
            75..80 => self.delete_private_blob(api, shelf).await,
            80..85 if self.is_collected => self.collect(api).await,
            _ => self.pull(api, shelf).await,
        }
    }

    /// Pushes a manifest and what it names under a tag: a new tag, or one that moves.
    async fn push(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let number = self.choices.random_range(0..MANIFESTS);
        let tag = self.choices.random_range(0..TAGS);
        let manifest = self.contents.manifest(self.number, number);
        // Another worker's delete, or collection, may take a blob before the manifest names it.
        for _ in 0..3 {
            for blob in &manifest.blobs {
                self.push_shared_blob(api, shelf, *blob).await?;
            }
            if self
                .put_manifest(api, shelf, tag, number, &manifest)
                .await?
            {
                break;
            }
        }
        Some(())
    }

    /// `false` when the registry says that a blob is missing.
    async fn put_manifest(
        &mut self,
        api: &Api,
        shelf: usize,
        tag: usize,
        number: usize,
        manifest: &Manifest,
    ) -> Option<bool> {
        let by_digest = self.choices.random_bool(0.2);
        let name = tag_name(self.number, tag);
        let shelf = &mut self.shelves[shelf];
        let path = if by_digest {
            let digest = manifest.content.digest;
            format!("/v2/{}/manifests/{digest}?tag={name}", shelf.repository)
        } else {
            format!("/v2/{}/manifests/{name}", shelf.repository)
        };
        let request = api
            .request(Method::PUT, &path)
            .header("content-type", OCI_MANIFEST)
            .body(manifest.content.bytes.clone());
        let (there, pointed) = (&mut shelf.manifests[number], &mut shelf.tags[tag]);
        let before = (there.possible().to_vec(), pointed.possible().to_vec());
        there.begin(&format!("PUT {path}"), true);
        pointed.begin(&format!("PUT {path} (manifest {number})"), Some(number));
        let Some(answer) = api.send(request).await else {
            there.unanswered();
            pointed.unanswered();
            return None;
        };
        let told = answer.told();
        match answer.status {
            201 => {
                there.acknowledged(&told, true);
                pointed.acknowledged(&told, Some(number));
                return Some(true);
            }
            404 => {
                there.refused(&told, before.0);
                pointed.refused(&told, before.1);
            }
            _ => self.surprise(format!("PUT {path}: {told}")),
        }
        Some(false)
    }

    async fn delete_tag(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let tag = self.choices.random_range(0..TAGS);
        let name = tag_name(self.number, tag);
        let shelf = &mut self.shelves[shelf];
        let path = format!("/v2/{}/manifests/{name}", shelf.repository);
        let promise = &mut shelf.tags[tag];
        let expected = if promise.certain() == Some(&None) {
            404
        } else {
            202
        };
        promise.begin(&format!("DELETE {path}"), None);
        let Some(answer) = api.delete(&path).await else {
            promise.unanswered();
            return None;
        };
        promise.acknowledged(&answer.told(), None);
        self.expect(&answer, &[expected], &format!("DELETE {path}"));
        Some(())
    }

    /// Deletes a manifest, and with it every tag that points to it.
    async fn delete_manifest(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let number = self.choices.random_range(0..MANIFESTS);
        let manifest = self.contents.manifest(self.number, number);
        let shelf = &mut self.shelves[shelf];
        let path = format!(
            "/v2/{}/manifests/{}",
            shelf.repository, manifest.content.digest
        );
        let operation = format!("DELETE {path}");
        let promise = &mut shelf.manifests[number];
        let expected = if promise.certain() == Some(&false) {
            404
        } else {
            202
        };
        promise.begin(&operation, false);
        let mut tags: Vec<_> = shelf
            .tags
            .iter_mut()
            .filter(|tag| tag.possible().contains(&Some(number)))
            .collect();
        for tag in &mut tags {
            tag.begin(&operation, None);
        }
        let Some(answer) = api.delete(&path).await else {
            promise.unanswered();
            tags.iter_mut().for_each(|tag| tag.unanswered());
            return None;
        };
        let told = answer.told();
        promise.acknowledged(&told, false);
        for tag in tags {
            tag.acknowledged(&told, None);
        }
        self.expect(&answer, &[expected], &operation);
        Some(())
    }

    /// Deletes what others may be about to use: refused while a manifest names it.
    async fn delete_shared_blob(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let number = self.choices.random_range(0..crate::content::SHARED_BLOBS);
        let digest = self.contents.shared(number).digest;
        let path = format!("/v2/{}/blobs/{digest}", self.shelves[shelf].repository);
        let answer = api.delete(&path).await?;
        self.expect(&answer, &[202, 404, 405], &format!("DELETE {path}"));
        Some(())
    }

    async fn collect(&mut self, api: &Api) -> Option<()> {
        let path = "/v2/_hayloft/collect?grace=0&force";
        let answer = api.send(api.request(Method::POST, path)).await?;
        let told = String::from_utf8_lossy(&answer.body);
        let is_busy = answer.status == 409 && told.contains("already running");
        let is_done = answer.status == 200 && told.contains(r#""event":"done""#);
        if !is_busy && !is_done {
            self.surprise(format!("POST {path}: {}", answer.told()));
        }
        Some(())
    }

    /// Reads back a tag and what its manifest names, while everybody else goes on.
    async fn pull(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let tag = self.choices.random_range(0..TAGS);
        let Some(Some(number)) = self.shelves[shelf].tags[tag].certain().copied() else {
            return Some(());
        };
        let manifest = self.contents.manifest(self.number, number);
        let repository = self.shelves[shelf].repository;
        let name = tag_name(self.number, tag);
        let answer = api
            .get(&format!("/v2/{repository}/manifests/{name}"))
            .await?;
        let mut found = vec![("the manifest".to_owned(), answer, manifest.content.bytes)];
        for blob in manifest.blobs {
            let blob = self.contents.shared(blob).clone();
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            found.push((path.clone(), api.get(&path).await?, blob.bytes));
        }
        for (what, answer, bytes) in found {
            if answer.status != 200 || answer.body != bytes {
                let promise = &self.shelves[shelf].tags[tag];
                let loss = promise.loss(format!("{what}: {}", answer.told()));
                self.losses.push(loss);
            }
        }
        Some(())
    }

    /// Notes an answer that no well-behaved registry gives.
    pub(crate) fn expect(&mut self, answer: &Answer, statuses: &[u16], what: &str) {
        if !statuses.contains(&answer.status) {
            self.surprise(format!("{what}: {}, not {statuses:?}", answer.told()));
        }
    }

    pub(crate) fn surprise(&mut self, found: String) {
        self.losses.push(Loss {
            what: "an unexpected answer".to_owned(),
            found,
            history: Vec::new(),
        });
    }
}

/// The name of a worker's tag.
pub(crate) fn tag_name(worker: usize, tag: usize) -> String {
    format!("w{worker}-t{tag}")
}
