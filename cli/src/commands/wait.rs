//! `wait`: until models are on this node.
//!
//! It only asks the agent, again and again, so it may be started before the agent is, and killed at
//! any time: what init containers and jobs need.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use artifact::ModelName;
use artifact::agent_api::{EnsureRequest, PreloadState, PreloadStatus, PreloadedModel};
use artifact::client::{AgentClient, Error};
use artifact::reference::Reference;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::preload::WaitArgs;
use crate::commands::agent_status::told;
use crate::endpoint;
use crate::report::{Interrupted, TimedOut, escape};

/// Time between two questions.
const POLL: Duration = Duration::from_millis(500);
/// Time between two requests to pull a model, where the last one failed.
const RETRY: Duration = Duration::from_secs(5);

pub(crate) async fn wait(args: &WaitArgs) -> Result<()> {
    let names: Vec<ModelName> = args
        .references
        .iter()
        .map(|text| ModelName::parse(text))
        .collect::<Result<_, _>>()?;
    // Named, not looked for: it may not be up yet.
    let agent = AgentClient::open(&endpoint::agent_of_runtime(&args.agent, &args.data)?)?;
    let mut pulls = JoinSet::new();
    if args.pull {
        for name in &names {
            pulls.spawn(ask_for(agent.clone(), name.clone(), args.plain_http));
        }
    }
    let mut waiting = Waiting {
        agent,
        any_digest: args.any_digest,
        left: names,
        told: HashMap::new(),
    };
    tokio::select! {
        () = waiting.until_ready() => {}
        () = tokio::time::sleep_until(Instant::now() + args.timeout) => {
            let left: Vec<String> = waiting.left.iter().map(ToString::to_string).collect();
            return Err(TimedOut(left.join(", ")).into());
        }
        _ = tokio::signal::ctrl_c() => return Err(Interrupted.into()),
    }
    Ok(())
}

/// Asks the agent for a model until it has it; what goes wrong is told.
async fn ask_for(agent: AgentClient, name: ModelName, plain_http: bool) {
    let request = EnsureRequest {
        plain_http,
        ..EnsureRequest::from(&name)
    };
    let mut last = String::new();
    while let Err(error) = agent.pull(&request, |_| {}).await {
        let text = error.to_string();
        if text != last && !is_down(&error) {
            tell!("{name}: {}", escape(&text));
            last = text;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Models that are not ready yet.
struct Waiting {
    agent: AgentClient,
    any_digest: bool,
    left: Vec<ModelName>,
    /// What was told of each last.
    told: HashMap<String, String>,
}

impl Waiting {
    async fn until_ready(&mut self) {
        while !self.left.is_empty() {
            if let Err(error) = self.look().await {
                let text = if is_down(&error) {
                    format!("the agent at {} does not answer yet", self.agent.address())
                } else {
                    error.to_string()
                };
                self.tell_once("", &text);
            }
            if !self.left.is_empty() {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Looks once for every model that is left.
    async fn look(&mut self) -> Result<(), Error> {
        let preload = self.agent.status().await?.preload;
        for name in self.left.clone() {
            let listed = preload.as_ref().and_then(|list| listed(list, &name));
            let reference = reference_of(&name, listed);
            let found = self.agent.get(&self.wanted(&reference)).await?;
            let is_ready = listed.is_none_or(|model| is_ready(&model.state));
            match (found, listed) {
                (Some(model), _) if self.any_digest || is_ready => {
                    say_ready(&format!("{} {}", model.reference, model.digest));
                    self.left.retain(|other| *other != name);
                }
                (_, Some(listed)) => {
                    let state = format!("{} {}", listed.state.as_str(), told(&listed.state));
                    self.tell_once(name.as_str(), state.trim_end());
                }
                (_, None) => self.tell_once(name.as_str(), "not on this node yet"),
            }
        }
        Ok(())
    }

    /// The reference to ask for: without its digest where any will do.
    fn wanted(&self, reference: &Reference) -> Reference {
        let tagged = reference
            .tag()
            .map(|tag| format!("{}/{}:{tag}", reference.registry(), reference.repository()));
        let any = tagged.filter(|_| self.any_digest);
        any.and_then(|text| Reference::parse(&text).ok())
            .unwrap_or_else(|| reference.clone())
    }

    fn tell_once(&mut self, name: &str, text: &str) {
        let told = self.told.entry(name.to_owned()).or_default();
        if *told != text {
            text.clone_into(told);
            let name = if name.is_empty() {
                String::new()
            } else {
                format!("{name}: ")
            };
            tell!("{name}{}", escape(text));
        }
    }
}

/// A closed standard output is no reason not to wait.
fn say_ready(text: &str) {
    let _ = say!("{text}");
}

/// The model's entry in the desired list, if it has one.
fn listed<'a>(list: &'a PreloadStatus, name: &ModelName) -> Option<&'a PreloadedModel> {
    list.models.iter().find(|model| {
        ModelName::parse(&model.name).is_ok_and(|other| other.folded() == name.folded())
            || matches!(&model.state, PreloadState::Ready { reference, .. } if reference == name.reference())
    })
}

/// Where the model is on the node. A bare name may mean several places; the list knows which.
fn reference_of(name: &ModelName, listed: Option<&PreloadedModel>) -> Reference {
    match listed.map(|model| &model.state) {
        Some(PreloadState::Ready { reference, .. }) => reference.clone(),
        _ => name.reference().clone(),
    }
}

fn is_ready(state: &PreloadState) -> bool {
    matches!(state, PreloadState::Ready { .. })
}

fn is_down(error: &Error) -> bool {
    matches!(
        error,
        Error::AgentUnreachable { .. } | Error::AgentCut { .. }
    )
}
