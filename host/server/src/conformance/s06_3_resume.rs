//! ARCP §6.3: a client that comes back.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check, skip,
    target::{Form, Ticket},
    wire::{Wire, is_refused, refusal, succeeded},
};
use crate::client::FEATURES;

pub(super) const CASES: &[Case] = &[
    Case::new(46, "6.3", "what came after the last event is told again, number by number", check!(a_replay)),
    Case::new(47, "6.3", "a resume as the Java SDK words it is served", check!(as_java)),
    Case::new(48, "6.3", "a resume as the Ruby SDK words it is served", check!(as_ruby)),
    Case::new(49, "6.3", "a `session.resume` message is served", check!(a_message)),
    Case::new(50, "6.3", "a client that has everything is told nothing again", check!(nothing_again)),
    Case::new(51, "6.3", "a client that has more than there is gets nothing it was not sent", check!(too_much)),
    Case::new(52, "6.3", "a token that was rotated away brings nobody back", check!(an_old_token)),
    Case::new(53, "6.3", "a token that was made up brings nobody back", check!(a_made_up_token)),
    Case::new(54, "6.3", "somebody else's token brings nobody back", check!(a_stolen_token)),
    Case::needs(55, "6.3", "after its window a session is gone, and its jobs are not", "a short resume window"),
    Case::needs(56, "6.3", "what is not kept any more is RESUME_WINDOW_EXPIRED", "a small event buffer"),
    Case::new(57, "6.3", "a client may come back while its old connection is up", check!(over_an_open_one)),
    Case::new(58, "6.3", "an end that nobody saw is told once", check!(an_unseen_end)),
    Case::new(59, "6.3", "a session can be resumed again and again", check!(twice)),
    Case::new(60, "6.3", "a resumed session may cancel its jobs", check!(authority)),
    Case::new(61, "6.7", "a session that was closed can be resumed", check!(after_a_close)),
];

/// Runs a job of `count` events, and gives all that came of it, its end included.
async fn chatty(wire: &mut Wire, count: u64) -> Result<Vec<Value>> {
    let job = wire.job("chatty", json!({ "count": count })).await?;
    wire.follow(&job).await
}

/// A session whose connection was dropped after a job of `count` events: all that was told, how it is found again, and
/// its newest number.
async fn dropped(target: &Target, count: u64) -> Result<(Vec<Value>, Ticket, u64)> {
    target.shared()?;
    let mut wire = target.open().await?;
    let told = chatty(&mut wire, count).await?;
    Ok((told, wire.ticket()?, wire.last_seq()))
}

/// The next `count` frames of the stream.
async fn numbered(wire: &mut Wire, count: usize) -> Result<Vec<Value>> {
    let mut frames = Vec::new();
    while frames.len() < count {
        frames.push(wire.find("a replayed event", |frame| !frame["event_seq"].is_null()).await?);
    }
    Ok(frames)
}

/// Holds a replay against what was told before.
fn is_same(before: &[Value], after: &[Value]) -> Result<()> {
    for (before, after) in before.iter().zip(after) {
        for key in ["type", "job_id", "event_seq", "payload"] {
            ensure!(before[key] == after[key], "event {}: `{key}` is another one", before["event_seq"]);
        }
    }
    Ok(())
}

async fn a_replay(target: &Target) -> Result<()> {
    let (before, ticket, _) = dropped(target, 5).await?;
    let last = before[1]["event_seq"].as_u64().context("an event has a number")?;
    let mut wire = target.resume(&ticket, last).await?;
    ensure!(wire.ticket()?.resume_token != ticket.resume_token, "the resume token does not rotate");
    let after = numbered(&mut wire, before.len() - 2).await?;
    is_same(&before[2..], &after)?;
    chatty(&mut wire, 1).await.map(drop)
}

