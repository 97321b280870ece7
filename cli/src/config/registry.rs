//! From flags to what the registry's library takes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use artifact::client::{OriginKind, ProxyOptions, Timeouts, Transport, TransportOptions};
use registry::{
    Bucket, Collection, Config, HubLogin, Index, Limits, Mirror, Secret, Storage, TlsFiles,
    Upstream,
};
use url::Url;

use crate::args::DataArgs;
use crate::args::mirror::MirrorArgs;
use crate::args::registry::{
    AccessArgs, CollectionArgs, LimitsArgs, RegistryOptions, ServiceArgs, StorageArgs,
};
use crate::config::secrets;
use crate::endpoint;
use crate::sources;

impl RegistryOptions {
    /// What the registry is started with.
    pub(crate) fn to_config(&self, data: &DataArgs) -> Result<Config> {
        self.check()?;
        let mut config = self.storage.to_config(data)?;
        self.service.put_into(&mut config);
        self.collection.put_into(&mut config);
        self.access.put_into(&mut config);
        config.limits = self.limits.to_limits();
        config.mirror = self.mirror.to_mirror()?;
        Ok(config)
    }

    /// What can be checked without the environment and without other files.
    pub(crate) fn check(&self) -> Result<()> {
        self.storage.place()?;
        self.storage.named_options()?;
        parse_index(self.storage.index.reveal()).context("--index")?;
        match (&self.access.tls_cert, &self.access.tls_key) {
            (Some(_), None) => bail!("--tls-cert needs --tls-key, the certificate's private key"),
            (None, Some(_)) => bail!("--tls-key needs --tls-cert, the key's certificate"),
            _ => Ok(()),
        }
    }
}

/// What `--storage` names.
enum Place {
    /// The registry's folder in the data folder.
    Data,
    /// Another folder.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Url),
}

impl StorageArgs {
    /// Storage and index as named, everything else as by default: for verbs that open them.
    pub(crate) fn to_config(&self, data: &DataArgs) -> Result<Config> {
        let mut config = Config {
            index: self.index()?,
            ..Config::default()
        };
        match self.place()? {
            Place::Data => config.data = data.registry()?,
            Place::Folder(folder) => config.data = folder,
            Place::Bucket(url) => {
                config.data = data.registry()?;
                let mut options = secrets::bucket_options(&url);
                // Later ones win: what was named goes over what the environment happens to hold.
                options.extend(self.named_options()?);
                config.storage = Storage::Bucket(Bucket { url, options });
            }
        }
        Ok(config)
    }

    fn place(&self) -> Result<Place> {
        let Some(text) = &self.storage else {
            return Ok(Place::Data);
        };
        // The text is not repeated: people do try to put keys into it.
        let advice = "write --storage as s3://BUCKET[/PREFIX], gs://…, az://… or file:///FOLDER";
        let url = Url::parse(text).context(advice)?;
        if !url.username().is_empty() || url.password().is_some() {
            bail!("--storage carries credentials; they come by the environment, as AWS_* and such");
        }
        match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(folder) => Ok(Place::Folder(folder)),
                Err(()) => bail!("{advice}"),
            },
            "s3" | "gs" | "az" if url.host_str().is_some() => Ok(Place::Bucket(url)),
            _ => bail!("{advice}"),
        }
    }

    fn named_options(&self) -> Result<Vec<(String, Secret)>> {
        let named = self.storage_options.iter().map(|option| {
            let (name, value) = option
                .reveal()
                .split_once('=')
                .context("write --storage-option as NAME=VALUE")?;
            Ok((name.trim().to_ascii_lowercase(), Secret::new(value)))
        });
        named.collect()
    }

    fn index(&self) -> Result<Index> {
        let Some(path) = &self.index_file else {
            return parse_index(self.index.reveal()).context("--index");
        };
        let attempted = || format!("--index-file {}", path.display());
        let text = std::fs::read_to_string(path).with_context(attempted)?;
        parse_index(text.trim()).with_context(attempted)
    }
}

/// The text is not repeated in errors: it may hold a password.
fn parse_index(text: &str) -> Result<Index> {
    if text == "sled" {
        return Ok(Index::Sled);
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {
            Ok(Index::Postgres(Secret::new(text)))
        }
        Ok(_) => bail!("neither sled nor a URL that begins with postgres://"),
        Err(error) => bail!("neither sled nor a postgres:// URL: {error}"),
    }
}

impl ServiceArgs {
    fn put_into(&self, config: &mut Config) {
        config.redirect = self.redirect;
        config.read_only = self.read_only;
        config.max_blob_bytes = self.max_blob_size.into();
        config.gguf.clone_from(&self.gguf_policy);
        config.chunk_maps = self.chunk_maps;
        config.upload_expiry = self.upload_expiry;
        config.max_uploads = self.max_uploads;
        config.external_url.clone_from(&self.external_url);
        config.shutdown_grace = self.shutdown_grace;
    }
}

impl CollectionArgs {
    /// When and how much is collected, and which tags are kept.
    pub(crate) fn put_into(&self, config: &mut Config) {
        config.collection = Collection {
            interval: self.gc_interval.into(),
            grace: self.gc_grace,
            max_percent: self.gc_max_percent,
        };
        config.retention.clone_from(&self.retain);
    }
}

