//! What must not be shown, where it may come from, and how to recognise it.

use registry::Secret;
use url::Url;

/// What stands where a secret would.
pub(crate) const HIDDEN: &str = "(hidden)";

/// The options of a bucket that the environment holds, by lower-case name: `AWS_*` for `s3`,
/// `GOOGLE_*` for `gs`, `AZURE_*` for `az`, as the tools of these clouds read them. Those that
/// only other tools know, such as `AWS_PROFILE`, are not among them.
pub(crate) fn bucket_options(bucket: &Url) -> Vec<(String, Secret)> {
    let variables = bucket_variables(bucket).into_iter();
    variables
        .map(|(name, value)| (name.to_ascii_lowercase(), Secret::new(value)))
        .collect()
}

/// The variables behind [`bucket_options`].
pub(crate) fn bucket_variables(bucket: &Url) -> Vec<(String, String)> {
    let prefix = match bucket.scheme() {
        "s3" => "AWS_",
        "gs" => "GOOGLE_",
        _ => "AZURE_",
    };
    let text = std::env::vars_os().filter_map(|(name, value)| {
        // What is not text is no option.
        Some((name.into_string().ok()?, value.into_string().ok()?))
    });
    let is_option = |(name, value): &(String, String)| {
        name.starts_with(prefix)
            && !value.is_empty()
            && registry::is_storage_option(bucket, &name.to_ascii_lowercase())
    };
    text.filter(is_option).collect()
}

/// Whether an option of a bucket, `NAME` or `NAME=VALUE`, is a secret.
pub(crate) fn is_secret_option(option: &str) -> bool {
    const SECRET: [&str; 7] = [
        "secret",
        "sse_customer",
        "token",
        "password",
        "sas",
        "account_key",
        "access_key",
    ];
    let name = option.split('=').next().unwrap_or(option);
    let name = name.to_ascii_lowercase();
    // The id of a key is a name.
    !name.ends_with("key_id") && SECRET.iter().any(|part| name.contains(part))
}

/// Whether a URL carries a password.
pub(crate) fn has_password(url: &str) -> bool {
    match Url::parse(url) {
        Ok(parsed) => {
            let mut pairs = parsed.query_pairs();
            parsed.password().is_some() || pairs.any(|(name, _)| name.contains("password"))
        }
        // Unreadable, but perhaps only just.
        Err(_) => url.contains('@'),
    }
}

/// A value as it may be shown, and whether that hides some of it.
pub(crate) fn shown(key: &str, value: &str) -> (String, bool) {
    let is_secret = match key {
        "storage-option" => is_secret_option(value),
        "index" => has_password(value),
        // A glob or a path may hold an @ and is no URL.
        _ => Url::parse(value).is_ok() && has_password(value),
    };
    match value.split_once('=') {
        _ if !is_secret => (value.to_owned(), false),
        Some((name, _)) if key == "storage-option" => (format!("{name}={HIDDEN}"), true),
        _ => (HIDDEN.to_owned(), true),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::secrets::{has_password, is_secret_option};

    #[test]
    fn secrets_are_known_by_their_names() {
        for secret in [
            "aws_secret_access_key=x",
            "AWS_SESSION_TOKEN=x",
            "azure_storage_account_key=x",
            "google_service_account_password",
        ] {
            assert!(is_secret_option(secret), "{secret}");
        }
        for plain in [
            "aws_access_key_id=x",
            "aws_endpoint=http://x",
            "aws_region=eu",
        ] {
            assert!(!is_secret_option(plain), "{plain}");
        }
    }

    #[test]
    fn passwords_in_urls_are_seen() {
        assert!(has_password("postgres://u:p@db/x"));
        assert!(has_password("postgres://db/x?user=u&password=p"));
        assert!(has_password("postgres//u:p@db"));
        assert!(!has_password("postgres://u@db/x"));
        assert!(!has_password("sled"));
    }
}
