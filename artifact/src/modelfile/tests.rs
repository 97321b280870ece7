//! Tests of the Modelfile parser and printer.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::json;

use super::{
    Fault, Instruction, MAX_BYTES, Modelfile, Parameter, ParameterValue, Role, parameters_from_json,
};

fn parse(text: &str) -> Modelfile {
    Modelfile::parse(text.as_bytes()).unwrap()
}

fn message(text: &str) -> String {
    Modelfile::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn every_instruction_is_read_in_any_case() {
    let file = parse(
        "# a comment\n\n  from llama3.2:1b\nFROM ./projector.gguf\nParameter temperature 0.7\n\
         PARAMETER num_ctx 4096\nTEMPLATE \"\"\"{{ .System }}\n{{ .Prompt }}\"\"\"\n\
         sYsTeM You are \"terse\".\nADAPTER ./lora.gguf\nDRAFT ./draft.gguf\n\
         LICENSE \"two\nlines\"\nLICENSE MIT\nMESSAGE user Hello\nMESSAGE assistant \" hi\"\n\
         RENDERER qwen3\nPARSER qwen3\nREQUIRES v0.14.0",
    );
    assert_eq!(
        file.from().collect::<Vec<_>>(),
        ["llama3.2:1b", "./projector.gguf"]
    );
    assert_eq!(file.template(), Some("{{ .System }}\n{{ .Prompt }}"));
    assert_eq!(file.system(), Some("You are \"terse\"."));
    assert_eq!(file.adapter(), Some("./lora.gguf"));
    assert_eq!(file.licenses().collect::<Vec<_>>(), ["two\nlines", "MIT"]);
    let messages: Vec<_> = file.messages().collect();
    assert_eq!(messages, [(Role::User, "Hello"), (Role::Assistant, " hi")]);
    assert_eq!(
        json!(file.parameters()),
        json!({"temperature": 0.7, "num_ctx": 4096})
    );
    for expected in [
        Instruction::Draft("./draft.gguf".into()),
        Instruction::Renderer("qwen3".into()),
        Instruction::Parser("qwen3".into()),
        Instruction::Requires("0.14.0".into()),
    ] {
        assert!(file.instructions().contains(&expected), "{expected}");
    }
}

#[test]
fn the_printed_text_is_canonical() {
    let text = "from  a \nsystem  \"\"\"x\"\"\"\ntemplate \"\"\"say \"x\"\n\"\"\"\nsystem\t\nmessage user \"\"hi\"\n\
                parameter stop \" <s>\"\nparameter top_p .50\nparameter use_mmap T";
    let printed = parse(text).to_string();
    assert_eq!(
        printed,
        "FROM a\nSYSTEM x\nTEMPLATE \"\"\"say \"x\"\n\"\"\"\nSYSTEM \"\"\nMESSAGE user \"\"\"\"hi\"\"\"\n\
         PARAMETER stop \" <s>\"\nPARAMETER top_p 0.5\nPARAMETER use_mmap true\n"
    );
    assert_eq!(parse(&printed), parse(text));
}

#[test]
fn errors_carry_the_line_and_the_words_of_ollama() {
    let unknown = "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \
                   \"draft\", \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\"";
    assert_eq!(
        message("FROM foo\nBADCOMMAND param1 value1"),
        format!("(line 2): {unknown}")
    );
    assert_eq!(
        message("FROM foo\r\n\r\n\"SYSTEM\" x"),
        format!("(line 3): {unknown}")
    );
    assert_eq!(message(""), "no FROM line");
    assert_eq!(message("PARAMETER top_k 1"), "no FROM line");
    assert_eq!(
        message("FROM foo\nMESSAGE badguy I'm a bad guy!"),
        "(line 2): message role must be one of \"system\", \"user\", or \"assistant\""
    );
    assert_eq!(
        message("FROM foo\n\n# c\nPARAMETER temprature 1"),
        "(line 4): unknown parameter 'temprature'"
    );
    assert_eq!(
        message("FROM foo\nPARAMETER temperature hot"),
        "(line 2): invalid float value 'hot' for parameter 'temperature'"
    );
    assert_eq!(
        message("FROM foo\nPARAMETER seed 1.5"),
        "(line 2): invalid int value '1.5' for parameter 'seed'"
    );
    assert_eq!(
        message("FROM foo\nPARAMETER use_mmap yes"),
        "(line 2): invalid bool value 'yes' for parameter 'use_mmap'"
    );
    assert_eq!(
        message("FROM foo\nREQUIRES 1.x"),
        "(line 2): requires must be a valid semver (e.g. 0.14.0)"
    );
    assert_eq!(
        message("FROM"),
        "(line 1): unexpected EOF: FROM has no value"
    );
    assert_eq!(
        message("FROM \n"),
        "(line 1): unexpected EOF: FROM has no value"
    );
    assert_eq!(
        message("FROM a\nMESSAGE user"),
        "(line 2): unexpected EOF: user has no value"
    );
    assert_eq!(
        message("FROM a\nPARAMETER"),
        "(line 2): unexpected EOF: PARAMETER has no value"
    );
    assert_eq!(
        message("FROM a\nSYSTEM \"\"\"x\ny\"\n"),
        "(line 2): unexpected EOF: the text that \"\"\" opens here is never closed by \"\"\" at the end of a line"
    );
}

#[test]
fn a_word_of_a_stranger_is_shortened_and_escaped() {
    let text = message(&format!(
        "FROM a\nPARAMETER \u{1b}[2J{} 1",
        "x".repeat(1000)
    ));
    assert!(text.len() < 150 && text.contains("\\u{1b}[2J"), "{text}");
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for text in ["nan", "inf", "-infinity", "1e99"] {
        assert!(Parameter::parse("temperature", text).is_err(), "{text}");
    }
}

#[test]
fn stop_collects_and_the_last_value_of_others_wins() {
    let file = parse(
        "FROM a\nPARAMETER stop <|im_end|>\nPARAMETER top_k 1\nPARAMETER stop \"\"\"User:\"\"\"\n\
         PARAMETER top_k 20\nPARAMETER mirostat 2\nPARAMETER top_p 0.9",
    );
    let map = file.parameters();
    assert_eq!(
        json!(map),
        json!({"stop": ["<|im_end|>", "User:"], "top_k": 20, "top_p": 0.9})
    );
    let again: Vec<String> = parameters_from_json(&map)
        .unwrap()
        .into_iter()
        .map(|parameter| Instruction::Parameter(parameter).to_string())
        .collect();
    assert_eq!(
        again,
        [
            "PARAMETER stop <|im_end|>",
            "PARAMETER stop User:",
            "PARAMETER top_k 20",
            "PARAMETER top_p 0.9"
        ]
    );
    assert!(Parameter::parse("mirostat", "2").unwrap().is_deprecated());
}

#[test]
fn parameters_of_a_layer_may_be_written_loosely() {
    let layer = json!({"num_ctx": 4096.0, "temperature": 1, "use_mmap": false, "stop": "x"});
    let parameters = parameters_from_json(layer.as_object().unwrap()).unwrap();
    let values: Vec<_> = parameters
        .iter()
        .map(|parameter| parameter.value().clone())
        .collect();
    assert_eq!(
        values,
        [
            ParameterValue::Int(4096),
            ParameterValue::Float(1.0),
            ParameterValue::Bool(false),
            ParameterValue::Text("x".into()),
        ]
    );
    for bad in [
        json!({"num_ctx": null}),
        json!({"top_k": 1.5}),
        json!({"nonsense": 1}),
    ] {
        assert!(
            parameters_from_json(bad.as_object().unwrap()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn utf_16_with_a_byte_order_mark_is_read() {
    let text = "FROM größe 🌾\nSYSTEM \"x\ny\"";
    let little: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let big: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(text.encode_utf16())
        .flat_map(u16::to_be_bytes)
        .collect();
    assert_eq!(Modelfile::parse(&little).unwrap(), parse(text));
    assert_eq!(Modelfile::parse(&big).unwrap(), parse(text));
    assert_eq!(parse(&format!("\u{feff}{text}")), parse(text));
    assert!(Modelfile::parse(&little[..little.len() - 1]).is_err());
    assert!(Modelfile::parse(&[0xff, 0xfe, 0x00, 0xd8]).is_err());
    let error = Modelfile::parse(b"FROM a\nSYSTEM \xff").unwrap_err();
    assert_eq!(
        error.to_string(),
        "(line 2): the Modelfile is not UTF-8 text; save it as UTF-8"
    );
}

#[test]
fn a_megabyte_is_the_most_and_takes_no_time() {
    let too_large = vec![b'#'; MAX_BYTES + 1];
    let error = Modelfile::parse(&too_large).unwrap_err();
    assert_eq!(
        error.fault,
        Fault::TooLarge {
            size: MAX_BYTES + 1
        }
    );

    // Each of these is quadratic in a parser that looks back at every end of line.
    let size = MAX_BYTES / 2;
    for (open, unit) in [
        ("\"", "\n"),
        ("\"\"\"", "\"\n"),
        ("\"", " \n"),
        ("\"x", "\r"),
        ("#", "\n#"),
    ] {
        let text = format!("FROM a\nSYSTEM {open}{}", unit.repeat(size / unit.len()));
        let _ = Modelfile::parse(text.as_bytes());
        let text = format!(
            "SYSTEM {}{open}{}",
            "\u{a0}".repeat(size / 4),
            unit.repeat(size / 4)
        );
        let _ = Modelfile::parse(text.as_bytes());
    }
}

#[test]
fn a_value_that_the_grammar_cannot_hold_is_refused() {
    let from = Instruction::From("a".into());
    let system = Instruction::System("say \"\"\"\nand go on".into());
    let error = Modelfile::from_instructions(vec![from.clone(), system]).unwrap_err();
    assert_eq!(
        error.fault,
        Fault::Unprintable {
            instruction: "SYSTEM"
        }
    );
    assert!(Modelfile::from_instructions(Vec::new()).is_err());
    let requires = Instruction::Requires("latest".into());
    assert!(Modelfile::from_instructions(vec![from, requires]).is_err());
}

#[test]
fn versions_are_those_of_semver_and_its_short_forms() {
    for good in [
        "1",
        "0.14",
        "0.14.0",
        "v0.14.0",
        "1.2.3-rc.1",
        "1.2.3+build.01",
        "1.2.3-a-b+c",
    ] {
        assert!(
            Modelfile::parse(format!("FROM a\nREQUIRES {good}").as_bytes()).is_ok(),
            "{good}"
        );
    }
    for bad in [
        "", "01.2.3", "1.2.3.4", "1.2-rc", "1.2.3-", "1.2.3-01", "1.2.3+", "1..2", "-1", "x",
    ] {
        assert!(
            Modelfile::parse(format!("FROM a\nREQUIRES \"{bad}\"").as_bytes()).is_err(),
            "{bad}"
        );
    }
}

/// Text that is rich in what the grammar cares for.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z\" \t\n\r#é\u{a0}]{0,24}",
        "(\"{0,4}|\n| |x|FROM y){0,8}",
        any::<String>(),
    ]
}

fn parameter() -> impl Strategy<Value = Parameter> {
    prop_oneof![
        (
            Just("num_ctx"),
            any::<i64>().prop_map(|number| number.to_string())
        ),
        (
            Just("temperature"),
            any::<f32>().prop_map(|number| number.to_string())
        ),
        (
            Just("use_mmap"),
            any::<bool>().prop_map(|truth| truth.to_string())
        ),
        (Just("stop"), value()),
        (Just("mirostat"), value()),
    ]
    .prop_filter_map("not a finite number", |(name, text)| {
        Parameter::parse(name, &text).ok()
    })
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let role = prop_oneof![Just(Role::System), Just(Role::User), Just(Role::Assistant)];
    prop_oneof![
        value().prop_map(Instruction::From),
        parameter().prop_map(Instruction::Parameter),
        value().prop_map(Instruction::Template),
        value().prop_map(Instruction::System),
        value().prop_map(Instruction::Adapter),
        value().prop_map(Instruction::Draft),
        value().prop_map(Instruction::License),
        (role, value()).prop_map(|(role, text)| Instruction::Message(role, text)),
        value().prop_map(Instruction::Renderer),
        value().prop_map(Instruction::Parser),
        "[0-9]{1,2}(\\.[0-9]){0,2}".prop_map(Instruction::Requires),
    ]
}

proptest! {
    #[test]
    fn any_bytes_give_a_modelfile_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(file) = Modelfile::parse(&bytes) {
            prop_assert_eq!(Modelfile::parse(file.to_string().as_bytes()).unwrap(), file);
        }
    }

    #[test]
    fn what_was_parsed_prints_and_parses_to_the_same(
        lines in proptest::collection::vec((0..12_usize, value()), 0..8)
    ) {
        let keywords = ["FROM", "PARAMETER stop", "template", "SYSTEM", "MESSAGE user", "LICENSE",
            "ADAPTER", "Draft", "RENDERER", "PARSER", "REQUIRES", "#"];
        let mut text = String::from("FROM base\n");
        for (keyword, value) in lines {
            text.push_str(keywords[keyword]);
            text.push(' ');
            text.push_str(&value);
            text.push('\n');
        }
        if let Ok(file) = Modelfile::parse(text.as_bytes()) {
            let printed = file.to_string();
            prop_assert_eq!(&Modelfile::parse(printed.as_bytes()).unwrap(), &file);
            prop_assert_eq!(Modelfile::from_instructions(file.instructions().to_vec()), Ok(file));
        }
    }

    #[test]
    fn instructions_from_elsewhere_print_and_parse_to_the_same(
        instructions in proptest::collection::vec(instruction(), 1..6)
    ) {
        if let Ok(file) = Modelfile::from_instructions(instructions) {
            prop_assert_eq!(Modelfile::parse(file.to_string().as_bytes()), Ok(file));
        }
    }

    #[test]
    fn cut_anywhere_a_modelfile_never_breaks_the_parser(text in "(FROM|SYSTEM|MESSAGE user|PARAMETER stop)? ?\"{0,3}[a-z \n\"]{0,40}\"{0,3}\n?") {
        for end in 0..=text.len() {
            if let Err(error) = Modelfile::parse(&text.as_bytes()[..end]) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
