//! The host's own client of an upstream.

use std::time::Duration;

use leasehold::capability::models::{ChatRequest, Completed, Context, ModelError, Models, Spent, Usage};
use leasehold_core::error::{ErrorCode, Refusal};
use leasehold_tests::{
    upstream::{End, Reply, Upstream},
    within,
};
use serde_json::{Value, json};

use crate::{KEY, gate, models, permit, shown, try_models};

fn request(fields: Value) -> ChatRequest {
    let mut body = json!({ "messages": [{ "role": "user", "content": "three small words" }] });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    ChatRequest::parse(&body.to_string()).unwrap()
}

async fn complete(models: &Models, fields: Value) -> Result<Completed, ModelError> {
    let call = models.complete(permit(models, "fast"), request(fields), Context::default());
    within("an answer", call).await
}

/// All chunks of a stream, why it ended early, and what it took.
async fn stream(models: &Models, fields: Value) -> (Vec<Value>, Option<ModelError>, Spent) {
    let call = models.stream(permit(models, "fast"), request(fields), Context::default());
    let mut stream = within("an answer", call).await.unwrap();
    let mut chunks = Vec::new();
    let error = loop {
        match within("a chunk", stream.next()).await {
            Ok(Some(chunk)) => chunks.push(serde_json::from_str(chunk.as_str()).unwrap()),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    (chunks, error, stream.finish())
}

#[tokio::test]
async fn a_completion_comes_back_and_is_charged_by_its_tokens() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "headers = { x-team = \"team-secret-1\" }", "");
    let context = Context {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        idempotency_key: Some("job-1.7".into()),
        timeout: None,
    };
    let asked = request(json!({ "model": "fast", "max_tokens": 9, "user": "eve", "temperature": 0.5 }));
    let answer = within("an answer", models.complete(permit(&models, "fast"), asked, context.clone())).await.unwrap();
    let response: Value = serde_json::from_str(answer.response.as_str()).unwrap();
    assert_eq!(response["choices"][0]["message"]["content"], "three small words");
    assert_eq!(answer.spent.usage, Some(Usage { input: 3, cached: 0, output: 3 }));
    assert_eq!(shown(&answer.spent.cost), "USD:0.000033");

    let sent = upstream.asked().remove(0);
    assert_eq!(sent.line, "POST /v1/chat/completions");
    for (header, value) in [
        ("authorization", format!("Bearer {KEY}")),
        ("x-team", "team-secret-1".into()),
        ("traceparent", context.traceparent.unwrap()),
        ("idempotency-key", "job-1.7".into()),
        ("content-type", "application/json".into()),
    ] {
        assert_eq!(sent.header(header), Some(&*value), "{header}");
    }
    let messages = json!([{ "role": "user", "content": "three small words" }]);
    let body = json!({ "model": "gpt-small", "max_completion_tokens": 9, "temperature": 0.5, "messages": messages });
    assert_eq!(sent.body, body);
}

#[tokio::test]
async fn a_stream_comes_in_chunks_and_its_usage_is_shown_to_who_asked_for_it() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "");
    for (fields, chunks_expected) in [
        (json!({ "stream": true }), 4),
        (json!({ "stream": true, "stream_options": { "include_usage": false } }), 4),
        (json!({ "stream": true, "stream_options": { "include_usage": true } }), 5),
    ] {
        let (chunks, error, spent) = stream(&models, fields.clone()).await;
        assert_eq!((chunks.len(), error), (chunks_expected, None), "{fields}");
        let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "three small words ");
        assert_eq!(shown(&spent.cost), "USD:0.000033");
    }
    assert!(upstream.asked().iter().all(|asked| asked.body["stream_options"]["include_usage"] == true));
}