impl AccessArgs {
    fn put_into(&self, config: &mut Config) {
        config.htpasswd.clone_from(&self.htpasswd);
        config.tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => None,
        };
    }
}

impl MirrorArgs {
    fn to_mirror(&self) -> Result<Mirror> {
        let is_hub = |upstream: &Upstream| upstream.at.kind == OriginKind::HuggingFace;
        let hub = if self.upstreams.iter().any(is_hub) {
            Some(HubLogin {
                at: sources::hugging_face()?,
                credentials: sources::hugging_face_token()?,
            })
        } else {
            None
        };
        let transport = self.transport()?;
        // A file that cannot be read is told now, not at the first question.
        Transport::new(transport.clone()).check()?;
        Ok(Mirror {
            upstreams: self.upstreams.clone(),
            offline: self.offline,
            tag_ttl: self.tag_ttl,
            negative_ttl: self.negative_ttl,
            max_bytes: self.mirror_size.into(),
            keep: self.mirror_keep,
            pinned: self.mirror_pins.clone(),
            connections: self.mirror_connections,
            transport,
            credentials: endpoint::stored_logins(),
            hub,
        })
    }

    fn transport(&self) -> Result<TransportOptions> {
        let proxy = self.mirror_proxy.as_ref().map(|proxy| {
            let url = proxy.reveal().parse().context("--mirror-proxy")?;
            Ok::<_, anyhow::Error>(ProxyOptions {
                url,
                no_proxy: self.mirror_no_proxies.join(","),
            })
        });
        Ok(TransportOptions {
            timeouts: Timeouts {
                stall: self.mirror_stall,
                ..Timeouts::default()
            },
            proxy: proxy.transpose()?,
            ca_files: self.mirror_cas.clone(),
        })
    }
}

impl LimitsArgs {
    fn to_limits(&self) -> Limits {
        Limits {
            header_bytes: usize::try_from(self.header_size).unwrap_or(usize::MAX),
            header_time: self.header_time,
            body_idle: self.body_idle,
            write_idle: self.write_idle,
            connections: self.connections,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use std::path::Path;

    use clap::{Args, Command, FromArgMatches};
    use registry::{Config, Index, Storage};

    use crate::args::DataArgs;
    use crate::args::registry::RegistryOptions;
    use crate::endpoint;

    fn options(flags: &[&str]) -> RegistryOptions {
        let command = RegistryOptions::augment_args(Command::new("registry"));
        // The variables of whoever runs the tests are not theirs to see.
        let command = command.mut_args(|argument| argument.env(None::<&str>));
        let flags = std::iter::once("registry").chain(flags.iter().copied());
        RegistryOptions::from_arg_matches(&command.get_matches_from(flags)).unwrap()
    }

    fn config(flags: &[&str]) -> anyhow::Result<Config> {
        let data = Some("/data".into());
        options(flags).to_config(&DataArgs { data })
    }

    #[test]
    fn without_flags_everything_is_as_the_library_has_it_by_default() {
        let mut expected = Config::new("/data/registry");
        // The library knows no home folder to look for logins in.
        expected.mirror.credentials = endpoint::stored_logins();
        assert_eq!(
            format!("{:?}", config(&[]).unwrap()),
            format!("{expected:?}")
        );
    }

    #[test]
    fn storage_is_a_folder_or_a_bucket() {
        let folder = config(&["--storage", "file:///srv/models"]).unwrap();
        assert!(matches!(folder.storage, Storage::Folder));
        assert_eq!(folder.data, Path::new("/srv/models"));
        let flags = [
            "--storage",
            "s3://models/team",
            "--storage-option",
            "AWS_Endpoint=http://127.0.0.1:9000",
        ];
        let bucket = config(&flags).unwrap();
        assert_eq!(bucket.data, Path::new("/data/registry"));
        let Storage::Bucket(bucket) = bucket.storage else {
            panic!("{:?}", bucket.storage);
        };
        assert_eq!(bucket.url.as_str(), "s3://models/team");
        let (name, value) = bucket.options.last().unwrap();
        assert_eq!(name, "aws_endpoint");
        assert_eq!(value.reveal(), "http://127.0.0.1:9000");
        for wrong in ["models", "ftp://x/y", "s3:", "s3://key:word@bucket"] {
            let error = config(&["--storage", wrong]).unwrap_err();
            assert!(!format!("{error:#}").contains("word"), "{error:#}");
        }
    }

    #[test]
    fn the_url_of_an_index_is_read_from_a_file_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "postgres://u:secret@db/hayloft\n").unwrap();
        let found = config(&["--index-file", path.to_str().unwrap()]).unwrap();
        let Index::Postgres(url) = &found.index else {
            panic!("{:?}", found.index);
        };
        assert_eq!(url.reveal(), "postgres://u:secret@db/hayloft");
        std::fs::write(&path, "mysql://u:secret@db/hayloft").unwrap();
        let error = config(&["--index-file", path.to_str().unwrap()]).unwrap_err();
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert!(config(&["--tls-cert", "a.pem"]).is_err());
        assert!(config(&["--tls-key", "a.pem"]).is_err());
        let found = config(&["--tls-cert", "a.pem", "--tls-key", "b.pem"]).unwrap();
        assert_eq!(found.tls.unwrap().key, Path::new("b.pem"));
    }
}
