//! Where the sessions of a host are, and how a client finds its own again (ARCP §6.3).
//!
//! A session is attached to a connection or parked, and what is kept of a
//! parked one in memory is a few words. Everything else stands in its stream
//! and in the journals of its jobs, so it makes no difference whether the host
//! was restarted meanwhile.
//!
//! Each welcome has a new token. The one that the client came with counts on
//! until the client is heard again: a welcome that was lost with its connection,
//! or with its host, must not have taken the session from the client.
//!
//! A session that waited longer than the resume window is forgotten, and so is
//! the oldest if too many wait.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{JobId, Principal, SessionId, Ulid},
    protocol::{client::Resume, dialect::Dialect, feature::Features},
    secret::Secret,
    session::{
        expired,
        history::{History, Refused, Resumed},
        log::{Checkpoint, LogRecord, Opened},
    },
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, Clock},
    jobs::Jobs,
    journal,
    store::{Position, Store, StoreError, StreamId},
    writer::{Mark, Writer},
};

/// The streams of sessions begin with this.
const SESSIONS: &str = "session/";

/// How many records are read at once.
const PAGE: usize = 256;

/// How long the end of a connection may take to be stored; a client that comes back waits for it.
const PARKING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a token begins with; the session's ULID and 32 hexadecimal digits follow.
const TOKEN: &str = "rt_";

/// How long and how many sessions wait for their clients.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long one waits (§6.3).
    pub resume_window: Duration,
    /// How many wait at once.
    pub parked_max: usize,
    /// How many of one principal wait at once.
    pub principal_parked_max: usize,
    /// How many of one principal are in use at once.
    pub principal_attached_max: usize,
}

/// All sessions.
pub struct Sessions {
    store: Arc<dyn Store>,
    clock: Clock,
    jobs: Arc<Jobs>,
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<SessionId, Entry>,
    /// Those that wait, the longest first.
    parked: BTreeSet<(Timestamp, SessionId)>,
    parked_of: HashMap<Principal, BTreeSet<(Timestamp, SessionId)>>,
    attached_of: Crowd,
    /// Those that nobody can resume any more, and whose streams are still there.
    forgotten: Vec<SessionId>,
}

/// How many sessions of each principal are in use.
#[derive(Default)]
struct Crowd(HashMap<Principal, usize>);

struct Entry {
    principal: Principal,
    /// SHA-256 of the newest token.
    token: [u8; 32],
    /// That of the token it was given for, until the client has shown that it was welcomed.
    used: Option<[u8; 32]>,
    presence: Presence,
}

enum Presence {
    Attached(Connection),
    Parked { since: Timestamp },
}

/// How to end the connection of a session.
#[derive(Clone, Default)]
struct Connection {
    detach: CancellationToken,
    /// It has ended and written everything down.
    gone: CancellationToken,
}

/// The right to a session. Dropped, the session is parked.
struct Seat {
    sessions: Arc<Sessions>,
    session_id: SessionId,
    connection: Connection,
    /// Since when the session counts as parked, if its client has not been welcomed.
    since: Option<Timestamp>,
}

enum Claimed {
    Free(Seat),
    Taken(Connection),
}

/// A session that is attached to a connection. Dropped, it is parked.
pub struct Attached {
    seat: Seat,
    writer: Arc<Writer>,
    opened: Opened,
    token: LogRecord,
    /// Nothing up to here is newer than the newest checkpoint.
    checkpoint: Option<Position>,
}

/// A session that was found, and the token for the next time.
pub struct Found {
    /// The session.
    pub attached: Attached,
    /// Its new token.
    pub token: Secret,
    /// What its client is to be told.
    pub resumed: Resumed,
}

/// A session as its stream tells of it.
struct Stored {
    history: History,
    last: Position,
    checkpoint: Option<Position>,
}

