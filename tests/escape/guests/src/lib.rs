//! An agent that does what it must not, on demand.
//!
//! Its input names a deed: `{"do": "read", "path": "/etc/passwd"}`. A deed that
//! asks the host for something gives the host's answer as a value, `{"ok": …}`
//! or `{"err": {"code": …, "message": …}}`, so a test reads the refusal itself
//! and not what an agent made of it. See `Deed` for the catalogue.

mod ambient;
mod calls;
mod deed;
mod exhaust;
mod raw;

use std::{thread, time::Duration};

use leasehold_agent::{
    Error, ErrorCode, Timestamp, agent,
    bindings::{self, events, output},
    fs, job, metrics,
};
use serde_json::{Map, Value, json};

use crate::deed::{Deed, Via};

agent!(raw: run);

fn run(input: String) -> Result<String, Error> {
    let deed: Deed = serde_json::from_str(&input)?;
    match deed {
        // What `run` returns is itself the deed here, so it is not wrapped.
        Deed::BadResult { text } => Ok(text),
        Deed::BigResult { bytes } => Ok(Value::from(exhaust::text(bytes)).to_string()),
        Deed::Chunks { texts, bytes, finish, result } => match chunks(&texts, &bytes, finish) {
            Ok(()) => Ok(result.to_string()),
            Err(error) => Ok(outcome(Err(error)).to_string()),
        },
        Deed::Steps { steps } => {
            let outcomes: Result<Vec<_>, _> = steps.into_iter().map(perform).collect();
            Ok(Value::from(outcomes?).to_string())
        }
        deed => Ok(perform(deed)?.to_string()),
    }
}

/// Does a deed and gives its outcome; an error is one that ends the run.
fn perform(deed: Deed) -> Result<Value, Error> {
    Ok(outcome(match deed {
        Deed::Noop => Ok(Value::Null),
        Deed::Fail { code, message, bytes } => return Err(Error::new(code.parse()?, message + &exhaust::text(bytes))),
        Deed::Spin => exhaust::spin(),
        Deed::Allocate { mib } => exhaust::allocate(mib),
        Deed::Recurse { depth } => exhaust::recurse(depth),
        Deed::Trap => std::process::abort(),
        Deed::Panic { message } => panic!("{message}"),
        Deed::Exit { code } => std::process::exit(code),
        Deed::FloodStdout { lines, stderr } => exhaust::flood(lines, stderr),
        Deed::BigArgument { bytes, via, path } => big_argument(bytes, via, &path),

        Deed::Read { path } => fs::read(path).map(contents),
        Deed::ReadRange { path, offset, length } => fs::read_range(path, offset, length).map(contents),
        Deed::List { path } => fs::list(path).map(|entries| entries.iter().map(entry).collect()),
        Deed::Stat { path } => fs::metadata(path).map(metadata),
        Deed::Write { path, text } => fs::write(path, text).map(Value::from),
        Deed::Append { path, text } => fs::append(path, text).map(Value::from),
        Deed::CreateDir { path } => fs::create_dir(path).map(Value::from),
        Deed::Remove { path } => fs::remove(path).map(Value::from),
        Deed::StatMany { path, count } => Ok(stat_many(&path, count)),

        Deed::ForgeHandle { handle, how } => calls::forge(handle, how),
        Deed::Calls { start, then, patience_ms } => calls::perform(start, then, patience_ms),
        Deed::Offers => calls::offers(),
        Deed::DelegateForEver { lease } => {
            let mut task = leasehold_agent::delegate::task("hostile")
                .input(&json!({ "do": "delegate_for_ever", "lease": lease }))?;
            for (namespace, patterns) in &lease {
                task = task.grant(namespace, patterns);
            }
            task.run()
        }

        Deed::Ambient => Ok(ambient::report()),
        Deed::Raw => Ok(raw::report()),
        Deed::RawNames => Ok(json!(raw::names())),
        Deed::RawForged { function } => {
            raw::on_a_forged_handle(&function).ok_or_else(|| Error::invalid_request(format!("`{function}` is unknown")))
        }
        Deed::Clock => Ok(ambient::clock()),
        Deed::Random => Ok(ambient::random()),
        Deed::Job { namespaces } => Ok(job(&namespaces)),

        Deed::EventsFlood { count, bytes } => {
            let padding = exhaust::text(bytes);
            for n in 0..count {
                events::log(events::Level::Info, &format!("{n}{padding}"));
            }
            Ok(json!({"count": count}))
        }
        Deed::Metric { name, value, unit, dimensions } => {
            let mut metric = metrics::metric(&name, value);
            if let Some(unit) = &unit {
                metric = metric.unit(unit);
            }
            for (name, value) in dimensions {
                metric = metric.dimension(name, value);
            }
            metric.emit().map(Value::from)
        }
        Deed::ForgeStatus { phase, message } => answered(events::status(&phase, message.as_deref())),
        Deed::BadProgress { current, total } => answered(events::progress(current, total, None, None)),
        Deed::BadVendor { kind, body } => answered(events::vendor(&kind, &body)),
        Deed::BadArtifact { uri, sha256 } => answered(events::artifact_ref(&events::Reference {
            uri,
            content_type: "text/plain".into(),
            byte_size: None,
            sha256: Some(sha256),
        })),
        Deed::ChunkAfterFinish => chunk_after_finish(),
        Deed::FloodOutput { count, bytes } => flood_output(count, bytes),

        Deed::Sleep { ms } => {
            thread::sleep(Duration::from_millis(ms));
            Ok(Value::Null)
        }
        Deed::IgnoreCancel { busy } => loop {
            if busy {
                exhaust::work();
            } else {
                thread::sleep(Duration::from_millis(100));
            }
        },
        Deed::WaitCancel { poll_ms } => {
            while !job::cancel_requested() {
                thread::sleep(Duration::from_millis(poll_ms));
            }
            Ok(json!({"cancel_requested": true}))
        }

        Deed::BadResult { .. } | Deed::BigResult { .. } | Deed::Chunks { .. } | Deed::Steps { .. } => {
            return Err(Error::invalid_request("this deed is what `run` returns, so it cannot be a step"));
        }
    }))
}

