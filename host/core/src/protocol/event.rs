//! What happens in a job, as its watchers see it (ARCP §8.2).

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, Serializer};

use super::{json::Json, server::LeaseConstraints};
use crate::{
    error::ErrorCode,
    id::{JobId, ResultId},
    lease::Lease,
    time::Timestamp,
};

/// One event (ARCP §8.2). The wire's `kind` is the variant's name, so no other
/// file spells one; [`Event::Vendor`] brings its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Event {
    /// A line for people.
    Log {
        /// How much it matters.
        level: Level,
        /// The line.
        message: String,
    },
    /// Reasoning.
    Thought {
        /// The reasoning.
        text: String,
    },
    /// A capability was asked for.
    ToolCall {
        /// Which capability or tool.
        tool: String,
        /// What it was asked, always an object.
        args: Json,
        /// Pairs the call with its result.
        call_id: String,
    },
    /// What came of a call.
    ToolResult {
        /// The call.
        call_id: String,
        /// The answer, unless it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Json>,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<ToolError>,
    },
    /// Part of the job was handed to another agent (§10).
    Delegate {
        /// Pairs it with the call and its result.
        delegate_id: String,
        /// The job that does it.
        child_job_id: JobId,
        /// Who.
        agent: String,
        /// What it was given.
        input: Json,
        /// What it may do; not told to a client that could not read it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Lease>,
        /// Until when.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease_constraints: Option<LeaseConstraints>,
    },
    /// The job entered a phase.
    Status {
        /// The phase.
        phase: String,
        /// More about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A figure.
    Metric {
        /// What is measured; `cost.…` is money (§9.6).
        name: String,
        /// How much. A number on the wire, exact in the journal.
        #[serde(with = "exact_number")]
        value: Decimal,
        /// Of what.
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
        /// Where and for whom.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        dimensions: BTreeMap<String, String>,
    },
    /// Something was made.
    ArtifactRef {
        /// Where it is.
        uri: String,
        /// What it is.
        content_type: String,
        /// How large it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        byte_size: Option<u64>,
        /// What it must hash to.
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// How far the job is (§8.2.1).
    Progress {
        /// Done so far.
        current: u64,
        /// Of how many, if known.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Of what.
        #[serde(skip_serializing_if = "Option::is_none")]
        units: Option<String>,
        /// What is being done.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A part of a streamed result (§8.4).
    ResultChunk {
        /// Which result.
        result_id: ResultId,
        /// Counted from 0.
        chunk_seq: u64,
        /// The part.
        data: String,
        /// How to read `data`.
        encoding: Encoding,
        /// Whether more parts follow.
        more: bool,
    },
    /// An event of the agent's own kind.
    Vendor {
        /// `x-vendor.<vendor>.<name>`.
        kind: String,
        /// Any object.
        body: Json,
    },
}

impl Event {
    /// The same for a client that reads leases in another form than this one, if it has one.
    #[must_use]
    pub fn without_lease(&self) -> Option<Self> {
        match self {
            Self::Delegate { lease: Some(_), .. } => {
                let mut event = self.clone();
                if let Self::Delegate { lease, .. } = &mut event {
                    *lease = None;
                }
                Some(event)
            }
            _ => None,
        }
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// How the data of a chunk is written (§8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Text.
    Utf8,
    /// Bytes.
    Base64,
}

/// Why a call failed (§8.2 `tool_result`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolError {
    /// One of the fifteen codes.
    pub code: ErrorCode,
    /// What went wrong.
    pub message: String,
    /// Whether the same call may work later.
    pub retryable: bool,
}

/// The `payload` of a `job.event` (§8.1): an event and when it happened.
pub struct Payload<'a> {
    /// What happened.
    pub event: &'a Event,
    /// When.
    pub ts: Timestamp,
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// A vendor's kind is data, so its fields stand where a variant's name would.
        #[derive(Serialize)]
        struct Vendor<'a> {
            kind: &'a str,
            ts: Timestamp,
            body: &'a Json,
        }
        // Flattening is only ever written here, never read: reading would buffer
        // the body and lose its digits.
        #[derive(Serialize)]
        struct Standard<'a> {
            ts: Timestamp,
            #[serde(flatten)]
            event: &'a Event,
        }
        match self.event {
            Event::Vendor { kind, body } => Vendor { kind, ts: self.ts, body }.serialize(serializer),
            event => Standard { ts: self.ts, event }.serialize(serializer),
        }
    }
}

/// Money and measures as JSON numbers with every digit kept.
mod exact_number {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use serde_json::value::RawValue;

    pub fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        let number = RawValue::from_string(value.to_string()).map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        let number = Box::<RawValue>::deserialize(deserializer)?;
        number.get().parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.to_owned()).unwrap()
    }

    /// ARCP §8.2: each kind with its body, as it stands on the wire and as it
    /// comes back from the journal.
    #[test]
    fn every_kind_is_written_as_the_draft_shows_it_and_read_back_unchanged() {
        let ts = Timestamp::from_millis(0);
        let table = [
            (Event::Log { level: Level::Warn, message: "m".into() }, "log", r#"{"level":"warn","message":"m"}"#),
            (Event::Thought { text: "t".into() }, "thought", r#"{"text":"t"}"#),
            (
                Event::ToolCall { tool: "fs.read".into(), args: json(r#"{"n":1.0}"#), call_id: "c".into() },
                "tool_call",
                r#"{"tool":"fs.read","args":{"n":1.0},"call_id":"c"}"#,
            ),
            (
                Event::ToolResult { call_id: "c".into(), result: Some(json("{}")), error: None },
                "tool_result",
                r#"{"call_id":"c","result":{}}"#,
            ),
            (
                Event::Metric {
                    name: "cost.x".into(),
                    value: "0.1000000000000000000000001".parse().unwrap(), // more digits than a float holds
                    unit: Some("USD".into()),
                    dimensions: BTreeMap::new(),
                },
                "metric",
                r#"{"name":"cost.x","value":0.1000000000000000000000001,"unit":"USD"}"#,
            ),
            (
                Event::Progress { current: 1, total: Some(2), units: None, message: None },
                "progress",
                r#"{"current":1,"total":2}"#,
            ),
            (
                Event::Vendor { kind: "x-vendor.acme.k".into(), body: json(r#"{"a":[]}"#) },
                "x-vendor.acme.k",
                r#"{"a":[]}"#,
            ),
        ];
        for (event, kind, body) in table {
            let written = serde_json::to_string(&Payload { event: &event, ts }).unwrap();
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            assert_eq!(value["kind"], kind);
            assert_eq!(value["ts"], "1970-01-01T00:00:00.000Z");
            assert!(written.contains(&format!("\"body\":{body}")), "{written}");
            let stored = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&stored).unwrap(), event);
        }
    }
}
