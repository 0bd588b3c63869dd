//! The live view of a job: what a person sees of the frames a client gets.
//!
//! Everything that happens goes to standard error, the result to standard
//! output, so that `leasehold submit … > report.md` does what it says. On a
//! terminal there is a progress bar; elsewhere plain lines. With `--json` the
//! frames themselves go to standard output, one a line.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use console::{StyledObject, style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Failure,
    output::{self, clean},
};
use crate::client::{self, Client, ClientError, Frame};

/// How a job is shown.
pub struct View {
    as_json: bool,
    terminal: bool,
    bar: ProgressBar,
    /// Calls whose result has not come yet.
    calls: HashMap<String, String>,
    chunks: Vec<Value>,
    /// The last tenth of the progress that a plain view has shown.
    shown_tenth: u64,
    counts: Counts,
    output: Option<(PathBuf, File)>,
}

/// What happened, for the last lines.
#[derive(Default)]
struct Counts {
    allowed: u64,
    denied: u64,
    failed: u64,
    /// The first calls that did not succeed, since they may have scrolled away: how each ended, and what it was.
    lost: Vec<(StyledObject<&'static str>, String)>,
    /// What is left of each currency.
    left: BTreeMap<String, String>,
}

/// How many calls without success the end of a job names again.
const LOST_SHOWN: usize = 5;

/// The codes by which a lease says no; with any other a call was allowed, and failed (ARCP §9.3 to §9.6).
const DENIALS: [&str; 4] = ["PERMISSION_DENIED", "LEASE_SUBSET_VIOLATION", "LEASE_EXPIRED", "BUDGET_EXHAUSTED"];

impl Counts {
    /// The calls of the job in brackets, if there were any.
    fn shown(&self) -> String {
        let Self { allowed, denied, failed, .. } = self;
        match (allowed, denied, failed) {
            (0, 0, 0) => String::new(),
            (_, _, 0) => format!(" (calls: {allowed} allowed, {denied} denied)"),
            _ => format!(" (calls: {allowed} allowed, {denied} denied, {failed} failed)"),
        }
    }
}

impl View {
    /// Begins a view; `output` gets the result instead of standard output.
    ///
    /// It is opened now: a result that cannot be kept is better not paid for.
    pub fn new(as_json: bool, output: Option<PathBuf>) -> Result<Self, Failure> {
        let open = |path: PathBuf| match File::create(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) => Err(Failure::Usage(format!("--output {}: {error}", path.display()))),
        };
        let output = output.map(open).transpose()?;
        let terminal = !as_json && console::user_attended_stderr();
        let bar = ProgressBar::with_draw_target(
            None,
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        bar.set_style(spinner());
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Ok(Self {
            as_json,
            terminal,
            bar,
            calls: HashMap::new(),
            chunks: Vec::new(),
            shown_tenth: 0,
            counts: Counts::default(),
            output,
        })
    }

    /// Says that a job was accepted, and under which lease.
    pub fn accepted(&self, accepted: &client::Accepted) {
        self.begin("job.accepted", "accepted", accepted);
    }

    /// Says that a job of another session is watched.
    pub fn subscribed(&self, subscribed: &client::Accepted) {
        let status = subscribed.payload["current_status"].as_str().unwrap_or_default();
        self.begin("job.subscribed", &clean(status), subscribed);
    }

    fn begin(&self, kind: &str, what: &str, accepted: &client::Accepted) {
        if self.as_json {
            output::line(&json!({ "type": kind, "job_id": accepted.job_id, "payload": accepted.payload }));
            return;
        }
        let agent = accepted.payload["agent"].as_str().unwrap_or_default();
        self.say(&format!("{} {} as {}", style(what).bold(), clean(agent), clean(&accepted.job_id)));
        let lease = accepted.payload["lease"].as_object();
        if lease.is_none_or(serde_json::Map::is_empty) {
            self.say("  lease  nothing granted");
        }
        for (namespace, patterns) in lease.into_iter().flatten() {
            let patterns: Vec<&str> = patterns.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            self.say(&format!("  lease  {}: {}", clean(namespace), clean(&patterns.join("  "))));
        }
        if let Some(at) = accepted.payload["lease_constraints"]["expires_at"].as_str() {
            self.say(&format!("  lease  until {at}"));
        }
    }

    /// Shows one frame.
    pub fn frame(&mut self, frame: &Frame) {
        if let Some(("result_chunk", body)) = frame.event() {
            self.chunks.push(body.clone());
        }
        if self.as_json {
            output::line(&json!({
                "type": frame.kind, "job_id": frame.job_id, "event_seq": frame.event_seq, "payload": frame.payload,
            }));
        } else if let Some((kind, body)) = frame.event() {
            self.event(kind, body);
        }
    }

