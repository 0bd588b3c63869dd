//! What a session's client was told, made again from what is stored (ARCP §6.3).
//!
//! [`History`] is what the session's own stream says. [`Replay`] reads the
//! journals of the jobs in the order in which the session was given them, and
//! the [`Outbox`] makes the same messages with the same numbers. What the
//! client has is dropped; what was never sent is sent now.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{
    log::{Checkpoint, Follow, Lag, Left, LogRecord, Opened, Span, Standing},
    outbox::{Delivery, Ended, Outbox, ReadFrom},
};
use crate::{
    id::JobId,
    job::record::{Accepted, Record},
    protocol::{
        dialect::{self, Dialect},
        feature::Features,
        server::ServerMessage,
    },
    time::Timestamp,
};

/// As how many spans a resume counts: a client that does nothing but come back must not make its stream longer and
/// longer, as all of it is read each time.
const RESUME_WEIGHT: usize = 16;

/// What a session's stream says, record by record.
#[derive(Debug, Default)]
pub struct History {
    opened: Option<Opened>,
    token: Option<String>,
    used: Option<String>,
    parked: Option<Timestamp>,
    /// The first number that can be made again.
    floor: u64,
    /// The newest submission that is known.
    ordinal: u64,
    follows: Vec<Follow>,
    segments: Vec<Segment>,
    /// The jobs that are followed, by what is known: the end of the open segment's job is not.
    standing: HashMap<JobId, Place>,
    /// The next number, if the job of the newest segment is known to have been told to its end.
    settled: Option<u64>,
    /// How much has been written since the newest checkpoint.
    written: usize,
    ended: Ended,
}

/// How far a followed job has come.
#[derive(Clone, Copy, Debug)]
struct Place {
    follow: usize,
    given: u64,
    last_seq: u64,
}

/// A span and where it ends.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    follow: usize,
    after: u64,
    until: Until,
    /// The message it begins with, if that stands in no journal.
    lag: Option<Lag>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    /// Up to this position: where the next span begins, or what was stored when the client came back.
    Position(u64),
    /// To the end of the job.
    End,
}

impl History {
    /// Takes in the next record.
    pub fn take(&mut self, record: LogRecord) {
        if let LogRecord::Opened(opened) = record {
            self.floor = self.floor.max(1);
            self.opened.get_or_insert(opened);
            return;
        }
        // What is left of before a checkpoint, whose own records begin as those of a session do.
        if self.opened.is_none() {
            return;
        }
        self.parked = None;
        match record {
            LogRecord::Opened(_) => {}
            LogRecord::Token { sha256, used, .. } => {
                (self.token, self.used) = (Some(sha256), used);
                self.written += RESUME_WEIGHT;
            }
            LogRecord::Parked { at } => self.parked = Some(at),
            LogRecord::Follow(follow) => self.follow(follow),
            LogRecord::Spans(spans) => spans.into_iter().for_each(|span| self.span(&span)),
            LogRecord::Adopt { job_id, request, keys_after } => {
                self.written += 1;
                if let Some(place) = self.standing.get(&job_id) {
                    let follow = &mut self.follows[place.follow];
                    (follow.request, follow.keys_after) = (Some(request), keys_after);
                }
            }
            LogRecord::Unfollow { job_id, at, next } => self.unfollow(job_id, at, next),
            LogRecord::Settled { next } => self.settle(next),
            LogRecord::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
        }
    }

