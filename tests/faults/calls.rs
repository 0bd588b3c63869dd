//! Calls under way, and the jobs of other agents among them, go on when their host is killed: each once, and each paid
//! for once.

use std::{fs, sync::Arc, time::Duration};

use leasehold::{
    client::{Client, ClientInfo, Submit},
    config::Config,
    store::{Store, memory::Memory},
};
use leasehold_core::job::record::{End, Record};
use leasehold_tests::{
    Builder, ErrorCode, MountMode, TestHost,
    host::{ALICE, token},
    journals::Past,
    mortal::{Death, Mortal},
    random::Random,
    some_agents,
    upstream::{Reply, Upstream},
    within,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Three children, each of which writes a line and spends five cents of the ten it is given; then a fourth in turn; then
/// one that is given all there is; and what is left.
fn script() -> Value {
    let child = |name: &str, given: &str| {
        json!({
            "call": "delegate", "agent": "hostile",
            "input": { "do": "steps", "steps": [
                { "do": "append", "path": format!("/w/{name}"), "text": "once\n" },
                { "do": "metric", "name": "cost.model", "value": "0.05", "unit": "USD" },
                { "do": "events_flood", "count": 3 },
            ]},
            "lease": { "fs.write": ["/w/**"], "cost.budget": [given] },
        })
    };
    json!({ "do": "steps", "steps": [
        { "do": "calls", "start": [child("a", "USD:0.10"), child("b", "USD:0.10"), child("c", "USD:0.10")] },
        { "do": "metric", "name": "cost.model", "value": "0.01", "unit": "USD" },
        { "do": "calls", "then": "stream", "start": [child("d", "USD:0.10")] },
        { "do": "calls", "start": [child("e", "USD:0.79")] },
        { "do": "job" },
    ]})
}

/// One life of a host, and how many records it wrote.
fn live(
    store: &Arc<dyn Store>,
    death: Death,
    settings: impl Fn(Builder) -> Builder,
    lease: &Value,
    script: &Value,
) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mortal = Mortal::of(store, death);
    let view = Arc::clone(&mortal);
    runtime.block_on(async {
        let life = async {
            let builder = settings(TestHost::builder().store(Arc::clone(&view) as Arc<dyn Store>));
            let host = builder.policy(ALICE, lease.clone()).start().await;
            let mut client = Client::open(host.connect(), Some(&token(ALICE)), ClientInfo::default()).await.unwrap();
            let submission = Submit {
                idempotency_key: Some("the job".into()),
                lease_request: Some(lease.clone()),
                ..Submit::new("hostile", script.clone())
            };
            client.submit(submission).await.unwrap();
            while !client.next_event().await.unwrap().is_terminal() {}
            host
        };
        tokio::select! {
            host = within("the job", life) => drop(host),
            () = view.died() => {}
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    mortal.records()
}

/// Lets hosts die in these ways, and one live; gives how many records the first wrote.
fn lives(deaths: &[Death]) -> u64 {
    let (agents, files) = (some_agents(&["hostile"]), tempfile::tempdir().unwrap());
    let store = Arc::new(Memory::default()) as Arc<dyn Store>;
    let lease = json!({ "fs.write": ["/w/**"], "agent.delegate": ["hostile"], "cost.budget": ["USD:1.00"] });
    let settings = |builder: Builder| {
        let builder = builder.config(|config| config.server.agents = agents.path().to_owned());
        builder.mount_dir("/w", files.path(), MountMode::Rw)
    };
    let records: Vec<u64> =
        deaths.iter().chain([&Death::Never]).map(|death| live(&store, *death, settings, &lease, &script())).collect();

    let jobs = tokio::runtime::Runtime::new().unwrap().block_on(Past::all(&*store));
    assert_eq!(jobs.len(), 6, "{deaths:?}: the job and its five children");
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(fs::read_to_string(files.path().join(name)).unwrap(), "once\n", "{deaths:?}: {name}");
    }
    let parent =
        jobs.iter().find(|job| matches!(&job.records[0], Record::Accepted(accepted) if accepted.parent.is_none()));
    let Some(End::Result(result)) = parent.and_then(|job| job.end()) else { panic!("{deaths:?}: {jobs:#?}") };
    let result: Value = serde_json::from_str(result.as_str()).unwrap();
    for outcome in result[0]["ok"].as_array().unwrap() {
        assert!(outcome.get("ok").is_some(), "{deaths:?}: {result}");
    }
    let stream = &result[2]["ok"][0]["ok"];
    let logs = stream["parts"].as_array().unwrap().iter().filter(|part| part["kind"] == "log").count();
    assert_eq!((logs, stream["end"].get("ok").is_some()), (3, true), "{deaths:?}: {result}");
    assert!(result[3]["ok"][0].get("ok").is_some(), "{deaths:?}: {result}");
    assert_eq!(result[4]["ok"]["budget"]["USD"], "0.74", "{deaths:?}: {result}");
    records[0]
}

#[test]
fn killed_at_every_record_each_child_is_made_once_and_paid_for_once() {
    let records = lives(&[]);
    // The order of what comes in differs from run to run, so the n-th record is not always the same; every place is
    // met sooner or later.
    for n in 0..records {
        lives(&[if n % 2 == 0 { Death::Before(n) } else { Death::After(n) }]);
    }
    let mut random = Random::new();
    for _ in 0..5 {
        lives(&[Death::After(random.below(records)), Death::Before(random.below(records))]);
    }
    println!("{} places to be killed at", records + 10);
}

/// What is not safe to repeat is made once at most, and its agent is told if nobody knows; what it costs is paid once.
#[test]
fn killed_at_every_record_a_request_is_not_repeated_and_a_tool_is_paid_for_once() {
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let play = |death: Death| {
        let web = outside.block_on(Upstream::start(|asked| Reply::text(200, &asked.line)));
        let (agents, files) = (some_agents(&["hostile"]), tempfile::tempdir().unwrap());
        let count = files.path().join("count");
        let tool = |name: &str, more: &str| {
            format!(
                "[tools.{name}]\nrun = ['sh', '-c', 'cat; echo {name} >> {}']\nprice = {{ per_call = 'USD:0.10' }}\n{more}\n",
                count.display()
            )
        };
        let settings =
            format!("[net]\nallow = ['127.0.0.0/8']\n{}{}", tool("once", ""), tool("again", "repeatable = ['again']"));
        let Config { net, tools, .. } = Config::parse(&settings).unwrap();
        let settings = |builder: Builder| {
            builder.config(|config| {
                config.server.agents = agents.path().to_owned();
                config.net = net.clone();
                config.tools = tools.clone();
            })
        };
        let fetch =
            |method: &str| json!({ "call": "fetch", "method": method, "url": format!("{}/{method}", web.url()) });
        let tool = |name: &str| json!({ "call": "tool", "name": name, "arguments": {} });
        let script = json!({ "do": "steps", "steps": [
            { "do": "calls", "start": [
                fetch("GET"), fetch("POST"), fetch("PUT"), fetch("DELETE"), tool("once"), tool("again"),
            ] },
            { "do": "job" },
        ]});
        let lease = json!({ "net.fetch": ["http://127.0.0.1:*/**"], "tool.call": ["*"], "cost.budget": ["USD:1.00"] });
        let store = Arc::new(Memory::default()) as Arc<dyn Store>;
        let records = live(&store, death, settings, &lease, &script);
        if death != Death::Never {
            live(&store, Death::Never, settings, &lease, &script);
        }
        let jobs = outside.block_on(Past::all(&*store));
        let Some(End::Result(result)) = jobs[0].end() else { panic!("{death:?}: {jobs:#?}") };
        let result: Value = serde_json::from_str(result.as_str()).unwrap();
        let outcome = |n: usize| result[0]["ok"][n]["err"]["code"].as_str().unwrap_or("ok").to_owned();
        assert_eq!((outcome(0), outcome(5)), ("ok".into(), "ok".into()), "{death:?}: {result}");
        let asked = web.asked();
        let sent = |line: &str| asked.iter().filter(|asked| asked.line == line).count();
        let ran = fs::read_to_string(&count).unwrap().lines().filter(|line| *line == "once").count();
        for (n, times) in [(1, sent("POST /POST")), (2, sent("PUT /PUT")), (3, sent("DELETE /DELETE")), (4, ran)] {
            match outcome(n).as_str() {
                "ok" => assert_eq!(times, 1, "{death:?}: {result}"),
                "unknown-outcome" => assert!(times <= 1, "{death:?}: {result}"),
                other => panic!("{death:?}: {other}: {result}"),
            }
        }
        assert_eq!(result[1]["ok"]["budget"]["USD"].as_str().map(|left| left.trim_end_matches('0')), Some("0.8"));
        (records, (1..5).any(|n| outcome(n) != "ok"))
    };
    let (records, unknown) = play(Death::Never);
    assert!(!unknown);
    let unknown = (0..records).filter(|n| play(Death::After(*n)).1).count();
    assert!(unknown > 0, "some deaths come while a call is under way");
    println!("{records} places to be killed at, {unknown} of them in the middle of a call");
}

/// A call that may be made again is not, once its lease is over: the next host begins nothing in its name (ARCP §9.5).
#[test]
fn what_was_under_way_is_not_begun_again_after_the_end_of_its_lease() {
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let permits = Arc::new(Semaphore::new(0));
    let web = outside.block_on(Upstream::start({
        let permits = Arc::clone(&permits);
        move |_| Reply::text(200, "late").after(&permits)
    }));
    let agents = some_agents(&["hostile"]);
    let Config { net, .. } = Config::parse("[net]\nallow = ['127.0.0.0/8']").unwrap();
    let lease = json!({ "net.fetch": ["http://127.0.0.1:*/**"] });
    let store = Arc::new(Memory::default()) as Arc<dyn Store>;
    let host = |at: &str, store: Arc<dyn Store>| {
        let builder = TestHost::builder().store(store).at(at).policy(ALICE, lease.clone());
        builder.config(|config| {
            config.server.agents = agents.path().to_owned();
            config.net = net.clone();
        })
    };
    let begins = tokio::runtime::Runtime::new().unwrap();
    let mortal = Mortal::of(&store, Death::Never);
    begins.block_on(async {
        let host = host("2026-05-13T12:00:00Z", Arc::clone(&mortal) as Arc<dyn Store>).start().await;
        let mut session = host.session().await;
        let call = json!({ "call": "fetch", "url": format!("{}/page", web.url()) });
        let submit = session.submit("hostile").lease(lease.clone()).input(json!({ "do": "calls", "start": [call] }));
        submit.expires_at("2026-05-13T12:01:00Z").job_id().await;
        within("the server to be asked", async {
            while web.asked().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Killed: nothing of what follows is written down.
        mortal.kill();
    });
    begins.shutdown_timeout(Duration::from_secs(10));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let host = host("2026-05-13T12:02:00Z", Arc::clone(&store)).start().await;
        within("the end of the job", async {
            while Past::all(&*store).await[0].end().is_none() {
                host.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        })
        .await;
        let jobs = Past::all(&*store).await;
        let Some(End::Failed { refusal, .. }) = jobs[0].end() else { panic!("{jobs:#?}") };
        assert_eq!(refusal.code, ErrorCode::LeaseExpired);
    });
    assert_eq!(web.asked().len(), 1, "{:?}", web.asked());
}
