//! `serve`, `registry`, `agent`, `runtime`: bind, say where, run until a signal.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use registry::{Listeners, ReindexEvent, ReindexSummary};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{Admin, advise_registry, until_interrupted};
use crate::args::registry::RegistryOptions;
use crate::args::runtime::{ModelsArgs, RuntimeArgs};
use crate::args::storage::TargetArgs;
use crate::args::{AgentRoleArgs, RegistryArgs, ServeArgs};
use crate::endpoint;

/// All roles in one process, wired together over local addresses.
pub(crate) async fn serve(args: ServeArgs) -> Result<()> {
    let registry = args.registry.to_config(&args.data)?;
    let listeners = registry_listeners(&args.registry, args.registry_listen).await?;
    let agent_listener = bind("agent", args.agent_listen).await?;
    let runtime_listen = endpoint::runtime_listen(args.runtime_listen)?;
    let runtime_listener = bind("runtime", runtime_listen).await?;
    let mut agent = endpoint::agent_config(args.data.cache()?, &args.sources.into())?;
    agent.disk = args.disk.to_options()?;
    args.network.apply(&mut agent.pull);
    agent.preload = args.preload.to_options();
    let agent_url = format!("http://{}", reachable(agent_listener.local_addr()?));
    let runtime = runtime_config(args.data.cache()?, Some(agent_url), args.models);
    // Before anybody learns that there is something to send signals to.
    let stop = Stop::on_signal()?;
    reload_on_hangup(registry.reload.clone())?;
    say_registry(&registry, &listeners)?;
    say("agent", "http", &agent_listener)?;
    say("runtime", "http", &runtime_listener)?;
    let outcome = tokio::try_join!(
        stop.ends_all(
            registry::serve(registry, listeners, stop.wait()),
            "the registry"
        ),
        stop.ends_all(
            node_agent::serve(agent, agent_listener, stop.wait()),
            "the node agent"
        ),
        stop.ends_all(
            runtime::serve(runtime, runtime_listener, stop.wait()),
            "the runtime"
        ),
    );
    outcome.map(|_| ())
}

pub(crate) async fn registry(args: &RegistryArgs) -> Result<()> {
    let config = args.options.to_config(&args.data)?;
    let listeners = registry_listeners(&args.options, args.listen).await?;
    let stop = Stop::on_signal()?;
    reload_on_hangup(config.reload.clone())?;
    say_registry(&config, &listeners)?;
    registry::serve(config, listeners, stop.wait())
        .await
        .context("the registry ended")
}

pub(crate) async fn agent(args: &AgentRoleArgs) -> Result<()> {
    let listener = bind("agent", args.listen).await?;
    let mut config = endpoint::agent_config(args.data.cache()?, &args.sources)?;
    config.disk = args.disk.to_options()?;
    args.network.apply(&mut config.pull);
    config.preload = args.preload.to_options();
    say("agent", "http", &listener)?;
    let stop = Stop::on_signal()?;
    node_agent::serve(config, listener, stop.wait())
        .await
        .context("the node agent ended")
}

pub(crate) async fn runtime(args: RuntimeArgs) -> Result<()> {
    let listener = bind("runtime", endpoint::runtime_listen(args.listen)?).await?;
    let agent = endpoint::agent_of_runtime(&args.agent, &args.data)?;
    let config = runtime_config(args.data.cache()?, Some(agent), args.models);
    say("runtime", "http", &listener)?;
    let stop = Stop::on_signal()?;
    runtime::serve(config, listener, stop.wait())
        .await
        .context("the runtime ended")
}

/// Makes the registry's index follow its records: in a running registry while it serves, else
/// anew.
pub(crate) async fn reindex(target: &TargetArgs) -> Result<()> {
    if let Some(admin) = Admin::of(target).await? {
        return until_interrupted(reindex_running(&admin)).await;
    }
    let config = target.storage.to_config(&target.data)?;
    let mut counted = Counted::default();
    let summary = registry::reindex(&config, &mut |progress| counted.tell(progress.records))
        .with_context(|| format!("reindexing {}", config.data.display()))
        .map_err(advise_registry)?;
    say!("{}", shown(&summary))?;
    Ok(())
}

