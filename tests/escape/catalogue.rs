//! All that a hostile agent tries, one after the other, at one host.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use leasehold_tests::{MountMode, TestHost, host::ALICE, hostile};
use serde_json::json;

use super::House;

/// How many there must be at least.
const ATTEMPTS_MIN: usize = 60;

/// How long one may last: its time, its grace time, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each ends by itself or is ended, its end is told, and after each of them an ordinary job runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_ends_and_the_host_goes_on() {
    let all = json!({
        "fs.read": ["/**"], "fs.write": ["/**"], "net.fetch": ["**"], "tool.call": ["**"], "model.use": ["**"],
        "agent.delegate": ["*"], "cost.budget": ["USD:1"],
    });
    let builder = TestHost::builder().mount("/w", MountMode::Rw).policy(ALICE, all).limits(|limits| {
        limits.memory_bytes_max = 64 << 20;
        limits.journal_bytes_max = 4 << 20;
    });
    let mut house = House::start(builder).await;
    let attempts = hostile::attempts();
    let names: BTreeSet<&str> = attempts.iter().map(|attempt| &*attempt.name).collect();
    assert!(names.len() == attempts.len() && names.len() >= ATTEMPTS_MIN, "{} attempts", names.len());
    for attempt in &attempts {
        let begun = Instant::now();
        let submission = house.session.submit("hostile").lease(attempt.lease.clone()).input(attempt.input.clone());
        let run = submission.field("max_runtime_sec", json!(hostile::RUNTIME_SEC_MAX)).run().await;
        assert!(matches!(run.final_status(), "success" | "error" | "timed_out"), "{}: {run:?}", attempt.name);
        assert!(begun.elapsed() < PATIENCE, "{} lasted {:?}", attempt.name, begun.elapsed());
        house.echo().await;
    }
    println!("{} hostile guests", attempts.len());
    assert!(std::fs::read_dir(house.host.folder("/w")).expect("it is there").next().is_none(), "nothing was written");
    assert!(!std::path::Path::new("/tmp/escaped").exists());
}
