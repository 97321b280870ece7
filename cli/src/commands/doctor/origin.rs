//! Whether the places that models come from can be reached, step by step, and why not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use artifact::ModelName;
use artifact::client::{
    self, Credentials, LoginFiles, Origin, OriginKind, Probed, RegistryOptions, Sources, Timeouts,
    Transport, chain, check_login, probe,
};
use tokio::net::TcpStream;
use url::Url;

use super::environment::Environment;
use super::report::Report;
use crate::args::doctor::DoctorArgs;
use crate::endpoint;
use crate::remote::selector_of;

const CHECK: &str = "registry";
const CLOCK: &str = "clock";
/// A doctor does not wait as long as a pull does.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    stall: Duration::from_secs(10),
};
/// Clocks further apart make certificates and tokens invalid.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// The registries and the origins of the models that were named.
pub(super) async fn check(
    args: &DoctorArgs,
    environment: &Environment,
    report: &mut Report,
) -> Result<()> {
    let mut options = args.sources.rest.to_transport();
    options.timeouts = TIMEOUTS;
    let transport = Transport::new(options);
    if let Err(error) = transport.check() {
        let advice = "correct --ca-file, SSL_CERT_FILE or the proxy";
        return report.fail(CHECK, chain(&error), advice);
    }
    let files = endpoint::login_files(args.sources.rest.registry_configs.clone());
    for path in &args.sources.rest.registry_configs {
        if !path.exists() {
            let found = format!("--registry-config {} is not there", path.display());
            report.warn(CHECK, found, "mount the secret, or take the path away")?;
        }
    }
    let doctor = Doctor {
        sources: args.sources.to_sources()?,
        environment,
        options: RegistryOptions {
            plain_http: args.plain_http,
            credentials: Credentials::Stored(files.clone()),
        },
        files,
        transport,
    };
    for registry in &args.registries {
        doctor.registry(registry, report).await?;
    }
    for reference in &args.references {
        doctor.reference(reference, report).await?;
    }
    Ok(())
}

struct Doctor<'a> {
    sources: Sources,
    transport: Transport,
    options: RegistryOptions,
    files: LoginFiles,
    environment: &'a Environment,
}

