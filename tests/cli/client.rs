//! `submit`, `jobs` and `agents`, against `leasehold serve`.

use leasehold::client::Submit;
use leasehold_tests::{
    host::{ALICE, BOB, token},
    program::{Outcome, Running, Serve, Served, outcome, run},
    within,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::code;

#[tokio::test]
async fn submit_follows_a_job_to_its_result() {
    let host = Serve::new().await.start().await;
    let ran = call(&host, &["submit", "echo", "--input", r#"{"n": [1, 2]}"#]).await.exits(code::SUCCESS);
    assert_eq!(ran.json(), json!({ "n": [1, 2] }));
    assert!(ran.stderr.contains("accepted echo@1.0.0 as job_"), "{}", ran.stderr);
    let failed = call(&host, &["submit", "sleeper", "--input", r#"{"sec": "soon"}"#]).await.exits(code::JOB_FAILED);
    let _ = failed.complains("INVALID_REQUEST");
    let frames = call(&host, &["submit", "chatty", "--input", r#"{"count": 3}"#, "--json"]).await;
    let kinds: Vec<Value> =
        frames.exits(code::SUCCESS).objects().iter_mut().map(|frame| frame["type"].take()).collect();
    assert_eq!(kinds, ["job.accepted", "job.event", "job.event", "job.event", "job.result"]);
}

#[tokio::test]
async fn a_detached_job_runs_on_and_is_listed() {
    let host = Serve::new().await.start().await;
    let sleeper = ["submit", "sleeper", "--input", r#"{"sec": 600}"#, "--detach"];
    let first = call(&host, &sleeper).await.exits(code::SUCCESS).stdout;
    let first = first.strip_suffix('\n').unwrap();
    assert!(first.starts_with("job_") && first.len() == 30, "{first:?}");
    let second = call(&host, &[&sleeper[..], &["--json"]].concat()).await.exits(code::SUCCESS);
    let second = second.json();
    assert_eq!(second.as_object().unwrap().len(), 1, "{second}");
    let _ = call(&host, &["submit", "echo"]).await.exits(code::SUCCESS);

    let jobs = call(&host, &["jobs", "--json"]).await.exits(code::SUCCESS).objects();
    let listed: Vec<_> = jobs.iter().map(|job| (&job["agent"], &job["status"])).collect();
    let (sleeps, echoes) = (json!("sleeper@1.0.0"), json!("echo@1.0.0"));
    let (running, success) = (json!("running"), json!("success"));
    assert_eq!(listed, [(&echoes, &success), (&sleeps, &running), (&sleeps, &running)]);
    assert_eq!((&jobs[1]["job_id"], &jobs[2]["job_id"]), (&second["job_id"], &json!(first)));
    for (filter, count) in [
        (&["--status", "running"] as &[&str], 2),
        (&["--status", "success", "--status", "running"], 3),
        (&["--agent", "echo"], 1),
        (&["--agent", "echo@9.9.9"], 0),
    ] {
        let args = [&["jobs", "--json"], filter].concat();
        assert_eq!(call(&host, &args).await.exits(code::SUCCESS).objects().len(), count, "{filter:?}");
    }
    let table = call(&host, &["jobs"]).await.exits(code::SUCCESS).stdout;
    assert!(table.contains("STATUS") && table.contains(first), "{table}");
    // Another principal sees none of it (ARCP §6.6).
    let bobs = run(["jobs", "--url", &host.url, "--token", &token(BOB)]).await.exits(code::SUCCESS).stdout;
    assert_eq!(bobs, "no jobs\n");
}

/// ARCP §7.2
#[tokio::test]
async fn a_repeated_submission_with_a_key_is_the_same_job() {
    let host = Serve::new().await.start().await;
    let submit = |input: &'static str| {
        ["submit", "echo", "--input", input, "--idempotency-key", "k", "--detach"].map(str::to_owned)
    };
    let first = call(&host, &submit("1")).await.exits(code::SUCCESS).stdout;
    assert_eq!(call(&host, &submit("1")).await.exits(code::SUCCESS).stdout, first);
    let _ = call(&host, &submit("2")).await.exits(code::REFUSED).complains("DUPLICATE_KEY");
}

#[tokio::test]
async fn agents_are_listed_with_their_versions() {
    let host = Serve::new().await.start().await;
    let agents = call(&host, &["agents", "--json"]).await.exits(code::SUCCESS).objects();
    let echo = agents.iter().find(|agent| agent["name"] == "echo").unwrap();
    assert_eq!((&echo["versions"], &echo["default"]), (&json!(["1.0.0"]), &json!("1.0.0")));
    let table = call(&host, &["agents"]).await.exits(code::SUCCESS).stdout;
    assert!(table.contains("AGENT") && table.contains("summarize-files"), "{table}");
}

#[tokio::test]
async fn an_interrupt_cancels_the_job() {
    let host = Serve::new().await.start().await;
    let submit = Running::start(host.command(["submit", "sleeper", "--input", r#"{"sec": 600}"#]));
    submit.stderr(|line| line.starts_with("accepted").then_some(())).await;
    submit.signal(Signal::INT);
    let _ = submit.end().await.exits(code::JOB_FAILED).complains("cancelled").complains("CANCELLED");
    let jobs = call(&host, &["jobs", "--json"]).await.exits(code::SUCCESS).objects();
    assert_eq!(jobs[0]["status"], "cancelled");
}

#[tokio::test]
async fn a_second_interrupt_leaves_at_once() {
    let host = Serve::new().await.start().await;
    let submit = Running::start(host.command(["submit", "hostile", "--input", r#"{"do": "ignore_cancel"}"#]));
    submit.stderr(|line| line.starts_with("accepted").then_some(())).await;
    submit.signal(Signal::INT);
    submit.stderr(|line| line.contains("Ctrl-C again").then_some(())).await;
    submit.signal(Signal::INT);
    let _ = submit.end().await.exits(code::INTERRUPTED).complains("interrupted");
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_exit_code_three() {
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}/arcp");
    for command in [&["submit", "echo"] as &[&str], &["jobs"], &["agents"]] {
        let args = [command, &["--url", &url]].concat();
        let _ = run(args).await.exits(code::CANNOT_CONNECT).complains(&url);
    }
    // Whatever may listen there is no host.
    let _ =
        run(["jobs", "--url", "ws://127.0.0.1/arcp"]).await.exits(code::CANNOT_CONNECT).complains("a host has 7777");
}

#[tokio::test]
async fn a_url_that_cannot_be_meant_is_exit_code_two_and_says_what_could_be() {
    for (url, said) in [
        ("nonsense", "write ws://host:port/arcp"),
        ("http://127.0.0.1:7777/arcp", "write ws://host:port/arcp"),
        ("ws://", "write ws://host:port/arcp"),
        ("ws:///arcp", "write ws://host:port/arcp"),
        ("ws://host:port:1/arcp", "write ws://host:port/arcp"),
        ("wss://127.0.0.1:7777/arcp", "TLS is not spoken here"),
        ("ws://127.0.0.1:7777", "a host answers at ws://127.0.0.1:7777/arcp"),
    ] {
        for command in [&["jobs"] as &[&str], &["tail", "job_1"], &["conformance"]] {
            let args = [command, &["--url", url]].concat();
            let _ = run(args).await.exits(code::USAGE).complains("--url").complains(said);
        }
    }
}

#[tokio::test]
async fn a_host_that_refuses_is_exit_code_four() {
    let host = Serve::new().await.start().await;
    let _ = run(["jobs", "--url", &host.url, "--token", "wrong"]).await.exits(code::REFUSED).complains("the token");
    let _ = run(["jobs", "--url", &host.url]).await.exits(code::REFUSED).complains("the token");
    for (args, named) in [
        (&["submit", "nobody"] as &[&str], "AGENT_NOT_AVAILABLE"),
        (&["submit", "echo@9.9.9"], "AGENT_VERSION_NOT_AVAILABLE"),
        (&["submit", "echo", "--lease", r#"{"fs.read": ["/etc/**"]}"#], "LEASE_SUBSET_VIOLATION"),
        (&["submit", "echo", "--lease", r#"{"fs.read": 1}"#], "lease_request"),
        (&["submit", "echo", "--expires-at", "yesterday"], "expires_at"),
        (&["submit", "echo", "--expires-at", "2020-01-01T00:00:00Z"], "expires_at"),
    ] {
        let _ = call(&host, args).await.exits(code::REFUSED).complains(named);
    }
}

#[tokio::test]
async fn a_flag_wins_over_the_environment() {
    let host = Serve::new().await.start().await;
    let mut command = host.command(["jobs", "--token", "wrong"]);
    let _ = outcome(command).await.exits(code::REFUSED);
    command = host.command(["jobs", "--url", &host.url]);
    command.env("LEASEHOLD_URL", "ws://127.0.0.1:1/arcp");
    let _ = outcome(command).await.exits(code::SUCCESS);
}

#[tokio::test]
async fn a_host_that_stops_says_goodbye_and_ends_with_exit_code_zero() {
    let host = Serve::new().await.start().await;
    let mut idle = host.client(ALICE).await;
    let mut busy = host.client(ALICE).await;
    within("a job", busy.submit(Submit::new("sleeper", json!({ "sec": 600 })))).await.unwrap();
    let submit = Running::start(host.command(["submit", "sleeper", "--input", r#"{"sec": 600}"#]));
    submit.stderr(|line| line.starts_with("accepted").then_some(())).await;
    let _ = host.terminate().await.exits(code::SUCCESS);
    for client in [&mut idle, &mut busy] {
        let frame = within("the goodbye", client.recv()).await.unwrap();
        assert_eq!(frame.kind, "session.closed", "{frame:?}");
        assert_eq!(frame.payload["reason"], "the host is stopping");
    }
    // Whoever follows a job is told, and waits for the host to come back until he has had enough.
    submit.stderr(|line| line.contains("coming back").then_some(())).await;
    submit.signal(Signal::INT);
    let _ = submit.end().await.exits(code::INTERRUPTED).complains("the host is stopping");
}

/// ARCP §6.3, §7.7: "agent CLIs reconnecting after a network drop SHOULD use resume".
#[tokio::test]
async fn a_job_is_followed_across_a_host_that_is_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let host = Serve::on(&data).await.start().await;
    let input = r#"{"count": 200, "delay_ms": 5}"#;
    let submit = Running::start(host.command(["submit", "chatty", "--input", input, "--json"]));
    submit.stdout(|line| line.contains("event 20").then_some(())).await;
    let url = host.url.clone();
    let _ = host.kill().await;
    submit.stderr(|line| line.contains("coming back").then_some(())).await;
    let host = Serve::on(&data).await.in_place_of(&url).start().await;
    let outcome = submit.end().await.complains("connected again");
    let frames = outcome.objects();
    let numbers: Vec<_> = frames.iter().filter_map(|frame| frame["event_seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "each message once");
    let status = call(&host, &["jobs", "--json"]).await.objects()[0]["status"].clone();
    assert_eq!(frames.last().unwrap()["payload"]["final_status"], status, "to the end, whichever it is");
}

#[tokio::test]
async fn an_interrupt_stops_a_host_too() {
    let host = Serve::new().await.start().await;
    let _ = host.interrupt().await.exits(code::SUCCESS);
}

async fn call(host: &Served, args: &[impl AsRef<std::ffi::OsStr>]) -> Outcome {
    outcome(host.command(args)).await
}
