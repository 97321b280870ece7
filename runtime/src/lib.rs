//! The runtime role: llama.cpp behind the Ollama and OpenAI APIs.
//!
//! The life of a chat request: `api` reads it and finds the model in the node's catalog
//! (`models/catalog.rs`); `models/loaded.rs` loads it unless it is loaded and gives a lease;
//! `inference.rs` turns the messages into a prompt with the model's own template (`chat/`) and
//! hands it to the model's engine; `engine/decode.rs` decodes it together with all other requests
//! of that model and sends back events; `api` writes them in the dialect of the client. When the
//! client goes away its stream is dropped, and that cancels the request in the engine.
//!
//! Reading order: `app`, `api`, `inference`, `models`, `chat`, `engine`, `llama`.

mod api;
mod app;
mod chat;
mod engine;
mod error;
mod inference;
mod llama;
mod models;
mod options;

pub use app::{Config, serve};
pub use error::Error;
