//! A finished job, run once more from its journal: does it do the same again?
//!
//! There is nothing behind such a run. It has no mounts, its journal takes no
//! record, and every call is answered by what the journal says it was answered.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use leasehold_core::id::JobId;

use crate::{
    agents::{
        cache::Cache,
        compiler::{Compiler, Place},
        registry::Registry,
    },
    capability::{Services, World, mounts::Mounts},
    clock::Clock,
    config::Config,
    jobs,
    journal::{self, Bounds, Journal},
    runner::{Replayed, Run, Turns, present},
    sandbox::engine::Sandbox,
    store::{Position, Store, memory::Memory},
    tape::Control,
};

/// How long a replay may take. Nothing in it waits, so what takes longer computes without a call, and may do so for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a job of `store` once more, up to and including call `until` if it is said.
///
/// # Errors
///
/// If there is no such job, or what it was run with is gone.
pub async fn replay(
    config: &Config,
    store: Arc<dyn Store>,
    job_id: JobId,
    until: Option<u64>,
) -> anyhow::Result<Replayed> {
    let accepted = journal::accepted(&*store, &journal::stream(job_id)).await?;
    let accepted = accepted.with_context(|| format!("there is no job {job_id} in this store"))?;
    let mut limits = match jobs::limits(&*store, &accepted.limits).await {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limits of the job are gone; using the configured ones");
            config.limits.clone()
        }
    };
    let agents = limits.clone();
    limits.idle_sec = 0;
    let sandbox = Arc::new(Sandbox::new(&limits, 1)?);
    let cache = Cache::open(config.compiled())?;
    let compiler = Compiler::new(Place::default(), config.compile.clone());
    let registry = Registry::new(Arc::clone(&sandbox), cache, compiler, limits.component_bytes_max);
    let (id, digest) = (accepted.agent.clone(), accepted.digest.clone());
    let agent =
        tokio::task::spawn_blocking(move || registry.pinned(&id, &digest)).await?.map_err(anyhow::Error::msg)?;
    let mounts = Arc::new(Mounts::open(Vec::new())?);
    let nowhere: Arc<dyn Store> = Arc::new(Memory::default());
    let bounds = Bounds { total_bytes_max: u64::MAX, waiting_bytes_max: usize::MAX };
    let run = Run {
        world: Arc::new(World::new(Clock::system(), mounts, limits, store, Services::none())),
        sandbox,
        agent: present(agent),
        accepted: Arc::new(accepted),
        limits: Arc::new(agents),
        journal: Journal::new(nowhere, job_id, Position::ZERO, bounds),
        control: Arc::new(Control::default()),
        interrupted: true,
        turns: Turns::new(1),
        keeper: None,
    };
    Ok(run.replay(until, PATIENCE).await)
}