    /// Takes in the jobs that were accepted for the session and are not in its stream, because its host was killed
    /// before it had written them there. Returns what has to be written.
    ///
    /// `accepted` are all jobs of the session. Those that the stream knows, or knew before it was trimmed, are
    /// recognised by their ordinals, which grow.
    pub fn complete(&mut self, mut accepted: Vec<Accepted>) -> Vec<LogRecord> {
        accepted.retain(|accepted| accepted.ordinal > self.ordinal);
        accepted.sort_by_key(|accepted| accepted.ordinal);
        let mut missing = Vec::new();
        for accepted in accepted {
            let newest = self.segments.last().map_or(0, |segment| segment.first);
            let follow = Follow {
                ordinal: accepted.ordinal,
                job_id: accepted.job_id,
                trace_id: accepted.trace_id,
                request: Some(accepted.request_id),
                only_end: false,
                // A span that was written down is about what was really sent.
                first: accepted.first_seq.filter(|first| *first > newest),
                after: 0,
                keys_after: (!accepted.credentials.is_empty()).then_some(0),
            };
            missing.push(LogRecord::Follow(follow.clone()));
            self.follow(follow);
        }
        missing
    }

    /// What the session is, if the stream is one.
    #[must_use]
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.as_ref()
    }

    /// SHA-256 of the newest token.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// SHA-256 of the token for which the newest was given.
    #[must_use]
    pub fn used_token(&self) -> Option<&str> {
        self.used.as_deref()
    }

    /// Since when its client is gone, if that was written down.
    #[must_use]
    pub fn parked(&self) -> Option<Timestamp> {
        self.parked
    }

    /// The newest submission that is known.
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// The job of the newest span, whose records may have been sent as far as they are stored; unless all of it was.
    #[must_use]
    pub fn open_job(&self) -> Option<JobId> {
        if self.settled.is_some() {
            return None;
        }
        self.segments.last().map(|segment| self.follows[segment.follow].job_id)
    }

    /// Looks for the place in a job's journal after which the session was told it under numbers greater than `seq`.
    ///
    /// Returns `None` if the session was told nothing of the job, or that is not known any more.
    #[must_use]
    pub fn find(&self, job_id: JobId, seq: u64) -> Option<Search> {
        let opened = self.opened.as_ref().filter(|_| seq.saturating_add(1) >= self.floor)?;
        let is_of = |segment: &&Segment| self.follows[segment.follow].job_id == job_id;
        let later = self.segments.iter().filter(is_of).find(|segment| segment.first > seq).map(|segment| segment.after);
        let at = self.segments.iter().rposition(|segment| is_of(&segment) && segment.first <= seq);
        let Some(at) = at else { return later.map(|after| Search { job_id, seq, after, outbox: None }) };
        let Segment { first, follow, after, until, lag } = self.segments[at];
        if self.segments.get(at + 1).is_some_and(|next| next.first <= seq.saturating_add(1)) {
            let until = if let Until::Position(until) = until { until } else { u64::MAX };
            return Some(Search { job_id, seq, after: later.unwrap_or(until), outbox: None });
        }
        let mut outbox = Outbox::restored(opened.features.clone(), first - 1, 0, Ended::default());
        outbox.stand(Standing { follow: self.follows[follow].clone(), given: after, last_seq: 0 });
        outbox.enter(job_id, first);
        lag.and_then(|lag| outbox.signalled(job_id, lag));
        let outbox = Some(Box::new(outbox)).filter(|outbox| outbox.last_seq() < seq);
        Some(Search { job_id, seq, after, outbox })
    }

    /// Begins to make the stream again for a client that has everything up to `last_event_seq`.
    ///
    /// `stored` is the last position in the journal of [`open_job`](Self::open_job): what stands there may have been
    /// sent, so it is told before anything else is.
    ///
    /// Returns `None` if so much is not kept any more.
    #[must_use]
    pub fn resume(mut self, last_event_seq: u64, stored: u64) -> Option<Resumed> {
        let opened = self.opened?;
        if last_event_seq.saturating_add(1) < self.floor {
            return None;
        }
        if let Some(open) = self.segments.last_mut().filter(|_| self.settled.is_none()) {
            open.until = Until::Position(stored);
        }
        let next = last_event_seq.saturating_add(1);
        let begin = match self.settled {
            // It has everything, and needs no journal for that.
            Some(settled) if next >= settled => self.segments.len(),
            _ => self.segments.partition_point(|segment| segment.first <= next).saturating_sub(1),
        };
        let segments: VecDeque<Segment> = self.segments.drain(begin..).collect();
        let last_seq = segments.front().map_or(self.settled.unwrap_or(self.floor), |segment| segment.first) - 1;
        let replayed: HashSet<usize> = segments.iter().map(|segment| segment.follow).collect();
        let follows = &self.follows;
        // A job that a segment is about stands where that segment begins, and not yet where it ends.
        let standing = |place: &&Place| !replayed.contains(&place.follow);
        let standing = self.standing.values().filter(standing).map(|place| Standing {
            follow: follows[place.follow].clone(),
            given: place.given,
            last_seq: place.last_seq,
        });
        let standing = standing.collect();
        let alive = self.standing.values().map(|place| place.follow).collect();
        let outbox = Outbox::restored(opened.features.clone(), last_seq, self.written, self.ended);
        let (skip, entered) = (last_event_seq, HashMap::new());
        let replay = Replay { segments, follows: self.follows, standing, alive, entered, skip, cursor: None };
        Some(Resumed {
            dialect: dialect::named(&opened.dialect),
            features: opened.features,
            ordinal: self.ordinal,
            outbox,
            replay,
            first: Vec::new(),
        })
    }

    fn follow(&mut self, follow: Follow) {
        self.ordinal = self.ordinal.max(follow.ordinal);
        let (index, job_id, first, given) = (self.follows.len(), follow.job_id, follow.first, follow.after);
        self.follows.push(follow);
        if let Some(first) = first {
            // Nothing else was followed, so the job before has been told to its end.
            self.close(first, Left { at: u64::MAX, ended: true });
            self.settled = None;
            self.segments.push(Segment { first, follow: index, after: 0, until: Until::End, lag: None });
            self.written += 1;
        }
        self.standing.insert(job_id, Place { follow: index, given, last_seq: 0 });
    }

    /// Ends a subscription, and the newest segment if that is about it.
    fn unfollow(&mut self, job_id: JobId, at: u64, next: u64) {
        self.written += 1;
        let newest = self.segments.last().zip(self.standing.get(&job_id));
        if newest.is_some_and(|(segment, place)| segment.follow == place.follow) && self.settled.is_none() {
            self.close(next, Left { at, ended: true });
            self.settled = Some(next);
        }
        // Unless that was its end, other jobs have been told since.
        if let Some(place) = self.standing.remove(&job_id).filter(|place| place.last_seq > 0) {
            self.ended.push(job_id, place.last_seq);
        }
    }

    fn span(&mut self, span: &Span) {
        if let Some(left) = span.left {
            self.close(span.first, left);
        }
        self.settled = None;
        // A span comes after the record of its job in the same stream.
        let Some(place) = self.standing.get_mut(&span.job) else { return };
        place.given = place.given.max(span.after);
        let follow = place.follow;
        let Span { first, after, lag, .. } = *span;
        self.segments.push(Segment { first, follow, after, until: Until::End, lag });
        self.written += 1;
    }

    /// Ends the newest segment where the next begins.
    fn close(&mut self, next: u64, left: Left) {
        if self.settled.is_some() {
            return;
        }
        let Some(segment) = self.segments.last_mut() else { return };
        segment.until = if left.at == u64::MAX { Until::End } else { Until::Position(left.at) };
        let job_id = self.follows[segment.follow].job_id;
        // The job may have been followed a second time, for its end alone, since it ended.
        let Some(place) = self.standing.get_mut(&job_id).filter(|place| place.follow == segment.follow) else { return };
        (place.given, place.last_seq) = (left.at, next - 1);
        if left.ended {
            self.standing.remove(&job_id);
            self.ended.push(job_id, next - 1);
        }
    }

    /// Ends the newest segment where the stream does.
    fn settle(&mut self, next: u64) {
        self.written += 1;
        if self.segments.last().is_some_and(|segment| segment.first < next) {
            self.close(next, Left { at: u64::MAX, ended: true });
            self.settled = Some(next);
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.written = 0;
        // One in the middle says what is known already.
        if !self.follows.is_empty() {
            return;
        }
        (self.floor, self.ordinal) = (checkpoint.first, checkpoint.ordinal);
        for Standing { follow, given, last_seq } in checkpoint.standing {
            self.standing.insert(follow.job_id, Place { follow: self.follows.len(), given, last_seq });
            self.follows.push(follow);
        }
        if let Some(open) = checkpoint.open {
            self.span(&open);
            self.written = 0;
        }
    }
}