    /// Shows the end and puts out the result. Fails if the job did.
    pub fn end(mut self, frame: &Frame) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        let payload = &frame.payload;
        let status = payload["final_status"].as_str().unwrap_or("error").to_owned();
        if !self.as_json {
            let calls = self.counts.shown();
            let mark = if status == "success" { style(&status).green() } else { style(&status).red() };
            self.say(&format!("{}{calls}", mark.bold()));
            if let Some(message) = payload["message"].as_str() {
                let code = payload["code"].as_str().unwrap_or_default();
                self.say(&format!("  {}: {}", clean(code), clean(message)));
            }
            if let Some(summary) = payload["summary"].as_str() {
                self.say(&format!("  {}", clean(summary)));
            }
            for (how, call) in &self.counts.lost {
                self.say(&format!("  {how} {call}"));
            }
            for (unit, left) in &self.counts.left {
                self.say(&format!("  {} {unit} {left} left", style("budget").yellow()));
            }
        }
        if status != "success" {
            return Err(Failure::JobFailed);
        }
        let result = match payload.get("result_id") {
            Some(_) => client::assemble(&self.chunks)?,
            None => {
                let mut text = serde_json::to_vec_pretty(&payload["result"]).unwrap_or_default();
                text.push(b'\n');
                text
            }
        };
        match &mut self.output {
            Some((path, file)) => file
                .write_all(&result)
                .map_err(|error| Failure::Other(anyhow::anyhow!("--output {}: {error}", path.display())))?,
            None if self.as_json => {}
            None => output::bytes(&result),
        }
        self.chunks.clear();
        Ok(())
    }

    fn event(&mut self, kind: &str, body: &Value) {
        let text = |key: &str| clean(body[key].as_str().unwrap_or_default());
        match kind {
            "log" => {
                let level = text("level");
                let mark = match level.as_str() {
                    "error" => style(level).red(),
                    "warn" => style(level).yellow(),
                    _ => style(level).dim(),
                };
                self.say(&format!("{mark:>9}  {}", text("message")));
            }
            "thought" => self.say(&format!("{:>9}  {}", style("thought").magenta(), text("text"))),
            "status" => self.say(&format!("{:>9}  {} {}", style("status").cyan(), text("phase"), text("message"))),
            "progress" => self.progress(body),
            "metric" => self.metric(body),
            "tool_call" => {
                let target =
                    ["path", "url", "name", "agent", "model"].iter().find_map(|key| body["args"][key].as_str());
                let call = format!("{} {}", text("tool"), clean(target.unwrap_or_default()));
                self.calls.insert(text("call_id"), call);
            }
            "tool_result" => self.call(body),
            "delegate" => {
                let child = format!("{} as {}", text("agent"), text("child_job_id"));
                let budget = body["lease"]["cost.budget"].as_array().into_iter().flatten();
                let budget: String =
                    budget.filter_map(Value::as_str).map(|amount| format!("  {}", clean(amount))).collect();
                self.say(&format!("{:>9}  {child}{}", style("delegate").cyan(), style(budget).dim()));
            }
            "artifact_ref" => self.say(&format!("{:>9}  {}", style("artifact").cyan(), text("uri"))),
            "result_chunk" => {}
            other => self.say(&format!("{:>9}  {}", style(clean(other)).cyan(), clean(&body.to_string()))),
        }
    }

    /// A capability call: allowed, denied or failed, and why.
    fn call(&mut self, body: &Value) {
        let call = self.calls.remove(body["call_id"].as_str().unwrap_or_default()).unwrap_or_default();
        match body.get("error") {
            Some(error) => {
                let code = clean(error["code"].as_str().unwrap_or_default());
                let message = clean(error["message"].as_str().unwrap_or_default());
                let how = if DENIALS.contains(&code.as_str()) {
                    self.counts.denied += 1;
                    style("denied").red()
                } else {
                    self.counts.failed += 1;
                    style("failed").yellow()
                };
                let call = format!("{call}  {code}: {message}");
                self.say(&format!("{:>9}  {call}", how.clone().bold()));
                if self.counts.lost.len() < LOST_SHOWN {
                    self.counts.lost.push((how, call));
                }
            }
            None => {
                self.counts.allowed += 1;
                let result = &body["result"];
                let what = match (result["size_bytes"].as_u64(), result["entries"].as_u64()) {
                    (Some(bytes), _) => output::size(bytes),
                    (_, Some(entries)) => format!("{entries} entries"),
                    _ => String::new(),
                };
                self.say(&format!("{:>9}  {call}  {}", style("allowed").green(), style(what).dim()));
            }
        }
    }

