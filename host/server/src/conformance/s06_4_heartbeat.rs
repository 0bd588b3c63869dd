//! ARCP §6.4, §6.5: signs of life, and how far the client has read.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{
    Case, Target, check, skip,
    wire::{Wire, brief, is_refused},
};

pub(super) const CASES: &[Case] = &[
    Case::new(62, "6.4", "an idle client is pinged", check!(an_idle_client)),
    Case::new(63, "6.4", "a ping is answered with its nonce", check!(a_ping)),
    Case::new(64, "6.4", "a silent client may be given up, and its job is not", check!(a_silent_client)),
    Case::new(65, "6.4", "a client that only answers is alive", check!(a_client_that_answers)),
    Case::new(66, "6.4", "a pong with a senseless time is a sign of life", check!(a_senseless_time)),
    Case::new(67, "6.4", "heartbeats take no number of the stream", check!(no_number)),
    Case::new(68, "6.5", "what was not acknowledged is kept", check!(what_is_kept)),
    Case::new(69, "6.5", "senseless acknowledgements break nothing", check!(senseless_acks)),
    Case::new(70, "6.5", "a client that lags is told once, and loses nothing", check!(a_lag)),
    Case::new(71, "6.5", "an acknowledgement without the feature breaks nothing", check!(ack_without_feature)),
];

/// The longest interval that is waited for.
const INTERVAL_SEC_MAX: u64 = 2;

/// A session whose interval is short enough to wait for, and the interval.
async fn short(target: &Target) -> Result<(Wire, Duration)> {
    let wire = target.open().await?;
    wire.needs("heartbeat")?;
    match wire.welcome()["heartbeat_interval_sec"].as_u64() {
        Some(sec @ 1..=INTERVAL_SEC_MAX) => Ok((wire, Duration::from_secs(sec))),
        Some(sec) => skip(format!("needs a heartbeat interval of at most {INTERVAL_SEC_MAX} s; it is {sec} s")),
        None => bail!("the welcome has no `heartbeat_interval_sec`"),
    }
}

/// Waits for the next ping; a runtime that is late by less than an interval is still alive (ARCP §6.4).
async fn pinged(wire: &mut Wire, interval: Duration) -> Result<serde_json::Value> {
    wire.answers_pings = false;
    match wire.hear_within(interval * 2, "session.ping").await? {
        Ok(ping) => {
            ensure!(ping["type"] == "session.ping", "an idle client is told {}", brief(&ping));
            ensure!(ping["payload"]["nonce"].is_string(), "a ping has a nonce: {}", brief(&ping));
            Ok(ping)
        }
        Err(end) => bail!("{end} before session.ping came"),
    }
}

async fn an_idle_client(target: &Target) -> Result<()> {
    let (mut wire, interval) = short(target).await?;
    pinged(&mut wire, interval).await.map(drop)
}

async fn a_ping(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.needs("heartbeat")?;
    wire.send("session.ping", json!({ "nonce": "p_7", "sent_at": "2026-05-13T19:42:13.000Z" })).await?;
    let pong = wire.find("session.pong", |frame| frame["type"] == "session.pong").await?;
    ensure!(pong["payload"]["ping_nonce"] == "p_7", "the pong names another ping: {}", brief(&pong));
    ensure!(pong["payload"]["received_at"].is_string(), "the pong has no `received_at`: {}", brief(&pong));
    Ok(())
}

async fn a_silent_client(target: &Target) -> Result<()> {
    target.shared()?;
    let (mut wire, interval) = short(target).await?;
    let job = wire.job("chatty", json!({ "count": 1, "start_delay_ms": 3500 })).await?;
    let ticket = wire.ticket()?;
    wire.answers_pings = false;
    // A runtime may also wait for longer, so the connection need not end before the job does.
    while let Ok(frame) = wire.hear_within(interval * 4, "a ping, an event or the end").await? {
        if frame["type"] == "job.result" {
            return Ok(());
        }
    }
    drop(wire);
    let mut wire = target.resume(&ticket, 0).await.context("the session ended with its connection")?;
    let end = wire.end(&job).await.context("the job ended with its connection")?;
    ensure!(end["payload"]["final_status"] == "success", "the job ended with its connection: {}", brief(&end));
    Ok(())
}

