//! ARCP §9.3, §9.6, §9.7: the web, the operator's tools and the operator's models, under a lease and at a price.

use std::collections::BTreeMap;

use leasehold::config::Config;
use leasehold_tests::{
    Builder, MountMode, RawClient, Run, TestHost,
    host::ALICE,
    upstream::{End, Reply, Upstream},
};
use serde_json::{Value, json};

/// A command that answers after a moment, at a price; one that costs by what it says; one that fails.
const TOOLS: &str = r#"
    [tools.slow]
    run = ["sh", "-c", "cat; sleep 0.3"]
    concurrent_max = 64
    price = { per_call = "USD:0.10" }
    [tools.metered]
    run = ["sh", "-c", "cat > /dev/null; echo '{\"pages\": 3}'"]
    input_schema = { type = "object", properties = { n = { type = "integer" } }, required = ["n"] }
    price = { per_unit = { amount = "USD:0.05", of = "/pages", max = 10 } }
    [tools.broken]
    run = ["sh", "-c", "echo 'out of order' >&2; exit 1"]
    [tools.hidden]
    run = ["cat"]
"#;

fn with_services(web: &Upstream, models: &Upstream) -> Builder {
    let settings = format!(
        "{TOOLS}
        [net]
        allow = [\"127.0.0.0/8\"]
        [net.inject.\"{}/private/**\"]
        headers = {{ x-operator = \"the-operators-own\" }}
        [upstreams.main]
        url = \"{}/v1\"
        key = \"sk-of-the-operator\"
        [models.\"tier-fast/small\"]
        upstream = \"main\"
        model = \"gpt-small\"
        aliases = [\"fast\"]
        input_per_mtok = \"USD:100\"
        output_per_mtok = \"USD:1000\"
        max_output_tokens = 100
        [models.\"tier-slow/large\"]
        upstream = \"main\"
        ",
        web.url(),
        models.url(),
    );
    let Config { net, tools, upstreams, models, .. } = Config::parse(&settings).expect("the settings are understood");
    let ceiling = json!({
        "net.fetch": ["http://127.0.0.1:*/**"], "tool.call": ["*"], "model.use": ["**"], "fs.read": ["/w/**"],
    });
    let builder = TestHost::builder().mount("/w", MountMode::Ro).policy(ALICE, ceiling);
    builder.config(|config| {
        config.net = net;
        config.tools = tools;
        config.upstreams = upstreams;
        config.models = models;
    })
}

/// A web of a few pages.
async fn web() -> Upstream {
    Upstream::start(|asked| match asked.line.split_once(' ').map_or("", |(_, path)| path) {
        "/public/page" => Reply::text(200, "hello").with("x-kind", "page"),
        "/public/moved" => Reply::text(302, "").with("location", "/public/page"),
        "/public/away" => Reply::text(302, "").with("location", "/private/page"),
        "/public/echo" => Reply::json(200, &asked.body),
        "/private/page" => Reply::text(200, asked.header("x-operator").unwrap_or("nobody")),
        "/public/stream" => Reply::events(&["one", "two"]),
        "/public/never" => Reply::text(200, "begins").ending(End::Never),
        _ => Reply::text(404, "there is no such page"),
    })
    .await
}

async fn calls(client: &mut RawClient, lease: Value, then: &str, start: Vec<Value>) -> (Value, Run) {
    let deed = json!({ "do": "calls", "then": then, "start": start });
    let steps = json!({ "do": "steps", "steps": [deed, { "do": "offers" }, { "do": "job" }] });
    let run = client.submit("hostile").lease(lease).input(steps).run().await;
    (run.result().unwrap_or_else(|error| panic!("a refusal is a value: {error:?} {run:?}")), run)
}

fn fetch(url: String) -> Value {
    json!({ "call": "fetch", "url": url })
}

fn tool(name: &str, arguments: Value) -> Value {
    json!({ "call": "tool", "name": name, "arguments": arguments })
}

fn question(model: &str) -> Value {
    json!({ "call": "model", "model": model, "request": {
        "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 20,
    }})
}

/// What is left of the budget at the end, in millionths of a dollar.
fn left(told: &Value) -> i64 {
    let left = told[2]["ok"]["budget"]["USD"].as_str().expect("a budget").parse::<f64>().expect("a number");
    #[expect(clippy::cast_possible_truncation, reason = "a test's small sums")]
    let millionths = (left * 1e6).round() as i64;
    millionths
}

#[tokio::test]
async fn a_fetch_goes_where_its_lease_says_and_so_does_each_redirect() {
    let (web, models) = (web().await, Upstream::openai().await);
    let host = with_services(&web, &models).start().await;
    let mut client = host.session().await;
    let url = web.url();
    let page = |path: &str| fetch(format!("{url}{path}"));
    let follows = |path: &str| {
        let mut call = page(path);
        call["redirects"] = json!(5);
        call
    };
    let mut posts = page("/public/echo");
    posts["method"] = json!("POST");
    posts["body"] = json!("{\"a\":1}");
    let mut forges = page("/public/page");
    forges["headers"] = json!([["host", "evil.test"]]);
    let table: Vec<(Value, &str)> = vec![
        (page("/public/page"), "200 hello"),
        (page("/public/none"), "404 there is no such page"),
        (page("/public/moved"), "302 "),
        (follows("/public/moved"), "200 hello"),
        (follows("/public/away"), "permission-denied"),
        (page("/private/page"), "permission-denied"),
        (page("/public/../private/page"), "permission-denied"),
        (posts, "200 {\"a\":1}"),
        (forges, "invalid-request"),
        (fetch("http://127.0.0.1:1/public/page".into()), "permission-denied"),
        (fetch("https://example.com/".into()), "permission-denied"),
        (fetch("not a url".into()), "invalid-request"),
        (fetch("file:///etc/passwd".into()), "invalid-request"),
    ];
    let lease = json!({ "net.fetch": [format!("{url}/public/**")] });
    let start = table.iter().map(|(call, _)| call.clone()).collect();
    let (told, run) = calls(&mut client, lease, "all", start).await;
    for (n, (call, expected)) in table.iter().enumerate() {
        let outcome = &told[0]["ok"][n];
        let got = match outcome.get("ok") {
            Some(response) => {
                format!("{} {}", response["status"], response["body"].as_str().unwrap_or_default())
            }
            None => outcome["err"]["code"].as_str().unwrap_or_default().to_owned(),
        };
        // A scheme that nobody fetches is refused either way.
        assert!(
            got == *expected || (call["url"] == "file:///etc/passwd" && got == "permission-denied"),
            "{call}: {got}"
        );
    }
    let results = run.bodies("tool_result");
    let redirected = results.iter().find(|body| body["result"]["redirects"].is_array());
    assert!(redirected.is_some(), "what was followed is told: {results:?}");

    // What the operator adds, the agent never sees: not in the request, and not in an answer that repeats it.
    let lease = json!({ "net.fetch": [format!("{url}/private/**")] });
    let (told, run) = calls(&mut client, lease, "all", vec![page("/private/page")]).await;
    let body = told[0]["ok"][0]["ok"]["body"].as_str().expect("a body");
    assert!(!body.is_empty() && body != "nobody" && !body.contains("operators"), "{body}");
    assert!(!format!("{run:?}").contains("the-operators-own"));
    assert!(web.asked().iter().any(|asked| asked.header("x-operator") == Some("the-operators-own")));
    assert!(web.asked().iter().any(|asked| asked.header("traceparent").is_some()), "ARCP §11");

    let (told, _) =
        calls(&mut client, json!({ "net.fetch": [format!("{url}/**")] }), "stream", vec![page("/public/stream")]).await;
    let stream = &told[0]["ok"][0]["ok"];
    let body: String = stream["parts"].as_array().expect("parts").iter().filter_map(Value::as_str).collect();
    assert!(body.contains("data: one") && body.contains("data: two"), "{told}");
    // Stopped by its own patience, and given up without harm.
    let mut never = page("/public/never");
    never["timeout_ms"] = json!(100);
    let lease = json!({ "net.fetch": [format!("{url}/**")] });
    let (told, _) = calls(&mut client, lease.clone(), "all", vec![never]).await;
    assert_eq!(told[0]["ok"][0]["err"]["code"], "timeout", "{told}");
    let (told, _) = calls(&mut client, lease, "drop", vec![page("/public/never")]).await;
    assert!(told[0]["ok"][0].get("ok").is_some(), "{told}");
}

#[tokio::test]
async fn a_tool_is_shown_checked_and_paid_for_before_it_is_called() {
    let (web, models) = (web().await, Upstream::openai().await);
    let host = with_services(&web, &models).start().await;
    let mut client = host.session().await;
    let lease = json!({ "tool.call": ["slow", "metered", "broken", "nothing"], "cost.budget": ["USD:1.00"] });
    let start = vec![
        tool("metered", json!({ "n": 1 })),
        tool("metered", json!({ "n": "1" })),
        tool("metered", json!({})),
        tool("hidden", json!({})),
        tool("nothing", json!({})),
        tool("broken", json!({})),
        tool("", json!({})),
    ];
    let (told, run) = calls(&mut client, lease.clone(), "all", start).await;
    let outcomes = &told[0]["ok"];
    assert_eq!(outcomes[0]["ok"], json!({ "pages": 3 }), "{told}");
    let codes: Vec<_> = (1..7).map(|n| outcomes[n]["err"]["code"].as_str().unwrap_or("ok")).collect();
    let expected =
        ["invalid-request", "invalid-request", "permission-denied", "not-found", "internal-error", "invalid-request"];
    assert_eq!(codes, expected);
    assert!(outcomes[1]["err"]["message"].as_str().is_some_and(|why| why.contains("/n")), "{told}");
    assert!(outcomes[5]["err"]["message"].as_str().is_some_and(|why| why.contains("out of order")), "{told}");
    assert_eq!(told[1]["ok"]["tools"], json!(["broken", "metered", "slow"]));
    assert_eq!(left(&told), 850_000, "three pages at five cents, though fifty were held back");
    // ARCP §8.2: a watcher sees the tool by its name, and what it cost.
    let call = run.bodies("tool_call").into_iter().find(|body| body["tool"] == "metered").expect("a call");
    assert_eq!(call["args"], json!({ "n": 1 }));
    let cost = run.bodies("metric").into_iter().find(|body| body["name"] == "cost.tool.call").expect("a cost");
    assert_eq!((&cost["value"], &cost["dimensions"]["call_id"]), (&json!(0.15), &call["call_id"]));

    // Thirty-two at once against money for ten: no more begin than can be paid, whatever they come to.
    let (told, run) = calls(&mut client, lease, "all", vec![tool("slow", json!({})); 32]).await;
    let outcomes = told[0]["ok"].as_array().expect("outcomes");
    let ran = outcomes.iter().filter(|outcome| outcome.get("ok").is_some()).count();
    assert_eq!((ran, left(&told)), (10, 0), "{told}");
    let refused = outcomes.iter().filter(|outcome| outcome["err"]["code"] == "budget-exhausted").count();
    assert_eq!(refused, 22, "{told}");
    assert_eq!(run.final_status(), "success");
}

/// ARCP §9.7: "The runtime MUST reject any agent attempt to invoke a model whose identifier does not match".
#[tokio::test]
async fn a_model_is_asked_under_its_name_and_what_it_used_is_counted() {
    let (web, models) = (web().await, Upstream::openai().await);
    let host = with_services(&web, &models).start().await;
    let mut client = host.session().await;
    let lease = json!({ "model.use": ["tier-fast/*"], "cost.budget": ["USD:1.00"] });
    let start = vec![
        question("tier-fast/small"),
        question("fast"),
        question("tier-slow/large"),
        question("tier-fast/unknown"),
        question("gpt-small"),
    ];
    let (told, run) = calls(&mut client, lease.clone(), "all", start).await;
    let outcomes = &told[0]["ok"];
    assert!(outcomes[0]["ok"]["choices"][0]["message"]["content"].is_string(), "{told}");
    assert!(outcomes[1]["ok"]["choices"][0]["message"]["content"].is_string(), "{told}");
    let codes: Vec<_> = (2..5).map(|n| outcomes[n]["err"]["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(codes, ["permission-denied", "not-found", "permission-denied"]);
    assert_eq!(told[1]["ok"]["models"], json!(["tier-fast/small"]));
    let used: i64 = (0..2)
        .map(|n| {
            let usage = &outcomes[n]["ok"]["usage"];
            usage["prompt_tokens"].as_i64().expect("tokens") * 100
                + usage["completion_tokens"].as_i64().expect("tokens") * 1000
        })
        .sum();
    assert!(used > 0 && left(&told) == 1_000_000 - used, "{told}");
    let refused = run.bodies("tool_result").into_iter().find(|body| body.get("error").is_some()).expect("a refusal");
    assert_eq!(refused["error"]["code"], "PERMISSION_DENIED");
    assert!(!format!("{run:?}").contains("sk-of-the-operator"));
    assert_eq!(models.asked()[0].header("authorization"), Some("Bearer sk-of-the-operator"));

    // A stream gives the same in parts, and then as a whole.
    let (told, _) = calls(&mut client, lease, "stream", vec![question("tier-fast/small")]).await;
    let stream = &told[0]["ok"][0]["ok"];
    let parts = stream["parts"].as_array().expect("parts");
    let words: String = parts.iter().filter_map(|part| part["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(stream["end"]["ok"]["choices"][0]["message"]["content"], words.as_str(), "{told}");
    assert!(!words.is_empty() && stream["end"]["ok"]["usage"]["total_tokens"].is_u64(), "{told}");

    // ARCP §9.7: a lease that names no model grants none; and one that could not pay for an answer gets none.
    let (told, _) = calls(&mut client, json!({}), "all", vec![question("tier-fast/small")]).await;
    assert_eq!(told[0]["ok"][0]["err"]["code"], "permission-denied");
    let poor = json!({ "model.use": ["tier-fast/*"], "cost.budget": ["USD:0.01"] });
    let (told, _) = calls(&mut client, poor, "all", vec![question("tier-fast/small")]).await;
    assert_eq!(told[0]["ok"][0]["err"]["code"], "budget-exhausted", "{told}");
}

/// ARCP §9.6: what the host has charged for, an agent may report and does not pay for again.
#[tokio::test]
async fn a_cost_that_the_host_has_charged_is_not_counted_twice() {
    let (web, models) = (web().await, Upstream::openai().await);
    let host = with_services(&web, &models).start().await;
    let mut client = host.session().await;
    let report = |call: &str| json!({ "do": "metric", "name": "cost.search", "value": "0.10", "unit": "USD", "dimensions": { "call_id": call } });
    let steps = vec![
        json!({ "do": "calls", "start": [tool("slow", json!({}))] }),
        report("call_000001"),
        json!({ "do": "job" }),
        report("call_000002"),
        json!({ "do": "job" }),
    ];
    let lease = json!({ "tool.call": ["slow"], "cost.budget": ["USD:1.00"] });
    let run = client.submit("hostile").lease(lease).input(json!({ "do": "steps", "steps": steps })).run().await;
    let told = run.result().expect("a result");
    let budget = |n: usize| told[n]["ok"]["budget"]["USD"].as_str().map(|left| left.trim_end_matches('0').to_owned());
    assert_eq!((budget(2), budget(4)), (Some("0.9".into()), Some("0.8".into())), "{told}");
}

/// ARCP §9.6: naming a call that the host has charged hides no cost, and what was charged for it covers a report once.
#[tokio::test]
async fn what_is_reported_of_a_call_beyond_what_was_charged_is_counted() {
    let (web, models) = (web().await, Upstream::openai().await);
    let host = with_services(&web, &models).start().await;
    let mut client = host.session().await;
    let report = |value: &str, unit: &str| json!({ "do": "metric", "name": "cost.search", "value": value, "unit": unit, "dimensions": { "call_id": "call_000001" } });
    let mut steps = vec![json!({ "do": "calls", "start": [tool("slow", json!({}))] })];
    let table = [
        ("0.04", "USD", ("0.9", "1")),
        ("0.06", "USD", ("0.9", "1")),
        ("0.10", "USD", ("0.8", "1")),        // all that was charged had been reported
        ("0.25", "credits", ("0.8", "0.75")), // a currency of which nothing was charged
        ("50", "USD", ("-49.2", "0.75")),
    ];
    for (value, unit, _) in &table {
        steps.extend([report(value, unit), json!({ "do": "job" })]);
    }
    steps.push(json!({ "do": "calls", "start": [tool("slow", json!({}))] }));
    let lease = json!({ "tool.call": ["slow"], "cost.budget": ["USD:1.00", "credits:1"] });
    let run = client.submit("hostile").lease(lease).input(json!({ "do": "steps", "steps": steps })).run().await;
    let told = run.result().expect("a result");
    for (n, (value, unit, left)) in table.iter().enumerate() {
        let budget = &told[2 * n + 2]["ok"]["budget"];
        let is = ["USD", "credits"].map(|unit| budget[unit].as_str().unwrap_or_default().parse::<f64>().ok());
        assert_eq!(is, [left.0, left.1].map(|left| left.parse().ok()), "after {value} {unit}: {told}");
    }
    assert_eq!(told[11]["ok"][0]["err"]["code"], "budget-exhausted", "{told}");
}

/// A hundred calls of one agent take about as long as one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_are_under_way_at_once() {
    let (web, models) = (web().await, Upstream::openai().await);
    let host = with_services(&web, &models).start().await;
    let mut client = host.session().await;
    let url = web.url();
    let lease = json!({ "net.fetch": [format!("{url}/**")] });
    // None of them ends before it is given up, so all of them are under way until then.
    let start = vec![fetch(format!("{url}/public/never")); 100];
    let (told, _) = calls(&mut client, lease.clone(), "drop", start).await;
    let started = told[0]["ok"].as_array().expect("outcomes").iter().filter(|call| call.get("ok").is_some()).count();
    assert_eq!(started, 100, "{told}");
    let (told, _) = calls(&mut client, lease, "any", vec![fetch(format!("{url}/public/page")); 150]).await;
    let outcomes = told[0]["ok"]["outcomes"].as_array().expect("outcomes");
    let codes = outcomes.iter().fold(BTreeMap::<&str, usize>::new(), |mut codes, outcome| {
        let code = outcome["err"]["code"].as_str().unwrap_or("ok");
        *codes.entry(code).or_default() += 1;
        codes
    });
    // One more than may be under way at once is refused, and the host goes on.
    assert_eq!(codes, BTreeMap::from([("ok", 128), ("too-large", 22)]), "{told}");
}

/// ARCP §11: whoever serves a call learns of which trace it is, and a child is of the trace of its parent.
#[tokio::test]
async fn the_trace_of_a_job_goes_on_to_what_it_asks_and_to_its_children() {
    let (web, models) = (web().await, Upstream::openai().await);
    let lease = json!({
        "net.fetch": ["http://127.0.0.1:*/**"], "model.use": ["tier-fast/*"], "agent.delegate": ["echo"],
        "tool.call": ["*"], "cost.budget": ["USD:1.00"],
    });
    let host = with_services(&web, &models).policy(ALICE, lease.clone()).start().await;
    let mut client = host.session().await;
    let child = json!({ "call": "delegate", "agent": "echo", "input": 1, "lease": {} });
    let start = vec![fetch(format!("{}/public/page", web.url())), question("fast"), child];
    let (told, run) = calls(&mut client, lease, "all", start).await;
    assert!(told[0]["ok"].as_array().expect("one a call").iter().all(|call| call.get("ok").is_some()), "{told}");
    let trace = run.accepted["trace_id"].as_str().expect("a job has a trace");
    for asked in [&web.asked()[0], &models.asked()[0]] {
        let sent = asked.header("traceparent").expect("it is told");
        assert_eq!(sent.split('-').nth(1), Some(trace), "{sent}");
    }
    let jobs = client.request("session.list_jobs", json!({})).await.payload()["jobs"].clone();
    let child = jobs.as_array().expect("jobs").iter().find(|job| job["agent"] == "echo@1.0.0").expect("it is listed");
    assert_eq!(child["trace_id"], trace, "{child}");
}
