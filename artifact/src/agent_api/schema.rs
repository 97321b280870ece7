//! Schemas of the types that are text on the wire and more than text in here.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::digest::Digest;
use crate::reference::Reference;

const DIGEST: &str = "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$";
/// What all references have in common, with or without their host; the whole grammar is that of
/// [`Reference::parse`].
const REFERENCE: &str = concat!(
    r"^([^/@\s]+/)?[a-z0-9._-]+(/[a-z0-9._-]+)*",
    "(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?",
    "(@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?$",
);

impl PartialSchema for Digest {
    fn schema() -> RefOr<Schema> {
        text("A content address", DIGEST)
    }
}

impl ToSchema for Digest {}

impl PartialSchema for Reference {
    fn schema() -> RefOr<Schema> {
        text(
            "The name of a model, HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]; answers have it in full",
            REFERENCE,
        )
    }
}

impl ToSchema for Reference {}

fn text(description: &str, pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
        .into()
}
