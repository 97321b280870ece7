//! The grammar: from lines to typed instructions.

use super::error::{Error, Fault, shown};
use super::lines::Lines;
use super::parameter::Parameter;
use super::{Instruction, Role};

/// Parses every instruction of a text.
pub(super) fn instructions(text: &str) -> Result<Vec<Instruction>, Error> {
    let mut lines = Lines::new(text);
    let mut instructions = Vec::new();
    loop {
        lines.skip_to_instruction();
        if lines.is_empty() {
            return Ok(instructions);
        }
        instructions.push(instruction(&mut lines)?);
    }
}

fn instruction(lines: &mut Lines<'_>) -> Result<Instruction, Error> {
    let line = lines.line();
    let keyword = lines.word();
    let build: fn(String) -> Instruction = match keyword.to_ascii_lowercase().as_str() {
        "from" => Instruction::From,
        "template" => Instruction::Template,
        "system" => Instruction::System,
        "adapter" => Instruction::Adapter,
        "draft" => Instruction::Draft,
        "license" => Instruction::License,
        "renderer" => Instruction::Renderer,
        "parser" => Instruction::Parser,
        "requires" => {
            |text| Instruction::Requires(text.strip_prefix('v').map(str::to_owned).unwrap_or(text))
        }
        "parameter" => return parameter(lines, line, keyword),
        "message" => return message(lines, line, keyword),
        _ => return Err(Fault::UnknownInstruction.on(line)),
    };
    let instruction = build(value(lines, line, keyword)?.to_owned());
    check(&instruction).map_err(|fault| fault.on(line))?;
    Ok(instruction)
}

/// The value behind `what`, which may be empty but not absent.
fn value<'a>(lines: &mut Lines<'a>, line: usize, what: &str) -> Result<&'a str, Error> {
    if lines.space() {
        lines.value()
    } else {
        Err(missing(line, what))
    }
}

/// The word behind `what`: a role or the name of a parameter.
fn word<'a>(lines: &mut Lines<'a>, line: usize, what: &str) -> Result<&'a str, Error> {
    lines.space();
    match lines.word() {
        "" => Err(missing(line, what)),
        word => Ok(word),
    }
}

fn missing(line: usize, what: &str) -> Error {
    Fault::MissingValue { what: shown(what) }.on(line)
}

fn message(lines: &mut Lines<'_>, line: usize, keyword: &str) -> Result<Instruction, Error> {
    let name = word(lines, line, keyword)?;
    let role = Role::from_name(name).ok_or_else(|| Fault::UnknownRole.on(line))?;
    let content = value(lines, line, name)?;
    Ok(Instruction::Message(role, content.to_owned()))
}

fn parameter(lines: &mut Lines<'_>, line: usize, keyword: &str) -> Result<Instruction, Error> {
    let name = word(lines, line, keyword)?;
    let text = value(lines, line, name)?;
    let parameter = Parameter::parse(name, text).map_err(|fault| fault.on(line))?;
    Ok(Instruction::Parameter(parameter))
}

/// Checks what holds for the value of an instruction, wherever it came from.
pub(super) fn check(instruction: &Instruction) -> Result<(), Fault> {
    match instruction {
        Instruction::From(value) if value.is_empty() => Err(Fault::MissingValue {
            what: instruction.keyword().to_owned(),
        }),
        Instruction::Requires(version) if !is_version(version) => Err(Fault::InvalidVersion),
        _ => Ok(()),
    }
}

/// Whether this is a version of one to three numbers; three may carry a pre-release and a build.
fn is_version(version: &str) -> bool {
    let (core, build) = cut(version, '+');
    let (core, pre_release) = cut(core, '-');
    let numbers = core.split('.').count();
    let extended = build.is_some() || pre_release.is_some();
    core.split('.').all(is_number)
        && (if extended { numbers == 3 } else { numbers <= 3 })
        && build.is_none_or(|build| build.split('.').all(is_identifier))
        && pre_release.is_none_or(|pre_release| {
            pre_release.split('.').all(|part| {
                is_identifier(part)
                    && (is_number(part) || !part.bytes().all(|b| b.is_ascii_digit()))
            })
        })
}

fn cut(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