    fn metric(&mut self, body: &Value) {
        let text = |key: &str| clean(body[key].as_str().unwrap_or_default());
        let (name, unit) = (text("name"), text("unit"));
        match name.as_str() {
            "cost.budget.remaining" => {
                self.say(&format!("{:>9}  {unit} {} left", style("budget").yellow(), body["value"]));
                self.bar.set_prefix(format!("{unit} {} left", body["value"]));
                self.counts.left.insert(unit, body["value"].to_string());
            }
            // A cost shows in what is left; one line a file would hide everything else.
            name if name.starts_with("cost.") => {}
            name => self.say(&format!("{:>9}  {} = {} {unit}", style("metric").dim(), name, body["value"])),
        }
    }

    fn progress(&mut self, body: &Value) {
        let current = body["current"].as_u64().unwrap_or_default();
        let units = clean(body["units"].as_str().unwrap_or_default());
        let message = clean(body["message"].as_str().unwrap_or_default());
        let Some(total) = body["total"].as_u64().filter(|total| *total > 0) else {
            self.bar.set_message(format!("{current} {units} {message}"));
            return;
        };
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(measured());
        }
        self.bar.set_position(current);
        self.bar.set_message(format!("{units} {message}"));
        let tenth = current / total.div_ceil(10);
        if !self.terminal && (tenth > self.shown_tenth || current == total) {
            self.shown_tenth = tenth;
            self.say(&format!("{:>9}  {current}/{total} {units}", "progress"));
        }
    }

    /// Shows a line of somebody else's beside what the job does.
    pub fn say(&self, line: &str) {
        if self.terminal {
            self.bar.println(line);
        } else {
            eprintln!("{line}");
        }
    }
}

/// Ctrl-C, from before a job is submitted until its end, so that none is lost and none ends the program by itself.
pub struct Interrupts {
    signal: Signal,
    /// Ctrl-C was pressed once, and the job is still to be cancelled.
    pressed: bool,
}

impl Interrupts {
    /// Begins to listen.
    pub fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
        Ok(Self { signal, pressed: false })
    }

    /// Waits for the acceptance of a job. The first Ctrl-C is kept for the job, which may exist by then.
    pub async fn until<T>(&mut self, accepted: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(accepted);
        loop {
            tokio::select! {
                accepted = &mut accepted => return Ok(accepted),
                _ = self.signal.recv() => {
                    if std::mem::replace(&mut self.pressed, true) {
                        return Err(Failure::Interrupted);
                    }
                }
            }
        }
    }

    /// Waits for the next Ctrl-C, or the one that was kept.
    pub async fn next(&mut self) {
        if !std::mem::take(&mut self.pressed) {
            self.signal.recv().await;
        }
    }
}

/// What the first Ctrl-C does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// It cancels the job; the second leaves.
    Cancels,
    /// It leaves the job to itself.
    Leaves,
}

/// Follows a job to its end.
///
/// A connection that is lost is made again, so that the host may be restarted meanwhile (ARCP §6.3).
pub async fn follow(
    client: &mut Client,
    job_id: &str,
    mut view: View,
    mut interrupts: Interrupts,
    interrupted: Interrupted,
) -> Result<(), Failure> {
    let mut asked = interrupted == Interrupted::Leaves;
    loop {
        let event = tokio::select! {
            biased;
            () = interrupts.next() => None,
            event = client.next_event() => Some(event),
        };
        match event {
            Some(Err(error @ (ClientError::Closed(_) | ClientError::Gap { .. }))) if client.can_come_back() => {
                view.say(&format!("{error}; coming back to the session"));
                tokio::select! {
                    biased;
                    () = interrupts.next() => return Err(Failure::Interrupted),
                    back = client.come_back() => back.map_err(|error| lost(error, job_id))?,
                }
                view.say("connected again");
            }
            Some(frame) => {
                let frame = frame.map_err(|error| lost(error, job_id))?;
                if frame.job_id.as_deref() != Some(job_id) {
                    continue;
                }
                view.frame(&frame);
                if frame.is_terminal() {
                    return view.end(&frame);
                }
            }
            None if asked => return Err(Failure::Interrupted),
            None => {
                asked = true;
                view.say("cancelling; Ctrl-C again to leave the job to itself");
                tokio::select! {
                    cancelled = client.cancel(job_id, Some("interrupted at the terminal")) => cancelled?,
                    () = interrupts.next() => return Err(Failure::Interrupted),
                }
            }
        }
    }
}

/// Says what a lost connection means for the job.
fn lost(error: ClientError, job_id: &str) -> Failure {
    match error {
        ClientError::Closed(_) | ClientError::Connect { .. } | ClientError::Silent(_) | ClientError::Refused { .. } => {
            Failure::Other(anyhow::anyhow!("{error}; {job_id} may still run: `leasehold jobs` tells"))
        }
        other => other.into(),
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {prefix:.yellow}").expect("the template is valid")
}

fn measured() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} [{bar:32.cyan/dim}] {pos}/{len} {wide_msg} {prefix:.yellow}")
        .expect("the template is valid")
        .progress_chars("█▉▊▋▌▍▎▏ ")
}
