//! Configuration: flags over the environment over one TOML file over defaults.

mod registry;
pub(crate) mod retention;
mod secrets;
