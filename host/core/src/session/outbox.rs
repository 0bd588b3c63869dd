//! The one place where `event_seq` is made (ARCP §8.3).
//!
//! Records come in as they were read back from the store, each job's in its
//! own order; messages go out with dense numbers that begin at 1 and belong to
//! this session. What a record looks like to a client, and what a client did
//! not want to see, is decided here too, so that the numbers have no gaps, and
//! nothing else goes into the decision: the same records in the same order make
//! the same stream, which is what a resume rests on (§6.3).

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::{
    error::{ErrorCode, Refusal},
    id::JobId,
    job::{
        record::{End, Record},
        seen,
    },
    protocol::{
        event::{Encoding, Event},
        feature::{Feature, Features},
        json::Json,
        server::{Place, ServerMessage, Terminal},
        status::Status,
    },
    session::log::{Checkpoint, Follow, Lag, Left, LogRecord, Span, Standing},
};

/// The numbering of one session's stream.
#[derive(Debug, Default)]
pub struct Outbox {
    last_seq: u64,
    features: Features,
    jobs: HashMap<JobId, Followed>,
    /// The span that the newest number belongs to.
    open: Option<OpenSpan>,
    /// How often a job was followed.
    turns: u64,
    /// How much has been written since the last checkpoint.
    written: usize,
    ended: Ended,
}

/// The last numbers of jobs that are told no more, newest last, for listings.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(VecDeque<(JobId, u64)>);

impl Ended {
    pub(super) fn push(&mut self, job_id: JobId, last_seq: u64) {
        self.0.push_back((job_id, last_seq));
        if self.0.len() > ENDED_MAX {
            self.0.pop_front();
        }
    }

    fn last_seq_of(&self, job_id: JobId) -> Option<u64> {
        self.0.iter().rev().find(|(id, _)| *id == job_id).map(|(_, seq)| *seq)
    }
}

/// A job whose records this session is given.
#[derive(Debug)]
struct Followed {
    follow: Follow,
    /// Tells what is read for this following from what was asked for an earlier one.
    turn: u64,
    last_seq: u64,
    /// The position up to which its records have been given.
    given: u64,
    /// What was gathered of a streamed result is gone, and the records have to be read again for it.
    forgotten: bool,
    /// A streamed result put together for a client that did not negotiate `result_chunk`.
    gathered: Option<Gathered>,
}

/// The newest span: see [`super::log`].
#[derive(Debug)]
struct OpenSpan {
    job_id: JobId,
    first: u64,
    left: Left,
}

#[derive(Debug)]
enum Gathered {
    Text(String),
    /// Bytes, or more text than goes into one message.
    Unfit(&'static str),
}

/// What some records make known, and what has to be written down about their numbers.
#[derive(Debug, Default)]
pub struct Delivery {
    /// To be sent.
    pub messages: Vec<ServerMessage>,
    /// The spans that have begun.
    pub spans: Vec<Span>,
    /// Whether the spans have to be durable before the messages are sent.
    pub switched: bool,
}

/// Where to read a job's journal on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// After this position.
    After(u64),
    /// From the newest record, which is the end of a job that has ended.
    Newest,
}

/// The phase in which the job of a client is that lags (§6.5). No agent can say so.
const BACK_PRESSURE: &str = "back_pressure";

/// How many ended jobs a session remembers the last number of.
const ENDED_MAX: usize = 1024;

/// The most of a streamed result that is put together for a client without `result_chunk`.
const GATHERED_BYTES_MAX: usize = 256 << 10;

/// After how many numbers a span is begun anew though the job is the same, so that a resume need not read it all.
const MILESTONE: u64 = 1024;

impl Outbox {
    /// Begins a stream at number 1.
    #[must_use]
    pub fn new(features: Features) -> Self {
        Self { features, ..Self::default() }
    }

    /// Goes on with a stream after `last_seq`.
    pub(super) fn restored(features: Features, last_seq: u64, written: usize, ended: Ended) -> Self {
        Self { last_seq, features, written, ended, ..Self::default() }
    }

