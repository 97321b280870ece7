//! What must not be shown, and where it may come from.

use registry::Secret;

/// The options of a bucket that the environment holds, by lower-case name: `AWS_*` for `s3`,
/// `GOOGLE_*` for `gs`, `AZURE_*` for `az`, as the tools of these clouds read them.
pub(crate) fn bucket_options(scheme: &str) -> Vec<(String, Secret)> {
    let variables = bucket_variables(scheme);
    variables
        .map(|(name, value)| (name.to_ascii_lowercase(), Secret::new(value)))
        .collect()
}

/// The variables behind [`bucket_options`].
pub(crate) fn bucket_variables(scheme: &str) -> impl Iterator<Item = (String, String)> + use<> {
    let prefix = match scheme {
        "s3" => "AWS_",
        "gs" => "GOOGLE_",
        _ => "AZURE_",
    };
    let text = std::env::vars_os().filter_map(|(name, value)| {
        // What is not text is no option.
        Some((name.into_string().ok()?, value.into_string().ok()?))
    });
    text.filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
}
