//! `leasehold journal` and `leasehold replay`: a job's past, printed and run once more, whatever became of its hosts.

use std::{fs, path::Path};

use bytes::Bytes;
use leasehold::{
    client::{Client, Submit},
    journal,
    store::{
        Position, Store as _,
        sqlite::{Sqlite, SqliteOptions},
    },
};
use leasehold_tests::{
    host::ALICE,
    program::{Outcome, Serve, Served, run},
    within,
};
use serde_json::json;

use crate::code;

async fn submit(client: &mut Client, submission: Submit) -> String {
    within("the acceptance", client.submit(submission)).await.unwrap().job_id
}

async fn end_of(client: &mut Client, job: &str) {
    loop {
        let frame = within("the end", client.next_event()).await.unwrap();
        if frame.job_id.as_deref() == Some(job) && frame.is_terminal() {
            return;
        }
    }
}

async fn ask(what: &str, job: &str, data: &Path, more: &[&str]) -> Outcome {
    let data = data.display().to_string();
    run([&[what, job, "--data", &data], more].concat()).await
}

fn steps() -> Submit {
    let steps = json!([
        { "do": "write", "path": "/w/a", "text": "one" },
        { "do": "clock" },
        { "do": "read", "path": "/w/a" },
        { "do": "random" },
        { "do": "events_flood", "count": 3 },
        { "do": "read", "path": "/elsewhere" },
        { "do": "sleep", "ms": 5 },
        { "do": "append", "path": "/w/a", "text": "two" },
    ]);
    let lease = json!({ "fs.read": ["/w/**"], "fs.write": ["/w/**"] });
    Submit { lease_request: Some(lease), ..Submit::new("hostile", json!({ "do": "steps", "steps": steps })) }
}

/// A host with a folder that its jobs may write to.
async fn serve(dir: &Path) -> Served {
    let files = dir.join("files");
    fs::create_dir_all(&files).unwrap();
    Serve::on(&dir.join("data")).await.args(["--mount", &format!("/w={}:rw", files.display())]).start().await
}

#[tokio::test]
async fn a_finished_job_does_the_same_again_beside_its_host_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let job = submit(&mut client, steps()).await;
    end_of(&mut client, &job).await;
    let data = host.data.clone();
    let mut host = Some(host);
    for beside in [true, false] {
        let replayed = ask("replay", &job, &data, &["--json"]).await.exits(code::SUCCESS).json();
        assert_eq!((&replayed["job_id"], &replayed["identical"]), (&json!(job), &json!(true)), "{replayed}");
        assert_eq!((&replayed["calls"], &replayed["events"]), (&json!(4), &json!(3)), "{replayed}");
        assert!(replayed["verdict"].as_str().unwrap().contains("so is the end"), "{replayed}");
        let until = ask("replay", &job, &data, &["--until", "2"]).await.exits(code::SUCCESS);
        assert!(until.stdout.contains("2 calls") && until.stdout.contains("identical up to there"), "{}", until.stdout);

        let printed = ask("journal", &job, &data, &[]).await.exits(code::SUCCESS).stdout;
        for said in
            ["accepted    hostile@1.0.0 for alice", "call 4: fs.append", "permission-denied", "ended       success"]
        {
            assert!(printed.contains(said), "{said:?} is not in {printed}");
        }
        let records = ask("journal", &job, &data, &["--json"]).await.exits(code::SUCCESS).objects();
        let kinds: Vec<_> = records.iter().map(|line| line["record"]["record"].as_str().unwrap()).collect();
        assert_eq!((kinds[0], *kinds.last().unwrap()), ("accepted", "ended"), "{kinds:?}");
        let positions: Vec<_> = records.iter().map(|line| line["position"].as_u64().unwrap()).collect();
        assert!(positions.is_sorted(), "{positions:?}");
        if beside {
            let _ = host.take().unwrap().kill().await;
        }
    }
    // Nothing behind it was touched, however often it was run.
    assert_eq!(fs::read_to_string(dir.path().join("files/a")).unwrap(), "onetwo");
}

