//! Authorization: the token handshake, which is `oci_distribution`'s, and who gets to see its result.

use std::fmt;

use oci_distribution::RegistryOperation;
use oci_distribution::errors::OciDistributionError;
use oci_distribution::secrets::RegistryAuth;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{RequestBuilder, Response, StatusCode};
use url::Url;

use crate::client::answer::{is_of_proxy, quoted, read_bounded, retry_after, shown};
use crate::client::error::Error;
use crate::client::logins::{Login, LoginFiles};
use crate::client::registry::{RegistryClient, oci_reference};

/// Most bytes of an error answer that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular; the token handshake is still done where a registry wants one.
    #[default]
    Anonymous,
    /// A user with a password or an access token.
    Basic {
        /// The user.
        username: String,
        /// The password; never shown.
        password: String,
    },
    /// An access token that is sent as it is, such as Hugging Face's; never shown.
    Token(String),
    /// Whoever is logged in, as docker and podman keep it; looked up when a registry asks.
    Stored(LoginFiles),
}

impl Credentials {
    /// Name and password for a registry, `host[:port]`, for requests that are not about one of its
    /// repositories.
    ///
    /// # Errors
    /// [`Error::Login`] when a stored login cannot be used.
    pub async fn name_and_password(
        &self,
        registry: &str,
    ) -> Result<Option<(String, String)>, Error> {
        match self {
            Self::Anonymous | Self::Token(_) => Ok(None),
            Self::Basic { username, password } => Ok(Some((username.clone(), password.clone()))),
            Self::Stored(files) => {
                let login = files.find(registry, None).await?;
                Ok(login.map(|login| (login.username, login.password)))
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username}, …)"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Stored(files) => files.fmt(f),
        }
    }
}

/// What a request is for: the scope that a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Pull,
    Push,
}

/// What a handshake ended with.
#[derive(Clone)]
pub(super) enum Authorization {
    Bearer(String),
    Basic(Login),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Basic(_) => "Basic(…)",
        })
    }
}

