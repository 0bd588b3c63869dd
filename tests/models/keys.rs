//! Keys that others make: LiteLLM's key API over HTTP, and a command.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use leasehold::credentials::{JobFacts, ProvisionError, Provisioner, provisioner, settings::CredentialEntry};
use leasehold_core::{
    id::Principal,
    lease::{
        Namespace,
        amount::{Amount, Budget},
        pattern::Pattern,
    },
    time::Timestamp,
};
use leasehold_tests::{
    upstream::{Asked, End, Reply, Upstream},
    within,
};
use serde_json::{Value, json};

const ADMIN: &str = "sk-master-0123456789";
const NOW: Timestamp = Timestamp::from_millis(1_778_715_720_500);

/// The API of a LiteLLM proxy with four models, as its reference says, and the aliases of the keys it has.
async fn litellm() -> (Upstream, Arc<Mutex<BTreeSet<String>>>) {
    let keys = Arc::new(Mutex::new(BTreeSet::new()));
    let kept = Arc::clone(&keys);
    let upstream = Upstream::start(move |asked| answer(asked, &mut kept.lock().unwrap())).await;
    (upstream, keys)
}

fn answer(asked: &Asked, keys: &mut BTreeSet<String>) -> Reply {
    if asked.header("authorization") != Some(&format!("Bearer {ADMIN}")) {
        return Reply::json(401, &json!({ "error": { "message": format!("Invalid: {ADMIN}"), "code": "401" } }));
    }
    match asked.line.as_str() {
        "GET /v1/models" => {
            let ids = ["tier-fast/small", "tier-fast/eu/small", "tier-slow/large", "tier-fast/*", "all-proxy-models"];
            let data: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "object": "model" })).collect();
            Reply::json(200, &json!({ "data": data, "object": "list" }))
        }
        "POST /key/generate" => {
            let alias = asked.body["key_alias"].as_str().unwrap();
            if !keys.insert(alias.to_owned()) {
                return Reply::json(400, &json!({ "error": { "message": "Key with alias already exists" } }));
            }
            Reply::json(200, &json!({ "key": format!("sk-virt-{alias}"), "key_alias": alias, "expires": "…" }))
        }
        line if line.starts_with("GET /key/list?") => {
            let full = line.contains("return_full_object=true");
            let known = keys.iter().filter(|alias| full && line.contains(&format!("key_alias={alias}")));
            let shown =
                known.map(|alias| json!({ "token": format!("#{alias}"), "key_alias": alias, "spend": 1.25e-5 }));
            Reply::json(200, &json!({ "keys": shown.collect::<Vec<_>>() }))
        }
        "POST /key/update" => Reply::json(200, &json!({ "key": asked.body["key"] })),
        "POST /key/delete" => {
            let aliases = asked.body["key_aliases"].as_array().unwrap();
            let deleted = aliases.iter().filter(|alias| keys.remove(alias.as_str().unwrap())).count();
            match deleted {
                0 => Reply::json(404, &json!({ "error": { "message": "not found" } })),
                _ => Reply::json(200, &json!({ "deleted_keys": aliases })),
            }
        }
        line => Reply::json(404, &json!({ "detail": line })),
    }
}

fn made(settings: &str) -> Box<dyn Provisioner> {
    try_made(settings).unwrap().unwrap()
}

fn try_made(settings: &str) -> Result<Option<Box<dyn Provisioner>>, String> {
    provisioner("mine", &toml::from_str::<CredentialEntry>(settings).unwrap())
}

fn proxy(upstream: &Upstream) -> Box<dyn Provisioner> {
    made(&format!("[litellm]\nurl = \"{}\"\nadmin_key = \"{ADMIN}\"", upstream.url()))
}

fn facts(models: &[&str], budget: &[&str], lasts_ms: Option<i64>) -> JobFacts {
    let amounts = budget.iter().map(|text| Amount::parse(text).unwrap());
    JobFacts {
        job_id: "job_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        principal: Principal::new("alice"),
        models: models.iter().map(|text| Pattern::parse(&Namespace::ModelUse, text).unwrap()).collect(),
        budget: amounts.map(|amount| (amount.currency().clone(), amount.value())).collect::<Budget>(),
        expires_at: lasts_ms.map(|lasts| Timestamp::from_millis(NOW.as_millis() + lasts)),
    }
}