impl Sessions {
    /// Makes a registry without sessions.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, jobs: Arc<Jobs>, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { store, clock, jobs, bounds, state: Mutex::default() })
    }

    /// Begins a session. It can be resumed with the token when this returns.
    ///
    /// # Errors
    ///
    /// If the principal has as many sessions as it may, or the store fails.
    pub async fn open(
        self: &Arc<Self>,
        session_id: SessionId,
        principal: Principal,
        features: Features,
        dialect: &'static Dialect,
    ) -> Result<(Attached, Secret), Refusal> {
        let at = self.clock.now();
        let opened = Opened { at, principal: principal.clone(), features, dialect: dialect.name.to_owned() };
        let (secret, token, record) = fresh_token(session_id, at, None);
        let records = [LogRecord::Opened(opened.clone()), record.clone()];
        let connection = Connection::default();
        {
            let mut state = self.state();
            state.attached_of.enter(&principal, self.bounds.principal_attached_max)?;
            let presence = Presence::Attached(connection.clone());
            state.entries.insert(session_id, Entry { principal, token, used: None, presence });
        }
        let seat = Seat { sessions: Arc::clone(self), session_id, connection, since: None };
        let written = self.writer(session_id, Position::ZERO, &records).await;
        let writer = written.inspect_err(|_| self.state().remove(session_id))?;
        Ok((Attached { seat, writer, opened, token: record, checkpoint: None }, secret))
    }

    /// Finds the session that a client asks for. Whoever is attached to it is sent away.
    ///
    /// # Errors
    ///
    /// [`expired`] whatever is wrong with the token; `INVALID_REQUEST` if the client says it has more than it can have.
    /// The session is as it was then, except that nobody is attached to it.
    pub async fn resume(self: &Arc<Self>, principal: &Principal, resume: &Resume) -> Result<Found, Refusal> {
        let mut seat = loop {
            match self.claim(principal, resume)? {
                Claimed::Free(seat) => break seat,
                // What is under way there belongs to the session, and is written down first.
                Claimed::Taken(connection) => {
                    connection.detach.cancel();
                    connection.gone.cancelled().await;
                }
            }
        };
        let session_id = seat.session_id;
        let unreadable = |error: anyhow::Error| {
            tracing::error!(%session_id, error = format!("{error:#}"), "a session cannot be read");
            Refusal::new(ErrorCode::InternalError, "the host cannot read the session; try again later")
        };
        let Stored { mut history, last, checkpoint } = self.read(&stream(session_id)).await.map_err(unreadable)?;
        let missing = self.complete(session_id, &mut history).await.map_err(unreadable)?;
        let opened = history.opened().cloned();
        let resumed = self.replay(history, resume.last_event_seq).await.map_err(unreadable)?;
        let (Some(opened), Some(mut resumed)) = (opened, resumed) else {
            tracing::info!(%session_id, "what the client does not have is not kept any more");
            return Err(expired());
        };
        self.catch_up(&mut resumed).await.map_err(unreadable)??;
        // Last of all: a refusal takes nothing from the client.
        let used = digest(&resume.token);
        let (secret, token, record) = fresh_token(session_id, self.clock.now(), Some(used));
        let records: Vec<LogRecord> = missing.into_iter().chain([record.clone()]).collect();
        let writer = self.writer(session_id, last, &records).await?;
        if let Some(entry) = self.state().entries.get_mut(&session_id) {
            (entry.token, entry.used) = (token, Some(used));
        }
        seat.since = None;
        Ok(Found { attached: Attached { seat, writer, opened, token: record, checkpoint }, token: secret, resumed })
    }

    /// Writes what has to be durable before a client is welcomed, and gives the writer of what comes then.
    ///
    /// The client can be told that this failed; later it can only be kept waiting until the store works again.
    async fn writer(
        &self,
        session_id: SessionId,
        last: Position,
        records: &[LogRecord],
    ) -> Result<Arc<Writer>, Refusal> {
        let stream = stream(session_id);
        match self.store.append(&stream, last, encode(records)).await {
            Ok(last) => Ok(Writer::patient(Arc::clone(&self.store), stream, last, self.clock.clone())),
            Err(error) => {
                tracing::error!(%stream, %error, "a session cannot be stored");
                let message = "the host could not store the session; try again later";
                Err(Refusal::new(ErrorCode::InternalError, message))
            }
        }
    }

    /// Takes a parked session for a client that has its token, or says who is attached to it.
    fn claim(self: &Arc<Self>, principal: &Principal, resume: &Resume) -> Result<Claimed, Refusal> {
        // Everything is looked at whatever is wrong, and only what is in memory: a guess learns nothing from the time.
        let presented = digest(&resume.token);
        let named = named_by(&resume.token);
        let same_name = resume.session_id.as_ref().is_none_or(|id| named.is_some_and(|named| named.to_string() == *id));
        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let entry = named.and_then(|session_id| Some((session_id, state.entries.get_mut(&session_id)?)));
        let (newest, used) = entry.as_ref().map_or(([0; 32], None), |(_, entry)| (entry.token, entry.used));
        let known = newest.ct_eq(&presented) | used.unwrap_or(newest).ct_eq(&presented);
        let right = bool::from(known) && same_name;
        let Some((session_id, entry)) = entry.filter(|(_, entry)| right && entry.principal == *principal) else {
            return Err(expired());
        };
        let since = match &entry.presence {
            Presence::Attached(connection) => return Ok(Claimed::Taken(connection.clone())),
            Presence::Parked { since } => *since,
        };
        if since.saturating_add(self.bounds.resume_window) <= now {
            return Err(expired());
        }
        let connection = Connection::default();
        state.attached_of.enter(principal, self.bounds.principal_attached_max)?;
        entry.presence = Presence::Attached(connection.clone());
        state.unpark(principal, since, session_id);
        Ok(Claimed::Free(Seat { sessions: Arc::clone(self), session_id, connection, since: Some(since) }))
    }

    /// Reads a session's stream.
    async fn read(&self, stream: &StreamId) -> anyhow::Result<Stored> {
        let (mut history, mut last, mut checkpoint) = (History::default(), Position::ZERO, None);
        loop {
            let page = self.store.read(stream, last, PAGE).await?;
            let Some(newest) = page.last() else { break };
            let before = std::mem::replace(&mut last, newest.position);
            for stored in page {
                let record = LogRecord::decode(&stored.bytes)?;
                // A session is opened once, and said to have been again before each checkpoint.
                if matches!(record, LogRecord::Opened(_)) && before > Position::ZERO {
                    checkpoint = Some(before);
                }
                history.take(record);
            }
        }
        Ok(Stored { history, last, checkpoint })
    }

    /// Adds the jobs that were accepted for the session and that a kill kept from its stream.
    async fn complete(&self, session_id: SessionId, history: &mut History) -> anyhow::Result<Vec<LogRecord>> {
        let mut accepted = Vec::new();
        for job_id in self.jobs.of_session(session_id, history.ordinal()) {
            accepted.extend(journal::accepted(&*self.store, &journal::stream(job_id)).await?);
        }
        Ok(history.complete(accepted))
    }

    /// Goes to where the client stands, unless so much is not kept any more.
    async fn replay(&self, history: History, last_event_seq: u64) -> anyhow::Result<Option<Resumed>> {
        let stored = match history.open_job() {
            Some(job_id) => journal::last(&*self.store, &journal::stream(job_id)).await?,
            None => Position::ZERO,
        };
        let Some(resumed) = history.resume(last_event_seq, stored.get()) else { return Ok(None) };
        for job_id in resumed.jobs() {
            if journal::accepted(&*self.store, &journal::stream(job_id)).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(resumed))
    }

    /// Reads what the client has already.
    async fn catch_up(&self, resumed: &mut Resumed) -> anyhow::Result<Result<(), Refusal>> {
        let mut page = None;
        loop {
            match resumed.advance(page.take()) {
                Ok(None) => return Ok(Ok(())),
                Ok(Some((job_id, after))) => {
                    page = Some(journal::page(&*self.store, job_id, Position::new(after)).await?);
                }
                Err(Refused::Gone) => return Ok(Err(expired())),
                Err(Refused::Ahead(newest)) => {
                    let message = format!("`last_event_seq` is ahead of this session, whose newest event is {newest}");
                    return Ok(Err(Refusal::invalid(message)));
                }
            }
        }
    }

    /// The position in a job's journal after which a session was told it under numbers greater than `seq` (ARCP §7.6);
    /// the beginning if that is not known any more.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn position(&self, session_id: SessionId, job_id: JobId, seq: u64) -> anyhow::Result<Position> {
        if seq == 0 {
            return Ok(Position::ZERO);
        }
        let Stored { mut history, .. } = self.read(&stream(session_id)).await?;
        // What a connection has only noted yet follows from the acceptances.
        self.complete(session_id, &mut history).await?;
        let Some(mut search) = history.find(job_id, seq) else { return Ok(Position::ZERO) };
        while search.goes_on() {
            search.give(journal::page(&*self.store, job_id, Position::new(search.after())).await?);
        }
        Ok(Position::new(search.after()))
    }

    /// Reads which sessions earlier runs of the host left in the store.
    ///
    /// One whose host was killed while its client was there counts as parked since now.
    ///
    /// # Errors
    ///
    /// If the store fails. A session that cannot be read is logged and left alone.
    pub async fn recover(&self) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut after = None;
        loop {
            let page = self.store.streams(SESSIONS, after.as_ref(), PAGE).await?;
            let Some((newest, _)) = page.last() else { break };
            after = Some(newest.clone());
            for (stream, _) in page {
                if let Err(error) = self.recover_one(&stream, now).await {
                    tracing::error!(%stream, error = format!("{error:#}"), "a session cannot be read and is left alone");
                }
            }
        }
        self.expire(now).await;
        Ok(())
    }

    async fn recover_one(&self, stream: &StreamId, now: Timestamp) -> anyhow::Result<()> {
        let Stored { mut history, last, .. } = self.read(stream).await?;
        let session_id: SessionId = stream.as_str().trim_start_matches(SESSIONS).parse()?;
        // Nothing was durable of it, so its client was never welcomed.
        let (Some(opened), Some(token)) = (history.opened(), history.token()) else { return Ok(()) };
        let token = undigits(token).ok_or_else(|| anyhow::anyhow!("its token is none"))?;
        let opened = opened.clone();
        // While the jobs it was not told of are still among those that a listing knows.
        let missing = self.complete(session_id, &mut history).await?;
        if !missing.is_empty() {
            self.store.append(stream, last, encode(&missing)).await?;
        }
        let used = history.used_token().and_then(undigits);
        let (principal, since) = (opened.principal.clone(), history.parked().unwrap_or(now));
        let presence = Presence::Parked { since };
        let mut state = self.state();
        state.entries.insert(session_id, Entry { principal, token, used, presence });
        state.park(session_id, since, &self.bounds);
        Ok(())
    }

    /// Forgets the sessions whose clients have stayed away for the resume window.
    pub async fn expire(&self, now: Timestamp) {
        let forgotten = {
            let mut state = self.state();
            while let Some((since, session_id)) = state.parked.first().copied()
                && since.saturating_add(self.bounds.resume_window) <= now
            {
                state.forget(since, session_id);
            }
            std::mem::take(&mut state.forgotten)
        };
        for session_id in forgotten {
            let stream = stream(session_id);
            let removed = async {
                let last = journal::last(&*self.store, &stream).await?;
                self.store.remove(&stream, last).await
            };
            if let Err(error) = removed.await {
                tracing::warn!(%session_id, %error, "the stream of a session cannot be removed; trying again later");
                self.state().forgotten.push(session_id);
            }
        }
    }

    /// Calls [`expire`](Self::expire) now and then, for ever.
    pub async fn run(self: Arc<Self>) {
        let pause = (self.bounds.resume_window / 10).clamp(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            self.clock.sleep_until(self.clock.now().saturating_add(pause)).await;
            self.expire(self.clock.now()).await;
        }
    }

    /// How many sessions wait for their clients.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.state().parked.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets a session wait, and forgets the one that has waited longest if these are too many.
    fn park(&mut self, session_id: SessionId, since: Timestamp, bounds: &Bounds) {
        let Some(entry) = self.entries.get_mut(&session_id) else { return };
        if let Presence::Attached(_) = std::mem::replace(&mut entry.presence, Presence::Parked { since }) {
            self.attached_of.leave(&entry.principal);
        }
        self.parked.insert((since, session_id));
        let mine = self.parked_of.entry(entry.principal.clone()).or_default();
        mine.insert((since, session_id));
        let too_many = mine.first().copied().filter(|_| mine.len() > bounds.principal_parked_max);
        if let Some((since, session_id)) = too_many {
            self.forget(since, session_id);
        }
        if self.parked.len() > bounds.parked_max
            && let Some((since, session_id)) = self.parked.first().copied()
        {
            self.forget(since, session_id);
        }
    }

    fn unpark(&mut self, principal: &Principal, since: Timestamp, session_id: SessionId) {
        self.parked.remove(&(since, session_id));
        if let Some(mine) = self.parked_of.get_mut(principal) {
            mine.remove(&(since, session_id));
            if mine.is_empty() {
                self.parked_of.remove(principal);
            }
        }
    }

    /// Takes out a session that is in use.
    fn remove(&mut self, session_id: SessionId) {
        if let Some(entry) = self.entries.remove(&session_id) {
            self.attached_of.leave(&entry.principal);
            self.forgotten.push(session_id);
        }
    }

    fn forget(&mut self, since: Timestamp, session_id: SessionId) {
        if let Some(entry) = self.entries.remove(&session_id) {
            self.unpark(&entry.principal, since, session_id);
            self.forgotten.push(session_id);
        }
    }
}

