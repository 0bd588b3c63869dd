//! `leasehold lease` and `--explain`: how little a run needed, and how much a submission would get.

use std::{collections::BTreeMap, fs, path::Path};

use leasehold::client::{Client, Submit};
use leasehold_tests::{
    agents_dir,
    host::ALICE,
    program::{Outcome, Serve, Served, run},
    upstream::{End, Reply, Upstream},
    within,
};
use serde_json::{Value, json};

use crate::code;

type Lease = BTreeMap<String, Vec<String>>;

async fn serve(dir: &Path) -> Served {
    let files = dir.join("files");
    fs::create_dir_all(&files).unwrap();
    let settings = dir.join("leasehold.toml");
    let policy = r#"
[policy.alice]
lease = { "fs.read" = ["/w/**"], "fs.write" = ["/w/**"], "agent.delegate" = ["*"], "cost.budget" = ["USD:10"] }
"#;
    fs::write(&settings, policy).unwrap();
    let mount = format!("/w={}:rw", files.display());
    let args = ["--config", settings.to_str().unwrap(), "--mount", &mount];
    Serve::on(&dir.join("data")).await.args(args).start().await
}

/// What an agent does: files, money, and a part of it done by another.
fn deed() -> Value {
    json!({ "do": "steps", "steps": [
        { "do": "write", "path": "/w/a", "text": "one" },
        { "do": "read", "path": "/w/a" },
        { "do": "stat", "path": "/w/nothing" },
        { "do": "read", "path": "/elsewhere" },
        { "do": "metric", "name": "cost.thought", "value": "1.25", "unit": "USD" },
        { "do": "list", "path": "/w" },
        { "do": "calls", "start": [{
            "call": "delegate", "agent": "hostile", "lease": { "fs.read": ["/w/b/*"], "cost.budget": ["USD:0.5"] },
            "input": { "do": "read", "path": "/w/b/c" },
        }] },
        { "do": "remove", "path": "/w/a" },
    ] })
}

/// Runs a deed under a lease; gives the job, and what came of each step without the words.
async fn run_under(client: &mut Client, lease: &Value, deed: Value) -> (String, Vec<Value>) {
    let submission = Submit { lease_request: Some(lease.clone()), ..Submit::new("hostile", deed) };
    let job = within("the acceptance", client.submit(submission)).await.unwrap().job_id;
    loop {
        let frame = within("the end", client.next_event()).await.unwrap();
        if frame.job_id.as_deref() == Some(&job) && frame.is_terminal() {
            let steps = frame.payload["result"].as_array().unwrap_or_else(|| panic!("{frame:?}")).clone();
            return (job, steps.into_iter().map(codes).collect());
        }
    }
}

/// What an agent is told but for what differs from run to run.
fn codes(told: Value) -> Value {
    match told {
        Value::Object(mut told) => {
            for key in ["message", "modified", "call_id"] {
                told.remove(key);
            }
            told.into_iter().map(|(key, value)| (key, codes(value))).collect()
        }
        Value::Array(told) => told.into_iter().map(codes).collect(),
        other => other,
    }
}

async fn suggest(job: &str, data: &Path, more: &[&str]) -> Outcome {
    let data = data.display().to_string();
    run([&["lease", "suggest", job, "--data", &data], more].concat()).await
}

