//! What an agent can reach: one file a namespace, and the context of one job that they share.
//!
//! A capability that carries authority has one shape: parse the agent's words
//! into an operation, ask the gate for a permit, give the permit to the effect,
//! write down what came of it. The shape is `JobCtx::call`; the files differ
//! in the words and the effect.

pub mod bindings;
mod events;
mod fs;
mod job;
mod metrics;
pub mod mounts;
mod output;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use leasehold_core::{
    error::ErrorCode,
    id::{ResultId, Ulid},
    job::{
        chunks::{self, Chunks},
        record::{Accepted, Answer, Called, Intent, Outcome, Record},
    },
    lease::{
        amount::{Currency, Decimal},
        gate::{Denied, Gate, Permit},
        operation::Operation,
        target::TargetError,
    },
    protocol::{
        event::{Event, ToolError},
        json::Json,
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{HasSelf, Linker};

use self::{
    bindings::types::{self, Error},
    mounts::{FileError, Mounts},
};
use crate::{
    clock::Clock,
    journal::{Journal, JournalError, store_blob},
    sandbox::{inert_wasi::InertWasi, limits::Limits},
    store::Store,
};

/// An answer up to this size stands in the journal itself, a larger one in a stream of its own.
const INLINE_ANSWER_BYTES_MAX: usize = 8 << 10;

/// What all jobs of a host share.
pub struct World {
    /// The time.
    pub clock: Clock,
    /// The files.
    pub mounts: Arc<Mounts>,
    /// The bounds.
    pub limits: Limits,
    /// Their name: equal for equal limits. The limits themselves stand in a stream of that name.
    pub limits_name: String,
    /// Where journals and large answers go.
    pub store: Arc<dyn Store>,
    /// One permit a file effect under way: effects that hang in a file system leave threads for everything else.
    effects: Arc<Semaphore>,
    /// The memory of all agents together.
    memory: Arc<AtomicUsize>,
}

impl World {
    /// Makes the world of one host.
    #[must_use]
    pub fn new(clock: Clock, mounts: Arc<Mounts>, limits: Limits, store: Arc<dyn Store>) -> Self {
        let effects = Arc::new(Semaphore::new(limits.effects_max.clamp(1, Semaphore::MAX_PERMITS)));
        let limits_name = limits.digest();
        Self { clock, mounts, limits, limits_name, store, effects, memory: Arc::default() }
    }
}

/// What the runner and the agent's context tell each other.
#[derive(Debug, Default)]
pub struct Control {
    /// Set when the client asks for cancellation (ARCP §7.4).
    pub cancel: CancellationToken,
    /// Whether cancellation was asked for, and so need not be written down again.
    pub asked_to_cancel: AtomicBool,
    /// Whether an operation was refused because the lease had ended (ARCP §9.5).
    pub met_expiry: AtomicBool,
    /// Whether the job is over: an effect that has not begun by then does not begin.
    pub over: AtomicBool,
}

/// One running job, as its agent's host functions see it.
pub struct JobCtx {
    world: Arc<World>,
    accepted: Arc<Accepted>,
    control: Arc<Control>,
    journal: Arc<Journal>,
    gate: Gate,
    chunks: Chunks,
    calls: u64,
    /// The counters as last reported by `cost.budget.remaining`.
    reported: BTreeMap<Currency, Decimal>,
    /// Currencies of costs that no budget bounds, of which the job was warned.
    unbounded: BTreeSet<Currency>,
    /// The call whose intent was written and whose outcome was not.
    under_way: Option<Intent>,
    wasi: InertWasi,
    memory: MemoryTotal,
}

/// All linear memories of one agent, counted together: a limit for each would
/// be no limit for an agent with many.
#[derive(Debug)]
pub struct MemoryTotal {
    bytes: usize,
    bytes_max: usize,
    /// All agents of the host.
    host: Arc<AtomicUsize>,
    host_bytes_max: usize,
    table_elements_max: usize,
}

impl Drop for MemoryTotal {
    fn drop(&mut self) {
        self.host.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl wasmtime::ResourceLimiter for MemoryTotal {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let total = self.bytes.saturating_add(more);
        if total > self.bytes_max {
            return Ok(false);
        }
        let admit = |host: usize| host.checked_add(more).filter(|host| *host <= self.host_bytes_max);
        let fits = self.host.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok();
        if fits {
            self.bytes = total;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements_max)
    }
}

/// Links the world of `/wit`.
///
/// # Errors
///
/// If something has been linked under one of its names.
pub fn add_to_linker(linker: &mut Linker<JobCtx>) -> wasmtime::Result<()> {
    bindings::Agent::add_to_linker::<JobCtx, HasSelf<JobCtx>>(linker, |job| job)
}

impl types::Host for JobCtx {}

/// A call in the words of its watchers.
struct Asked {
    /// Such as `fs.read`.
    operation: &'static str,
    /// An object.
    args: Json,
    /// Whether doing it twice is as good as once; if not, the intent is made durable first.
    repeatable: bool,
}

/// What a successful call leaves in the journal.
trait Reported {
    /// What a watcher is told.
    fn summary(&self) -> Json;

