//! What a key of the host's own endpoint is worth at the moment of a call (ARCP §9.8.3).
//!
//! A key has a gate of its own: the models of its job's lease, the key's part
//! of the job's budget, the end of the lease. What it reserves and spends is
//! written to the credential's stream, a reservation before the upstream is
//! asked, so the next host knows what the key has left; a call of which it
//! knows no end has cost all that was held for it.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{CredentialId, JobId},
    job::{
        key_calls::Kind,
        record::{Accepted, Granted, Record, Spent},
    },
    lease::{
        Authority, Lease, Namespace,
        amount::{Budget, Decimal, texts},
        gate::{Denied, Gate, Permit},
        ledger::CarveOut,
        operation::UseModel,
        target::{ModelName, Target},
    },
    protocol::{event::Event, trace::TraceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    capability::models::Context,
    clock::{self, Clock},
    gateway::{Meter, Outcome, Problem},
    journal::Journal,
    store::{Position, Stored},
    writer::{Mark, Writer},
};

use super::tally::Tally;

/// A record of a credential's stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", content = "body", rename_all = "snake_case")]
pub(super) enum Entry {
    /// A key may be about to be made, or was.
    Issued {
        at: Timestamp,
        job_id: JobId,
        /// The operator's name for who makes it.
        provisioner: String,
        /// Whether that is the host's own endpoint.
        own: bool,
        /// The host's secret that its value follows from, if it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<String>,
    },
    /// The key of the next turn may be about to be made, or was. What it may spend the one before it may not any more.
    Turning {
        at: Timestamp,
        turn: u32,
        #[serde(with = "texts")]
        budget: Budget,
    },
    /// It is the credential's key from now on.
    Turned {
        at: Timestamp,
        turn: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<String>,
    },
    /// Its client can read that in the job's journal.
    Told { at: Timestamp },
    /// One of its keys is worth nothing any more, and has spent this; all it could if that is not known.
    Retired {
        turn: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spent: Option<Spent>,
    },
    /// A call is about to be made with it.
    Reserved {
        at: Timestamp,
        call: u64,
        model: ModelName,
        #[serde(with = "texts")]
        price: Budget,
    },
    /// And this is what it cost.
    Settled {
        call: u64,
        #[serde(with = "texts")]
        cost: Budget,
    },
    /// It could not be revoked, and that will be tried again.
    Failed { at: Timestamp, why: String },
}

impl Entry {
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("an entry is JSON").into()
    }
}

/// What one key of a running job is worth.
pub(super) struct JobMeter {
    id: CredentialId,
    trace_id: TraceId,
    clock: Clock,
    writer: Arc<Writer>,
    /// Where the job's watchers learn what the key has spent.
    journal: Arc<Journal>,
    /// What came of its calls, whatever they cost.
    tally: Arc<Tally>,
    state: Mutex<State>,
    closed: CancellationToken,
}

struct State {
    gate: Gate,
    calls: u64,
    under_way: BTreeMap<u64, (ModelName, CarveOut)>,
    /// What was left when it was told last.
    told: Budget,
}

/// By which part of what it began with a counter moves before it is told again.
const MATERIAL: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

impl JobMeter {
    /// A meter that goes on after what stands in the credential's stream.
    pub fn new(
        accepted: &Accepted,
        granted: &Granted,
        (clock, writer, journal): (Clock, Arc<Writer>, Arc<Journal>),
        past: &[Stored],
    ) -> Self {
        let mut state = State {
            gate: Gate::new(authority(accepted, granted)),
            calls: 0,
            under_way: BTreeMap::new(),
            told: granted.budget.clone(),
        };
        state.recall(past);
        let closed = CancellationToken::new();
        let (id, trace_id) = (granted.id, accepted.trace_id);
        let tally = Tally::new(id, clock.clone(), Arc::clone(&journal));
        Self { id, trace_id, clock, writer, journal, tally, state: Mutex::new(state), closed }
    }

