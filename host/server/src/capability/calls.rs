//! Calls that take their time, and the interface `calls` to wait for them.
//!
//! Such a call has the shape of every other: parse, ask the gate, write down, take effect, write down what came of it.
//! But its effect runs in a task of its own, and its end is written down when it comes about. The agent is told of it
//! when it asks, and what it cost is counted then, too. [`crate::tape`] says why a replay is told the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use leasehold_core::{
    error::ErrorCode,
    id::JobId,
    job::record::{Begun, Concluded, Outcome, Part, Redirected, call_id},
    lease::{
        amount::Budget,
        gate::{Denied, Gate, Permit},
        ledger::{CarveOut, LedgerError},
        operation::{Fetch, Operation},
    },
    protocol::{json::Json, trace::TraceId},
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use wasmtime::component::{Resource, ResourceTable};

use super::{
    Asked, Failure, HOST_FULL, JobCtx, Once, Reported, Told, World,
    bindings::{calls, types, types::Error},
    broken, delegate, invalid, keep, read,
};
use crate::{
    journal::{Journal, JournalError, Mark},
    sandbox::limits::Limits,
    tape::{Begin, Control, News, Tape},
};

/// A call under way, as its agent holds it.
#[derive(Debug)]
pub struct PendingCall {
    call: u64,
    at: Timestamp,
    operation: &'static str,
    /// The most it may cost, taken out of what is free.
    held: CarveOut,
    /// What it was handed, as long as anything may be done with that.
    arguments: Arguments,
    /// Whether it has parts.
    streams: bool,
    /// Whether one of them was asked for.
    parted: bool,
    task: JoinHandle<()>,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an agent handed over for a call and the host keeps, which counts as memory of agents.
#[derive(Debug)]
struct Arguments {
    bytes: usize,
    host: Arc<AtomicUsize>,
}

impl Arguments {
    /// Counts them, if they leave all agents within `host_bytes_max`.
    fn admit(bytes: usize, host: &Arc<AtomicUsize>, host_bytes_max: usize) -> Option<Self> {
        let more = |all: usize| all.checked_add(bytes).filter(|all| *all <= host_bytes_max);
        host.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { bytes, host: Arc::clone(host) })
    }

    /// Counts them: they were admitted before.
    fn again(bytes: usize, host: &Arc<AtomicUsize>) -> Self {
        host.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, host: Arc::clone(host) }
    }
}

impl Drop for Arguments {
    fn drop(&mut self) {
        self.host.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl PendingCall {
    /// The how-manieth call of its job it is.
    pub(super) fn number(&self) -> u64 {
        self.call
    }

    /// When it began.
    pub(super) fn began(&self) -> Timestamp {
        self.at
    }

    /// Stops its work and returns once nothing of it runs: a job that it may have just begun is there by then.
    async fn stop(&mut self) {
        self.task.abort();
        // It was stopped, or had ended; a panic in it has been told.
        let _ = (&mut self.task).await;
    }
}

/// Where the pending calls of one agent are.
pub(super) fn table(limits: &Limits) -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.calls_max);
    table
}

/// What a call that takes its time came to.
pub(super) struct Done {
    /// What a watcher is told.
    pub summary: Json,
    /// What the agent is told.
    pub answer: Told,
    /// What it cost.
    pub cost: Budget,
}

/// Why it came to nothing.
pub(super) struct Undone {
    pub failure: Failure,
    /// What it cost all the same.
    pub cost: Budget,
}

/// Before anything took place; what fails later is [`Line::lost`] unless its cost is known.
impl<T: Into<Failure>> From<T> for Undone {
    fn from(failure: T) -> Self {
        Self { failure: failure.into(), cost: Budget::new() }
    }
}

/// The work of a call, in a task of its own.
pub(super) type Work = BoxFuture<'static, Result<Done, Undone>>;

/// Whether a call may be made again if a host was stopped before it knew its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// As often as one likes, says the operator. It may even begin before the journal says so on the disk.
    Freely,
    /// It changes nothing.
    Yes,
    /// It goes on by itself, and whoever makes it again finds it.
    Resume,
    /// Nobody knows whether it took place, and the agent is told so.
    No,
}

/// A call that is to begin.
pub(super) struct Start<Op, F> {
    pub asked: Asked,
    /// What the gate is asked about.
    pub op: Result<Op, Failure>,
    pub repeat: Repeat,
    /// Whether it has parts.
    pub streams: bool,
    /// How much of what the agent handed over is kept for it.
    pub bytes: usize,
    /// Does it.
    pub work: F,
}