    /// The newest number.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Whether no job is followed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How much has been written since the last checkpoint, in spans.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// Begins to give this session a job's records, unless it is given them already.
    ///
    /// Says whether it began: a job that is read twice would be told twice. One with a number of its own begins a
    /// span, which needs no other record than that of the job.
    pub fn follow(&mut self, follow: Follow) -> bool {
        let job_id = follow.job_id;
        if self.jobs.contains_key(&job_id) {
            return false;
        }
        if let Some(first) = follow.first {
            self.open = Some(OpenSpan { job_id, first, left: Left { at: 0, ended: false } });
            self.written += 1;
        }
        self.stand(Standing { given: follow.after, follow, last_seq: 0 });
        true
    }

    /// Whether all that a job does is told. Of one that was submitted again only the end is (§7.2).
    pub(super) fn tells_all_of(&self, job_id: JobId) -> bool {
        self.jobs.get(&job_id).is_some_and(|job| !job.follow.only_end)
    }

    /// The submission that a followed job is told for, if it is.
    pub(super) fn request_of(&self, job_id: JobId) -> Option<String> {
        self.jobs.get(&job_id)?.follow.request.clone()
    }

    /// See [`Follow::keys_after`].
    pub(super) fn keys_after(&self, job_id: JobId) -> Option<u64> {
        self.jobs.get(&job_id)?.follow.keys_after
    }

    /// Makes a job that is followed as a subscription the session's own, if it is one, and from now on tells it of new
    /// values of the job's keys if it `has_keys`.
    pub(super) fn adopt(&mut self, job_id: JobId, request: &str, has_keys: bool) -> Option<LogRecord> {
        let job = self.jobs.get_mut(&job_id).filter(|job| job.follow.request.is_none())?;
        let keys_after = has_keys.then_some(job.given);
        (job.follow.request, job.follow.keys_after) = (Some(request.to_owned()), keys_after);
        self.written += 1;
        Some(LogRecord::Adopt { job_id, request: request.to_owned(), keys_after })
    }

    /// Ends a subscription (§7.6); gives what says so in the session's stream. A job that the session itself has begun is
    /// told to its end, and one that it submitted again is from now on told as if nobody had subscribed: its end alone.
    pub(super) fn unsubscribe(&mut self, job_id: JobId) -> Vec<LogRecord> {
        let Entry::Occupied(entry) = self.jobs.entry(job_id) else { return vec![] };
        let Follow { ordinal, only_end, request, .. } = &entry.get().follow;
        if *ordinal > 0 || (*only_end && request.is_some()) {
            return vec![];
        }
        let Followed { follow, given: at, last_seq, .. } = entry.remove();
        if let Some(open) = self.open.as_mut().filter(|open| open.job_id == job_id && !open.left.ended) {
            open.left = Left { at, ended: true };
        }
        if last_seq > 0 {
            self.ended.push(job_id, last_seq);
        }
        self.written += 1;
        let mut records = vec![LogRecord::Unfollow { job_id, at, next: self.last_seq + 1 }];
        if follow.request.is_some() {
            let follow = Follow { only_end: true, after: 0, ..follow };
            self.follow(follow.clone());
            records.push(LogRecord::Follow(follow));
        }
        records
    }

    /// Takes a job out, as if it had never been followed.
    pub(super) fn drop(&mut self, job_id: JobId) {
        self.jobs.remove(&job_id);
        // Should it be followed again, that is another span.
        if let Some(open) = self.open.as_mut().filter(|open| open.job_id == job_id) {
            open.left.ended = true;
        }
    }

    /// Goes on with a job in the middle.
    pub(super) fn stand(&mut self, Standing { follow, given, last_seq }: Standing) {
        // A client that takes chunks has nothing gathered for it.
        let forgotten = given > 0 && self.gathers();
        let turn = self.turns + 1;
        if let Entry::Vacant(vacant) = self.jobs.entry(follow.job_id) {
            self.turns = turn;
            vacant.insert(Followed { follow, turn, last_seq, given, forgotten, gathered: None });
        }
    }

    /// Which following of the job this is, if it is followed.
    pub(super) fn turn(&self, job_id: JobId) -> Option<u64> {
        self.jobs.get(&job_id).map(|job| job.turn)
    }

    /// Makes `job_id` the one whose records come next, as a span says that was written earlier.
    pub(super) fn enter(&mut self, job_id: JobId, first: u64) {
        let at = self.jobs.get(&job_id).map_or(0, |job| job.given);
        self.open = Some(OpenSpan { job_id, first, left: Left { at, ended: false } });
    }

