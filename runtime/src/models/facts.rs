//! Facts: what the header of a model's GGUF file says, read and checked before llama.cpp sees it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use artifact::gguf::{self, Header, Kind};

use crate::chat::template;
use crate::error::Error;

/// Architectures that give vectors or need an encoder, and cannot continue a text here.
const NOT_GENERATIVE: [&str; 9] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "t5",
    "t5encoder",
];

/// The facts that listings and requests need.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// As in `llama`.
    pub(crate) architecture: String,
    /// As in `2.79M`.
    pub(crate) parameter_size: String,
    /// As in `Q8_0`.
    pub(crate) quantisation: String,
    /// Positions the model was made for.
    pub(crate) context_length: Option<u64>,
    /// Width of the model.
    pub(crate) embedding_length: Option<u64>,
    /// Jinja source.
    pub(crate) chat_template: Option<String>,
    /// Whether it continues texts.
    pub(crate) generates: bool,
}

impl Facts {
    /// Reads and checks the header of the file at `path`; `name` is for the error.
    pub(crate) fn read(path: &Path, name: &str) -> Result<Self, Error> {
        let header = read_header(path, name)?;
        let architecture = header.architecture().unwrap_or("unknown").to_owned();
        let pools = header
            .metadata()
            .iter()
            .any(|(key, _value)| key.ends_with(".pooling_type"));
        Ok(Self {
            parameter_size: header.parameter_size().unwrap_or_default(),
            quantisation: header.quantisation().unwrap_or("unknown").to_owned(),
            context_length: header.context_length(),
            embedding_length: header.embedding_length(),
            chat_template: header.chat_template().map(str::to_owned),
            generates: !pools && !NOT_GENERATIVE.contains(&architecture.as_str()),
            architecture,
        })
    }

    /// What the model can do, in Ollama's words.
    pub(crate) fn capabilities(&self, chat_template: Option<&str>) -> Vec<&'static str> {
        let mut capabilities = vec![if self.generates {
            "completion"
        } else {
            "embedding"
        }];
        if chat_template.is_some_and(template::knows_tools) {
            capabilities.push("tools");
        }
        if chat_template.is_some_and(template::knows_thinking) {
            capabilities.push("thinking");
        }
        capabilities
    }
}

/// The whole checked header of the file at `path`.
pub(crate) fn read_header(path: &Path, name: &str) -> Result<Header, Error> {
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let damaged = |reason: String| Error::Load {
        name: name.to_owned(),
        reason: format!("its GGUF file is damaged: {reason}"),
    };
    let header = Header::read(&mut BufReader::new(file), Some(size))
        .map_err(|error| damaged(error.to_string()))?;
    match gguf::check(&header).map_err(|error| damaged(error.to_string()))? {
        Kind::Model => Ok(header),
        kind => Err(Error::Load {
            name: name.to_owned(),
            reason: format!("its GGUF file is {}", not_served(kind)),
        }),
    }
}

/// What a file is that cannot be served, for people.
fn not_served(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "a model",
        Kind::Vocabulary => "a vocabulary without weights",
        Kind::Part => "a further part of a model in several files: name the first one",
        Kind::Projector => "a projector, which goes with a model",
        Kind::Adapter => "an adapter, which goes with a model",
        Kind::Other => "not a language model",
    }
}
