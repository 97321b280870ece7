//! An S3 server in this process, and registries that keep everything in a bucket of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as Connection;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;

use crate::{Builder, Finished, Server, hayloft_command, run};

/// The bucket that every server has.
pub const BUCKET: &str = "models";
/// Where registries keep everything in it.
pub const STORAGE: &str = "s3://models/team";
const KEY: &str = "test-key";
const SECRET: &str = "test-secret";

/// A running S3 server over a folder of its own. It ends with the value.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    folder: tempfile::TempDir,
    /// Dropped to end the server.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl S3Server {
    /// Starts one that wants signed requests.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start() -> Self {
        Self::with_auth(true)
    }

    /// Starts one that takes every request.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn open_to_all() -> Self {
        Self::with_auth(false)
    }

    fn with_auth(is_signed: bool) -> Self {
        let folder = crate::scratch();
        std::fs::create_dir(folder.path().join(BUCKET)).expect("the bucket can be made");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("the folder can be served");
        let mut builder = S3ServiceBuilder::new(files);
        if is_signed {
            builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        }
        let service = builder.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a listener");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        // A runtime of its own: tests block theirs while they wait for programs.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, service) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self {
            address,
            folder,
            _stop: stop,
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The files of the bucket.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The bucket and what it takes to use it, for a store in this process.
    #[must_use]
    pub fn bucket(&self) -> registry::Bucket {
        bucket_of(&self.address(), KEY, SECRET)
    }

    /// A registry in the bucket; its data folder is a fresh one unless said otherwise.
    #[must_use]
    pub fn registry(&self) -> Builder {
        registry_in(&self.address(), KEY, SECRET)
    }

    /// A verb on the bucket's storage itself, where the arguments name it by [`STORAGE`].
    #[must_use]
    pub fn hayloft(&self, arguments: &[&str]) -> Finished {
        let mut command = hayloft_command(arguments);
        run(command.envs(environment(&self.address(), KEY, SECRET)))
    }

    /// The same registry through a proxy.
    #[must_use]
    pub fn registry_through(&self, proxy: SocketAddr) -> Builder {
        registry_in(&proxy.to_string(), KEY, SECRET)
    }
}

/// A registry in [`BUCKET`] of any S3 server.
#[must_use]
pub fn registry_in(address: &str, key: &str, secret: &str) -> Builder {
    let builder = Server::registry().argument("--storage").argument(STORAGE);
    environment(address, key, secret)
        .into_iter()
        .fold(builder, |builder, (name, value)| {
            builder.environment(name, &value)
        })
}

/// What finds the server, and what it lets in.
fn environment(address: &str, key: &str, secret: &str) -> [(&'static str, String); 4] {
    [
        ("AWS_ACCESS_KEY_ID", key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

/// [`BUCKET`] of any S3 server, for a store in this process.
///
/// # Panics
/// Never: the address is fixed.
#[must_use]
pub fn bucket_of(address: &str, key: &str, secret: &str) -> registry::Bucket {
    let option = |name: &str, value: &str| (name.to_owned(), registry::Secret::new(value));
    registry::Bucket {
        url: format!("s3://{BUCKET}/suite").parse().expect("an address"),
        options: vec![
            option("aws_access_key_id", key),
            option("aws_secret_access_key", secret),
            option("aws_endpoint", &format!("http://{address}")),
            option("aws_region", "us-east-1"),
        ],
    }
}

/// The names of all files below `folder`, with `/` between their parts.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn keys_below(folder: &Path) -> Vec<String> {
    let mut keys = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(open) = folders.pop() {
        for entry in std::fs::read_dir(&open).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(folder).expect("it lies below");
                keys.push(below.to_string_lossy().into_owned());
            }
        }
    }
    keys.sort();
    keys
}

async fn serve(listener: TcpListener, service: S3Service) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let connection = Connection::new(TokioExecutor::new());
            // A client may go at any time.
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