impl Crowd {
    fn enter(&mut self, principal: &Principal, most: usize) -> Result<(), Refusal> {
        let mine = self.0.entry(principal.clone()).or_default();
        if *mine >= most {
            let message = format!(
                "{mine} sessions of `{principal}` are in use, the most one principal may have ([server] \
                 principal_sessions_max); close one, or try again later"
            );
            return Err(Refusal::new(ErrorCode::InternalError, message));
        }
        *mine += 1;
        Ok(())
    }

    fn leave(&mut self, principal: &Principal) {
        let Some(mine) = self.0.get_mut(principal) else { return };
        *mine = mine.saturating_sub(1);
        if *mine == 0 {
            self.0.remove(principal);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let sessions = Arc::clone(&self.sessions);
        let since = self.since.unwrap_or_else(|| sessions.clock.now());
        sessions.state().park(self.session_id, since, &sessions.bounds);
        self.connection.gone.cancel();
    }
}

impl Attached {
    /// The session.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.seat.session_id
    }

    /// Whether it is not known that the client has had its welcome.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        matches!(self.token, LogRecord::Token { used: Some(_), .. })
    }

    /// Takes note that the client has had its welcome, so that the token it came with is worth nothing any more.
    pub fn heard(&mut self) {
        let LogRecord::Token { used: used @ Some(_), .. } = &mut self.token else { return };
        *used = None;
        if let Some(entry) = self.seat.sessions.state().entries.get_mut(&self.seat.session_id) {
            entry.used = None;
        }
        // The next host is to know it, too; until it does, a token that was used counts once more.
        if let Err(error) = self.append(std::slice::from_ref(&self.token)) {
            tracing::warn!(session_id = %self.session_id(), %error, "a session cannot be stored");
        }
    }

    /// Set when the client has come back on another connection.
    #[must_use]
    pub fn detached(&self) -> &CancellationToken {
        &self.seat.connection.detach
    }

    /// The writer of the session's stream.
    #[must_use]
    pub fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// Appends records, to be durable soon.
    ///
    /// # Errors
    ///
    /// If the store has failed.
    pub fn append(&self, records: &[LogRecord]) -> Result<Mark, StoreError> {
        self.writer.append(encode(records))
    }

    /// Appends a checkpoint, and sees to it that what is before the one before it is forgotten.
    ///
    /// # Errors
    ///
    /// If the store has failed.
    pub fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let before = self.writer.last();
        let opened = LogRecord::Opened(self.opened.clone());
        let mark = self.append(&[opened, self.token.clone(), LogRecord::Checkpoint(checkpoint)])?;
        let Some(up_to) = self.checkpoint.replace(before) else { return Ok(()) };
        let (writer, store) = (Arc::clone(&self.writer), Arc::clone(&self.seat.sessions.store));
        tokio::spawn(async move {
            let trimmed = match writer.durable(mark).await {
                Ok(()) => store.trim(writer.stream(), up_to).await,
                Err(error) => Err(error),
            };
            if let Err(error) = trimmed {
                tracing::warn!(stream = %writer.stream(), %error, "the stream of a session cannot be trimmed");
            }
        });
        Ok(())
    }

    /// Writes down that the client is gone, after `noted`, and lets the session wait for it.
    pub async fn park(self, noted: &[LogRecord]) {
        let at = self.seat.sessions.clock.now();
        let records: Vec<LogRecord> = noted.iter().cloned().chain([LogRecord::Parked { at }]).collect();
        // What is stored tells all the same where the session stands.
        match timeout(PARKING_TIMEOUT, self.write(&records)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(session_id = %self.seat.session_id, %error, "the end of a connection could not be stored");
            }
            Err(_) => {
                tracing::warn!(session_id = %self.seat.session_id, "the end of a connection could not be stored in time");
            }
        }
    }

    async fn write(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let mark = self.append(records)?;
        self.writer.durable(mark).await
    }

    /// Forgets a session that nothing has been asked of.
    pub fn discard(self) {
        self.seat.sessions.state().remove(self.seat.session_id);
    }
}