#[tokio::test]
async fn the_suggested_lease_admits_the_run_and_no_entry_of_it_can_be_missed() {
    let dir = tempfile::tempdir().unwrap();
    let host = serve(dir.path()).await;
    let mut client = host.client(ALICE).await;
    let wide = json!({
        "fs.read": ["/w/**"], "fs.write": ["/w/**"], "agent.delegate": ["hostile"], "cost.budget": ["USD:9"],
    });
    let (job, expected) = run_under(&mut client, &wide, deed()).await;
    let told = suggest(&job, &host.data, &["--json"]).await.exits(code::SUCCESS).json();
    let lease: Lease = serde_json::from_value(told["lease_request"].clone()).unwrap();
    assert_eq!(
        json!(lease),
        json!({
            "fs.read": ["/w", "/w/a", "/w/b/*", "/w/nothing"], "fs.write": ["/w/a"], "agent.delegate": ["hostile"],
            "cost.budget": ["USD:1.75"],
        }),
    );
    let denied = told["denied"].as_array().unwrap();
    assert!(denied.len() == 1 && denied[0]["target"] == "/elsewhere", "{told}");
    assert_eq!(run_under(&mut client, &json!(lease), deed()).await.1, expected);

    for (namespace, entries) in &lease {
        for n in 0..entries.len() {
            let mut less = lease.clone();
            match namespace.as_str() {
                // Without a budget the ceiling's counts, so it is made smaller instead.
                "cost.budget" => less.insert(namespace.clone(), vec!["USD:1.74".to_owned()]).map(drop),
                _ => less.get_mut(namespace).map(|entries| drop(entries.remove(n))),
            };
            let (_, told) = run_under(&mut client, &json!(less), deed()).await;
            let refused = |step: &Value| {
                let code = step["err"]["code"].as_str().or_else(|| step["ok"][0]["err"]["code"].as_str());
                matches!(code, Some("permission-denied" | "budget-exhausted" | "lease-subset-violation"))
            };
            let more = told.iter().zip(&expected).filter(|(now, then)| refused(now) && !refused(then)).count();
            assert!(more > 0, "without {} nothing is refused: {told:?}", entries[n]);
        }
    }
    let shown = suggest(&job, &host.data, &["--fold", "3"]).await.exits(code::SUCCESS).stdout;
    assert!(shown.contains("NAMESPACE") && shown.contains("/elsewhere") && shown.contains("handed on"), "{shown}");
    let last: Lease = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    assert_eq!(last["fs.read"].len(), 4, "{shown}");
    let _ = suggest("job_01KWERSRG038G5FFZBWBES9X9Q", &host.data, &[])
        .await
        .exits(code::USAGE)
        .complains("there is no job");
}

/// A server may have what it was sent though no answer of it came in: what was permitted is what the journal says.
#[tokio::test]
async fn a_redirect_that_led_to_a_failure_is_in_the_record_and_in_the_suggested_lease() {
    let dir = tempfile::tempdir().unwrap();
    let b = Upstream::start(|_| Reply::text(200, "").ending(End::Broken)).await;
    let (there, settings) = (format!("{}/b", b.url()), dir.path().join("leasehold.toml"));
    let location = there.clone();
    let a = Upstream::start(move |_| Reply::text(307, "").with("location", &location)).await;
    let text =
        "[net]\nallow = ['127.0.0.0/8']\n[policy.alice]\nlease = { \"net.fetch\" = [\"http://127.0.0.1:*/**\"] }\n";
    fs::write(&settings, text).unwrap();
    let data = dir.path().join("data");
    let host = Serve::on(&data).await.args(["--config", settings.to_str().unwrap()]).start().await;
    let mut client = host.client(ALICE).await;
    let begins = format!("{}/a", a.url());
    let fetch = json!({ "call": "fetch", "method": "POST", "url": begins, "body": "{\"n\":1}", "redirects": 5 });
    let deed = || json!({ "do": "steps", "steps": [{ "do": "calls", "start": [fetch] }] });
    let wide = json!({ "net.fetch": ["http://127.0.0.1:*/**"] });
    let (job, expected) = run_under(&mut client, &wide, deed()).await;
    assert_eq!(expected[0]["ok"][0]["err"]["code"], "internal-error", "{expected:?}");
    assert_eq!(b.asked()[0].body, json!({ "n": 1 }));

    let lease = suggest(&job, &data, &["--json"]).await.exits(code::SUCCESS).json()["lease_request"].clone();
    let mut both = [begins, there.clone()];
    both.sort();
    assert_eq!(lease, json!({ "net.fetch": both }));
    assert_eq!(run_under(&mut client, &lease, deed()).await.1, expected);
    assert_eq!(b.asked().len(), 2);
    let less = json!({ "net.fetch": both.iter().filter(|url| **url != there).collect::<Vec<_>>() });
    let (_, told) = run_under(&mut client, &less, deed()).await;
    assert_eq!((&told[0]["ok"][0]["err"]["code"], b.asked().len()), (&json!("permission-denied"), 2), "{told:?}");

    let (at, audit) = (data.display().to_string(), dir.path().join("audit"));
    let _ = run(["audit", "export", &job, "--data", &at, "-o", audit.to_str().unwrap()]).await.exits(code::SUCCESS);
    assert!(fs::read_to_string(&audit).unwrap().contains(&there), "the export says where it went");
    let shown = run(["journal", &job, "--data", &at]).await.exits(code::SUCCESS).stdout;
    assert!(shown.contains(&format!("redirected  call 1 to {there}")), "{shown}");
    let replayed = run(["replay", &job, "--data", &at]).await;
    assert_eq!(replayed.code, Some(code::SUCCESS), "{replayed:?}");
}

