//! ARCP §9.8: keys that are made for a job, and unmade with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use leasehold::{
    config::Config,
    credentials::keeper::{CREDENTIALS, outstanding},
    journal,
    store::{Position, Store, memory::Memory},
    transport::websocket::{WebSocketConfig, connect},
};
use leasehold_core::{error::ErrorCode, job::record::Record};
use leasehold_tests::{
    RawClient, Run, TestHost,
    host::{ALICE, BOB, Builder, token},
    http::post,
    mortal::{Death, Mortal},
    raw::{self, hello},
    shared_data_dir,
    upstream::{Asked, End, Reply, Upstream},
    within,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ADMIN: &str = "sk-admin-0123456789";
const MODELS: &str = "[models.\"tier-fast/small\"]\nupstream = \"main\"\nmodel = \"gpt-small\"\n\
    max_output_tokens = 1000\ninput_per_mtok = \"USD:1\"\noutput_per_mtok = \"USD:10\"\n\
    [models.\"tier-slow/large\"]\nupstream = \"main\"\noutput_per_mtok = \"USD:10\"\n";

/// Settings of `[credentials.*]`, on a host with the models of an upstream.
fn with_keys(upstream: &Upstream, credentials: &str) -> Builder {
    let text = format!("[upstreams.main]\nurl = \"{}/v1\"\nkey = \"sk-up\"\n{MODELS}{credentials}", upstream.url());
    let settings = Config::parse(&text).unwrap();
    let ceiling = json!({ "model.use": ["**"], "cost.budget": ["USD:10"] });
    TestHost::builder().policy(ALICE, ceiling).rights(BOB, &[ALICE], false).config(move |config| {
        config.upstreams = settings.upstreams;
        config.models = settings.models;
        config.credentials = settings.credentials;
    })
}

fn with_litellm(upstream: &Upstream, proxy: &Upstream) -> Builder {
    let litellm = format!("[credentials.proxy.litellm]\nurl = \"{}\"\nadmin_key = \"{ADMIN}\"", proxy.url());
    with_keys(upstream, &litellm)
}

const OWN: &str = "[credentials.own.gateway]\n";

fn lease(budget: &str) -> Value {
    json!({ "model.use": ["tier-fast/*"], "cost.budget": [budget] })
}

/// A job that runs until it is told otherwise, as it was accepted.
async fn begin(client: &mut RawClient, lease: Value) -> Value {
    let reply = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(lease).reply().await;
    reply.outcome().unwrap_or_else(|code| panic!("{code:?}: {}", reply.message()));
    reply.payload().clone()
}

fn key_of(accepted: &Value) -> String {
    accepted["credentials"][0]["value"].as_str().unwrap_or_else(|| panic!("no key: {accepted}")).to_owned()
}

async fn chat(address: SocketAddr, key: &str, model: &str) -> (u16, Value) {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "three small words" }] });
    let (status, answer) = post(address, "/v1/chat/completions", &format!("Bearer {key}"), &body).await;
    assert!(!answer.to_string().contains(key), "{answer}");
    (status, answer["error"]["code"].clone())
}

async fn cancel(client: &mut RawClient, job_id: &str) -> Run {
    client.request("job.cancel", json!({ "job_id": job_id })).await.outcome().unwrap();
    client.follow(job_id).await
}

