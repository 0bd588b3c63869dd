//! The records of a job's journal.
//!
//! Everything that happens to a job is one of these, appended in order. The
//! client's event stream, the audit trail, the money spent and the answers a
//! replay gives are all readings of the same records.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::Refusal,
    id::{CredentialId, JobId, Principal, ResultId, SessionId},
    lease::{
        Authority, Namespace,
        amount::{Budget, Currency, texts},
    },
    protocol::{
        event::{Event, ToolError},
        json::Json,
        status::Status,
        trace::TraceId,
    },
    time::Timestamp,
};

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", content = "body", rename_all = "snake_case")]
pub enum Record {
    /// The host took the job (§7.1).
    Accepted(Box<Accepted>),
    /// A host began to run it, for the first time or again.
    ///
    /// Appending this claims the job: whoever ran it before can append nothing more.
    Started {
        /// When.
        at: Timestamp,
    },
    /// A replay has come to the end of what was written down, and the job goes on from there.
    Resumed {
        /// When.
        at: Timestamp,
    },
    /// The host stopped in good order, and left the job to the next.
    Stopped {
        /// When.
        at: Timestamp,
    },
    /// What the agent saw of time and chance before the next record of its own.
    Observed(Vec<Observation>),
    /// A capability was asked for; written before an effect that cannot be repeated.
    Intent(Intent),
    /// The effect of an intent has not taken place, and the call begins anew.
    Void {
        /// When that was found out.
        at: Timestamp,
        /// The call.
        call: u64,
    },
    /// A capability call came to an end.
    Called(Called),
    /// A call began that takes its time, beside whatever else the agent does; durable before it takes effect.
    Begun(Begun),
    /// A call under way was led somewhere else and may go there; durable before it does (§9.3).
    Redirected(Redirected),
    /// Something came in of a call under way, such as a part of a body.
    Part(Part),
    /// A call that had begun came to an end.
    Concluded(Concluded),
    /// The agent or the host had something to say (§8.2).
    Event {
        /// When.
        at: Timestamp,
        /// What.
        event: Event,
    },
    /// Something of the job that its agent has no part in, such as what a key of it has spent (§9.8).
    Aside {
        /// When.
        at: Timestamp,
        /// What a watcher is told.
        event: Event,
    },
    /// A key of the job has a new value, which stands nowhere in a journal (§9.8.2).
    Rotated {
        /// When.
        at: Timestamp,
        /// Which key.
        credential: CredentialId,
    },
    /// The client asked for cancellation (§7.4).
    Cancelling {
        /// When.
        at: Timestamp,
        /// Its words.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The job ended (§7.3).
    Ended {
        /// When.
        at: Timestamp,
        /// How.
        end: End,
        /// What it spent of its budget, its children included; all of it if that is not known (§9.6).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spent: Option<Spent>,
    },
}

/// What was spent of each currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spent(#[serde(with = "texts")] pub Budget);

/// All that is known of a job when it is accepted; enough to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The job.
    pub job_id: JobId,
    /// Who submitted it.
    pub principal: Principal,
    /// The session that may cancel it (§7.4).
    pub session_id: SessionId,
    /// The envelope id of its submission.
    pub request_id: String,
    /// When.
    pub at: Timestamp,
    /// `name@version`, resolved (§7.5).
    pub agent: String,
    /// SHA-256 of the component, in hexadecimal digits.
    pub digest: String,
    /// What the agent is given.
    pub input: Json,
    /// What it may do and until when (§9).
    pub authority: Authority,
    /// How long it may run, from acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runtime_sec: Option<NonZeroU32>,
    /// The job that handed it to its agent, if one did (§10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Its trace (§11).
    pub trace_id: TraceId,
    /// Where all randomness of the agent comes from.
    pub seed: Seed,
    /// The name of the limits the agent runs under, which a replay needs unchanged.
    #[serde(default)]
    pub limits: String,
    /// SHA-256 of the submission's parameters in hexadecimal digits, if it has an idempotency key (§7.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// The stream that binds its idempotency key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The how-manieth submission of its session it is: how a session finds the jobs that it could not note any more
    /// when its host was killed.
    #[serde(default)]
    pub ordinal: u64,
    /// The number its first message has in its session, if the session had nothing else to tell when it submitted.
    ///
    /// It spares such a job a second commit: see `session::log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    /// The keys that were made for it, without their values (§9.8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Granted>,
}

/// A key that was made for a job (§9.8); its value stands nowhere in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Which.
    pub id: CredentialId,
    /// Who makes and unmakes it: the operator's name for it.
    pub provisioner: String,
    /// Its part of the job's budget, which the agent itself does not have.
    #[serde(default, with = "texts", skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
}

/// Where a delegated job comes from (§10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The job whose agent delegates.
    pub job_id: JobId,
    /// How many jobs stand above this one.
    pub depth: u32,
}

/// Where all randomness of a job comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    /// The agent may make keys of it, so it is shown to nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits =
            |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]));
        serializer.collect_str(&self.0.iter().flat_map(digits).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Digits(String),
            /// As hosts wrote it that did not use it.
            Number(u64),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Digits(text) => text,
            Written::Number(number) => format!("{number:064x}"),
        };
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes = text.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>();
        let seed = bytes.and_then(|bytes| bytes.try_into().ok()).map(Self);
        seed.ok_or_else(|| de::Error::custom("a seed has 64 hexadecimal digits"))
    }
}

/// Something the agent was told that the same agent might not be told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The how-manieth question it answered: see [`Saw`].
    pub ask: u64,
    /// The answer.
    pub saw: Saw,
}

