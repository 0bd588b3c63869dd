//! How much of the machine agents take, however many try at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use leasehold::transport::websocket::{self, WebSocketConfig};
use leasehold_tests::{
    RawClient,
    host::{ALICE, token},
    hostile, program,
};
use serde_json::json;

/// What the operator gives all agents together.
const AGENTS_BYTES: u64 = 256 << 20;

/// What a host takes besides, as `host/ARCHITECTURE.md` says under "Memory": itself with 64 MiB of recent records and
/// 64 slots kept warm, and what these agents hand over at once and are told.
const BESIDES_BYTES: u64 = 256 << 20;

/// How many attempts run at once, and how often each is made.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 2;

/// What agents have in memory, what they hand to the host, and what they make it write, with many of them at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_take_all_they_can_leave_the_host_within_its_memory() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let config = dir.path().join("leasehold.toml");
    let text = format!(
        "[limits]\nmemory_bytes_max = {}\nmemory_total_bytes_max = {AGENTS_BYTES}\njournal_bytes_max = {}\n\
         [policy.{ALICE}.lease]\n\"fs.read\" = [\"/**\"]\n\"fs.write\" = [\"/**\"]\n\"net.fetch\" = [\"**\"]\n\
         \"tool.call\" = [\"**\"]\n\"model.use\" = [\"**\"]\n\"agent.delegate\" = [\"*\"]\n\"cost.budget\" = [\"USD:1\"]\n",
        64 << 20,
        16 << 20,
    );
    std::fs::write(&config, text).expect("the folder can be written to");
    let host = program::Serve::new().await.args([std::ffi::OsStr::new("--config"), config.as_os_str()]).start().await;
    let attempts: Arc<Vec<_>> = Arc::new(hostile::attempts());
    let next = Arc::new(AtomicUsize::new(0));
    let mut sessions = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (attempts, next, url) = (Arc::clone(&attempts), Arc::clone(&next), host.url.clone());
        sessions.spawn(async move {
            let transport = websocket::connect(&url, &WebSocketConfig::default()).await.expect("the host listens");
            let mut session = RawClient::new(transport);
            session.open(&token(ALICE)).await;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= attempts.len() * ROUNDS {
                    return;
                }
                let attempt = &attempts[n % attempts.len()];
                let submission = session.submit("hostile").lease(attempt.lease.clone()).input(attempt.input.clone());
                let run = submission.field("max_runtime_sec", json!(hostile::RUNTIME_SEC_MAX)).run().await;
                assert!(matches!(run.final_status(), "success" | "error" | "timed_out"), "{}: {run:?}", attempt.name);
            }
        });
    }
    while let Some(ended) = sessions.join_next().await {
        ended.expect("an attempt ends as every job does");
    }
    let peak = host.peak_bytes();
    println!("{} MiB at most, {AT_ONCE} attempts at once", peak >> 20);
    assert!(peak < AGENTS_BYTES + BESIDES_BYTES, "the host had {} MiB at once", peak >> 20);
}
