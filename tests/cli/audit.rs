//! `leasehold audit`: a job's journal as evidence, exported beside a host and checked where there is none.

use std::{fs, path::Path};

use leasehold::client::{Client, Submit};
use leasehold_tests::{
    host::ALICE,
    program::{Outcome, Serve, Served, run},
    within,
};
use serde_json::json;

use crate::code;

/// A host with a folder that its jobs may write to, and whose jobs any session of theirs may cancel.
async fn serve(dir: &Path) -> Served {
    let (files, settings) = (dir.join("files"), dir.join("leasehold.toml"));
    fs::create_dir_all(&files).unwrap();
    fs::write(&settings, "[policy.alice]\ncancels_from_any_session = true\n").unwrap();
    let mount = format!("/w={}:rw", files.display());
    let args = ["--mount", &mount, "--config", settings.to_str().unwrap()];
    Serve::on(&dir.join("data")).await.args(args).start().await
}

/// Submits a job that is refused one of its three calls.
async fn submit(client: &mut Client) -> String {
    let steps = json!([
        { "do": "write", "path": "/w/a", "text": "one" },
        { "do": "read", "path": "/w/a" },
        { "do": "read", "path": "/elsewhere" },
    ]);
    let lease = json!({ "fs.read": ["/w/**"], "fs.write": ["/w/**"] });
    let submission =
        Submit { lease_request: Some(lease), ..Submit::new("hostile", json!({ "do": "steps", "steps": steps })) };
    let job = within("the acceptance", client.submit(submission)).await.unwrap().job_id;
    loop {
        let frame = within("the end", client.next_event()).await.unwrap();
        if frame.job_id.as_deref() == Some(&job) && frame.is_terminal() {
            return job;
        }
    }
}

async fn audit(args: &[&str]) -> Outcome {
    run([&["audit"], args].concat()).await
}

async fn export(job: &str, data: &Path, to: &Path) -> Outcome {
    let (data, to) = (data.display().to_string(), to.display().to_string());
    audit(&["export", job, "--data", &data, "-o", &to]).await
}

async fn key(data: &Path) -> String {
    audit(&["key", "--data", &data.display().to_string()]).await.exits(code::SUCCESS).stdout.trim().to_owned()
}

#[tokio::test]
async fn a_finished_job_is_proven_beside_its_host_and_after_it_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let (job, other) = (submit(&mut client).await, submit(&mut client).await);
    let data = host.data.clone();
    let key = key(&data).await;
    let key_file = dir.path().join("host.pub");
    fs::write(&key_file, format!("{key}\n")).unwrap();
    let [file, same, others] = ["job.audit", "again.audit", "other.audit"].map(|name| dir.path().join(name));
    let _ = export(&job, &data, &file).await.exits(code::SUCCESS);
    let _ = export(&other, &data, &others).await.exits(code::SUCCESS);
    let _ = host.kill().await;
    let _ = export(&job, &data, &same).await.exits(code::SUCCESS);
    assert_eq!(fs::read(&file).unwrap(), fs::read(&same).unwrap());
    // Where it is checked there is neither.
    fs::remove_dir_all(&data).unwrap();

    let file = file.to_str().unwrap();
    let proof = audit(&["verify", file, "--key", &key, "--json"]).await.exits(code::SUCCESS).json();
    assert_eq!((&proof["job_id"], &proof["status"]), (&json!(job), &json!("success")), "{proof}");
    assert_eq!((&proof["calls_allowed"], &proof["calls_denied"]), (&json!(2), &json!(1)), "{proof}");
    assert_eq!((&proof["records"], &proof["principal"]), (&proof["sealed"], &json!("alice")), "{proof}");
    let said = audit(&["verify", file, "--key", key_file.to_str().unwrap(), "--job", &job]).await.exits(code::SUCCESS);
    assert!(said.stdout.contains("2 allowed, 1 denied"), "{}", said.stdout);

    let untouched = fs::read_to_string(file).unwrap();
    let last = untouched.trim_end().rfind('\n').unwrap() + 1;
    let another = fs::read_to_string(&others).unwrap();
    let forged = dir.path().join("forged.audit");
    for (what, text, said) in [
        ("a record", untouched.replacen("/w/a", "/w/b", 1), "is not the one that its hash was made of"),
        ("no closing line", untouched[..last].to_owned(), "the file is cut off"),
        (
            "another's end",
            format!("{}{}", &untouched[..last], &another[another.trim_end().rfind('\n').unwrap() + 1..]),
            "line",
        ),
        ("nothing", String::new(), "cut off"),
    ] {
        fs::write(&forged, text).unwrap();
        let told = audit(&["verify", forged.to_str().unwrap(), "--key", &key]).await.exits(code::JOB_FAILED);
        assert!(
            told.stdout.contains(said) && told.stdout.contains("not what the host wrote"),
            "{what}: {}",
            told.stdout
        );
    }
    let swapped =
        audit(&["verify", others.to_str().unwrap(), "--key", &key, "--job", &job]).await.exits(code::JOB_FAILED);
    assert!(swapped.stdout.contains("this is job_"), "{}", swapped.stdout);
    let strange = format!("ed25519:{}", "0".repeat(64));
    let told = audit(&["verify", file, "--key", &strange]).await.exits(code::JOB_FAILED);
    assert!(told.stdout.contains("none of those given"), "{}", told.stdout);
}

