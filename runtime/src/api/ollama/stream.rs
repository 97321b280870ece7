//! Answers as NDJSON: one object a line, the last one with `done`, or with `error`.

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;

use super::super::error::ollama_body;
use super::super::json as json_response;
use super::types::{AnswerChunk, AnswerMessage, Content, Metrics, done_reason};
use crate::error::Error;
use crate::inference::{Answer, Step, Summary};

/// Which endpoint's form an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/api/generate`.
    Generate,
    /// `/api/chat`.
    Chat,
}

impl Endpoint {
    fn content(self, text: String) -> Content {
        match self {
            Self::Generate => Content::Response(text),
            Self::Chat => Content::Message(AnswerMessage {
                role: "assistant",
                content: text,
            }),
        }
    }
}

/// Writes the chunks of one answer.
#[derive(Debug, Clone)]
pub(super) struct ChunkWriter {
    /// The form.
    pub(super) endpoint: Endpoint,
    /// The model's name as the client wrote it.
    pub(super) model: String,
}

impl ChunkWriter {
    fn chunk(&self, text: String) -> AnswerChunk {
        AnswerChunk {
            model: self.model.clone(),
            created_at: now(),
            content: self.endpoint.content(text),
            done: false,
            done_reason: None,
            metrics: Metrics::default(),
        }
    }

    fn last(&self, text: String, summary: Summary) -> AnswerChunk {
        AnswerChunk {
            done: true,
            done_reason: Some(done_reason(summary.reason)),
            metrics: summary.into(),
            ..self.chunk(text)
        }
    }

    /// The answer to a request that only loads or unloads: one object, never a stream.
    pub(super) fn without_text(&self, reason: &'static str) -> Response {
        let chunk = AnswerChunk {
            done: true,
            done_reason: Some(reason),
            ..self.chunk(String::new())
        };
        json_response(StatusCode::OK, &chunk)
    }

    /// The whole answer in one object.
    pub(super) async fn whole(&self, answer: Answer) -> Result<Response, Error> {
        let (text, summary) = answer.collect().await?;
        Ok(json_response(StatusCode::OK, &self.last(text, summary)))
    }

    /// The answer as it comes. When the client goes away the stream is dropped, and with it the
    /// request in the engine.
    pub(super) fn stream(self, answer: Answer) -> Response {
        ndjson(futures::stream::unfold(
            Some((self, answer)),
            |state| async move {
                let (writer, mut answer) = state?;
                let step = answer.next().await?;
                Some(match step {
                    Ok(Step::Text(text)) => (line(&writer.chunk(text)), Some((writer, answer))),
                    Ok(Step::Done(summary)) => (line(&writer.last(String::new(), summary)), None),
                    Err(error) => {
                        tracing::error!(%error, "an answer broke off");
                        (line(&ollama_body(&error)), None)
                    }
                })
            },
        ))
    }
}

/// A response of lines.
pub(super) fn ndjson(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures::StreamExt;
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// One object and the end of its line.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a line could not be written as JSON");
        br#"{"error":"internal error"}"#.to_vec()
    });
    bytes.push(b'\n');
    bytes.into()
}

/// The present as Ollama writes it.
pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