fn outcome(answer: Result<Value, Error>) -> Value {
    match answer {
        Ok(value) => json!({"ok": value}),
        Err(error) => json!({"err": {"code": error.code().as_str(), "message": error.message()}}),
    }
}

fn answered(answer: Result<(), bindings::types::Error>) -> Result<Value, Error> {
    Ok(answer.map(Value::from)?)
}

/// What was read: how much, and the text if a test can compare it.
fn contents(bytes: Vec<u8>) -> Value {
    const COMPARABLE_MAX: usize = 64 * 1024;
    let size = bytes.len();
    let text = String::from_utf8(bytes).ok().filter(|_| size <= COMPARABLE_MAX);
    json!({"size": size, "text": text})
}

fn entry(entry: &fs::Entry) -> Value {
    json!({"name": entry.name, "kind": kind(entry.kind), "size": entry.size})
}

fn metadata(metadata: fs::Metadata) -> Value {
    json!({"kind": kind(metadata.kind), "size": metadata.size, "modified": metadata.modified.as_str()})
}

fn kind(kind: fs::Kind) -> &'static str {
    match kind {
        fs::Kind::File => "file",
        fs::Kind::Directory => "directory",
        fs::Kind::Other => "other",
    }
}

/// The code of every refusal, and how often each came, is enough for millions of calls.
fn stat_many(path: &str, count: u64) -> Value {
    let mut refused = 0_u64;
    let mut last = None;
    for _ in 0..count {
        if let Err(error) = fs::metadata(path) {
            refused += 1;
            last = Some(error.code());
        }
    }
    json!({"count": count, "refused": refused, "last": last.map(ErrorCode::as_str)})
}

