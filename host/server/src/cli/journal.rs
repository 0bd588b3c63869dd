//! `journal` and `replay`: a job's past, printed and run once more.
//!
//! Both only read, and work beside a running host as well as without one.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use leasehold_core::{
    id::JobId,
    job::record::{Begun, Called, Concluded, End, Intent, Observation, Outcome, Part, Record, Redirected, Saw},
};
use serde_json::{Value, json};

use super::{
    Failure, HostArgs,
    output::{self, clean},
};
use crate::{
    config::Config,
    journal,
    replay::replay,
    runner::Replayed,
    store::{Position, Store, StoreError, sqlite::Sqlite},
    tape::Halt,
};

/// How many records are read at once.
const PAGE: usize = 256;

/// How much of a value is shown to a person.
const SHOWN_BYTES_MAX: usize = 160;

/// Which journal.
#[derive(Debug, Args)]
pub struct Which {
    /// The job.
    job: String,
    /// The host's folder of journals and compiled agents [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The host's settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `leasehold journal`
#[derive(Debug, Args)]
pub struct JournalArgs {
    #[command(flatten)]
    which: Which,
    /// Print an object a line: the position and the record as it is stored.
    #[arg(long)]
    json: bool,
}

/// `leasehold replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// Stop after this call, counted from 1.
    #[arg(long, value_name = "K")]
    until: Option<u64>,
    /// Print an object.
    #[arg(long)]
    json: bool,
}

impl Which {
    pub(super) fn open(self) -> Result<(Config, Arc<dyn Store>, JobId), Failure> {
        let job_id = self.job.parse().map_err(|_| {
            let job: String = self.job.chars().take(80).collect();
            Failure::Usage(format!("`{job}` is no job id; `leasehold jobs` lists them (job_ and 26 characters)"))
        })?;
        let args = HostArgs { data: self.data, config: self.config, ..HostArgs::default() };
        let config = args.settings()?;
        let store = Sqlite::open_for_reading(&config.journal()).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok((config, Arc::new(store), job_id))
    }
}

/// Prints a journal.
pub async fn print(args: JournalArgs) -> Result<(), Failure> {
    let (_, store, job_id) = args.which.open()?;
    let stream = journal::stream(job_id);
    let mut after = Position::ZERO;
    loop {
        let page = store.read(&stream, after, PAGE).await.map_err(broken)?;
        let Some(last) = page.last() else { break };
        after = last.position;
        for stored in &page {
            let record = Record::decode(&stored.bytes)
                .map_err(|error| anyhow::anyhow!("{stream} at {}: {error}", stored.position))?;
            if args.json {
                let record: Value = serde_json::from_slice(&stored.bytes).map_err(anyhow::Error::from)?;
                output::line(&json!({ "position": stored.position, "record": record }));
            } else {
                output::text_line(&format!("{:>6}  {}", stored.position, said(&record)));
            }
        }
    }
    if after == Position::ZERO { Err(unknown(job_id)) } else { Ok(()) }
}

/// Runs a finished job once more.
pub async fn run_again(args: ReplayArgs) -> Result<(), Failure> {
    let (config, store, job_id) = args.which.open()?;
    if journal::accepted(&*store, &journal::stream(job_id)).await?.is_none() {
        return Err(unknown(job_id));
    }
    let replayed = replay(&config, store, job_id, args.until).await?;
    let (same, verdict) = judge(&replayed, args.until);
    if args.json {
        let Replayed { calls, events, .. } = replayed;
        output::line(
            &json!({ "job_id": job_id, "identical": same, "calls": calls, "events": events, "verdict": verdict }),
        );
    } else {
        output::text_line(&format!("{} calls and {} events: {verdict}", replayed.calls, replayed.events));
    }
    if same { Ok(()) } else { Err(Failure::JobFailed) }
}

/// Whether the agent did the same again, and in what words.
fn judge(replayed: &Replayed, until: Option<u64>) -> (bool, String) {
    match (&replayed.ended, &replayed.recorded) {
        (Err(Halt::Diverged(how)), _) => (false, how.clone()),
        (Err(Halt::Unreadable(why)), _) => (false, format!("the journal cannot be read: {why}")),
        (Err(Halt::End), _) if until.is_some_and(|until| replayed.calls >= until) => {
            (true, "identical up to there".to_owned())
        }
        (Err(Halt::End | Halt::Idle(_)), None) => {
            (true, "identical as far as it goes; the job has not ended".to_owned())
        }
        (Err(Halt::End | Halt::Idle(_)), Some(end)) => {
            (true, format!("identical up to where the host ended the job ({})", shown(end)))
        }
        (Ok(end), Some(recorded)) if end == recorded => {
            (true, format!("identical, and so is the end ({})", shown(end)))
        }
        (Ok(end), Some(recorded)) if !is_agents_own(recorded) => (
            true,
            format!("identical up to the end, which was the host's ({}; by itself: {})", shown(recorded), shown(end)),
        ),
        (Ok(end), Some(recorded)) => (false, format!("the end differs: {} then, {} now", shown(recorded), shown(end))),
        (Ok(end), None) => (true, format!("identical as far as it goes; it would now end ({})", shown(end))),
    }
}

