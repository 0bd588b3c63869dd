//! ARCP §9.4, §10: part of a job for another agent.

use leasehold_tests::{MountMode, RawClient, Run, TestHost, host::ALICE};
use serde_json::{Value, json};

async fn host() -> TestHost {
    let ceiling = json!({
        "fs.read": ["/w/**"], "fs.write": ["/w/**"], "agent.delegate": ["*"], "model.use": ["tier-fast/*"],
        "cost.budget": ["USD:10"],
    });
    TestHost::builder().mount("/w", MountMode::Rw).policy(ALICE, ceiling).start().await
}

/// A task of another agent, as the guest spells it.
fn task(agent: &str, input: Value, lease: Value) -> Value {
    json!({ "call": "delegate", "agent": agent, "input": input, "lease": lease })
}

/// What came of each step of a job that may read, delegate and spend a dollar.
async fn run(client: &mut RawClient, steps: Vec<Value>) -> (Vec<Value>, Run) {
    let lease = json!({
        "fs.read": ["/w/**"], "agent.delegate": ["hostile", "echo", "sleeper", "chatty", "nobody"],
        "model.use": ["tier-fast/*"], "cost.budget": ["USD:1.00"],
    });
    let run = client.submit("hostile").input(json!({ "do": "steps", "steps": steps })).lease(lease).run().await;
    let told = run.result().unwrap_or_else(|error| panic!("a refusal is a value: {error:?} {run:?}"));
    (told.as_array().expect("one outcome a step").clone(), run)
}

fn all(start: Vec<Value>) -> Value {
    json!({ "do": "calls", "start": start })
}

/// What came of the first call of a step.
fn first(step: &Value) -> &Value {
    &step["ok"][0]
}

#[tokio::test]
async fn a_child_does_its_task_and_is_seen_as_a_job_of_its_own() {
    let host = host().await;
    let mut client = host.session().await;
    let (told, run) = run(&mut client, vec![all(vec![task("echo", json!({ "n": 7 }), json!({}))])]).await;
    assert_eq!(first(&told[0])["ok"], json!({ "n": 7 }));

    let delegate = run.bodies("delegate").pop().expect("a delegation is told");
    let result = run.bodies("tool_result").pop().expect("and so is its result");
    assert_eq!(delegate["delegate_id"], result["call_id"]);
    assert_eq!((&delegate["agent"], &delegate["input"]), (&json!("echo"), &json!({ "n": 7 })));
    let child = delegate["child_job_id"].as_str().expect("an id");
    assert_eq!(result["result"]["child_job_id"], *child);

    let jobs = client.request("session.list_jobs", json!({})).await.payload()["jobs"].clone();
    let listed = jobs.as_array().expect("jobs").iter().find(|job| job["job_id"] == child).expect("it is listed");
    assert_eq!((&listed["parent_job_id"], &listed["status"]), (&json!(run.job_id()), &json!("success")));
    // Nobody submitted it in this session, so nobody is told that it was accepted.
    assert!(run.events.iter().all(|frame| frame["job_id"] == run.job_id()), "{run:?}");
    let after = client.settle().await;
    assert!(after.iter().all(|frame| frame["type"] != "job.accepted" && frame["job_id"] != child), "{after:?}");
}

/// ARCP §9.4: each row is a lease that is wider than its parent's, and the draft's own example is among them.
#[tokio::test]
async fn a_child_is_granted_nothing_its_parent_has_not() {
    let host = host().await;
    let mut client = host.session().await;
    let spend = json!({ "do": "metric", "name": "cost.inference", "value": "0.60", "unit": "USD" });
    let mut steps = vec![spend];
    for lease in [
        json!({ "fs.read": ["/**"] }),
        json!({ "fs.read": ["/w/**", "/etc/passwd"] }),
        json!({ "fs.write": ["/w/x"] }),
        json!({ "net.fetch": ["https://example.com/**"] }),
        json!({ "agent.delegate": ["*"] }),
        json!({ "model.use": ["*"] }),
        json!({ "model.use": ["tier-fast/a", "tier-slow/b"] }),
        json!({ "cost.budget": ["USD:0.41"] }),
        json!({ "cost.budget": ["EUR:0.01"] }),
    ] {
        steps.push(all(vec![task("echo", json!(1), lease)]));
    }
    steps.push(all(vec![task("echo", json!(1), json!({ "cost.budget": ["USD:0.40"], "fs.read": ["/w/a/**"] }))]));
    let (told, run) = run(&mut client, steps).await;
    let (fits, wide) = told[1..].split_last().expect("steps");
    for step in wide {
        assert_eq!(first(step)["err"]["code"], "lease-subset-violation", "{step}");
    }
    assert_eq!(first(fits)["ok"], 1, "{fits}");
    let refused: Vec<Value> = run.bodies("tool_result");
    assert_eq!(refused[0]["error"]["code"], "LEASE_SUBSET_VIOLATION");
    assert_eq!(run.bodies("delegate").len(), 1, "what is refused is not delegated");
}