    /// Ends all calls, lets none begin, and says what was not spent of the key's part of the budget.
    pub fn close(&self) -> Budget {
        let mut state = self.state();
        state.gate.cancel();
        self.closed.cancel();
        // Before the job's end, after which its journal takes no more.
        self.tally.flush();
        // What is held for calls under way is as good as spent.
        let left = state.gate.ledger().remaining();
        left.into_iter().filter(|(_, left)| *left > Decimal::ZERO).collect()
    }

    /// Writes down what is known of its calls: the host is about to stop.
    pub fn flush(&self) {
        self.tally.flush();
    }

    /// Holds back the most that a call may cost, which is durable at the mark.
    fn hold(&self, model: &ModelName, price: &Budget) -> Result<(u64, Mark), Refusal> {
        let mut state = self.state();
        // The job may have ended since the permit.
        state.gate.open(self.clock.now())?;
        let held = state.gate.ledger_mut().carve_out(price)?;
        let call = state.calls + 1;
        let entry = Entry::Reserved { at: self.clock.now(), call, model: model.clone(), price: price.clone() };
        match self.writer.append([entry.encode()]) {
            Ok(mark) => {
                state.calls = call;
                state.under_way.insert(call, (model.clone(), held));
                Ok((call, mark))
            }
            Err(error) => {
                state.gate.ledger_mut().charge(held, &Budget::new());
                Err(unstored(&error))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the job's watchers what a call has cost, and what the key has left (ARCP §9.6).
    fn tell(&self, model: &ModelName, cost: &Budget, left: &Budget) {
        let dimension = |name: &str, value: String| (name.to_owned(), value);
        let id = || dimension("credential_id", self.id.to_string());
        let metric = |name: &str, value, unit: String, dimensions| {
            let event = Event::Metric { name: name.to_owned(), value, unit: Some(unit), dimensions };
            // A job that has ended, or whose journal is full, is told nothing more.
            let _ = self.journal.append(&Record::Aside { at: self.clock.now(), event });
        };
        for (currency, cost) in cost.iter().filter(|(_, cost)| **cost > Decimal::ZERO) {
            let dimensions = [id(), dimension("model", model.to_string())].into();
            metric("cost.model.use", *cost, currency.to_string(), dimensions);
        }
        for (currency, left) in left {
            metric("cost.budget.remaining", *left, currency.to_string(), [id()].into());
        }
    }
}

impl State {
    /// Counts what earlier hosts have written.
    fn recall(&mut self, past: &[Stored]) {
        let entries = past.iter().filter_map(|stored| serde_json::from_slice(&stored.bytes).ok());
        for entry in entries {
            match entry {
                Entry::Reserved { call, model, price, .. } => {
                    self.calls = self.calls.max(call);
                    match self.gate.ledger_mut().carve_out(&price) {
                        Ok(held) => drop(self.under_way.insert(call, (model, held))),
                        // It was held once, so it is counted, whatever became of the amounts.
                        Err(_) => self.gate.ledger_mut().charge(CarveOut::default(), &price),
                    }
                }
                Entry::Settled { call, cost } => {
                    if let Some((_, held)) = self.under_way.remove(&call) {
                        self.gate.ledger_mut().charge(held, &cost);
                    }
                }
                Entry::Issued { .. } | Entry::Failed { .. } => {}
                Entry::Turning { .. } | Entry::Turned { .. } | Entry::Told { .. } | Entry::Retired { .. } => {}
            }
        }
        for (_, held) in std::mem::take(&mut self.under_way).into_values() {
            let price = held.grant().clone();
            self.gate.ledger_mut().charge(held, &price);
        }
        self.told = self.gate.ledger().remaining();
    }

    /// The counters that have moved so far that it is told.
    fn moved(&mut self) -> Budget {
        let (left, initial) = (self.gate.ledger().remaining(), self.gate.ledger().initial());
        let mut moved = Budget::new();
        for (currency, left) in left {
            let before = self.told.get(&currency).copied().unwrap_or_default();
            let step = initial.get(&currency).copied().unwrap_or_default().saturating_mul(MATERIAL);
            let ran_out = left <= Decimal::ZERO && before > Decimal::ZERO;
            if (before != left && before.saturating_sub(left).abs() >= step) || ran_out {
                self.told.insert(currency.clone(), left);
                moved.insert(currency, left);
            }
        }
        moved
    }
}

#[async_trait]
impl Meter for JobMeter {
    fn permit(&self, op: UseModel) -> Result<Permit<UseModel>, Denied> {
        let model = op.model().clone();
        let permit = self.state().gate.permit(self.clock.now(), op);
        permit.inspect_err(|denied| self.tally.count(Kind::denied(&model, ErrorCode::from(denied))))
    }

    fn covers(&self, model: &ModelName) -> bool {
        self.state().gate.lease().covers(&Namespace::ModelUse, Target::Model(model))
    }

    async fn reserve(&self, model: &ModelName, price: &Budget) -> Result<u64, Refusal> {
        let held = self.hold(model, price);
        let (call, mark) = held.inspect_err(|refusal| self.tally.count(Kind::denied(model, refusal.code)))?;
        // Whoever drops this meanwhile has reserved nothing.
        let undone = Undone { meter: self, call: Some(call) };
        self.writer.durable(mark).await.map_err(|error| unstored(&error))?;
        Ok(undone.keep())
    }

    fn settle(&self, call: u64, outcome: Outcome) {
        let (model, moved) = {
            let mut state = self.state();
            let Some((model, held)) = state.under_way.remove(&call) else { return };
            state.gate.ledger_mut().charge(held, &outcome.cost);
            if !state.gate.is_cancelling() {
                // A store that has failed refuses the next reservation.
                let _ = self.writer.append([Entry::Settled { call, cost: outcome.cost.clone() }.encode()]);
            }
            (model, state.moved())
        };
        let problem = outcome.problem.as_ref().map(tracing::field::display);
        tracing::info!(credential = %self.id, call, %model, usage = ?outcome.usage, problem, "a key was used");
        self.tell(&model, &outcome.cost, &moved);
        self.tally.count(Kind::allowed(&model, outcome.problem.as_ref().map(code_of)));
    }

    fn context(&self) -> Context {
        let state = self.state();
        let left = |at: Timestamp| u64::try_from(at.as_millis() - self.clock.now().as_millis()).unwrap_or_default();
        let timeout = state.gate.expires_at().map(|at| Duration::from_millis(left(at)));
        let span = clock::random_u128() >> 64;
        let traceparent = Some(format!("00-{}-{span:016x}-01", self.trace_id));
        Context { traceparent, timeout, idempotency_key: None }
    }

    async fn over(&self) -> Denied {
        let expires_at = self.state().gate.expires_at();
        let expired = async {
            match expires_at {
                Some(at) => {
                    self.clock.sleep_until(at).await;
                    Denied::Expired(at)
                }
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.closed.cancelled() => Denied::Cancelled,
            denied = expired => denied,
        }
    }
}

/// A reservation that nobody waits for any more.
struct Undone<'a> {
    meter: &'a JobMeter,
    call: Option<u64>,
}

impl Undone<'_> {
    fn keep(mut self) -> u64 {
        self.call.take().unwrap_or_default()
    }
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.meter.settle(call, Outcome { cost: Budget::new(), usage: None, problem: Some(Problem::Abandoned) });
        }
    }
}

/// What a key may do: the models of its job, for its part of the money, as long as the lease lasts.
fn authority(accepted: &Accepted, granted: &Granted) -> Authority {
    let models = accepted.authority.lease.texts(&Namespace::ModelUse);
    let models = [(Namespace::ModelUse.to_string(), models)].into();
    let lease = Lease::parse(&models).expect("they are of a lease that was granted");
    Authority { lease: lease.with_budget(granted.budget.clone()), expires_at: accepted.authority.expires_at }
}

fn code_of(problem: &Problem) -> ErrorCode {
    match problem {
        Problem::Model(error) => ErrorCode::from(error),
        Problem::Closed(denied) => ErrorCode::from(denied),
        Problem::Abandoned => ErrorCode::Cancelled,
    }
}

fn unstored(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "what a key may spend could not be stored");
    Refusal::new(ErrorCode::InternalError, "the host could not store the call; try again later")
}

/// The last position of what was read.
pub(super) fn end_of(past: &[Stored]) -> Position {
    past.last().map_or(Position::ZERO, |stored| stored.position)
}