async fn a_client_that_answers(target: &Target) -> Result<()> {
    let (mut wire, interval) = short(target).await?;
    for _ in 0..4 {
        let ping = pinged(&mut wire, interval).await?;
        wire.pong(&ping).await?;
    }
    wire.answers_pings = true;
    wire.settle().await.map(drop)
}

async fn a_senseless_time(target: &Target) -> Result<()> {
    let (mut wire, interval) = short(target).await?;
    for _ in 0..3 {
        let ping = pinged(&mut wire, interval).await?;
        let pong = json!({ "ping_nonce": ping["payload"]["nonce"], "received_at": "0001-01-01T00:00:00Z" });
        wire.send("session.pong", pong).await?;
    }
    wire.answers_pings = true;
    wire.settle().await.map(drop)
}

async fn no_number(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.needs("heartbeat")?;
    for _ in 0..3 {
        wire.settle().await?;
        // A number that is left out fails here.
        let job = wire.job("echo", json!({})).await?;
        wire.end(&job).await?;
    }
    Ok(())
}

async fn what_is_kept(target: &Target) -> Result<()> {
    target.shared()?;
    let mut wire = target.open().await?;
    wire.needs("ack")?;
    let job = wire.job("chatty", json!({ "count": 20 })).await?;
    let frames = wire.follow(&job).await?;
    let seq = |n: usize| frames[n]["event_seq"].as_u64().context("an event has a number");
    wire.send("session.ack", json!({ "last_processed_seq": seq(9)? })).await?;
    wire.settle().await?;
    let ticket = wire.ticket()?;
    drop(wire);
    let mut wire = target.resume(&ticket, seq(9)?).await.context("from the last event that was acknowledged")?;
    let after = wire.follow(&job).await?;
    ensure!(after.len() == frames.len() - 10, "{} frames came again", after.len());
    let ticket = wire.ticket()?;
    drop(wire);
    let mut wire = target.resume(&ticket, seq(14)?).await.context("from a later event")?;
    let after = wire.follow(&job).await?;
    ensure!(after.len() == frames.len() - 15, "{} frames came again", after.len());
    Ok(())
}

/// The lag that every runtime which speaks of lags at all speaks of, as far as is known.
const LAG: u64 = 1_500;

async fn a_lag(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.needs("ack")?;
    let job = wire.job("chatty", json!({ "count": LAG })).await?;
    let frames = wire.follow(&job).await?;
    let count = |path: &str, value: &str| frames.iter().filter(|f| f.pointer(path).is_some_and(|v| v == value)).count();
    let (logs, lags) = (count("/payload/kind", "log"), count("/payload/body/phase", "back_pressure"));
    ensure!(logs as u64 == LAG, "{logs} of {LAG} events came");
    match lags {
        0 => skip(format!("the runtime says nothing of a lag of {LAG} events, and need not")),
        1 => Ok(()),
        _ => bail!("the client was told {lags} times"),
    }
}

async fn senseless_acks(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.needs("ack")?;
    let job = wire.job("chatty", json!({ "count": 3 })).await?;
    wire.end(&job).await?;
    for seq in [3, 1, 0, 1_000_000] {
        wire.send("session.ack", json!({ "last_processed_seq": seq })).await?;
    }
    let said = wire.settle().await?;
    ensure!(said.is_empty(), "an acknowledgement is answered with {}", brief(&said[0]));
    Ok(())
}

async fn ack_without_feature(target: &Target) -> Result<()> {
    let mut wire = target.open_with(target.hello_with(&["heartbeat"])).await?;
    wire.send("session.ack", json!({ "last_processed_seq": 0 })).await?;
    for frame in wire.settle().await? {
        is_refused(&frame, &["INVALID_REQUEST"])?;
    }
    Ok(())
}