    /// What the agent is told, for a replay.
    fn answer(&self) -> Told;
}

/// The answer of a call, before it is decided where it is kept.
enum Told {
    Nothing,
    Json(Json),
    Bytes(Vec<u8>),
}

/// Why a call did not happen, with the codes of both worlds.
struct Failure {
    told: types::ErrorCode,
    shown: ErrorCode,
    message: String,
}

impl JobCtx {
    /// Makes the context of a job that is about to start.
    #[must_use]
    pub fn new(
        world: Arc<World>,
        accepted: Arc<Accepted>,
        control: Arc<Control>,
        journal: Arc<Journal>,
        result: Ulid,
    ) -> Self {
        let limits = &world.limits;
        let chunks =
            chunks::Limits { chunk_bytes_max: limits.chunk_bytes_max, total_bytes_max: limits.stream_bytes_max };
        let memory = MemoryTotal {
            bytes: 0,
            bytes_max: limits.memory_bytes_max,
            host: Arc::clone(&world.memory),
            host_bytes_max: limits.memory_total(),
            table_elements_max: limits.table_elements_max,
        };
        Self {
            gate: Gate::new(accepted.authority.clone()),
            chunks: Chunks::new(ResultId::new(result), chunks),
            calls: 0,
            reported: accepted.budget(),
            unbounded: BTreeSet::new(),
            under_way: None,
            wasi: InertWasi::new(&journal, &world.clock, limits),
            memory,
            world,
            accepted,
            control,
            journal,
        }
    }

    /// The agent's WASI.
    pub fn wasi(&mut self) -> &mut InertWasi {
        &mut self.wasi
    }

    /// The agent's memory, as the engine asks.
    pub fn memory(&mut self) -> &mut MemoryTotal {
        &mut self.memory
    }

    /// The streamed result, once the agent has returned.
    pub fn chunks(&mut self) -> &mut Chunks {
        &mut self.chunks
    }

    /// Writes down that nobody knows what came of the call that was under way when the agent was ended.
    pub fn abandon(&mut self) {
        let Some(Intent { call, operation, args, .. }) = self.under_way.take() else { return };
        let failure = Failure {
            told: types::ErrorCode::UnknownOutcome,
            shown: ErrorCode::InternalError,
            message: "the job ended while the call was under way".to_owned(),
        };
        let outcome = failure.outcome();
        let called = Called { at: self.world.clock.now(), call, operation, args, outcome };
        // A journal that takes no more is why the job ended, and says so itself.
        let _ = self.journal.append(&Record::Called(called));
    }

