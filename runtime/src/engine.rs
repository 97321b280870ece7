//! Engine: a loaded model on a thread of its own, spoken to only by messages.
//!
//! [`Engine::load`] starts the thread, which owns model and context on its stack. A
//! [`GenerateRequest`] goes in, a stream of [`Event`]s comes out. Both are plain data: what is here
//! as a thread and two channels can become a process and a socket.

mod decode;
pub(crate) mod protocol;
mod slot;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use self::decode::{BATCH_TOKENS, DecodeLoop};
use self::protocol::{Event, Failure, GenerateRequest, LoadRequest, Loaded};
use crate::llama::LlamaFault;
use crate::llama::context::{Context, ContextShape};
use crate::llama::model::Model;

/// The grammar code of llama.cpp recurses over a token's characters; this is ample.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// What the engine thread is told.
enum Message {
    Generate(Box<GenerateRequest>, UnboundedSender<Event>),
    Cancel(u64),
    Stop,
}

/// The handle of an engine thread. Dropping it stops the thread after its current step.
#[derive(Debug)]
pub(crate) struct Engine {
    messages: Sender<Message>,
    thread: JoinHandle<()>,
    loaded: Loaded,
    next_id: AtomicU64,
}

impl Engine {
    /// Loads a model on a new thread. The load goes on to its end even when the caller leaves; then
    /// the thread finds nobody listening and frees everything.
    pub(crate) async fn load(request: LoadRequest) -> Result<Self, Failure> {
        let (messages, inbox) = channel();
        let (ready, loaded) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&request, &inbox, ready))
            .map_err(|error| Failure::Engine(format!("cannot start a thread: {error}")))?;
        let loaded = loaded.await.unwrap_or_else(|_gone| {
            Err(Failure::Engine(
                "the engine stopped while loading".to_owned(),
            ))
        })?;
        Ok(Self {
            messages,
            thread,
            loaded,
            next_id: AtomicU64::new(1),
        })
    }

    /// What was loaded.
    pub(crate) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Whether the thread is gone, which only a fault can bring about while a handle exists.
    pub(crate) fn is_dead(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops the thread after its current step; what is under way fails.
    pub(crate) fn stop(&self) {
        // The thread may be gone already, which is as good.
        let _sent = self.messages.send(Message::Stop);
    }

    /// Hands a request to the engine; its `id` is set here.
    pub(crate) fn generate(&self, mut request: GenerateRequest) -> EventStream {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.id = id;
        let (sender, events) = unbounded_channel();
        // When the thread is gone the sender is dropped here, and the stream says so.
        let _sent = self
            .messages
            .send(Message::Generate(Box::new(request), sender));
        EventStream {
            id,
            events,
            messages: self.messages.clone(),
            over: false,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The thread is not joined: freeing a big model takes a while, and nobody waits for it.
        self.stop();
    }
}

/// The events of one request. Dropping it before the end cancels the request.
#[derive(Debug)]
pub(crate) struct EventStream {
    id: u64,
    /// Not bounded by its own, but by the token limit of the request: the engine is never held up
    /// by one slow reader.
    events: UnboundedReceiver<Event>,
    messages: Sender<Message>,
    over: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Generate(..) => "Generate",
            Self::Cancel(_) => "Cancel",
            Self::Stop => "Stop",
        })
    }
}

impl EventStream {
    /// The next event; after `Done` or `Failed` there is none.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        let event = self.events.recv().await.unwrap_or_else(|| {
            Event::Failed(Failure::Engine(
                "the engine stopped unexpectedly".to_owned(),
            ))
        });
        self.over = matches!(event, Event::Done { .. } | Event::Failed(_));
        Some(event)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if !self.over {
            // The thread may be gone already, which is as good.
            let _sent = self.messages.send(Message::Cancel(self.id));
        }
    }
}

/// The life of an engine thread.
fn work(
    request: &LoadRequest,
    inbox: &Receiver<Message>,
    ready: oneshot::Sender<Result<Loaded, Failure>>,
) {
    let model = match Model::load(&request.path, request.gpu_layers) {
        Ok(model) => model,
        Err(fault) => return answer(ready, Err(slot::failure(&fault))),
    };
    let (context, loaded) = match open(&model, request) {
        Ok(opened) => opened,
        Err(fault) => return answer(ready, Err(slot::failure(&fault))),
    };
    let context_length = loaded.context_length;
    answer(ready, Ok(loaded));
    DecodeLoop::new(&model, context, request.sequences, context_length).run(inbox);
}

fn open<'model>(
    model: &'model Model,
    request: &LoadRequest,
) -> Result<(Context<'model>, Loaded), LlamaFault> {
    let trained = match model.trained_context() {
        0 => u32::MAX,
        trained => trained,
    };
    let context_length = request.context_length.min(trained).max(1);
    let context = Context::new(
        model,
        ContextShape {
            cells: context_length.saturating_mul(request.sequences),
            sequences: request.sequences,
            batch: BATCH_TOKENS,
            threads: i32::try_from(request.threads).unwrap_or(1),
        },
    )?;
    let loaded = Loaded {
        context_length,
        size: model.size(),
        adds_beginning: model.adds_beginning(),
        beginning_text: model.beginning_text(),
        end_text: model.end_text(),
    };
    Ok((context, loaded))
}

fn answer(ready: oneshot::Sender<Result<Loaded, Failure>>, result: Result<Loaded, Failure>) {
    // Nobody waits any more: the thread goes on to find its inbox closed, and ends.
    let _sent = ready.send(result);
}
