//! A stand-in for the Ollama library and for Hugging Face, as they answer over HTTP: two hosts, of
//! which the second gives the bytes out by signed URLs; with faults on demand and counts.
//!
//! What it follows: the Ollama library has tags alone, sends manifests without length and digest,
//! and answers blobs with 307. Hugging Face knows repositories in any spelling and redirects to its
//! own, has commits, pages its listings, hints at Xet, and answers files in LFS with 302.

mod answers;
mod huggingface;
mod ollama;
mod repository;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::Digest;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authority::Pair;
pub use crate::hub::repository::{Access, Storage};
pub use crate::wire::Fault;
use crate::wire::{self, After, Faults, Request, Sent, Wire};
use repository::Repository;

/// What was sent of one file or blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCount {
    /// GETs that were answered with some of it.
    pub requests: u64,
    /// Bytes of it that were sent.
    pub bytes: u64,
}

/// The running stand-in; it ends when dropped.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    content: SocketAddr,
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
    is_secure: bool,
}

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    /// What is wrong with answers about files and blobs.
    of_content: Faults,
    /// What is wrong with every other answer.
    of_questions: Faults,
}

#[derive(Debug)]
struct Inner {
    /// By their own names.
    repositories: BTreeMap<String, Repository>,
    /// By `<namespace>/<name>:<tag>`.
    manifests: HashMap<String, Bytes>,
    /// By digest.
    blobs: HashMap<String, Bytes>,
    sent: HashMap<String, Arc<Sent>>,
    requests: Vec<String>,
    /// Files of a listing that go on one page.
    page: usize,
    /// The token that lets in.
    token: Option<String>,
    /// How often signed URLs were made void: part of what is signed.
    generation: u64,
    /// Requests at the second host that carried a token.
    leaks: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            repositories: BTreeMap::new(),
            manifests: HashMap::new(),
            blobs: HashMap::new(),
            sent: HashMap::new(),
            requests: Vec::new(),
            page: 1000,
            token: None,
            generation: 0,
            leaks: 0,
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts of a file or blob.
    fn sent(&self, name: &str) -> Arc<Sent> {
        let mut inner = self.lock();
        Arc::clone(inner.sent.entry(name.to_owned()).or_default())
    }
}

