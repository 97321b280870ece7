//! After a kill and a restart: is everything there that was promised, and nothing by halves?

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::{Answer, Api};
use crate::content::{Blob, Contents, MANIFESTS, REPOSITORIES, SHARED_BLOBS, private_blob};
use crate::ledger::Loss;
use crate::worker::{Worker, tag_name};

/// Which of the shared blobs each repository holds.
type Held = Vec<Vec<bool>>;

/// What the registry's own check says.
pub(crate) fn fsck(workers: &mut [Worker], address: &str) {
    let checked = tests::hayloft(&["fsck", "--registry", address]);
    if checked.code != 0 {
        let told = format!("{}{}", checked.stdout, checked.stderr);
        workers[0].surprise(format!("fsck ends with {}: {told}", checked.code));
    }
}

/// Compares everything that can be seen with what was promised. Gives how many uploads went on.
pub(crate) async fn check(workers: &mut [Worker], contents: &Contents, api: &Api) -> usize {
    let mut resumed = 0;
    for worker in &mut *workers {
        let went_on = worker.resume(api).await;
        resumed += usize::from(went_on.expect("the restarted registry answers"));
    }
    let held = shared_blobs(workers, contents, api).await;
    for worker in &mut *workers {
        check_worker(worker, &held, api).await;
    }
    check_listings(workers, api).await;
    resumed
}

async fn get(api: &Api, path: &str) -> Answer {
    let answer = api.get(path).await;
    answer.unwrap_or_else(|| panic!("the restarted registry does not answer GET {path}"))
}

/// `Some(true)`: there, whole. `Some(false)`: not there. `None`: neither.
fn is_whole(answer: &Answer, content: &Blob) -> Option<bool> {
    match answer.status {
        200 if answer.body == content.bytes => Some(true),
        404 => Some(false),
        _ => None,
    }
}

async fn shared_blobs(workers: &mut [Worker], contents: &Contents, api: &Api) -> Held {
    let mut held = Vec::new();
    for repository in REPOSITORIES {
        let mut blobs = Vec::new();
        for number in 0..SHARED_BLOBS {
            let blob = contents.shared(number);
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            let answer = get(api, &path).await;
            let is_held = is_whole(&answer, blob);
            if is_held.is_none() {
                workers[0].surprise(format!("half visible: GET {path}: {}", answer.told()));
            }
            blobs.push(is_held == Some(true));
        }
        held.push(blobs);
    }
    held
}

async fn check_worker(worker: &mut Worker, held: &Held, api: &Api) {
    let contents = std::sync::Arc::clone(&worker.contents);
    let mut losses: Vec<Loss> = Vec::new();
    let number = worker.number;
    let manifests: Vec<_> = (0..MANIFESTS)
        .map(|manifest| contents.manifest(number, manifest))
        .collect();
    for (shelf, held) in worker.shelves.iter_mut().zip(held) {
        let repository = shelf.repository;
        for (tag, promise) in shelf.tags.iter_mut().enumerate() {
            let name = tag_name(number, tag);
            let answer = get(api, &format!("/v2/{repository}/manifests/{name}")).await;
            let known = manifests
                .iter()
                .position(|manifest| answer.status == 200 && manifest.content.bytes == answer.body);
            let found = match (answer.status, known) {
                (404, _) => promise.found(None),
                (_, Some(manifest)) => promise.found(Some(manifest)),
                _ => Err(promise.loss(answer.told())),
            };
            losses.extend(found.err());
        }
        for (manifest, promise) in manifests.iter().zip(&mut shelf.manifests) {
            let digest = manifest.content.digest;
            let answer = get(api, &format!("/v2/{repository}/manifests/{digest}")).await;
            let found = match is_whole(&answer, &manifest.content) {
                Some(is_there) => promise.found(is_there),
                None => Err(promise.loss(answer.told())),
            };
            losses.extend(found.err());
            let missing: Vec<_> = manifest.blobs.iter().filter(|blob| !held[**blob]).collect();
            if promise.certain() == Some(&true) && !missing.is_empty() {
                losses.push(promise.loss(format!("it is there, its blobs {missing:?} are not")));
            }
        }
        for (blob, promise) in shelf.blobs.iter_mut().enumerate() {
            let content = private_blob(number, blob);
            let path = format!("/v2/{repository}/blobs/{}", content.digest);
            let answer = get(api, &path).await;
            let found = match is_whole(&answer, &content) {
                Some(is_there) => promise.found(is_there),
                None => Err(promise.loss(answer.told())),
            };
            losses.extend(found.err());
        }
    }
    worker.losses.extend(losses);
}

/// Listings show what can be read, and nothing else.
async fn check_listings(workers: &mut [Worker], api: &Api) {
    for (place, repository) in REPOSITORIES.iter().enumerate() {
        let expected: BTreeSet<String> = workers
            .iter()
            .flat_map(|worker| {
                let tags = worker.shelves[place].tags.iter().enumerate();
                tags.filter(|(_, promise)| !promise.possible().contains(&None))
                    .map(|(tag, _)| tag_name(worker.number, tag))
            })
            .collect();
        let answer = get(api, &format!("/v2/{repository}/tags/list?n=1000")).await;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let listed: BTreeSet<String> = json["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tag| Some(tag.as_str()?.to_owned()))
            .collect();
        if listed != expected {
            let (more, less) = (&listed - &expected, &expected - &listed);
            workers[0].surprise(format!(
                "the list of tags of {repository} has {more:?} too much and lacks {less:?}"
            ));
        }
    }
    let answer = get(api, "/v2/_catalog?n=1000").await;
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let listed = json["repositories"].as_array().cloned().unwrap_or_default();
    let is_known = |name: &Value| {
        name.as_str()
            .is_some_and(|name| REPOSITORIES.contains(&name))
    };
    if let Some(name) = listed.iter().find(|name| !is_known(name)) {
        workers[0].surprise(format!("a repository that nobody pushed to: {name}"));
    }
}