/// ARCP §9.7: a lease that covers an alias covers nothing, and one that covers the model covers it by any name.
#[tokio::test]
async fn an_alias_is_replaced_before_the_gate_is_asked() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "");
    for (pattern, asked, permitted) in [
        ("tier-fast/*", "fast", true),
        ("tier-fast/*", "tier-fast/small", true),
        ("fast", "fast", false),
        ("other/*", "fast", false),
        ("other/*", "unknown", false), // as if it were there
        ("unknown", "unknown", true),  // and then it is not
    ] {
        let op = models.operation(asked).unwrap();
        let outcome = gate(&[pattern]).permit(leasehold_core::time::Timestamp::from_millis(0), op);
        assert_eq!(outcome.is_ok(), permitted, "{asked} under {pattern}");
    }
    let call = models.complete(permit(&models, "unknown"), request(json!({})), Context::default());
    assert!(matches!(call.await, Err(ModelError::NotFound(_))));
    assert!(upstream.asked().is_empty());
    let listed: Vec<String> = models.list().map(|model| model.name().to_string()).collect();
    assert_eq!(listed, ["tier-fast/small"]);
}

#[tokio::test]
async fn the_price_is_the_most_that_a_call_can_cost() {
    let upstream = Upstream::openai().await;
    // The messages are 47 bytes and their name 8; 64 are for what the host adds.
    for (settings, fields, expected) in [
        ("max_output_tokens = 100", json!({}), "USD:0.001119"),
        ("max_output_tokens = 100", json!({ "max_tokens": 7 }), "USD:0.000189"),
        ("max_output_tokens = 100", json!({ "max_completion_tokens": 100_000 }), "USD:0.001119"),
        ("max_output_tokens = 100\nbytes_per_token = 4", json!({}), "USD:0.00103"),
        ("max_output_tokens = 100\ncontext_tokens = 50", json!({}), "USD:0.00105"),
    ] {
        let models = models(&upstream, "", settings);
        let op = models.operation("fast").unwrap();
        assert_eq!(shown(&models.price(&op, &request(fields)).unwrap()), expected, "{settings}");
    }
    let image = json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{}", "A".repeat(100_000)) } });
    let image = json!({ "messages": [{ "role": "user", "content": [image] }] });
    let op = models(&upstream, "", "").operation("fast").unwrap();
    assert!(matches!(models(&upstream, "", "").price(&op, &request(image.clone())), Err(ModelError::Invalid { .. })));
    let price =
        models(&upstream, "", "image_tokens = 1000\nmax_output_tokens = 1").price(&op, &request(image)).unwrap();
    assert!(&*shown(&price) < "USD:0.0013", "an image costs its tokens, not its bytes: {}", shown(&price));
}

#[tokio::test]
async fn an_upstream_that_tells_no_usage_is_paid_what_was_reserved_and_one_that_tells_more_is_paid_that() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "max_output_tokens = 100");
    for (usage, expected) in [
        (Value::Null, "USD:0.001119"),
        (json!("a lot"), "USD:0.001119"),
        (json!({ "prompt_tokens": -5, "completion_tokens": -5 }), "USD:0.001119"),
        (json!({ "prompt_tokens": 1_000_000, "completion_tokens": 1_000_000 }), "USD:11"),
        (json!({ "prompt_tokens": 1, "completion_tokens": 0 }), "USD:0.000001"),
    ] {
        upstream.answer(Reply::json(200, &json!({ "choices": [], "usage": usage })));
        assert_eq!(shown(&complete(&models, json!({})).await.unwrap().spent.cost), expected, "{usage}");
    }
}

