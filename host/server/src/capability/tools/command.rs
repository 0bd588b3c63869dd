//! A command of the host as a tool: the arguments as JSON on its stdin, the answer as JSON on its stdout.
//!
//! The command ends with 0, or has failed, and then the first line of its
//! stderr says why. It runs once a call, in a process group of its own, and
//! nothing that it starts outlives the call.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    Call, ToolError,
    child::{self, Group},
    settings::Secrets,
};

/// How long the pipes of a command that has ended may still be held open by something that left its group.
const PIPES_GRACE: Duration = Duration::from_millis(250);

/// Lines of one command's stderr that reach the log.
const LOGGED_LINES_MAX: usize = 100;

/// A command that is run for each call.
#[derive(Debug)]
pub(super) struct HostCommand {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) env: Secrets,
    pub(super) dir: Option<PathBuf>,
}

impl HostCommand {
    /// Runs it.
    pub(super) async fn call(
        &self,
        arguments: &Value,
        call: &Call,
        answer_bytes_max: usize,
    ) -> Result<Value, ToolError> {
        let unstarted =
            |error| ToolError::Unusable { tool: self.name.clone(), reason: format!("not started: {error}") };
        let mut command = child::command(&self.words, &self.env, self.dir.as_deref()).map_err(unstarted)?;
        command.env("LEASEHOLD_JOB_ID", &call.job_id).env("LEASEHOLD_CALL", &call.call_id);
        command.envs(call.traceparent.iter().map(|parent| ("TRACEPARENT", parent)));
        let (mut group, streams) = Group::spawn(&mut command).map_err(unstarted)?;

        let (mut answer, mut first, mut logged) = (Vec::new(), None, 0);
        let input = arguments.to_string();
        let ended = {
            let mut stdin = streams.stdin;
            let feed = async move {
                // A command need not read what it does not want to know.
                let _ = stdin.write_all(input.as_bytes()).await;
                Ok(())
            };
            let mut stdout = streams.stdout.take(answer_bytes_max as u64 + 1);
            let read = async {
                let _ = stdout.read_to_end(&mut answer).await;
                if answer.len() > answer_bytes_max { Err(ToolError::too_large(answer_bytes_max)) } else { Ok(()) }
            };
            let listen = async {
                child::lines(streams.stderr, |line| {
                    let line = self.env.hide_in(&line);
                    if logged < LOGGED_LINES_MAX {
                        logged += 1;
                        tracing::debug!(tool = self.name, line, "stderr");
                    }
                    first.get_or_insert(line);
                })
                .await;
                Ok(())
            };
            let exchange = async { tokio::try_join!(feed, read, listen).map(|_| ()) };
            tokio::pin!(exchange);
            tokio::select! {
                done = &mut exchange => {
                    done?;
                    group.wait().await
                }
                ended = group.wait() => {
                    // What it wrote is in the pipes; whoever left the group may hold them open for ever.
                    if let Ok(done) = timeout(PIPES_GRACE, exchange).await {
                        done?;
                    }
                    ended
                }
            }
        };
        let status = ended.map_err(|error| ToolError::Lost { tool: self.name.clone(), reason: error.to_string() })?;
        if !status.success() {
            return Err(ToolError::failed(&first.unwrap_or_else(|| format!("it said nothing ({status})"))));
        }
        serde_json::from_slice(&answer).map_err(|error| ToolError::failed(&format!("its answer is no JSON: {error}")))
    }
}
