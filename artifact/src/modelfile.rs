//! Modelfile: Ollama's recipe for a model, parsed into typed instructions and printed again.
//!
//! The grammar is Ollama's: one instruction a line, names in any case, `#` comments at the start
//! of a line, and values that are bare (to the end of the line), `"quoted"` or `"""quoted"""` over
//! several lines. Nothing is escaped: a quoted value ends at the first line that ends with its
//! quotes. The text is UTF-8, or UTF-16 where a byte order mark says so.
//!
//! A value is text of a stranger. Whoever follows a `FROM`, `ADAPTER` or `DRAFT` decides which
//! paths it may name; nothing here opens a file.

use std::fmt;

mod error;
mod lines;
mod parameter;
mod parse;
mod text;

pub use error::{Error, Fault};
pub use parameter::{Parameter, ParameterValue, parameters_from_json};

/// Longest Modelfile that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// A parsed Modelfile: at least one `FROM`, every value printable.
#[derive(Debug, Clone, PartialEq)]
pub struct Modelfile {
    instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// `FROM`: the base, a model name or a path. A file may have several: weights and projectors.
    From(String),
    /// `PARAMETER`: a sampling or loading option.
    Parameter(Parameter),
    /// `TEMPLATE`: the prompt template, in Go's template language.
    Template(String),
    /// `SYSTEM`: the system message.
    System(String),
    /// `ADAPTER`: the path of a LoRA adapter.
    Adapter(String),
    /// `DRAFT`: the path of a draft model for speculative decoding.
    Draft(String),
    /// `LICENSE`: a licence text; a file may have several.
    License(String),
    /// `MESSAGE`: a message that every chat starts with.
    Message(Role, String),
    /// `RENDERER`: the name of a built-in prompt renderer.
    Renderer(String),
    /// `PARSER`: the name of a built-in output parser.
    Parser(String),
    /// `REQUIRES`: the lowest version of the runtime, without a leading `v`.
    Requires(String),
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The person asking.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name in lower case, as the grammar and the APIs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// The role of that name; only lower case, as in Ollama.
    fn from_name(name: &str) -> Option<Self> {
        [Self::System, Self::User, Self::Assistant]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Modelfile {
    /// Parses a Modelfile.
    ///
    /// # Errors
    /// An [`Error`] with the line at fault, in Ollama's words where it has some.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = text::decode(bytes)?;
        let instructions = parse::instructions(&text)?;
        require_from(&instructions)?;
        Ok(Self { instructions })
    }

    /// Makes a Modelfile of instructions that came from elsewhere, such as the layers of a model.
    ///
    /// # Errors
    /// [`Fault::NoFrom`] without a `FROM`, [`Fault::Unprintable`] if a value cannot be written in
    /// the grammar (a line in its middle ends with three quotes), and what [`Modelfile::parse`]
    /// says of an empty `FROM` or a `REQUIRES` that is no version.
    pub fn from_instructions(instructions: Vec<Instruction>) -> Result<Self, Error> {
        require_from(&instructions)?;
        for instruction in &instructions {
            parse::check(instruction).map_err(Fault::anywhere)?;
            if let Some(value) = instruction.text()
                && !lines::is_printable(value)
            {
                return Err(Fault::Unprintable {
                    instruction: instruction.keyword(),
                }
                .anywhere());
            }
        }
        Ok(Self { instructions })
    }

    /// The instructions in file order.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The values of `FROM`, in file order; at least one.
    pub fn from(&self) -> impl Iterator<Item = &str> + '_ {
        self.instructions
            .iter()
            .filter_map(|instruction| match instruction {
                Instruction::From(value) => Some(value.as_str()),
                _ => None,
            })
    }

    /// The template; the last one wins.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        self.last(|instruction| match instruction {
            Instruction::Template(value) => Some(value),
            _ => None,
        })
    }

    /// The system message; the last one wins.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.last(|instruction| match instruction {
            Instruction::System(value) => Some(value),
            _ => None,
        })
    }

    /// The adapter's path; the last one wins.
    #[must_use]
    pub fn adapter(&self) -> Option<&str> {
        self.last(|instruction| match instruction {
            Instruction::Adapter(value) => Some(value),
            _ => None,
        })
    }

    /// The licence texts, in file order.
    pub fn licenses(&self) -> impl Iterator<Item = &str> + '_ {
        self.instructions
            .iter()
            .filter_map(|instruction| match instruction {
                Instruction::License(value) => Some(value.as_str()),
                _ => None,
            })
    }

    /// The messages that every chat starts with, in file order.
    pub fn messages(&self) -> impl Iterator<Item = (Role, &str)> + '_ {
        self.instructions
            .iter()
            .filter_map(|instruction| match instruction {
                Instruction::Message(role, content) => Some((*role, content.as_str())),
                _ => None,
            })
    }

    /// The parameters as the JSON map that Ollama keeps in its `.params` layer: the last value of
    /// a name wins, `stop` collects all of its values, deprecated names are left out.
    #[must_use]
    pub fn parameters(&self) -> serde_json::Map<String, serde_json::Value> {
        let parameters = self
            .instructions
            .iter()
            .filter_map(|instruction| match instruction {
                Instruction::Parameter(parameter) => Some(parameter),
                _ => None,
            });
        parameter::to_json(parameters)
    }

    fn last<'a>(&'a self, pick: impl Fn(&'a Instruction) -> Option<&'a String>) -> Option<&'a str> {
        self.instructions
            .iter()
            .rev()
            .find_map(pick)
            .map(String::as_str)
    }
}

impl Instruction {
    /// The name of the instruction, in the upper case that is printed.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Parameter(_) => "PARAMETER",
            Self::Template(_) => "TEMPLATE",
            Self::System(_) => "SYSTEM",
            Self::Adapter(_) => "ADAPTER",
            Self::Draft(_) => "DRAFT",
            Self::License(_) => "LICENSE",
            Self::Message(..) => "MESSAGE",
            Self::Renderer(_) => "RENDERER",
            Self::Parser(_) => "PARSER",
            Self::Requires(_) => "REQUIRES",
        }
    }

    /// The free text of the instruction, without a role or a parameter's name; `None` where the
    /// value is a number or a truth value.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::From(value)
            | Self::Template(value)
            | Self::System(value)
            | Self::Adapter(value)
            | Self::Draft(value)
            | Self::License(value)
            | Self::Message(_, value)
            | Self::Renderer(value)
            | Self::Parser(value)
            | Self::Requires(value) => Some(value),
            Self::Parameter(parameter) => parameter.value().as_text(),
        }
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.keyword())?;
        match self {
            Self::Parameter(parameter) => write!(f, "{} ", parameter.name())?,
            Self::Message(role, _) => write!(f, "{role} ")?,
            _ => {}
        }
        match (self, self.text()) {
            (_, Some(text)) => lines::write_value(f, text),
            (Self::Parameter(parameter), None) => parameter.value().fmt(f),
            (_, None) => Ok(()),
        }
    }
}

/// The canonical text: parsing it gives the same instructions.
impl fmt::Display for Modelfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instructions
            .iter()
            .try_for_each(|instruction| writeln!(f, "{instruction}"))
    }
}

fn require_from(instructions: &[Instruction]) -> Result<(), Error> {
    if instructions
        .iter()
        .any(|instruction| matches!(instruction, Instruction::From(_)))
    {
        Ok(())
    } else {
        Err(Fault::NoFrom.anywhere())
    }
}

#[cfg(test)]
mod tests;