/// ARCP §9.4: "A child MAY have an earlier expiration than its parent; it MUST NOT have a later one."
#[tokio::test]
async fn a_child_s_lease_ends_with_its_parent_s_or_earlier() {
    let host = host().await;
    let mut client = host.session().await;
    let until = |at: &str| {
        let mut task = task("hostile", json!({ "do": "job" }), json!({}));
        task["expires_at"] = json!(at);
        all(vec![task])
    };
    let inherits = all(vec![task("hostile", json!({ "do": "job" }), json!({}))]);
    let steps = vec![until("2199-01-01T00:00:01Z"), until("2198-12-31T00:00:00Z"), inherits, until("yesterday")];
    let lease = json!({ "agent.delegate": ["hostile"] });
    let submission = client.submit("hostile").input(json!({ "do": "steps", "steps": steps })).lease(lease);
    let told = submission.expires_at("2199-01-01T00:00:00Z").run().await.result().expect("a result");
    assert_eq!(first(&told[0])["err"]["code"], "lease-subset-violation");
    assert_eq!(first(&told[1])["ok"]["ok"]["expires_at"], "2198-12-31T00:00:00.000Z");
    assert_eq!(first(&told[2])["ok"]["ok"]["expires_at"], "2199-01-01T00:00:00.000Z");
    assert_eq!(first(&told[3])["err"]["code"], "invalid-request");
}

/// ARCP §9.4, §9.6: a child's money leaves its parent's when it is given, and what it left comes back.
/// What a child says of its own time, or only pretends to, says nothing of its parent's (ARCP §9.5).
#[tokio::test]
async fn a_child_that_ends_for_want_of_time_ends_no_parent_that_has_it() {
    let host = host().await;
    let mut client = host.session().await;
    let child = task("hostile", json!({ "do": "fail", "code": "lease-expired" }), json!({}));
    let (told, run) = run(&mut client, vec![all(vec![child]), json!({ "do": "stat", "path": "/w" })]).await;
    assert_eq!(first(&told[0])["err"]["code"], "lease-expired", "{told:?}");
    assert!(told[1].get("ok").is_some(), "it goes on: {told:?}");
    assert_eq!(run.final_status(), "success", "{run:?}");
}

#[tokio::test]
async fn a_child_spends_its_parent_s_money_and_two_cannot_both_have_the_rest() {
    let host = host().await;
    let mut client = host.session().await;
    let spends = |value: &str| json!({ "do": "metric", "name": "cost.inference", "value": value, "unit": "USD" });
    let has = |amount: &str| json!({ "cost.budget": [format!("USD:{amount}")] });
    let job = json!({ "do": "job" });
    let steps = vec![
        all(vec![
            task("hostile", spends("0.20"), has("0.50")),
            task("hostile", spends("0.10"), has("0.49")),
            task("hostile", spends("0.10"), has("0.02")),
        ]),
        job.clone(),
        // Whoever names no budget has one all the same: all that is left, but for what is kept for a report.
        all(vec![task("hostile", json!({ "do": "steps", "steps": [job, spends("5")] }), json!({}))]),
        job,
        json!({ "do": "stat", "path": "/w" }),
    ];
    let (told, run) = run(&mut client, steps).await;
    assert!(told[0]["ok"][0].get("ok").is_some() && told[0]["ok"][1].get("ok").is_some(), "{}", told[0]);
    assert_eq!(told[0]["ok"][2]["err"]["code"], "lease-subset-violation", "nothing is left: {}", told[0]);
    assert_eq!(told[1]["ok"]["budget"]["USD"], "0.7");
    let child = &told[2]["ok"][0]["ok"];
    assert_eq!(child[0]["ok"]["budget"]["USD"].as_str().map(|left| left.trim_end_matches('0')), Some("0.693"));
    // It overspent, which is its parent's loss, and ends it.
    assert_eq!(told[3]["ok"]["budget"]["USD"].as_str().map(|left| left.trim_end_matches('0')), Some("-4.3"));
    assert_eq!(told[4]["err"]["code"], "budget-exhausted");
    let left: Vec<f64> = run
        .bodies("metric")
        .iter()
        .filter(|body| body["name"] == "cost.budget.remaining")
        .filter_map(|body| body["value"].as_f64())
        .collect();
    assert_eq!(left.last(), Some(&-4.3), "{left:?}");
}