    /// Tells the client that it lags (§6.5), as an event of the job whose message was too much. A new span begins with
    /// it, as it stands nowhere else.
    pub(super) fn signal(&mut self, job_id: JobId, lag: Lag, delivery: &mut Delivery) {
        let Some(after) = self.jobs.get(&job_id).map(|job| job.given) else { return };
        let (first, left) = (self.last_seq + 1, self.open.as_ref().map(|open| open.left));
        delivery.spans.push(Span { first, job: job_id, after, left, lag: Some(lag) });
        delivery.switched = true;
        self.written += 1;
        self.enter(job_id, first);
        delivery.messages.extend(self.signalled(job_id, lag));
    }

    /// Gives the next number to the message that the client lags. The span that it belongs to has begun.
    pub(super) fn signalled(&mut self, job_id: JobId, lag: Lag) -> Option<ServerMessage> {
        let job = self.jobs.get_mut(&job_id)?;
        let message = format!(
            "event {} was sent and only {} is acknowledged; read faster, or acknowledge what was read",
            self.last_seq, lag.acknowledged
        );
        self.last_seq += 1;
        job.last_seq = self.last_seq;
        Some(ServerMessage::Event {
            place: Place { event_seq: self.last_seq, job_id, trace_id: job.follow.trace_id },
            request: job.follow.request.clone(),
            ts: lag.at,
            event: Event::Status { phase: BACK_PRESSURE.to_owned(), message: Some(message) },
        })
    }

    /// The jobs that are followed.
    pub(super) fn followed(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    /// Where to begin to read a job's journal.
    pub(super) fn begin(&mut self, job_id: JobId) -> ReadFrom {
        let gathers = self.gathers();
        let Some(job) = self.jobs.get_mut(&job_id) else { return ReadFrom::After(0) };
        // The end of a streamed result is what was streamed, if that is put together.
        if job.given == 0 && job.follow.only_end && !gathers {
            return ReadFrom::Newest;
        }
        ReadFrom::After(if std::mem::take(&mut job.forgotten) { 0 } else { job.given })
    }

    /// Whether streamed results are put together.
    fn gathers(&self) -> bool {
        !self.features.has(Feature::ResultChunk)
    }

    /// The number of the newest message of a job, 0 if there is none yet.
    #[must_use]
    pub fn last_seq_of(&self, job_id: JobId) -> u64 {
        let followed = self.jobs.get(&job_id).map(|job| job.last_seq);
        followed.or_else(|| self.ended.last_seq_of(job_id)).unwrap_or(0)
    }

    /// Whether the newest message was a job's last.
    pub(super) fn is_settled(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.left.ended)
    }

    /// What says so in the session's stream.
    pub(super) fn settle(&mut self) -> LogRecord {
        self.written += 1;
        LogRecord::Settled { next: self.last_seq + 1 }
    }

    /// Where the stream stands, which is where it may begin later.
    pub(super) fn checkpoint(&mut self, ordinal: u64) -> Checkpoint {
        self.written = 0;
        let first = self.last_seq + 1;
        let standing = |job: &Followed| {
            let follow = Follow { first: None, ..job.follow.clone() };
            Standing { follow, given: job.given, last_seq: job.last_seq }
        };
        let open = self.open.as_ref().filter(|open| !open.left.ended);
        let open = open.map(|open| Span { first, job: open.job_id, after: open.left.at, left: None, lag: None });
        Checkpoint { first, ordinal, standing: self.jobs.values().map(standing).collect(), open }
    }

