//! `leasehold conformance` against this host: nothing fails, and what is skipped is known.

use std::time::Duration;

use leasehold::conformance::{self, Address, Report, Status, Target};
use leasehold_core::secret::Secret;
use leasehold_tests::{
    TestHost, agents_dir,
    host::{ALICE, BOB, token},
    program::{compiled_agents, leasehold, outcome_within},
    within,
};
use serde_json::{Value, json};

/// Cases that need more than a runtime under test has, whatever the wire.
const NEED_MORE: &[u16] = &[
    17, 18, 37, 55, 56, 108, 110, 111, 113, 121, 126, 129, 130, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142,
    143, 146, 147, 148, 150, 152, 153, 154, 155, 156, 158, 159, 160, 164, 165, 166, 167, 168, 169, 170, 171,
];

/// Cases about stdio, and the one about a runtime without tokens.
const NOT_OVER_WEBSOCKET: &[u16] = &[21, 22, 23, 30];

/// Cases about WebSocket, and those in which two connections reach one runtime.
const NOT_OVER_STDIO: &[u16] = &[
    1, 2, 3, 4, 5, 19, 20, 30, 32, 46, 47, 48, 49, 50, 51, 52, 53, 54, 57, 58, 59, 60, 61, 62, 64, 65, 66, 68, 76, 82,
    96, 99, 106, 107, 115, 116, 117, 118, 119, 120, 122, 123, 124,
];

fn target(address: Address) -> Target {
    let token = |name| Some(Secret::new(token(name)));
    Target { address, token: token(ALICE), other_token: token(BOB), patience: Duration::from_secs(20) }
}

/// Holds the cases that were skipped against those that have to be.
fn skips(cases: &[(u16, &str)], expected: &[&[u16]]) {
    let mut expected = expected.concat();
    expected.sort_unstable();
    let skipped: Vec<u16> = cases.iter().filter(|(_, status)| *status == "skipped").map(|(id, _)| *id).collect();
    assert_eq!(skipped, expected);
}

fn failures(report: &Report) -> Vec<String> {
    let failed = report.cases.iter().filter(|case| case.status == Status::Failed);
    failed.map(|case| format!("{} {}: {}", case.id, case.sentence, case.why.as_deref().unwrap_or_default())).collect()
}

#[tokio::test]
async fn this_host_passes_over_websocket() {
    let host = TestHost::builder().config(|config| config.server.heartbeat_interval_sec = 1).start().await;
    let address = Address::url(&host.serve_url().await).expect("a host says where it is");
    let report = within("the suite", conformance::run(&target(address), &conformance::cases(), 8, |_| {})).await;
    assert_eq!(failures(&report), Vec::<String>::new());
    let status = |status| match status {
        Status::Skipped => "skipped",
        _ => "passed",
    };
    let cases: Vec<_> = report.cases.iter().map(|case| (case.id, status(case.status))).collect();
    skips(&cases, &[NEED_MORE, NOT_OVER_WEBSOCKET]);
}

#[tokio::test]
async fn this_host_passes_over_stdio() {
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    compiled_agents(&home.path().join("leasehold")).await;
    let words = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let mut command = vec![words(leasehold().as_std().get_program()), "stdio --agents".to_owned()];
    command.push(words(agents_dir().as_os_str()));
    for name in [ALICE, BOB] {
        command.push(format!("--token {name}={}", token(name)));
    }
    let mut tool = leasehold();
    // Without a data folder a host keeps nothing, but for its compiled agents.
    tool.env("XDG_CACHE_HOME", home.path());
    tool.args(["conformance", "--json", "--timeout", "20", "--token", &token(ALICE), "--other-token", &token(BOB)]);
    tool.args(["--stdio", &command.join(" ")]);
    let report = outcome_within(Duration::from_secs(300), tool).await.exits(0).json();
    assert_eq!(report["failed"], 0, "{report}");
    let cases = report["cases"].as_array().expect("a report has cases");
    let case = |case: &'_ Value| Some((u16::try_from(case["id"].as_u64()?).ok()?, case["status"].as_str()?.to_owned()));
    let cases: Vec<_> = cases.iter().filter_map(case).collect();
    assert_eq!(cases.len(), conformance::cases().len());
    let cases: Vec<_> = cases.iter().map(|(id, status)| (*id, status.as_str())).collect();
    skips(&cases, &[NEED_MORE, NOT_OVER_STDIO]);
}

