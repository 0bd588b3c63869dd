//! The interface `delegate`: part of the job for another agent (ARCP §9.4, §10).
//!
//! A child is a job like any other, with its own journal, and goes on by itself when a host is stopped. Its id follows
//! from the call that made it, so a parent that is run again finds the child it had. What the child is granted leaves
//! its parent's free money before it begins, and what it left comes back when its parent takes its end.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use async_trait::async_trait;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{JobId, Ulid},
    job::{
        record::{Accepted, End, Record, call_id},
        seen,
    },
    lease::{
        Authority, Lease, Namespace,
        amount::{Budget, Decimal},
        gate::Permit,
        operation::Delegate,
    },
    protocol::{
        event::{Encoding, Event},
        json::Json,
        server::LeaseConstraints,
    },
    time::Timestamp,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use wasmtime::component::Resource;

use super::{
    Asked, Failure, JobCtx, Reported, Told,
    bindings::{
        delegate::{self, Task},
        types::{self, Error},
    },
    calls::{Done, Line, PendingCall, Repeat, Start, Undone, Work},
    invalid, truncate,
};
use crate::{journal, store::Position};

pub(super) const OPERATION: &str = "agent.delegate";

/// The most of an input that is shown with a delegation; the child's own journal holds all of it.
const SHOWN_INPUT_BYTES_MAX: usize = 8 << 10;

/// A job to be made of a delegation.
pub struct Child {
    /// Its id, which follows from its parent's call.
    pub job_id: JobId,
    /// When it was asked for.
    pub at: Timestamp,
    /// `name` or `name@version`.
    pub agent: String,
    /// What the agent is given.
    pub input: Json,
    /// What it may do: a part of what its parent may.
    pub authority: Authority,
    /// How long it may run.
    pub max_runtime_sec: Option<NonZeroU32>,
}

/// Makes jobs for agents; implemented by the jobs of the host.
#[async_trait]
pub trait Delegates: Send + Sync {
    /// Says whether there is an agent of that name (ARCP §7.5), or one that is still being compiled.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn resolve(&self, agent: &str) -> Result<(), Refusal>;

    /// Starts a child, unless it was started before.
    ///
    /// # Errors
    ///
    /// Why there is none.
    async fn start(&self, parent: &Accepted, child: Child) -> Result<(), Refusal>;

    /// Returns once a job does not run any more.
    async fn over(&self, job_id: JobId);

    /// Asks a child to stop, and returns at once.
    fn cancel(&self, job_id: JobId, reason: &str);
}

impl delegate::Host for JobCtx {
    async fn run(&mut self, task: Task) -> Result<String, Error> {
        let pending = self.delegate(task, false).await?;
        self.finish_call::<Json>(pending, OPERATION).await.map(String::from)
    }

    async fn start(&mut self, task: Task) -> Result<Resource<PendingCall>, Error> {
        self.delegate(task, false).await
    }

    async fn start_stream(&mut self, task: Task) -> Result<Resource<PendingCall>, Error> {
        self.delegate(task, true).await
    }

    async fn finish(&mut self, call: Resource<PendingCall>) -> Result<String, Error> {
        self.finish_call::<Json>(call, OPERATION).await.map(String::from)
    }

    async fn job_id(&mut self, call: Resource<PendingCall>) -> Result<String, Error> {
        let known = self.pending(&call, OPERATION)?;
        Ok(self.child_of(known).to_string())
    }

    async fn next_event(&mut self, call: Resource<PendingCall>) -> Result<Option<String>, Error> {
        let event = self.next_part(&call, OPERATION).await?;
        Ok(event.map(|event| String::from_utf8_lossy(&event).into_owned()))
    }
}