/// Resumes with these members in the hello.
async fn worded(target: &Target, members: impl FnOnce(&Ticket, u64) -> Value) -> Result<()> {
    let (before, ticket, _) = dropped(target, 3).await?;
    let last = before[0]["event_seq"].as_u64().context("an event has a number")?;
    let mut hello = target.hello();
    if let (Some(hello), Value::Object(members)) = (hello.as_object_mut(), members(&ticket, last)) {
        hello.extend(members);
    }
    let mut wire = target.connect().await?;
    wire.stands_at(last);
    wire.send("session.hello", hello).await?;
    match wire.hear("an answer, or the end").await? {
        Ok(frame) if frame["type"] == "session.welcome" && frame["session_id"] == ticket.session_id => {
            wire.welcomed(&frame, &ticket.features)?;
            let after = numbered(&mut wire, before.len() - 1).await?;
            is_same(&before[1..], &after)
        }
        _ => skip("the runtime does not know this SDK's form, and need not"),
    }
}

async fn as_java(target: &Target) -> Result<()> {
    worded(target, |ticket, last| json!({ "resume_token": ticket.resume_token, "last_event_seq": last })).await
}

async fn as_ruby(target: &Target) -> Result<()> {
    worded(target, |ticket, last| json!({ "resume": { "token": ticket.resume_token, "last_event_seq": last } })).await
}

