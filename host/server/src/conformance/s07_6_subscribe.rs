//! ARCP §7.6: watching a job of another session.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check, skip,
    wire::{Wire, brief, is_of_job, is_refused, payloads, succeeded},
};

pub(super) const CASES: &[Case] = &[
    Case::new(115, "7.6", "a subscriber without history sees what comes, in its own numbers", check!(live)),
    Case::new(116, "7.6", "with history it sees all of it, without a gap or a repetition", check!(history)),
    Case::new(117, "7.6", "history begins after from_event_seq", check!(from)),
    Case::new(118, "7.6", "from_event_seq without history replays nothing", check!(from_without_history)),
    Case::new(119, "7.6", "a job that has ended can be read again", check!(an_ended_job)),
    Case::new(120, "7.6", "an unknown job and somebody else's are refused", check!(no_such_job)),
    Case::needs(121, "7.6", "another observer sees no credential", "a policy that lets another principal watch"),
    Case::new(122, "7.6", "after an unsubscription nothing comes", check!(unsubscribed)),
    Case::new(123, "7.6", "whoever subscribes twice is told once", check!(twice)),
    Case::new(124, "7.6", "a subscriber outlives the submitter's connection", check!(the_submitter_is_gone)),
    Case::new(125, "7.6", "a submitter that subscribes is told once", check!(ones_own)),
    Case::needs(126, "7.6", "the budget of an acknowledgement is the current one", "an agent that reports costs"),
    Case::new(127, "6.2", "a subscription without the feature is not served", check!(without_feature)),
];

/// The submitter and a second session of the same principal.
async fn two(target: &Target) -> Result<(Wire, Wire)> {
    target.shared()?;
    let watcher = target.open().await?;
    watcher.needs("subscribe")?;
    Ok((target.open().await?, watcher))
}

fn is_subscribed(reply: &Value, job: &str) -> Result<()> {
    ensure!(reply["type"] == "job.subscribed", "a subscription is answered with {}", brief(reply));
    let payload = &reply["payload"];
    ensure!(payload["job_id"] == job, "job.subscribed is about another job: {}", brief(reply));
    ensure!(payload["current_status"].is_string(), "job.subscribed has no `current_status`: {}", brief(reply));
    ensure!(payload["agent"].is_string(), "job.subscribed has no `agent`: {}", brief(reply));
    Ok(())
}

/// A job that says `count` things slowly, of which two have been heard.
async fn slow(wire: &mut Wire, count: u64) -> Result<(String, Vec<Value>)> {
    let job = wire.job("chatty", json!({ "count": count, "delay_ms": 100 })).await?;
    let mut heard = Vec::new();
    for _ in 0..2 {
        let frame = wire.of_job(&job).await?;
        ensure!(frame["type"] == "job.event", "the job ended with {}", brief(&frame));
        heard.push(frame);
    }
    Ok((job, heard))
}

/// Asserts that `seen` are the last of `all`.
fn is_tail(all: &[Value], seen: &[Value]) -> Result<()> {
    ensure!(seen.len() <= all.len(), "the subscriber was told {} frames of {}", seen.len(), all.len());
    let tail = &all[all.len() - seen.len()..];
    ensure!(payloads(tail) == payloads(seen), "the subscriber was told something else");
    Ok(())
}

async fn live(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let (job, mut all) = slow(&mut wire, 8).await?;
    let reply = watcher.subscribe(&job, None, false).await?;
    is_subscribed(&reply, &job)?;
    ensure!(reply["payload"]["replayed"] != true, "nothing was to be replayed");
    let seen = watcher.follow(&job).await?;
    all.extend(wire.follow(&job).await?);
    ensure!(seen.len() + 2 <= all.len(), "what came before the subscription was told again");
    is_tail(&all, &seen)
}

async fn history(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let (job, mut all) = slow(&mut wire, 8).await?;
    is_subscribed(&watcher.subscribe(&job, Some(0), true).await?, &job)?;
    let seen = watcher.follow(&job).await?;
    all.extend(wire.follow(&job).await?);
    ensure!(seen.len() == all.len(), "the subscriber was told {} frames of {}", seen.len(), all.len());
    is_tail(&all, &seen)
}

async fn from(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let job = wire.job("chatty", json!({ "count": 5 })).await?;
    let all = wire.follow(&job).await?;
    let second = all[1]["event_seq"].as_u64().context("an event has a number")?;
    is_subscribed(&watcher.subscribe(&job, Some(second), true).await?, &job)?;
    let events =
        |frames: &[Value]| frames.iter().filter(|frame| frame["type"] == "job.event").cloned().collect::<Vec<_>>();
    let mut seen = Vec::new();
    while seen.len() < events(&all).len() - 2 {
        let frame = watcher.of_job(&job).await?;
        ensure!(frame["type"] == "job.event", "the replay ends after {} events", seen.len());
        seen.push(frame);
    }
    is_tail(&events(&all), &seen)?;
    let late = watcher.settle().await?;
    ensure!(late.iter().all(|frame| frame["type"] != "job.event"), "more is replayed than there was");
    Ok(())
}

async fn from_without_history(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let (job, mut all) = slow(&mut wire, 8).await?;
    is_subscribed(&watcher.subscribe(&job, Some(0), false).await?, &job)?;
    let seen = watcher.follow(&job).await?;
    all.extend(wire.follow(&job).await?);
    ensure!(seen.len() + 2 <= all.len(), "what came before the subscription was told again");
    is_tail(&all, &seen)
}

