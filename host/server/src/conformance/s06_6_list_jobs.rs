//! ARCP §6.6: the inventory of jobs.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    wire::{Wire, brief, is_refusal, is_refused},
};

pub(super) const CASES: &[Case] = &[
    Case::new(72, "6.6", "a filter is a conjunction", check!(a_conjunction)),
    Case::new(73, "6.6", "pages hold every job once while new ones come", check!(pages)),
    Case::new(74, "6.6", "a cursor that was made up ends no session", check!(a_bad_cursor)),
    Case::new(75, "6.6", "nothing was created in the future", check!(the_future)),
    Case::new(76, "6.6", "a principal does not see the jobs of others", check!(other_principals)),
    Case::new(77, "6.6", "a filter names an agent or one of its versions", check!(a_version)),
    Case::new(78, "6.6", "an entry says what the draft lists, and no secret", check!(an_entry)),
    Case::new(79, "6.6", "a filter may be absent or empty", check!(no_filter)),
];

/// A session that can list.
async fn session(target: &Target) -> Result<Wire> {
    let wire = target.open().await?;
    wire.needs("list_jobs")?;
    Ok(wire)
}

/// Runs `echo` to its end.
async fn echo(wire: &mut Wire) -> Result<String> {
    let job = wire.job("echo", json!({})).await?;
    wire.end(&job).await?;
    Ok(job)
}

fn ids(entries: &[Value]) -> BTreeSet<&str> {
    entries.iter().filter_map(|entry| entry["job_id"].as_str()).collect()
}

async fn a_conjunction(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    let ended = echo(&mut wire).await?;
    let other = wire.job("chatty", json!({ "count": 1 })).await?;
    wire.end(&other).await?;
    let asleep = wire.job("sleeper", json!({ "sec": 60 })).await?;
    let listed = wire.list_all(json!({ "status": ["success"], "agent": "echo" }), 100).await?;
    wire.cancel(&asleep).await?;
    for entry in &listed {
        ensure!(entry["status"] == "success", "a job with another status is listed: {}", brief(entry));
        let agent = entry["agent"].as_str().unwrap_or_default();
        ensure!(agent == "echo" || agent.starts_with("echo@"), "a job of another agent is listed: {}", brief(entry));
    }
    ensure!(ids(&listed).contains(ended.as_str()), "a job that fits is not listed");
    Ok(())
}

async fn pages(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(echo(&mut wire).await?);
    }
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = wire.list(json!({ "limit": 2, "cursor": cursor })).await?;
        let entries = page["jobs"].as_array().context("a page has jobs")?;
        ensure!(entries.len() <= 2, "a page of at most 2 has {}", entries.len());
        seen.extend(entries.iter().filter_map(|entry| entry["job_id"].as_str()).map(str::to_owned));
        cursor = page["next_cursor"].clone();
        if cursor.is_null() || jobs.iter().all(|job| seen.contains(job)) {
            break;
        }
        ensure!(!entries.is_empty(), "a page that is not the last is empty");
        echo(&mut wire).await?;
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    ensure!(unique.len() == seen.len(), "a job is listed twice");
    ensure!(jobs.iter().all(|job| unique.contains(job)), "a job is on no page");
    Ok(())
}

async fn a_bad_cursor(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    let reply = wire.request("session.list_jobs", json!({ "cursor": "made up" }), "session.jobs").await?;
    if is_refusal(&reply) {
        is_refused(&reply, &["INVALID_REQUEST"])?;
    }
    wire.settle().await.map(drop)
}

async fn the_future(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    echo(&mut wire).await?;
    let page = wire.list(json!({ "filter": { "created_after": "2199-01-01T00:00:00Z" } })).await?;
    ensure!(page["jobs"].as_array().is_some_and(Vec::is_empty), "a job was created in the future");
    Ok(())
}

async fn other_principals(target: &Target) -> Result<()> {
    target.shared()?;
    target.other_token()?;
    let mut wire = session(target).await?;
    let job = echo(&mut wire).await?;
    let mut other = target.open_other().await?;
    let theirs = echo(&mut other).await?;
    ensure!(other.listed(&job).await?.is_none(), "another principal's listing shows the job");
    ensure!(other.listed(&theirs).await?.is_some(), "and not its own");
    Ok(())
}

async fn a_version(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    wire.needs("agent_versions")?;
    let job = echo(&mut wire).await?;
    let entry = wire.listed(&job).await?.context("the job is not listed")?;
    let agent = entry["agent"].as_str().context("an entry names its agent")?.to_owned();
    for (filter, expected) in [("echo", true), (agent.as_str(), true), ("echo@no-such-version", false)] {
        let listed = wire.list_all(json!({ "agent": filter }), 100).await?;
        ensure!(ids(&listed).contains(job.as_str()) == expected, "the filter `{filter}` and a job of {agent}");
    }
    Ok(())
}

async fn an_entry(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    let job = wire.job("chatty", json!({ "count": 2 })).await?;
    let end = wire.end(&job).await?;
    let entry = wire.listed(&job).await?.context("the job is not listed")?;
    for key in ["job_id", "agent", "status", "created_at"] {
        ensure!(entry[key].is_string(), "an entry has no `{key}`: {}", brief(&entry));
    }
    ensure!(entry["lease"].is_object(), "an entry has no `lease`: {}", brief(&entry));
    ensure!(entry["last_event_seq"] == end["event_seq"], "`last_event_seq` is {}", entry["last_event_seq"]);
    let credentials = entry["credentials"].as_array().is_none_or(Vec::is_empty);
    ensure!(credentials, "a job without credentials has some");
    Ok(())
}

async fn no_filter(target: &Target) -> Result<()> {
    let mut wire = session(target).await?;
    let job = echo(&mut wire).await?;
    for payload in [json!({}), json!({ "filter": {} }), json!({ "filter": {}, "limit": 1000, "cursor": null })] {
        let page = wire.list(payload.clone()).await?;
        let entries = page["jobs"].as_array().context("a page has jobs")?;
        let may_be_elsewhere = !page["next_cursor"].is_null();
        ensure!(may_be_elsewhere || ids(entries).contains(job.as_str()), "{payload} leaves a job out");
    }
    Ok(())
}
