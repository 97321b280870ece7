//! Any text as a reference: an error, or a reference that prints and parses to the same.
#![no_main]

use artifact::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        let printed = reference.to_string();
        assert_eq!(Reference::parse(&printed).ok(), Some(reference), "{text:?} printed {printed:?}");
    }
});
