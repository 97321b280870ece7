//! Accounts from an htpasswd file: one `name:hash` in a line, the hash by bcrypt.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::http::access::proven::Proven;
use crate::http::access::{Access, Identity, Policy, Unidentified, basic};
use crate::watched::{Reload, Stamps, Watch};

/// Largest file that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Highest cost that is accepted: each step doubles the time, and 15 takes two seconds already.
const MAX_COST: u32 = 15;
/// Cost of checking the password of nobody while the file is empty.
const EMPTY_COST: u32 = 10;
/// Passwords checked at once: each keeps a core busy, and the others have blobs to send.
const CHECKS: usize = 2;
/// Requests that may wait for that; more are sent away.
const WAITING: usize = 200;

/// The policy of an htpasswd file: who is in it may do everything, nobody else anything.
#[derive(Debug)]
pub(crate) struct Accounts {
    entries: Arc<ArcSwap<Entries>>,
    proven: Proven,
    checks: Arc<Semaphore>,
    places: Semaphore,
    _watch: Watch,
}

impl Accounts {
    /// Reads the file, and again whenever it changes. A bad file is refused now; later the
    /// accounts stay as they were, and the log says why.
    pub(crate) fn open(path: PathBuf, reload: Reload) -> Result<Self, Error> {
        let seen = Stamps::of(&[&path]);
        let entries = Entries::read(&path)?;
        if entries.hashes.is_empty() {
            tracing::warn!(path = %path.display(), "the htpasswd file names nobody: nobody gets in");
        }
        let entries = Arc::new(ArcSwap::from_pointee(entries));
        let shared = Arc::clone(&entries);
        let watch = Watch::start(
            vec![path.clone()],
            seen,
            reload,
            move || match Entries::read(&path) {
                Ok(entries) => {
                    tracing::info!(
                        accounts = entries.hashes.len(),
                        "read the htpasswd file again"
                    );
                    shared.store(Arc::new(entries));
                }
                Err(error) => tracing::error!(
                    error = error.chain(),
                    "the htpasswd file is refused: the accounts stay as they were"
                ),
            },
        );
        Ok(Self {
            entries,
            proven: Proven::new(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            places: Semaphore::new(WAITING),
            _watch: watch,
        })
    }

    async fn check(&self, name: String, password: String) -> Result<Identity, Unidentified> {
        let entries = self.entries.load_full();
        let known = entries.hashes.get(&name);
        let hash = known.unwrap_or(&entries.nobody).clone();
        let mark = self.proven.mark(&name, &password, &hash);
        if self.proven.has(&mark) {
            return Ok(Identity::User(name.into()));
        }
        let _place = self.places.try_acquire().map_err(|_| Unidentified::Busy)?;
        let turn = Arc::clone(&self.checks).acquire_owned().await;
        let turn = turn.map_err(|_| Unidentified::Busy)?;
        // Clients send many requests at once: the first one may have proven it meanwhile.
        if self.proven.has(&mark) {
            return Ok(Identity::User(name.into()));
        }
        let is_known = known.is_some();
        let check = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even when the client has gone.
            let _turn = turn;
            // An unknown name is checked against a hash that nothing matches, and so takes as
            // long as a wrong password. The comparison itself is in constant time.
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        if check.await.unwrap_or(false) && is_known {
            self.proven.note(mark);
            return Ok(Identity::User(name.into()));
        }
        Err(Unidentified::Wrong)
    }
}

impl Policy for Accounts {
    fn identify<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Identity, Unidentified>> {
        match basic::read(headers) {
            basic::Sent::Nothing => Box::pin(std::future::ready(Ok(Identity::Anonymous))),
            basic::Sent::Login(name, password) => Box::pin(self.check(name, password)),
            basic::Sent::Unreadable => Box::pin(std::future::ready(Err(Unidentified::Wrong))),
        }
    }

    fn allows(&self, identity: &Identity, _access: &Access<'_>) -> bool {
        matches!(identity, Identity::User(_))
    }

    fn challenge(&self) -> HeaderValue {
        basic::challenge()
    }
}

/// What the file says.
struct Entries {
    hashes: HashMap<String, String>,
    /// A hash that no password has, of the highest cost in the file.
    nobody: String,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Entries({})", self.hashes.len())
    }
}