impl JobCtx {
    async fn delegate(&mut self, task: Task, streams: bool) -> Result<Resource<PendingCall>, Error> {
        let wanted = self.wanted(&task);
        let input = Json::parse(task.input).map_err(|error| invalid(format!("the input is no JSON text: {error}")))?;
        let max_runtime_sec = match task.max_runtime_sec.map(NonZeroU32::new) {
            Some(None) => return Err(invalid("`max-runtime-sec` is 0; leave it out or say at least 1")),
            asked => asked.flatten(),
        };
        let agent = truncate(&task.agent, super::SHOWN_NAME_BYTES_MAX).into_owned();
        let args = json!({
            "agent": agent, "input": shown(&input), "lease": lease_of(&task.lease), "expires_at": task.expires_at,
            "max_runtime_sec": max_runtime_sec,
        });
        let asked = Asked { operation: OPERATION, args: Json::of(&args) };
        let op = Delegate::parse(&task.agent).map_err(Failure::from);
        let (parent, depth_max) = (Arc::clone(&self.accepted), self.limits.delegate_depth_max);
        let depth = parent.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
        let authority = wanted.as_ref().ok().cloned().unwrap_or_default();
        let (bytes, told) = (input.as_str().len(), (authority.clone(), input.clone(), task.agent.clone()));
        let delegates = self.world.delegates();
        let (announced, is_announced) = oneshot::channel();
        let work = move |permit: Permit<Delegate>, line: Line| -> Work {
            let agent = permit.spend().agent().to_string();
            Box::pin(async move {
                // Nobody is told what came of it before it was told that it is.
                is_announced.await.map_err(|_| Failure::internal("the job could not say that it hands this on"))?;
                see_through(line, parent, agent, input, authority, max_runtime_sec).await
            })
        };
        let start = Start { asked, op, repeat: Repeat::Resume, streams, bytes, work };
        let pending = self
            .start_call(start, |_| {
                if depth > depth_max {
                    let message = format!(
                        "this job stands {depth_max} delegations deep, the most there may be \
                                 (`limits.delegate_depth_max`)"
                    );
                    return Err(Failure {
                        told: types::ErrorCode::PermissionDenied,
                        shown: ErrorCode::PermissionDenied,
                        message,
                    });
                }
                if let Some(delegates) = delegates {
                    delegates.resolve(&task.agent)?;
                }
                wanted.map(|authority| authority.lease.budget().clone())
            })
            .await?;
        self.announce(&pending, told).await?;
        // Whoever waited for it may be gone.
        let _ = announced.send(());
        Ok(pending)
    }

    /// Says that part of the job was handed on (ARCP §10).
    async fn announce(
        &mut self,
        pending: &Resource<PendingCall>,
        (authority, input, agent): (Authority, Json, String),
    ) -> Result<(), Error> {
        let known = self.pending(pending, OPERATION)?;
        let (call, child) = (known.number(), self.child_of(known));
        let input = if input.as_str().len() > SHOWN_INPUT_BYTES_MAX { Json::of(&shown(&input)) } else { input };
        let event = Event::Delegate {
            delegate_id: call_id(call),
            child_job_id: child,
            agent,
            input,
            lease: Some(authority.lease),
            lease_constraints: authority.expires_at.map(|expires_at| LeaseConstraints { expires_at }),
        };
        self.emit(event).await
    }

    /// The authority a task asks for, as a part of what is left of this job's own.
    fn wanted(&self, task: &Task) -> Result<Authority, Failure> {
        let refused = |why: String| Failure {
            told: types::ErrorCode::InvalidRequest,
            shown: ErrorCode::InvalidRequest,
            message: why,
        };
        let wire: BTreeMap<String, Vec<String>> = task.lease.iter().cloned().collect();
        if wire.len() < task.lease.len() {
            return Err(refused("the lease names a namespace twice".to_owned()));
        }
        let mut lease = Lease::parse(&wire).map_err(|error| refused(error.to_string()))?;
        let expires_at = task.expires_at.as_deref().map(str::parse::<Timestamp>).transpose();
        let expires_at = expires_at.map_err(|error| refused(format!("`expires-at`: {error}")))?;
        let gate = self.gate();
        if !lease.names(&Namespace::CostBudget) {
            lease = lease.with_budget(self.share(&gate.ledger().remaining()));
        }
        gate.delegate(Authority { lease, expires_at }).map_err(|violation| Failure {
            told: types::ErrorCode::LeaseSubsetViolation,
            shown: ErrorCode::LeaseSubsetViolation,
            message: violation.to_string(),
        })
    }

