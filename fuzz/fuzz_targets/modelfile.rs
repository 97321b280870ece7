//! Any bytes as a Modelfile: an error, or instructions that print and parse to the same.
#![no_main]

use artifact::modelfile::{Modelfile, parameters_from_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Modelfile::parse(bytes) {
    Ok(file) => {
        let printed = file.to_string();
        assert_eq!(Modelfile::parse(printed.as_bytes()), Ok(file.clone()));
        assert_eq!(Modelfile::from_instructions(file.instructions().to_vec()), Ok(file.clone()));
        assert!(parameters_from_json(&file.parameters()).is_ok());
    }
    Err(error) => assert!(!error.to_string().contains(char::is_control)),
});