fn encode(records: &[LogRecord]) -> Vec<Bytes> {
    records.iter().map(|record| Bytes::from(record.encode())).collect()
}

fn stream(session_id: SessionId) -> StreamId {
    StreamId::new(&format!("{SESSIONS}{session_id}")).expect("a session id is a stream name")
}

/// Makes a token: the secret, its digest, and the record of it.
fn fresh_token(session_id: SessionId, at: Timestamp, used: Option<[u8; 32]>) -> (Secret, [u8; 32], LogRecord) {
    let session = session_id.to_string();
    let ulid = session.rsplit('_').next().unwrap_or_default();
    let secret = Secret::new(format!("{TOKEN}{ulid}_{:032x}", clock::random_u128()));
    let token = digest(&secret);
    (secret, token, LogRecord::Token { at, sha256: digits(token), used: used.map(digits) })
}

/// Writes a digest as it stands in a record.
fn digits(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}

/// The session that a token names.
fn named_by(token: &Secret) -> Option<SessionId> {
    let (ulid, _) = token.expose().strip_prefix(TOKEN)?.split_once('_')?;
    Some(SessionId::new(Ulid::from_string(ulid).ok()?))
}

/// Reads a digest as it stands in a record.
fn undigits(text: &str) -> Option<[u8; 32]> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}
