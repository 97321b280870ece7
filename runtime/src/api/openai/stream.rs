//! Answers in OpenAI's form: one object, or server-sent events that always end in `[DONE]`.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::error::openai_body;
use super::super::json as json_response;
use super::types::{Usage, finish_reason};
use crate::error::Error;
use crate::inference::{Answer, Step, Summary};

/// What every answer of this server carries.
const FINGERPRINT: &str = "fp_hayloft";

/// Which endpoint's form an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// Writes one answer.
#[derive(Debug)]
pub(super) struct AnswerWriter {
    endpoint: Endpoint,
    id: String,
    model: String,
    created: i64,
    include_usage: bool,
}

impl AnswerWriter {
    /// A writer for an answer that begins now.
    pub(super) fn new(endpoint: Endpoint, model: String, include_usage: bool) -> Self {
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Text => "cmpl",
        };
        Self {
            endpoint,
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            model,
            created: jiff::Timestamp::now().as_second(),
            include_usage,
        }
    }

    /// The whole answer in one object.
    pub(super) async fn whole(&self, answer: Answer) -> Result<Response, Error> {
        let (text, summary) = answer.collect().await?;
        let finish = finish_reason(summary.reason);
        let choice = match self.endpoint {
            Endpoint::Chat => json!({
                "index": 0,
                "message": { "role": "assistant", "content": text },
                "logprobs": null,
                "finish_reason": finish,
            }),
            Endpoint::Text => json!({
                "index": 0,
                "text": text,
                "logprobs": null,
                "finish_reason": finish,
            }),
        };
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Text => "text_completion",
        };
        let mut whole = self.envelope(object, json!([choice]));
        whole["usage"] = json!(Usage::from(summary.usage));
        Ok(json_response(StatusCode::OK, &whole))
    }

    /// The answer as it comes. When the client goes away the stream is dropped, and with it the
    /// request in the engine.
    pub(super) fn stream(self, answer: Answer) -> Response {
        let mut frames = VecDeque::new();
        if self.endpoint == Endpoint::Chat {
            frames.push_back(event(&self.chunk("", None, true)));
        }
        let state = StreamState {
            writer: self,
            answer: Some(answer),
            frames,
        };
        let body = futures::stream::unfold(state, |mut state| async move {
            let frame = state.next().await?;
            Some((Ok::<_, std::convert::Infallible>(frame), state))
        });
        (
            [
                (header::CONTENT_TYPE, "text/event-stream"),
                (header::CACHE_CONTROL, "no-cache"),
            ],
            Body::from_stream(body),
        )
            .into_response()
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        })
    }

    fn chunk(&self, text: &str, finish: Option<&str>, is_first: bool) -> Value {
        let choice = match self.endpoint {
            Endpoint::Chat => {
                let delta = match (is_first, finish) {
                    (true, _) => json!({ "role": "assistant", "content": text }),
                    (false, None) => json!({ "content": text }),
                    (false, Some(_)) => json!({}),
                };
                json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish })
            }
            Endpoint::Text => {
                json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish })
            }
        };
        self.envelope(self.chunk_object(), json!([choice]))
    }

    fn chunk_object(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Text => "text_completion",
        }
    }

    fn usage_chunk(&self, summary: Summary) -> Value {
        let mut chunk = self.envelope(self.chunk_object(), json!([]));
        chunk["usage"] = json!(Usage::from(summary.usage));
        chunk
    }
}

struct StreamState {
    writer: AnswerWriter,
    answer: Option<Answer>,
    frames: VecDeque<Bytes>,
}

impl StreamState {
    async fn next(&mut self) -> Option<Bytes> {
        if self.frames.is_empty() {
            let step = self.answer.as_mut()?.next().await;
            self.take(step);
        }
        self.frames.pop_front()
    }

    fn take(&mut self, step: Option<Result<Step, Error>>) {
        match step {
            Some(Ok(Step::Text(text))) => {
                let chunk = self.writer.chunk(&text, None, false);
                self.frames.push_back(event(&chunk));
                return;
            }
            Some(Ok(Step::Done(summary))) => {
                let reason = finish_reason(summary.reason);
                let last = self.writer.chunk("", Some(reason), false);
                self.frames.push_back(event(&last));
                if self.writer.include_usage {
                    self.frames
                        .push_back(event(&self.writer.usage_chunk(summary)));
                }
            }
            Some(Err(error)) => {
                tracing::error!(%error, "an answer broke off");
                self.frames.push_back(event(&openai_body(&error)));
            }
            None => {}
        }
        self.answer = None;
        self.frames
            .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}