/// What the work of a call may use of its job.
#[derive(Clone)]
pub(super) struct Line {
    pub call: u64,
    pub job_id: JobId,
    /// When the call began.
    pub at: Timestamp,
    trace_id: TraceId,
    /// The most it may cost.
    pub reserved: Budget,
    /// Whether it has parts.
    pub streams: bool,
    pub world: Arc<World>,
    gate: Arc<std::sync::Mutex<Gate>>,
    tape: Arc<Tape>,
    journal: Arc<Journal>,
    control: Arc<Control>,
}

impl Line {
    /// Asks the gate about something that the call came upon.
    fn permit<Op: Operation>(&self, op: Op) -> Result<Permit<Op>, Denied> {
        let mut gate = self.gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.control.cancel.is_cancelled() {
            gate.cancel();
        }
        gate.permit(self.world.clock.now(), op)
    }

    /// Asks the gate about a redirect, and writes down that the call goes there.
    pub async fn redirect(&self, fetch: Fetch) -> Result<Permit<Fetch>, Denied> {
        let url = fetch.url().to_string();
        let permit = self.permit(fetch)?;
        let redirected = Redirected { at: self.world.clock.now(), call: self.call, url };
        // Of what is over, or has a journal that takes no more, nothing goes on.
        let Ok(Some(mark)) = self.tape.redirected(redirected) else { return Err(Denied::Cancelled) };
        self.journal.durable(mark).await.map_err(|_| Denied::Cancelled)?;
        Ok(permit)
    }

    /// Gives a part of the answer; says whether anybody wants more. Waits as long as the agent takes none.
    pub async fn part(&self, told: Told) -> Result<bool, Failure> {
        if !self.tape.wants_part(self.call).await {
            return Ok(false);
        }
        let answer = keep(&self.world, &self.journal, self.job_id, told).await.map_err(unkept)?;
        let Some(answer) = answer else { return Ok(true) };
        let part = Part { at: self.world.clock.now(), call: self.call, answer };
        self.tape.part(part).await.map_err(unkept)
    }

    /// The W3C trace context of what the call causes elsewhere (ARCP §11).
    pub fn traceparent(&self) -> String {
        let digest = Sha256::digest([self.job_id.to_string().as_bytes(), &self.call.to_be_bytes()].concat());
        let span: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("00-{}-{span}-01", self.trace_id)
    }

    /// How many parts the agent was given, by this host or an earlier one.
    pub fn parts(&self) -> usize {
        self.tape.parts(self.call)
    }

    /// A failure of which nobody knows what it cost: all that was held for the call.
    pub fn lost(&self, failure: impl Into<Failure>) -> Undone {
        Undone { failure: failure.into(), cost: self.reserved.clone() }
    }

    /// Writes down what came of the call.
    async fn conclude(&self, result: Result<Done, Undone>) {
        let (outcome, cost) = match result {
            Ok(Done { summary, answer, cost }) => {
                let outcome = match keep(&self.world, &self.journal, self.job_id, answer).await {
                    Ok(answer) => Outcome::Done { summary, answer },
                    Err(error) => unkept(error).outcome(),
                };
                (outcome, cost)
            }
            Err(Undone { failure, cost }) => (failure.outcome(), cost),
        };
        let concluded = Concluded { at: self.world.clock.now(), call: self.call, outcome, cost };
        // A journal that takes no more is why the job ends, and says so itself.
        let _ = self.tape.conclude(concluded);
    }

    /// Whether a call that has waited for the disk may still begin.
    fn may_begin(&self, expires_at: Option<Timestamp>) -> Result<(), Failure> {
        match expires_at {
            _ if self.control.cancel.is_cancelled() => Err(Denied::Cancelled.into()),
            Some(at) if self.world.clock.now() >= at => Err(Denied::Expired(at).into()),
            _ => Ok(()),
        }
    }

