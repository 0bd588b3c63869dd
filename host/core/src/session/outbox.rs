//! The one place where `event_seq` is made (ARCP §8.3).
//!
//! Records come in as they were read back from the store, each job's in its
//! own order; messages go out with dense numbers that begin at 1 and belong to
//! this session. What a record looks like to a client, and what a client did
//! not want to see, is decided here too, so that the numbers have no gaps.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::{
    error::{ErrorCode, Refusal},
    id::JobId,
    job::record::{Called, End, Outcome, Record},
    protocol::{
        event::{Encoding, Event},
        feature::{Feature, Features},
        json::Json,
        server::{Place, ServerMessage, Terminal},
        status::Status,
        trace::TraceId,
    },
    time::Timestamp,
};

/// The numbering of one session's stream.
#[derive(Debug, Default)]
pub struct Outbox {
    last_seq: u64,
    features: Features,
    jobs: HashMap<JobId, Followed>,
    /// The last numbers of jobs that ended, newest last, for listings.
    ended: VecDeque<(JobId, u64)>,
}

/// A job whose records this session is given.
#[derive(Debug)]
struct Followed {
    trace_id: TraceId,
    request: String,
    last_seq: u64,
    /// A resubmission of a finished job is answered with its end alone (§7.2).
    only_end: bool,
    /// A streamed result put together for a client that did not negotiate `result_chunk`.
    gathered: Option<Gathered>,
}

#[derive(Debug)]
enum Gathered {
    Text(String),
    /// Bytes, or more text than goes into one message.
    Unfit(&'static str),
}

/// How many ended jobs a session remembers the last number of.
const ENDED_MAX: usize = 1024;

/// The most of a streamed result that is put together for a client without `result_chunk`.
const GATHERED_BYTES_MAX: usize = 256 << 10;

impl Outbox {
    /// Begins a stream at number 1.
    #[must_use]
    pub fn new(features: Features) -> Self {
        Self { features, ..Self::default() }
    }

    /// Begins to give this session a job's records, unless it is given them already.
    ///
    /// Says whether it began: a job that is read twice would be told twice.
    pub fn follow(&mut self, job_id: JobId, trace_id: TraceId, request: String, only_end: bool) -> bool {
        let Entry::Vacant(vacant) = self.jobs.entry(job_id) else { return false };
        vacant.insert(Followed { trace_id, request, last_seq: 0, only_end, gathered: None });
        true
    }

    /// The number of the newest message of a job, 0 if there is none yet.
    #[must_use]
    pub fn last_seq_of(&self, job_id: JobId) -> u64 {
        let ended = || self.ended.iter().rev().find(|(id, _)| *id == job_id).map(|(_, seq)| *seq);
        self.jobs.get(&job_id).map(|job| job.last_seq).or_else(ended).unwrap_or(0)
    }

