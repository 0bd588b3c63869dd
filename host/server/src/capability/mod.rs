//! What an agent can reach: one file a namespace, and the context of one job that they share.
//!
//! A capability that carries authority has one shape: parse the agent's words
//! into an operation, ask the gate for a permit, give the permit to the effect,
//! write down what came of it. The shape is `JobCtx::call`; the files differ
//! in the words and the effect.

pub mod bindings;
mod budget;
pub mod calls;
pub mod delegate;
mod events;
pub mod fs;
mod job;
mod metrics;
mod model;
pub mod models;
pub mod mounts;
mod net;
mod output;
mod tool;
pub mod tools;
pub mod web;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use leasehold_core::{
    error::ErrorCode,
    id::{JobId, ResultId, Ulid},
    job::{
        charges::Charges,
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
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use wasmtime::component::{HasSelf, Linker, ResourceTable};

use self::{
    bindings::types::{self, Error},
    delegate::Delegates,
    models::Models,
    mounts::{Before, Call, Changes, FileError, Fingerprint, Held, Mounts, Settled},
    tools::Tools,
    web::{Fetches, Web},
};
use crate::{
    clock::Clock,
    journal::{Journal, JournalError, read_blob, store_blob},
    sandbox::{inert_wasi::InertWasi, limits::Limits},
    store::Store,
    tape::{Control, Tape, Turn},
};

/// An answer up to this size stands in the journal itself, a larger one in a stream of its own.
const INLINE_ANSWER_BYTES_MAX: usize = 8 << 10;

/// The most of a name that is shown; a longer one is refused anyway.
const SHOWN_NAME_BYTES_MAX: usize = 512;

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
    /// How many calls have begun that cannot be repeated and whose outcome is not written down.
    begun: watch::Sender<usize>,
    /// Set when the host is about to stop: no such call begins any more.
    draining: CancellationToken,
    /// One permit a file effect under way: effects that hang in a file system leave threads for everything else.
    effects: Arc<Semaphore>,
    /// The memory of all agents together.
    memory: Arc<AtomicUsize>,
    /// What is outside of this machine.
    services: Services,
    /// Who makes jobs for agents. It knows this world, so it is told once both are there, and not kept alive.
    delegates: OnceLock<Weak<dyn Delegates>>,
}

/// What agents reach through the operator: the web, tools and models.
#[derive(Clone)]
pub struct Services {
    /// The way to the web.
    pub web: Arc<Web>,
    /// The tools.
    pub tools: Arc<Tools>,
    /// The models.
    pub models: Arc<Models>,
}

impl Services {
    /// No tool, no model, and of the web what is public.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn none() -> Self {
        let web = Web::new(web::Settings::default()).expect("the defaults name no file");
        let tools = Tools::new(&BTreeMap::new(), Clock::system()).expect("there is nothing to be wrong");
        Self { web, tools: Arc::new(tools), models: Arc::default() }
    }
}

impl World {
    /// Makes the world of one host.
    #[must_use]
    pub fn new(clock: Clock, mounts: Arc<Mounts>, limits: Limits, store: Arc<dyn Store>, services: Services) -> Self {
        let effects = Arc::new(Semaphore::new(limits.effects_max.clamp(1, Semaphore::MAX_PERMITS)));
        let limits_name = limits.digest();
        let (begun, draining) = (watch::Sender::default(), CancellationToken::new());
        let (memory, delegates) = (Arc::default(), OnceLock::new());
        Self { clock, mounts, limits, limits_name, store, begun, draining, effects, memory, services, delegates }
    }

    /// What agents reach through the operator.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Says who makes jobs for agents, once.
    pub fn set_delegates(&self, delegates: Weak<dyn Delegates>) {
        self.delegates.get_or_init(|| delegates);
    }

    fn delegates(&self) -> Option<Arc<dyn Delegates>> {
        self.delegates.get()?.upgrade()
    }

