//! What one SDK's client demands of the frames it reads, as a table.
//!
//! A line names a frame by its type, a member by its path, and what that member
//! must be. `*` for a type stands for every frame, for a step of the path for
//! every item of a list. `event.KIND` is a `job.event` of that kind, and
//! `refused.REQUEST` is the frame that refuses a request. A `?` says that the
//! member may be absent; it is never allowed to be null instead.

use leasehold_core::{error::ErrorCode, id::Ulid, time::Timestamp};
use serde_json::Value;

/// What is known of the request that a frame answers.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Its id.
    pub request: String,
    /// Its trace.
    pub trace_id: String,
    /// The job it is about.
    pub job_id: String,
}

/// Holds a frame against every line of `table` that is of `what` or of every frame.
///
/// # Panics
///
/// If it breaks one, and if there is none for `what`.
pub fn check(table: &str, what: &str, frame: &Value, context: &Context) {
    let rows = table.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [kind, path, must] = columns[..] else { panic!("a line has three columns: {line}") };
        (kind, path, must)
    });
    let mut known = false;
    for (kind, path, must) in rows.filter(|(kind, ..)| *kind == "*" || *kind == what) {
        known |= kind == what;
        let steps: Vec<&str> = path.split('/').skip(1).collect();
        walk(frame, &steps, must, context).unwrap_or_else(|why| panic!("{kind} {path} {must}: {why}: {frame}"));
    }
    assert!(known, "this client has no use for `{what}`: {frame}");
}

fn walk(value: &Value, steps: &[&str], must: &str, context: &Context) -> Result<(), String> {
    match steps {
        [] => judge(value, must, context),
        ["*", rest @ ..] => {
            let items = value.as_array().ok_or("not a list")?;
            items.iter().try_for_each(|item| walk(item, rest, must, context))
        }
        [step, rest @ ..] => match value.get(step) {
            Some(inner) => walk(inner, rest, must, context),
            None if must.starts_with('?') || must == "absent" => Ok(()),
            None => Err(format!("`{step}` is missing")),
        },
    }
}

fn judge(value: &Value, must: &str, context: &Context) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let is_text = !text.is_empty();
    let all = |is: &dyn Fn(&Value) -> bool| value.as_object().is_some_and(|map| map.values().all(is));
    let is_texts = |value: &Value| {
        value.as_array().is_some_and(|list| list.iter().all(|item| item.as_str().is_some_and(|text| !text.is_empty())))
    };
    let ok = match must.trim_start_matches('?') {
        "any" => true,
        "absent" => false,
        "text" => is_text,
        "text|null" => is_text || value.is_null(),
        "whole" => value.is_u64(),
        "positive" => value.as_u64().is_some_and(|number| (1..=1 << 53).contains(&number)),
        "int32" => value.as_u64().is_some_and(|number| (1..1 << 31).contains(&number)),
        "number" => value.is_number(),
        "flag" => value.is_boolean(),
        "object" => value.is_object(),
        "list" => value.is_array(),
        "texts" => is_texts(value),
        "moment" => text.parse::<Timestamp>().is_ok(),
        "code" => serde_json::from_value::<ErrorCode>(value.clone()).is_ok(),
        // Patterns by namespace, amounts by currency in either spelling, dimensions.
        "lease" => all(&is_texts),
        "numbers" => all(&Value::is_number),
        "amounts" => all(&|amount| amount.as_str().is_some_and(|text| text.contains(':'))),
        "map" => all(&Value::is_string),
        "trace" => text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        // A ULID, bare or after a prefix.
        "ulid" => Ulid::from_string(text.rsplit('_').next().unwrap_or_default()).is_ok(),
        "the-request" => text == context.request,
        "the-trace" => text == context.trace_id,
        "the-job" => text == context.job_id,
        // Of a job that is not the one that was asked about.
        "another-job" => text.starts_with("job_") && text != context.job_id,
        literal => match literal.strip_prefix('=') {
            Some(allowed) => allowed.split('|').any(|allowed| text == allowed),
            None => panic!("nothing is `{must}`"),
        },
    };
    if ok { Ok(()) } else { Err(format!("{value} is not that")) }
}

#[test]
fn a_frame_that_breaks_a_line_is_found() {
    use serde_json::json;
    let table = "*  /id  text\nx  /a/*/b  whole\nx  /c  ?text\nx  /d  absent";
    let holds = |frame: &Value| std::panic::catch_unwind(|| check(table, "x", frame, &Context::default())).is_ok();
    let good = json!({ "id": "1", "a": [{ "b": 1 }, { "b": 2 }] });
    assert!(holds(&good));
    for (key, value) in [
        ("id", json!("")),
        ("a", json!([{ "b": 1 }, { "b": 1.5 }])),
        ("a", json!([{}])),
        ("a", json!({})),
        ("c", json!(null)),
        ("d", json!("x")),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!holds(&bad), "{bad}");
    }
}
