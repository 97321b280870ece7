//! Stored logins: the files in which docker and podman keep them, the helpers these name, and pull
//! secrets.

mod secrets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::client::error::Error;

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;
/// A credential helper that takes longer is taken to be waiting for somebody who is not there.
const HELPER_TIME: Duration = Duration::from_secs(30);

/// The files to look for a login in: pull secrets, then those of docker and podman, of which the
/// first one that has it decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginFiles {
    secrets: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Login({}, …)", self.username)
    }
}

impl LoginFiles {
    /// Files in the form of docker's `config.json`; those that do not exist are passed over.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            secrets: Vec::new(),
            files,
        }
    }

    /// The same, after pull secrets: files in the form of `config.json`, `.dockerconfigjson` or
    /// `.dockercfg`, folders that hold such files, and folders of such folders, as Kubernetes
    /// mounts secrets. Their keys are matched as the kubelet does; helpers that they name are not
    /// asked.
    #[must_use]
    pub fn after_secrets(mut self, places: Vec<PathBuf>) -> Self {
        self.secrets = places;
        self
    }

    /// Where a login for a registry, `host[:port]`, is found, without the login itself: for people
    /// who wonder which one is used.
    ///
    /// # Errors
    /// [`Error::Login`] when a file cannot be used.
    pub async fn find_place(
        &self,
        registry: &str,
        repository: Option<&str>,
    ) -> Result<Option<PathBuf>, Error> {
        let found = self.look(registry, repository).await?;
        Ok(found.map(|(place, _)| place))
    }

    /// The login for a repository of a registry, `host[:port]`, or for the registry as a whole.
    /// Files are read anew each time: a login takes effect at once, in an agent that has run for
    /// months too.
    pub(crate) async fn find(
        &self,
        registry: &str,
        repository: Option<&str>,
    ) -> Result<Option<Login>, Error> {
        let found = self.look(registry, repository).await?;
        Ok(found.map(|(_, login)| login))
    }

    async fn look(
        &self,
        registry: &str,
        repository: Option<&str>,
    ) -> Result<Option<(PathBuf, Login)>, Error> {
        let known = self.clone();
        let (asked, within) = (registry.to_owned(), repository.map(str::to_owned));
        // A helper is a process that is waited for.
        let look = tokio::task::spawn_blocking(move || known.look_now(&asked, within.as_deref()));
        match tokio::time::timeout(HELPER_TIME, look).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(unusable(registry, "the look-up failed".to_owned())),
            Err(_) => Err(unusable(
                registry,
                "its credential helper does not answer".to_owned(),
            )),
        }
    }

    fn look_now(
        &self,
        registry: &str,
        repository: Option<&str>,
    ) -> Result<Option<(PathBuf, Login)>, Error> {
        let mut secrets = Vec::new();
        for place in &self.secrets {
            let files = secrets::files_at(place);
            secrets.extend(files.map_err(|error| unusable(registry, error.to_string()))?);
        }
        let found = secrets::find(&secrets, registry, repository)
            .map_err(|error| unusable(registry, error.to_string()))?;
        if let Some(found) = found {
            return Ok(Some(found));
        }
        for file in &self.files {
            if let Some(login) = find_in(file, registry)? {
                return Ok(Some((file.clone(), login)));
            }
        }
        Ok(None)
    }
}

fn find_in(file: &Path, registry: &str) -> Result<Option<Login>, Error> {
    use std::io::Read;
    let reader = match std::fs::File::open(file) {
        Ok(reader) => reader.take(MAX_BYTES),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(unusable(registry, format!("{}: {source}", file.display())));
        }
    };
    match docker_credential::get_credential_from_reader(reader, registry) {
        Ok(DockerCredential::UsernamePassword(username, _)) if username.is_empty() => Ok(None),
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(Login { username, password }))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            let problem = "it is an identity token, not a name and password";
            Err(unusable(registry, format!("{}: {problem}", file.display())))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // A helper for everything is also asked for registries that nobody ever logged in to.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(None)
        }
        // What a helper prints may hold a secret.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
            Err(unusable(registry, format!("{helper} failed")))
        }
        Err(error) => Err(unusable(registry, format!("{}: {error}", file.display()))),
    }
}

fn unusable(registry: &str, problem: String) -> Error {
    Error::Login {
        registry: registry.to_owned(),
        problem,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::path::PathBuf;

    use crate::client::logins::LoginFiles;

    fn file(name: &str, content: &str) -> PathBuf {
        let name = format!("hayloft-logins-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    #[tokio::test]
    async fn the_first_file_with_a_login_decides_and_missing_files_do_not_matter() {
        let first = file("first", r#"{"auths":{"a:5000":{"auth":"dTpw"}}}"#);
        let second = file(
            "second",
            r#"{"auths":{"a:5000":{"auth":"eDp5"},"https://b/v2/":{"auth":"bTpu"}}}"#,
        );
        let files = LoginFiles::new(vec!["/nonexistent/config.json".into(), first, second]);
        let a = files.find("a:5000", None).await.unwrap().unwrap();
        assert_eq!((a.username.as_str(), a.password.as_str()), ("u", "p"));
        assert_eq!(files.find("b", None).await.unwrap().unwrap().username, "m");
        assert!(files.find("c", None).await.unwrap().is_none());
        assert!(!format!("{a:?}").contains('p'));
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_an_error_and_not_an_anonymous_try() {
        let broken = file("broken", "{");
        assert!(LoginFiles::new(vec![broken]).find("a", None).await.is_err());
        let token = file("token", r#"{"auths":{"a":{"identitytoken":"x"}}}"#);
        assert!(LoginFiles::new(vec![token]).find("a", None).await.is_err());
        let helper = file("helper", r#"{"credHelpers":{"a":"hayloft-no-such"}}"#);
        assert!(LoginFiles::new(vec![helper]).find("a", None).await.is_err());
    }
}