#[tokio::test]
async fn a_lease_is_explained_under_a_ceiling_without_a_host() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("leasehold.toml");
    let text = r#"
[tokens]
alice = { env = "NOT_SET_ANYWHERE" }
[policy.alice]
lease = { "fs.read" = ["/w/**"], "tool.call" = ["a.*"], "cost.budget" = ["USD:10"] }
"#;
    fs::write(&settings, text).unwrap();
    let settings = settings.to_str().unwrap();
    let explain = |lease: Value, who: &'static str, more: &'static [&'static str]| {
        let lease = lease.to_string();
        async move {
            run([&["lease", "explain", "--as", who, "--config", settings, "--lease", &lease], more].concat()).await
        }
    };
    let granted =
        explain(json!({ "fs.read": ["/w/a"], "tool.call": ["a.b"] }), "alice", &[]).await.exits(code::SUCCESS);
    for said in ["within `/w/**`", "no folder is mounted there", "this host has no tools", "not asked for", "accepted"]
    {
        assert!(granted.stdout.contains(said), "{said:?} is not in {}", granted.stdout);
    }
    let lease = json!({ "fs.read": ["/w/a", "/x"], "net.fetch": ["https://a.test/**"], "cost.budget": ["USD:11"] });
    let refused = explain(lease, "alice", &["--json"]).await.exits(code::JOB_FAILED).objects();
    let verdicts: Vec<_> =
        refused.iter().map(|line| (line["entry"].as_str().unwrap(), line["granted"] == true)).collect();
    assert_eq!(verdicts, [("/w/a", true), ("/x", false), ("https://a.test/**", false), ("USD:11", false)]);
    let _ =
        explain(json!({}), "mallory", &[]).await.exits(code::USAGE).complains("no token is configured for `mallory`");
    let _ = explain(json!({ "x": [] }), "alice", &[]).await.exits(code::USAGE).complains("is not a namespace");
}

#[tokio::test]
async fn a_run_is_explained_without_running_and_a_submission_cannot_be() {
    let agent = agents_dir().join("summarize-files@1.0.0.wasm");
    let lease = json!({ "fs.read": ["/w/**"], "fs.write": ["/w/**"] }).to_string();
    let explained = run(["run", agent.to_str().unwrap(), "--lease", &lease, "--explain"]).await.exits(code::SUCCESS);
    for said in ["fs.write is never used", "no folder is mounted there", "would be accepted"] {
        assert!(explained.stdout.contains(said), "{said:?} is not in {}", explained.stdout);
    }
    let none = run(["run", agent.to_str().unwrap(), "--explain"]).await.exits(code::SUCCESS).stdout;
    assert!(none.contains("granted nothing"), "{none}");
    let _ = run(["submit", "hello-rust", "--explain"]).await.exits(code::USAGE).complains("leasehold lease explain");
}