/// Waits until nothing is outstanding.
async fn all_revoked(store: &dyn Store) {
    let revoked = async {
        while !outstanding(store).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within("all keys to be revoked", revoked).await;
}

/// ARCP §9.8.1, §9.8.2, §9.8.3: what a key is, and whom it is shown to.
#[tokio::test]
async fn a_key_comes_with_the_acceptance_and_carries_its_part_of_the_lease() {
    let upstream = Upstream::openai().await;
    let host = with_keys(&upstream, OWN).start().await;
    let address = host.serve().await;
    let mut client = host.session().await;
    let expires_at = "2999-01-01T00:00:00Z";
    let submit = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(lease("USD:1.00")).expires_at(expires_at);
    let first = submit.reply().await.payload().clone();
    let credential = &first["credentials"][0];
    assert_eq!(first["credentials"].as_array().unwrap().len(), 1);
    assert!(credential["id"].as_str().unwrap().starts_with("cred_"));
    assert_eq!((&credential["scheme"], &credential["profile"]), (&json!("bearer"), &json!("openai")));
    assert_eq!(credential["endpoint"], format!("http://{address}/v1"));
    let constraints = json!({ "cost.budget": ["USD:0.5"], "model.use": ["tier-fast/*"],
        "expires_at": "2999-01-01T00:00:00.000Z" });
    assert_eq!(credential["constraints"], constraints);
    let second = begin(&mut client, lease("USD:1.00")).await;
    assert_ne!(key_of(&first), key_of(&second), "no two jobs share a value");

    // No models, no key; and none for who does not know of them.
    let none = begin(&mut client, json!({ "cost.budget": ["USD:1.00"] })).await;
    assert!(none.get("credentials").is_none(), "{none}");
    let mut unasked = host.session_offering(&["cost.budget", "model.use"]).await;
    let none = begin(&mut unasked, lease("USD:1.00")).await;
    assert!(none.get("credentials").is_none(), "{none}");
    // ARCP §6.2
    let mut simple = host.session_offering(&["cost.budget"]).await;
    let refused = simple.submit("sleeper").input(json!({ "sec": 1 })).lease(lease("USD:1.00")).reply().await;
    assert_eq!(refused.outcome(), Err(ErrorCode::InvalidRequest));
}

/// ARCP §9.7, §9.6, §14: enforced where the money is spent.
#[tokio::test]
async fn a_key_is_worth_what_its_job_is_and_nothing_afterwards() {
    let upstream = Upstream::openai().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let host = with_keys(&upstream, OWN).store(Arc::clone(&store)).start().await;
    let address = host.serve().await;
    let mut client = host.session().await;
    let accepted = begin(&mut client, lease("USD:0.03")).await;
    let (key, job_id) = (key_of(&accepted), accepted["job_id"].as_str().unwrap().to_owned());
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 200);
    assert_eq!(chat(address, &key, "tier-slow/large").await, (403, json!("permission_denied")));
    // What it cost is told, and what is left.
    let told = |name: &'static str| move |frame: &Value| frame["payload"]["body"]["name"] == name;
    let cost = client.find(told("cost.model.use")).await["payload"]["body"].clone();
    assert_eq!((&cost["value"], &cost["unit"]), (&json!(0.000033), &json!("USD")));
    assert_eq!(cost["dimensions"]["credential_id"], accepted["credentials"][0]["id"]);
    // The answer breaks off, so it costs what was held for it: the key has 0.015, and a call holds over 0.01.
    upstream.answer(Reply::text(200, "{").ending(End::Broken));
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 502);
    client.find(told("cost.budget.remaining")).await;
    assert_eq!(chat(address, &key, "tier-fast/small").await, (402, json!("budget_exhausted")));

    let run = cancel(&mut client, &job_id).await;
    assert_eq!(run.final_status(), "cancelled");
    assert_eq!(chat(address, &key, "tier-fast/small").await, (401, json!("invalid_api_key")));
    all_revoked(&*store).await;
    let records = journal::page(&*store, job_id.parse().unwrap(), Position::ZERO).await.unwrap();
    let Some((_, Record::Ended { spent: Some(spent), .. })) = records.last() else { panic!("{records:?}") };
    let spent = spent.0.values().next().unwrap().to_string();
    assert!(spent.starts_with("0.01"), "what the key has spent, and not its whole part: {spent}");
}

/// ARCP §9.8, §14: what a key was refused and what it was let do stand in its job's journal, free or paid for.
#[tokio::test]
async fn every_call_of_a_key_stands_in_the_journal_of_its_job() {
    let upstream = Upstream::openai().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let host = with_keys(&upstream, OWN).store(Arc::clone(&store)).start().await;
    let address = host.serve().await;
    let mut client = host.session().await;
    let accepted = begin(&mut client, lease("USD:0.03")).await;
    let (key, job_id) = (key_of(&accepted), accepted["job_id"].as_str().unwrap().to_owned());
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 200);
    for _ in 0..20 {
        assert_eq!(chat(address, &key, "tier-slow/large").await, (403, json!("permission_denied")));
    }
    upstream.answer(Reply::json(400, &json!({ "error": { "message": "no" } })));
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 400);
    upstream.answer(Reply::text(200, "{").ending(End::Broken));
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 502);
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 402);
    cancel(&mut client, &job_id).await;
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 401);

    let records = journal::page(&*store, job_id.parse().unwrap(), Position::ZERO).await.unwrap();
    let mut counts = BTreeMap::new();
    let mut told = 0;
    for (_, record) in &records {
        let text = String::from_utf8(record.encode()).unwrap();
        assert!(!text.contains(&key), "{text}");
        let Record::Aside { event, .. } = record else { continue };
        let event = serde_json::to_value(event).unwrap()["body"].clone();
        if event["name"] == "model.use" {
            let said =
                ["model", "decision", "outcome"].map(|key| event["dimensions"][key].as_str().unwrap().to_owned());
            assert_eq!(event["dimensions"]["credential_id"], accepted["credentials"][0]["id"]);
            *counts.entry(said.join(" ")).or_insert(0) += event["value"].as_u64().unwrap();
            told += 1;
        }
    }
    let expected = [
        ("tier-fast/small allowed INTERNAL_ERROR", 1),
        ("tier-fast/small allowed INVALID_REQUEST", 1),
        ("tier-fast/small allowed done", 1),
        ("tier-fast/small denied BUDGET_EXHAUSTED", 1),
        ("tier-slow/large denied PERMISSION_DENIED", 20),
    ];
    assert_eq!(counts, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    assert!(told < 20, "those of a second stand together: {told}");
}

