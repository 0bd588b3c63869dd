//! Results that are none, too large, or two at once (ARCP §8.4).

use leasehold_core::protocol::json::SAID_DEPTH_MAX;
use leasehold_tests::{ErrorCode, TestHost};
use serde_json::{Value, json};

use super::{House, told};

#[tokio::test]
async fn a_result_that_is_no_json_text_or_too_large_fails_its_job() {
    let mut house = House::start(TestHost::builder().limits(|limits| limits.stream_bytes_max = 2 << 20)).await;
    for (input, words) in [
        (json!({"do": "bad_result"}), "no JSON"),
        (json!({"do": "bad_result", "text": ""}), "no JSON"),
        (json!({"do": "bad_result", "text": "{\"a\":1} {\"b\":2}"}), "no JSON"),
        (json!({"do": "bad_result", "text": "{\"a\":NaN}"}), "no JSON"),
        (json!({"do": "bad_result", "text": format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))}), "no JSON"),
        (json!({"do": "big_result", "bytes": 3 << 20}), "at most 2097152, streamed"),
        (json!({"do": "big_result", "bytes": 1 << 30}), ""),
    ] {
        let run = house.deed(input.clone()).await;
        let shown: String = input.to_string().chars().take(80).collect();
        assert_eq!((run.result(), run.final_status()), (Err(ErrorCode::InternalError), "error"), "{shown}");
        assert!(run.message().contains(words), "{shown}: {}", run.message());
    }
    let run = house.deed(json!({"do": "big_result", "bytes": (768 << 10) - 2})).await;
    assert_eq!(run.result().map(|text| text.as_str().map(str::len)), Ok(Some((768 << 10) - 2)));
    // The quotes are two bytes more, and then the host streams it.
    for bytes in [768 << 10, 2 << 20] {
        let run = house.deed(json!({"do": "big_result", "bytes": bytes})).await;
        assert_eq!((run.final_status(), &run.terminal["payload"]["result_size"]), ("success", &json!(bytes)));
    }
}

/// However deep the host lets an agent go, what it sends of that is no deeper than a reader goes.
#[tokio::test]
async fn what_an_agent_says_is_no_deeper_than_a_client_can_read() {
    let mut house = House::start(TestHost::builder()).await;
    let deep = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    for (depth, fits) in [(SAID_DEPTH_MAX, true), (SAID_DEPTH_MAX + 1, false)] {
        let run = house.deed(json!({"do": "bad_result", "text": deep(depth).to_string()})).await;
        let expected = if fits { Ok(deep(depth)) } else { Err(ErrorCode::InternalError) };
        assert_eq!(run.result(), expected, "{depth}: {:?}", run.terminal);

        let body = json!({ "a": deep(depth - 1) });
        let vendor = json!({"do": "bad_vendor", "kind": "x-vendor.a.b", "body": body.to_string()});
        let run = house.deed(vendor).await;
        assert_eq!(run.bodies("x-vendor.a.b"), if fits { vec![body] } else { vec![] }, "{depth}");

        let tool = json!({"call": "tool", "name": "any", "arguments": deep(depth)});
        let run = house.deed(json!({"do": "calls", "start": [tool], "then": "all"})).await;
        let told: Vec<_> = run.bodies("tool_call").iter().map(|call| call["args"].clone()).collect();
        assert_eq!(told, if fits { vec![deep(depth)] } else { vec![] }, "{depth}: {run:?}");
    }
}

/// ARCP §8.4: "Implementations MUST NOT mix inline result and `result_chunk`".
#[tokio::test]
async fn a_streamed_result_has_no_second_one_beside_it() {
    let mut house = House::start(TestHost::builder()).await;
    let chunks =
        |result: Value, finish: bool| json!({"do": "chunks", "texts": ["a", "b"], "result": result, "finish": finish});
    for finish in [false, true] {
        for result in [json!({"a": 1}), json!(7), json!(["x"]), json!(true)] {
            let run = house.deed(chunks(result.clone(), finish)).await;
            assert_eq!(run.result(), Err(ErrorCode::InternalError), "{result}: {run:?}");
        }
        for (result, summary) in [(Value::Null, None), (json!("two letters"), Some("two letters"))] {
            let run = house.deed(chunks(result, finish)).await;
            let payload = &run.terminal["payload"];
            assert_eq!(run.final_status(), "success", "{run:?}");
            assert!(payload.get("result").is_none(), "{payload}");
            assert_eq!(payload["summary"].as_str(), summary);
            assert_eq!(payload["result_size"], 2);
            let chunks = run.bodies("result_chunk");
            let text: String = chunks.iter().filter_map(|chunk| chunk["data"].as_str()).collect();
            assert_eq!(text, "ab");
            let more: Vec<_> = chunks.iter().map(|chunk| chunk["more"] == true).collect();
            assert!(matches!(more.split_last(), Some((false, rest)) if rest.iter().all(|more| *more)), "{chunks:?}");
        }
    }
}

#[tokio::test]
async fn text_and_bytes_are_not_mixed_and_an_ended_stream_takes_no_more() {
    let mut house = House::start(TestHost::builder()).await;
    for input in [json!({"do": "chunks", "texts": ["a"], "bytes": ["b"]}), json!({"do": "chunk_after_finish"})] {
        let run = house.deed(input.clone()).await;
        // The refusal reaches the agent, which returns it as a second result and fails for that.
        assert_eq!(run.result(), Err(ErrorCode::InternalError), "{input}: {run:?}");
        let text: String = run.bodies("result_chunk").iter().filter_map(|chunk| chunk["data"].as_str()).collect();
        assert!(matches!(text.as_str(), "a" | "before"), "{input}: {text}");
    }
    let steps = json!({"do": "steps", "steps": [{"do": "chunk_after_finish"}, {"do": "chunk_after_finish"}]});
    let run = house.deed(steps).await;
    assert_eq!(run.result(), Err(ErrorCode::InternalError), "{run:?}");
}

#[tokio::test]
async fn a_streamed_result_has_an_end() {
    let mut house = House::start(TestHost::builder().limits(|limits| limits.stream_bytes_max = 100_000)).await;
    let run = house.deed(json!({"do": "flood_output", "count": 1_000_000, "bytes": 1000})).await;
    // The refusal reaches the agent, which returns it as a second result and fails for that.
    assert_eq!(run.result(), Err(ErrorCode::InternalError), "{:?}", run.terminal);
    let streamed: usize =
        run.bodies("result_chunk").iter().filter_map(|chunk| chunk["data"].as_str().map(str::len)).sum();
    assert_eq!(streamed, 100_000);
}

/// An agent's own error is its own: it claims no cancellation and floods no client.
#[tokio::test]
async fn an_agents_error_keeps_its_code_and_is_cut() {
    let mut house = House::start(TestHost::builder()).await;
    for (code, expected) in [
        ("permission-denied", ErrorCode::PermissionDenied),
        ("budget-exhausted", ErrorCode::BudgetExhausted),
        ("not-found", ErrorCode::InvalidRequest),
        ("cancelled", ErrorCode::InternalError), // only the client cancels
    ] {
        let run = house.deed(json!({"do": "fail", "code": code, "bytes": 1 << 20})).await;
        assert_eq!((run.result(), run.final_status()), (Err(expected), "error"), "{code}: {run:?}");
        assert!(run.message().len() < 8 << 10, "{} bytes", run.message().len());
    }
    // Nothing that was not a refusal has been taken for one.
    let run = house.deed(json!({"do": "noop"})).await;
    assert_eq!(told(&run.result().expect("nothing is done")), "ok");
}
