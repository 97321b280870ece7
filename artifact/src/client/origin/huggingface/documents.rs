//! Digests of files: those in LFS have one, the small ones beside them are fetched to be hashed.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::client::answer::read_bounded;
use crate::client::error::Error;
use crate::client::origin::huggingface::api::Api;
use crate::client::origin::huggingface::pack::Layer;
use crate::client::origin::huggingface::tree::{File, Revision};
use crate::digest::Digest;

/// Largest file outside of LFS; Hugging Face itself takes at most 10 MB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Most bytes of all such files of one manifest: they are in memory together.
const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// Most such files of one manifest.
const MAX_FILES: usize = 2000;
/// Files that are fetched at a time.
const AT_A_TIME: usize = 8;

/// Gives each file its digest, and the content of those that had to be fetched for it.
pub(super) async fn hashed(
    api: &Api,
    at: &Revision,
    files: Vec<File>,
) -> Result<(Vec<Layer>, Vec<(Digest, Bytes)>), Error> {
    let small: Vec<&File> = files.iter().filter(|file| file.digest.is_none()).collect();
    let total = small
        .iter()
        .fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let is_too_much = small.len() > MAX_FILES
        || total > MAX_TOTAL_BYTES
        || small.iter().any(|file| file.size > MAX_FILE_BYTES);
    if is_too_much {
        return Err(Error::Unsupported {
            what: at.id.clone(),
            place: api.place(),
            reason: "too much of it is outside of LFS, and so without a digest: at most 2,000 \
                     files, 16 MiB each and 64 MiB together",
        });
    }
    // Boxed one by one: a closure over a borrowed file would make this future one that the compiler
    // does not take for `Send`.
    let fetches = files.iter().map(|file| {
        let fetch = async move {
            match file.digest {
                Some(_) => Ok(None),
                None => content(api, at, file).await.map(Some),
            }
        };
        fetch.boxed()
    });
    let contents: Vec<Option<Bytes>> = stream::iter(fetches.collect::<Vec<_>>())
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    let mut layers = Vec::with_capacity(files.len());
    let mut documents = Vec::new();
    for (file, content) in files.into_iter().zip(contents) {
        let (digest, size) = match (file.digest, content) {
            (Some(digest), _) => (digest, file.size),
            (None, content) => {
                let content = content.unwrap_or_default();
                let digest = Digest::sha256(&content);
                let size = content.len() as u64;
                documents.push((digest, content));
                (digest, size)
            }
        };
        layers.push(Layer {
            path: file.path,
            size,
            digest,
        });
    }
    Ok((layers, documents))
}

async fn content(api: &Api, at: &Revision, file: &File) -> Result<Bytes, Error> {
    let path = at.id.split('/').chain(["resolve", &at.sha]);
    let url = api.url(path.chain(file.path.split('/')))?;
    let answer = api.get(url.clone(), &at.id).await?;
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
    let body = read_bounded(answer, limit).await?;
    if body.len() as u64 != file.size {
        return Err(Error::WrongSize {
            url: url.to_string(),
            announced: body.len() as u64,
            expected: file.size,
        });
    }
    Ok(Bytes::from(body))
}