/// A session as its client finds it again.
#[derive(Debug)]
pub struct Resumed {
    /// How the client reads.
    pub dialect: &'static Dialect,
    /// What was negotiated.
    pub features: Features,
    /// The newest submission that is known.
    pub ordinal: u64,
    /// The numbering, at the beginning of what is replayed.
    pub outbox: Outbox,
    /// What is still to be read.
    pub replay: Replay,
    /// What has been read and the client does not have.
    pub first: Vec<ServerMessage>,
}

/// The search for the place of a number in a job's journal.
#[derive(Debug)]
pub struct Search {
    job_id: JobId,
    seq: u64,
    after: u64,
    /// Counts, until the number has come; `None` if it has.
    outbox: Option<Box<Outbox>>,
}

impl Search {
    /// The position that was found, or that up to which the search has come.
    #[must_use]
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Whether more of the journal, after [`Search::after`], is needed.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.outbox.is_some()
    }

    /// Takes in what stands there; nothing, if that is the journal's end.
    pub fn give(&mut self, records: Vec<(u64, Record)>) {
        if records.is_empty() {
            self.outbox = None;
        }
        for (position, record) in records {
            let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.last_seq() < self.seq) else { break };
            outbox.push(self.job_id, position, record, &mut Delivery::default());
            self.after = position;
        }
        if self.outbox.as_ref().is_some_and(|outbox| outbox.last_seq() >= self.seq) {
            self.outbox = None;
        }
    }
}