/// The tool says what is wrong with a runtime that is none, and does not fall over.
#[tokio::test]
async fn a_runtime_that_is_none_is_told_apart() {
    for (stdio, code, says) in [
        ("no-such-program", 3, "not found"),
        // It reads first: one that is gone before it is spoken to is another matter.
        ("sh -c 'read -r line; echo garbage; sleep 60'", 1, "is not JSON"),
        ("sleep 60", 1, "did not come within 1 s"),
    ] {
        let mut tool = leasehold();
        tool.args(["conformance", "--timeout", "1", "--case", "27", "--stdio", stdio]);
        let outcome = outcome_within(Duration::from_secs(60), tool).await;
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code, Some(code), "{stdio}: {said}");
        assert!(said.contains(says), "{stdio}: {said}");
    }
}

/// Each row is a case, what a runtime says before it says nothing any more, and what the tool finds wrong with it.
#[tokio::test]
async fn a_broken_promise_is_named() {
    let frame = |kind: &str, more: Value, payload: Value| {
        let mut frame = json!({ "arcp": "1.1", "id": "1", "type": kind, "session_id": "s", "payload": payload });
        frame.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
        frame
    };
    let features = json!({ "encodings": ["json"], "features": ["heartbeat"], "agents": [] });
    let welcome = frame("session.welcome", json!({}), json!({ "resume_token": "t", "capabilities": features }));
    let accepted = |job: &str| frame("job.accepted", json!({}), json!({ "job_id": job, "lease": {} }));
    let event = |seq: u64| {
        let body = json!({ "kind": "log", "body": { "level": "info", "message": "a" } });
        frame("job.event", json!({ "job_id": "a", "event_seq": seq }), body)
    };
    let end = |kind: &str, payload: Value| frame(kind, json!({ "job_id": "a", "event_seq": 2 }), payload);
    let error = |code: &str, retryable: bool| {
        let payload = json!({ "code": code, "message": "no", "retryable": retryable });
        frame("session.error", json!({}), payload)
    };
    for (case, frames, why) in [
        ("27", vec![json!([])], "a frame is a JSON object"),
        ("27", vec![welcome.clone()], "the welcome has no /runtime/name"),
        ("67", vec![welcome.clone(), frame("job.event", json!({}), json!({}))], "has session_id, job_id and event_seq"),
        ("131", vec![welcome.clone(), accepted("a"), accepted("b"), event(1), event(3)], "event_seq 3 came after 1"),
        ("131", vec![welcome.clone(), frame("job.cancelled", json!({ "session_id": "x" }), json!({}))], "`session_id`"),
        (
            "101",
            vec![welcome.clone(), accepted("a"), event(1), end("job.result", json!({ "final_status": "cancelled" }))],
            "and not with job.result",
        ),
        ("92", vec![welcome.clone(), accepted("a"), accepted("b")], "they are two jobs"),
        ("28", vec![welcome.clone()], "it is answered with session.welcome"),
        ("28", vec![error("NO_SUCH_CODE", false)], "no code of ARCP"),
        ("85", vec![welcome.clone(), error("INTERNAL_ERROR", true)], "and not with INVALID_REQUEST"),
        ("85", vec![welcome, error("INTERNAL_ERROR", false)], "INTERNAL_ERROR is retryable"),
    ] {
        let script = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let text: String = frames.iter().map(|frame| format!("{frame}\n")).collect();
        std::fs::write(script.path(), text).expect("it can be written");
        let stdio = format!("sh -c \"cat '{}'; exec cat > /dev/null\"", script.path().display());
        let mut tool = leasehold();
        tool.args(["conformance", "--json", "--timeout", "1", "--token", "t", "--case", case, "--stdio", &stdio]);
        let report = outcome_within(Duration::from_secs(60), tool).await.exits(1).json();
        let said = report["cases"][0]["why"].as_str().unwrap_or_default();
        assert!(said.contains(why), "{case} {frames:?}: {said}");
    }
}

#[tokio::test]
async fn a_case_that_does_not_exist_is_wrong_usage() {
    for arguments in [["--case", "172"], ["--section", "99"], ["--url", "http://localhost/arcp"]] {
        let mut tool = leasehold();
        tool.arg("conformance").args(arguments);
        let _ = outcome_within(Duration::from_secs(60), tool).await.exits(2);
    }
}