    /// All that is left, less what a job keeps for its own report (`limits.delegate_reserve_percent`).
    fn share(&self, remaining: &Budget) -> Budget {
        let kept = Decimal::new(i64::from(self.limits.delegate_reserve_percent.min(100)), 2);
        let part = |left: &Decimal| left.checked_mul(Decimal::ONE - kept).unwrap_or(*left).max(Decimal::ZERO);
        remaining.iter().map(|(currency, left)| (currency.clone(), part(left))).collect()
    }

    /// Stops a job whose parent wants no more of it.
    pub(super) fn cancel_child(&self, child: JobId) {
        if let Some(delegates) = self.world.delegates() {
            delegates.cancel(child, "the agent that delegated this job wants no more of it");
        }
    }

    /// The job that a call makes: the same in every run of its parent.
    pub(super) fn child_of(&self, call: &PendingCall) -> JobId {
        child_id(&self.accepted, call.number(), call.began())
    }
}

/// The id of the job that a call made which began at `at`.
///
/// Listings are sorted by it: a child comes after its parent, and after the children before it.
fn child_id(parent: &Accepted, call: u64, at: Timestamp) -> JobId {
    let digest = Sha256::digest([b"child", parent.job_id.to_string().as_bytes(), &call.to_be_bytes()].concat());
    let digest = digest.iter().take(8).fold(0, |number, byte| number << 8 | u128::from(*byte));
    let millis = at.as_millis().max(parent.at.as_millis() + 1);
    JobId::new(Ulid::from_parts(u64::try_from(millis).unwrap_or(0), u128::from(call & 0xffff) << 64 | digest))
}

/// Starts a child, shows its parent what it says as far as that is wanted, and waits for its end.
async fn see_through(
    line: Line,
    parent: Arc<Accepted>,
    agent: String,
    input: Json,
    authority: Authority,
    max_runtime_sec: Option<NonZeroU32>,
) -> Result<Done, Undone> {
    let job_id = child_id(&parent, line.call, line.at);
    let delegates = line.world.delegates().ok_or_else(|| Failure::internal("this host makes no jobs for agents"))?;
    let at = line.world.clock.now();
    delegates.start(&parent, Child { job_id, at, agent, input, authority, max_runtime_sec }).await?;
    // From here on it spends, whatever becomes of this call.
    let lost = |failure: Failure| line.lost(failure);
    // Its end comes in after its last event.
    if line.streams {
        show(&line, job_id).await.map_err(lost)?;
    }
    delegates.over(job_id).await;
    let store = &*line.world.store;
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(%job_id, %error, "the end of a delegated job cannot be read");
        Failure::internal("the end of the delegated job cannot be read")
    };
    let newest = journal::newest(store, job_id).await.map_err(|error| lost(unreadable(&error)))?;
    let newest = journal::page(store, job_id, newest).await.map_err(|error| lost(unreadable(&error)))?.pop();
    let Some((_, Record::Ended { end, spent, .. })) = newest else {
        return Err(lost(Failure::internal("the delegated job was stopped without an end")));
    };
    // What nobody counted was spent whole.
    let granted = line.reserved.clone();
    let cost = spent.map_or(granted, |spent| spent.0);
    let summary = |status: &str| Json::of(&json!({ "child_job_id": job_id, "final_status": status }));
    match end {
        End::Result(result) => Ok(Done { summary: summary("success"), answer: Told::Json(result), cost }),
        End::Streamed { .. } => match gathered(&line, job_id).await {
            Ok(result) => Ok(Done { summary: summary("success"), answer: Told::Json(result), cost }),
            Err(failure) => Err(Undone { failure, cost }),
        },
        End::Failed { refusal, .. } => {
            let failure = Failure {
                told: super::told_of(refusal.code),
                shown: refusal.code,
                message: format!("the delegated job ended with: {}", refusal.message),
            };
            Err(Undone { failure, cost })
        }
    }
}