#[tokio::test]
async fn jobs_that_the_host_ended_or_left_do_the_same_as_far_as_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let cancelled = submit(&mut client, Submit::new("hostile", json!({ "do": "wait_cancel" }))).await;
    within("the answer", client.cancel(&cancelled, None)).await.unwrap();
    end_of(&mut client, &cancelled).await;
    let timed_out = Submit { max_runtime_sec: Some(1), ..Submit::new("sleeper", json!({ "sec": 600 })) };
    let timed_out = submit(&mut client, timed_out).await;
    end_of(&mut client, &timed_out).await;
    let left = submit(&mut client, Submit::new("chatty", json!({ "count": 100_000, "delay_ms": 1 }))).await;
    within("an event", client.next_event()).await.unwrap();
    let _ = host.kill().await;
    // The next one takes up what was left, so its journal has the runs of two hosts.
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let finished = submit(&mut client, steps()).await;
    end_of(&mut client, &finished).await;
    let data = host.data.clone();
    let _ = host.kill().await;
    for (job, said) in [
        (&cancelled, "identical up to the end, which was the host's (cancelled"),
        (&timed_out, "identical up to where the host ended the job (timed_out"),
        (&left, "identical as far as it goes; the job has not ended"),
        (&finished, "identical, and so is the end"),
    ] {
        let replayed = ask("replay", job, &data, &[]).await.exits(code::SUCCESS);
        assert!(replayed.stdout.contains(said), "{said:?} is not in {}", replayed.stdout);
    }
}

#[tokio::test]
async fn a_journal_that_was_tampered_with_is_told_from_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let job = submit(&mut client, steps()).await;
    end_of(&mut client, &job).await;
    let data = host.data.clone();
    let _ = host.terminate().await.exits(code::SUCCESS);
    for (was, is, said) in [
        (
            r#""operation":"fs.read","args":{"path":"/w/a"}"#,
            r#""operation":"fs.read","args":{"path":"/w/b"}"#,
            "diverged at call 2",
        ),
        (r#""message":"1""#, r#""message":"one""#, "diverged at call 2"),
        (r#""operation":"fs.append""#, r#""operation":"fs.write""#, "diverged at call 4"),
        // What it read before was something else, so what it returns is too.
        (r#"{"answer":"bytes","value":"b25l"}"#, r#"{"answer":"bytes","value":"dHdv"}"#, "the end differs"),
        (r#"{"end":"result","with":["#, r#"{"end":"result","with":[0,"#, "the end differs"),
    ] {
        let other = tempfile::tempdir().unwrap();
        let changed = rewritten(&data, other.path(), |record| record.replacen(was, is, 1));
        assert!(changed.await, "{was} is in no record");
        let settings = other.path().join("leasehold.toml").display().to_string();
        let told = run(["replay", &job, "--config", &settings, "--json"]).await.exits(code::JOB_FAILED).json();
        assert_eq!(told["identical"], false, "{told}");
        assert!(told["verdict"].as_str().unwrap().contains(said), "{said:?} is not in {told}");
    }
}

/// Makes a data folder like another, with settings, in which the records of jobs are written otherwise. Says whether any is.
async fn rewritten(data: &Path, other: &Path, rewrite: impl Fn(String) -> String) -> bool {
    let settings = format!("[server]\ndata = \".\"\ncompiled = {:?}\n", data.join("compiled"));
    fs::write(other.join("leasehold.toml"), settings).unwrap();
    let open = |dir: &Path| Sqlite::open(&dir.join("journal.sqlite"), SqliteOptions::default()).unwrap();
    let (from, to, mut changed) = (open(data), open(other), false);
    for begun in from.begun(0, 1000).await.unwrap() {
        let mut records = Vec::new();
        for stored in from.read(&begun.stream, Position::ZERO, 1000).await.unwrap() {
            records.push(match begun.stream.as_str().starts_with(journal::JOBS) {
                true => Bytes::from(rewrite(String::from_utf8(stored.bytes.to_vec()).unwrap())),
                false => stored.bytes.clone(),
            });
            changed |= records.last() != Some(&stored.bytes);
        }
        to.append(&begun.stream, Position::ZERO, records).await.unwrap();
    }
    from.close().await;
    to.close().await;
    changed
}

#[tokio::test]
async fn what_is_no_job_of_this_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let unknown = "job_01KWERSRG038G5FFZBWBES9X9Q";
    for what in ["journal", "replay"] {
        let _ = ask(what, "job-1", &host.data, &[]).await.exits(code::USAGE).complains("is no job id");
        let _ = ask(what, unknown, &host.data, &[]).await.exits(code::USAGE).complains("there is no job");
        let _ = ask(what, unknown, dir.path(), &[]).await.exits(code::USAGE).complains("journal.sqlite");
    }
}
