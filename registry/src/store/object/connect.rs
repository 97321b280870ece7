//! From the address and the options of a bucket to a connection.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::config::Bucket;
use crate::error::Error;
use crate::store::object::objects::Objects;

/// A request is tried again for this long, less than credentials stay valid.
const RETRY_TIME: Duration = Duration::from_secs(45);
/// ... and this often.
const RETRIES: usize = 8;
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A store that gives no byte for this long is taken to be gone. It covers the sending of a part of
/// 128 MiB too, so it must not be short. There is no limit on a whole request: a blob takes as long
/// as its reader takes.
const SILENCE: Duration = Duration::from_secs(120);

/// Whether `name` is an option of the store that `url` names: what the environment holds may also
/// be meant for other programs.
#[must_use]
pub fn is_option(url: &Url, name: &str) -> bool {
    match url.scheme() {
        "s3" | "s3a" => AmazonS3ConfigKey::from_str(name).is_ok(),
        "gs" => GoogleConfigKey::from_str(name).is_ok(),
        "az" | "azure" | "abfs" | "abfss" | "adl" => AzureConfigKey::from_str(name).is_ok(),
        _ => false,
    }
}

/// Connects to a bucket; nothing is asked of it yet.
pub(crate) fn connect(bucket: &Bucket) -> Result<Objects, Error> {
    let wrong = |reason: String| Error::BucketConfig {
        url: bucket.url.to_string(),
        reason,
    };
    let failed = |source: object_store::Error| wrong(source.to_string());
    let parsed = ObjectStoreScheme::parse(&bucket.url);
    let (scheme, prefix) = parsed.map_err(|error| wrong(error.to_string()))?;
    let url = bucket.url.as_str();
    match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::new()
                .with_url(url)
                .with_retry(retry())
                .with_client_options(client());
            let builder = apply(builder, bucket, AmazonS3Builder::with_config)?;
            let store = Arc::new(s3_over_http(builder).build().map_err(failed)?);
            let http = ReqwestConnector::default()
                .connect(&client_of(bucket))
                .map_err(failed)?;
            let parts = Arc::clone(&store);
            let signer = Arc::clone(&store);
            Ok(Objects::new(store, parts, prefix)
                .with_signer(signer)
                .with_http(http))
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::new()
                .with_url(url)
                .with_retry(retry())
                .with_client_options(client());
            let builder = apply(builder, bucket, GoogleCloudStorageBuilder::with_config)?;
            let store = Arc::new(builder.build().map_err(failed)?);
            Ok(Objects::new(Arc::clone(&store) as _, store, prefix))
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::new()
                .with_url(url)
                .with_retry(retry())
                .with_client_options(client());
            let builder = apply(builder, bucket, MicrosoftAzureBuilder::with_config)?;
            let store = Arc::new(builder.build().map_err(failed)?);
            Ok(Objects::new(Arc::clone(&store) as _, store, prefix))
        }
        _ => Err(wrong(
            "give s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX], az://CONTAINER[/PREFIX] or \
             file:///FOLDER"
                .to_owned(),
        )),
    }
}

/// Gives every option to the builder; one that it does not know is refused by name.
fn apply<B, K: FromStr>(
    builder: B,
    bucket: &Bucket,
    set: impl Fn(B, K, String) -> B,
) -> Result<B, Error>
where
    K::Err: Display,
{
    bucket
        .options
        .iter()
        .try_fold(builder, |builder, (name, value)| match name.parse() {
            Ok(key) => Ok(set(builder, key, value.reveal().to_owned())),
            Err(_) => Err(Error::BucketConfig {
                url: bucket.url.to_string(),
                reason: format!("there is no option {name}"),
            }),
        })
}

/// An endpoint that is given as http:// is meant to be reached over plain HTTP.
fn s3_over_http(builder: AmazonS3Builder) -> AmazonS3Builder {
    let is_plain = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint]
        .iter()
        .filter_map(|key| builder.get_config_value(key))
        .any(|endpoint| endpoint.starts_with("http://"));
    if is_plain {
        builder.with_allow_http(true)
    } else {
        builder
    }
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: RETRIES,
        retry_timeout: RETRY_TIME,
    }
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIME)
        .with_read_timeout(SILENCE)
}

/// The options that concern the connection (proxy, plain HTTP, …) alone.
fn client_of(bucket: &Bucket) -> ClientOptions {
    let options = bucket.options.iter().filter_map(|(name, value)| {
        let key = match name.parse().ok()? {
            AmazonS3ConfigKey::Client(key) => key,
            _ => return None,
        };
        Some((key, value.reveal().to_owned()))
    });
    let plain = client().with_config(ClientConfigKey::AllowHttp, "true");
    options.fold(plain, |client, (key, value)| client.with_config(key, value))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use url::Url;

    use crate::config::{Bucket, Secret};
    use crate::store::object::connect::{connect, is_option};

    fn bucket(url: &str, options: &[(&str, &str)]) -> Bucket {
        Bucket {
            url: Url::parse(url).unwrap(),
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
                .collect(),
        }
    }

    #[test]
    fn buckets_are_named_by_scheme_and_prefix() {
        let objects = connect(&bucket("s3://models/team/a", &[])).unwrap();
        assert_eq!(objects.path("data/x").as_ref(), "team/a/data/x");
        let path = objects.path("data/x");
        assert_eq!(objects.key_of(&path).as_deref(), Some("data/x"));
        assert_eq!(objects.key_of(&"other/data/x".into()), None);
        let wrong = connect(&bucket("ftp://models", &[])).unwrap_err();
        assert!(wrong.to_string().contains("ftp://models"), "{wrong}");
    }

    #[test]
    fn an_unknown_option_is_refused_by_name_and_no_secret_shows() {
        let url = "s3://models";
        let refused = connect(&bucket(url, &[("aws_endpiont", "secret")])).unwrap_err();
        let text = format!("{refused} {refused:?}");
        assert!(text.contains("aws_endpiont"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        let url = Url::parse(url).unwrap();
        assert!(is_option(&url, "aws_endpoint"));
        assert!(!is_option(&url, "aws_pager"));
    }
}
