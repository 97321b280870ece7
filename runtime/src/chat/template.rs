//! Chat templates: Jinja text out of a GGUF file, rendered with bounds.
//!
//! A template comes from whoever made the model, so it runs on a fuel budget and into a bounded
//! output. It sees what Hugging Face's own renderer gives it: `messages`, `add_generation_prompt`,
//! the special tokens, `raise_exception`, `strftime_now`, `tojson`, Python's string methods.

use std::error::Error as _;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};

use super::Message;
use super::json::to_json;

/// What every chat model without a template of its own is spoken to with.
const CHAT_ML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\n' }}{% endif %}";
/// Instructions a rendering may use: some seconds at the very most.
const FUEL: u64 = 20_000_000;
/// Bytes a rendering may give.
const MAX_OUTPUT: usize = 32 * 1024 * 1024;
/// Bytes a template may have.
const MAX_TEMPLATE: usize = 1024 * 1024;

/// Why a template could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateFault {
    /// The text is no template that can be rendered.
    #[error("the model's chat template cannot be read: {0}")]
    Unreadable(String),
    /// The template itself refused the conversation.
    #[error("the model's chat template refused the messages: {0}")]
    Refused(String),
    /// The template went wrong, or beyond its bounds.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
}

/// What a template is rendered with besides the messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Text of the beginning-of-sequence token.
    pub(crate) beginning_text: String,
    /// Text of the end-of-sequence token.
    pub(crate) end_text: String,
    /// Whether the model should think first, for templates that ask.
    pub(crate) thinking: Option<bool>,
}

/// A template, parsed once per loaded model.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Parses a model's template.
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateFault> {
        if source.len() > MAX_TEMPLATE {
            return Err(TemplateFault::Unreadable(format!(
                "{} bytes; at most {MAX_TEMPLATE} are accepted",
                source.len()
            )));
        }
        let mut environment = environment()?;
        environment
            .add_template_owned("chat", without_generation_marks(source))
            .map_err(|error| TemplateFault::Unreadable(error.to_string()))?;
        Ok(Self { environment })
    }

    /// ChatML, for models without a template.
    pub(crate) fn fallback() -> Result<Self, TemplateFault> {
        Self::parse(CHAT_ML)
    }

    /// The text that the model continues with the assistant's answer.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        surroundings: &Surroundings,
    ) -> Result<String, TemplateFault> {
        let messages = Value::from(Serde(messages));
        let values = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => surroundings.beginning_text.as_str(),
            eos_token => surroundings.end_text.as_str(),
            tools => Value::from(()),
            documents => Value::from(()),
            // Of Fireworks' templates: no functions, and the present.
            functions => "",
            datetime => jiff::Zoned::now().strftime("%b %d %Y %H:%M:%S %Z").to_string(),
        };
        let thinking = surroundings
            .thinking
            .map(|thinking| context! { enable_thinking => thinking, thinking => thinking })
            .unwrap_or_else(|| context! {});
        let template = self
            .environment
            .get_template("chat")
            .map_err(|error| TemplateFault::Unreadable(error.to_string()))?;
        let mut output = BoundedOutput::default();
        template
            .render_captured_to(context! { ..thinking, ..values }, &mut output)
            .map_err(|error| fault(&error))?;
        String::from_utf8(output.bytes).map_err(|error| TemplateFault::Failed(error.to_string()))
    }
}

/// Whether a template has words for tools.
pub(crate) fn knows_tools(source: &str) -> bool {
    source.contains("tools") || source.contains("tool_call")
}

/// Whether a template has words for thinking.
pub(crate) fn knows_thinking(source: &str) -> bool {
    source.contains("enable_thinking") || source.contains("<think>")
}

fn environment() -> Result<Environment<'static>, TemplateFault> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| TemplateFault::Unreadable(error.to_string()))?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    // The output is a prompt, not HTML.
    environment.set_auto_escape_callback(|_name| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// Hugging Face's `{% generation %}` marks what a training run learns from; here it is a block that
/// is always rendered.
fn without_generation_marks(source: &str) -> String {
    let mut rest = source;
    let mut plain = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|end| start + end + 2) else {
            break;
        };
        let tag = &rest[start..end];
        let word = tag.trim_matches(['{', '}', '%', '-', '+', ' ', '\n', '\t', '\r']);
        plain.push_str(&rest[..start]);
        match word {
            "generation" => plain.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => plain.push_str(&tag.replacen(word, "endif", 1)),
            _ => plain.push_str(tag),
        }
        rest = &rest[end..];
    }
    plain.push_str(rest);
    plain
}

