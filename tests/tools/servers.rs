//! MCP servers that the host starts, over their pipes.

use serde_json::json;

use crate::*;

/// The suite's server, connected.
async fn connected(more: &str) -> Option<Tools> {
    let tools = tools(&suite(python().await?, more));
    within("the server", tools.settled()).await;
    Some(tools)
}

#[tokio::test]
async fn its_tools_are_listed_under_its_name_and_as_the_operator_says() {
    let Some(tools) = connected(
        "only = ['suite.w*', 'suite.text', 'suite.odd*', 'suite.outside']\nrepeatable = ['suite.weather']\n\
         price = { per_call = 'USD:0.01' }\nprices.'suite.text' = { per_call = 'USD:0.02' }\n",
    )
    .await
    else {
        return;
    };
    // What no lease can name is left out.
    assert_eq!(names(&tools), ["suite.outside", "suite.text", "suite.wait", "suite.weather"]);
    let tool = named(&tools, "suite.weather");
    assert_eq!(tool.description, "The weather of a city.");
    assert!(tool.repeatable && !named(&tools, "suite.text").repeatable);
    assert!(tool.input_schema.as_str().contains("\"city\"") && tool.output_schema.is_some());
    assert_eq!(tool.price.per_call.unwrap().to_string(), "USD:0.01");
    assert_eq!(named(&tools, "suite.text").price.per_call.unwrap().to_string(), "USD:0.02");
    for name in ["suite.large", "suite.none", "suite", "other.text", "suite.odd\u{a0}name"] {
        assert_eq!(failure(&tools, name, json!({})).await, ToolError::NotFound(name.to_owned()));
    }
    let outside = failure(&tools, "suite.outside", json!({ "words": "x" })).await;
    assert!(matches!(&outside, ToolError::Unusable { reason, .. } if reason.contains("only `#/…`")), "{outside}");
    within("the end", tools.stop()).await;
    assert!(matches!(failure(&tools, "suite.text", json!({ "words": "x" })).await, ToolError::NotConnected { .. }));
}

#[tokio::test]
async fn an_agent_gets_the_structure_or_the_text_or_the_blocks() {
    let Some(tools) = connected("env = { SUITE_KEY = 'tk-secret' }").await else { return };
    let weather = json!({ "city": "Ulm", "degrees": 21.5, "usage": { "pages": 2 } });
    assert_eq!(call(&tools, "suite.weather", json!({ "city": "Ulm", "days": 2 })).await, weather);
    assert_eq!(call(&tools, "suite.text", json!({ "words": "ä\nb" })).await, json!("ä\nb"));
    // A text stays a text.
    assert_eq!(call(&tools, "suite.text", json!({ "words": "{\"a\": 1}" })).await, json!("{\"a\": 1}"));
    let blocks = call(&tools, "suite.image", json!({})).await;
    assert_eq!((&blocks[0]["text"], &blocks[1]["mimeType"]), (&json!("see"), &json!("image/png")), "{blocks}");

    let failed = failure(&tools, "suite.fail", json!({ "words": "no such city " })).await;
    assert!(matches!(&failed, ToolError::Failed(words) if words.contains("no such city …")), "{failed}");
    let bad = failure(&tools, "suite.weather", json!({ "city": "Ulm", "days": "two" })).await;
    let ToolError::InvalidArguments { pointer, reason, .. } = bad else { panic!("{bad}") };
    assert!(pointer == "/days" && reason.contains("integer"), "{pointer}: {reason}");
    assert!(matches!(failure(&tools, "suite.text", json!([])).await, ToolError::InvalidArguments { .. }));
    assert_eq!(call(&tools, "suite.noise", json!({})).await, json!("that was loud"));
    assert_eq!(call(&tools, "suite.text", json!({ "words": "still here" })).await, json!("still here"));
}

/// A server writes what an agent reads of its tools.
#[tokio::test]
async fn a_secret_of_a_server_is_in_no_description_and_no_schema() {
    let Some(tools) = connected("env = { SUITE_KEY = 'tk-secret' }").await else { return };
    let tool = named(&tools, "suite.telling");
    assert_eq!(tool.description, "It has the key ….");
    let schema: Value = serde_json::from_str(tool.input_schema.as_str()).unwrap();
    assert_eq!(schema["properties"]["words"]["description"], "not …", "{schema}");
    assert_eq!(call(&tools, "suite.telling", json!({ "words": "x" })).await, json!("x …"));
    assert!(tools.list().iter().all(|tool| !format!("{tool:?}").contains("tk-secret")));
}