#[tokio::test]
async fn who_is_not_granted_and_who_is_not_there_are_told_apart() {
    let host = host().await;
    let mut client = host.session().await;
    let tasks = vec![
        task("summarize-files", json!({}), json!({})),
        task("nobody", json!({}), json!({})),
        task("echo@9.9.9", json!({}), json!({})),
        task("Not A Name", json!({}), json!({})),
        task("echo@1.0.0", json!("here"), json!({})),
        task("hostile", json!({ "do": "fail", "code": "not-found", "message": "no such luck" }), json!({})),
        task("hostile", json!({ "do": "trap" }), json!({})),
    ];
    let (told, _) = run(&mut client, vec![all(tasks)]).await;
    let code = |n: usize| told[0]["ok"][n]["err"]["code"].as_str().unwrap_or("ok").to_owned();
    let codes: Vec<String> = (0..7).map(code).collect();
    assert_eq!(
        codes,
        [
            "permission-denied",
            "agent-not-available",
            "agent-version-not-available",
            "invalid-request",
            "ok",
            "invalid-request",
            "internal-error"
        ]
    );
    assert!(told[0]["ok"][5]["err"]["message"].as_str().is_some_and(|why| why.contains("no such luck")), "{told:?}");
}

/// ARCP §7.4: what a job handed on does not outlive it.
#[tokio::test]
async fn the_children_of_a_job_that_ends_are_cancelled() {
    let host = host().await;
    let mut client = host.session().await;
    let wait =
        || task("hostile", json!({ "do": "wait_cancel", "poll_ms": 5 }), json!({ "agent.delegate": ["hostile"] }));
    let nested = task("hostile", json!({ "do": "calls", "start": [wait()] }), json!({ "agent.delegate": ["hostile"] }));
    let lease = json!({ "agent.delegate": ["hostile"] });
    for (deed, cancels, end) in [
        (json!({ "do": "calls", "start": [wait(), wait()], "then": "leak" }), false, "success"),
        (json!({ "do": "calls", "start": [wait(), wait()], "then": "drop" }), false, "success"),
        (json!({ "do": "calls", "start": [nested.clone(), wait()] }), true, "cancelled"),
        (
            json!({ "do": "steps", "steps": [{ "do": "calls", "start": [wait(), nested], "then": "leak" }, { "do": "trap" }] }),
            false,
            "error",
        ),
    ] {
        let job_id = client.submit("hostile").lease(lease.clone()).input(deed.clone()).job_id().await;
        if cancels {
            client.find(|frame| frame["payload"]["kind"] == "delegate").await;
            client.find(|frame| frame["payload"]["kind"] == "delegate").await;
            client.request_with("job.cancel", json!({ "job_id": job_id }), json!({})).await;
        }
        let run = client.follow(&job_id).await;
        assert_eq!(run.final_status(), end, "{deed}");
        // A child of the last round is not over sooner than it can be.
        leasehold_tests::within("the children", async {
            loop {
                let jobs = client.request("session.list_jobs", json!({})).await.payload()["jobs"].clone();
                let jobs = jobs.as_array().expect("jobs").clone();
                if jobs.iter().all(|job| job["status"] != "running") {
                    let children = jobs.iter().filter(|job| job["parent_job_id"] == *job_id);
                    // One that was given up at once has never begun.
                    assert!(!cancels || children.clone().count() == 2, "{deed}");
                    for child in children {
                        assert_eq!(child["status"], "cancelled", "{deed}");
                    }
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Ten calls take as long as one of them, and are taken as they come.
#[tokio::test]
async fn children_run_at_once_and_are_taken_in_the_order_in_which_they_end() {
    let host = host().await;
    let mut client = host.session().await;
    let sleeps = |sec: f64| task("sleeper", json!({ "sec": sec }), json!({}));
    let started = std::time::Instant::now();
    let deed = json!({ "do": "calls", "then": "any", "start": [sleeps(0.9), sleeps(0.5), sleeps(0.1)] });
    let (told, _) = run(&mut client, vec![deed]).await;
    assert_eq!(told[0]["ok"]["order"], json!([2, 1, 0]), "{told:?}");
    // Not how fast, but that they overlap: one after the other they sleep for a second and a half.
    assert!(started.elapsed().as_secs_f64() < 1.45, "{:?}", started.elapsed());

    let deed = json!({ "do": "calls", "then": "first", "start": [sleeps(600.0), sleeps(0.05)] });
    let (told, _) = run(&mut client, vec![deed]).await;
    assert_eq!(told[0]["ok"]["first"], 1, "{told:?}");
    let patience = json!({ "do": "calls", "then": "first", "patience_ms": 20, "start": [sleeps(600.0)] });
    let (told, _) = run(&mut client, vec![patience, json!({ "do": "calls", "then": "first", "start": [] })]).await;
    assert_eq!(told[0]["ok"]["first"], Value::Null, "{told:?}");
    assert_eq!(told[1]["err"]["code"], "invalid-request", "{told:?}");
}

#[tokio::test]
async fn a_parent_that_watches_sees_every_event_of_its_child_and_then_its_end() {
    let host = host().await;
    let mut client = host.session().await;
    let chatty = task("chatty", json!({ "count": 60 }), json!({}));
    let (told, _) = run(&mut client, vec![json!({ "do": "calls", "then": "stream", "start": [chatty] })]).await;
    let stream = &told[0]["ok"][0]["ok"];
    let logs: Vec<&Value> =
        stream["parts"].as_array().expect("parts").iter().filter(|part| part["kind"] == "log").collect();
    assert_eq!(logs.len(), 60, "{told:?}");
    assert!(stream["end"].get("ok").is_some(), "{told:?}");
    let mistaken = json!({ "do": "calls", "then": "mistake", "start": [task("echo", json!(1), json!({}))] });
    let (told, _) = run(&mut client, vec![mistaken]).await;
    assert_eq!(first(&told[0])["err"]["code"], "invalid-request");
}

#[tokio::test]
async fn delegation_without_end_ends() {
    let host = TestHost::builder()
        .policy(ALICE, json!({ "agent.delegate": ["*"] }))
        .limits(|limits| limits.delegate_depth_max = 3)
        .start()
        .await;
    let mut client = host.session().await;
    let lease = json!({ "agent.delegate": ["hostile"] });
    let deed = json!({ "do": "delegate_for_ever", "lease": lease });
    let run = client.submit("hostile").input(deed).lease(lease.clone()).run().await;
    let told = run.result().expect("a refusal is a value").to_string();
    assert!(told.contains("delegate_depth_max"), "{told}");
    let jobs = client.request("session.list_jobs", json!({})).await.payload()["jobs"].clone();
    assert_eq!(jobs.as_array().map(Vec::len), Some(4), "the job and three below it");
    // And not in the breadth either.
    let wide: Vec<Value> = (0..200).map(|_| task("sleeper", json!({ "sec": 600 }), json!({}))).collect();
    let lease = json!({ "agent.delegate": ["sleeper"] });
    let deed = json!({ "do": "calls", "start": wide, "then": "drop" });
    let run = client.submit("hostile").input(deed).lease(lease).run().await;
    let told = run.result().expect("a refusal is a value");
    assert!(told["ok"].as_array().expect("outcomes").iter().any(|call| call.get("err").is_some()), "{told}");
}