impl Hub {
    /// Starts on two addresses of its own: `127.0.0.1` for questions and `127.0.0.2` for content.
    ///
    /// # Panics
    /// When no ports can be had.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same with TLS on the first address, and none on the second one.
    ///
    /// # Panics
    /// When no ports can be had, or the certificate cannot be used.
    pub async fn start_tls(pair: &Pair) -> Self {
        Self::start_with(Some(wire::acceptor(pair))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let is_secure = tls.is_some();
        let questions = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let content = TcpListener::bind("127.0.0.2:0").await.expect("a port");
        let state = Arc::new(State::default());
        let addresses = (
            questions.local_addr().expect("an address"),
            content.local_addr().expect("an address"),
        );
        let serve = |listener: TcpListener, is_content: bool| {
            let tls = tls.clone().filter(|_| !is_content);
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (state, tls) = (Arc::clone(&state), tls.clone());
                    connections.spawn(async move {
                        // A client that goes away is none of the hub's business.
                        if let Ok(wire) = wire::secured(stream, tls.as_ref()).await {
                            let _ = serve(wire, &state, addresses.1, is_content).await;
                        }
                    });
                }
            })
        };
        let tasks = vec![serve(questions, false), serve(content, true)];
        Self {
            address: addresses.0,
            content: addresses.1,
            state,
            tasks,
            is_secure,
        }
    }

    /// Where questions are answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the bytes come from: another host.
    #[must_use]
    pub fn content_address(&self) -> SocketAddr {
        self.content
    }

    /// Its URL: an `HF_ENDPOINT`, and the base of the library.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Puts a file into a repository of Hugging Face, as a commit on `main`; gives the commit. The
    /// repository is made with its first file, public, in this spelling.
    pub fn put_file(
        &self,
        repository: &str,
        path: &str,
        bytes: impl Into<Bytes>,
        storage: Storage,
    ) -> String {
        let mut inner = self.state.lock();
        let repository = inner.repositories.entry(repository.to_owned()).or_default();
        repository.put(path, bytes.into(), storage)
    }

    /// Gives the newest commit of a repository a branch of this name.
    ///
    /// # Panics
    /// When there is no such repository.
    pub fn branch(&self, repository: &str, name: &str) {
        let mut inner = self.state.lock();
        let found = inner.repositories.get_mut(repository);
        found.expect("a repository").branch(name);
    }

    /// Who may read a repository of Hugging Face.
    ///
    /// # Panics
    /// When there is no such repository.
    pub fn set_access(&self, repository: &str, access: Access) {
        let mut inner = self.state.lock();
        let found = inner.repositories.get_mut(repository);
        found.expect("a repository").access = access;
    }

    /// The token that opens private and gated repositories.
    pub fn set_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    /// Files on one page of a listing.
    pub fn set_page(&self, files: usize) {
        self.state.lock().page = files.max(1);
    }

    /// Puts a model into the Ollama library under `<namespace>/<name>` and a tag; gives the digest
    /// of its manifest. Layers are media types and contents.
    pub fn put_model(&self, name: &str, tag: &str, layers: &[(&str, Bytes)]) -> Digest {
        ollama::put_model(&mut self.state.lock(), name, tag, layers)
    }

    /// Spoils every answer about a file or blob from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.state.of_content.set(fault, None);
    }

    /// Spoils the next `answers` answers about files and blobs.
    pub fn set_fault_times(&self, fault: Fault, answers: usize) {
        self.state.of_content.set(fault, Some(answers));
    }

    /// Spoils every answer to a question (manifests, information, listings) from now on.
    pub fn set_question_fault(&self, fault: Fault) {
        self.state.of_questions.set(fault, None);
    }

    /// Spoils the next `answers` answers to questions.
    pub fn set_question_fault_times(&self, fault: Fault, answers: usize) {
        self.state.of_questions.set(fault, Some(answers));
    }

    /// Answers well from now on.
    pub fn clear_faults(&self) {
        self.state.of_content.clear();
        self.state.of_questions.clear();
    }

    /// Sends a `Retry-After` of so many seconds with [`Fault::Status`].
    pub fn set_retry_after(&self, seconds: u64) {
        self.state.of_content.set_retry_after(seconds);
        self.state.of_questions.set_retry_after(seconds);
    }

    /// Makes every URL void that was signed so far.
    pub fn expire_links(&self) {
        self.state.lock().generation += 1;
    }

    /// What was sent of a file, by `<repository>/<path>`, or of a blob, by its digest.
    #[must_use]
    pub fn count(&self, name: &str) -> FileCount {
        let sent = self.state.sent(name);
        FileCount {
            requests: sent.requests(),
            bytes: sent.bytes(),
        }
    }

    /// Bytes of all files and blobs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state
            .lock()
            .sent
            .values()
            .map(|sent| sent.bytes())
            .sum()
    }

    /// Every request so far: method and path with query; those at the second host begin with `@`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// Requests at the second host that carried a token: there must be none.
    #[must_use]
    pub fn leaks(&self) -> u64 {
        self.state.lock().leaks
    }

    /// Closes both listeners and every connection: nothing answers any more.
    pub async fn stop(mut self) {
        for task in &mut self.tasks {
            task.abort();
            // Cancelled is the expected outcome.
            let _ = task.await;
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn serve(
    mut wire: Wire,
    state: &State,
    content: SocketAddr,
    is_content: bool,
) -> io::Result<()> {
    while let Some(request) = Request::read(&mut wire).await? {
        let line = format!("{} {}", request.method, request.path);
        let line = if is_content { format!("@{line}") } else { line };
        state.lock().requests.push(line);
        let after = if is_content {
            answers::signed(&mut wire, state, &request).await?
        } else {
            answers::question(&mut wire, state, content, &request).await?
        };
        if after == After::Close {
            return wire.shutdown().await;
        }
    }
    Ok(())
}
