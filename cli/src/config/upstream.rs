//! Upstreams as people write them: `hub=oci+https://registry.example`.

use artifact::Repository;
use registry::Upstream;
use toml::de::DeValue;

/// Reads one upstream.
pub(crate) fn parse(text: &str) -> Result<Upstream, String> {
    let (prefix, at) = text
        .split_once('=')
        .ok_or("write it as PREFIX=KIND+URL, such as hub=oci+https://registry.example")?;
    Ok(Upstream {
        prefix: Repository::parse(prefix.trim()).map_err(|fault| fault.to_string())?,
        at: at
            .trim()
            .parse()
            .map_err(|fault: artifact::client::InvalidOrigin| fault.to_string())?,
    })
}

/// A `[[registry.upstream]]` table as the text of an upstream.
pub(crate) fn from_table(table: &DeValue<'_>) -> Result<String, String> {
    let DeValue::Table(table) = table else {
        return Err("an upstream is a table, or text as on the command line".to_owned());
    };
    let [mut prefix, mut kind, mut url] = [None, None, None];
    for (name, value) in table {
        let place = match name.get_ref().as_ref() {
            "prefix" => &mut prefix,
            "kind" => &mut kind,
            "url" => &mut url,
            other => {
                return Err(format!(
                    "unknown key {other}; there are prefix, kind and url"
                ));
            }
        };
        let text = value.get_ref().as_str();
        *place = Some(text.ok_or_else(|| format!("{} is text", name.get_ref()))?);
    }
    let prefix = prefix.ok_or("prefix names the repositories that are mirrored")?;
    let kind = kind.ok_or("kind is oci, ollama or hf")?;
    let url = url.ok_or("url says where the upstream is")?;
    let text = format!("{prefix}={kind}+{url}");
    parse(&text).map(|_| text)
}