/// ARCP §9.8.2: "regardless of how termination occurred".
#[tokio::test]
async fn a_key_is_revoked_however_its_job_ends() {
    let upstream = Upstream::openai().await;
    let (proxy, keys) = litellm().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let host = with_litellm(&upstream, &proxy).store(Arc::clone(&store)).start().await;
    let mut client = host.session().await;
    let mut seen = BTreeSet::new();
    for (input, runtime, status) in [
        (json!({ "sec": 0 }), 60, "success"),
        (json!({ "sec": -1 }), 60, "error"),
        (json!({ "sec": 1000 }), 60, "cancelled"),
        (json!({ "sec": 1000 }), 1, "timed_out"),
    ] {
        let submit = client.submit("sleeper").input(input).lease(lease("USD:1.00"));
        let accepted = submit.field("max_runtime_sec", json!(runtime)).reply().await.payload().clone();
        let job_id = accepted["job_id"].as_str().unwrap().to_owned();
        assert!(seen.insert(key_of(&accepted)));
        let made = proxy.asked().into_iter().rfind(|asked| asked.line == "POST /key/generate").unwrap();
        assert_eq!(made.body["max_budget"], json!(0.5));
        let run = match status {
            "cancelled" => cancel(&mut client, &job_id).await,
            _ => client.follow(&job_id).await,
        };
        assert_eq!(run.final_status(), status);
        all_revoked(&*store).await;
        assert!(keys.lock().unwrap().is_empty(), "{status}");
    }
}

