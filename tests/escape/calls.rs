//! Agents with many calls under way, calls that are none, and answers that are too much.

use leasehold::config::Config;
use leasehold_tests::{
    Builder, ErrorCode, TestHost,
    host::ALICE,
    upstream::{Reply, Upstream},
};
use serde_json::{Value, json};

use super::{House, told};

fn with_tools(settings: &str, lease: &Value) -> Builder {
    let Config { tools, .. } = Config::parse(settings).expect("the settings are understood");
    TestHost::builder().policy(ALICE, lease.clone()).config(|config| config.tools = tools)
}

fn tool(name: &str, arguments: &Value) -> Value {
    json!({ "call": "tool", "name": name, "arguments": arguments })
}

/// ARCP §9.6: what is held is not free, so of 32 calls at once that cost a third of the budget, three begin.
#[tokio::test]
async fn of_32_calls_against_a_budget_for_three_exactly_three_begin() {
    const CALLS: usize = 32;
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let count = dir.path().join("count");
    let settings = format!(
        "[tools.paid]\nrun = [\"sh\", \"-c\", \"echo once >> {}; sleep 0.2; cat\"]\nconcurrent_max = 64\n\
         price = {{ per_call = \"USD:0.10\" }}",
        count.display()
    );
    let lease = json!({ "tool.call": ["paid"], "cost.budget": ["USD:0.30"] });
    let mut house = House::start(with_tools(&settings, &lease)).await;
    for round in 1..=5 {
        let race = json!({ "do": "calls", "start": vec![tool("paid", &json!({ "n": 1 })); CALLS] });
        let again = json!({ "do": "calls", "start": [tool("paid", &json!({ "n": 2 }))] });
        let steps = json!({ "do": "steps", "steps": [race, again, { "do": "job" }] });
        let run = house.leased(lease.clone(), steps).await;
        let outcomes = run.result().unwrap_or_else(|_| panic!("{run:?}"));
        let answers: Vec<&str> = outcomes[0]["ok"].as_array().expect("one a call").iter().map(told).collect();
        let begun = answers.iter().filter(|answer| **answer == "ok").count();
        let refused = answers.iter().filter(|answer| **answer == "budget-exhausted").count();
        assert_eq!((begun, refused), (3, CALLS - 3), "{answers:?}");
        assert_eq!(told(&outcomes[1]["ok"][0]), "budget-exhausted", "{outcomes}");
        let left = outcomes[2]["ok"]["budget"]["USD"].as_str().and_then(|left| left.parse::<f64>().ok());
        assert_eq!(left, Some(0.0), "{outcomes}");
        let effects = std::fs::read_to_string(&count).expect("the tool wrote").lines().count();
        assert_eq!(effects, round * 3, "what was refused never reached the tool");
    }
}

/// A handle that the host never gave is none, whatever is done with it.
#[tokio::test]
async fn a_forged_handle_traps_its_agent_and_nobody_else() {
    let mut house = House::start(TestHost::builder()).await;
    for handle in [0, 1, 2, 77, (1 << 28) - 1, 1 << 28, u32::MAX - 1] {
        for how in ["ask", "wait", "finish", "drop"] {
            let run = house.deed(json!({ "do": "forge_handle", "handle": handle, "how": how })).await;
            assert_eq!(run.result(), Err(ErrorCode::InternalError), "{handle} {how}: {run:?}");
        }
    }
}

