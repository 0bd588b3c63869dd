//! `serve` and `stdio`.

use std::io;

use leasehold_core::id::Principal;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Failure, output};
use crate::{
    agents::registry::RegisterError,
    config::Config,
    host::{Host, Parts},
    transport::{Peer, Transport},
};

/// Serves WebSocket clients until the process is told to stop.
pub async fn serve(config: Config, as_json: bool) -> Result<(), Failure> {
    let host = start(config, Parts::default()).await?;
    left_out(host.deploy_agents().await)?;
    let listener = host.listen().await?;
    let address = listener.local_addr().map_err(anyhow::Error::from)?;
    host.resume_jobs();
    let url = format!("ws://{address}/arcp");
    if let Some(token) = host.made_token() {
        // The one place a token is shown: it was made a moment ago and nobody else can know it.
        eprintln!("no token is configured; this one is good until the host stops: {}", token.expose());
    }
    // A signal that comes right after the ready line is for this host, not for the operating system.
    let told_to_stop = told_to_stop();
    let registry = host.registry();
    let (agents, compiling, live) = (registry.all().len(), registry.expected(), host.live_agents());
    if agents + compiling == 0 {
        tracing::warn!("--agents: the folder holds no agent; put NAME@VERSION.wasm there");
    }
    if as_json {
        output::line(&json!({ "url": url, "agents": agents, "compiling": compiling, "live_agents_max": live }));
    } else {
        let more = if compiling == 0 { String::new() } else { format!("{compiling} more being compiled, ") };
        output::text_line(&format!("leasehold ready at {url} ({agents} agents, {more}up to {live} jobs at once)"));
    }
    serve_until_told(&host, listener, told_to_stop).await;
    host.close().await;
    Ok(())
}

async fn serve_until_told(host: &Host, listener: TcpListener, told_to_stop: impl Future<Output = ()>) {
    let serving = host.serve(listener);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = told_to_stop => {
            tracing::info!("stopping");
            host.stop();
            // Sessions say goodbye; one that does not listen is not waited for.
            if tokio::time::timeout(GOODBYE, &mut serving).await.is_err() {
                tracing::warn!("some sessions did not close in time");
            }
        }
    }
}

/// How long sessions have to close when the host stops.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(5);

/// Puts a host together; an error names the file its settings came from.
async fn start(config: Config, parts: Parts) -> Result<Host, Failure> {
    let file = config.file.clone();
    Host::start(config, parts).await.map_err(|error| match file {
        Some(file) => Failure::Usage(format!("{error} (settings: {}, and the flags)", file.display())),
        None => error.into(),
    })
}

/// Serves the process that started this one.
pub async fn stdio(config: Config, dialect: Option<&str>) -> Result<(), Failure> {
    let frame_bytes_max = config.server.frame_bytes_max;
    // Whoever holds the pipes may do what the policy gives to `local`, unless tokens are configured.
    let owner = config.tokens.is_empty().then(|| Principal::new("local"));
    let host = start(config, Parts { owner, ..Parts::default() }).await?;
    left_out(host.deploy_agents().await)?;
    host.resume_jobs();
    // As the URL of a WebSocket would say it.
    let peer = Peer { query: dialect.map(|name| format!("dialect={name}")), ..Peer::default() };
    let transport = Transport::lines(tokio::io::stdin(), tokio::io::stdout(), frame_bytes_max).with_peer(peer);
    tokio::select! {
        () = host.serve_one(transport) => {}
        () = told_to_stop() => {}
    }
    host.close().await;
    Ok(())
}

/// Registers the agents, all of which it waits for, and says which files are none.
pub async fn register(host: &Host) -> Result<(), Failure> {
    left_out(host.register_agents().await)
}

/// Says which files are no agents.
fn left_out(looked: Result<Vec<RegisterError>, RegisterError>) -> Result<(), Failure> {
    let problems = looked.map_err(|error| match error {
        RegisterError::Read { .. } => {
            Failure::Usage(format!("--agents {error}; name a folder that holds NAME@VERSION.wasm files"))
        }
        other => Failure::Usage(format!("--agents {other}")),
    })?;
    for problem in problems {
        tracing::error!(%problem, "an agent was left out");
    }
    Ok(())
}

/// Listens for SIGTERM and SIGINT from now on, and returns at the first.
fn told_to_stop() -> impl Future<Output = ()> {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    async {
        let [terminate, interrupt] = signals.map(received);
        tokio::select! {
            () = terminate => {}
            () = interrupt => {}
        }
    }
}

async fn received(signal: io::Result<Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "a signal cannot be caught");
            std::future::pending::<()>().await;
        }
    }
}
