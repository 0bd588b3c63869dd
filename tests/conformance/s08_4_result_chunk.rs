//! ARCP §8.4: streamed results.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use leasehold_tests::{ErrorCode::InternalError, RawClient, Run, TestHost};
use serde_json::{Value, json};

async fn stream(client: &mut RawClient, mut deed: Value) -> Run {
    if deed.get("do").is_none() {
        deed["do"] = json!("chunks");
    }
    client.submit("hostile").input(deed).run().await
}

/// The parts of a stream, checked: one result, counted from 0, and only the last says that it is.
fn parts(run: &Run) -> Vec<Value> {
    let chunks = run.bodies("result_chunk");
    for (seq, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["chunk_seq"], json!(seq), "{chunk}");
        assert_eq!(chunk["result_id"], chunks[0]["result_id"], "{chunk}");
        assert_eq!(chunk["more"], json!(seq + 1 < chunks.len()), "{chunk}");
        assert_eq!(chunk["encoding"], chunks[0]["encoding"], "{chunk}");
    }
    chunks.into_iter().map(|mut chunk| chunk["data"].take()).collect()
}

#[tokio::test]
async fn a_streamed_result_ends_with_its_id_and_size_and_not_with_itself() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for (deed, data, size, summary) in [
        (json!({ "texts": ["ab", "ç"], "finish": true }), json!(["ab", "ç", ""]), 4, None),
        (json!({ "texts": ["ab", "c"] }), json!(["ab", "c", ""]), 3, None), // the host finishes what the agent left open
        (json!({ "texts": ["a"], "result": "a summary" }), json!(["a", ""]), 1, Some("a summary")),
        (json!({ "bytes": ["\u{1}\u{2}"], "finish": true }), json!([BASE64.encode([1, 2]), ""]), 2, None),
        (json!({ "finish": true }), json!([""]), 0, None),
    ] {
        let run = stream(&mut client, deed.clone()).await;
        assert_eq!(json!(parts(&run)), data, "{deed}");
        let end = &run.terminal["payload"];
        assert_eq!((run.final_status(), &end["result_size"]), ("success", &json!(size)), "{deed}: {end}");
        assert_eq!(end["result_id"], run.bodies("result_chunk")[0]["result_id"], "{deed}");
        assert!(end.get("result").is_none(), "{deed}: {end}");
        assert_eq!(end.get("summary").and_then(Value::as_str), summary, "{deed}: {end}");
    }
}

#[tokio::test]
async fn a_chunk_is_cut_between_characters() {
    let host = TestHost::builder().limits(|limits| limits.chunk_bytes_max = 7).start().await;
    let mut client = host.session().await;
    let text = "aé€😀\"\\\u{7}".repeat(20);
    let run = stream(&mut client, json!({ "texts": [text], "finish": true })).await;
    let parts = parts(&run);
    assert!(parts.len() > 20);
    for part in &parts {
        let escaped = serde_json::to_string(part).unwrap().len() - 2;
        assert!(escaped <= 7, "{part} is {escaped} bytes in its frame");
    }
    let whole: String = parts.iter().map(|part| part.as_str().unwrap()).collect();
    assert_eq!((whole.as_str(), &run.terminal["payload"]["result_size"]), (text.as_str(), &json!(text.len())));
}

/// Each row ends the job, because what the client has of the result is not the result.
#[tokio::test]
async fn a_stream_that_breaks_the_rules_is_no_result() {
    let host = TestHost::builder().limits(|limits| limits.stream_bytes_max = 100).start().await;
    let mut client = host.session().await;
    for deed in [
        json!({ "do": "chunks", "texts": ["x".repeat(60), "x".repeat(60)] }), // over the size of a whole stream
        json!({ "do": "chunks", "texts": ["a"], "result": { "inline": true } }), // "MUST NOT mix"
        json!({ "do": "chunks", "texts": ["a"], "bytes": ["b"] }),
        json!({ "do": "chunk_after_finish" }),
    ] {
        let run = client.submit("hostile").input(deed.clone()).run().await;
        assert_eq!((run.result(), run.final_status()), (Err(InternalError), "error"), "{deed}: {}", run.terminal);
        let sent: String = run.bodies("result_chunk").iter().map(|chunk| chunk["data"].as_str().unwrap()).collect();
        assert!(sent.len() <= 100 && !sent.contains("after"), "{deed}: {sent}");
    }
}

/// No client takes a frame over 1 MiB; the client on the bare wire fails the test if one comes.
#[tokio::test]
async fn a_result_too_large_for_a_message_is_streamed_by_the_host() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let run = client.submit("hostile").input(json!({ "do": "big_result", "bytes": 10 << 20 })).run().await;
    let whole: String = parts(&run).iter().map(|part| part.as_str().unwrap()).collect();
    assert_eq!(whole.len(), 10 << 20);
    let end = &run.terminal["payload"];
    assert_eq!((run.final_status(), &end["result_size"]), ("success", &json!(10 << 20)), "{end}");
    assert!(end.get("result").is_none() && end["summary"].as_str().unwrap().starts_with("text of"), "{end}");
    // What is no text is streamed as JSON, and one that fits stays as it is.
    let host = TestHost::builder().limits(|limits| limits.result_bytes_max = 20).start().await;
    let mut small = host.session().await;
    for (input, size) in [(json!({ "a": [1, "zwölf", null, 2.50] }), Some(27)), (json!([1, 2, 3]), None)] {
        let run = small.submit("echo").input(input.clone()).run().await;
        let whole: String = parts(&run).iter().map(|part| part.as_str().unwrap()).collect();
        let end = &run.terminal["payload"];
        assert_eq!(end.get("result_size").and_then(Value::as_u64), size, "{end}");
        match size {
            Some(_) => assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), input),
            None => assert_eq!(run.result(), Ok(input)),
        }
    }
    let run = client.submit("hostile").input(json!({ "do": "big_result", "bytes": 700_000 })).run().await;
    assert_eq!(run.result().map(|result| result.as_str().unwrap().len()), Ok(700_000));
    let flood = json!({ "do": "flood_output", "count": 4, "bytes": 1 << 20 });
    let steps = json!({ "do": "steps", "steps": [flood] });
    let run = client.submit("hostile").input(steps).run().await;
    let sent: usize = run.bodies("result_chunk").iter().map(|chunk| chunk["data"].as_str().unwrap().len()).sum();
    // The agent returns what it did, which is no summary, so the job fails; the stream was sent nevertheless.
    assert_eq!((sent, run.result()), (4 << 20, Err(InternalError)));
}

/// ARCP §6.2: without the feature the result is inline, if it can be.
#[tokio::test]
async fn a_client_without_chunks_gets_the_whole_or_an_error() {
    let host = TestHost::new().await;
    let mut client = host.session_offering(&["list_jobs"]).await;
    let large = "x".repeat(100 << 10);
    for (deed, expected) in [
        (json!({ "texts": ["ab", "c"], "finish": true }), Ok(json!("abc"))),
        (json!({ "bytes": ["a"], "finish": true }), Err(InternalError)),
        (json!({ "texts": [large, large, large], "finish": true }), Err(InternalError)),
        (json!({ "do": "big_result", "bytes": 1 << 20 }), Err(InternalError)), // the host would have streamed it
    ] {
        let run = stream(&mut client, deed).await;
        assert_eq!(run.result(), expected, "{}", run.terminal);
        assert!(run.bodies("result_chunk").is_empty());
        if expected.is_err() {
            assert!(run.message().contains("result_chunk"), "{}", run.message());
        }
    }
}
