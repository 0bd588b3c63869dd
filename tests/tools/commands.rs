//! Commands of the host as tools.

use leasehold::capability::tools::ToolError;
use serde_json::{Value, json};

use crate::*;

/// A tool `x` that is a script of the shell; `more` are further settings.
fn script(script: &str, more: &str) -> Tools {
    tools(&format!("[x]\nrun = ['sh', '-c', '''{script}''']\n{more}\n"))
}

fn lost_most(failure: &Failure) -> bool {
    failure.cost.values().map(ToString::to_string).eq(["0.5"])
}

#[tokio::test]
async fn it_gets_its_arguments_as_json_and_answers_in_json() {
    let tools = tools(
        "[resize]\nrun = ['sh', '-c', 'cat']\ndescription = 'Makes an image smaller.'\nrepeatable = ['resize']\n\
         input_schema = { type = 'object', properties = { width = { type = 'integer' } }, required = ['width'] }\n\
         price = { per_call = 'USD:0.01', per_unit = { amount = 'USD:0.1', of = '/width', max = 4 } }\n",
    );
    let tool = named(&tools, "resize");
    assert_eq!((tool.description.as_str(), tool.repeatable), ("Makes an image smaller.", true));
    let answer = try_call(&tools, "resize", json!({ "width": 3, "name": "ä\n" })).await.unwrap();
    assert_eq!(answer.content.as_str(), r#"{"name":"ä\n","width":3}"#);
    assert_eq!(answer.cost.iter().map(|(c, v)| format!("{c}:{}", v.normalize())).collect::<Vec<_>>(), ["USD:0.31"]);

    let checked = tools.check(&operation("resize"), &Json::of(&json!({ "width": 1 }))).unwrap();
    assert_eq!(checked.most().values().map(|value| value.normalize().to_string()).collect::<Vec<_>>(), ["0.41"]);
    let refused = failure(&tools, "resize", json!({ "width": "3" })).await;
    assert!(matches!(&refused, ToolError::InvalidArguments { pointer, .. } if pointer == "/width"), "{refused}");
    let unknown = failure(&tools, "resize.more", json!({})).await;
    assert_eq!(unknown, ToolError::NotFound("resize.more".into()));
    // Of two members with one name, the command gets the one that was checked.
    let twice = Json::parse(r#"{"width":"evil","width":2}"#.to_owned()).unwrap();
    let answer = tools.call(permit("resize"), &twice, &a_call()).await.unwrap();
    assert_eq!(answer.content.as_str(), r#"{"width":2}"#);
}

/// Each row is a script, and what becomes of its call.
#[tokio::test]
async fn a_command_fails_in_its_own_words() {
    let more = "env = { KEY = 'tk-secret' }\nanswer_bytes_max = 1000\noutput_schema = { type = 'object' }\n\
                price = { per_call = 'USD:0.5' }";
    let table = [
        ("echo '{}'", None),
        ("echo '{}'; echo careful >&2", None),
        ("cat > /dev/null; echo '  {\"a\": 1}  '", None),
        ("echo 'no such image' >&2; echo more >&2; exit 2", Some("the tool failed: no such image")),
        ("echo \"bad key $KEY\" >&2; exit 1", Some("the tool failed: bad key …")),
        ("exit 7", Some("the tool failed: it said nothing (exit status: 7)")),
        ("kill -9 $$", Some("the tool failed: it said nothing (signal: 9 (SIGKILL))")),
        ("echo '{}'; exit 1", Some("the tool failed: it said nothing (exit status: 1)")),
        ("echo '[]'", Some("its answer does not fit its output schema")),
        ("echo hello", Some("its answer is no JSON")),
        ("echo '{} {}'", Some("its answer is no JSON")),
        ("", Some("its answer is no JSON")),
        ("printf '\\xff'", Some("its answer is no JSON")),
        ("yes '[' | head -c 900", Some("its answer is no JSON")), // nested too deeply
        (
            "for c in '[' ']'; do head -c 121 /dev/zero | tr '\\0' $c; done", // too deep for who watches
            Some("its answer: JSON nested deeper than 120 levels"),
        ),
        ("yes x", Some("the answer has more than 1000 bytes")), // never ends
        ("head -c 100000 /dev/zero >&2; exit 1", Some("the tool failed: ")),
    ];
    for (text, expected) in table {
        let outcome = try_call(&script(text, more), "x", json!({})).await;
        match (outcome, expected) {
            (Ok(answer), None) => assert_eq!(answer.cost.len(), 1, "{text}"),
            (Err(failure), Some(said)) => {
                assert!(failure.error.to_string().contains(said), "{text}: {failure}");
                assert!(failure.to_string().len() < 5_000 && lost_most(&failure), "{text}: {failure}");
            }
            (outcome, _) => panic!("{text}: {outcome:?}"),
        }
    }
    let missing = tools("[x]\nrun = ['/no/such/program']\nprice = { per_call = 'USD:0.5' }");
    let missing = try_call(&missing, "x", json!({})).await.unwrap_err();
    assert!(matches!(missing.error, ToolError::Unusable { .. }) && missing.cost.is_empty(), "{missing}");
}

/// Each row is a script that repeats what it was told, and what an agent gets of it.
#[tokio::test]
async fn a_secret_of_a_tool_is_in_nothing_that_it_gives_back() {
    let env = r#"env = { LONG = "tk-secret-and-more", KEY = "Bearer tk-secret", ODD = 'a"b\c-secret', TINY = "ok" }
input_schema = { type = "object", properties = { "a" = { enum = ["x"] } } }"#;
    for (text, expected) in [
        ("printf '{\"%s\":[\"key %s\",true]}' ${KEY#* } \"$KEY\"", Ok(json!({ "…": ["key …", true] }))),
        ("printf '\"%s %s\"' $LONG $TINY", Ok(json!("… ok"))),
        (r#"printf '"%s"' 'a\"b\\c-secret'"#, Ok(json!("…"))),
        (r#"printf '"%s"' 'a\\\"b\\\\c-secret'"#, Ok(json!("…"))), // JSON in a text
        ("echo invalid token ${KEY#* } >&2; exit 1", Err("the tool failed: invalid token …")),
        ("echo $LONG >&2; exit 1", Err("the tool failed: …")),
        ("printf '%02042d%s' 0 $LONG >&2; exit 1", Err("0…")),
    ] {
        let outcome = try_call(&script(text, env), "x", json!({})).await;
        match (outcome, expected) {
            (Ok(answer), Ok(expected)) => {
                assert_eq!(serde_json::from_str::<Value>(answer.content.as_str()).unwrap(), expected, "{text}");
            }
            (Err(failure), Err(expected)) => {
                let said = failure.to_string();
                assert!(said.ends_with(expected) && !said.contains("tk-"), "{text}: {said}");
            }
            (outcome, _) => panic!("{text}: {outcome:?}"),
        }
    }
    // Said where an answer does not fit.
    let more = "env = { KEY = 'tk-secret' }\noutput_schema = { type = 'object', additionalProperties = false }";
    let failed = failure(&script("printf '{\"%s\":1}' $KEY", more), "x", json!({})).await;
    assert!(!failed.to_string().contains("tk-secret"), "{failed}");
}

#[tokio::test]
async fn it_sees_its_own_environment_and_nothing_of_the_hosts() {
    let tools = script(
        "env | cut -d= -f1 | sort | grep -v -e ^_$ -e ^PWD$ -e ^SHLVL$ -e ^OLDPWD$ | sed 's/.*/\"&\"/' | paste -sd, | sed 's/.*/[&]/'",
        "env = { KEY = 'tk-secret' }",
    );
    let seen = call(&tools, "x", json!({})).await;
    let allowed = ["HOME", "KEY", "LANG", "LEASEHOLD_CALL", "LEASEHOLD_JOB_ID", "PATH", "TMPDIR", "TRACEPARENT"];
    for name in seen.as_array().unwrap() {
        assert!(allowed.contains(&name.as_str().unwrap()), "{seen}");
    }
    assert!(env::var_os("CARGO_MANIFEST_DIR").is_some() && seen.as_array().unwrap().len() >= 5, "{seen}");
    let told = script("printf '[\"%s\",\"%s\",\"%s\"]' $LEASEHOLD_JOB_ID $LEASEHOLD_CALL $TRACEPARENT", "");
    let parent = a_call().traceparent;
    assert_eq!(call(&told, "x", json!({})).await, json!(["job_01", "call_7", parent]));
}

/// A command that does not want to end, and what it has started, ends with its call.
#[tokio::test]
async fn nothing_outlives_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pids");
    let stubborn =
        format!("trap '' TERM; sleep 3600 & echo $$ $! > {}.new; mv {0}.new {0}; wait; wait", mark.display());
    let pids = async || {
        let mut said = String::new();
        until("the command to start", async || {
            said = std::fs::read_to_string(&mark).unwrap_or_default();
            !said.is_empty()
        })
        .await;
        std::fs::remove_file(&mark).unwrap();
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let gone = async |pids: Vec<String>| {
        for pid in pids {
            process_gone(&pid).await;
        }
    };

    // At its timeout.
    let tools = script(&stubborn, "timeout_sec = 3\nprice = { per_call = 'USD:0.5' }");
    let late = try_call(&tools, "x", json!({})).await.unwrap_err();
    assert!(matches!(late.error, ToolError::Timeout { seconds: 3, .. }) && lost_most(&late), "{late}");
    gone(pids().await).await;

    // When it is cancelled, which costs what it may have done.
    let tools = script(&stubborn, "price = { per_call = 'USD:0.5' }");
    let (order, nothing) = (a_call(), Json::of(&json!({})));
    let (cancelled, pids_seen) = within("the call", async {
        tokio::join!(tools.call(permit("x"), &nothing, &order), async {
            let pids = pids().await;
            order.cancelled.cancel();
            pids
        })
    })
    .await;
    let cancelled = cancelled.unwrap_err();
    assert!(cancelled.error == ToolError::Cancelled && lost_most(&cancelled), "{cancelled}");
    gone(pids_seen).await;

    // When nobody waits any more.
    let pids_seen = tokio::select! {
        outcome = try_call(&tools, "x", json!({})) => panic!("{outcome:?}"),
        pids = pids() => pids,
    };
    gone(pids_seen).await;

    // When it ends and leaves others behind, who may even hold its pipes.
    let leaving = format!("sleep 3600 & echo $! > {}.new; mv {0}.new {0}; echo '{{}}'", mark.display());
    assert_eq!(call(&script(&leaving, ""), "x", json!({})).await, json!({}));
    gone(pids().await).await;
    let escaping = "setsid sleep 5 & echo '{\"a\": 1}'";
    assert_eq!(call(&script(escaping, ""), "x", json!({})).await, json!({ "a": 1 }));
}

/// ARCP §9.5: the deadline of a call is a moment, and the clock decides when it has come.
#[tokio::test]
async fn a_call_ends_with_its_deadline() {
    let (clock, hands) = Clock::manual(Timestamp::from_millis(0));
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let text = format!("[x]\nrun = ['sh', '-c', 'printf waits > {}; sleep 3600']\n", mark.display());
    let tools = tools_at(&text, clock.clone());
    let order = Call { deadline: Some(Timestamp::from_millis(30_000)), ..a_call() };
    let arguments = Json::of(&json!({}));
    let (outcome, ()) = within("the call", async {
        tokio::join!(tools.call(permit("x"), &arguments, &order), async {
            file_holds(&mark, "waits").await;
            hands.advance(Duration::from_secs(30));
        })
    })
    .await;
    assert!(matches!(outcome.unwrap_err().error, ToolError::Timeout { seconds: 30, .. }));

    // One that was still waiting for its turn was not made, and costs nothing.
    std::fs::remove_file(&mark).unwrap();
    let tools = tools_at(&format!("{text}concurrent_max = 1\nprice = {{ per_call = 'USD:1' }}\n"), clock);
    let order = Call { deadline: Some(Timestamp::from_millis(90_000)), ..a_call() };
    let (first, second, ()) = within("the calls", async {
        tokio::join!(
            biased;
            tools.call(permit("x"), &arguments, &order),
            tools.call(permit("x"), &arguments, &order),
            async {
                file_holds(&mark, "waits").await;
                hands.advance(Duration::from_secs(60));
            }
        )
    })
    .await;
    let (first, second) = (first.unwrap_err(), second.unwrap_err());
    assert!(matches!(first.error, ToolError::Timeout { .. }) && first.cost.len() == 1, "{first}");
    assert!(matches!(second.error, ToolError::Busy { seconds: 60, .. }) && second.cost.is_empty(), "{second}");
}

#[tokio::test]
async fn what_goes_in_is_bounded_and_calls_wait_for_their_turn() {
    let tools = script("cat", "arguments_bytes_max = 100\nconcurrent_max = 1");
    assert!(matches!(
        failure(&tools, "x", json!({ "a": "x".repeat(100) })).await,
        ToolError::TooLarge { max: 100, .. }
    ));
    let deep = (0..65).fold(json!({}), |inner, _| json!([inner]));
    assert!(matches!(
        failure(&tools, "x", deep).await,
        ToolError::TooLarge { .. } | ToolError::InvalidArguments { .. }
    ));
    // With one place, two calls that lock each other out both succeed.
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let locking = format!("mkdir {} && echo '{{}}' && rmdir {0}", lock.display());
    let tools = script(&locking, "concurrent_max = 1");
    let calls = (0..8).map(|_| call(&tools, "x", json!({})));
    assert_eq!(futures_util::future::join_all(calls).await, vec![Value::Object(Default::default()); 8]);
}
