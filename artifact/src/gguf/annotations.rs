//! What a header says, as annotations: short texts under fixed keys, the same bytes for the same
//! file. A registry keeps them with the blob, a push writes them into the manifest.

use std::collections::BTreeMap;

use super::{Header, Kind, split_of};
use crate::digest::Digest;

/// What the file is to llama.cpp: [`Kind::name`].
pub const KIND: &str = "org.hayloft.gguf.kind";
/// The architecture, as in `llama`.
pub const ARCHITECTURE: &str = "org.hayloft.gguf.architecture";
/// How many parameters there are.
pub const PARAMETERS: &str = "org.hayloft.gguf.parameters";
/// The same for people, as in `7.6B`.
pub const PARAMETER_SIZE: &str = "org.hayloft.gguf.parameter-size";
/// The quantisation, as in `Q4_K_M`.
pub const QUANTISATION: &str = "org.hayloft.gguf.quantisation";
/// Positions the model was made for.
pub const CONTEXT_LENGTH: &str = "org.hayloft.gguf.context-length";
/// Width of the model.
pub const EMBEDDING_LENGTH: &str = "org.hayloft.gguf.embedding-length";
/// How many tensors this file has.
pub const TENSORS: &str = "org.hayloft.gguf.tensors";
/// The model's own name.
pub const NAME: &str = "org.hayloft.gguf.name";
/// The licence, as in `apache-2.0`.
pub const LICENSE: &str = "org.hayloft.gguf.license";
/// The digest of the chat template in the file.
pub const TEMPLATE_DIGEST: &str = "org.hayloft.gguf.chat-template-digest";
/// The beginning of that template.
pub const TEMPLATE: &str = "org.hayloft.gguf.chat-template";
/// Which part of a model in several files this is, from 1, as in `2/3`.
pub const PART: &str = "org.hayloft.gguf.part";
/// Why llama.cpp would choke on the file, where it is kept all the same.
pub const FAULT: &str = "org.hayloft.gguf.fault";

/// Longest text taken from a file, in characters.
const TEXT: usize = 200;
/// Most of a chat template, in characters.
const TEMPLATE_START: usize = 80;

/// What `header` says of its file, which [`check`](fn@super::check) found to be of this kind.
#[must_use]
pub fn annotations(header: &Header, kind: Kind) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            found.insert(key.to_owned(), value);
        }
    };
    add(KIND, Some(kind.name().to_owned()));
    add(ARCHITECTURE, header.architecture().map(shortened));
    let size = header.parameter_size();
    let count = header.parameter_count();
    add(PARAMETERS, size.is_some().then(|| count.to_string()));
    add(PARAMETER_SIZE, size);
    add(QUANTISATION, header.quantisation().map(str::to_owned));
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    add(CONTEXT_LENGTH, number(header.context_length()));
    add(EMBEDDING_LENGTH, number(header.embedding_length()));
    add(TENSORS, Some(header.tensors().len().to_string()));
    add(NAME, header.name().map(shortened));
    add(LICENSE, header.license().map(shortened));
    if let Some(template) = header.chat_template() {
        let digest = Digest::sha256(template.as_bytes());
        add(TEMPLATE_DIGEST, Some(digest.to_string()));
        add(TEMPLATE, Some(start_of(template, TEMPLATE_START)));
    }
    let split = split_of(header).ok().flatten();
    add(
        PART,
        split.map(|split| format!("{}/{}", u32::from(split.number) + 1, split.count)),
    );
    found
}

fn shortened(text: &str) -> String {
    start_of(text, TEXT)
}

/// The beginning of a stranger's text, without characters that could command a terminal.
fn start_of(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut start: String = plain.take(most).collect();
    if text.chars().nth(most).is_some() {
        start.push('…');
    }
    start
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use crate::gguf::annotations::annotations;
    use crate::gguf::builder::GgufBuilder;
    use crate::gguf::{Header, check};

    #[test]
    fn a_header_gives_short_plain_texts() {
        let long = "x".repeat(500);
        let file = GgufBuilder::tiny_llama("Tiny\u{1b}[31m\nModel")
            .kv("general.license", long.as_str())
            .kv("tokenizer.chat_template", "{{ messages }}\n{% endfor %}")
            .build();
        let header = Header::parse(&file, None).unwrap();
        let found = annotations(&header, check(&header).unwrap());
        let of = |key: &str| found[&format!("org.hayloft.gguf.{key}")].as_str();
        assert_eq!(of("kind"), "model");
        assert_eq!(of("architecture"), "llama");
        assert_eq!(of("parameters"), "576");
        assert_eq!(of("quantisation"), "Q8_0");
        assert_eq!(of("context-length"), "512");
        assert_eq!(of("tensors"), "2");
        assert_eq!(of("name"), "Tiny [31m Model");
        assert_eq!(of("license").chars().count(), 201);
        assert_eq!(of("chat-template"), "{{ messages }} {% endfor %}");
        assert!(of("chat-template-digest").starts_with("sha256:"));
        assert!(!found.contains_key("org.hayloft.gguf.part"));
    }
}