/// Gives a parent its child's events, from where it has them on, until the child's end or until it wants no more.
async fn show(line: &Line, job_id: JobId) -> Result<(), Failure> {
    let store = &*line.world.store;
    let stream = journal::stream(job_id);
    let (mut after, mut known) = (Position::ZERO, line.parts());
    loop {
        let page = journal::page(store, job_id, after).await;
        let page = page.map_err(|_| Failure::internal("what the delegated job says cannot be read"))?;
        for (position, record) in page {
            after = Position::new(position);
            let ended = matches!(record, Record::Ended { .. });
            for (ts, event) in seen::events(record) {
                if known > 0 {
                    known -= 1;
                    continue;
                }
                let mut text = serde_json::to_value(&event).unwrap_or_default();
                text["ts"] = json!(ts);
                if !line.part(Told::Json(Json::of(&text))).await? {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
            }
        }
        store.grown(&stream, after).await.map_err(|_| Failure::internal("the host is about to stop"))?;
    }
}

/// Puts a streamed result together, if it is a text that an agent may be handed at once.
async fn gathered(line: &Line, job_id: JobId) -> Result<Json, Failure> {
    let max = line.world.limits.file_bytes_max;
    let too_large = |what: &str| Failure {
        told: types::ErrorCode::TooLarge,
        shown: ErrorCode::InvalidRequest,
        message: format!("the result of {job_id} is {what}; take its `result_chunk` events with `next-event`"),
    };
    let (mut text, mut after) = (String::new(), Position::ZERO);
    loop {
        let page = journal::page(&*line.world.store, job_id, after).await;
        let page = page.map_err(|_| Failure::internal("the result of the delegated job cannot be read"))?;
        for (position, record) in page {
            after = Position::new(position);
            match record {
                Record::Event { event: Event::ResultChunk { encoding: Encoding::Base64, .. }, .. } => {
                    return Err(too_large("a stream of bytes"));
                }
                Record::Event { event: Event::ResultChunk { data, .. }, .. } if text.len() + data.len() > max => {
                    return Err(too_large("too large to be handed over at once"));
                }
                Record::Event { event: Event::ResultChunk { data, .. }, .. } => text.push_str(&data),
                Record::Ended { .. } => return Ok(Json::of(&text)),
                _ => {}
            }
        }
    }
}

fn lease_of(lease: &[(String, Vec<String>)]) -> serde_json::Value {
    // What is no lease is refused, and what is too long for one is not worth its place in the journal.
    let total: usize = lease.iter().flat_map(|(_, patterns)| patterns).map(String::len).sum();
    match total <= leasehold_core::lease::BYTES_MAX && lease.len() <= leasehold_core::lease::NAMESPACES_MAX {
        true => lease.iter().map(|(namespace, patterns)| (namespace.clone(), json!(patterns))).collect(),
        false => json!({ "entries": lease.len(), "bytes": total }),
    }
}

/// A small input as it is, a large one as its size and digest.
fn shown(input: &Json) -> serde_json::Value {
    let text = input.as_str();
    match text.len() <= SHOWN_INPUT_BYTES_MAX {
        true => serde_json::from_str(text).unwrap_or_default(),
        false => json!({ "size_bytes": text.len(), "sha256": format!("{:x}", Sha256::digest(text)) }),
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { told: super::told_of(refusal.code), shown: refusal.code, message: refusal.message }
    }
}

impl Reported for Json {
    fn summary(&self) -> Json {
        Json::of(&json!({ "size_bytes": self.as_str().len() }))
    }

    fn answer(&self) -> Told {
        Told::Json(self.clone())
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        Ok(Json::parse(String::from_utf8(answer.to_vec())?)?)
    }
}