async fn a_message(target: &Target) -> Result<()> {
    let (before, ticket, _) = dropped(target, 3).await?;
    let last = before[0]["event_seq"].as_u64().context("an event has a number")?;
    let mut refusals = Vec::new();
    for form in [Form::First, Form::After] {
        match target.try_resume(form, target.hello(), &ticket, last).await {
            Ok(Ok(mut wire)) => {
                let after = numbered(&mut wire, before.len() - 1).await?;
                return is_same(&before[1..], &after);
            }
            Ok(Err(refusal)) => refusals.push(refusal),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    // Most SDKs put the resume into the hello, and the draft does not say where the message goes.
    match target.try_resume(Form::Hello, target.hello(), &ticket, last).await? {
        Ok(_) => skip(format!("the runtime resumes in the hello alone ({})", refusals.join("; "))),
        Err(refusal) => bail!("the session cannot be resumed in any form ({}; {refusal})", refusals.join("; ")),
    }
}

async fn nothing_again(target: &Target) -> Result<()> {
    let (_, ticket, last) = dropped(target, 3).await?;
    let mut wire = target.resume(&ticket, last).await?;
    let more = wire.settle().await?;
    ensure!(more.is_empty(), "the runtime tells {} frames again", more.len());
    chatty(&mut wire, 1).await.map(drop)
}

async fn too_much(target: &Target) -> Result<()> {
    let (_, ticket, last) = dropped(target, 1).await?;
    match target.try_resume(Form::Hello, target.hello(), &ticket, last + 1000).await? {
        Ok(mut wire) => {
            let more = wire.settle().await?;
            ensure!(more.is_empty(), "the runtime tells {} frames from nowhere", more.len());
        }
        Err(refusal) => {
            let known = ["INVALID_REQUEST", "RESUME_WINDOW_EXPIRED"].iter().any(|code| refusal.contains(code));
            ensure!(known || refusal.starts_with("the runtime"), "it is refused with {refusal}");
        }
    }
    Ok(())
}

async fn an_old_token(target: &Target) -> Result<()> {
    let (_, old, last) = dropped(target, 1).await?;
    let mut wire = target.resume(&old, last).await?;
    chatty(&mut wire, 1).await?;
    let (new, last) = (wire.ticket()?, wire.last_seq());
    drop(wire);
    target.is_refused_resume(target.hello(), &old, last).await?;
    target.resume(&new, last).await.context("and the newest token is no good any more").map(drop)
}

async fn a_made_up_token(target: &Target) -> Result<()> {
    let (_, mut ticket, last) = dropped(target, 1).await?;
    ticket.resume_token = "rt_made_up".to_owned();
    target.is_refused_resume(target.hello(), &ticket, last).await?;
    let mut wire = target.connect().await?;
    let mut hello = target.hello();
    hello["resume"] = json!({
        "session_id": ticket.session_id, "resume_token": ticket.resume_token, "last_event_seq": last,
    });
    wire.send("session.hello", hello).await?;
    match wire.hear("an answer, or the end").await? {
        Ok(frame) if !refusal(&frame).is_empty() => {
            is_refused(&frame, &["RESUME_WINDOW_EXPIRED", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_REQUEST"])
        }
        _ => Ok(()),
    }
}

async fn a_stolen_token(target: &Target) -> Result<()> {
    target.shared()?;
    let other = target.hello_of(Some(target.other_token()?), &FEATURES);
    let (_, ticket, last) = dropped(target, 1).await?;
    // Without a hello nobody says whose token it is, so that form proves nothing.
    for form in [Form::Hello, Form::After] {
        let refused = target.try_resume(form, other.clone(), &ticket, last).await?.is_err();
        ensure!(refused, "another principal has taken the session");
    }
    target.resume(&ticket, last).await.context("and its owner cannot have it any more").map(drop)
}

async fn over_an_open_one(target: &Target) -> Result<()> {
    target.shared()?;
    let mut old = target.open().await?;
    chatty(&mut old, 1).await?;
    let (ticket, last) = (old.ticket()?, old.last_seq());
    match target.try_resume(Form::Hello, target.hello(), &ticket, last).await? {
        Ok(mut new) => chatty(&mut new, 1).await.map(drop),
        // Then it is the old connection that has to work.
        Err(_) => chatty(&mut old, 1).await.map(drop),
    }
}

async fn an_unseen_end(target: &Target) -> Result<()> {
    target.shared()?;
    let mut wire = target.open().await?;
    let job = wire.job("chatty", json!({ "count": 3, "start_delay_ms": 100 })).await?;
    let ticket = wire.ticket()?;
    drop(wire);
    let mut watcher = target.open().await?;
    if watcher.has("list_jobs") {
        watcher.status_at_end(&job).await?;
    }
    let mut wire = target.resume(&ticket, 0).await?;
    let frames = wire.follow(&job).await?;
    succeeded(&frames[frames.len() - 1])?;
    let more = wire.settle().await?;
    ensure!(more.is_empty(), "the runtime tells {} frames more", more.len());
    Ok(())
}

async fn twice(target: &Target) -> Result<()> {
    target.shared()?;
    let mut wire = target.open().await?;
    for _ in 0..3 {
        chatty(&mut wire, 2).await?;
        let (ticket, last) = (wire.ticket()?, wire.last_seq());
        drop(wire);
        wire = target.resume(&ticket, last).await?;
    }
    chatty(&mut wire, 2).await.map(drop)
}

async fn authority(target: &Target) -> Result<()> {
    target.shared()?;
    let mut wire = target.open().await?;
    let job = wire.job("sleeper", json!({ "sec": 60 })).await?;
    let ticket = wire.ticket()?;
    drop(wire);
    let mut wire = target.resume(&ticket, 0).await?;
    wire.cancel(&job).await?;
    let end = wire.end(&job).await.context("the job was cancelled by its resumed session")?;
    ensure!(end["payload"]["final_status"] == "cancelled", "the job is not cancelled");
    Ok(())
}

async fn after_a_close(target: &Target) -> Result<()> {
    target.shared()?;
    let mut wire = target.open().await?;
    let job = wire.job("chatty", json!({ "count": 2, "start_delay_ms": 200 })).await?;
    let ticket = wire.ticket()?;
    wire.send("session.close", json!({ "reason": "done" })).await?;
    wire.find("session.closed", |frame| frame["type"] == "session.closed").await?;
    drop(wire);
    let mut wire = target.resume(&ticket, 0).await?;
    succeeded(&wire.end(&job).await?)
}