/// Whether an end follows from what the agent did, and not from what its host or its client decided.
fn is_agents_own(end: &End) -> bool {
    use leasehold_core::{error::ErrorCode, protocol::status::Status};
    match end {
        End::Result(_) | End::Streamed { .. } => true,
        End::Failed { status, refusal } => *status == Status::Error && refusal.code != ErrorCode::LeaseExpired,
    }
}

fn shown(end: &End) -> String {
    match end {
        End::Result(result) => format!("success, {} bytes", result.as_str().len()),
        End::Streamed { size, .. } => format!("success, {size} bytes streamed"),
        End::Failed { status, refusal } => format!("{status}: {refusal}"),
    }
}

/// One record in words.
fn said(record: &Record) -> String {
    match record {
        Record::Accepted(accepted) => {
            format!("{}  accepted    {} for {}", accepted.at, accepted.agent, accepted.principal)
        }
        Record::Started { at } => format!("{at}  started"),
        Record::Resumed { at } => format!("{at}  resumed     a replay has caught up"),
        Record::Stopped { at } => format!("{at}  stopped     the host stopped in good order"),
        Record::Observed(observations) => format!("{:24}  observed    {}", "", observed(observations)),
        Record::Intent(Intent { at, call, operation, args, .. }) => {
            format!("{at}  intent      call {call}: {operation} {}", cut(args.as_str()))
        }
        Record::Void { at, call } => format!("{at}  void        call {call} had not taken place"),
        Record::Called(Called { at, call, operation, args, outcome }) => {
            format!("{at}  called      call {call}: {operation} {} -> {}", cut(args.as_str()), came_of(outcome))
        }
        Record::Begun(Begun { at, call, operation, args, .. }) => {
            format!("{at}  begun       call {call}: {operation} {}", cut(args.as_str()))
        }
        Record::Redirected(Redirected { at, call, url }) => format!("{at}  redirected  call {call} to {}", cut(url)),
        Record::Part(Part { at, call, .. }) => format!("{at}  part        call {call}"),
        Record::Concluded(Concluded { at, call, outcome, cost }) => {
            let cost: Vec<String> = cost.iter().map(|(currency, value)| format!(" {currency}:{value}")).collect();
            format!("{at}  concluded   call {call} -> {}{}", came_of(outcome), cost.concat())
        }
        Record::Event { at, event } | Record::Aside { at, event } => {
            let event = serde_json::to_value(event).unwrap_or_default();
            let kind = event["kind"].as_str().unwrap_or_default();
            format!("{at}  event       {kind} {}", cut(&event["body"].to_string()))
        }
        Record::Rotated { at, credential } => format!("{at}  rotated     {credential} has a new value"),
        Record::Cancelling { at, reason } => format!("{at}  cancelling  {}", reason.as_deref().unwrap_or_default()),
        Record::Ended { at, end, .. } => format!("{at}  ended       {}", shown(end)),
    }
}

fn came_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { summary, .. } => cut(summary.as_str()),
        Outcome::Failed { error, code } => cut(&format!("{code}: {}", error.message)),
    }
}

fn observed(observations: &[Observation]) -> String {
    let looks = observations.iter().filter(|observation| matches!(observation.saw, Saw::Time(_))).count();
    let cancelled = if looks < observations.len() { " and that it is cancelled" } else { "" };
    match observations.iter().rev().find_map(|observation| match observation.saw {
        Saw::Time(at) => Some(at),
        Saw::Cancel | Saw::Elapsed => None,
    }) {
        Some(at) => format!("the time, {looks} times new, last {at}{cancelled}"),
        None => "that it is cancelled".to_owned(),
    }
}

/// What fits a line, without what could steer a terminal.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let mark = if end < text.len() { "…" } else { "" };
    format!("{}{mark}", clean(&text[..end]))
}

pub(super) fn unknown(job_id: JobId) -> Failure {
    Failure::Usage(format!("there is no job {job_id} in this store"))
}

fn broken(error: StoreError) -> Failure {
    Failure::Other(error.into())
}
