//! Configuration: flags over the environment over one TOML file over defaults.
//!
//! The keys of the file are the long names of the flags (`keys`). What the file says (`file`) is
//! put into the definition of the command line as defaults before that is parsed (`layers`), so
//! that one parser gives precedence, checks and messages for all of it, and every value can be
//! traced to where it came from (`show`).

pub(crate) mod file;
pub(crate) mod keys;
mod layers;
mod nearest;
mod registry;
pub(crate) mod retention;
pub(crate) mod secrets;
pub(crate) mod show;
pub(crate) mod table;
pub(crate) mod upstream;
mod variables;

pub(crate) use layers::{Failure, Loaded, load};