async fn reindex_running(admin: &Admin) -> Result<()> {
    let mut counted = Counted::default();
    let mut done = None;
    admin
        .run("reindex", &[], |event| {
            match event {
                ReindexEvent::Read { records } => counted.tell(records),
                ReindexEvent::Done { summary, settled } => done = Some((summary, settled)),
                ReindexEvent::Failed { message } => bail!("{message}"),
            }
            Ok(())
        })
        .await?;
    let (summary, settled) = done.context("the registry broke off")?;
    say!("{}; {settled} put right", shown(&summary))?;
    Ok(())
}

fn shown(summary: &ReindexSummary) -> String {
    let ReindexSummary {
        repositories,
        manifests,
        tags,
        blobs,
        damaged,
        ..
    } = summary;
    let mut text =
        format!("{repositories} repositories, {manifests} manifests, {tags} tags, {blobs} blobs");
    if *damaged > 0 {
        text.push_str(&format!(
            "; {damaged} records are damaged: see hayloft fsck"
        ));
    }
    text
}

/// Tells every ten thousandth record.
#[derive(Default)]
struct Counted {
    last: u64,
}

impl Counted {
    fn tell(&mut self, records: u64) {
        if records >= self.last + 10_000 {
            self.last = records;
            tell!("{records} records read");
        }
    }
}

fn runtime_config(cache: PathBuf, agent: Option<String>, models: ModelsArgs) -> runtime::Config {
    runtime::Config {
        agent,
        cache,
        keep_alive: models.keep_alive,
        num_parallel: models.num_parallel,
        context_length: models.context_length,
        max_queue: models.max_queue,
        threads: models.threads,
        max_loaded_models: models.max_loaded_models,
        origins: models.origins,
        ..runtime::Config::default()
    }
}

async fn bind(role: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("the {role} cannot listen on {address}: choose another address"))
}

async fn registry_listeners(options: &RegistryOptions, api: SocketAddr) -> Result<Listeners> {
    let metrics = match options.access.metrics_listen {
        Some(address) => Some(bind("registry's metrics", address).await?),
        None => None,
    };
    Ok(Listeners {
        api: bind("registry", api).await?,
        metrics,
    })
}

/// The registry's line comes last: who has read it knows both addresses.
fn say_registry(config: &registry::Config, listeners: &Listeners) -> Result<()> {
    if let Some(metrics) = &listeners.metrics {
        say("metrics", "http", metrics)?;
    }
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    say("registry", scheme, &listeners.api)
}

/// The line that scripts wait for; port 0 has become a real one here.
fn say(role: &str, scheme: &str, listener: &TcpListener) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    writeln!(
        stdout,
        "hayloft {role} listening on {scheme}://{}",
        listener.local_addr()?
    )?;
    stdout.flush()?;
    Ok(())
}

/// An address to connect to: loopback when the listener takes every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

/// What a second signal means: whoever sends it does not want to wait. Nothing that was
/// acknowledged is lost, as after a kill.
#[expect(
    clippy::disallowed_methods,
    reason = "a person asked twice, and main may be waiting for what they do not want to wait for"
)]
fn end_at_once() -> ! {
    std::process::exit(1)
}

/// SIGHUP: files that are read again when they change are read again now.
fn reload_on_hangup(reload: registry::Reload) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.now();
        }
    });
    Ok(())
}

/// Tells every role when to end: on SIGTERM, on SIGINT, or when one of them failed.
struct Stop(watch::Sender<bool>);

impl Stop {
    fn on_signal() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let sender = watch::Sender::new(false);
        let stop = sender.clone();
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if is_first {
                    stop.send_replace(true);
                }
            }
            end_at_once();
        });
        Ok(Self(sender))
    }

    fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.subscribe();
        async move {
            // An error means that the sender is gone, which is a reason to stop as well.
            let _ = receiver.wait_for(|stop| *stop).await;
        }
    }

    /// When one role ends, the others end too.
    async fn ends_all<E>(&self, role: impl Future<Output = Result<(), E>>, name: &str) -> Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let outcome = role.await;
        self.0.send_replace(true);
        outcome.with_context(|| format!("{name} ended"))
    }
}