/// Python's meaning: `none` is not iterable, a text is.
fn is_iterable(value: &Value) -> bool {
    use minijinja::value::ValueKind;
    matches!(
        value.kind(),
        ValueKind::Seq
            | ValueKind::Map
            | ValueKind::Iterable
            | ValueKind::String
            | ValueKind::Bytes
    )
}

/// The mark of `raise_exception` in an error's chain.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "strftime_now").with_source(error))
}

fn fault(error: &Error) -> TemplateFault {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return TemplateFault::Refused(message.clone());
        }
        cause = inner.source();
    }
    TemplateFault::Failed(error.to_string())
}

#[derive(Default)]
struct BoundedOutput {
    bytes: Vec<u8>,
}

impl Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and is told by the environment what must be there"
)]
mod tests {
    use std::path::Path;

    use super::{ChatTemplate, Surroundings, TemplateFault};
    use crate::chat::Message;

    fn conversation() -> Vec<Message> {
        [("user", "Hello"), ("assistant", "Hi!"), ("user", "1 + 1?")]
            .map(|(role, content)| Message {
                role: role.to_owned(),
                content: content.to_owned(),
            })
            .to_vec()
    }

    fn render(source: &str) -> Result<String, TemplateFault> {
        let surroundings = Surroundings {
            beginning_text: "<s>".to_owned(),
            end_text: "</s>".to_owned(),
            thinking: None,
        };
        ChatTemplate::parse(source)?.render(&conversation(), &surroundings)
    }

    #[test]
    fn a_model_without_a_template_is_spoken_to_in_chatml() {
        let text = ChatTemplate::fallback()
            .unwrap()
            .render(&conversation()[..1], &Surroundings::default())
            .unwrap();
        assert_eq!(
            text,
            "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_that_raises_says_what_it_minds() {
        let fault = render("{{ raise_exception('no ' + messages[0].role) }}").unwrap_err();
        assert!(matches!(fault, TemplateFault::Refused(message) if message == "no user"));
    }

    #[test]
    fn a_template_without_end_runs_out_of_fuel() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(matches!(
            render(source).unwrap_err(),
            TemplateFault::Failed(_)
        ));
    }

    #[test]
    fn tojson_is_python_s() {
        let text = render("{{ {'a': [1, 'é<'], 'b': none} | tojson }}").unwrap();
        assert_eq!(text, r#"{"a": [1, "é<"], "b": null}"#);
        let text = render("{{ {'a': [1]} | tojson(indent=2) }}").unwrap();
        assert_eq!(text, "{\n  \"a\": [\n    1\n  ]\n}");
    }

    #[test]
    fn python_methods_and_the_date_are_there() {
        let text = render("{{ ' x '.strip().upper() }} {{ strftime_now('%Y') | length }}").unwrap();
        assert_eq!(text, "X 4");
    }

    #[test]
    fn training_marks_and_python_s_iterable_are_understood() {
        let source =
            "{% generation %}a{%- endgeneration -%} {{ none is iterable }} {{ 'x' is iterable }}";
        assert_eq!(render(source).unwrap(), "aFalse True");
    }

    /// The templates of real models, fetched by `scripts/fetch-ggufs.sh`. A template may refuse the
    /// conversation; it may not be unreadable, fail, or panic.
    #[test]
    fn the_templates_of_real_models_render_or_refuse() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.peers/templates");
        let Ok(entries) = std::fs::read_dir(&folder) else {
            assert!(
                std::env::var_os("HAYLOFT_REQUIRE_GGUFS").is_none(),
                "{} is missing: run scripts/fetch-ggufs.sh",
                folder.display()
            );
            return;
        };
        let mut rendered = 0;
        let mut failed = Vec::new();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path
                .extension()
                .is_none_or(|extension| extension != "jinja")
            {
                continue;
            }
            match render(&std::fs::read_to_string(&path).unwrap()) {
                Ok(text) => {
                    assert!(text.contains("1 + 1?"), "{}: {text}", path.display());
                    rendered += 1;
                }
                Err(TemplateFault::Refused(_)) => {}
                Err(fault) => failed.push(format!("{}: {fault}", path.display())),
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        assert!(rendered > 0, "no template in {}", folder.display());
    }
}