impl Doctor<'_> {
    /// A registry as a whole: reachable, and the login is right where it wants one.
    async fn registry(&self, registry: &str, report: &mut Report) -> Result<()> {
        // Any name will do to find out where it is; nothing is asked about this one.
        let Some(origins) = self
            .origins(&format!("{registry}/hayloft/doctor:check"), report)
            .await?
        else {
            return Ok(());
        };
        for origin in &origins {
            let Some(probed) = self.reach(origin, report).await? else {
                continue;
            };
            if probed.wants_login && origin.at().kind == OriginKind::Oci {
                let host = registry_of(origin);
                let checked = check_login(&self.transport, &host, &self.options).await;
                match checked {
                    Ok(()) => report.ok(CHECK, self.login_told(&host, None).await)?,
                    Err(error) => {
                        let advice = self.login_told(&host, None).await;
                        report.fail(CHECK, chain(&error), advice)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A model: its origins are reachable, and one of them has it.
    async fn reference(&self, text: &str, report: &mut Report) -> Result<()> {
        let Some(origins) = self.origins(text, report).await? else {
            return Ok(());
        };
        for origin in &origins {
            if self.reach(origin, report).await?.is_none() {
                continue;
            }
            let Ok(name) = ModelName::parse(text) else {
                continue;
            };
            match origin.manifest(&selector_of(&name), None).await {
                Ok(_) => report.ok(CHECK, format!("{text} is at {}", origin.at()))?,
                Err(error) if error.is_refused() => {
                    let host = registry_of(origin);
                    let advice = self.login_told(&host, Some(origin.repository())).await;
                    report.fail(CHECK, chain(&error), advice)?;
                }
                Err(error) => {
                    report.fail(CHECK, chain(&error), "check its name, and what is there")?;
                }
            }
        }
        Ok(())
    }

    /// Where a name leads to, or why it leads nowhere.
    async fn origins(&self, text: &str, report: &mut Report) -> Result<Option<Vec<Origin>>> {
        let names = ModelName::parse(text).and_then(|name| self.sources.candidates(&name));
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                let advice =
                    "write HOST[:PORT] for a registry, HOST/NAMESPACE/NAME[:TAG] for a model";
                report.fail(CHECK, format!("{text:?}: {error}"), advice)?;
                return Ok(None);
            }
        };
        let mut origins = Vec::new();
        for name in names {
            match self
                .sources
                .open(&self.transport, &name, &self.options)
                .await
            {
                Ok(found) => origins.extend(found),
                Err(error) => {
                    report.fail(CHECK, chain(&error), "correct the name or --upstream")?
                }
            }
        }
        Ok(Some(origins))
    }

    /// Name, connection, TLS and HTTP, one after another; nothing when a step fails.
    async fn reach(&self, origin: &Origin, report: &mut Report) -> Result<Option<Probed>> {
        let url = &origin.at().url;
        let next = match self.transport.proxy_for(url) {
            Some(proxy) => {
                let variable = self.environment.proxy_variable(url.scheme());
                let variable = variable.unwrap_or_else(|| "the configuration".to_owned());
                report.ok(
                    CHECK,
                    format!("{url} is asked for through {proxy}, by {variable}"),
                )?;
                // Without a port it is that of HTTP.
                if proxy.contains(':') {
                    proxy
                } else {
                    format!("{proxy}:80")
                }
            }
            None => host_of(url),
        };
        let is_proxy = next != host_of(url);
        if !self.connect(&next, is_proxy, report).await? {
            return Ok(None);
        }
        let began = Instant::now();
        let ask = match origin.at().kind {
            OriginKind::HuggingFace => url.clone(),
            // Registries answer at their root, below which repositories may have a prefix.
            OriginKind::Oci | OriginKind::Ollama => url.join("/v2/")?,
        };
        let probed = match probe(&self.transport, &ask).await {
            Ok(probed) => probed,
            Err(error) => {
                report.fail(CHECK, chain(&error), advice(&error))?;
                return Ok(None);
            }
        };
        let took = began.elapsed();
        clock(&probed, &ask, report)?;
        if origin.at().kind == OriginKind::HuggingFace {
            report.ok(CHECK, format!("{ask} answers ({} ms)", took.as_millis()))?;
            return Ok(Some(probed));
        }
        self.answer(&ask, &probed, took, report)
    }

    fn answer(
        &self,
        url: &Url,
        probed: &Probed,
        took: Duration,
        report: &mut Report,
    ) -> Result<Option<Probed>> {
        let status = probed.status;
        if probed.is_page {
            report.fail(
                CHECK,
                format!("{url} answers {status} with a web page"),
                "a proxy or a log-in portal stands between, or that is no registry",
            )?;
            return Ok(None);
        }
        if probed.is_registry || probed.wants_login {
            report.ok(
                CHECK,
                format!("{url} answers {status} ({} ms)", took.as_millis()),
            )?;
            return Ok(Some(probed.clone()));
        }
        let advice = match status {
            403 => "it refuses: a firewall, or an address that is not let in",
            404 => "another program listens there: check host and port",
            500.. => "it is there and does not work: see its log",
            _ => "it does not answer as a registry does: check host and port",
        };
        report.fail(CHECK, format!("{url} answers {status}"), advice)?;
        Ok(None)
    }

    /// Resolves `host:port` and connects to it.
    async fn connect(&self, next: &str, is_proxy: bool, report: &mut Report) -> Result<bool> {
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(next).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let found = format!("the name in {next} cannot be resolved: {error}");
                let advice = if is_proxy {
                    "check the name of the proxy, and /etc/resolv.conf"
                } else {
                    "check its spelling, and /etc/resolv.conf"
                };
                report.fail("dns", found, advice)?;
                return Ok(false);
            }
        };
        let list: Vec<String> = addresses.iter().map(|at| at.ip().to_string()).collect();
        report.ok("dns", format!("{next} is {}", list.join(", ")))?;
        let mut last = String::from("it has no address");
        for address in addresses {
            match tokio::time::timeout(TIMEOUTS.connect, TcpStream::connect(address)).await {
                Ok(Ok(_)) => {
                    report.ok("tcp", format!("{address} accepts connections"))?;
                    return Ok(true);
                }
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => {
                    last = format!("{address}: no answer in {} s", TIMEOUTS.connect.as_secs())
                }
            }
        }
        let advice = if is_proxy {
            "the proxy does not run, or a firewall drops connections to it"
        } else {
            "nothing listens there, a firewall drops connections, or a proxy is needed"
        };
        report.fail("tcp", last, advice)?;
        Ok(false)
    }

    /// Which login is used, and where it stands; never the login itself.
    async fn login_told(&self, registry: &str, repository: Option<&str>) -> String {
        match self.files.find_place(registry, repository).await {
            Ok(Some(place)) => format!("the login in {} is used", place.display()),
            Ok(None) => format!(
                "there is no login for {registry}: hayloft login {registry}, or --registry-config"
            ),
            Err(error) => chain(&error),
        }
    }
}

fn clock(probed: &Probed, url: &Url, report: &mut Report) -> Result<()> {
    let Some(there) = probed.date else {
        return Ok(());
    };
    let apart = there.duration_since(jiff::Timestamp::now()).unsigned_abs();
    if apart > CLOCKS_APART {
        return report.warn(
            CLOCK,
            format!("this machine and {url} are {} s apart", apart.as_secs()),
            "set the clocks (NTP): certificates and tokens are valid for a time",
        );
    }
    report.ok(
        CLOCK,
        format!("agrees with {}", url.host_str().unwrap_or_default()),
    )
}

fn advice(error: &client::Error) -> &'static str {
    use client::Error;
    match error {
        Error::Proxy { .. } => "the proxy stands in the way: its rules, its login, or NO_PROXY",
        Error::Transport {
            problem: client::error::Problem::Untrusted { .. },
            ..
        } => "a private authority, or a proxy that opens TLS: name its certificate with --ca-file",
        Error::Transport {
            problem: client::error::Problem::Tls { .. },
            ..
        } => "its certificate has another name or time, or it does not speak TLS there",
        Error::WebPage { .. } => "a proxy or a log-in portal of the network stands between",
        _ => "see what stands between here and there",
    }
}

/// What logins know a registry by.
fn registry_of(origin: &Origin) -> String {
    let named = origin
        .registry()
        .map(|registry| registry.reference().registry());
    named.map_or_else(|| host_of(&origin.at().url), str::to_owned)
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