    /// Lets no call begin any more that cannot be repeated, and returns once every one that has begun has its outcome.
    pub async fn drain(&self) {
        self.draining.cancel();
        // The sender lives as long as this does.
        let _ = self.begun.subscribe().wait_for(|begun| *begun == 0).await;
    }

    /// Waits for a place among the effects under way.
    async fn place(&self, control: &Arc<Control>, operation: &'static str) -> Place {
        let place = Arc::clone(&self.effects).acquire_owned().await.expect("the semaphore is never closed");
        Place { place, mounts: Arc::clone(&self.mounts), control: Arc::clone(control), operation }
    }

    /// Begins a call that cannot be repeated, or waits for ever if the host is about to stop: the next host makes it.
    async fn begin(&self) -> Once {
        self.begun.send_modify(|begun| *begun += 1);
        let once = Once(self.begun.clone());
        if !self.draining.is_cancelled() {
            return once;
        }
        drop(once);
        pending().await
    }
}

/// A call that cannot be repeated, until its outcome is written down.
struct Once(watch::Sender<usize>);

impl Drop for Once {
    fn drop(&mut self) {
        self.0.send_modify(|begun| *begun -= 1);
    }
}

/// One running job, as its agent's host functions see it.
pub struct JobCtx {
    world: Arc<World>,
    accepted: Arc<Accepted>,
    /// What the agent may use, as it was when the job was accepted.
    limits: Arc<Limits>,
    control: Arc<Control>,
    journal: Arc<Journal>,
    tape: Arc<Tape>,
    /// What is asked in the middle of a call under way, such as a redirect, asks the same gate.
    gate: Arc<Mutex<Gate>>,
    /// The job's way to the web.
    fetches: Fetches,
    /// The calls under way that the agent holds.
    calls: ResourceTable,
    /// One permit a call of a model that is made.
    model_turns: Arc<Semaphore>,
    /// What the host has charged for calls, which an agent may report once more without paying twice.
    charges: Charges,
    chunks: Chunks,
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
    /// By how much the last growth that was allowed is, should the system not have it.
    growing: Option<usize>,
    /// Whether all agents together had no room for more.
    host_full: bool,
    table_elements_max: usize,
}

impl MemoryTotal {
    /// Whether all agents together had no room for more of this one.
    #[must_use]
    pub fn host_full(&self) -> bool {
        self.host_full
    }
}