/// ARCP §9.8.3: spend cap, allowed models, lifetime.
#[tokio::test]
async fn a_key_of_litellm_carries_what_the_lease_says_and_is_deleted_by_its_id() {
    let (upstream, keys) = litellm().await;
    let proxy = proxy(&upstream);
    let facts = facts(&["tier-fast/*"], &["USD:5.00"], Some(90_999));
    let issued = within("a key", proxy.issue(NOW, "cred_1", &facts)).await.unwrap();
    assert_eq!((issued.value.expose(), issued.scheme.as_str()), ("sk-virt-cred_1", "bearer"));
    assert_eq!((issued.endpoint, issued.profile.as_deref()), (format!("{}/v1", upstream.url()), Some("openai")));
    let constraints = serde_json::to_value(&issued.constraints).unwrap();
    let expires_at = facts.expires_at.unwrap();
    assert_eq!(
        constraints,
        json!({ "cost.budget": ["USD:5.00"], "model.use": ["tier-fast/small"], "expires_at": expires_at })
    );
    // LiteLLM's own `*` would have let it use tier-fast/eu/small, too.
    let sent = upstream.asked().pop().unwrap().body;
    assert_eq!((&sent["models"], &sent["max_budget"]), (&json!(["tier-fast/small"]), &json!(5.0)));
    assert_eq!((&sent["duration"], &sent["key_alias"]), (&json!("90s"), &json!("cred_1")));
    assert_eq!(sent["metadata"]["job_id"], "job_01ARZ3NDEKTSV4RRFFQ69G5FAV");

    for _ in 0..2 {
        within("a revocation", proxy.revoke("cred_1")).await.unwrap(); // what is gone is revoked
    }
    assert!(keys.lock().unwrap().is_empty());
}

/// ARCP §9.6, §9.8.2.
#[tokio::test]
async fn litellm_tells_what_a_key_has_spent_and_is_told_what_it_may() {
    let (upstream, _) = litellm().await;
    let proxy = proxy(&upstream);
    let facts = facts(&["tier-fast/*"], &["USD:5.00"], None);
    within("a key", proxy.issue(NOW, "cred_1", &facts)).await.unwrap();
    let spent = within("an answer", proxy.spent("cred_1")).await.unwrap().unwrap();
    let told: Vec<String> = spent.iter().map(|(currency, value)| format!("{currency}:{value}")).collect();
    assert_eq!(told, ["USD:0.0000125"]);
    assert_eq!(within("an answer", proxy.spent("cred_2")).await, Ok(None), "it has no such key");
    within("an answer", proxy.bound("cred_1", &spent)).await.unwrap();
    let sent = upstream.asked().pop().unwrap();
    assert_eq!((sent.line.as_str(), &sent.body["key"]), ("POST /key/update", &json!("#cred_1")));
    assert_eq!(sent.body["max_budget"], json!(0.0000125));
    assert!(matches!(within("an answer", proxy.bound("cred_2", &spent)).await, Err(ProvisionError::Refused(_))));
    for (reply, expected) in [
        (Reply::json(500, &json!({})), Err(ProvisionError::Unreachable("status 500".into()))),
        (Reply::json(200, &json!({})), Err(ProvisionError::Broken("no list of keys".into()))),
        // Somebody else's, whose alias holds this one.
        (Reply::json(200, &json!({ "keys": [{ "token": "#", "key_alias": "cred_11", "spend": 2.0 }] })), Ok(None)),
        (Reply::json(200, &json!({ "keys": [{ "token": "#", "key_alias": "cred_1", "spend": -2.0 }] })), Ok(None)),
    ] {
        upstream.answer(reply);
        assert_eq!(within("an answer", proxy.spent("cred_1")).await, expected);
    }
}

#[tokio::test]
async fn no_key_is_made_that_could_do_more_than_the_lease() {
    let (upstream, keys) = litellm().await;
    let proxy = proxy(&upstream);
    for (models, budget, lasts, why) in [
        (&["nothing/*"][..], &["USD:1"][..], None, "no model"), // an empty list would mean all
        (&["tier-fast/none"], &["USD:1"], None, "no model"),
        (&["all-proxy-models"], &["USD:1"], None, "no model"), // a name for all of them
        (&[], &["USD:1"], None, "no model"),
        (&["**"], &["USD:1", "credits:1"], None, "credits"),
        (&["**"], &["USD:1"], Some(999), "ends"),
        (&["**"], &["USD:1"], Some(-5), "ends"),
    ] {
        let error = within("an answer", proxy.issue(NOW, "cred_1", &facts(models, budget, lasts))).await.unwrap_err();
        assert!(matches!(&error, ProvisionError::Unbounded(said) if said.contains(why)), "{error}");
    }
    assert!(keys.lock().unwrap().is_empty());
    // A lease without an end gets a key with one.
    within("a key", proxy.issue(NOW, "cred_1", &facts(&["**"], &[], None))).await.unwrap();
    let sent = upstream.asked().pop().unwrap().body;
    assert_eq!((&sent["duration"], sent.get("max_budget")), (&json!("86400s"), None));
    assert_eq!(sent["models"], json!(["tier-fast/small", "tier-fast/eu/small", "tier-slow/large"]));
}

