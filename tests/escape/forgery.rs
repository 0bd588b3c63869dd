//! Agents that speak in the host's name, or lie about money (ARCP §8.2, §9.6).

use leasehold_tests::{ErrorCode, TestHost};
use serde_json::{Value, json};

use super::{House, told};

fn metric(name: &str, value: &str, unit: &str) -> Value {
    json!({"do": "metric", "name": name, "value": value, "unit": unit})
}

/// Each deed is refused as a value, and nobody who watches sees any of it.
#[tokio::test]
async fn what_is_the_hosts_to_say_is_not_said_by_an_agent() {
    let too_deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let lease = json!({"cost.budget": ["USD:5.00"]});
    let builder = TestHost::builder().policy("alice", lease.clone());
    let mut house = House::start(builder).await;
    for deed in [
        json!({"do": "forge_status", "phase": "back_pressure"}),
        json!({"do": "forge_status", "phase": "credential_rotated"}),
        json!({"do": "forge_status", "phase": "lease_expired"}),
        json!({"do": "forge_status", "phase": ""}),
        json!({"do": "forge_status", "phase": "p".repeat(129)}),
        json!({"do": "bad_vendor"}),
        json!({"do": "bad_vendor", "kind": "log", "body": "{}"}),
        json!({"do": "bad_vendor", "kind": "job.result", "body": "{}"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.", "body": "{}"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.a", "body": "{}"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.a.b c", "body": "{}"}),
        json!({"do": "bad_vendor", "kind": format!("x-vendor.a.{}", "b".repeat(200)), "body": "{}"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.a.b"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.a.b", "body": "[]"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.a.b", "body": "{\"a\":1}{\"b\":2}"}),
        json!({"do": "bad_vendor", "kind": "x-vendor.a.b", "body": too_deep}),
        json!({"do": "bad_progress", "current": 2, "total": 1}),
        json!({"do": "bad_artifact", "uri": "file:///x", "sha256": "abc"}),
        json!({"do": "bad_artifact", "uri": "", "sha256": "0".repeat(64)}),
        metric("cost.budget.remaining", "1000000", "USD"),
        metric("cost.budget", "1", "USD"),
        metric("cost.budget.x", "1", "USD"),
        metric("cost.llm", "-0.01", "USD"),
        metric("cost.llm", "-79228162514264337593543950335", "USD"),
        metric("cost.llm", "NaN", "USD"),
        metric("cost.llm", "inf", "USD"),
        metric("cost.llm", "1e3", "USD"),
        metric("cost.llm", "0x10", "USD"),
        metric("cost.llm", "1,000", "USD"),
        metric("cost.llm", "", "USD"),
        metric("cost.llm", &"9".repeat(40), "USD"),
        metric("", "1", "USD"),
        metric(&"n".repeat(129), "1", "USD"),
        metric("n", "1", &"u".repeat(33)),
    ] {
        let steps = json!({"do": "steps", "steps": [deed, {"do": "job", "namespaces": ["cost.budget"]}]});
        let run = house.leased(lease.clone(), steps).await;
        let outcomes = run.result().unwrap_or_else(|_| panic!("{deed}: {run:?}"));
        assert_eq!(told(&outcomes[0]), "invalid-request", "{deed}: {outcomes}");
        assert_eq!(outcomes[1]["ok"]["budget"], json!({"USD": "5"}), "{deed}: nothing was counted");
        assert!(run.events.is_empty(), "{deed}: {:?}", run.events);
    }
}

/// Dimensions are the agent's; what the host adds up is not told by them.
#[tokio::test]
async fn a_budget_goes_down_by_what_was_reported_and_never_up() {
    let lease = json!({"cost.budget": ["USD:1.00"], "fs.read": ["/w/**"]});
    let builder = TestHost::builder().mount("/w", leasehold_tests::MountMode::Ro).policy("alice", lease.clone());
    let mut house = House::start(builder).await;
    let steps = json!([
        metric("cost.a", "0.40", "USD"),
        metric("cost.a", "-0.40", "USD"),
        metric("cost.b", "100", "EUR"), // no currency of this lease
        metric("tokens", "100", "USD"), // no cost
        {"do": "stat", "path": "/w"},
        metric("cost.a", "0.60", "USD"), // exactly spent is spent
        {"do": "stat", "path": "/w"},
        metric("cost.a", "0", "USD"),
        {"do": "job"},
    ]);
    let run = house.leased(lease, json!({"do": "steps", "steps": steps})).await;
    let outcomes = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    let told: Vec<&str> = outcomes.as_array().into_iter().flatten().map(told).collect();
    let expected = ["ok", "invalid-request", "ok", "ok", "ok", "ok", "budget-exhausted", "ok", "ok"];
    assert_eq!(told, expected, "{outcomes}");
    assert_eq!(
        outcomes[8]["ok"]["budget"]["USD"].as_str().map(|left| left.parse::<f64>()),
        Some(Ok(0.0)),
        "{outcomes}"
    );
    let remaining: Vec<_> =
        run.bodies("metric").into_iter().filter(|metric| metric["name"] == "cost.budget.remaining").collect();
    assert_eq!(remaining.len(), 2, "{remaining:?}");
}

/// The lease is the client's: an agent learns it and cannot change it, and an agent without one has nothing.
#[tokio::test]
async fn an_agent_without_a_lease_has_no_authority() {
    let mut house = House::start(TestHost::builder().mount("/w", leasehold_tests::MountMode::Rw)).await;
    std::fs::write(house.host.folder("/w").join("a"), "x").expect("the folder can be written to");
    for deed in [
        json!({"do": "read", "path": "/w/a"}),
        json!({"do": "read_range", "path": "/w/a", "offset": 0, "length": 1}),
        json!({"do": "list", "path": "/w"}),
        json!({"do": "list", "path": "/"}),
        json!({"do": "stat", "path": "/w/a"}),
        json!({"do": "write", "path": "/w/a", "text": "y"}),
        json!({"do": "append", "path": "/w/a", "text": "y"}),
        json!({"do": "create_dir", "path": "/w/d"}),
        json!({"do": "remove", "path": "/w/a"}),
    ] {
        let run = house.deed(deed.clone()).await;
        assert_eq!(run.result().as_ref().map(told), Ok("permission-denied"), "{deed}: {run:?}");
        let results = run.bodies("tool_result");
        assert_eq!(results.len(), 1, "a refusal is seen by the watcher: {run:?}");
        assert_eq!(results[0]["error"]["code"], "PERMISSION_DENIED", "{results:?}");
    }
    assert_eq!(std::fs::read_to_string(house.host.folder("/w").join("a")).expect("it is there"), "x");
    let reply = house.session.submit("hostile").lease(json!({"fs.read": ["/etc/**"]})).reply().await;
    assert_eq!(reply.outcome(), Err(ErrorCode::LeaseSubsetViolation), "{reply:?}");
}