    /// Does the work, unless the job's cancellation or the end of its lease comes first.
    async fn race(&self, expires_at: Option<Timestamp>, work: Work) -> Result<Done, Undone> {
        let expired = async {
            match expires_at {
                Some(at) => self.world.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Whoever stops something half done does not know what it cost.
        let undone = |failure: Failure| Err(self.lost(failure));
        tokio::select! {
            biased;
            result = work => result,
            () = self.control.cancel.cancelled() => undone(Failure {
                told: types::ErrorCode::Cancelled,
                shown: ErrorCode::Cancelled,
                message: "the job is being cancelled".to_owned(),
            }),
            () = expired => undone(Failure {
                told: types::ErrorCode::LeaseExpired,
                shown: ErrorCode::LeaseExpired,
                message: "the lease expired while the call was under way".to_owned(),
            }),
        }
    }
}

/// What a call comes to whose answer, or a part of it, cannot be kept.
fn unkept(error: JournalError) -> Failure {
    Failure::internal(&error.to_string())
}

impl JobCtx {
    /// Starts a call: gate, then money, then its beginning on the disk, then its work.
    ///
    /// `price` is asked once the gate has agreed, and gives the most that the call may cost.
    pub(super) async fn start_call<Op, F>(
        &mut self,
        start: Start<Op, F>,
        price: impl FnOnce(&Op) -> Result<Budget, Failure>,
    ) -> Result<Resource<PendingCall>, Error>
    where
        Op: Operation + Send + 'static,
        F: FnOnce(Permit<Op>, Line) -> Work + Send + 'static,
    {
        let Start { asked, op, repeat, streams, bytes, work } = start;
        self.has_room(bytes)?;
        let (call, at, held, arguments, task) =
            match self.tape.begin(asked.operation, &asked.args).await.map_err(broken)? {
                Begin::Told(called) => {
                    let refused: Result<(), Error> = self.told(called).await;
                    return Err(refused.err().unwrap_or_else(|| invalid("the call was refused")));
                }
                Begin::Live(call) => {
                    let admitted = op.and_then(|op| self.permit(op)).and_then(|permit| {
                        let held = self.hold(&price(permit.op())?)?;
                        let arguments = Arguments::admit(bytes, &self.world.memory, self.world.limits.memory_total());
                        Ok((permit, held, arguments.ok_or_else(|| Failure::internal(HOST_FULL))?))
                    });
                    let (permit, held, arguments) = match admitted {
                        Ok(admitted) => admitted,
                        Err(failure) => {
                            let refused: Result<(), Error> = self.conclude(call, asked, Err(failure)).await;
                            return Err(refused.err().unwrap_or_else(|| invalid("the call was refused")));
                        }
                    };
                    // What must not be repeated has its outcome before a host stops in good order, or does not begin.
                    let once = match repeat {
                        Repeat::No => Some(self.world.begin().await),
                        Repeat::Freely | Repeat::Yes | Repeat::Resume => None,
                    };
                    let (at, reserved) = (self.world.clock.now(), held.grant().clone());
                    let operation = asked.operation.to_owned();
                    let begun = Begun { at, call, operation, args: asked.args, reserved: reserved.clone() };
                    let mark = self.tape.begun(begun).await.map_err(broken)?;
                    let line = self.line((call, at), reserved, streams);
                    let work = work(permit, line.clone());
                    (call, at, held, arguments, self.run(line, mark, repeat, once, work))
                }
                Begin::Again(begun) => {
                    // Before its money is held, as it was then: it may be all there is.
                    let permit = op.and_then(|op| Ok(self.gate().permit(begun.at, op)?));
                    let held = self.hold(&begun.reserved).unwrap_or_else(|_| CarveOut::default());
                    let line = self.line((begun.call, begun.at), begun.reserved.clone(), streams);
                    let undone = |failure, cost| -> Work { Box::pin(async { Err(Undone { failure, cost }) }) };
                    let work = match (repeat, permit) {
                        // Nothing of it runs before the tape is live, and then only if its end is not known.
                        (Repeat::Freely | Repeat::Yes | Repeat::Resume, Ok(permit)) => work(permit, line.clone()),
                        // It had begun, so it may have cost.
                        (Repeat::Freely | Repeat::Yes | Repeat::Resume, Err(failure)) => {
                            undone(failure, begun.reserved.clone())
                        }
                        (Repeat::No, _) => {
                            undone(Failure::unknown("its answer had not come in"), begun.reserved.clone())
                        }
                    };
                    let arguments = Arguments::again(bytes, &self.world.memory);
                    (begun.call, begun.at, held, arguments, self.run_again(line, repeat, work))
                }
            };
        let operation = asked.operation;
        let pending = PendingCall { call, at, operation, held, arguments, streams, parted: false, task };
        self.calls.push(pending).map_err(|_| too_many(self.limits.calls_max))
    }

    /// Waits for the end of a call that was started, counts what it cost, and tells the agent.
    pub(super) async fn finish_call<T: Reported>(
        &mut self,
        pending: Resource<PendingCall>,
        operation: &'static str,
    ) -> Result<T, Error> {
        let number = self.pending(&pending, operation)?.call;
        self.tape.skip_parts(number);
        let end = loop {
            match self.tape.news(number).await {
                Some(News::Over(end)) => break end,
                Some(News::Part(_)) => {}
                None => return Err(invalid("this call is over, and its end has been taken")),
            }
        };
        self.close(pending, &end).await?;
        self.read_back(number, end.at, end.outcome).await
    }

    /// Waits for the next part of a call that streams; `None` after the last.
    pub(super) async fn next_part(
        &mut self,
        pending: &Resource<PendingCall>,
        operation: &'static str,
    ) -> Result<Option<Bytes>, Error> {
        let known = self.pending(pending, operation)?;
        let (number, streams) = (known.call, known.streams);
        if !streams {
            return Err(invalid("this call does not come in parts: it was not started as a stream"));
        }
        if self.tape.first(&[number], None).await.is_none() {
            return Ok(None);
        }
        let Some(part) = self.tape.take_part(number) else {
            // Its end stays where `finish` finds it; a failure is told here already.
            return match self.tape.failure(number) {
                Some((at, outcome)) => self.read_back::<()>(number, at, outcome).await.map(|()| None),
                None => Ok(None),
            };
        };
        match read(&*self.world.store, self.accepted.job_id, part).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => self.tape.unreadable(format!("a part of call {number}: {error:#}")).await,
        }
    }

    /// Takes note that the first part of a call is asked for; says whether it was before.
    pub(super) fn begin_parts(
        &mut self,
        pending: &Resource<PendingCall>,
        operation: &'static str,
    ) -> Result<bool, Error> {
        self.pending(pending, operation)?;
        let known = self.calls.get_mut(pending);
        Ok(known.is_ok_and(|known| std::mem::replace(&mut known.parted, true)))
    }

    /// Stops what is under way when its agent is over, and returns once nothing of it runs any more.
    pub async fn stop_calls(&mut self) {
        for call in self.calls.iter_mut().filter_map(|call| call.downcast_mut::<PendingCall>()) {
            call.stop().await;
        }
    }

    /// Writes down how calls ended that nobody waits for any more, and counts what they cost.
    pub fn end_calls(&mut self) {
        let mut calls = std::mem::replace(&mut self.calls, ResourceTable::new());
        for call in calls.iter_mut().filter_map(|call| call.downcast_mut::<PendingCall>()) {
            if let Some(end) = self.tape.abandon(call.call) {
                self.gate().ledger_mut().charge(std::mem::take(&mut call.held), &end.cost);
            }
        }
    }

    /// A pending call of this interface.
    pub(super) fn pending(
        &self,
        pending: &Resource<PendingCall>,
        operation: &'static str,
    ) -> Result<&PendingCall, Error> {
        let known = self.calls.get(pending).map_err(|_| invalid("this call is over, and its end has been taken"))?;
        if known.operation != operation {
            return Err(invalid(format!("this is a call of `{}`, which does not finish here", known.operation)));
        }
        Ok(known)
    }

    async fn close(&mut self, pending: Resource<PendingCall>, end: &Concluded) -> Result<(), Error> {
        let Ok(mut pending) = self.calls.delete(pending) else { return Ok(()) };
        let held = std::mem::take(&mut pending.held);
        self.settle(pending.operation, held, end).await
    }

    /// Refuses a call beyond those that may be under way at once, or with more than they may keep together.
    fn has_room(&mut self, bytes: usize) -> Result<(), Error> {
        let (calls_max, bytes_max) = (self.limits.calls_max, self.limits.calls_bytes_max);
        let kept = self.calls.iter_mut().filter_map(|call| call.downcast_ref::<PendingCall>());
        let (calls, kept) = kept.fold((0, 0), |(calls, kept), call| (calls + 1, kept + call.arguments.bytes));
        if calls >= calls_max {
            return Err(too_many(calls_max));
        }
        if bytes.saturating_add(kept) > bytes_max {
            let message = format!(
                "the calls under way would keep {bytes} bytes more than the {kept} they do, and may keep {bytes_max} \
                 (`limits.calls_bytes_max`)"
            );
            return Err(Error { code: types::ErrorCode::TooLarge, message });
        }
        Ok(())
    }

    /// Takes the most that a call may cost out of what is free.
    fn hold(&self, price: &Budget) -> Result<CarveOut, Failure> {
        Ok(self.gate().ledger_mut().carve_out(price)?)
    }

    fn line(&self, (call, at): (u64, Timestamp), reserved: Budget, streams: bool) -> Line {
        Line {
            call,
            job_id: self.accepted.job_id,
            at,
            trace_id: self.accepted.trace_id,
            reserved,
            streams,
            world: Arc::clone(&self.world),
            gate: Arc::clone(&self.gate),
            tape: Arc::clone(&self.tape),
            journal: Arc::clone(&self.journal),
            control: Arc::clone(&self.control),
        }
    }

    /// Does the work of a call that has begun, of which `once` is kept until its end is written down.
    fn run(&self, line: Line, mark: Mark, repeat: Repeat, once: Option<Once>, work: Work) -> JoinHandle<()> {
        let expires_at = self.accepted.authority.expires_at;
        tokio::spawn(async move {
            let _once = once;
            if repeat != Repeat::Freely && line.journal.durable(mark).await.is_err() {
                return;
            }
            let result = match line.may_begin(expires_at) {
                Ok(()) => line.race(expires_at, work).await,
                // Nothing of it took place.
                Err(failure) => Err(failure.into()),
            };
            line.conclude(result).await;
        })
    }

    /// Does the work of a call that began before, if its end is not in the journal.
    fn run_again(&self, line: Line, repeat: Repeat, work: Work) -> JoinHandle<()> {
        let expires_at = self.accepted.authority.expires_at;
        tokio::spawn(async move {
            line.tape.caught_up().await;
            if !line.tape.is_open(line.call) {
                return;
            }
            let result = match repeat {
                // What the agent was given cannot be taken back, and another answer need not begin the same.
                Repeat::Freely | Repeat::Yes if line.parts() > 0 => {
                    Err(line.lost(Failure::unknown("a part of its answer had come in")))
                }
                // It goes on by itself, whatever happened meanwhile, and is stopped if it is to.
                Repeat::Resume => line.race(expires_at, work).await,
                Repeat::Freely | Repeat::Yes | Repeat::No => match line.may_begin(expires_at) {
                    Ok(()) => line.race(expires_at, work).await,
                    // It had begun, so it may have cost.
                    Err(failure) => Err(line.lost(failure)),
                },
            };
            line.conclude(result).await;
        })
    }
}

fn too_many(max: usize) -> Error {
    let message = format!("{max} calls are under way, the most one agent may have (`limits.calls_max`)");
    Error { code: types::ErrorCode::TooLarge, message }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let shown = ErrorCode::from(&error);
        let told = match shown {
            ErrorCode::BudgetExhausted => types::ErrorCode::BudgetExhausted,
            _ => types::ErrorCode::InvalidRequest,
        };
        Self { told, shown, message: error.to_string() }
    }
}