#[tokio::test]
async fn what_litellm_refuses_is_told_without_a_key_and_revoked_only_when_it_is() {
    let (upstream, _) = litellm().await;
    let proxy = proxy(&upstream);
    let quoting = json!({ "error": { "message": format!("{ADMIN} sk-virt-1") } });
    let models = json!({ "data": [{ "id": "a" }] });
    for (reply, expected) in [
        (Reply::json(500, &quoting), ProvisionError::Unreachable("status 500".into())),
        (Reply::json(429, &quoting), ProvisionError::Unreachable("status 429".into())),
        (Reply::json(403, &quoting), ProvisionError::Refused("status 403".into())),
        (Reply::json(200, &quoting), ProvisionError::Broken("it holds no key".into())),
        (Reply::text(200, "sk-virt-1"), ProvisionError::Broken("it holds no key".into())),
        (Reply::text(302, "").with("location", "/x"), ProvisionError::Refused("status 302".into())),
        (Reply::text(200, "{").ending(End::Broken), ProvisionError::Unreachable("the connection failed".into())),
    ] {
        upstream.answer(Reply::json(200, &models));
        upstream.answer(reply);
        let facts = facts(&["**"], &[], None);
        assert_eq!(within("an answer", proxy.issue(NOW, "cred_1", &facts)).await.unwrap_err(), expected);
    }
    for (reply, revoked) in [
        (Reply::json(200, &json!({ "deleted_keys": ["cred_1"] })), true),
        (Reply::json(404, &json!({ "error": {} })), true),
        (Reply::text(404, "<html>no such page"), false), // that is somebody else
        (Reply::json(500, &quoting), false),
        (Reply::json(401, &quoting), false),
    ] {
        upstream.answer(reply.clone());
        assert_eq!(within("an answer", proxy.revoke("cred_1")).await.is_ok(), revoked, "{reply:?}");
    }
}

/// A script that is a command; it keeps what it was asked beside itself.
fn command(dir: &Path, script: &str, settings: &str) -> Box<dyn Provisioner> {
    let path = dir.join("mint");
    fs::write(&path, format!("#!/bin/sh\nread -r asked\necho \"$asked\" > {}/asked\n{script}\n", dir.display()))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    made(&format!("[command]\ncommand = [\"/bin/sh\", \"{}\"]\n{settings}", path.display()))
}

