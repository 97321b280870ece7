//! Which dialect a client speaks, told from what it accepts and what it calls itself.
//!
//! By digest everybody gets exactly the bytes. By tag an Ollama gets Ollama's manifest and Docker
//! Model Runner its own; whoever takes OCI manifests, or anything, gets what was pushed.

use artifact::Repository;
use artifact::dialect::Dialect;
use artifact::media_type::{DOCKER_MANIFEST, OCI_MANIFEST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};

use crate::error::Error;
use crate::http::{State, header_text};
use crate::service::manifests::{FoundManifest, ManifestReference};

/// What an answer by tag depends on, for caches in between.
pub(super) const VARY: HeaderValue = HeaderValue::from_static("accept, user-agent");

/// What Ollama calls itself: `ollama/0.9.6 (amd64 linux) Go/go1.24.4`.
const OLLAMA: &str = "ollama";
/// What Docker Model Runner and its command line call themselves.
const DOCKER_MODEL: [&str; 3] = [
    "model-distribution",
    "docker-model-runner",
    "docker-model-cli",
];

/// The manifest in the dialect of this client.
pub(super) async fn spoken(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    reference: &ManifestReference,
    found: FoundManifest,
) -> Result<FoundManifest, Error> {
    let dialect = match reference {
        ManifestReference::Tag(_) => dialect_of(&parts.headers),
        ManifestReference::Digest(_) => None,
    };
    let Some(dialect) = dialect else {
        return Ok(found);
    };
    let pushed = found.clone();
    match state.registry.in_dialect(repository, found, dialect).await {
        // It reads ModelPack too: what was pushed is more use to it than a refusal.
        Err(Error::Dialect { .. }) if dialect == Dialect::Docker => Ok(pushed),
        derived => derived,
    }
}

/// The dialect that a client speaks; `None` for one that takes what was pushed.
fn dialect_of(headers: &HeaderMap) -> Option<Dialect> {
    let agent = header_text(headers, &header::USER_AGENT).unwrap_or_default();
    let program = agent.split(['/', ' ']).next().unwrap_or_default();
    let accepted = Accepted::of(headers);
    if DOCKER_MODEL.contains(&program) {
        return Some(Dialect::Docker);
    }
    let is_ollama = program == OLLAMA && !accepted.oci;
    // Tools that know Docker's manifests alone would not read what was pushed either.
    let knows_docker_alone = accepted.docker && !accepted.oci && !accepted.anything;
    (is_ollama || knows_docker_alone).then_some(Dialect::Ollama)
}

/// What the `Accept` headers say of manifests.
#[derive(Debug, Default)]
struct Accepted {
    oci: bool,
    docker: bool,
    anything: bool,
}

impl Accepted {
    fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let values = headers.get_all(header::ACCEPT).iter();
        for range in values.filter_map(|value| value.to_str().ok()) {
            for range in range.split(',') {
                let media_type = range.split(';').next().unwrap_or_default().trim();
                accepted.oci |= media_type.eq_ignore_ascii_case(OCI_MANIFEST);
                accepted.docker |= media_type.eq_ignore_ascii_case(DOCKER_MANIFEST);
                accepted.anything |= ["*/*", "application/*"].contains(&media_type);
            }
        }
        accepted
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::dialect::Dialect;
    use artifact::media_type::{ACCEPT_MANIFESTS, DOCKER_MANIFEST, OCI_MANIFEST};
    use http::{HeaderMap, header};

    use crate::http::dialects::dialect_of;

    #[test]
    fn clients_are_told_by_what_they_accept_and_call_themselves() {
        let ollama = "ollama/0.9.6 (amd64 linux) Go/go1.24.4";
        let containerd = format!("{DOCKER_MANIFEST}, {OCI_MANIFEST}, */*");
        for (agent, accept, wanted) in [
            (ollama, DOCKER_MANIFEST, Some(Dialect::Ollama)),
            (ollama, "", Some(Dialect::Ollama)),
            (ollama, OCI_MANIFEST, None),
            ("curl/8.1", "*/*", None),
            ("curl/8.1", "", None),
            ("curl/8.1", DOCKER_MANIFEST, Some(Dialect::Ollama)),
            ("skopeo/1.9", ACCEPT_MANIFESTS, None),
            ("containerd/2.1", &containerd, None),
            ("model-distribution", &containerd, Some(Dialect::Docker)),
            ("docker-model-cli/v1.0", OCI_MANIFEST, Some(Dialect::Docker)),
            ("llama-cpp", "application/json", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(dialect_of(&headers), wanted, "{agent}: {accept}");
        }
    }
}