impl Drop for MemoryTotal {
    fn drop(&mut self) {
        self.host.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

const HOST_FULL: &str = "all agents of this host together use all memory they may (`limits.memory_total_bytes_max`)";

impl wasmtime::ResourceLimiter for MemoryTotal {
    fn memory_growing(&mut self, current: usize, desired: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        self.growing = None;
        let more = desired.saturating_sub(current);
        if max.is_some_and(|max| desired > max) {
            return Ok(false);
        }
        let total = self.bytes.saturating_add(more);
        if total > self.bytes_max {
            return Ok(false);
        }
        let admit = |host: usize| host.checked_add(more).filter(|host| *host <= self.host_bytes_max);
        if self.host.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_err() {
            // Not a refusal the agent could see: what the others take is nothing a replay could repeat.
            self.host_full = true;
            wasmtime::bail!(HOST_FULL);
        }
        self.bytes = total;
        self.growing = Some(more);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The engine's own maximum for a memory is the same in every run; what the system lacks is not.
        if let Some(more) = self.growing.take() {
            self.bytes -= more;
            self.host.fetch_sub(more, Ordering::Relaxed);
            self.host_full = true;
            return Err(error.context(HOST_FULL));
        }
        Ok(())
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
}

/// What a successful call leaves in the journal.
trait Reported {
    /// What a watcher is told.
    fn summary(&self) -> Json;

    /// What the agent is told, for a replay.
    fn answer(&self) -> Told;

    /// Reads what [`answer`](Self::answer) gave.
    fn read_back(answer: &[u8]) -> anyhow::Result<Self>
    where
        Self: Sized;
}

/// An effect that changes something.
trait Effect: Changes + Send + 'static {
    /// Does it.
    fn perform(mounts: &Mounts, permit: Permit<Self>, call: Call, contents: &[u8]) -> Result<(), FileError>
    where
        Self: Sized;

    /// Does what is missing of it.
    fn finish(_: &Mounts, _: Permit<Self>, _: &[u8], _: &Before) -> Result<Settled, FileError>
    where
        Self: Sized,
    {
        Ok(Settled::Torn)
    }
}

/// A place among the effects under way.
struct Place {
    place: OwnedSemaphorePermit,
    mounts: Arc<Mounts>,
    control: Arc<Control>,
    operation: &'static str,
}

impl Place {
    /// Runs what may block, unless the job is over by then.
    async fn run<T: Send + 'static>(self, effect: impl FnOnce(&Mounts) -> T + Send + 'static) -> Result<T, Failure> {
        let Self { place, mounts, control, operation } = self;
        let effect = tokio::task::spawn_blocking(move || {
            let _place = place;
            // Nobody waits for an effect whose job is over, and nobody would write its outcome down.
            (!control.over.load(Ordering::Relaxed)).then(|| effect(&mounts))
        });
        match effect.await {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(Failure::internal("the job is over")),
            Err(panic) => {
                tracing::error!(operation, %panic, "an effect panicked");
                Err(Failure::internal("the host failed in this operation"))
            }
        }
    }
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
    /// Makes the context of a job that is about to run.
    #[must_use]
    pub fn new(
        world: Arc<World>,
        accepted: Arc<Accepted>,
        limits: Arc<Limits>,
        control: Arc<Control>,
        journal: Arc<Journal>,
        tape: Arc<Tape>,
    ) -> Self {
        let chunks =
            chunks::Limits { chunk_bytes_max: limits.chunk_bytes_max, total_bytes_max: limits.stream_bytes_max };
        let memory = MemoryTotal {
            bytes: 0,
            bytes_max: limits.memory_bytes_max,
            host: Arc::clone(&world.memory),
            host_bytes_max: world.limits.memory_total(),
            growing: None,
            host_full: false,
            table_elements_max: limits.table_elements_max,
        };
        let mut gate = Gate::new(accepted.authority.clone());
        // What the job's keys may spend is counted elsewhere, and never comes back, so that a replay sees the same.
        if let Err(error) = gate.ledger_mut().carve_out(&accepted.given_to_keys()) {
            tracing::error!(job_id = %accepted.job_id, %error, "a job's keys have more than it has");
        }
        Self {
            reported: gate.ledger().remaining(),
            gate: Arc::new(Mutex::new(gate)),
            fetches: world.services.web.of_a_job(),
            calls: calls::table(&limits),
            model_turns: Arc::new(Semaphore::new(limits.model_calls_max.clamp(1, Semaphore::MAX_PERMITS))),
            charges: Charges::default(),
            chunks: Chunks::new(result_id(&accepted), chunks),
            unbounded: BTreeSet::new(),
            under_way: None,
            wasi: InertWasi::new(&tape, &accepted, &limits),
            memory,
            world,
            accepted,
            limits,
            control,
            journal,
            tape,
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
    pub async fn abandon(&mut self) {
        let Some(intent) = self.under_way.take() else { return };
        let failure = Failure {
            told: types::ErrorCode::UnknownOutcome,
            shown: ErrorCode::InternalError,
            message: "the job ended while the call was under way".to_owned(),
        };
        let called = called(intent, self.world.clock.now(), failure.outcome());
        // A journal that takes no more is why the job ended, and says so itself.
        let _ = self.tape.record(&called).await;
    }

    /// Asks for a permit, does an effect that may be repeated, and writes down what came of it.
    ///
    /// The order is the house's: gate, then effect, then outcome, then the
    /// agent. A refusal is a value like any other outcome. A call that was made
    /// before has the outcome it had.
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
        let call = match self.tape.call(asked.operation, &asked.args).await.map_err(broken)? {
            Turn::Told(called) => return self.told(called).await,
            Turn::Live(call) | Turn::InFlight(Intent { call, .. }) => call,
        };
        let result = match op.map_err(Failure::from).and_then(|op| self.permit(op)) {
            Ok(permit) => match self.place(asked.operation).await {
                Ok(place) => place.run(move |mounts| effect(mounts, permit)).await.and_then(|done| Ok(done?)),
                Err(denied) => Err(denied),
            },
            Err(failure) => Err(failure),
        };
        self.conclude(call, asked, result).await
    }

    /// Answers a question whose answer may be another one the next time, and which needs no grant.
    async fn ask<T: Reported>(&mut self, asked: Asked, answer: T) -> Result<T, Error> {
        match self.tape.call(asked.operation, &asked.args).await.map_err(broken)? {
            Turn::Told(called) => self.told(called).await,
            Turn::Live(call) | Turn::InFlight(Intent { call, .. }) => self.conclude(call, asked, Ok(answer)).await,
        }
    }

    /// Does an effect that must not be repeated: what is there is looked at first, and stands in an intent that is
    /// durable before the effect begins, so that a host that finds no outcome can tell whether it took place.
    async fn change<Op: Effect>(
        &mut self,
        asked: Asked,
        op: Result<Op, TargetError>,
        contents: Vec<u8>,
    ) -> Result<(), Error> {
        let turn = self.tape.call(asked.operation, &asked.args).await.map_err(broken)?;
        let contents = Arc::new(contents);
        let _once = self.world.begin().await;
        let (call, result) = match turn {
            Turn::Told(called) => return self.told(called).await,
            Turn::Live(call) => match op.map_err(Failure::from).and_then(|op| self.permit(op)) {
                Ok(permit) => (call, self.begin(call, &asked, permit, contents).await?),
                Err(failure) => (call, Err(failure)),
            },
            // It was permitted when it began.
            Turn::InFlight(intent) => {
                let permit = op.map_err(Failure::from);
                let permit = permit.and_then(|op| Ok(self.gate().permit(intent.at, op)?));
                let call = intent.call;
                match permit {
                    Ok(permit) => (call, self.finish(intent, &asked, permit, contents).await),
                    Err(failure) => (call, Err(failure)),
                }
            }
        };
        self.under_way = None;
        self.conclude(call, asked, result).await
    }

    /// Looks, writes the intent down, and gives the permit to its effect. The outer error is the journal's.
    async fn begin<Op: Effect>(
        &mut self,
        call: u64,
        asked: &Asked,
        permit: Permit<Op>,
        contents: Arc<Vec<u8>>,
    ) -> Result<Result<(), Failure>, Error> {
        let held = self.world.mounts.hold(&permit).await;
        let place = match self.place(asked.operation).await {
            Ok(place) => place,
            Err(failure) => return Ok(Err(failure)),
        };
        let looked = place.run(move |mounts| mounts.look(&permit).map(|before| (before, permit))).await;
        let (before, permit) = match looked.and_then(|looked| Ok(looked?)) {
            Ok(looked) => looked,
            Err(failure) => return Ok(Err(failure)),
        };
        let intent = Intent {
            at: self.world.clock.now(),
            call,
            operation: asked.operation.into(),
            args: asked.args.clone(),
            before: Some(Json::of(&before)),
        };
        let mark = self.tape.record(&Record::Intent(intent.clone())).await.map_err(broken)?;
        self.journal.durable(mark).await.map_err(broken)?;
        self.under_way = Some(intent);
        Ok(self.take_effect(call, asked, permit, contents, held).await)
    }

    /// Finds out what became of a change that was under way when its host was stopped, and makes it if it was not made.
    async fn finish<Op: Effect>(
        &mut self,
        intent: Intent,
        asked: &Asked,
        permit: Permit<Op>,
        contents: Arc<Vec<u8>>,
    ) -> Result<(), Failure> {
        let before = intent.before.as_ref().and_then(|before| serde_json::from_str::<Before>(before.as_str()).ok());
        let Some(before) = before else {
            return Err(Failure::unknown("the journal does not say what was there before"));
        };
        let call = self.name_of(intent.call);
        let held = self.world.mounts.hold(&permit).await;
        self.under_way = Some(intent);
        let place = self.world.place(&self.control, asked.operation).await;
        let wanted = Fingerprint::of(&contents);
        // The name stays held as long as anything of this runs, though nobody may wait for it any more.
        let settle = move |mounts: &Mounts| (mounts.settle(&permit, call, &before, Some(&wanted)), permit, held);
        match place.run(settle).await? {
            (Settled::Done, ..) => Ok(()),
            (Settled::NotDone, permit, held) => self.take_effect(call.number, asked, permit, contents, held).await,
            (Settled::Unknown { why }, ..) => Err(Failure::unknown(&why)),
            (Settled::Torn, permit, held) => {
                let place = self.world.place(&self.control, asked.operation).await;
                let finish = move |mounts: &Mounts| {
                    let _held = held;
                    Op::finish(mounts, permit, &contents, &before)
                };
                match place.run(finish).await?? {
                    Settled::Done => Ok(()),
                    Settled::Unknown { why } => Err(Failure::unknown(&why)),
                    Settled::NotDone | Settled::Torn => Err(Failure::unknown("only a part of it took place")),
                }
            }
        }
    }

    async fn take_effect<Op: Effect>(
        &mut self,
        call: u64,
        asked: &Asked,
        permit: Permit<Op>,
        contents: Arc<Vec<u8>>,
        held: Held,
    ) -> Result<(), Failure> {
        // Waiting for a place and for the disk takes time, in which a lease may end.
        let place = self.place(asked.operation).await?;
        let call = self.name_of(call);
        let effect = move |mounts: &Mounts| {
            let _held = held;
            Op::perform(mounts, permit, call, &contents)
        };
        Ok(place.run(effect).await??)
    }

    /// Waits for a place among the effects under way, and asks the gate once more when there is one.
    async fn place(&mut self, operation: &'static str) -> Result<Place, Failure> {
        let place = self.world.place(&self.control, operation).await;
        self.heed_cancellation();
        let open = self.gate().open(self.world.clock.now());
        match open {
            Ok(()) => Ok(place),
            Err(denied) => Err(self.denied(denied)),
        }
    }

    fn name_of(&self, number: u64) -> Call {
        Call { job_id: self.accepted.job_id, number }
    }

    /// Writes down what came of a call and tells the agent.
    async fn conclude<T: Reported>(&mut self, call: u64, asked: Asked, result: Result<T, Failure>) -> Result<T, Error> {
        let outcome = match &result {
            Ok(value) => {
                let answer = value.answer();
                let answer = keep(&self.world, &self.journal, self.accepted.job_id, answer).await.map_err(broken)?;
                Outcome::Done { summary: value.summary(), answer }
            }
            Err(failure) => failure.outcome(),
        };
        let at = self.world.clock.now();
        let called = Called { at, call, operation: asked.operation.into(), args: asked.args, outcome };
        self.tape.record(&Record::Called(called)).await.map_err(broken)?;
        result.map_err(|failure| Error { code: failure.told, message: failure.message })
    }

    /// The outcome of a call that was made before.
    async fn told<T: Reported>(&mut self, called: Called) -> Result<T, Error> {
        self.read_back(called.call, called.at, called.outcome).await
    }

    /// What the agent is told of an outcome that was written down at `at`.
    async fn read_back<T: Reported>(&mut self, call: u64, at: Timestamp, outcome: Outcome) -> Result<T, Error> {
        let answer = match outcome {
            Outcome::Failed { error, code } => {
                let code = code_named(&code).unwrap_or(types::ErrorCode::InternalError);
                // A child may say this of its own lease, or of none.
                let is_over = self.accepted.authority.expires_at.is_some_and(|expires_at| at >= expires_at);
                if code == types::ErrorCode::LeaseExpired && is_over {
                    self.control.met_expiry.store(true, Ordering::Relaxed);
                }
                return Err(Error { code, message: error.message });
            }
            Outcome::Done { answer, .. } => answer,
        };
        let bytes = match answer {
            None => Ok(Bytes::new()),
            Some(answer) => read(&*self.world.store, self.accepted.job_id, answer).await,
        };
        let answer = bytes.and_then(|bytes| T::read_back(&bytes));
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => self.tape.unreadable(format!("the answer of call {call}: {error:#}")).await,
        }
    }

    fn permit<Op: Operation>(&mut self, op: Op) -> Result<Permit<Op>, Failure> {
        self.heed_cancellation();
        let permit = self.gate().permit(self.world.clock.now(), op);
        permit.map_err(|denied| self.denied(denied))
    }

    /// Tells the gate what the client asked for.
    fn heed_cancellation(&mut self) {
        if self.control.cancel.is_cancelled() {
            self.gate().cancel();
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the agent is told of a denial; the runner learns of a lease that has ended.
    fn denied(&self, denied: Denied) -> Failure {
        if matches!(denied, Denied::Expired(_)) {
            self.control.met_expiry.store(true, Ordering::Relaxed);
        }
        Failure::from(denied)
    }

    /// Stores an event; an agent that emits faster than the store takes waits here.
    async fn emit(&mut self, event: Event) -> Result<(), Error> {
        self.tape.event(event).await.map_err(broken)
    }

    /// Cuts a text at the host's limit for events.
    fn cut(&self, text: String) -> String {
        match truncate(&text, self.limits.text_bytes_max) {
            Cow::Borrowed(_) => text,
            Cow::Owned(cut) => cut,
        }
    }
}

/// Decides where an answer is kept, and puts it there.
async fn keep(world: &World, journal: &Journal, job_id: JobId, told: Told) -> Result<Option<Answer>, JournalError> {
    let bytes = match told {
        Told::Nothing => return Ok(None),
        Told::Json(json) if json.as_str().len() <= INLINE_ANSWER_BYTES_MAX => return Ok(Some(Answer::Json(json))),
        Told::Bytes(bytes) if bytes.len() <= INLINE_ANSWER_BYTES_MAX => {
            return Ok(Some(Answer::Bytes(BASE64.encode(bytes))));
        }
        Told::Json(json) => json.as_str().as_bytes().to_vec(),
        Told::Bytes(bytes) => bytes,
    };
    let size = bytes.len() as u64;
    journal.charge(size)?;
    let stored = store_blob(&*world.store, job_id, Bytes::from(bytes)).await;
    let sha256 = stored.map_err(|error| JournalError::Store(error.to_string()))?;
    Ok(Some(Answer::Blob { sha256, size }))
}

/// Reads what [`keep`] kept.
async fn read(store: &dyn Store, job_id: JobId, answer: Answer) -> anyhow::Result<Bytes> {
    match answer {
        Answer::Json(json) => Ok(Bytes::copy_from_slice(json.as_str().as_bytes())),
        Answer::Bytes(base64) => Ok(BASE64.decode(base64)?.into()),
        Answer::Blob { sha256, .. } => read_blob(store, job_id, &sha256).await,
    }
}

/// The outcome of a change that turned out to have taken place.
#[must_use]
pub fn settled(intent: Intent, at: Timestamp) -> Record {
    let outcome = Outcome::Done { summary: ().summary(), answer: None };
    called(intent, at, outcome)
}

/// The outcome of a change of which nobody knows whether it took place.
#[must_use]
pub fn unsettled(intent: Intent, at: Timestamp, why: &str) -> Record {
    called(intent, at, Failure::unknown(why).outcome())
}

fn called(intent: Intent, at: Timestamp, outcome: Outcome) -> Record {
    let Intent { call, operation, args, .. } = intent;
    Record::Called(Called { at, call, operation, args, outcome })
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

    fn unknown(why: &str) -> Self {
        let message = format!("nobody knows whether this took place before the host was stopped: {why}");
        Self { told: types::ErrorCode::UnknownOutcome, shown: ErrorCode::InternalError, message }
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

/// The id of the result that a job may stream: the same in every run of it.
fn result_id(accepted: &Accepted) -> ResultId {
    let digest = Sha256::digest([b"result", &accepted.seed.0[..]].concat());
    let random = digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
    ResultId::new(Ulid::from_parts(u64::try_from(accepted.at.as_millis()).unwrap_or(0), random))
}

/// Every code, as `/wit` spells it.
const CODES: [(types::ErrorCode, &str); 18] = {
    use types::ErrorCode as Code;
    [
        (Code::PermissionDenied, "permission-denied"),
        (Code::LeaseSubsetViolation, "lease-subset-violation"),
        (Code::LeaseExpired, "lease-expired"),
        (Code::BudgetExhausted, "budget-exhausted"),
        (Code::JobNotFound, "job-not-found"),
        (Code::AgentNotAvailable, "agent-not-available"),
        (Code::AgentVersionNotAvailable, "agent-version-not-available"),
        (Code::Cancelled, "cancelled"),
        (Code::Timeout, "timeout"),
        (Code::InvalidRequest, "invalid-request"),
        (Code::InternalError, "internal-error"),
        (Code::NotFound, "not-found"),
        (Code::AlreadyExists, "already-exists"),
        (Code::NotADirectory, "not-a-directory"),
        (Code::NotAFile, "not-a-file"),
        (Code::NotEmpty, "not-empty"),
        (Code::TooLarge, "too-large"),
        (Code::UnknownOutcome, "unknown-outcome"),
    ]
};

fn code_name(code: types::ErrorCode) -> &'static str {
    CODES.iter().find(|(known, _)| *known == code).map_or("internal-error", |(_, name)| name)
}

fn code_named(name: &str) -> Option<types::ErrorCode> {
    CODES.iter().find(|(_, known)| *known == name).map(|(code, _)| *code)
}

/// The contract's code for a refusal in ARCP's words.
fn told_of(code: ErrorCode) -> types::ErrorCode {
    use types::ErrorCode as Told;
    match code {
        ErrorCode::PermissionDenied => Told::PermissionDenied,
        ErrorCode::LeaseSubsetViolation => Told::LeaseSubsetViolation,
        ErrorCode::LeaseExpired => Told::LeaseExpired,
        ErrorCode::BudgetExhausted => Told::BudgetExhausted,
        ErrorCode::JobNotFound => Told::JobNotFound,
        ErrorCode::AgentNotAvailable => Told::AgentNotAvailable,
        ErrorCode::AgentVersionNotAvailable => Told::AgentVersionNotAvailable,
        ErrorCode::Cancelled => Told::Cancelled,
        ErrorCode::Timeout => Told::Timeout,
        ErrorCode::InvalidRequest => Told::InvalidRequest,
        _ => Told::InternalError,
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
            growing: None,
            host_full: false,
            table_elements_max: 10,
        };
        let (mut total, mut other) = (total(&host), total(&host));
        assert!(total.memory_growing(0, 60, None).unwrap());
        assert!(!total.memory_growing(0, 60, None).unwrap()); // a second memory
        assert!(total.memory_growing(60, 100, None).unwrap());
        assert!(!total.memory_growing(100, 101, None).unwrap());
        assert!(!total.table_growing(0, 11, None).unwrap());
        assert!(other.memory_growing(0, 60, None).is_err() && other.host_full()); // what is left for all agents
        drop(total);
        assert!(other.memory_growing(0, 60, None).unwrap());
    }
}