#[tokio::test]
async fn a_command_is_asked_in_json_and_answers_so() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"echo '{"value":"sk-9","endpoint":"https://a.test/v1","profile":"","constraints":{"cost.budget":["USD:1"]}}'"#;
    let minting = command(dir.path(), script, "");
    let facts = facts(&["tier-fast/*"], &["USD:1", "credits:3"], Some(1000));
    let issued = within("a key", minting.issue(NOW, "cred_1", &facts)).await.unwrap();
    assert_eq!((issued.value.expose(), issued.endpoint.as_str()), ("sk-9", "https://a.test/v1"));
    assert_eq!((issued.scheme.as_str(), issued.profile), ("bearer", None));
    assert_eq!(issued.constraints.cost_budget, ["USD:1"]);
    assert!(!format!("{:?}", issued.value).contains("sk-9"));
    let asked = || serde_json::from_str::<Value>(&fs::read_to_string(dir.path().join("asked")).unwrap()).unwrap();
    assert_eq!(
        asked(),
        json!({
            "action": "issue", "id": "cred_1", "job_id": "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "principal": "alice",
            "model.use": ["tier-fast/*"], "cost.budget": ["USD:1", "credits:3"], "expires_at": facts.expires_at,
        })
    );
    within("a revocation", minting.revoke("cred_1")).await.unwrap();
    assert_eq!(asked(), json!({ "action": "revoke", "id": "cred_1" }));
    let one = facts.budget.clone();
    within("a bound", minting.bound("cred_1", &one)).await.unwrap();
    assert_eq!(asked(), json!({ "action": "bound", "id": "cred_1", "cost.budget": ["USD:1", "credits:3"] }));
    for (answer, spent) in [
        (r#"{"cost.budget":["USD:1","credits:3"]}"#, Ok(Some(one))),
        ("{}", Ok(None)),
        (r#"{"cost.budget":["1"]}"#, Err(())),
        (r#"{"cost.budget":"USD:1"}"#, Err(())),
        ("sk-9", Err(())),
    ] {
        let minting = command(dir.path(), &format!("echo '{answer}'"), "");
        let told = within("an answer", minting.spent("cred_1")).await;
        assert!(told.as_ref().err().is_none_or(|error| !error.to_string().contains("sk-9")));
        assert_eq!(told.map_err(drop), spent, "{answer}");
    }
    assert_eq!(asked(), json!({ "action": "spent", "id": "cred_1" }));
}

#[tokio::test]
async fn a_command_that_fails_is_said_to_and_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (script, said) in [
        ("echo sk-9; echo sk-9 >&2; exit 3", "exit status: 3"),
        ("echo sk-9", "no key"),
        ("echo '{\"value\":\"sk-9\"}'", "no key"),
        ("echo '{\"value\":\"\",\"endpoint\":\"x\"}'", "empty"),
        ("echo '{\"value\":\"sk-9\",\"endpoint\":\"x\",\"constraint\":{}}'", "no key"),
        ("yes sk-9", "too large"),
        ("exec sleep 600", "in time"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let minting = command(dir.path(), script, "timeout_sec = 1\nanswer_bytes_max = 1000");
        let facts = facts(&["**"], &[], None);
        let asked = minting.issue(NOW, "cred_1", &facts);
        let error = within("an answer", asked).await.unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("sk-9"), "{script}: {error}");
    }
    let nobody = made("[command]\ncommand = [\"/nowhere/at/all\"]");
    assert!(matches!(nobody.revoke("cred_1").await, Err(ProvisionError::Unreachable(_))));
}

/// A shell waits for what it has started, so killing the shell alone would leave that behind.
#[tokio::test]
async fn nothing_that_a_command_has_started_outlives_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    let script = format!("sleep 600 &\necho $! > {}\nsleep 600", started.display());
    let minting = command(dir.path(), &script, "timeout_sec = 2");
    let error = within("an answer", minting.revoke("cred_1")).await.unwrap_err().to_string();
    assert!(error.contains("in time"), "{error}");
    let status = format!("/proc/{}/status", fs::read_to_string(&started).unwrap().trim());
    let gone = async {
        // A zombie has ended, and waits for whoever adopts it.
        while fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the end of what it has started", gone).await;
}

/// Each row is how long a key lasts, and how long the one before it.
#[test]
fn a_key_lasts_longer_than_the_one_before_it_and_neither_for_ever() {
    for (after, grace, named) in [
        ("10", "1", None),
        ("2592000", "2591999", None),
        ("9", "1", Some("`rotate_after_sec` is 9, and must be 10 to 2592000")),
        ("2592001", "1", Some("`rotate_after_sec` is 2592001")),
        ("60", "60", Some("must be more than `rotate_grace_sec`, 60")),
        ("60", "0", Some("`rotate_grace_sec` is 0, and must be 1 to 2592000")),
    ] {
        let text = format!("rotate_after_sec = {after}\nrotate_grace_sec = {grace}\n[gateway]");
        let error = toml::from_str::<CredentialEntry>(&text).err().map(|error| error.to_string());
        assert_eq!(error.is_some(), named.is_some(), "{text}: {error:?}");
        assert!(named.is_none_or(|named| error.is_some_and(|error| error.contains(named))), "{text}");
    }
}

#[test]
fn a_setting_of_credentials_that_cannot_be_used_is_named() {
    for (settings, named) in [
        ("[command]\ncommand = []", "credentials.mine.command.command"),
        ("[command]\ncommand = [\"x\"]\ntimeout_sec = 0", "credentials.mine.command.timeout_sec"),
        ("[litellm]\nurl = \"ftp://a\"\nadmin_key = \"sk-1\"", "credentials.mine.litellm.url"),
        ("[litellm]\nurl = \"https://u:p@a\"\nadmin_key = \"sk-1\"", "credentials.mine.litellm.url"),
        ("[litellm]\nurl = \"https://a\"\nadmin_key = \"sk\\n1\"", "credentials.mine.litellm.admin_key"),
        (
            "[litellm]\nurl = \"https://a\"\nadmin_key = { env = \"LEASEHOLD_TEST_NO_SUCH_VARIABLE\" }",
            "NO_SUCH_VARIABLE",
        ),
    ] {
        let error = try_made(settings).err().unwrap();
        assert!(error.contains(named) && !error.contains("sk"), "{error}");
    }
}
