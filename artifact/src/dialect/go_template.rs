//! Go templates for chat formats that GGUF files describe in Jinja: Ollama renders prompts with the
//! former, and knows the latter only by comparing them with a list of its own.

/// A chat format that both template languages can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatFormat {
    /// The format in Ollama's Go template language.
    pub template: &'static str,
    /// Texts that end an answer.
    pub stop: &'static [&'static str],
}

const CHATML: ChatFormat = ChatFormat {
    template: "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}\
               <|im_start|>assistant\n",
    stop: &["<|im_start|>", "<|im_end|>"],
};

const LLAMA3: ChatFormat = ChatFormat {
    template: "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n\
               {{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
    stop: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
};

const GEMMA: ChatFormat = ChatFormat {
    template: "{{- range .Messages }}<start_of_turn>\
               {{ if eq .Role \"assistant\" }}model{{ else }}user{{ end }}\n\
               {{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
    stop: &["<start_of_turn>", "<end_of_turn>"],
};

/// The format that a Jinja chat template writes, told from the marks it puts around messages;
/// nothing when none of the known ones fits. Tools and thinking are not carried over.
#[must_use]
pub fn chat_format_of(jinja: &str) -> Option<ChatFormat> {
    let has = |mark: &str| jinja.contains(mark);
    if has("<|im_start|>") && has("<|im_end|>") {
        Some(CHATML)
    } else if has("<|start_header_id|>") && has("<|eot_id|>") {
        Some(LLAMA3)
    } else if has("<start_of_turn>") && has("<end_of_turn>") {
        Some(GEMMA)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::dialect::go_template::{CHATML, chat_format_of};

    #[test]
    fn a_format_is_told_by_its_marks() {
        let jinja = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}";
        assert_eq!(chat_format_of(jinja), Some(CHATML));
        assert_eq!(chat_format_of("{{ messages[0] }}"), None);
    }
}
