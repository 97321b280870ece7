//! Defaults: what the small layers of a model say: parameters, system text, templates, messages.

use std::fs::File;
use std::io::Read;

use artifact::CacheLayout;
use artifact::agent_api::{ModelBlob, ModelEntry};
use artifact::dialect::Role;
use artifact::modelfile::Modelfile;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chat::Message;
use crate::error::Error;

/// Bytes of one small layer.
const MAX_LAYER: u64 = 4 * 1024 * 1024;

/// What a model brings along besides its weights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    /// Options in Ollama's vocabulary.
    pub(crate) parameters: Map<String, Value>,
    /// System text.
    pub(crate) system: Option<String>,
    /// A Go template. Shown, not rendered: the GGUF's own Jinja template is used.
    pub(crate) go_template: Option<String>,
    /// A Jinja template that goes over the GGUF's.
    pub(crate) chat_template: Option<String>,
    /// Messages that every chat starts with.
    pub(crate) messages: Vec<Message>,
    /// License texts.
    pub(crate) licenses: Vec<String>,
}

#[derive(Deserialize)]
struct MessageLayer {
    role: String,
    content: String,
}

impl Defaults {
    /// Reads the small layers of a model. One that cannot be read is an error: serving a model
    /// without its stop texts, say, would be wrong silently.
    pub(crate) fn read(layout: &CacheLayout, entry: &ModelEntry) -> Result<Self, Error> {
        let mut defaults = Self::default();
        for blob in &entry.blobs {
            defaults.take(layout, entry, blob)?;
        }
        Ok(defaults)
    }

    fn take(
        &mut self,
        layout: &CacheLayout,
        entry: &ModelEntry,
        blob: &ModelBlob,
    ) -> Result<(), Error> {
        let damaged = |reason: String| Error::Load {
            name: entry.reference.to_string(),
            reason: format!("its layer {} is damaged: {reason}", blob.digest),
        };
        match blob.role {
            Role::Params => {
                let bytes = read_layer(layout, blob)?;
                self.parameters =
                    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
            }
            Role::Messages => {
                let bytes = read_layer(layout, blob)?;
                let messages: Vec<MessageLayer> =
                    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
                self.messages = messages
                    .into_iter()
                    .map(|message| Message {
                        role: message.role,
                        content: message.content,
                    })
                    .collect();
            }
            Role::Modelfile => {
                let modelfile = Modelfile::parse(&read_layer(layout, blob)?)
                    .map_err(|error| damaged(error.to_string()))?;
                self.take_modelfile(&modelfile);
            }
            Role::System => self.system = Some(read_text(layout, blob)?),
            Role::Template => self.go_template = Some(read_text(layout, blob)?),
            Role::ChatTemplate => self.chat_template = Some(read_text(layout, blob)?),
            Role::License => self.licenses.push(read_text(layout, blob)?),
            Role::Config | Role::Model | Role::Projector | Role::Adapter | Role::Other => {}
        }
        Ok(())
    }

    fn take_modelfile(&mut self, modelfile: &Modelfile) {
        self.parameters = modelfile.parameters();
        self.system = modelfile.system().map(str::to_owned);
        self.go_template = modelfile.template().map(str::to_owned);
        self.licenses
            .extend(modelfile.licenses().map(str::to_owned));
        self.messages = modelfile
            .messages()
            .map(|(role, content)| Message {
                role: role.as_str().to_owned(),
                content: content.to_owned(),
            })
            .collect();
    }
}

fn read_text(layout: &CacheLayout, blob: &ModelBlob) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&read_layer(layout, blob)?).into_owned())
}

fn read_layer(layout: &CacheLayout, blob: &ModelBlob) -> Result<Vec<u8>, Error> {
    let path = layout.blob(&blob.digest);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_LAYER).read_to_end(&mut bytes))
        .map_err(|source| Error::Read { path, source })?;
    Ok(bytes)
}
