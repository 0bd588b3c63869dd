//! `leasehold tail`, `cancel` and `send`: what another terminal can do with a job.

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path};

use leasehold_tests::program::{Outcome, Serve, Served, outcome};
use serde_json::{Value, json};

use crate::code;

/// A call of the program by somebody with this state folder.
async fn call<S: AsRef<OsStr>>(host: &Served, state: &Path, args: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = host.command(args);
    command.env("XDG_STATE_HOME", state);
    outcome(command).await
}

async fn detach(host: &Served, state: &Path, args: &[&str]) -> String {
    let submitted = call(host, state, [&["submit", "--detach"], args].concat()).await.exits(code::SUCCESS);
    submitted.stdout.trim().to_owned()
}

#[tokio::test]
async fn a_detached_job_is_seen_from_another_terminal_with_all_it_told() {
    let (host, state) = (Serve::new().await.start().await, tempfile::tempdir().unwrap());
    let job = detach(&host, state.path(), &["chatty", "--input", r#"{"count": 3}"#]).await;
    let seen = call(&host, state.path(), ["tail", &job]).await.exits(code::SUCCESS);
    for said in ["event 1", "event 3", "success"] {
        assert!(seen.stderr.contains(said), "{}", seen.stderr);
    }
    assert_eq!(seen.json(), json!({ "count": 3 }), "the result, and nothing else");
    let frames = call(&host, state.path(), ["tail", &job, "--json", "--from", "2"]).await.exits(code::SUCCESS);
    let types: Vec<Value> = frames.objects().iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(types, ["job.subscribed", "job.event", "job.result"]);
    let _ = call(&host, state.path(), ["tail", "job_00000000000000000000000000"])
        .await
        .exits(code::REFUSED)
        .complains("JOB_NOT_FOUND");
}

#[tokio::test]
async fn a_detached_job_is_cancelled_by_whoever_submitted_it() {
    let (host, state) = (Serve::new().await.start().await, tempfile::tempdir().unwrap());
    let job = detach(&host, state.path(), &["sleeper", "--input", r#"{"sec": 600}"#]).await;
    let folder = state.path().join("leasehold/sessions");
    for (path, mode) in [(folder.clone(), 0o700), (folder.join(format!("{job}.json")), 0o600)] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    let other = tempfile::tempdir().unwrap();
    let _ = call(&host, other.path(), ["cancel", &job]).await.exits(code::REFUSED).complains("PERMISSION_DENIED");
    // Twice: what is kept is renewed each time.
    for _ in 0..2 {
        let cancelled = call(&host, state.path(), ["cancel", &job, "--json"]).await.exits(code::SUCCESS);
        assert_eq!(cancelled.json(), json!({ "job_id": job, "cancelling": true }));
    }
    let _ = call(&host, state.path(), ["tail", &job]).await.exits(code::JOB_FAILED).complains("CANCELLED");
}

#[tokio::test]
async fn an_envelope_is_sent_as_it_is_and_what_comes_back_is_printed() {
    let (host, dir) = (Serve::new().await.start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("envelope.json");
    let send = async |envelope: &str| {
        fs::write(&file, envelope).unwrap();
        call(&host, dir.path(), [OsStr::new("send"), file.as_os_str()]).await
    };
    let answer =
        send(r#"{"type": "session.ping", "id": "mine", "payload": {"nonce": "n"}}"#).await.exits(code::SUCCESS);
    assert_eq!(answer.objects()[0]["payload"]["ping_nonce"], json!("n"), "{}", answer.stdout);
    let answer = send(r#"{"type": "job.submit", "payload": {"agent": "nobody"}}"#).await.exits(code::SUCCESS);
    assert_eq!(answer.objects()[0]["payload"]["code"], json!("AGENT_NOT_AVAILABLE"));
    for (envelope, said) in [("[]", "not a JSON object"), ("{", "not a JSON object"), ("{}", "`type`")] {
        let _ = send(envelope).await.exits(code::USAGE).complains(said);
    }
}
