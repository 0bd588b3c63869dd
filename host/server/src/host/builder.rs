//! A host described step by step, for a program that holds one.

use std::{path::PathBuf, sync::Arc};

use leasehold_core::{id::Principal, secret::Secret};

use super::{Host, Parts, StartError};
use crate::{
    agents::compiler::Place,
    clock::Clock,
    config::{Config, MountEntry, MountMode, PolicyEntry},
    secrets::SecretSource,
    store::Store,
};

/// What a host will be like. Whatever is not said is as in `host/server/leasehold.toml`.
#[derive(Default)]
pub struct Builder {
    config: Config,
    parts: Parts,
}

impl Host {
    /// Begins to describe a host.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Changes any setting.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Finds agents in this folder.
    #[must_use]
    pub fn agents(self, dir: impl Into<PathBuf>) -> Self {
        self.config(|config| config.server.agents = dir.into())
    }

    /// Keeps journals and compiled agents in this folder.
    #[must_use]
    pub fn data(self, dir: impl Into<PathBuf>) -> Self {
        self.config(|config| config.server.data = dir.into())
    }

    /// Lets in whoever has this token, as this principal.
    #[must_use]
    pub fn token(self, principal: impl Into<String>, token: impl Into<String>) -> Self {
        let token = SecretSource::Text(Secret::new(token));
        self.config(|config| drop(config.tokens.insert(principal.into(), token)))
    }

    /// Bounds what any job of a principal may be granted (ARCP §9): namespaces, and the patterns of each.
    #[must_use]
    pub fn policy<'a>(
        self,
        principal: impl Into<String>,
        lease: impl IntoIterator<Item = (&'a str, &'a [&'a str])>,
    ) -> Self {
        let texts = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let lease = lease.into_iter().map(|(namespace, patterns)| (namespace.to_owned(), texts(patterns))).collect();
        let entry = PolicyEntry { lease: Some(lease), ..PolicyEntry::default() };
        self.config(|config| drop(config.policy.insert(principal.into(), entry)))
    }

    /// Shows jobs a folder under a path of its own.
    #[must_use]
    pub fn mount(self, at: impl Into<String>, dir: impl Into<PathBuf>, mode: MountMode) -> Self {
        self.config(|config| config.mounts.push(MountEntry { at: at.into(), path: dir.into(), mode }))
    }

    /// Keeps journals in this store instead of SQLite; [`Memory`](crate::store::memory::Memory) forgets them.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.parts.store = Some(store);
        self
    }

    /// Has components compiled by a child process of this program, which is `leasehold`, or here.
    ///
    /// Without it they are compiled within this process, unless it is `leasehold` itself: whatever a component makes the
    /// compiler do then befalls the whole program. Build `leasehold` of the same version and name it here if you do not
    /// trust who deploys agents.
    #[must_use]
    pub fn compiler(mut self, place: Place) -> Self {
        self.parts.compiler = place;
        self
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.parts.clock = clock;
        self
    }

    /// Lets in a peer without a token as this principal: on wires that only the owner of this process holds.
    #[must_use]
    pub fn owner(mut self, principal: impl Into<String>) -> Self {
        self.parts.owner = Some(Principal::new(principal));
        self
    }

    /// Starts the host with its agents, and lets the jobs go on that an earlier one did not end.
    ///
    /// Agents that were never compiled are compiled from then on; a submission that names one waits for it. A file that
    /// is no agent is logged and left out.
    ///
    /// # Errors
    ///
    /// If a setting cannot be used or the agents folder cannot be read.
    pub async fn start(self) -> Result<Host, StartError> {
        let host = Host::start(self.config, self.parts).await?;
        let problems = host.deploy_agents().await.map_err(|error| StartError::new("server.agents", error))?;
        for problem in problems {
            tracing::error!(%problem, "an agent was left out");
        }
        host.resume_jobs();
        Ok(host)
    }
}
