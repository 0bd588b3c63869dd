//! Agents that take all there is: time, memory, stack, the host's ear.

use std::time::Duration;

use leasehold_tests::{ErrorCode, MountMode, TestHost, hostile::VIAS};
use serde_json::{Value, json};

use super::{House, told};

/// One agent's memory in these tests; the guest asks for more than any.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// A crash ends its own job with the reason, and nothing else.
#[tokio::test]
async fn an_agent_that_crashes_ends_its_own_job_and_is_told_why() {
    let builder = TestHost::builder().limits(|limits| limits.memory_bytes_max = MEMORY_BYTES_MAX);
    let mut house = House::start(builder).await;
    for (input, words) in [
        (json!({"do": "trap"}), "`unreachable`"),
        (json!({"do": "panic", "message": "boo"}), "`unreachable`"),
        (json!({"do": "exit", "code": 3}), "exited with code"),
        (json!({"do": "exit", "code": 0}), "exited with code 0"),
        (json!({"do": "recurse"}), "call stack is exhausted"),
        (json!({"do": "allocate"}), "memory limit"),
        (json!({"do": "steps", "steps": [{"do": "allocate"}]}), "memory limit"),
    ] {
        let run = house.deed(input.clone()).await;
        assert_eq!(run.result(), Err(ErrorCode::InternalError), "{input}: {run:?}");
        assert_eq!(run.final_status(), "error", "{input}");
        assert!(run.message().contains(words), "{input}: {}", run.message());
    }
}

/// A panic's own words reach whoever watches the job.
#[tokio::test]
async fn what_a_panic_says_is_in_the_log() {
    let mut house = House::start(TestHost::builder()).await;
    let run = house.deed(json!({"do": "panic", "message": "the moon is full"})).await;
    let said =
        run.bodies("log").iter().any(|log| log["message"].as_str().is_some_and(|it| it.contains("the moon is full")));
    assert!(said, "{run:?}");
}

/// What fits the memory limit works, and what does not is refused inside the agent.
#[tokio::test]
async fn memory_up_to_the_limit_is_the_agents_own() {
    let builder = TestHost::builder().limits(|limits| limits.memory_bytes_max = MEMORY_BYTES_MAX);
    let mut house = House::start(builder).await;
    let run = house.deed(json!({"do": "allocate", "mib": 32})).await;
    assert_eq!(run.result(), Ok(json!({"ok": {"mib": 32}})));
    let run = house.deed(json!({"do": "allocate", "mib": 4096})).await;
    let mib = run.result().expect("the agent sees the refusal")["ok"]["mib"].as_u64().expect("a number");
    assert!((32..64).contains(&mib), "{mib} MiB were given");
}

/// Busy agents, more of them than threads, and another session's echo between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_agents_share_the_threads_and_end_when_their_time_is_up() {
    const BUSY: usize = 8;
    let mut house = House::start(TestHost::builder().at("2026-05-13T12:00:00Z")).await;
    let mut jobs = Vec::new();
    for _ in 0..BUSY {
        let spin = house.session.submit("hostile").input(json!({"do": "spin"}));
        jobs.push(spin.field("max_runtime_sec", json!(5)).job_id().await);
    }
    let mut neighbour = house.host.session_as("bob").await;
    for n in 0..3 {
        let run = neighbour.submit("echo").input(json!(n)).run().await;
        assert_eq!(run.result(), Ok(json!(n)));
    }
    house.echo().await;
    // All of them run still: the clock has not moved.
    let listed = house.session.request("session.list_jobs", json!({"filter": {"status": ["running"]}})).await;
    assert_eq!(listed.payload()["jobs"].as_array().map(Vec::len), Some(BUSY), "{listed:?}");

    house.host.advance(Duration::from_secs(5));
    for job_id in jobs {
        let run = house.session.follow(&job_id).await;
        assert_eq!((run.result(), run.final_status()), (Err(ErrorCode::Timeout), "timed_out"), "{run:?}");
    }
    house.echo().await;
}

/// An argument of a gigabyte, or of all the memory the agent has, through every door.
#[tokio::test]
async fn an_argument_of_a_gigabyte_ends_the_job() {
    let mut house = House::start(TestHost::builder().mount("/w", MountMode::Rw)).await;
    let lease = json!({"fs.read": ["/w/**"], "fs.write": ["/w/**"]});
    for via in VIAS {
        let input = json!({"do": "big_argument", "bytes": 1_u64 << 30, "via": via, "path": "/w/big"});
        let run = house.leased(lease.clone(), input).await;
        assert_eq!(run.result(), Err(ErrorCode::InternalError), "{via}: {run:?}");
        // These two need more memory than the text has, and the agent dies of that first.
        let dies_first = matches!(via, "dimensions" | "vendor");
        let reason = if dies_first { "the agent trapped" } else { "limits.call_bytes_max" };
        assert!(run.message().contains(reason), "{via}: {}", run.message());
        assert!(run.events.is_empty() || dies_first, "{via}: {run:?}");
    }
    assert!(std::fs::read_dir(house.host.folder("/w")).expect("it is there").next().is_none(), "nothing was written");
}

