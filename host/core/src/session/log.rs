//! The records of a session's own stream (ARCP §6.3).
//!
//! What a client was told is not written down a second time: it stands in the
//! journals of the jobs, and the numbers follow from which job's records were
//! given to the session in which order. A [`Span`] says that from one number on
//! it was given one job's records, until the next span begins; so only a
//! switch between jobs is written. The one message that stands in no journal, that the client lags, is how a span can
//! begin. [`History`](super::history::History) reads
//! these records, and makes the stream again.

use serde::{Deserialize, Serialize};

use crate::{
    id::{JobId, Principal},
    protocol::{feature::Features, trace::TraceId},
    time::Timestamp,
};

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", content = "body", rename_all = "snake_case")]
pub enum LogRecord {
    /// The session was welcomed; written again before a [`Checkpoint`], so that a stream begins with it.
    Opened(Opened),
    /// The token of the newest welcome; those before it are worth nothing, but for the one it was given for.
    Token {
        /// When.
        at: Timestamp,
        /// SHA-256 of the token in hexadecimal digits; the token itself is kept nowhere.
        sha256: String,
        /// That of the token with which the client came, and comes again if the welcome did not reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        used: Option<String>,
    },
    /// The session is given a job's records from now on.
    Follow(Follow),
    /// A job that its client subscribed to was submitted again (§7.2), and is told to its end whatever it asks.
    Adopt {
        /// The job.
        job_id: JobId,
        /// The envelope id of the submission.
        request: String,
        /// See [`Follow::keys_after`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys_after: Option<u64>,
    },
    /// It is given no more of them, as its client asked (§7.6).
    Unfollow {
        /// The job.
        job_id: JobId,
        /// How far the job was told.
        at: u64,
        /// The number of the next message.
        next: u64,
    },
    /// Which numbers are of which job.
    Spans(Vec<Span>),
    /// Its client is gone, and the resume window runs.
    Parked {
        /// When.
        at: Timestamp,
    },
    /// The newest message was a job's last, and nothing came after it for a while.
    Settled {
        /// The number of the next message.
        next: u64,
    },
    /// Where the session stands, so that what is before can be forgotten.
    Checkpoint(Checkpoint),
}

/// What a session is for as long as it lives, however often it is resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// When.
    pub at: Timestamp,
    /// Whose it is.
    pub principal: Principal,
    /// What was negotiated. A hello that resumes changes nothing of it: other features would number anew.
    pub features: Features,
    /// How the client reads, by the dialect's name.
    pub dialect: String,
}

/// A job whose records the session is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Follow {
    /// The how-manieth submission of the session led to it; 0 if none did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ordinal: u64,
    /// The job.
    pub job_id: JobId,
    /// Its trace.
    pub trace_id: TraceId,
    /// The envelope id of the submission; none if the client subscribed to the job (§7.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Whether only its end is told (§7.2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_end: bool,
    /// The number of its first message, if the session had nothing else to tell: a span that needs no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Nothing up to this position of the job's journal is told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: u64,
    /// After this position it is told of new values of the job's keys (§9.8.2), as it was given the keys; never if it
    /// was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_after: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// From one number on the session was given one job's records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The number.
    pub first: u64,
    /// The job.
    pub job: JobId,
    /// The position in the job's journal before the record with that number.
    pub after: u64,
    /// How far the span before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// The number is not of that record but of a message that stands in no journal: that the client lags (§6.5). The
    /// record has the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
}

/// What a client was told of being behind, so that it can be told the same again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// When.
    pub at: Timestamp,
    /// What it had acknowledged.
    pub acknowledged: u64,
}

/// How far a span came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    /// The position of the last record that was given.
    pub at: u64,
    /// Whether that was the end of the job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// All that has to be known to go on from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The number of the next message.
    pub first: u64,
    /// The newest submission that has been answered.
    pub ordinal: u64,
    /// The jobs that are followed.
    pub standing: Vec<Standing>,
    /// The span that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Span>,
}

/// A job in the middle of being told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The job.
    pub follow: Follow,
    /// The position up to which its records have been given.
    pub given: u64,
    /// The number of its newest message.
    pub last_seq: u64,
}

impl LogRecord {
    /// The text that is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is JSON")
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