    /// Asks for a permit, does the effect on a thread that may block, and writes down what came of it.
    ///
    /// The order is the house's: gate, then intent, then effect, then outcome,
    /// then the agent. A refusal is a value like any other outcome.
    async fn call<Op, T>(
        &mut self,
        asked: Asked,
        op: Result<Op, TargetError>,
        effect: impl FnOnce(&Mounts, Permit<Op>) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, Error>
    where
        Op: Operation + Send + 'static,
        T: Reported + Send + 'static,
    {
        self.journal.room().await.map_err(broken)?;
        self.calls += 1;
        let result = match op.map_err(Failure::from).and_then(|op| self.permit(op)) {
            Ok(permit) => self.perform(&asked, permit, effect).await?,
            Err(failure) => Err(failure),
        };
        self.under_way = None;
        let outcome = match &result {
            Ok(value) => {
                let answer = self.kept(value.answer()).await?;
                Outcome::Done { summary: value.summary(), answer }
            }
            Err(failure) => failure.outcome(),
        };
        let called = Called {
            at: self.world.clock.now(),
            call: self.calls,
            operation: asked.operation.into(),
            args: asked.args,
            outcome,
        };
        self.journal.append(&Record::Called(called)).map_err(broken)?;
        result.map_err(|failure| Error { code: failure.told, message: failure.message })
    }

    /// Gives a permit to its effect. The outer error is the journal's.
    async fn perform<Op, T>(
        &mut self,
        asked: &Asked,
        permit: Permit<Op>,
        effect: impl FnOnce(&Mounts, Permit<Op>) -> Result<T, FileError> + Send + 'static,
    ) -> Result<Result<T, Failure>, Error>
    where
        Op: Operation + Send + 'static,
        T: Send + 'static,
    {
        let place = Arc::clone(&self.world.effects).acquire_owned().await.expect("the semaphore is never closed");
        if !asked.repeatable {
            let (at, call) = (self.world.clock.now(), self.calls);
            let intent = Intent { at, call, operation: asked.operation.into(), args: asked.args.clone(), before: None };
            let mark = self.journal.append(&Record::Intent(intent.clone())).map_err(broken)?;
            self.journal.durable(mark).await.map_err(broken)?;
            self.under_way = Some(intent);
        }
        // Waiting for a place and for the disk takes time, in which a lease may end.
        self.heed_cancellation();
        if let Err(denied) = self.gate.open(self.world.clock.now()) {
            return Ok(Err(self.denied(denied)));
        }
        let (mounts, control) = (Arc::clone(&self.world.mounts), Arc::clone(&self.control));
        let effect = tokio::task::spawn_blocking(move || {
            let _place = place;
            // Nobody waits for an effect whose job is over, and nobody would write its outcome down.
            (!control.over.load(Ordering::Relaxed)).then(|| effect(&mounts, permit))
        });
        Ok(match effect.await {
            Ok(Some(done)) => done.map_err(Failure::from),
            Ok(None) => Err(Failure::internal("the job is over")),
            Err(panic) => {
                let (job_id, operation) = (self.accepted.job_id, asked.operation);
                tracing::error!(%job_id, operation, %panic, "an effect panicked");
                Err(Failure::internal("the host failed in this operation"))
            }
        })
    }

    fn permit<Op: Operation>(&mut self, op: Op) -> Result<Permit<Op>, Failure> {
        self.heed_cancellation();
        self.gate.permit(self.world.clock.now(), op).map_err(|denied| self.denied(denied))
    }

    /// Tells the gate what the client asked for.
    fn heed_cancellation(&mut self) {
        if self.control.cancel.is_cancelled() {
            self.gate.cancel();
        }
    }

    /// What the agent is told of a denial; the runner learns of a lease that has ended.
    fn denied(&self, denied: Denied) -> Failure {
        if matches!(denied, Denied::Expired(_)) {
            self.control.met_expiry.store(true, Ordering::Relaxed);
        }
        Failure::from(denied)
    }

    /// Decides where an answer is kept, and puts it there.
    async fn kept(&mut self, told: Told) -> Result<Option<Answer>, Error> {
        Ok(match told {
            Told::Nothing => None,
            Told::Json(json) if json.as_str().len() <= INLINE_ANSWER_BYTES_MAX => Some(Answer::Json(json)),
            Told::Bytes(bytes) if bytes.len() <= INLINE_ANSWER_BYTES_MAX => Some(Answer::Bytes(BASE64.encode(bytes))),
            Told::Json(json) => Some(self.blob(json.as_str().as_bytes().to_vec()).await?),
            Told::Bytes(bytes) => Some(self.blob(bytes).await?),
        })
    }

    async fn blob(&mut self, bytes: Vec<u8>) -> Result<Answer, Error> {
        let size = bytes.len() as u64;
        self.journal.charge(size).map_err(broken)?;
        let stored = store_blob(&*self.world.store, Bytes::from(bytes)).await;
        let sha256 = stored.map_err(|error| broken(JournalError::Store(error.to_string())))?;
        Ok(Answer::Blob { sha256, size })
    }

    /// Stores an event; an agent that emits faster than the store takes waits here.
    async fn emit(&mut self, event: Event) -> Result<(), Error> {
        self.journal.room().await.map_err(broken)?;
        let at = self.world.clock.now();
        self.journal.append(&Record::Event { at, event }).map_err(broken)?;
        Ok(())
    }

    /// Cuts a text at the host's limit for events.
    fn cut(&self, text: String) -> String {
        match truncate(&text, self.world.limits.text_bytes_max) {
            Cow::Borrowed(_) => text,
            Cow::Owned(cut) => cut,
        }
    }
}

/// What an agent is told when its journal takes no more. The runner learns of it too, and ends the job.
fn broken(error: JournalError) -> Error {
    let code = match error {
        JournalError::Full(_) => types::ErrorCode::TooLarge,
        JournalError::Ended => types::ErrorCode::Cancelled,
        JournalError::Store(_) => types::ErrorCode::InternalError,
    };
    Error { code, message: error.to_string() }
}

/// Refuses an argument.
fn invalid(message: impl Into<String>) -> Error {
    Error { code: types::ErrorCode::InvalidRequest, message: message.into() }
}

/// Cuts a text between characters so that it has at most `max` bytes, and marks the cut.
pub(crate) fn truncate(text: &str, max: usize) -> Cow<'_, str> {
    const MARK: &str = "… (cut)";
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max.saturating_sub(MARK.len()));
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

impl Failure {
    /// What the journal keeps of it.
    fn outcome(&self) -> Outcome {
        let (code, message) = (self.shown, self.message.clone());
        let error = ToolError { code, message, retryable: code.retryable() };
        Outcome::Failed { error, code: code_name(self.told).to_owned() }
    }

