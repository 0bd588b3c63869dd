//! A job's journal as its watchers see it (ARCP §8.2).

use serde::Deserialize;

use super::record::{Begun, Called, Concluded, Outcome, Record, call_id};
use crate::{
    protocol::{event::Event, json::Json},
    time::Timestamp,
};

/// The events that a record is, each with its time; its end is no event.
pub fn events(record: Record) -> impl Iterator<Item = (Timestamp, Event)> {
    let (at, first, second) = match record {
        Record::Event { at, event } | Record::Aside { at, event } => (at, Some(event), None),
        Record::Called(Called { at, call, operation, args, outcome }) => {
            (at, Some(asked(call, operation, args)), Some(answered(call, outcome)))
        }
        Record::Begun(Begun { at, call, operation, args, .. }) => (at, Some(asked(call, operation, args)), None),
        Record::Concluded(Concluded { at, call, outcome, .. }) => (at, Some(answered(call, outcome)), None),
        // What a watcher learns of these, it learns from the answers to its requests.
        Record::Accepted(_)
        | Record::Started { .. }
        | Record::Resumed { .. }
        | Record::Stopped { .. }
        | Record::Observed(_)
        | Record::Intent(_)
        | Record::Redirected(_)
        | Record::Part(_)
        | Record::Void { .. }
        // Only the one who has the key is told of it.
        | Record::Rotated { .. }
        | Record::Cancelling { .. }
        | Record::Ended { .. } => (Timestamp::from_millis(0), None, None),
    };
    first.into_iter().chain(second).map(move |event| (at, event))
}

/// A capability call.
fn asked(call: u64, operation: String, args: Json) -> Event {
    #[derive(Deserialize)]
    struct Tool {
        tool: String,
        arguments: Json,
    }
    let call_id = call_id(call);
    // A tool has a name of its own, and what it is asked is what its arguments are.
    match serde_json::from_str(args.as_str()) {
        Ok(Tool { tool, arguments }) if operation == "tool.call" => Event::ToolCall { tool, args: arguments, call_id },
        _ => Event::ToolCall { tool: operation, args, call_id },
    }
}

/// What came of a capability call (§8.2).
fn answered(call: u64, outcome: Outcome) -> Event {
    let (result, error) = match outcome {
        Outcome::Done { summary, .. } => (Some(summary), None),
        Outcome::Failed { error, .. } => (None, Some(error)),
    };
    Event::ToolResult { call_id: call_id(call), result, error }
}
