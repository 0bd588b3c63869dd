//! ARCP §9.6: money.

use leasehold_tests::{ErrorCode::InvalidRequest, MountMode, RawClient, Run, TestHost};
use serde_json::{Value, json};

async fn host() -> TestHost {
    TestHost::builder().mount("/w", MountMode::Ro).start().await
}

fn cost(value: &str) -> Value {
    json!({ "do": "metric", "name": "cost.inference", "value": value, "unit": "USD" })
}

/// What each step was told, under this budget.
async fn run(client: &mut RawClient, budget: Value, steps: Vec<Value>) -> (Vec<Value>, Run) {
    let lease = json!({ "fs.read": ["/w/**"], "cost.budget": budget });
    let run = client.submit("hostile").input(json!({ "do": "steps", "steps": steps })).lease(lease).run().await;
    let told = run.result().expect("a refusal is a value");
    (told.as_array().expect("one outcome a step").clone(), run)
}

/// The amounts that were reported as left.
fn remaining(run: &Run) -> Vec<f64> {
    let reports = run.bodies("metric").into_iter().filter(|body| body["name"] == "cost.budget.remaining");
    reports.map(|body| body["value"].as_f64().expect("a number")).collect()
}

#[tokio::test]
async fn what_is_spent_is_counted_and_what_is_overspent_is_refused() {
    let host = host().await;
    let mut client = host.session().await;
    let stat = json!({ "do": "stat", "path": "/w" });
    let log = json!({ "do": "events_flood", "count": 1 });
    let steps = vec![cost("0.42"), stat.clone(), cost("0.70"), stat, log];
    let (told, run) = run(&mut client, json!(["USD:1.00"]), steps).await;
    assert_eq!(run.accepted["payload"]["budget"], json!({ "USD": 1.0 }));
    assert_eq!(remaining(&run), [0.58, -0.12]);
    assert!(told[1].get("ok").is_some(), "{told:?}");
    // The operation that overspends has happened; it is the next that is refused, and what needs no lease goes on.
    assert_eq!(told[3]["err"]["code"], "budget-exhausted", "{told:?}");
    assert!(told[2].get("ok").is_some() && told[4].get("ok").is_some(), "{told:?}");
    let error = run.bodies("tool_result").pop().expect("a refused call")["error"].clone();
    assert_eq!((&error["code"], &error["retryable"]), (&json!("BUDGET_EXHAUSTED"), &json!(false)));
    assert_eq!(run.final_status(), "success");
}

/// Ten times a tenth is one.
#[tokio::test]
async fn amounts_are_decimal() {
    let host = host().await;
    let mut client = host.session().await;
    let mut steps = vec![cost("0.1"); 9];
    let stat = json!({ "do": "stat", "path": "/w" });
    steps.extend([stat.clone(), cost("0.1"), stat, json!({ "do": "job" })]);
    let (told, run) = run(&mut client, json!(["USD:1.00"]), steps).await;
    assert!(told[9].get("ok").is_some(), "a tenth is left: {told:?}");
    assert_eq!(told[11]["err"]["code"], "budget-exhausted", "nothing is left: {told:?}");
    assert_eq!(told[12]["ok"]["budget"]["USD"].as_str().and_then(|left| left.parse::<f64>().ok()), Some(0.0));
    assert_eq!(remaining(&run).last(), Some(&0.0));
}

/// ARCP §9.6: each row is a metric that takes nothing from the counter.
#[tokio::test]
async fn only_a_cost_in_a_currency_of_the_lease_is_counted() {
    let host = host().await;
    let mut client = host.session().await;
    let metric =
        |name: &str, value: &str, unit: Value| json!({ "do": "metric", "name": name, "value": value, "unit": unit });
    for (metric, refused) in [
        (metric("cost.inference", "-1", json!("USD")), true),
        (metric("cost.inference", "NaN", json!("USD")), true),
        (metric("cost.inference", "inf", json!("USD")), true),
        (metric("cost.inference", "1e3", json!("USD")), true),
        (metric("cost.inference", "", json!("USD")), true),
        (metric("cost.budget.remaining", "1000", json!("USD")), true), // the host's own
        (metric("cost.inference", "0", json!("USD")), false),
        (metric("cost.inference", "0.5", json!("EUR")), false),
        (metric("cost.inference", "0.5", json!("usd")), false),
        (metric("cost.inference", "0.5", Value::Null), false),
        (metric("price", "0.5", json!("USD")), false),
        (metric("costs", "0.5", json!("USD")), false),
    ] {
        let steps = vec![metric.clone(), json!({ "do": "job" })];
        let (told, run) = run(&mut client, json!(["USD:1.00"]), steps).await;
        assert_eq!(told[0].get("err").is_some(), refused, "{metric}: {told:?}");
        assert_eq!(told[1]["ok"]["budget"], json!({ "USD": "1" }), "{metric}");
        assert_eq!(remaining(&run), Vec::<f64>::new(), "{metric}");
    }
}