impl RegistryClient {
    /// Sends, with a token if there is one; after a 401 does the handshake and sends once more.
    /// `build` makes the request anew for each try.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        build: impl Fn() -> RequestBuilder + Send,
    ) -> Result<Response, Error> {
        let answer = self.send_once(operation, build()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !self.is_own(answer.url()) {
            return Ok(answer);
        }
        self.check_realm(&answer)?;
        let detail = quoted(
            &read_bounded(answer, MAX_ERROR_BYTES)
                .await
                .unwrap_or_default(),
        );
        self.authorize(operation, detail).await?;
        self.send_once(operation, build()).await
    }

    /// Sends once, with the token that an earlier handshake gave: only to the registry itself.
    pub(crate) async fn send_once(
        &self,
        operation: Operation,
        request: RequestBuilder,
    ) -> Result<Response, Error> {
        let (http, request) = request.build_split();
        let request = request.map_err(|source| Error::transport(&self.base, source))?;
        let url = request.url().clone();
        let builder = RequestBuilder::from_parts(http, request);
        let builder = if self.is_own(&url) {
            self.with_authorization(operation, builder)
        } else {
            builder
        };
        let builder = builder.headers(crate::trace::headers());
        builder
            .send()
            .await
            .map_err(|source| self.transport.fault(&url, source))
    }

    fn with_authorization(&self, operation: Operation, builder: RequestBuilder) -> RequestBuilder {
        let token = self
            .tokens
            .read()
            .ok()
            .and_then(|tokens| tokens.get(&operation).cloned());
        match token {
            Some(Authorization::Bearer(token)) => builder.bearer_auth(token),
            Some(Authorization::Basic(login)) => {
                builder.basic_auth(login.username, Some(login.password))
            }
            None => builder,
        }
    }

    /// Whether a URL is on the registry itself: scheme, host and port.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// The handshake: `GET /v2/`, then the token service it names.
    async fn authorize(&self, operation: Operation, refusal: String) -> Result<(), Error> {
        let scope = match operation {
            Operation::Pull => RegistryOperation::Pull,
            Operation::Push => RegistryOperation::Push,
        };
        if let Credentials::Token(token) = &self.credentials {
            if let Ok(mut tokens) = self.tokens.write() {
                tokens.insert(operation, Authorization::Bearer(token.clone()));
            }
            return Ok(());
        }
        let login = self.login().await?;
        let token = self
            .transport
            .oci(self.is_plain, self.reference.is_loopback())?
            .auth(
                &oci_reference(&self.reference),
                &oci_auth(login.as_ref()),
                scope,
            )
            .await
            .map_err(|error| self.oci_fault(error))?;
        let authorization = match (token, login) {
            (Some(token), _) => Authorization::Bearer(token),
            (None, Some(login)) => Authorization::Basic(login),
            (None, None) => return Err(self.denied(refusal)),
        };
        if let Ok(mut tokens) = self.tokens.write() {
            tokens.insert(operation, authorization);
        }
        Ok(())
    }

    /// A token service may be elsewhere, but never reached with less protection than the registry,
    /// and never at an address that carries credentials of its own.
    fn check_realm(&self, answer: &Response) -> Result<(), Error> {
        let challenge = answer.headers().get(WWW_AUTHENTICATE);
        let Some(realm) = challenge.and_then(|value| bearer_realm(value.to_str().ok()?)) else {
            return Ok(());
        };
        let reason = match Url::parse(&realm) {
            Err(_) => "its token service has no valid URL",
            Ok(url) if url.scheme() != "https" && !self.is_plain => {
                "its token service is not reached by https"
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "the URL of its token service carries credentials"
            }
            Ok(_) => return Ok(()),
        };
        Err(self.denied(format!(
            "{reason}: {}",
            realm.chars().take(200).collect::<String>()
        )))
    }

    fn denied(&self, reason: String) -> Error {
        Error::Denied {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().as_str().to_owned(),
            reason: if reason.is_empty() {
                "it asks for credentials".to_owned()
            } else {
                reason
            },
        }
    }

    /// An answer with an unexpected status, as an error.
    pub(crate) async fn fault(&self, answer: Response) -> Error {
        let status = answer.status();
        let asked = answer.url().clone();
        let is_own = self.is_own(&asked);
        let is_marked = is_of_proxy(answer.headers());
        let retry_after = retry_after(answer.headers());
        let detail = quoted(
            &read_bounded(answer, MAX_ERROR_BYTES)
                .await
                .unwrap_or_default(),
        );
        let of_proxy = self
            .transport
            .answer_of_proxy(&asked, status, is_marked, &detail);
        if let Some(error) = of_proxy {
            return error;
        }
        if is_own && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return self.denied(detail);
        }
        Error::Status {
            url: shown(&asked),
            status,
            detail,
            retry_after,
        }
    }

    /// Asks the registry whether the login is right.
    pub(super) async fn check_login(&self) -> Result<(), Error> {
        let mut url = self.base.clone();
        url.set_path("/v2/");
        let ask = || {
            let patience = self.transport.timeouts().stall;
            self.http.get(url.clone()).timeout(patience)
        };
        let answer = self.send(Operation::Pull, ask).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(self.fault(answer).await)
    }

    /// The login for this registry, if there is one.
    pub(super) async fn login(&self) -> Result<Option<Login>, Error> {
        match &self.credentials {
            Credentials::Anonymous | Credentials::Token(_) => Ok(None),
            Credentials::Basic { username, password } => Ok(Some(Login {
                username: username.clone(),
                password: password.clone(),
            })),
            Credentials::Stored(files) => {
                let repository = self.reference.repository().as_str();
                files
                    .find(self.reference.registry(), Some(repository))
                    .await
            }
        }
    }

    pub(super) fn oci_fault(&self, error: OciDistributionError) -> Error {
        match error {
            OciDistributionError::RequestError(source) => {
                let url = source.url().cloned();
                self.transport
                    .fault(url.as_ref().unwrap_or(&self.base), source)
            }
            OciDistributionError::AuthenticationFailure(reason) => {
                self.denied(quoted(reason.as_bytes()))
            }
            OciDistributionError::UnauthorizedError { .. } => self.denied(String::new()),
            OciDistributionError::ServerError { code, url, message } => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
                let detail = quoted(message.as_bytes());
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    return self.denied(detail);
                }
                Error::Status {
                    url,
                    status,
                    detail,
                    retry_after: None,
                }
            }
            other => Error::Handshake {
                registry: self.reference.registry().to_owned(),
                reason: other.to_string(),
            },
        }
    }
}

/// A login in the form of `oci_distribution`.
fn oci_auth(login: Option<&Login>) -> RegistryAuth {
    match login {
        None => RegistryAuth::Anonymous,
        Some(login) => RegistryAuth::Basic(login.username.clone(), login.password.clone()),
    }
}

/// The realm of a Bearer challenge.
fn bearer_realm(challenge: &str) -> Option<String> {
    let (scheme, parameters) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (_, rest) = parameters.split_once("realm=")?;
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().map(str::to_owned),
        None => rest.split(',').next().map(|realm| realm.trim().to_owned()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::client::registry::Credentials;
    use crate::client::registry::auth::bearer_realm;

    #[test]
    fn the_realm_of_a_challenge_is_read_quoted_or_not() {
        let quoted = r#"Bearer realm="https://auth.example/token",service="x",scope="a b""#;
        assert_eq!(bearer_realm(quoted).unwrap(), "https://auth.example/token");
        assert_eq!(
            bearer_realm("bearer realm=http://a/t, service=x").unwrap(),
            "http://a/t"
        );
        assert_eq!(bearer_realm("Basic realm=\"x\""), None);
    }

    #[test]
    fn a_password_never_shows() {
        let credentials = Credentials::Basic {
            username: "user".to_owned(),
            password: "secret".to_owned(),
        };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