impl Entries {
    fn read(path: &Path) -> Result<Self, Error> {
        let read = || {
            use std::io::Read;
            let mut text = String::new();
            let file = std::fs::File::open(path)?;
            file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(Error::storage("read", path))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(refused(
                path,
                0,
                format!("it has more than {MAX_BYTES} bytes"),
            ));
        }
        Self::parse(&text).map_err(|(line, problem)| refused(path, line, problem))
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut hashes = HashMap::new();
        let mut cost = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = entry(line).map_err(|problem| (number, problem))?;
            cost = cost.max(Some(hash.get_cost()));
            let (_, hash) = line.split_once(':').unwrap_or_default();
            if hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
                let problem = "the name stands in an earlier line too: remove one of them";
                return Err((number, problem.to_owned()));
            }
        }
        let cost = cost.unwrap_or(EMPTY_COST);
        Ok(Self {
            hashes,
            // All of salt and hash zero: a valid form, and no password is known to give it.
            nobody: format!("$2b${cost:02}${}", ".".repeat(53)),
        })
    }
}

/// One line. The hash itself never stands in an error: a log is read by more people than the file.
fn entry(line: &str) -> Result<(&str, bcrypt::HashParts), String> {
    let Some((name, hash)) = line.split_once(':') else {
        return Err("there is no colon: write NAME:HASH, as `htpasswd -B` does".to_owned());
    };
    if name.is_empty() || name.len() > 255 {
        return Err("a name has 1 to 255 bytes".to_owned());
    }
    let is_bcrypt = ["$2y$", "$2a$", "$2b$"]
        .iter()
        .any(|scheme| hash.starts_with(scheme));
    if !is_bcrypt {
        return Err(format!(
            "the password is not hashed by bcrypt but {}: set it again with `htpasswd -B`",
            scheme_of(hash)
        ));
    }
    let parts: bcrypt::HashParts = hash
        .parse()
        .map_err(|_| "the bcrypt hash is damaged: set the password again with `htpasswd -B`")?;
    match parts.get_cost() {
        4..=MAX_COST => Ok((name, parts)),
        cost => Err(format!(
            "the cost of the hash is {cost}, and 4 to {MAX_COST} are accepted: set the password again with `htpasswd -B -C 10`"
        )),
    }
}

fn scheme_of(hash: &str) -> &'static str {
    match hash {
        _ if hash.starts_with("$apr1$") => "by Apache's MD5",
        _ if hash.starts_with("{SHA}") => "by SHA-1",
        _ if hash.starts_with("$5$") || hash.starts_with("$6$") => "by crypt",
        _ if hash.starts_with("$2") => "by a variant that is not $2y$, $2a$ or $2b$",
        _ => "in another way, or not at all",
    }
}

fn refused(path: &Path, line: usize, problem: String) -> Error {
    Error::Htpasswd {
        path: path.to_owned(),
        line,
        problem,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::http::access::htpasswd::Entries;

    const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuWf2mM9Ug0QQCTQ7FsQvY3B3pzk1xkA2";

    #[test]
    fn bcrypt_entries_are_read_and_everything_else_is_named_with_its_line() {
        let text = format!(
            "# people\n\nann:{HASH}\r\nbob:{}\n",
            HASH.replace("$2y$05", "$2b$07")
        );
        let entries = Entries::parse(&text).unwrap();
        assert_eq!(entries.hashes.len(), 2);
        assert!(entries.nobody.starts_with("$2b$07$"));

        for (bad, word) in [
            ("eve:$apr1$x$y", "Apache's MD5"),
            ("eve:{SHA}x", "SHA-1"),
            ("eve:secret", "htpasswd -B"),
            ("eve", "no colon"),
            (":x", "1 to 255"),
            ("eve:$2y$05$short", "damaged"),
            (&format!("eve:{}", HASH.replace("$05$", "$31$")), "31"),
            (&format!("ann:{HASH}"), "earlier line"),
        ] {
            let text = format!("ann:{HASH}\n{bad}\n");
            let (line, problem) = Entries::parse(&text).unwrap_err();
            assert_eq!(line, 2, "{bad}");
            assert!(problem.contains(word), "{bad}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn the_hash_of_nobody_is_one_that_bcrypt_checks_and_refuses() {
        let entries = Entries::parse("").unwrap();
        assert!(!bcrypt::verify("", &entries.nobody).unwrap());
    }
}