/// ARCP §11: the trace goes with the call; nothing else of the host does.
#[tokio::test]
async fn a_call_carries_its_trace_and_the_server_sees_its_own_environment() {
    let Some(tools) = connected("env = { SUITE_KEY = 'tk-secret' }").await else { return };
    let told = call(&tools, "suite.told", json!({})).await;
    assert_eq!(told["meta"], json!({ "traceparent": a_call().traceparent, "leasehold/call": "call_7" }));
    let seen: Vec<&str> = told["environment"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    // Python adds one of its own where no locale is set.
    let allowed = ["HOME", "LANG", "LC_CTYPE", "PATH", "SUITE_KEY", "TMPDIR"];
    assert!(seen.iter().all(|name| allowed.contains(name)) && seen.contains(&"SUITE_KEY"), "{seen:?}");
}

#[tokio::test]
async fn an_answer_is_bounded_and_the_other_calls_go_on() {
    let Some(tools) = connected("answer_bytes_max = 100_000\nprice = { per_call = 'USD:1' }").await else { return };
    assert_eq!(call(&tools, "suite.large", json!({ "size": 99_000 })).await.as_str().unwrap().len(), 99_000);
    for size in [100_000, 1_000_000, 30_000_000] {
        let outcome = try_call(&tools, "suite.large", json!({ "size": size })).await.unwrap_err();
        assert_eq!(outcome.error, ToolError::TooLarge { what: "answer", max: 100_000 }, "{size}");
        assert_eq!(outcome.cost.len(), 1, "{size}");
    }
    assert_eq!(call(&tools, "suite.text", json!({ "words": "still here" })).await, json!("still here"));
}

#[tokio::test]
async fn a_slow_call_is_given_up_and_the_server_is_told() {
    let Some(tools) = connected("timeout_sec = 3").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let mark = |name: &str| dir.path().join(name);
    let late = failure(&tools, "suite.wait", json!({ "mark": mark("late") })).await;
    assert!(matches!(late, ToolError::Timeout { seconds: 3, .. }), "{late}");
    file_holds(&mark("late"), "cancelled").await;

    let order = a_call();
    let arguments = Json::of(&json!({ "mark": mark("cancelled") }));
    let (outcome, ()) = within("the call", async {
        tokio::join!(tools.call(permit("suite.wait"), &arguments, &order), async {
            file_holds(&mark("cancelled"), "waits").await;
            order.cancelled.cancel();
        })
    })
    .await;
    assert_eq!(outcome.unwrap_err().error, ToolError::Cancelled);
    file_holds(&mark("cancelled"), "cancelled").await;

    let dropped = mark("dropped");
    tokio::select! {
        outcome = try_call(&tools, "suite.wait", json!({ "mark": dropped })) => panic!("{outcome:?}"),
        () = file_holds(&dropped, "waits") => {}
    }
    file_holds(&dropped, "cancelled").await;
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_no_call_is_made_twice() {
    let Some(python) = python().await else { return };
    let (clock, hands) = Clock::manual(Timestamp::from_millis(0));
    let tools = tools_at(&suite(python, "price = { per_call = 'USD:1' }"), clock);
    within("the server", tools.settled()).await;
    let words = Json::of(&json!({ "words": "x" }));
    for wait in [1, 2, 4] {
        let lost = try_call(&tools, "suite.die", json!({})).await.unwrap_err();
        assert!(matches!(lost.error, ToolError::Lost { .. }) && lost.cost.len() == 1, "{lost}");
        until("the host to see it", async || {
            matches!(
                failure(&tools, "suite.text", json!({ "words": "x" })).await,
                ToolError::NotConnected { again: Some(_), .. }
            )
        })
        .await;
        // Its tools are still known, and a call that is not made costs nothing.
        assert!(tools.check(&operation("suite.text"), &words).is_ok());
        assert!(try_call(&tools, "suite.text", json!({ "words": "x" })).await.unwrap_err().cost.is_empty());
        hands.advance(Duration::from_millis(wait * 1000 - 1));
        let away = failure(&tools, "suite.text", json!({ "words": "x" })).await;
        assert!(away.to_string().contains("its process has ended (exit status: 3)"), "{away}");
        hands.advance(Duration::from_millis(1));
        until("the server to be back", async || try_call(&tools, "suite.text", json!({ "words": "x" })).await.is_ok())
            .await;
    }
}

#[tokio::test]
async fn a_list_that_changes_is_asked_for_again() {
    let Some(tools) = connected("").await else { return };
    assert_eq!(failure(&tools, "suite.grown", json!({})).await, ToolError::NotFound("suite.grown".into()));
    assert_eq!(call(&tools, "suite.grow", json!({})).await, json!("grown"));
    until("the new tool", async || names(&tools).contains(&"suite.grown".to_owned())).await;
    assert_eq!(call(&tools, "suite.grown", json!({ "words": "x" })).await, json!("x"));
}

/// Each row is a program that is no server, and what is said of it.
#[tokio::test]
async fn what_is_no_server_is_away_and_holds_nobody_up() {
    let (clock, hands) = Clock::manual(Timestamp::from_millis(0));
    let table = [
        ("exit 3", "its process has ended (exit status: 3)"),
        ("cat > /dev/null", "it did not answer in 1 s"),
        ("exec <&-; sleep 3600", ""),
        ("while echo garbage; do :; done", "it did not answer in 1 s"),
        ("head -c 10000000 /dev/zero; sleep 3600", "it did not answer in 1 s"),
        ("exec >&-; sleep 3600", "the connection was closed before it was open"),
        (
            "read x; echo '{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{\"code\":-1,\"message\":\"go away, tk-secret\"}}'; sleep 3600",
            "go away, …",
        ),
    ];
    for (script, said) in table {
        let settings = format!(
            "[x]\ncommand = ['sh', '-c', '''{script}''']\nconnect_timeout_sec = 1\nenv = {{ KEY = 'tk-secret' }}\n"
        );
        let tools = tools_at(&settings, clock.clone());
        within(script, tools.settled()).await;
        let away = failure(&tools, "x.any", json!({})).await;
        assert!(matches!(away, ToolError::NotConnected { .. }) && away.to_string().contains(said), "{script}: {away}");
        within(script, tools.stop()).await;
    }
    drop(hands);
    let tools = tools("[x]\ncommand = ['/no/such/program']");
    within("the attempt", tools.settled()).await;
    assert!(failure(&tools, "x.any", json!({})).await.to_string().contains("was not started"));
}

#[tokio::test]
async fn a_server_ends_with_everything_it_started() {
    let Some(tools) = connected("").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pid");
    assert_eq!(call(&tools, "suite.leave", json!({ "mark": mark })).await, json!("left"));
    let pid = std::fs::read_to_string(&mark).unwrap();
    assert!(Path::new("/proc").join(&pid).exists());
    within("the end", tools.stop()).await;
    process_gone(&pid).await;
}

/// An agent that waits for a hundred answers waits about as long as for one.
#[tokio::test]
async fn a_hundred_calls_are_under_way_at_once() {
    let Some(tools) = connected("concurrent_max = 100").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls");
    let calls = (0..100).map(|_| call(&tools, "suite.together", json!({ "path": path, "count": 100 })));
    // Each of them answers only when all of them are there.
    assert!(within("the calls", futures_util::future::join_all(calls)).await.iter().all(|answer| answer == "all here"));
}

#[tokio::test]
async fn a_server_that_others_wrote_is_served() {
    let Some(python) = python().await else { return };
    let tools = tools(&format!("[time]\ncommand = ['{}', '-m', 'mcp_server_time']\n", python.display()));
    within("the server", tools.settled()).await;
    assert_eq!(names(&tools), ["time.convert_time", "time.get_current_time"]);
    let now = call(&tools, "time.get_current_time", json!({ "timezone": "Europe/Berlin" })).await;
    assert!(now.to_string().contains("Europe/Berlin"), "{now}");
    assert!(matches!(
        failure(&tools, "time.get_current_time", json!({ "timezone": "Nowhere/None" })).await,
        ToolError::Failed(_)
    ));
    assert!(matches!(failure(&tools, "time.get_current_time", json!({})).await, ToolError::InvalidArguments { .. }));
}