async fn an_ended_job(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let job = wire.job("chatty", json!({ "count": 3 })).await?;
    let all = wire.follow(&job).await?;
    let reply = watcher.subscribe(&job, Some(0), true).await?;
    is_subscribed(&reply, &job)?;
    ensure!(reply["payload"]["current_status"] == "success", "the job is said to be {}", brief(&reply));
    // Whether the end is an event of the history is not said.
    let said = watcher.settle().await?;
    let mut seen: Vec<Value> = said.into_iter().filter(|frame| is_of_job(frame, &job)).collect();
    while seen.len() < all.len() - 1 {
        seen.push(watcher.of_job(&job).await?);
    }
    let events = all.iter().zip(&seen).all(|(told, seen)| told["payload"] == seen["payload"]);
    ensure!(events, "the history is another one");
    Ok(())
}

async fn no_such_job(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let reply = watcher.subscribe("job_01ARZ3NDEKTSV4RRFFQ69G5FAV", None, false).await?;
    is_refused(&reply, &["JOB_NOT_FOUND", "PERMISSION_DENIED"])?;
    let mut other = target.open_other().await?;
    other.needs("subscribe")?;
    let job = wire.job("chatty", json!({ "count": 3, "start_delay_ms": 200 })).await?;
    let reply = other.subscribe(&job, Some(0), true).await?;
    is_refused(&reply, &["PERMISSION_DENIED", "JOB_NOT_FOUND"])?;
    succeeded(&wire.end(&job).await?)?;
    let told = other.settle().await?;
    ensure!(!told.iter().any(|frame| is_of_job(frame, &job)), "another principal is told of the job");
    Ok(())
}

async fn unsubscribed(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let job = wire.job("chatty", json!({ "count": 20, "delay_ms": 50 })).await?;
    is_subscribed(&watcher.subscribe(&job, None, false).await?, &job)?;
    watcher.of_job(&job).await?;
    watcher.send("job.unsubscribe", json!({ "job_id": job })).await?;
    watcher.send("job.unsubscribe", json!({ "job_id": job })).await?;
    watcher.settle().await?;
    succeeded(&wire.end(&job).await?)?;
    let own = watcher.job("echo", json!({})).await?;
    succeeded(&watcher.end(&own).await?)?;
    let late = watcher.settle().await?;
    ensure!(!late.iter().any(|frame| is_of_job(frame, &job)), "the job is still told of");
    Ok(())
}

async fn twice(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let job = wire.job("chatty", json!({ "count": 5, "start_delay_ms": 300 })).await?;
    is_subscribed(&watcher.subscribe(&job, None, false).await?, &job)?;
    let id = watcher.send("job.subscribe", json!({ "job_id": job, "history": false })).await?;
    let seen = watcher.follow(&job).await?;
    let all = wire.follow(&job).await?;
    is_tail(&all, &seen)?;
    for frame in watcher.settle().await? {
        ensure!(!is_of_job(&frame, &job), "the job is told of twice");
        if frame["type"] != "job.subscribed" {
            ensure!(frame["id"] == id || frame["payload"]["request_id"] == id, "it is answered with {}", brief(&frame));
            is_refused(&frame, &["INVALID_REQUEST"])?;
        }
    }
    Ok(())
}

async fn the_submitter_is_gone(target: &Target) -> Result<()> {
    let (mut wire, mut watcher) = two(target).await?;
    let job = wire.job("chatty", json!({ "count": 5, "delay_ms": 50, "start_delay_ms": 100 })).await?;
    is_subscribed(&watcher.subscribe(&job, Some(0), true).await?, &job)?;
    drop(wire);
    let seen = watcher.follow(&job).await?;
    succeeded(&seen[seen.len() - 1])?;
    let events = seen.iter().filter(|frame| frame["payload"]["kind"] == "log").count();
    ensure!(events == 5, "{events} of 5 events came");
    Ok(())
}

async fn ones_own(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.needs("subscribe")?;
    let job = wire.job("chatty", json!({ "count": 5, "start_delay_ms": 200 })).await?;
    wire.send("job.subscribe", json!({ "job_id": job, "history": false })).await?;
    let seen = wire.follow(&job).await?;
    let events = seen.iter().filter(|frame| frame["payload"]["kind"] == "log").count();
    ensure!(events == 5, "{events} events came, and not 5");
    let late = wire.settle().await?;
    ensure!(!late.iter().any(|frame| is_of_job(frame, &job)), "the job is told of twice");
    Ok(())
}

async fn without_feature(target: &Target) -> Result<()> {
    let mut wire = target.open_with(target.hello_with(&["heartbeat"])).await?;
    if !wire.has("heartbeat") {
        return skip("the runtime has no `heartbeat` (ARCP §6.2)");
    }
    let job = wire.job("chatty", json!({ "count": 1, "start_delay_ms": 200 })).await?;
    wire.send("job.subscribe", json!({ "job_id": job })).await?;
    let said = wire.settle().await?;
    ensure!(
        said.iter().all(|frame| frame["type"] != "job.subscribed"),
        "`subscribe` is served though it was not offered"
    );
    Ok(())
}