    /// Turns one stored record into the messages a client sees of it.
    pub fn push(&mut self, job_id: JobId, record: Record) -> Vec<ServerMessage> {
        let Some(job) = self.jobs.get_mut(&job_id) else { return Vec::new() };
        let mut messages = Vec::new();
        let mut place = || {
            self.last_seq += 1;
            job.last_seq = self.last_seq;
            Place { event_seq: self.last_seq, job_id, trace_id: job.trace_id }
        };
        match record {
            Record::Ended { at, end } => {
                let terminal = terminal(end, job.gathered.take());
                let (place, request) = (place(), job.request.clone());
                self.jobs.remove(&job_id);
                self.ended.push_back((job_id, place.event_seq));
                if self.ended.len() > ENDED_MAX {
                    self.ended.pop_front();
                }
                messages.push(ServerMessage::Terminal { place, request, completed_at: at, terminal });
            }
            _ if job.only_end => {}
            Record::Event { at, event } => match event {
                // §6.2: "Either peer MUST NOT use a feature outside that intersection."
                Event::Progress { .. } if !self.features.has(Feature::Progress) => {}
                Event::ResultChunk { data, encoding, .. } if !self.features.has(Feature::ResultChunk) => {
                    gather(&mut job.gathered, &data, encoding);
                }
                event => messages.push(ServerMessage::Event { place: place(), ts: at, event }),
            },
            Record::Called(called) => {
                for (ts, event) in seen(called) {
                    messages.push(ServerMessage::Event { place: place(), ts, event });
                }
            }
            // What a watcher learns of these, it learns from the answers to its requests.
            Record::Accepted(_)
            | Record::Started { .. }
            | Record::Resumed { .. }
            | Record::Observed(_)
            | Record::Intent(_)
            | Record::Void { .. }
            | Record::Cancelling { .. } => {}
        }
        messages
    }
}

/// A capability call as its watchers see it: the call and its result (§8.2).
fn seen(called: Called) -> [(Timestamp, Event); 2] {
    let call_id = format!("call_{:06}", called.call);
    let (result, error) = match called.outcome {
        Outcome::Done { summary, .. } => (Some(summary), None),
        Outcome::Failed { error, .. } => (None, Some(error)),
    };
    let call = Event::ToolCall { tool: called.operation, args: called.args, call_id: call_id.clone() };
    [(called.at, call), (called.at, Event::ToolResult { call_id, result, error })]
}

fn terminal(end: End, gathered: Option<Gathered>) -> Terminal {
    match (end, gathered) {
        (End::Result(result), _) => Terminal::Inline(result),
        (End::Streamed { .. }, Some(Gathered::Text(text))) => Terminal::Inline(Json::of(&text)),
        (End::Streamed { .. }, Some(Gathered::Unfit(why))) => {
            let message = format!("the result is {why}; offer the feature `result_chunk` to receive it");
            Terminal::Failed { status: Status::Error, refusal: Refusal::new(ErrorCode::InternalError, message) }
        }
        (End::Streamed { result_id, size, summary }, None) => {
            Terminal::Streamed { result_id, result_size: size, summary }
        }
        (End::Failed { status, refusal }, _) => Terminal::Failed { status, refusal },
    }
}

fn gather(gathered: &mut Option<Gathered>, data: &str, encoding: Encoding) {
    let so_far = gathered.get_or_insert_with(|| Gathered::Text(String::new()));
    match so_far {
        Gathered::Text(_) if encoding == Encoding::Base64 => *so_far = Gathered::Unfit("a stream of bytes"),
        Gathered::Text(text) if text.len() + data.len() > GATHERED_BYTES_MAX => {
            *so_far = Gathered::Unfit("too large for one message");
        }
        Gathered::Text(text) => text.push_str(data),
        Gathered::Unfit(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{ResultId, Ulid},
        protocol::event::Level,
    };

    fn job(n: u128) -> JobId {
        JobId::new(Ulid::from_parts(0, n))
    }

    fn outbox(features: &[&str]) -> Outbox {
        let offered: Vec<String> = features.iter().map(|&name| name.to_owned()).collect();
        let mut outbox = Outbox::new(Features::negotiate(&offered));
        for n in [1, 2] {
            outbox.follow(job(n), TraceId::new(n), format!("msg_{n}"), false);
        }
        outbox
    }

    fn event(event: Event) -> Record {
        Record::Event { at: Timestamp::from_millis(0), event }
    }

    fn log() -> Record {
        event(Event::Log { level: Level::Info, message: "m".into() })
    }

    fn chunk(chunk_seq: u64, data: &str, encoding: Encoding) -> Record {
        let result_id = ResultId::new(Ulid::from_parts(0, 9));
        event(Event::ResultChunk { result_id, chunk_seq, data: data.into(), encoding, more: true })
    }

    fn ended_streamed() -> Record {
        let end = End::Streamed { result_id: ResultId::new(Ulid::from_parts(0, 9)), size: 2, summary: None };
        Record::Ended { at: Timestamp::from_millis(0), end }
    }

    fn seqs(messages: &[ServerMessage]) -> Vec<u64> {
        let seq = |message: &ServerMessage| match message {
            ServerMessage::Event { place, .. } | ServerMessage::Terminal { place, .. } => place.event_seq,
            other => panic!("{other:?}"),
        };
        messages.iter().map(seq).collect()
    }

    /// ARCP §8.3: "session-scoped, strictly monotonic, and gap-free".
    #[test]
    fn the_numbers_of_interleaved_jobs_are_dense_from_one() {
        let mut outbox = outbox(&[]);
        let called = Record::Called(Called {
            at: Timestamp::from_millis(0),
            call: 1,
            operation: "fs.read".into(),
            args: Json::default(),
            outcome: Outcome::Done { summary: Json::default(), answer: None },
        });
        let progress = event(Event::Progress { current: 1, total: None, units: None, message: None });
        let mut seen = Vec::new();
        for (n, record) in [
            (1, log()),
            (2, Record::Started { at: Timestamp::from_millis(0) }), // nothing a client sees
            (2, called),                                            // a call and its result
            (1, progress),                                          // not negotiated
            (1, log()),
            (3, log()), // not followed
            (2, ended_streamed()),
            (2, log()), // a job that has ended says nothing more
        ] {
            seen.extend(seqs(&outbox.push(job(n), record)));
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!((outbox.last_seq_of(job(1)), outbox.last_seq_of(job(2)), outbox.last_seq_of(job(3))), (4, 5, 0));
    }

    /// ARCP §8.4 and §6.2: a client without `result_chunk` gets the same result inline, if it can be.
    #[test]
    fn a_streamed_result_is_put_together_for_a_client_that_cannot_take_chunks() {
        let large = "x".repeat(GATHERED_BYTES_MAX);
        for (chunks, expected) in [
            (vec![("a", Encoding::Utf8), ("b", Encoding::Utf8)], Ok("\"ab\"")),
            (vec![("YQ==", Encoding::Base64)], Err("a stream of bytes")),
            (vec![(large.as_str(), Encoding::Utf8), ("b", Encoding::Utf8)], Err("too large")),
        ] {
            let mut outbox = outbox(&[]);
            for (seq, (data, encoding)) in chunks.iter().enumerate() {
                assert!(outbox.push(job(1), chunk(seq as u64, data, *encoding)).is_empty());
            }
            let messages = outbox.push(job(1), ended_streamed());
            match (&messages[..], expected) {
                ([ServerMessage::Terminal { terminal: Terminal::Inline(result), .. }], Ok(text)) => {
                    assert_eq!(result.as_str(), text);
                }
                ([ServerMessage::Terminal { terminal: Terminal::Failed { refusal, .. }, .. }], Err(reason)) => {
                    assert!(refusal.message.contains(reason), "{refusal}");
                }
                (messages, _) => panic!("{messages:?}"),
            }
        }
    }

    /// ARCP §7.2.
    #[test]
    fn a_job_followed_for_its_end_alone_shows_nothing_else() {
        let mut outbox = Outbox::new(Features::default());
        outbox.follow(job(1), TraceId::new(1), "msg_1".into(), true);
        assert!(outbox.push(job(1), log()).is_empty());
        assert_eq!(seqs(&outbox.push(job(1), ended_streamed())), [1]);
    }
}