/// ARCP §9.6: `currency:amount`, summed where a currency stands twice.
#[tokio::test]
async fn a_budget_is_a_list_of_amounts() {
    let host = host().await;
    let mut client = host.session().await;
    for (budget, expected) in [
        (json!(["USD:5.00"]), Ok(json!({ "USD": 5.0 }))),
        (json!(["USD:5.00", "USD:0.25"]), Ok(json!({ "USD": 5.25 }))),
        (json!(["USD:1", "credits:10"]), Ok(json!({ "USD": 1.0, "credits": 10.0 }))),
        (json!(["USD:0"]), Ok(json!({ "USD": 0.0 }))),
        (json!(["USD:-1"]), Err(InvalidRequest)),
        (json!(["USD:1e3"]), Err(InvalidRequest)),
        (json!([":5"]), Err(InvalidRequest)),
        (json!(["USD:"]), Err(InvalidRequest)),
        (json!(["USD 5"]), Err(InvalidRequest)),
        (json!(["USD:5:5"]), Err(InvalidRequest)),
        (json!(["USD:NaN"]), Err(InvalidRequest)),
        (json!(["USD:99999999999999999999999999999999"]), Err(InvalidRequest)),
    ] {
        let reply = client.submit("echo").lease(json!({ "cost.budget": budget })).reply().await;
        assert_eq!(reply.outcome(), expected.as_ref().map(|_| ()).map_err(|code| *code), "{budget}: {}", reply.0);
        match expected {
            Ok(counters) => {
                let shown = reply.payload()["budget"].as_object().expect("counters").clone();
                let shown: Value = shown.into_iter().map(|(currency, left)| (currency, json!(left.as_f64()))).collect();
                assert_eq!(shown, counters, "{budget}: {}", reply.0);
            }
            Err(_) => assert!(reply.message().contains("cost.budget"), "{budget}: {}", reply.message()),
        }
    }
}

/// A budget of nothing is spent from the start.
#[tokio::test]
async fn a_budget_of_zero_allows_nothing() {
    let host = host().await;
    let mut client = host.session().await;
    let (told, _) = run(&mut client, json!(["USD:0"]), vec![json!({ "do": "stat", "path": "/w" })]).await;
    assert_eq!(told[0]["err"]["code"], "budget-exhausted", "{told:?}");
}

/// ARCP §9.4: what the operator bounds is bounded, whether or not a request mentions it.
#[tokio::test]
async fn a_bound_of_the_principal_is_inherited() {
    let ceiling = json!({ "cost.budget": ["USD:10", "credits:1000"] });
    let host = TestHost::builder().policy("alice", ceiling).start().await;
    let mut client = host.session().await;
    for (lease, expected) in [
        (json!({}), json!({ "USD": 10.0, "credits": 1000.0 })),
        (json!({ "cost.budget": ["USD:1"] }), json!({ "USD": 1.0, "credits": 1000.0 })),
    ] {
        let reply = client.submit("echo").lease(lease.clone()).reply().await;
        for (currency, amount) in expected.as_object().expect("a row maps currencies") {
            assert_eq!(reply.payload()["budget"][currency].as_f64(), amount.as_f64(), "{lease}: {}", reply.0);
        }
    }
}

/// A currency is what it is called to the letter, so a cost in another one counts against nothing; its owner is told.
#[tokio::test]
async fn a_cost_that_no_budget_bounds_is_warned_of_once() {
    let host = host().await;
    let mut client = host.session().await;
    let (_, run) = run(&mut client, json!(["usd:1.00"]), vec![cost("5"), cost("5")]).await;
    let warnings: Vec<Value> = run
        .bodies("log")
        .into_iter()
        .filter(|body| body["level"] == "warn")
        .map(|body| body["message"].clone())
        .collect();
    assert_eq!(warnings, [json!("costs in USD are not bounded: the lease's cost.budget is in usd")]);
    assert_eq!(remaining(&run), [0.0_f64; 0]);
}

/// Were a cost refused that cannot be counted, a tiny one would shield the budget from all that follow.
#[tokio::test]
async fn a_tiny_cost_does_not_shield_the_budget() {
    let host = host().await;
    let mut client = host.session().await;
    let stat = json!({ "do": "stat", "path": "/w" });
    let steps = vec![cost("0.000000000000000000000000001"), cost("100"), stat];
    let (told, _) = run(&mut client, json!(["USD:0.05"]), steps).await;
    assert_eq!(told[2]["err"]["code"], "budget-exhausted", "{told:?}");
}
