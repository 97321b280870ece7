//! The Ollama library as an origin: a registry without `/v2/`, lists, manifests by digest, lengths
//! or digests of manifests, whose blobs are on another host. Names may hold upper case.

use crate::client::error::Error;
use crate::client::origin::{Answer, Known, OriginUrl, Selector, oci};
use crate::client::registry::{Asked, RegistryClient, RegistryOptions};
use crate::client::transport::Transport;
use crate::media_type::DOCKER_MANIFEST;

/// Namespace of the models that are named without one.
const LIBRARY: &str = "library";

pub(super) fn open(
    transport: &Transport,
    at: &OriginUrl,
    repository: &str,
    options: &RegistryOptions,
) -> Result<RegistryClient, Error> {
    let name = if repository.contains('/') {
        repository.to_owned()
    } else {
        format!("{LIBRARY}/{repository}")
    };
    // Whatever folds to a valid name is safe in a path as it stands.
    let reference = oci::reference(at, &name.to_ascii_lowercase())?;
    let path = match at.prefix() {
        "" => name,
        prefix => format!("{prefix}/{name}"),
    };
    let base = oci::base(at, &at.host(), &path)?;
    RegistryClient::with_base(transport, &reference, options, base)
}

pub(super) async fn manifest(
    registry: &RegistryClient,
    at: &OriginUrl,
    selector: &Selector,
    known: Option<&Known>,
) -> Result<Answer, Error> {
    if matches!(selector, Selector::Digest(_)) {
        return Err(Error::Unsupported {
            what: format!("a manifest by its digest, {selector}"),
            place: at.to_string(),
            reason: "the Ollama library knows tags alone",
        });
    }
    let tag = oci::checked(selector)?;
    let asked = Asked {
        selector: &tag,
        accept: DOCKER_MANIFEST,
        etag: known.and_then(|known| known.etag.as_deref()),
    };
    oci::fetched(registry.manifest(asked).await?, known)
}