/// Arguments that can be taken and are still too large are values for the agent, or are cut.
#[tokio::test]
async fn a_large_argument_is_cut_or_refused_and_the_job_goes_on() {
    const BYTES: usize = 20 << 20;
    let mut house = House::start(TestHost::builder().mount("/w", MountMode::Rw)).await;
    let lease = json!({"fs.read": ["/w/**"], "fs.write": ["/w/**"]});
    for (via, bytes, expected) in [
        ("log", BYTES, "ok"),
        ("thought", BYTES, "ok"),
        ("status", BYTES, "ok"),
        ("vendor", BYTES, "invalid-request"),
        ("metric", BYTES, "invalid-request"),
        ("dimensions", 100_000, "invalid-request"),
        ("path", BYTES, "invalid-request"),
        ("write", BYTES, "too-large"),
        ("append", BYTES, "too-large"),
        ("grants", BYTES, "ok"),
    ] {
        let input = json!({"do": "big_argument", "bytes": bytes, "via": via, "path": "/w/big"});
        let run = house.leased(lease.clone(), input).await;
        let outcome = run.result().unwrap_or_else(|_| panic!("{via}: {run:?}"));
        assert_eq!(told(&outcome), expected, "{via}: {outcome}");
        for event in &run.events {
            let size = event.to_string().len();
            assert!(size < 32 << 10, "{via}: an event of {size} bytes");
        }
    }
}

/// Printed lines beyond the limit are dropped and counted; the agent notices nothing.
#[tokio::test]
async fn a_flood_of_printed_lines_is_cut_and_counted() {
    const LINES: u64 = 100_000;
    let builder = TestHost::builder().at("2026-05-13T12:00:00Z").limits(|limits| limits.output_lines_per_sec = 20);
    let mut house = House::start(builder).await;
    for stderr in [false, true] {
        let run = house.deed(json!({"do": "flood_stdout", "lines": LINES, "stderr": stderr})).await;
        assert_eq!(run.result(), Ok(json!({"ok": {"lines": LINES}})));
        let logs = run.bodies("log");
        // The clock stands still, so this is one second; the last line says what became of the others.
        let (count, printed) = logs.split_last().expect("some lines pass");
        assert_eq!(printed.len(), 20, "{logs:?}");
        assert_eq!(count["level"], "warn");
        let words = format!("{} printed lines were dropped", LINES - 20);
        assert!(count["message"].as_str().is_some_and(|it| it.contains(&words)), "{count}");
    }
}

/// A journal has an end, and reaching it is the end of the job: a record with holes would be none.
#[tokio::test]
async fn a_flood_of_events_ends_with_the_journal_and_the_host_goes_on() {
    let builder = TestHost::builder().limits(|limits| limits.journal_bytes_max = 256 << 10);
    let mut house = House::start(builder).await;
    for (input, most) in [
        (json!({"do": "events_flood", "count": 1_000_000, "bytes": 1000}), 256),
        (json!({"do": "events_flood", "count": 1_000_000}), 2600),
        // It returns before anybody could have ended it.
        (json!({"do": "events_flood", "count": 260, "bytes": 1000}), 256),
        (json!({"do": "flood_output", "count": 1000, "bytes": 30_000}), 9),
    ] {
        let run = house.deed(input.clone()).await;
        assert_eq!(run.result(), Err(ErrorCode::InternalError), "{input}: {:?}", run.terminal);
        assert!(run.message().contains("journal is full"), "{input}: {}", run.message());
        assert!((1..=most).contains(&run.events.len()), "{input}: {} events", run.events.len());
    }
}

/// Calls count against the journal too, so that asking for ever is not for ever.
#[tokio::test]
async fn a_flood_of_refused_calls_ends_with_the_journal() {
    let builder = TestHost::builder().limits(|limits| limits.journal_bytes_max = 256 << 10);
    let mut house = House::start(builder).await;
    let run = house.deed(json!({"do": "stat_many", "path": "/etc/passwd", "count": 1_000_000_000_u64})).await;
    assert_eq!(run.result(), Err(ErrorCode::InternalError), "{:?}", run.terminal);
    assert!(run.message().contains("journal is full"), "{}", run.message());
}

/// An agent that sleeps past its time is ended as one that computes is.
#[tokio::test]
async fn an_agent_that_sleeps_too_long_is_timed_out() {
    let mut house = House::start(TestHost::builder()).await;
    let sleep = house.session.submit("hostile").input(json!({"do": "sleep", "ms": 3_600_000}));
    let run = sleep.field("max_runtime_sec", json!(1)).run().await;
    assert_eq!((run.result(), run.final_status()), (Err(ErrorCode::Timeout), "timed_out"));
    house.echo().await;
}

/// The stack holds what an honest agent needs.
#[tokio::test]
async fn an_honest_recursion_fits_the_stack() {
    let mut house = House::start(TestHost::builder()).await;
    let run = house.deed(json!({"do": "recurse", "depth": 2000})).await;
    assert_eq!(run.result(), Ok::<Value, _>(json!({"ok": {"depth": 2000}})));
}