fn job(namespaces: &[String]) -> Value {
    let grants: Map<_, _> = namespaces.iter().map(|name| (name.clone(), job::grants(name).into())).collect();
    let budget: Map<_, _> = job::budget().into_iter().map(|(currency, left)| (currency, left.into())).collect();
    json!({
        "id": job::id(),
        "agent": job::agent(),
        "trace_id": job::trace_id(),
        "expires_at": job::expires_at().as_ref().map(Timestamp::as_str),
        "budget": budget,
        "grants": grants,
        "cancel_requested": job::cancel_requested(),
    })
}

/// Hands the host one argument, as large as the guest's memory lets it be.
fn big_argument(bytes: usize, via: Via, path: &str) -> Result<Value, Error> {
    let text = exhaust::text(bytes);
    let size = text.len();
    match via {
        Via::Log => events::log(events::Level::Info, &text),
        Via::Thought => events::thought(&text),
        Via::Status => events::status("big", Some(&text))?,
        Via::Vendor => events::vendor("x-vendor.escape.big", &format!("{{\"text\":\"{text}\"}}"))?,
        Via::Metric => bindings::metrics::emit(&text, "1", None, &[])?,
        Via::Dimensions => bindings::metrics::emit("big", "1", None, &vec![(String::new(), String::new()); size])?,
        Via::Path => drop(fs::metadata(text)?),
        Via::Write => fs::write(path, text)?,
        Via::Append => fs::append(path, text)?,
        Via::OutputText => output::write_text(&text)?,
        Via::OutputBytes => output::write_bytes(text.as_bytes())?,
        Via::Grants => drop(job::grants(&text)),
    }
    Ok(json!({"bytes": size}))
}

fn chunks(texts: &[String], bytes: &[String], finish: bool) -> Result<(), Error> {
    for text in texts {
        output::write_text(text)?;
    }
    for bytes in bytes {
        output::write_bytes(bytes.as_bytes())?;
    }
    if finish { Ok(output::finish()?) } else { Ok(()) }
}

fn chunk_after_finish() -> Result<Value, Error> {
    output::write_text("before")?;
    output::finish()?;
    answered(output::write_text("after"))
}

fn flood_output(count: u64, bytes: usize) -> Result<Value, Error> {
    let text = exhaust::text(bytes);
    for n in 0..count {
        if let Err(error) = output::write_text(&text) {
            return Err(Error::new(error.code, format!("chunk {n}: {}", error.message)));
        }
    }
    Ok(json!({"count": count}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_that_asks_for_nothing_is_wrapped_and_a_result_is_not() {
        for (input, expected) in [
            (r#"{"do":"noop"}"#, Ok(r#"{"ok":null}"#)),
            (r#"{"do":"steps","steps":[{"do":"noop"},{"do":"sleep","ms":0}]}"#, Ok(r#"[{"ok":null},{"ok":null}]"#)),
            (r#"{"do":"steps","steps":[{"do":"fail","code":"timeout"}]}"#, Err(ErrorCode::Timeout)),
            (r#"{"do":"steps","steps":[{"do":"bad_result"}]}"#, Err(ErrorCode::InvalidRequest)),
            (r#"{"do":"bad_result"}"#, Ok("this is not JSON")),
            (r#"{"do":"big_result","bytes":3}"#, Ok(r#""xxx""#)),
            (r#"{"do":"chunks","result":{"a":1}}"#, Ok(r#"{"a":1}"#)),
            (r#"{"do":"recurse","depth":10}"#, Ok(r#"{"ok":{"depth":10}}"#)),
            (r#"{"do":"allocate","mib":2}"#, Ok(r#"{"ok":{"mib":2}}"#)),
            (r#"{"do":"nothing we know"}"#, Err(ErrorCode::InvalidRequest)),
        ] {
            let outcome = run(input.into()).map_err(|error| error.code());
            assert_eq!(outcome.as_deref().map_err(|code| *code), expected, "{input}");
        }
    }
}