/// The way from where a client stands to where its session does.
#[derive(Debug)]
pub struct Replay {
    segments: VecDeque<Segment>,
    follows: Vec<Follow>,
    /// The jobs that are followed and not replayed.
    standing: Vec<Standing>,
    /// The followings that are not over, but for the end of a job that the newest segment is about.
    alive: HashSet<usize>,
    /// Which following of each replayed job was the last.
    entered: HashMap<JobId, usize>,
    /// The newest number that the client has.
    skip: u64,
    /// How far the first segment has been read; `None` if it has not been begun.
    cursor: Option<u64>,
}

/// The journals do not hold any more what the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a journal does not hold any more what the client was told of it")]
pub struct Gone;

impl Resumed {
    /// Reads what the client has already, so that it is known whether it can have it, before it is welcomed.
    ///
    /// To be called with what the last call asked for, at first with nothing, until it asks for nothing.
    ///
    /// # Errors
    ///
    /// If the client has more than it can have been told, or a journal is gone.
    pub fn advance(&mut self, page: Option<Vec<(u64, Record)>>) -> Result<Option<(JobId, u64)>, Refused> {
        if let Some(records) = page {
            self.first.extend(self.replay.give(&mut self.outbox, records)?.messages);
        }
        if self.outbox.last_seq() >= self.replay.skip {
            return Ok(None);
        }
        let next = self.replay.next(&mut self.outbox, &mut self.first)?;
        if next.is_none() && self.outbox.last_seq() < self.replay.skip {
            // All that is stored is less than what the client says it has.
            return Err(Refused::Ahead(self.outbox.last_seq()));
        }
        Ok(next)
    }

