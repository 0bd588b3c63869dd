//! ARCP §7.5: names and versions.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    wire::{brief, is_refused, job_id},
};

pub(super) const CASES: &[Case] = &[
    Case::new(
        112,
        "7.5",
        "a bare name is the default version, and a version is itself or not available",
        check!(versions),
    ),
    Case::needs(113, "7.5", "a running job keeps its version", "an agent that is deployed while a job runs"),
    Case::new(114, "7.5", "an empty version is refused", check!(no_version)),
];

async fn versions(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.needs("agent_versions")?;
    let agents = wire.welcome()["capabilities"]["agents"].clone();
    let echo = agents.as_array().into_iter().flatten().find(|agent| agent["name"] == "echo");
    let echo = echo.context("there is no agent `echo`")?;
    let mut requests = Vec::new();
    if let Some(default) = echo["default"].as_str() {
        requests.push(("echo".to_owned(), default.to_owned()));
    }
    for version in echo["versions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        requests.push((format!("echo@{version}"), version.to_owned()));
    }
    for (agent, version) in requests {
        let reply = wire.submit(json!({ "agent": agent, "input": {} })).await?;
        job_id(&reply).with_context(|| agent.clone())?;
        let resolved = &reply["payload"]["agent"];
        ensure!(*resolved == format!("echo@{version}"), "`{agent}` is accepted as {}", brief(&reply));
    }
    let reply = wire.submit(json!({ "agent": "echo@no-such-version", "input": {} })).await?;
    is_refused(&reply, &["AGENT_VERSION_NOT_AVAILABLE"])
}

async fn no_version(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let reply = wire.submit(json!({ "agent": "echo@", "input": {} })).await?;
    is_refused(&reply, &["INVALID_REQUEST", "AGENT_VERSION_NOT_AVAILABLE", "AGENT_NOT_AVAILABLE"])
}
