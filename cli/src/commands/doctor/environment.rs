//! Variables of the environment that work against each other, or against the cluster around.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use artifact::client::transport::is_excepted;
use url::Url;

use super::report::Report;

const CHECK: &str = "environment";
/// Variables that exist in both spellings, upper case first: that one decides.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
/// Variables that name a file or a folder, which had better be there.
const FILES: [&str; 5] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "HF_TOKEN_PATH",
];
/// This machine and the names of a cluster, which no proxy should stand before.
const LOCAL: [&str; 2] = ["127.0.0.1", "localhost"];
const CLUSTER: [&str; 2] = ["registry.default.svc", "registry.default.svc.cluster.local"];

/// The variables that matter here, read once.
#[derive(Debug)]
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    pub(super) fn read() -> Self {
        let proxies = PROXIES.iter().flat_map(|name| {
            let lower = name.to_ascii_lowercase();
            [(*name).to_owned(), lower]
        });
        let others = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"];
        let others = others
            .iter()
            .chain(&["KUBERNETES_SERVICE_HOST", "REQUEST_METHOD"]);
        let names = proxies.chain(others.chain(&FILES).map(|name| (*name).to_owned()));
        let values = names.filter_map(|name| Some((name.clone(), std::env::var(&name).ok()?)));
        Self(values.collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A variable in the spelling that decides, and its value: an empty one hides the other.
    fn proxy(&self, name: &str) -> Option<(String, &str)> {
        let lower = name.to_ascii_lowercase();
        let spellings = [name.to_owned(), lower];
        let mut found = spellings
            .into_iter()
            .filter_map(|spelling| Some((spelling.clone(), self.get(&spelling)?)));
        found.next().filter(|(_, value)| !value.is_empty())
    }

    /// The variable that sends requests of this scheme through a proxy.
    pub(super) fn proxy_variable(&self, scheme: &str) -> Option<String> {
        let own = match scheme {
            "https" => "HTTPS_PROXY",
            _ => "HTTP_PROXY",
        };
        let found = self.proxy(own).or_else(|| self.proxy("ALL_PROXY"));
        found.map(|(name, _)| name)
    }

    pub(super) fn check(&self, report: &mut Report) -> Result<()> {
        let mut told = Vec::new();
        self.spellings(&mut told);
        self.proxies(&mut told);
        self.exceptions(&mut told);
        self.swallowed(&mut told);
        self.files(&mut told);
        self.tokens(&mut told);
        if told.is_empty() {
            return report.ok(CHECK, self.summary());
        }
        for (found, advice) in told {
            report.warn(CHECK, found, advice)?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let set: Vec<String> = PROXIES
            .iter()
            .filter_map(|name| Some(self.proxy(name)?.0))
            .collect();
        if set.is_empty() {
            "no proxies are named, nothing contradicts itself".to_owned()
        } else {
            format!("{} are set, nothing contradicts itself", set.join(", "))
        }
    }

    fn spellings(&self, told: &mut Vec<(String, String)>) {
        for name in PROXIES {
            let lower = name.to_ascii_lowercase();
            if let (Some(upper), Some(other)) = (self.get(name), self.get(&lower))
                && upper != other
            {
                told.push((
                    format!("{name} and {lower} differ"),
                    format!("{name} is used here, curl and others use {lower}: make them equal"),
                ));
            }
        }
    }

    /// Proxies that are no URLs are passed over by the libraries without a word.
    fn proxies(&self, told: &mut Vec<(String, String)>) {
        for name in &PROXIES[..3] {
            let Some((name, value)) = self.proxy(name) else {
                continue;
            };
            let text = if value.contains("://") {
                value.to_owned()
            } else {
                format!("http://{value}")
            };
            let is_usable = Url::parse(&text).is_ok_and(|url| {
                url.has_host() && matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h")
            });
            if !is_usable {
                told.push((
                    format!("{name} is not the URL of a proxy and is passed over"),
                    "write http://HOST:PORT".to_owned(),
                ));
            }
        }
    }

    /// Forms that some programs know and others, this one among them, take for names.
    fn exceptions(&self, told: &mut Vec<(String, String)>) {
        let Some((name, value)) = self.proxy("NO_PROXY") else {
            return;
        };
        if !value.contains(',') && value.trim().contains(char::is_whitespace) {
            told.push((
                format!("{name} is separated by spaces"),
                "separate its entries by commas".to_owned(),
            ));
        }
        for entry in entries(value) {
            let advice = if entry.contains("://") {
                "write the host alone"
            } else if entry.len() > 1 && entry.contains('*') {
                "a star stands alone only: write .example.com for all names below example.com"
            } else if entry.matches(':').count() == 1 {
                "an entry has no port: write the host alone"
            } else if entry.contains('/') && !is_network(entry) {
                "a network is written ADDRESS/BITS"
            } else {
                continue;
            };
            told.push((
                format!("{name} has {entry:?}, which fits nothing"),
                advice.to_owned(),
            ));
        }
    }

    /// Names that a proxy swallows. Hayloft never asks a proxy for this machine itself; other
    /// programs on the node do.
    fn swallowed(&self, told: &mut Vec<(String, String)>) {
        let Some(variable) = self
            .proxy_variable("http")
            .or_else(|| self.proxy_variable("https"))
        else {
            return;
        };
        let value = self.proxy("NO_PROXY").map_or("", |(_, value)| value);
        let missing = |names: &[&str]| -> Vec<String> {
            // A star is meant for addresses too, and other programs take it so.
            let all = value.trim() == "*";
            let outside = names
                .iter()
                .filter(|name| !all && !is_excepted(value, name));
            outside.map(|name| (*name).to_owned()).collect()
        };
        let local = missing(&LOCAL);
        if !local.is_empty() {
            told.push((
                format!("{variable} is set and NO_PROXY lacks {}", local.join(", ")),
                "hayloft never asks a proxy for this machine; for the other programs here add it \
                 to NO_PROXY"
                    .to_owned(),
            ));
        }
        let Some(api) = self.get("KUBERNETES_SERVICE_HOST") else {
            return;
        };
        let mut cluster = missing(&CLUSTER);
        cluster.extend(missing(&[api]));
        if !cluster.is_empty() {
            told.push((
                format!(
                    "{variable} swallows names of the cluster: {}",
                    cluster.join(", ")
                ),
                "add .svc, .cluster.local and the network of services to NO_PROXY".to_owned(),
            ));
        }
    }

    fn files(&self, told: &mut Vec<(String, String)>) {
        for name in FILES {
            let Some(path) = self.get(name).filter(|path| !path.is_empty()) else {
                continue;
            };
            if !Path::new(path).exists() {
                told.push((
                    format!("{name} names {path}, which is not there"),
                    "mount it, or take the variable away".to_owned(),
                ));
            }
        }
    }

    fn tokens(&self, told: &mut Vec<(String, String)>) {
        if let (Some(new), Some(old)) = (self.get("HF_TOKEN"), self.get("HUGGING_FACE_HUB_TOKEN"))
            && new != old
        {
            told.push((
                "HF_TOKEN and HUGGING_FACE_HUB_TOKEN differ".to_owned(),
                "HF_TOKEN is used: take the other one away".to_owned(),
            ));
        }
        if self.get("REQUEST_METHOD").is_some() && self.proxy_variable("http").is_some() {
            told.push((
                "REQUEST_METHOD is set, as in CGI: no proxy of the environment is used".to_owned(),
                "take it away".to_owned(),
            ));
        }
    }
}

fn entries(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

fn is_network(entry: &str) -> bool {
    let Some((address, bits)) = entry.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

#[cfg(test)]
mod tests {
    use crate::commands::doctor::environment::Environment;

    fn told(variables: &[(&str, &str)]) -> String {
        let all = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Environment(all.collect());
        let mut told = Vec::new();
        environment.spellings(&mut told);
        environment.proxies(&mut told);
        environment.exceptions(&mut told);
        environment.swallowed(&mut told);
        environment.files(&mut told);
        environment.tokens(&mut told);
        told.into_iter().map(|(found, _)| found + "\n").collect()
    }

    #[test]
    fn proxies_that_swallow_this_machine_or_the_cluster_are_told() {
        let said = told(&[("HTTPS_PROXY", "http://p:3128"), ("NO_PROXY", "localhost")]);
        assert_eq!(said, "HTTPS_PROXY is set and NO_PROXY lacks 127.0.0.1\n");
        let cluster = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        let said = told(&[
            ("http_proxy", "p:3128"),
            ("NO_PROXY", "localhost,127.0.0.0/8,.svc"),
            cluster,
        ]);
        assert!(
            said.contains("registry.default.svc.cluster.local, 10.96.0.1"),
            "{said}"
        );
        assert!(!said.contains("registry.default.svc,"), "{said}");
        let all = "localhost,127.0.0.0/8,.svc,.cluster.local,10.96.0.0/12";
        assert_eq!(
            told(&[("http_proxy", "p:3128"), ("NO_PROXY", all), cluster]),
            ""
        );
        assert_eq!(told(&[("http_proxy", "p:3128"), ("NO_PROXY", "*")]), "");
    }

    #[test]
    fn entries_that_fit_nothing_and_spellings_that_differ_are_told() {
        let value = "*.example.com,host:5000,http://x,10.0.0.0/99,.ok,ok,10.0.0.0/8,::1";
        let said = told(&[("NO_PROXY", value)]);
        assert_eq!(said.lines().count(), 4, "{said}");
        let said = told(&[("NO_PROXY", "a b"), ("no_proxy", "a")]);
        assert!(said.contains("NO_PROXY and no_proxy differ"), "{said}");
        assert!(said.contains("separated by spaces"), "{said}");
        let said = told(&[("HTTP_PROXY", "ftp://x"), ("NO_PROXY", "*")]);
        assert!(said.contains("passed over"), "{said}");
    }

    #[test]
    fn files_that_are_not_there_and_tokens_that_differ_are_told() {
        let said = told(&[
            ("SSL_CERT_FILE", "/dev/null/absent"),
            ("HF_TOKEN", "geheim-a"),
            ("HUGGING_FACE_HUB_TOKEN", "geheim-b"),
        ]);
        assert!(
            said.contains("SSL_CERT_FILE names /dev/null/absent"),
            "{said}"
        );
        assert!(
            said.contains("differ") && !said.contains("geheim"),
            "{said}"
        );
    }
}
