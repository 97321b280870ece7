//! The node's models, through its agent or straight in the cache folder when no agent runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use artifact::Reference;
use artifact::agent_api::{EnsureRequest, ModelEntry, PullEvent};
use artifact::client::agent::AgentClient;
use node_agent::LocalNode;

use crate::args::{AgentArgs, DataArgs};
use crate::endpoint;

/// Who keeps the cache.
pub(crate) enum Node {
    /// A running agent.
    Agent(AgentClient),
    /// Nobody: this process opens the folder itself and holds its lock.
    Local(LocalNode),
}

impl Node {
    /// The agent that was named or that answers on the data folder's socket, else the folder.
    pub(crate) async fn open(agent: &AgentArgs, data: &DataArgs) -> Result<Self> {
        Self::open_with(agent, data, |cache| Ok(node_agent::Config::new(cache))).await
    }

    /// The same for who pulls: without an agent, `config` says from where.
    pub(crate) async fn open_with(
        agent: &AgentArgs,
        data: &DataArgs,
        config: impl FnOnce(PathBuf) -> Result<node_agent::Config>,
    ) -> Result<Self> {
        if let Some(client) = endpoint::agent(agent, data).await? {
            return Ok(Self::Agent(client));
        }
        let cache = data.cache()?;
        let mut config = config(cache.clone())?;
        // Whoever runs a verb has not asked for models to go; an agent is there to see to that.
        config.disk.evicts = false;
        let node = LocalNode::open(config)
            .await
            .with_context(|| format!("the cache {} cannot be opened", cache.display()))?;
        Ok(Self::Local(node))
    }

    /// Sees to it that a model is on this node; `on_event` is told how it goes.
    pub(crate) async fn ensure(
        &self,
        request: &EnsureRequest,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<ModelEntry> {
        match self {
            Self::Agent(agent) => Ok(agent.pull(request, on_event).await?),
            Self::Local(node) => Ok(node.ensure(request, on_event).await?),
        }
    }

    /// The models, by name.
    pub(crate) async fn list(&self) -> Result<Vec<ModelEntry>> {
        match self {
            Self::Agent(agent) => Ok(agent.list().await?),
            Self::Local(node) => Ok(node.list().await?),
        }
    }

    /// Takes a model out of the cache; by force although it is used.
    pub(crate) async fn remove(&self, reference: &Reference, force: bool) -> Result<()> {
        match self {
            Self::Agent(agent) if force => Ok(agent.remove_by_force(reference).await?),
            Self::Agent(agent) => Ok(agent.remove(reference).await?),
            Self::Local(node) => Ok(node.remove(reference, force).await?),
        }
    }
}