/// ARCP §9.8.2, §14: a key that cannot be made is no job, and one that cannot be revoked is not forgotten.
#[tokio::test]
async fn a_revocation_that_failed_is_made_by_the_next_host() {
    let upstream = Upstream::openai().await;
    let down = Arc::new(AtomicBool::new(true));
    let (proxy, keys) = litellm_unless(Arc::clone(&down)).await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let host = with_litellm(&upstream, &proxy).store(Arc::clone(&store)).at("2026-05-13T12:00:00Z").start().await;
    let mut client = host.session_offering(&["cost.budget", "model.use", "provisioned_credentials"]).await;
    // LiteLLM is down when the key is to be made, and when what may have been made is to be revoked.
    let refused = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(lease("USD:1.00")).reply().await;
    assert_eq!(refused.outcome(), Err(ErrorCode::InternalError));
    assert!(!refused.message().contains("500"), "{}", refused.message());
    down.store(false, Ordering::SeqCst);
    host.advancing(Duration::from_secs(1), all_revoked(&*store)).await;
    assert_eq!(store.streams("job/", None, 9).await.unwrap(), [], "no job was made");

    let accepted = begin(&mut client, lease("USD:1.00")).await;
    down.store(true, Ordering::SeqCst);
    host.advancing(Duration::from_secs(1), cancel(&mut client, accepted["job_id"].as_str().unwrap())).await;
    let known = async {
        loop {
            let known = outstanding(&*store).await.unwrap().pop().unwrap();
            match known.why {
                Some(why) => return why,
                None => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(within("a failure", known).await, "what makes keys cannot be reached: status 500");
    assert_eq!(keys.lock().unwrap().len(), 1);
    host.stop().await;

    down.store(false, Ordering::SeqCst);
    let next = with_litellm(&upstream, &proxy).store(Arc::clone(&store)).at("2026-05-13T12:00:00Z").start().await;
    next.advancing(Duration::from_secs(1), all_revoked(&*store)).await;
    assert!(keys.lock().unwrap().is_empty());
}

/// ARCP §9.8.2, §14: a key survives its host, and so does what it has spent.
#[tokio::test]
async fn a_key_works_with_the_next_host_which_knows_what_it_has_spent() {
    let upstream = Upstream::openai().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let view = Mortal::of(&store, Death::Never);
    let host = with_keys(&upstream, OWN).store(Arc::clone(&view) as Arc<dyn Store>).start().await;
    let address = host.serve().await;
    let mut client = host.session().await;
    let submit = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(lease("USD:0.03")).key("once");
    let accepted = submit.reply().await.payload().clone();
    let key = key_of(&accepted);
    assert_eq!(chat(address, &key, "tier-fast/small").await.0, 200);
    // The host dies with a call under way, for which over 0.01 of 0.015 was held.
    upstream.answer(Reply::text(200, "{").ending(End::Never));
    let cut_off = tokio::spawn({
        let key = key.clone();
        async move { chat(address, &key, "tier-fast/small").await }
    });
    let asked = async {
        while upstream.asked().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    within("the call to be under way", asked).await;
    view.kill();
    cut_off.abort();
    drop((client, host));

    let next = with_keys(&upstream, OWN).store(Arc::clone(&store)).start().await;
    let address = next.serve().await;
    assert_eq!(chat(address, &key, "tier-fast/small").await, (402, json!("budget_exhausted")));
    assert_eq!(chat(address, "lhk_other", "tier-fast/small").await.0, 401);
    // ARCP §7.2: the same submission is answered alike, to the same principal.
    let mut client = next.session().await;
    let again = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(lease("USD:0.03")).key("once");
    let again = again.reply().await.payload().clone();
    assert_eq!((&again["job_id"], key_of(&again)), (&accepted["job_id"], key));
}

/// Whether a frame says that a key has a new value.
fn is_rotation(frame: &Value) -> bool {
    frame["payload"]["body"]["phase"] == "credential_rotated"
}

/// How long a key lasts here, and how long the one before it.
const TURN: Duration = Duration::from_secs(100);
const GRACE: Duration = Duration::from_secs(10);
const ROTATED: &str = "rotate_after_sec = 100\nrotate_grace_sec = 10\n";
const STEP: Duration = Duration::from_millis(100);
const NOON: &str = "2026-05-13T12:00:00Z";

/// A hello of a client that need not say anything for hours.
fn quiet_hello(name: &str) -> Value {
    let mut hello = hello(&token(name));
    hello["capabilities"]["features"] =
        json!(["cost.budget", "model.use", "provisioned_credentials", "subscribe", "result_chunk"]);
    hello
}

async fn quiet(host: &TestHost, name: &str) -> RawClient {
    let mut client = host.raw();
    client.open_with(quiet_hello(name)).await;
    client
}

/// ARCP §9.8.2, §14: told to who submitted the job and to nobody else, and the value before goes soon.
#[tokio::test]
async fn a_key_is_rotated_for_who_submitted_the_job_and_both_spend_one_budget() {
    let upstream = Upstream::openai().await;
    let settings = format!("[credentials.own]\n{ROTATED}{OWN}");
    let host = with_keys(&upstream, &settings).at(NOON).start().await;
    let address = host.serve().await;
    let (mut client, mut other, mut bob) =
        (quiet(&host, ALICE).await, quiet(&host, ALICE).await, quiet(&host, BOB).await);
    let accepted = submit_once(&mut client, "USD:0.03").await.payload().clone();
    let (first, job_id) = (key_of(&accepted), accepted["job_id"].as_str().unwrap().to_owned());
    for watcher in [&mut other, &mut bob] {
        watcher.request("job.subscribe", json!({ "job_id": job_id, "history": true })).await.outcome().unwrap();
    }
    host.advance(TURN);
    let rotated = client.find(is_rotation).await["payload"]["body"].clone();
    assert_eq!(rotated["id"], accepted["credentials"][0]["id"], "the id stays");
    let second = rotated["value"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    for key in [&first, &second] {
        assert_eq!(chat(address, key, "tier-fast/small").await.0, 200);
    }
    // The answer breaks off, so it costs what was held for it: the two have 0.015, and a call holds over 0.01.
    upstream.answer(Reply::text(200, "{").ending(End::Broken));
    assert_eq!(chat(address, &first, "tier-fast/small").await.0, 502);
    assert_eq!(chat(address, &second, "tier-fast/small").await, (402, json!("budget_exhausted")));
    // ARCP §7.2: whoever submits it again is given the newest, and told of those that come.
    let mut again = quiet(&host, ALICE).await;
    assert_eq!(key_of(submit_once(&mut again, "USD:0.03").await.payload()), second);

    host.advance(GRACE);
    let gone = async { while chat(address, &first, "tier-fast/small").await.0 != 401 {} };
    within("the first key to be worth nothing", gone).await;
    assert_eq!(chat(address, &second, "tier-fast/small").await.0, 402, "the second stays");
    host.advance(TURN);
    let third = client.find(is_rotation).await["payload"]["body"]["value"].clone();
    assert_eq!(again.find(is_rotation).await["payload"]["body"]["value"], third);
    host.advancing(STEP, cancel(&mut client, &job_id)).await;
    assert_eq!(chat(address, third.as_str().unwrap(), "tier-fast/small").await.0, 401);
    for watcher in [&mut other, &mut bob] {
        let run = watcher.follow(&job_id).await;
        assert!(run.events.iter().any(|frame| frame["payload"]["body"]["name"] == "cost.model.use"), "it watches");
        let frames = run.events.iter().chain([&run.terminal]).map(Value::to_string).collect::<String>();
        assert!(!frames.contains("credential_rotated"), "{frames}");
        assert!([first.as_str(), &second, third.as_str().unwrap()].iter().all(|value| !frames.contains(value)));
    }
}

/// ARCP §6.3, §9.8.2.
#[tokio::test]
async fn a_client_that_comes_back_is_told_the_newest_value_and_none_after_the_end() {
    let upstream = Upstream::openai().await;
    let settings = format!("[credentials.own]\n{ROTATED}{OWN}");
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let host = with_keys(&upstream, &settings).store(Arc::clone(&store)).at(NOON).start().await;
    let (mut client, mut again) = (host.raw(), quiet(&host, ALICE).await);
    let mut welcome = client.open_with(quiet_hello(ALICE)).await;
    let accepted = submit_once(&mut client, "USD:0.03").await.payload().clone();
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    submit_once(&mut again, "USD:0.03").await.outcome().unwrap();
    client.disconnect().await;
    let mut newest = Value::Null;
    for _ in 0..2 {
        host.advance(TURN);
        newest = again.find(is_rotation).await["payload"]["body"]["value"].clone();
        host.advance(GRACE);
    }
    let comes_back = async |welcome: &mut Value| {
        let mut client = host.raw();
        let resume = json!({ "session_id": welcome["session_id"], "resume_token": welcome["resume_token"],
            "last_event_seq": 0 });
        let mut hello = quiet_hello(ALICE);
        hello["resume"] = resume;
        *welcome = client.open_with(hello).await;
        client
    };
    let mut client = comes_back(&mut welcome).await;
    for _ in 0..2 {
        assert_eq!(client.find(is_rotation).await["payload"]["body"]["value"], newest, "an older one is of no use");
    }
    host.advancing(STEP, cancel(&mut client, &job_id)).await;
    all_revoked(&*store).await;
    client.disconnect().await;
    let mut client = comes_back(&mut welcome).await;
    for _ in 0..2 {
        let body = client.find(is_rotation).await["payload"]["body"].clone();
        assert_eq!((&body["id"], body.get("value")), (&accepted["credentials"][0]["id"], None), "{body}");
    }
}

/// ARCP §9.8.3, §9.6: of a key that is counted elsewhere, what it has spent is read before it goes.
#[tokio::test]
async fn keys_of_others_share_their_part_and_what_they_spent_is_what_the_job_spent() {
    let upstream = Upstream::openai().await;
    let (proxy, keys) = litellm().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let settings = format!(
        "[credentials.proxy]\n{ROTATED}[credentials.proxy.litellm]\nurl = \"{}\"\nadmin_key = \"{ADMIN}\"",
        proxy.url()
    );
    let host = with_keys(&upstream, &settings).store(Arc::clone(&store)).at(NOON).start().await;
    let mut client = quiet(&host, ALICE).await;
    let accepted = begin(&mut client, lease("USD:1.00")).await;
    let id = accepted["credentials"][0]["id"].as_str().unwrap().to_owned();
    let next = format!("{id}-2");
    let spends = |alias: &str, spent: f64| keys.lock().unwrap().get_mut(alias).unwrap().1 = spent;
    let all = || keys.lock().unwrap().clone();
    spends(&id, 0.1);
    host.advance(TURN);
    let rotated = client.find(is_rotation).await["payload"]["body"].clone();
    assert_eq!((&rotated["id"], &rotated["value"]), (&json!(id), &json!(value_of(&next))));
    assert_eq!(all(), [(id.clone(), (0.3, 0.1)), (next.clone(), (0.2, 0.0))].into(), "each has half of what is left");
    spends(&id, 0.15);
    host.advance(GRACE);
    let bounded = async {
        while all()[&id] != (0.15, 0.15) {
            tokio::task::yield_now().await;
        }
    };
    within("the first key to spend nothing more", bounded).await;
    // What it spent last is told late, and is not given to the second.
    spends(&id, 0.2);
    let settled = async {
        while all() != [(next.clone(), (0.3, 0.0))].into() {
            tokio::task::yield_now().await;
        }
    };
    host.advancing(Duration::from_millis(10), settled).await;
    spends(&next, 0.05);
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    host.advancing(STEP, cancel(&mut client, &job_id)).await;
    all_revoked(&*store).await;
    assert!(all().is_empty());
    let records = journal::page(&*store, job_id.parse().unwrap(), Position::ZERO).await.unwrap();
    let Some((_, Record::Ended { spent: Some(spent), .. })) = records.last() else { panic!("{records:?}") };
    assert_eq!(spent.0.values().next().unwrap().normalize().to_string(), "0.25", "0.2 and 0.05");
}

/// Submits a job that runs for long, or finds the one that was made before.
async fn submit_once(client: &mut RawClient, budget: &str) -> raw::Reply {
    let submit = client.submit("sleeper").input(json!({ "sec": 10_000_000 })).lease(lease(budget));
    submit.key("once").reply().await
}

/// Whether a key has made way for the next, and that is written down.
async fn was_retired(store: &dyn Store) -> bool {
    for (stream, _) in store.streams(CREDENTIALS, None, 9).await.unwrap() {
        let records = store.read(&stream, Position::ZERO, 99).await.unwrap();
        if records.iter().any(|stored| String::from_utf8_lossy(&stored.bytes).contains("\"retired\"")) {
            return true;
        }
    }
    false
}

/// ARCP §9.8.2, §14: wherever a host dies, the next one leaves one key, which the client has, and afterwards none.
#[tokio::test]
async fn a_host_that_dies_in_a_rotation_leaves_no_key_behind_and_no_job_without_one() {
    let upstream = Upstream::openai().await;
    let mut deaths = (0..40).flat_map(|n| [Death::Before(n), Death::After(n)]);
    let mut in_a_rotation = 0;
    loop {
        let death = deaths.next().expect("a life has an end");
        let (proxy, keys) = litellm().await;
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let settings = format!(
            "[credentials.proxy]\n{ROTATED}spend_settles_sec = 0\n[credentials.proxy.litellm]\nurl = \"{}\"\nadmin_key = \"{ADMIN}\"",
            proxy.url()
        );
        let builder = || with_keys(&upstream, &settings).rights(ALICE, &[], true).at(NOON);
        let view = Mortal::of(&store, death);
        let life = async {
            let host = builder().store(Arc::clone(&view) as Arc<dyn Store>).start().await;
            let mut client = quiet(&host, ALICE).await;
            submit_once(&mut client, "USD:1.00").await.outcome().unwrap();
            host.advance(TURN);
            client.find(is_rotation).await;
            host.advance(GRACE);
            while !was_retired(&*store).await {
                tokio::task::yield_now().await;
            }
        };
        let survived = tokio::select! {
            biased;
            () = view.died() => false,
            () = within("a life", life) => true,
        };
        in_a_rotation += u32::from(!survived && keys.lock().unwrap().keys().any(|alias| alias.ends_with("-2")));
        view.kill();

        // The clock of the next one stands where that of the first did.
        let next = builder().store(Arc::clone(&store)).start().await;
        next.advance(TURN);
        let mut client = quiet(&next, ALICE).await;
        let accepted = submit_once(&mut client, "USD:1.00").await.payload().clone();
        let one = async {
            loop {
                let aliases: Vec<String> = keys.lock().unwrap().keys().cloned().collect();
                if let [alias] = &aliases[..]
                    && let again = submit_once(&mut client, "USD:1.00").await.payload().clone()
                    && key_of(&again) == value_of(alias)
                    && outstanding(&*store).await.unwrap().len() == 1
                {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        next.advancing(STEP, one).await;
        let job_id = accepted["job_id"].as_str().unwrap().to_owned();
        next.advancing(STEP, cancel(&mut client, &job_id)).await;
        next.advancing(STEP, all_revoked(&*store)).await;
        assert!(keys.lock().unwrap().is_empty(), "{death:?}");
        if survived {
            break;
        }
    }
    assert!(in_a_rotation > 4, "{in_a_rotation}");
}

/// ARCP §10, §9.8.2: nobody reads the acceptance of a delegated job, so there is nobody to give a key to.
#[tokio::test]
async fn a_delegated_job_is_given_no_key() {
    let upstream = Upstream::openai().await;
    let (proxy, _keys) = litellm().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let ceiling = json!({ "agent.delegate": ["*"], "model.use": ["**"], "cost.budget": ["USD:10"] });
    let host = with_litellm(&upstream, &proxy).policy(ALICE, ceiling).store(Arc::clone(&store)).start().await;
    let mut client = host.session().await;
    let lease = json!({ "agent.delegate": ["echo"], "model.use": ["tier-fast/*"], "cost.budget": ["USD:1.00"] });
    let task = json!({ "call": "delegate", "agent": "echo", "input": 7,
        "lease": { "model.use": ["tier-fast/*"], "cost.budget": ["USD:0.10"] } });
    let steps = json!({ "do": "steps", "steps": [{ "do": "calls", "start": [task] }] });
    let run = client.submit("hostile").input(steps).lease(lease).run().await;
    assert_eq!(run.result().unwrap()[0]["ok"][0]["ok"], json!(7), "{run:?}");
    let child = run.bodies("delegate").pop().unwrap()["child_job_id"].as_str().unwrap().to_owned();
    let accepted = journal::accepted(&*store, &journal::stream(child.parse().unwrap())).await.unwrap().unwrap();
    assert!(accepted.parent.is_some() && accepted.credentials.is_empty(), "{accepted:?}");
    let made = proxy.asked().into_iter().filter(|asked| asked.line == "POST /key/generate");
    let of: Vec<Value> = made.map(|asked| asked.body["metadata"]["job_id"].clone()).collect();
    assert_eq!(of, [json!(run.job_id())], "one key, of the job that was submitted");
}

/// ARCP §9.8.2: a value that the host has lost is replaced when it starts again.
#[tokio::test]
async fn a_value_that_a_restart_has_lost_is_replaced() {
    let upstream = Upstream::openai().await;
    let (proxy, keys) = litellm().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let view = Mortal::of(&store, Death::Never);
    let host = with_litellm(&upstream, &proxy).at(NOON).store(Arc::clone(&view) as Arc<dyn Store>).start().await;
    let mut client = quiet(&host, ALICE).await;
    let accepted = begin(&mut client, lease("USD:1.00")).await;
    let id = accepted["credentials"][0]["id"].as_str().unwrap().to_owned();
    let sealed = shared_data_dir().join("credentials").join(&id);
    view.kill();
    drop((client, host));
    std::fs::remove_file(sealed).unwrap();

    let next = with_litellm(&upstream, &proxy).at(NOON).store(Arc::clone(&store)).start().await;
    let one = async {
        while keys.lock().unwrap().keys().collect::<Vec<_>>() != [&format!("{id}-2")] {
            tokio::task::yield_now().await;
        }
    };
    next.advancing(Duration::from_secs(1), one).await;
    let job_id = accepted["job_id"].as_str().unwrap();
    let told = journal::page(&*store, job_id.parse().unwrap(), Position::ZERO).await.unwrap();
    assert_eq!(told.iter().filter(|(_, record)| matches!(record, Record::Rotated { .. })).count(), 1, "{told:?}");
}

/// ARCP §7.6, §14: "not logged, not echoed to subscribers".
#[tokio::test]
async fn the_value_of_a_key_is_nowhere_but_in_the_acceptance() {
    let log = Log::default();
    let writer = log.clone();
    // Were there one alone, a thread of another test would decide for all that nobody listens.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let upstream = Upstream::openai().await;
    let (proxy, _keys) = litellm().await;
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let litellm = format!(
        "[credentials.proxy]\nbudget_percent = 30\n[credentials.proxy.litellm]\nurl = \"{}\"\n\
        admin_key = \"{ADMIN}\"\n{OWN}",
        proxy.url()
    );
    let host = with_keys(&upstream, &litellm).store(Arc::clone(&store)).start().await;
    let address = host.serve().await;
    let (mut client, mut other, mut bob) = (host.session().await, host.session().await, host.session_as(BOB).await);
    let accepted = begin(&mut client, lease("USD:1.00")).await;
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    let values: Vec<String> = accepted["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|credential| credential["value"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(values.len(), 2);

    let mut seen = Vec::new();
    for watcher in [&mut other, &mut bob] {
        seen.push(watcher.request("session.list_jobs", json!({})).await.0);
        seen.push(watcher.request("job.subscribe", json!({ "job_id": job_id, "history": true })).await.0);
    }
    let own = values.iter().find(|value| value.starts_with("lhk_")).unwrap();
    assert_eq!(chat(address, own, "tier-fast/small").await.0, 200);
    // One that LiteLLM answers with the key itself.
    for _ in ["what it has spent", "that it is deleted"] {
        proxy.answer(Reply::text(400, &values.concat()));
    }
    let run = cancel(&mut client, &job_id).await;
    seen.extend(run.events.into_iter().chain([run.terminal]));
    for watcher in [&mut other, &mut bob] {
        let run = watcher.follow(&job_id).await;
        seen.extend(run.events.into_iter().chain([run.terminal]));
        seen.push(watcher.request("session.list_jobs", json!({})).await.0);
    }
    let mut text: Vec<String> = seen.iter().map(Value::to_string).collect();
    for (stream, _) in store.streams("", None, 1000).await.unwrap() {
        let records = store.read(&stream, Position::ZERO, 1000).await.unwrap();
        text.extend(records.iter().map(|stored| String::from_utf8_lossy(&stored.bytes).into_owned()));
    }
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("job accepted") && log.contains("a key was made"), "the log is there");
    text.push(log);
    text.push(format!("{:?}", outstanding(&*store).await.unwrap()));
    for value in &values {
        // Nor a part of it that would be of use.
        let part = &value[value.len() - 16..];
        assert!(text.iter().all(|text| !text.contains(part)), "{:?}", text.iter().find(|text| text.contains(part)));
    }
}

/// ARCP §14: "over authenticated, encrypted transports only". Each row is whence a client comes.
#[tokio::test]
async fn a_connection_that_others_can_read_carries_no_key() {
    let upstream = Upstream::openai().await;
    for (remote, behind_tls, carries) in [
        ("127.0.0.1:9", false, true),
        ("[::ffff:127.0.0.1]:9", false, true),
        ("192.0.2.7:9", false, false),
        ("192.0.2.7:9", true, true),
    ] {
        let host = with_keys(&upstream, OWN).config(|config| config.server.behind_tls = behind_tls).start().await;
        let url = reached_from(remote.parse().unwrap(), &host).await;
        let transport = within("a connection", connect(&url, &WebSocketConfig::default())).await.unwrap();
        let mut client = RawClient::new(transport);
        let welcome = client.open(&token(ALICE)).await;
        let features = welcome["capabilities"]["features"].as_array().unwrap();
        assert_eq!(features.contains(&json!("provisioned_credentials")), carries, "{remote}");
        let accepted = begin(&mut client, lease("USD:1.00")).await;
        assert_eq!(accepted.get("credentials").is_some(), carries, "{remote}");
    }
}

/// Serves one connection of a host as if its client were at `remote`.
async fn reached_from(remote: SocketAddr, host: &TestHost) -> String {
    let (host, route) = (Arc::clone(host.host()), Arc::new(host.host().route()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/arcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let host = Arc::clone(&host);
            let answer = route.answer(request, Some(remote), |peer| async move { host.serve_one(peer).await });
            async { Ok::<_, Infallible>(answer) }
        });
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await
    });
    url
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The keys of a LiteLLM proxy by their aliases: what each may spend, and what it has spent.
type Proxied = Arc<Mutex<BTreeMap<String, (f64, f64)>>>;

/// The key API of a LiteLLM proxy, and the keys it has.
async fn litellm() -> (Upstream, Proxied) {
    litellm_unless(Arc::default()).await
}

/// The same, which is not there while `down` says so.
async fn litellm_unless(down: Arc<AtomicBool>) -> (Upstream, Proxied) {
    let keys = Proxied::default();
    let kept = Arc::clone(&keys);
    let upstream = Upstream::start(move |asked| match down.load(Ordering::SeqCst) {
        true => Reply::text(500, "no connection to the database"),
        false => answer(asked, &mut kept.lock().unwrap()),
    });
    (upstream.await, keys)
}

fn answer(asked: &Asked, keys: &mut BTreeMap<String, (f64, f64)>) -> Reply {
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {ADMIN}")));
    match asked.line.as_str() {
        "GET /v1/models" => Reply::json(200, &json!({ "data": [{ "id": "tier-fast/small" }] })),
        "POST /key/generate" => {
            let alias = asked.body["key_alias"].as_str().unwrap();
            let fresh = keys.insert(alias.to_owned(), (asked.body["max_budget"].as_f64().unwrap_or(f64::MAX), 0.0));
            assert!(fresh.is_none(), "no two keys have one alias");
            Reply::json(200, &json!({ "key": value_of(alias) }))
        }
        "POST /key/update" => {
            let alias = asked.body["key"].as_str().unwrap().trim_start_matches("digest of ");
            keys.get_mut(alias).unwrap().0 = asked.body["max_budget"].as_f64().unwrap();
            Reply::json(200, &json!({ "key": asked.body["key"] }))
        }
        line if line.starts_with("GET /key/list?key_alias=") => {
            let found = keys.iter().filter(|(alias, _)| line.contains(&format!("={alias}&")));
            let shown = found.map(|(alias, (_, spend))| {
                json!({ "token": format!("digest of {alias}"), "key_alias": alias, "spend": spend })
            });
            Reply::json(200, &json!({ "keys": shown.collect::<Vec<_>>(), "total_count": 1 }))
        }
        "POST /key/delete" => {
            keys.retain(|alias, _| asked.body["key_aliases"][0] != **alias);
            Reply::json(200, &json!({ "deleted_keys": asked.body["key_aliases"] }))
        }
        line => Reply::json(404, &json!({ "detail": line })),
    }
}

/// Nothing in it can be told from what is known of the key.
fn value_of(alias: &str) -> String {
    let digits: String = alias.bytes().rev().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect();
    format!("sk-{digits}")
}
