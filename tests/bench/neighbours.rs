//! What a neighbour notices of an agent that does what it must not: the times of an echo beside each attempt.
//!
//! One attempt after the other runs again and again in a session of its own, while echoes run one after the other in
//! another; every few attempts the echoes run alone, so that what else the machine does is the same for both.

use std::time::Duration;

use leasehold::transport::websocket::{self, WebSocketConfig};
use leasehold_tests::{RawClient, agents_dir, hostile};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Row, Times,
    load::Bare,
    program::{Program, TOKEN},
    shown,
};

/// Echoes beside one attempt.
const ECHOES: usize = 300;

/// The goal: a neighbour's p99 worsens by less than this.
const WORSE_PERCENT_MAX: f64 = 20.0;

/// How many of the worst are shown.
const SHOWN: usize = 8;

/// The part `neighbours`.
pub async fn neighbours() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a folder");
    // The first start compiles.
    drop(Program::leasehold(agents_dir(), &dir.path().join("host")));
    let program = Program::leasehold(agents_dir(), &dir.path().join("host"));
    let mut bare = Bare::connect(&program.url, TOKEN).await;
    echoes(&mut bare).await;
    let mut alone = echoes(&mut bare).await;
    let mut worst = Vec::new();
    let attempts = hostile::attempts();
    for (n, attempt) in attempts.iter().enumerate() {
        if n % 8 == 7 {
            alone = echoes(&mut bare).await;
        }
        let hostile = try_again_and_again(program.url.clone(), attempt.clone());
        // It has begun by then, whatever it is.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let beside = echoes(&mut bare).await;
        hostile.abort();
        // A panic of the load itself would be a measurement of nothing.
        if let Err(error) = hostile.await {
            assert!(error.is_cancelled(), "{}: {error}", attempt.name);
        }
        worst.push((ratio(&beside, &alone), attempt.name.clone(), beside, alone.quantile(0.99)));
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    let within = worst.iter().filter(|(ratio, ..)| (ratio - 1.0) * 100.0 < WORSE_PERCENT_MAX).count();
    let mut rows = vec![
        Row::new("echo alone, before the first attempt and between some", alone.figures(), ""),
        Row::new(
            "attempts beside which an echo's p99 worsens by less than 20 %",
            format!("{within} of {}", attempts.len()),
            "all",
        ),
        Row::new(
            "the most memory the host had at once in all of this",
            format!("{} MiB", program.peak_bytes() >> 20),
            "",
        ),
    ];
    for (ratio, name, beside, alone) in worst.into_iter().take(SHOWN) {
        let figure = format!("x {ratio:.2} ({}, alone p99 {}): {name}", beside.figures(), shown(alone));
        rows.push(Row::new("echo beside one of the worst", figure, "x 1.20"));
    }
    rows
}

fn ratio(beside: &Times, alone: &Times) -> f64 {
    beside.quantile(0.99).as_secs_f64() / alone.quantile(0.99).as_secs_f64()
}

async fn echoes(bare: &mut Bare) -> Times {
    let mut times = Vec::with_capacity(ECHOES);
    for _ in 0..ECHOES {
        times.push(bare.echo().await);
    }
    Times::new(times)
}

/// Runs an attempt, and again as soon as it is over, until it is stopped.
fn try_again_and_again(url: String, attempt: hostile::Attempt) -> JoinHandle<()> {
    tokio::spawn(async move {
        let transport = websocket::connect(&url, &WebSocketConfig::default()).await.expect("the host listens");
        let mut client = RawClient::new(transport);
        client.open(TOKEN).await;
        loop {
            let submission = client.submit("hostile").lease(attempt.lease.clone()).input(attempt.input.clone());
            submission.field("max_runtime_sec", json!(hostile::RUNTIME_SEC_MAX)).run().await;
        }
    })
}