    /// The jobs whose journals the session still needs.
    #[must_use]
    pub fn jobs(&self) -> HashSet<JobId> {
        let replayed = self.replay.segments.iter().map(|segment| self.replay.follows[segment.follow].job_id);
        replayed.chain(self.replay.standing.iter().map(|standing| standing.follow.job_id)).collect()
    }
}

/// Why a session cannot be resumed from where its client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A journal is gone.
    Gone,
    /// The client says it has more than this, which is all there is.
    Ahead(u64),
}

impl From<Gone> for Refused {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Replay {
    /// The newest number that the client has.
    pub(super) fn skipped(&self) -> u64 {
        self.skip
    }

    /// What to read next: a job's journal after a position, as far as it is stored. `None` at the end.
    ///
    /// What is to be sent before that, because it stands in no journal, is put to `messages`.
    ///
    /// # Errors
    ///
    /// If the numbers do not come out.
    pub fn next(
        &mut self,
        outbox: &mut Outbox,
        messages: &mut Vec<ServerMessage>,
    ) -> Result<Option<(JobId, u64)>, Gone> {
        loop {
            let Some(segment) = self.segments.front() else {
                // A client that has unsubscribed may have subscribed again since, or not.
                for (job_id, follow) in self.entered.drain() {
                    if !self.alive.contains(&follow) {
                        outbox.drop(job_id);
                    }
                }
                for standing in self.standing.drain(..) {
                    outbox.stand(standing);
                }
                return Ok(None);
            };
            let follow = &self.follows[segment.follow];
            let after = match self.cursor {
                Some(cursor) => cursor,
                None => {
                    if segment.first != outbox.last_seq() + 1 {
                        return Err(Gone);
                    }
                    let earlier = self.entered.insert(follow.job_id, segment.follow);
                    if earlier.is_some_and(|earlier| earlier != segment.follow) {
                        outbox.drop(follow.job_id);
                    }
                    let standing = Standing { follow: follow.clone(), given: segment.after, last_seq: 0 };
                    outbox.stand(standing);
                    outbox.enter(follow.job_id, segment.first);
                    if let Some(lag) = segment.lag {
                        let told = outbox.signalled(follow.job_id, lag);
                        messages.extend(told.filter(|_| outbox.last_seq() > self.skip));
                    }
                    match outbox.begin(follow.job_id) {
                        ReadFrom::After(after) => after,
                        ReadFrom::Newest => segment.after,
                    }
                }
            };
            self.cursor = Some(after);
            if !matches!(segment.until, Until::Position(until) if after >= until) {
                return Ok(Some((follow.job_id, after)));
            }
            self.leave();
        }
    }

    /// Gives what was read to the outbox; the messages that the client does not have come out.
    ///
    /// # Errors
    ///
    /// If there should have been more to read.
    pub fn give(&mut self, outbox: &mut Outbox, records: Vec<(u64, Record)>) -> Result<Delivery, Gone> {
        let mut delivery = Delivery::default();
        let (Some(segment), false) = (self.segments.front(), records.is_empty()) else { return Err(Gone) };
        let newest = self.segments.len() == 1;
        let (job_id, until, mut over) = (self.follows[segment.follow].job_id, segment.until, false);
        for (position, record) in records {
            if matches!(until, Until::Position(until) if position > until) {
                over = true;
                break;
            }
            over = matches!(record, Record::Ended { .. });
            outbox.push(job_id, position, record, &mut delivery);
            self.cursor = Some(position);
            if over {
                break;
            }
        }
        if over {
            self.leave();
        }
        // Where spans began is written already, but not that the newest has grown long meanwhile.
        if !newest {
            delivery.spans.clear();
        }
        let skip = self.skip;
        delivery.messages.retain(|message| message.event_seq().is_none_or(|seq| seq > skip));
        Ok(delivery)
    }

    fn leave(&mut self) {
        self.segments.pop_front();
        self.cursor = None;
    }
}