#[tokio::test]
async fn what_an_upstream_refuses_is_told_without_the_key() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "retries_max = 0", "");
    let quoting = json!({ "error": { "message": format!("Incorrect API key provided: {KEY}") } });
    let long = json!({ "error": { "message": "x".repeat(5000) } });
    for (reply, code, may_have_cost, said) in [
        (
            Reply::json(400, &json!({ "error": { "message": "no such thing" } })),
            ErrorCode::InvalidRequest,
            false,
            "no such thing",
        ),
        (Reply::json(422, &json!({ "error": "in a text" })), ErrorCode::InvalidRequest, false, "in a text"),
        (Reply::json(400, &long), ErrorCode::InvalidRequest, false, "xxx"),
        (Reply::text(500, "<html>"), ErrorCode::InternalError, false, "it does not say why"),
        (Reply::json(401, &quoting), ErrorCode::InternalError, false, "does not serve this host"),
        (Reply::json(400, &quoting), ErrorCode::InvalidRequest, false, "status 400"),
        (Reply::json(200, &quoting), ErrorCode::InternalError, true, "only the host"),
        (Reply::text(302, "").with("location", "http://127.0.0.1:1/"), ErrorCode::InternalError, false, "redirect"),
        (Reply::text(429, "").with("retry-after", "7"), ErrorCode::InternalError, false, "again in 7 s"),
        (Reply::text(200, "<html>"), ErrorCode::InternalError, true, "no proper answer"),
        (Reply::text(200, "{}"), ErrorCode::InternalError, true, "no choices"),
        (Reply::text(200, r#"{"error":{"message":"late"}}"#), ErrorCode::InternalError, true, "late"),
        (Reply::text(200, "\u{0}\u{1}"), ErrorCode::InternalError, true, "no proper answer"),
        (Reply::text(200, "{").ending(End::Broken), ErrorCode::InternalError, true, "broke"),
        (Reply::text(200, &"[".repeat(100_000)), ErrorCode::InternalError, true, "no proper answer"),
    ] {
        upstream.answer(reply.clone());
        let error = complete(&models, json!({})).await.unwrap_err();
        assert_eq!(error.may_have_cost(), may_have_cost, "{error}");
        let refusal = Refusal::from(error.clone());
        assert_eq!(refusal.code, code, "{reply:?}");
        assert!(refusal.message.contains(said) && refusal.message.len() < 700, "{refusal}");
        assert!(!format!("{refusal} {error:?}").contains(KEY), "{refusal}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_twice_and_no_longer_than_it_may_take() {
    let upstream = Upstream::openai().await;
    let busy = |status: u16, after: &str| Reply::text(status, "").with("retry-after", after);
    for (replies, answered, asked) in [
        (&[busy(429, "0")][..], true, 2),
        (&[busy(503, "0"), busy(502, "0")], true, 3),
        (&[busy(504, "0"), busy(504, "0"), busy(504, "0")], false, 3),
        (&[busy(429, "3600")], false, 1), // more than retry_wait_sec_max
        (&[busy(500, "0")], false, 1),
        (&[busy(400, "0")], false, 1),
    ] {
        let models = models(&upstream, "", "");
        let before = upstream.asked().len();
        replies.iter().for_each(|reply| upstream.answer(reply.clone()));
        assert_eq!(complete(&models, json!({})).await.is_ok(), answered, "{replies:?}");
        assert_eq!(upstream.asked().len() - before, asked, "{replies:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_stops_or_drips_is_given_up() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "");
    let context = Context { timeout: Some(Duration::from_millis(200)), ..Context::default() };
    upstream.answer(Reply::text(200, "{\"choices\":").ending(End::Never));
    let call = models.complete(permit(&models, "fast"), request(json!({})), context.clone());
    assert_eq!(within("an error", call).await.unwrap_err(), ModelError::Timeout);
    upstream.answer(Reply::events(&["{\"choices\":[{}]}"]).ending(End::Never));
    let call = models.stream(permit(&models, "fast"), request(json!({})), context.clone());
    let mut stream = within("a stream", call).await.unwrap();
    assert!(within("a chunk", stream.next()).await.unwrap().is_some());
    assert_eq!(within("an error", stream.next()).await.unwrap_err(), ModelError::Timeout);
}

#[tokio::test]
async fn who_finds_no_place_in_time_has_asked_nothing() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "concurrent_max = 1", "");
    upstream.answer(Reply::events(&["{\"choices\":[{}]}"]).ending(End::Never));
    let context = Context { timeout: Some(Duration::from_millis(200)), ..Context::default() };
    let first = models.stream(permit(&models, "fast"), request(json!({})), Context::default());
    let first = within("a stream", first).await.unwrap();
    let second = models.complete(permit(&models, "fast"), request(json!({})), context.clone());
    let error = within("an error", second).await.unwrap_err();
    assert_eq!((error.may_have_cost(), error), (false, ModelError::Busy));
    assert_eq!(upstream.asked().len(), 1);
    drop(first);
    assert!(complete(&models, json!({})).await.is_ok(), "the place is free again");
}

#[tokio::test]
async fn an_upstream_that_nobody_is_at_costs_nothing() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "");
    drop(upstream);
    // The listener is gone when its task has been told to end.
    tokio::task::yield_now().await;
    let error = complete(&models, json!({})).await.unwrap_err();
    assert_eq!((error.may_have_cost(), error), (false, ModelError::Unreachable));
}

#[tokio::test]
async fn a_stream_is_whole_or_says_that_it_is_not() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "event_bytes_max = 2000\nanswer_bytes_max = 5000", "max_output_tokens = 100");
    let word = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let last = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let failed = r#"{"error":{"message":"overloaded"}}"#;
    let reserved = "USD:0.001119";
    let large = format!(r#"{{"choices":["{}"]}}"#, "x".repeat(3000));
    let many = [word; 200];
    let shows_key = format!(r#"{{"choices":[{{"delta":{{"content":"{KEY}"}}}}]}}"#);
    for (events, end, chunks_expected, error, cost) in [
        (&[word, last, usage, "[DONE]"][..], End::Whole, 2, None, "USD:0.000011"),
        (&[word, last, usage], End::Whole, 2, None, "USD:0.000011"), // some close without a word
        (&[word, last, "[DONE]"], End::Whole, 2, None, reserved),
        (&[word, last], End::Whole, 2, None, reserved),
        (&[word], End::Whole, 1, Some("ended before"), reserved),
        (&[], End::Whole, 0, Some("ended before"), reserved),
        (&[word, usage], End::Broken, 1, Some("broke"), reserved),
        (&[word, failed], End::Whole, 1, Some("overloaded"), reserved),
        (&[word, "{"], End::Whole, 1, Some("no proper answer"), reserved),
        (&[word, "7"], End::Whole, 1, Some("no proper answer"), reserved),
        (&[&large], End::Whole, 0, Some("larger than 2000"), reserved),
        (&many, End::Whole, 0, Some("larger than 5000"), reserved),
        (&[&shows_key], End::Whole, 0, Some("only the host"), reserved),
    ] {
        upstream.answer(Reply::events(events).ending(end));
        let (chunks, failed, spent) = stream(&models, json!({ "stream": true })).await;
        let told = failed.as_ref().map(ToString::to_string);
        assert_eq!(told.is_some(), error.is_some(), "{told:?} after {events:?}");
        assert!(told.unwrap_or_default().contains(error.unwrap_or_default()), "{failed:?} after {events:?}");
        assert!(failed.is_none_or(|error| error.may_have_cost()));
        assert!(chunks.len() == chunks_expected || error == Some("larger than 5000"), "{chunks:?}");
        assert_eq!(shown(&spent.cost), cost, "{events:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_on_either_side() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "request_bytes_max = 200\nanswer_bytes_max = 100", "");
    let large = json!({ "stop": "x".repeat(200) });
    assert_eq!(complete(&models, large).await.unwrap_err(), ModelError::RequestTooLarge { bytes_max: 200 });
    assert!(upstream.asked().is_empty());
    let error = complete(&models, json!({})).await.unwrap_err();
    assert_eq!(error, ModelError::AnswerTooLarge { bytes_max: 100 });
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_named_and_no_key_with_it() {
    let upstream = Upstream::openai().await;
    for (upstream_settings, model_settings, named) in [
        ("timeout_sec = 0", "", "upstreams.main.timeout_sec"),
        ("concurrent_max = 0", "", "upstreams.main.concurrent_max"),
        ("passes = [\"n\"]", "", "upstreams.main.passes"),
        ("headers = { \"a b\" = \"x\" }", "", "upstreams.main.headers.a b"),
        ("headers = { a = \"sk-line\\nbreak\" }", "", "upstreams.main.headers.a"),
        ("headers = { a = { env = \"LEASEHOLD_TEST_NO_SUCH_VARIABLE\" } }", "", "LEASEHOLD_TEST_NO_SUCH_VARIABLE"),
        ("", "max_output_tokens = 0", "models.\"tier-fast/small\".max_output_tokens"),
        ("", "cached_input_per_mtok = \"EUR:1\"", "models.\"tier-fast/small\".cached_input_per_mtok"),
        ("", "[models.other]\nupstream = \"else\"", "upstreams.else"),
        ("", "[models.other]\nupstream = \"main\"\naliases = [\"fast\"]", "`fast`"),
        ("", "[models.fast]\nupstream = \"main\"", "`fast`"),
    ] {
        let error = try_models(&upstream, upstream_settings, model_settings).err().unwrap();
        assert!(error.contains(named) && !error.contains("sk-"), "{error}");
    }
}