impl calls::HostPendingCall for JobCtx {
    async fn call_id(&mut self, pending: Resource<PendingCall>) -> String {
        self.calls.get(&pending).map(|pending| call_id(pending.call)).unwrap_or_default()
    }

    async fn drop(&mut self, pending: Resource<PendingCall>) -> wasmtime::Result<()> {
        let Ok(known) = self.calls.get(&pending) else { return Ok(()) };
        let (number, operation, child) = (known.call, known.operation, self.child_of(known));
        // A journal that takes no more ends the job.
        if let Ok(Some(end)) = self.tape.give_up(number).await {
            if let Ok(call) = self.calls.get_mut(&pending) {
                call.stop().await;
            }
            // Once nothing can begin it any more; one that has ended is not concerned.
            if operation == delegate::OPERATION {
                self.cancel_child(child);
            }
            let _ = self.close(pending, &end).await;
        }
        Ok(())
    }
}

impl calls::Host for JobCtx {
    async fn wait_any(
        &mut self,
        pending: Vec<Resource<PendingCall>>,
        timeout_ms: Option<u64>,
    ) -> Result<Option<u32>, Error> {
        if pending.is_empty() {
            return Err(invalid("there is nothing to wait for: the list of calls is empty"));
        }
        let number = |pending| self.calls.get(pending).map(|known: &PendingCall| known.call).ok();
        let numbers: Option<Vec<u64>> = pending.iter().map(number).collect();
        let numbers = numbers.ok_or_else(|| invalid("one of these calls is over, and its end has been taken"))?;
        let first = self.tape.first(&numbers, timeout_ms.map(Duration::from_millis)).await;
        Ok(first.and_then(|first| u32::try_from(first).ok()))
    }
}