    fn internal(message: &str) -> Self {
        Self { told: types::ErrorCode::InternalError, shown: ErrorCode::InternalError, message: message.to_owned() }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self { told: types::ErrorCode::InvalidRequest, shown: ErrorCode::InvalidRequest, message: error.to_string() }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let told = match denied {
            Denied::Cancelled => types::ErrorCode::Cancelled,
            Denied::Expired(_) => types::ErrorCode::LeaseExpired,
            Denied::Exhausted(_) => types::ErrorCode::BudgetExhausted,
            Denied::NotGranted { .. } => types::ErrorCode::PermissionDenied,
        };
        Self { told, shown: ErrorCode::from(&denied), message: denied.to_string() }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let told = match &error {
            FileError::NotFound { .. } | FileError::Unmounted { .. } => types::ErrorCode::NotFound,
            FileError::AlreadyExists { .. } => types::ErrorCode::AlreadyExists,
            FileError::NotADirectory { .. } => types::ErrorCode::NotADirectory,
            FileError::NotAFile { .. } => types::ErrorCode::NotAFile,
            FileError::NotEmpty { .. } => types::ErrorCode::NotEmpty,
            FileError::TooLarge { .. } | FileError::TooManyEntries { .. } => types::ErrorCode::TooLarge,
            FileError::ReadOnly { .. }
            | FileError::SymbolicLink { .. }
            | FileError::Mounted { .. }
            | FileError::Denied { .. } => types::ErrorCode::PermissionDenied,
            FileError::Invalid { .. } => types::ErrorCode::InvalidRequest,
            FileError::Io { .. } => types::ErrorCode::InternalError,
        };
        Self { told, shown: ErrorCode::from(&error), message: error.to_string() }
    }
}

/// A code as `/wit` spells it.
fn code_name(code: types::ErrorCode) -> &'static str {
    use types::ErrorCode as Code;
    match code {
        Code::PermissionDenied => "permission-denied",
        Code::LeaseSubsetViolation => "lease-subset-violation",
        Code::LeaseExpired => "lease-expired",
        Code::BudgetExhausted => "budget-exhausted",
        Code::JobNotFound => "job-not-found",
        Code::AgentNotAvailable => "agent-not-available",
        Code::AgentVersionNotAvailable => "agent-version-not-available",
        Code::Cancelled => "cancelled",
        Code::Timeout => "timeout",
        Code::InvalidRequest => "invalid-request",
        Code::InternalError => "internal-error",
        Code::NotFound => "not-found",
        Code::AlreadyExists => "already-exists",
        Code::NotADirectory => "not-a-directory",
        Code::NotAFile => "not-a-file",
        Code::NotEmpty => "not-empty",
        Code::TooLarge => "too-large",
        Code::UnknownOutcome => "unknown-outcome",
    }
}

/// The ARCP code for an error that an agent returns as its job's own.
///
/// The contract's closer codes become the ARCP code they stand under.
#[must_use]
pub fn shown(code: types::ErrorCode) -> ErrorCode {
    use types::ErrorCode as Code;
    match code {
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::LeaseSubsetViolation => ErrorCode::LeaseSubsetViolation,
        Code::LeaseExpired => ErrorCode::LeaseExpired,
        Code::BudgetExhausted => ErrorCode::BudgetExhausted,
        Code::JobNotFound => ErrorCode::JobNotFound,
        Code::AgentNotAvailable => ErrorCode::AgentNotAvailable,
        Code::AgentVersionNotAvailable => ErrorCode::AgentVersionNotAvailable,
        Code::Cancelled => ErrorCode::Cancelled,
        Code::Timeout => ErrorCode::Timeout,
        Code::InvalidRequest
        | Code::NotFound
        | Code::AlreadyExists
        | Code::NotADirectory
        | Code::NotAFile
        | Code::NotEmpty
        | Code::TooLarge => ErrorCode::InvalidRequest,
        Code::InternalError | Code::UnknownOutcome => ErrorCode::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        for (text, max, expected) in [("short", 10, "short"), ("äääääääääää", 16, "äää… (cut)"), ("", 0, "")]
        {
            let cut = truncate(text, max);
            assert_eq!(cut, expected);
            assert!(cut.len() <= max.max(text.len().min(max)), "{cut}");
        }
    }

    #[test]
    fn memories_are_counted_together() {
        use wasmtime::ResourceLimiter as _;
        let host = Arc::new(AtomicUsize::new(0));
        let total = |host: &Arc<AtomicUsize>| MemoryTotal {
            bytes: 0,
            bytes_max: 100,
            host: Arc::clone(host),
            host_bytes_max: 150,
            table_elements_max: 10,
        };
        let (mut total, mut other) = (total(&host), total(&host));
        assert!(total.memory_growing(0, 60, None).unwrap());
        assert!(!total.memory_growing(0, 60, None).unwrap()); // a second memory
        assert!(total.memory_growing(60, 100, None).unwrap());
        assert!(!total.memory_growing(100, 101, None).unwrap());
        assert!(!total.table_growing(0, 11, None).unwrap());
        assert!(!other.memory_growing(0, 60, None).unwrap()); // what is left for all agents
        drop(total);
        assert!(other.memory_growing(0, 60, None).unwrap());
    }
}
