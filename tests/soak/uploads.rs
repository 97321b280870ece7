//! The ways a blob gets in: in one request, in two, in chunks, by a mount; and how an upload that
//! was cut off goes on.

use rand::RngExt;
use reqwest::Method;

use crate::api::{Answer, Api};
use crate::content::{Blob, REPOSITORIES, private_blob};
use crate::worker::{PRIVATE_BLOBS, Worker};

/// A chunked upload that was begun.
#[derive(Debug)]
pub(crate) struct OpenUpload {
    shelf: usize,
    number: usize,
    session: String,
    /// Bytes that the registry has acknowledged, and bytes that it may have.
    acknowledged: usize,
    sent: usize,
    /// Whether it was asked to end: the session may be gone then.
    is_closing: bool,
    /// Whether it had been asked to end before the last kill.
    was_closing: bool,
}

impl Worker {
    /// Pushes a blob that others push and delete too; how is chosen by the seed.
    pub(crate) async fn push_shared_blob(
        &mut self,
        api: &Api,
        shelf: usize,
        number: usize,
    ) -> Option<()> {
        let repository = self.shelves[shelf].repository;
        let blob = self.contents.shared(number).clone();
        let digest = blob.digest;
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        match self.choices.random_range(0..10) {
            // A client that looks first, and believes what it sees.
            0..4 => {
                let path = format!("/v2/{repository}/blobs/{digest}");
                let answer = api.send(api.request(Method::HEAD, &path)).await?;
                if answer.status == 200 {
                    return Some(());
                }
                self.expect(&answer, &[404], &format!("HEAD {path}"));
            }
            4..7 => {
                let from = REPOSITORIES[self.choices.random_range(0..REPOSITORIES.len())];
                let path = format!("{uploads}?mount={digest}&from={from}");
                let answer = api.send(api.request(Method::POST, &path)).await?;
                if answer.status == 201 {
                    return Some(());
                }
                self.expect(&answer, &[202], &format!("POST {path}"));
                return self.close(api, &answer, &blob).await;
            }
            7 => {
                let answer = api.send(api.request(Method::POST, &uploads)).await?;
                return self.close(api, &answer, &blob).await;
            }
            _ => {}
        }
        let path = format!("{uploads}?digest={digest}");
        let request = api.request(Method::POST, &path).body(blob.bytes);
        let answer = api.send(request).await?;
        self.expect(&answer, &[201], &format!("POST {path}"));
        Some(())
    }

    /// Sends all of a blob into a session that was just opened.
    async fn close(&mut self, api: &Api, opened: &Answer, blob: &Blob) -> Option<()> {
        let Some(session) = opened.session() else {
            self.surprise(format!("no session in {}", opened.told()));
            return Some(());
        };
        let path = format!("{session}?digest={}", blob.digest);
        let request = api.request(Method::PUT, &path).body(blob.bytes.clone());
        let answer = api.send(request).await?;
        self.expect(&answer, &[201], &format!("PUT {path}"));
        Some(())
    }

    /// Pushes a blob of this worker's own in chunks.
    pub(crate) async fn push_private_blob(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let number = self.choices.random_range(0..PRIVATE_BLOBS);
        let repository = self.shelves[shelf].repository;
        let path = format!("/v2/{repository}/blobs/uploads/");
        let answer = api.send(api.request(Method::POST, &path)).await?;
        self.expect(&answer, &[202], &format!("POST {path}"));
        self.upload = answer.session().map(|session| OpenUpload {
            shelf,
            number,
            session,
            acknowledged: 0,
            sent: 0,
            is_closing: false,
            was_closing: false,
        });
        self.send_chunks(api).await
    }

    /// Sends what is left of the open upload, in chunks, and ends it.
    async fn send_chunks(&mut self, api: &Api) -> Option<()> {
        let Some(mut upload) = self.upload.take() else {
            return Some(());
        };
        let blob = private_blob(self.number, upload.number);
        let chunk = 1 + self.choices.random_range(10_000..blob.bytes.len());
        while upload.acknowledged < blob.bytes.len() {
            let (begin, end) = (
                upload.acknowledged,
                blob.bytes.len().min(upload.acknowledged + chunk),
            );
            upload.sent = end;
            let request = api
                .request(Method::PATCH, &upload.session)
                .header("content-range", format!("{begin}-{}", end - 1))
                .body(blob.bytes.slice(begin..end));
            let Some(answer) = api.send(request).await else {
                self.upload = Some(upload);
                return None;
            };
            self.expect(&answer, &[202], &format!("PATCH {}", upload.session));
            if answer.status != 202 {
                return Some(());
            }
            upload.acknowledged = end;
        }
        upload.is_closing = true;
        let path = format!("{}?digest={}", upload.session, blob.digest);
        let promise = &mut self.shelves[upload.shelf].blobs[upload.number];
        promise.begin(&format!("PUT {path}"), true);
        let Some(answer) = api.send(api.request(Method::PUT, &path)).await else {
            promise.unanswered();
            self.upload = Some(upload);
            return None;
        };
        if answer.status == 201 {
            promise.acknowledged(&answer.told(), true);
            if self.is_collected {
                promise.may_become("may be collected", false);
            }
        }
        // A session that had been asked to end before the kill may be finished and swept by itself.
        let expected: &[u16] = if upload.was_closing {
            &[201, 404]
        } else {
            &[201]
        };
        self.expect(&answer, expected, &format!("PUT {path}"));
        Some(())
    }

    pub(crate) async fn delete_private_blob(&mut self, api: &Api, shelf: usize) -> Option<()> {
        let number = self.choices.random_range(0..PRIVATE_BLOBS);
        let digest = private_blob(self.number, number).digest;
        let path = format!("/v2/{}/blobs/{digest}", self.shelves[shelf].repository);
        let promise = &mut self.shelves[shelf].blobs[number];
        let expected: &[u16] = match promise.certain() {
            Some(true) => &[202],
            Some(false) => &[404],
            None => &[202, 404],
        };
        promise.begin(&format!("DELETE {path}"), false);
        let Some(answer) = api.delete(&path).await else {
            promise.unanswered();
            return None;
        };
        promise.acknowledged(&answer.told(), false);
        self.expect(&answer, expected, &format!("DELETE {path}"));
        Some(())
    }

    /// After a restart: an upload that was cut off goes on from what was acknowledged, or from
    /// further on. `true` if there was one.
    pub(crate) async fn resume(&mut self, api: &Api) -> Option<bool> {
        let Some(upload) = &mut self.upload else {
            return Some(false);
        };
        let session = upload.session.clone();
        let (least, most) = (upload.acknowledged, upload.sent);
        let answer = api.get(&session).await?;
        match (answer.status, answer.offset()) {
            (204, Some(offset)) if (least..=most).contains(&offset) => {
                upload.acknowledged = offset;
                upload.was_closing = upload.is_closing;
                upload.is_closing = false;
                self.send_chunks(api).await?;
                return Some(true);
            }
            // It had been asked to end, and did.
            (404, _) if upload.is_closing => {}
            _ => {
                let told = answer.told();
                let offset = answer.offset();
                self.surprise(format!(
                    "upload {session} has {least} acknowledged bytes of {most} sent; after the \
                     restart it says {offset:?}: {told}"
                ));
            }
        }
        self.upload = None;
        Some(false)
    }
}