    /// Takes note that a job was read from `after` on: the records before it are nothing to this session.
    pub fn skip(&mut self, job_id: JobId, after: u64) {
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.given = job.given.max(after);
        }
    }

    /// Turns one stored record into the messages a client sees of it.
    ///
    /// A record that has been given before only puts back what was gathered.
    pub fn push(&mut self, job_id: JobId, position: u64, record: Record, delivery: &mut Delivery) {
        let gathers = self.gathers();
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        if position <= job.given {
            if gathers && let Record::Event { event: Event::ResultChunk { data, encoding, .. }, .. } = &record {
                gather(&mut job.gathered, data, *encoding);
            }
            return;
        }
        let after = std::mem::replace(&mut job.given, position);
        let (open, last_seq, written) = (&mut self.open, &mut self.last_seq, &mut self.written);
        let mut whole = true;
        let mut place = || {
            let first = *last_seq + 1;
            // A job that has ended and is followed once more is told from another place of its journal.
            let same = open.as_ref().is_some_and(|open| open.job_id == job_id && !open.left.ended);
            let far = open.as_ref().is_some_and(|open| first - open.first >= MILESTONE);
            // A span begins with a whole record.
            if std::mem::take(&mut whole) && (!same || far) {
                let left = open.replace(OpenSpan { job_id, first, left: Left { at: after, ended: false } });
                let left = left.map(|open| open.left);
                delivery.spans.push(Span { first, job: job_id, after, left, lag: None });
                delivery.switched |= !same;
                *written += 1;
            }
            *last_seq += 1;
            job.last_seq = first;
            Place { event_seq: first, job_id, trace_id: job.follow.trace_id }
        };
        let messages = &mut delivery.messages;
        let ended = matches!(record, Record::Ended { .. });
        match record {
            Record::Ended { at, end, .. } => {
                let place = place();
                let (terminal, request) = (terminal(end, job.gathered.take()), job.follow.request.clone());
                self.jobs.remove(&job_id);
                self.ended.push(job_id, place.event_seq);
                messages.push(ServerMessage::Terminal { place, request, completed_at: at, terminal });
            }
            Record::Event { event: Event::ResultChunk { data, encoding, .. }, .. } if gathers => {
                gather(&mut job.gathered, &data, encoding);
            }
            Record::Rotated { at, credential } => {
                if job.follow.keys_after.is_some_and(|from| position > from) {
                    let request = job.follow.request.clone();
                    messages.push(ServerMessage::Rotated { place: place(), request, ts: at, credential, value: None });
                }
            }
            _ if job.follow.only_end => {}
            // §6.2: "Either peer MUST NOT use a feature outside that intersection."
            Record::Event { event: Event::Progress { .. }, .. } if !self.features.has(Feature::Progress) => {}
            record => {
                for (ts, event) in seen::events(record) {
                    let request = job.follow.request.clone();
                    messages.push(ServerMessage::Event { place: place(), request, ts, event });
                }
            }
        }
        if let Some(open) = self.open.as_mut().filter(|open| open.job_id == job_id && !open.left.ended) {
            open.left = Left { at: position, ended };
        }
    }
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
        id::{CredentialId, ResultId, Ulid},
        job::record::{Called, Outcome},
        protocol::{event::Level, trace::TraceId},
        time::Timestamp,
    };

    fn job(n: u128) -> JobId {
        JobId::new(Ulid::from_parts(0, n))
    }

    fn outbox(features: &[&str]) -> Outbox {
        let offered: Vec<String> = features.iter().map(|&name| name.to_owned()).collect();
        let mut outbox = Outbox::new(Features::negotiate(&offered, &[]));
        for n in [1, 2] {
            outbox.follow(follow(n, false));
        }
        outbox
    }

    fn follow(n: u128, only_end: bool) -> Follow {
        let request = Some(format!("msg_{n}"));
        let (job_id, trace_id) = (job(n), TraceId::new(n));
        Follow { ordinal: 1, job_id, trace_id, request, only_end, first: None, after: 0, keys_after: None }
    }

    /// Gives a job its records one after the other, at positions that grow.
    fn give(outbox: &mut Outbox, n: u128, record: Record) -> Delivery {
        let mut delivery = Delivery::default();
        let position = outbox.jobs.get(&job(n)).map_or(0, |job| job.given) + 1;
        outbox.push(job(n), position, record, &mut delivery);
        delivery
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
        Record::Ended { at: Timestamp::from_millis(0), end, spent: None }
    }

    fn seqs(messages: &[ServerMessage]) -> Vec<u64> {
        let seq = |message: &ServerMessage| match message {
            ServerMessage::Event { place, .. }
            | ServerMessage::Rotated { place, .. }
            | ServerMessage::Terminal { place, .. } => place.event_seq,
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
            seen.extend(seqs(&give(&mut outbox, n, record).messages));
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
                let chunk = chunk(seq as u64, data, *encoding);
                assert!(give(&mut outbox, 1, chunk).messages.is_empty());
            }
            let messages = give(&mut outbox, 1, ended_streamed()).messages;
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
        outbox.follow(follow(1, true));
        assert!(give(&mut outbox, 1, log()).messages.is_empty());
        assert_eq!(seqs(&give(&mut outbox, 1, ended_streamed()).messages), [1]);
    }

    /// ARCP §6.3: each row is a record and the span that begins with it, as its first number, where it begins in the
    /// job's journal, and how far the one before it came.
    #[test]
    fn a_span_begins_where_the_job_changes_and_only_there() {
        let started = || Record::Started { at: Timestamp::from_millis(0) };
        type Row = (u128, Record, Option<(u64, u64, Option<(u64, bool)>)>);
        let table: Vec<Row> = vec![
            (1, started(), None), // nothing a client sees
            (1, log(), Some((1, 1, None))),
            (1, log(), None),
            (2, started(), None),
            (1, log(), None),
            (2, log(), Some((4, 1, Some((4, false))))),
            (1, started(), None), // nothing is told of it, so nothing switches
            (2, ended_streamed(), None),
            (1, log(), Some((6, 5, Some((3, true))))),
        ];
        let mut outbox = outbox(&[]);
        for (row, (n, record, expected)) in table.into_iter().enumerate() {
            let delivery = give(&mut outbox, n, record);
            let left = |left: Left| (left.at, left.ended);
            let span = delivery.spans.first().map(|span| (span.first, span.after, span.left.map(left)));
            assert_eq!((span, delivery.switched), (expected, expected.is_some()), "row {row}");
        }
    }

    /// ARCP §9.8.2, §14. Each row is one way to be told of a job, and which of three new values it is told of.
    #[test]
    fn a_new_value_of_a_key_is_told_to_who_was_given_the_key_and_to_nobody_else() {
        let rotated = || Record::Rotated { at: Timestamp::from_millis(0), credential: key() };
        for (only_end, keys_after, told) in [
            (false, Some(0), 3), // it submitted the job
            (true, Some(0), 3),  // it submitted it once more
            (false, Some(2), 1), // and was given the key when two had come
            (false, None, 0),    // it watches
            (true, None, 0),
        ] {
            let mut outbox = Outbox::new(Features::default());
            outbox.follow(Follow { keys_after, ..follow(1, only_end) });
            let messages: Vec<_> = (0..3).flat_map(|_| give(&mut outbox, 1, rotated()).messages).collect();
            let is_bare = |message: &ServerMessage| matches!(message, ServerMessage::Rotated { credential, value: None, .. } if *credential == key());
            assert_eq!(messages.len(), told, "{only_end} {keys_after:?}");
            assert!(messages.iter().all(is_bare), "what is stored has no value: {messages:?}");
            assert_eq!(outbox.last_seq(), told as u64);
        }
    }

    #[test]
    fn a_client_that_submits_what_it_watches_is_told_of_new_values_from_then_on() {
        let rotated = || Record::Rotated { at: Timestamp::from_millis(0), credential: key() };
        let mut outbox = Outbox::new(Features::default());
        outbox.follow(Follow { request: None, ..follow(1, false) });
        assert!(give(&mut outbox, 1, rotated()).messages.is_empty());
        let adopted = outbox.adopt(job(1), "again", true);
        assert!(matches!(adopted, Some(LogRecord::Adopt { keys_after: Some(1), .. })), "{adopted:?}");
        assert_eq!(give(&mut outbox, 1, rotated()).messages.len(), 1);
    }

    fn key() -> CredentialId {
        CredentialId::new(Ulid::from_parts(0, 7))
    }

    #[test]
    fn a_job_that_has_a_number_of_its_own_needs_no_span_and_a_long_one_has_milestones() {
        let mut outbox = Outbox::new(Features::default());
        outbox.follow(Follow { first: Some(1), ..follow(1, false) });
        for number in 1..=3 * MILESTONE {
            let delivery = give(&mut outbox, 1, log());
            assert!(!delivery.switched, "{number}");
            assert_eq!(delivery.spans.len(), usize::from(number > 1 && number % MILESTONE == 1), "{number}");
        }
    }
}