/// What a tool says is bounded before anybody holds it.
#[tokio::test]
async fn an_answer_without_end_is_cut_off_and_costs_its_price() {
    let settings = "
        [tools.bomb]
        run = [\"sh\", \"-c\", \"yes\"]
        [tools.deep]
        run = [\"sh\", \"-c\", \"head -c 1000000 /dev/zero | tr '\\\\0' '['\"]
        [tools.silent]
        run = [\"sh\", \"-c\", \"exec sleep 600\"]
        timeout_sec = 1
        price = { per_call = \"USD:0.10\" }
    ";
    let lease = json!({ "tool.call": ["*"], "cost.budget": ["USD:1.00"] });
    let mut house = House::start(with_tools(settings, &lease)).await;
    let deed = json!({ "do": "calls", "start": [
        tool("bomb", &json!({})), tool("deep", &json!({})), tool("silent", &json!({})),
    ]});
    let run = house.leased(lease, json!({ "do": "steps", "steps": [deed, { "do": "job" }] })).await;
    let outcomes = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    let answers: Vec<&str> = outcomes[0]["ok"].as_array().expect("one a call").iter().map(told).collect();
    assert_eq!(answers[0], "too-large", "{outcomes}");
    assert_ne!(answers[1], "ok", "{outcomes}");
    assert_eq!(answers[2], "timeout", "{outcomes}");
}

/// No more calls are under way than an agent may have, and giving them up makes room.
#[tokio::test]
async fn a_flood_of_calls_ends_at_the_limit() {
    const MAX: usize = 8;
    let builder = TestHost::builder().policy(ALICE, json!({ "agent.delegate": ["*"] })).limits(|limits| {
        limits.calls_max = MAX;
    });
    let mut house = House::start(builder).await;
    let child = json!({ "call": "delegate", "agent": "sleeper", "input": { "sec": 600 }, "lease": {} });
    let flood = json!({ "do": "calls", "start": vec![child; 40], "then": "drop" });
    let steps = json!({ "do": "steps", "steps": [flood, flood, flood] });
    let run = house.leased(json!({ "agent.delegate": ["sleeper"] }), steps).await;
    let outcomes = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    for outcome in outcomes.as_array().expect("one a step") {
        let answers: Vec<&str> = outcome["ok"].as_array().expect("one a call").iter().map(told).collect();
        let begun = answers.iter().filter(|answer| **answer == "ok").count();
        assert_eq!((begun, answers.len()), (MAX, 40), "{answers:?}");
        assert!(answers.iter().all(|answer| matches!(*answer, "ok" | "too-large")), "{answers:?}");
    }
}

/// What an agent hands over for its calls is kept by the host, within a bound of its own and as memory of agents.
#[tokio::test]
async fn what_calls_under_way_keep_is_bounded_for_an_agent_and_for_all() {
    const KEPT: usize = 1 << 20;
    let builder = TestHost::builder().policy(ALICE, json!({ "agent.delegate": ["*"] })).limits(|limits| {
        limits.calls_bytes_max = KEPT;
    });
    let mut house = House::start(builder).await;
    let child = json!({
        "call": "delegate", "agent": "sleeper", "lease": {},
        "input": { "sec": 600, "padding": "x".repeat(300 << 10) },
    });
    let flood = json!({ "do": "calls", "start": vec![child.clone(); 8], "then": "drop" });
    let steps = json!({ "do": "steps", "steps": [flood, flood] });
    let run = house.leased(json!({ "agent.delegate": ["sleeper"] }), steps).await;
    let outcomes = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    for outcome in outcomes.as_array().expect("one a step") {
        let answers: Vec<&str> = outcome["ok"].as_array().expect("one a call").iter().map(told).collect();
        let begun = answers.iter().filter(|answer| **answer == "ok").count();
        assert_eq!(begun, 3, "giving them up makes room: {answers:?}");
        assert!(answers.iter().all(|answer| matches!(*answer, "ok" | "too-large")), "{answers:?}");
    }
}

/// A stream of a model whose parts nobody takes has its time as every call has, and does not keep a place for ever.
#[tokio::test]
async fn who_hoards_the_streams_of_a_model_has_them_no_longer_than_they_may_take() {
    let upstream = Upstream::start(|_| {
        let mut chunks = vec![r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#; 40];
        chunks.push("[DONE]");
        Reply::events(&chunks)
    })
    .await;
    let settings = format!(
        "[upstreams.main]\nurl = '{}/v1'\ntimeout_sec = 1\n[models.small]\nupstream = 'main'\nmax_output_tokens = 10\n",
        upstream.url()
    );
    let Config { upstreams, models, .. } = Config::parse(&settings).expect("the settings are understood");
    let lease = json!({ "model.use": ["small"] });
    let builder = TestHost::builder().policy(ALICE, lease.clone());
    let mut house =
        House::start(builder.config(|config| (config.upstreams, config.models) = (upstreams, models))).await;
    let call = json!({
        "call": "model", "model": "small", "request": { "messages": [{ "role": "user", "content": "hello" }] },
    });
    let deed = json!({ "do": "calls", "start": [call], "then": "hoard", "patience_ms": 1500 });
    let run = house.leased(lease, deed).await;
    let outcome = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!(told(&outcome["ok"][0]), "timeout", "{outcome}");
}