#[tokio::test]
async fn a_job_that_two_hosts_ran_is_sealed_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let deed = json!({ "do": "steps", "steps": [{ "do": "events_flood", "count": 3 }, { "do": "wait_cancel" }] });
    let job = within("the acceptance", client.submit(Submit::new("hostile", deed))).await.unwrap().job_id;
    within("an event", client.next_event()).await.unwrap();
    let data = host.data.clone();
    let (key, file) = (key(&data).await, dir.path().join("job.audit"));
    let _ = export(&job, &data, &file).await.exits(code::SUCCESS);
    let running = audit(&["verify", file.to_str().unwrap(), "--key", &key]).await.exits(code::SUCCESS).stdout;
    assert!(running.contains("has not ended; after its last seal come"), "{running}");
    let ended = ["verify", file.to_str().unwrap(), "--key", &key, "--ended"];
    let told = audit(&ended).await.exits(code::JOB_FAILED).stdout;
    assert!(told.contains("the end of the job is missing"), "{told}");
    // A host that stops in good order seals what it leaves.
    let _ = host.terminate().await.exits(code::SUCCESS);
    let _ = export(&job, &data, &file).await.exits(code::SUCCESS);
    let left = audit(&["verify", file.to_str().unwrap(), "--key", &key, "--json"]).await.exits(code::SUCCESS).json();
    assert_eq!((&left["status"], &left["sealed"]), (&json!(null), &left["records"]), "{left}");
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    within("the job", client.subscribe(&job, None)).await.unwrap();
    within("the answer", client.cancel(&job, None)).await.unwrap();
    while !within("the end", client.next_event()).await.unwrap().is_terminal() {}
    let _ = export(&job, &data, &file).await.exits(code::SUCCESS);
    let proof = audit(&["verify", file.to_str().unwrap(), "--key", &key, "--json"]).await.exits(code::SUCCESS).json();
    assert_eq!((&proof["status"], &proof["sealed"]), (&json!("cancelled"), &proof["records"]), "{proof}");
    let _ = audit(&ended).await.exits(code::SUCCESS);
}

#[tokio::test]
async fn what_cannot_be_exported_or_checked_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let data = host.data.display().to_string();
    let nowhere = dir.path().display().to_string();
    for (args, said) in [
        (&["export", "job-1", "--data", &data][..], "is no job id"),
        (&["export", "job_01KWERSRG038G5FFZBWBES9X9Q", "--data", &data], "there is no job"),
        (&["key", "--data", &nowhere], "audit.key"),
        (&["verify", "/no/such/file", "--key", &format!("ed25519:{}", "0".repeat(64))], "/no/such/file"),
        (&["verify", "/no/such/file", "--key", "no key"], "a public key is written"),
        (&["verify", "/no/such/file"], "--key"),
    ] {
        let _ = audit(args).await.exits(code::USAGE).complains(said);
    }
}