/// An answer that the same agent might not be given again.
///
/// All questions of a job are counted together, from 1. Those whose answer is as the last one leave nothing behind, so
/// an agent that looks at the clock all the time writes no more than one entry a millisecond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saw {
    /// What time it is.
    Time(Timestamp),
    /// Cancellation has been asked for; never taken back.
    Cancel,
    /// It has waited for a call for as long as it wanted to.
    Elapsed,
}

/// A call that is about to take effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// When.
    pub at: Timestamp,
    /// The how-manieth call of the job it is, from 1.
    pub call: u64,
    /// What is asked, such as `fs.write`.
    pub operation: String,
    /// Of what.
    pub args: Json,
    /// What the effect would change, as it was before: how a recovery tells whether it took place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Json>,
}

/// A call and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// When it ended.
    pub at: Timestamp,
    /// The how-manieth call of the job it is, from 1.
    pub call: u64,
    /// What was asked, such as `fs.read`.
    pub operation: String,
    /// Of what. Large arguments stand here as their size and digest.
    pub args: Json,
    /// What came of it.
    pub outcome: Outcome,
}

/// A call that takes its time.
///
/// Others may begin before it ends, so its end stands wherever it came about. The order of the ends is what the agent
/// can learn of them, and the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// The how-manieth call of the job it is, from 1.
    pub call: u64,
    /// What is asked, such as `net.fetch`.
    pub operation: String,
    /// Of what. Large arguments stand here as their size and digest.
    pub args: Json,
    /// The most it may cost, which is held back until it is over (§9.6).
    #[serde(default, with = "texts", skip_serializing_if = "Budget::is_empty")]
    pub reserved: Budget,
}

impl Begun {
    /// Whether another job does it (§10), under a lease of its own.
    #[must_use]
    pub fn is_delegation(&self) -> bool {
        self.operation == Namespace::AgentDelegate.as_str()
    }
}

/// Another place that a call under way goes to.
///
/// Its agent is not told of it by this, so a replay passes it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirected {
    /// When.
    pub at: Timestamp,
    /// The call.
    pub call: u64,
    /// Where to, as the gate was asked about it.
    pub url: String,
}

/// Something that came in of a call under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// When.
    pub at: Timestamp,
    /// The call.
    pub call: u64,
    /// What the agent is told.
    pub answer: Answer,
}

/// The end of a call that had begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concluded {
    /// When.
    pub at: Timestamp,
    /// The call.
    pub call: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// What it cost (§9.6).
    #[serde(default, with = "texts", skip_serializing_if = "Budget::is_empty")]
    pub cost: Budget,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "with", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done {
        /// What a watcher is told, such as `{"size_bytes": 12}`.
        summary: Json,
        /// What the agent was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Answer>,
    },
    /// It was refused or failed.
    Failed {
        /// What a watcher is told.
        error: ToolError,
        /// The code the agent was told, in the contract's spelling.
        code: String,
    },
}

/// The name of a call in what is told of it (§8.2).
#[must_use]
pub fn call_id(call: u64) -> String {
    format!("call_{call:06}")
}

/// The call that has this name, if any call may have it.
#[must_use]
pub fn call_number(call_id: &str) -> Option<u64> {
    call_id.strip_prefix("call_")?.parse().ok()
}

/// The answer an agent was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
pub enum Answer {
    /// A value small enough to stand here.
    Json(Json),
    /// Bytes small enough to stand here, as base64.
    Bytes(String),
    /// Bytes in a stream of their own, named after their digest.
    Blob {
        /// SHA-256, in hexadecimal digits.
        sha256: String,
        /// How many.
        size: u64,
    },
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", content = "with", rename_all = "snake_case")]
pub enum End {
    /// With a result.
    Result(Json),
    /// With a streamed result (§8.4).
    Streamed {
        /// Which.
        result_id: ResultId,
        /// Its decoded bytes.
        size: u64,
        /// The agent's own words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        summary: Option<String>,
    },
    /// Without.
    Failed {
        /// `error`, `cancelled` or `timed_out`.
        status: Status,
        /// Why.
        refusal: Refusal,
    },
}

impl End {
    /// The job's final status.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Result(_) | Self::Streamed { .. } => Status::Success,
            Self::Failed { status, .. } => *status,
        }
    }
}

impl Accepted {
    /// What the job's keys have of its budget, all together (§9.8).
    #[must_use]
    pub fn given_to_keys(&self) -> Budget {
        let mut sum = Budget::new();
        for (currency, part) in self.credentials.iter().flat_map(|granted| &granted.budget) {
            let total: &mut Decimal = sum.entry(currency.clone()).or_default();
            *total = total.saturating_add(*part);
        }
        sum
    }

    /// The budget counters at acceptance (§7.1).
    #[must_use]
    pub fn budget(&self) -> BTreeMap<Currency, Decimal> {
        self.authority.lease.budget().clone()
    }
}

impl Record {
    /// The text that is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is JSON")
    }

    /// When it was written, if it says so.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Accepted(accepted) => Some(accepted.at),
            Self::Intent(intent) => Some(intent.at),
            Self::Called(called) => Some(called.at),
            Self::Begun(begun) => Some(begun.at),
            Self::Redirected(redirected) => Some(redirected.at),
            Self::Part(part) => Some(part.at),
            Self::Concluded(concluded) => Some(concluded.at),
            Self::Started { at }
            | Self::Resumed { at }
            | Self::Stopped { at }
            | Self::Void { at, .. }
            | Self::Event { at, .. }
            | Self::Aside { at, .. }
            | Self::Rotated { at, .. }
            | Self::Cancelling { at, .. }
            | Self::Ended { at, .. } => Some(*at),
            Self::Observed(_) => None,
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// If the text is none of ours.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
