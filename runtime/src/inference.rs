//! Inference: from a model and a prompt to a stream of text, the same for both APIs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::Runtime;
use crate::chat::template::Surroundings;
use crate::chat::{Message, removable, without_oldest};
use crate::engine::EventStream;
use crate::engine::protocol::{DoneReason, Event, Failure, GenerateRequest, Overflow, Usage};
use crate::error::Error;
use crate::llama::grammar;
use crate::models::Model;
use crate::models::catalog::blocking;
use crate::models::keep_alive::KeepAlive;
use crate::models::loaded::{Lease, Wish};
use crate::options::Options;

/// What an answer has to look like.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Format {
    /// Anything.
    #[default]
    Free,
    /// A JSON object.
    Json,
    /// What a JSON schema allows.
    Schema(Value),
}

impl Format {
    async fn grammar(self) -> Result<Option<String>, Error> {
        let convert = move || {
            match self {
                Self::Free => return Ok(None),
                Self::Json => grammar::for_any_object(),
                Self::Schema(schema) => grammar::for_schema(&schema),
            }
            .map(Some)
            .map_err(|refused| Error::Format {
                reason: refused.to_string(),
            })
        };
        blocking(convert).await
    }
}

/// What a model is given.
#[derive(Debug, Clone)]
pub(crate) enum Prompt {
    /// A text as it is.
    Raw(String),
    /// A question, put into the model's chat template if it has one.
    Question {
        /// Goes before it.
        system: Option<String>,
        /// The text.
        text: String,
    },
    /// A conversation, put into the model's chat template, or into ChatML.
    Chat(Vec<Message>),
}

/// One request for an answer.
#[derive(Debug, Clone)]
pub(crate) struct Inference {
    /// What the model is given.
    pub(crate) prompt: Prompt,
    /// Options, defaults and the model's own included.
    pub(crate) options: Options,
    /// What the answer has to look like.
    pub(crate) format: Format,
    /// Whether a prompt that is too long may be cut.
    pub(crate) truncate: bool,
    /// How long the model stays loaded afterwards.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Whether the model should think first.
    pub(crate) thinking: Option<bool>,
}

/// An answer under way. Dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct Answer {
    // Dropped first, so that the request is cancelled while the engine is still there.
    events: EventStream,
    lease: Option<Lease>,
    began: Instant,
    load: Duration,
}

/// A step of an answer.
#[derive(Debug)]
pub(crate) enum Step {
    /// More text.
    Text(String),
    /// The end.
    Done(Summary),
}

/// What an answer took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// Why it ended.
    pub(crate) reason: DoneReason,
    /// Counters of the engine.
    pub(crate) usage: Usage,
    /// From the request to the end.
    pub(crate) total: Duration,
    /// Of that, waiting for the model to be loaded.
    pub(crate) load: Duration,
}

impl Answer {
    /// The next step; none after `Done` or an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, Error>> {
        loop {
            return Some(match self.events.next().await? {
                Event::Admitted => continue,
                Event::Text(text) => Ok(Step::Text(text)),
                Event::Done { reason, usage } => {
                    // Let go before the client learns that it is over: what it asks next, such as
                    // whether the model is unloaded, must already be so.
                    self.lease = None;
                    Ok(Step::Done(Summary {
                        reason,
                        usage,
                        total: self.began.elapsed(),
                        load: self.load,
                    }))
                }
                Event::Failed(failure) => {
                    self.lease = None;
                    Err(failure.into())
                }
            });
        }
    }

    /// The whole answer at once.
    pub(crate) async fn collect(mut self) -> Result<(String, Summary), Error> {
        let mut text = String::new();
        while let Some(step) = self.next().await {
            match step? {
                Step::Text(more) => text.push_str(&more),
                Step::Done(summary) => return Ok((text, summary)),
            }
        }
        Err(Error::Internal {
            reason: "the answer has no end".to_owned(),
        })
    }
}

impl Runtime {
    /// The options of a request to `model`: the API's defaults, then the model's own, then the
    /// request's.
    pub(crate) fn options(
        defaults: Options,
        model: &Model,
        request: Option<&serde_json::Map<String, Value>>,
    ) -> Result<Options, Error> {
        let mut options = defaults;
        options
            .apply(&model.defaults.parameters)
            .map_err(|error| Error::Load {
                name: model.name(),
                reason: format!("its parameters are wrong: {error}"),
            })?;
        if let Some(request) = request {
            options.apply(request)?;
        }
        Ok(options)
    }

    /// Loads a model, and says how long that took.
    pub(crate) async fn load(
        &self,
        model: &Model,
        options: &Options,
        keep_alive: Option<KeepAlive>,
    ) -> Result<(Lease, Duration), Error> {
        let began = Instant::now();
        let wish = Wish {
            num_ctx: options.num_ctx,
            num_gpu: options.num_gpu,
            keep_alive,
        };
        let lease = self.loaded.acquire(model, wish).await?;
        Ok((lease, began.elapsed()))
    }

    /// Begins an answer: returns once the engine has taken the request in, so that an error before
    /// the first word is still an error of the request.
    pub(crate) async fn infer(
        &self,
        model: &Model,
        inference: Inference,
        began: Instant,
    ) -> Result<Answer, Error> {
        let Inference {
            prompt,
            options,
            format,
            truncate,
            keep_alive,
            thinking,
        } = inference;
        let grammar = format.grammar().await?;
        let (lease, load) = self.load(model, &options, keep_alive).await?;
        let submission = Submission {
            lease: &lease,
            model,
            options,
            grammar,
            truncate,
            thinking,
        };
        let events = submission.submit(prompt).await?;
        Ok(Answer {
            events,
            lease: Some(lease),
            began,
            load,
        })
    }
}

/// A request on its way into an engine.
struct Submission<'lease> {
    lease: &'lease Lease,
    model: &'lease Model,
    options: Options,
    grammar: Option<String>,
    truncate: bool,
    thinking: Option<bool>,
}

impl Submission<'_> {
    async fn submit(&self, prompt: Prompt) -> Result<EventStream, Error> {
        let messages = match prompt {
            Prompt::Raw(text) => return self.submit_text(text).await,
            Prompt::Question { system, text } if self.model.chat_template().is_none() => {
                let text = match system {
                    Some(system) => format!("{system}\n\n{text}"),
                    None => text,
                };
                return self.submit_text(text).await;
            }
            Prompt::Question { system, text } => system
                .map(|content| ("system", content))
                .into_iter()
                .chain([("user", text)])
                .map(|(role, content)| Message {
                    role: role.to_owned(),
                    content,
                })
                .collect(),
            Prompt::Chat(messages) => messages,
        };
        self.submit_chat(messages).await
    }

    async fn submit_text(&self, text: String) -> Result<EventStream, Error> {
        let overflow = if self.truncate {
            self.cut()
        } else {
            Overflow::Refuse { room: 1 }
        };
        Ok(self.try_prompt(text, overflow).await??)
    }

    /// A chat that is too long loses its oldest messages, never its system text or its question.
    /// What is left then is cut in the middle, as a last resort.
    async fn submit_chat(&self, messages: Vec<Message>) -> Result<EventStream, Error> {
        let text = self.render(messages.clone()).await?;
        let refuse = Overflow::Refuse { room: 1 };
        let too_long = match self.try_prompt(text, refuse).await? {
            Ok(events) => return Ok(events),
            Err(Failure::PromptTooLong { tokens, limit }) if self.truncate => (tokens, limit),
            Err(failure) => return Err(failure.into()),
        };
        let most = removable(&messages);
        for count in first_guess(&messages, too_long)..=most {
            let text = self.render(without_oldest(&messages, count)).await?;
            let room = self.lease.running.engine.loaded().context_length / 8;
            match self.try_prompt(text, Overflow::Refuse { room }).await? {
                Ok(events) => return Ok(events),
                Err(Failure::PromptTooLong { .. }) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let text = self.render(without_oldest(&messages, most)).await?;
        Ok(self.try_prompt(text, self.cut()).await??)
    }

    fn cut(&self) -> Overflow {
        Overflow::Cut {
            keep: self.options.num_keep,
        }
    }

    /// Hands a prompt to the engine and waits until it is taken in, or refused.
    async fn try_prompt(
        &self,
        prompt: String,
        overflow: Overflow,
    ) -> Result<Result<EventStream, Failure>, Error> {
        let mut events = self.lease.running.engine.generate(GenerateRequest {
            id: 0,
            prompt,
            add_special: true,
            overflow,
            context_limit: self.options.num_ctx,
            max_tokens: self.options.num_predict,
            stop: self.options.stop.clone(),
            sampling: self.options.sampling.clone(),
            grammar: self.grammar.clone(),
        });
        match events.next().await {
            Some(Event::Admitted) => Ok(Ok(events)),
            Some(Event::Failed(failure)) => Ok(Err(failure)),
            Some(Event::Text(_) | Event::Done { .. }) | None => Err(Error::Internal {
                reason: "the engine answered out of turn".to_owned(),
            }),
        }
    }

    async fn render(&self, messages: Vec<Message>) -> Result<String, Error> {
        let loaded = self.lease.running.engine.loaded();
        let surroundings = Surroundings {
            beginning_text: loaded.beginning_text.clone(),
            end_text: loaded.end_text.clone(),
            thinking: self.thinking,
        };
        let template = Arc::clone(&self.model.template);
        let text = blocking(move || match &*template {
            Ok(template) => Ok(template.render(&messages, &surroundings)?),
            Err(reason) => Err(Error::Template {
                reason: reason.clone(),
            }),
        })
        .await?;
        // Many templates write the beginning token that the tokenizer adds as well.
        if loaded.adds_beginning
            && !loaded.beginning_text.is_empty()
            && let Some(rest) = text.strip_prefix(&loaded.beginning_text)
        {
            return Ok(rest.to_owned());
        }
        Ok(text)
    }
}

/// How many messages to leave out at first: those that make up the surplus, by their bytes.
fn first_guess(messages: &[Message], (tokens, limit): (u64, u64)) -> usize {
    let bytes: u64 = messages.iter().map(size).sum();
    let surplus = bytes
        .saturating_mul(tokens.saturating_sub(limit))
        .checked_div(tokens)
        .unwrap_or(0);
    let last = messages.len().saturating_sub(1);
    let mut freed = 0;
    let mut count = 0;
    for message in messages
        .iter()
        .take(last)
        .filter(|message| !message.is_system())
    {
        if freed >= surplus {
            break;
        }
        freed += size(message);
        count += 1;
    }
    count.max(1)
}

fn size(message: &Message) -> u64 {
    u64::try_from(message.content.len()).unwrap_or(u64::MAX)
}
