//! A command of the host as a tool: the arguments as JSON on its stdin, the answer as JSON on its stdout.
//!
//! The command ends with 0, or has failed, and then the first line of its
//! stderr says why. It runs once a call, in a process group of its own, and
//! nothing that it starts outlives the call.

use std::path::PathBuf;

use serde_json::Value;

use super::{Call, INHERITED, ToolError, settings::Secrets};
use crate::child::{self, Unheard};

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
        let mut command =
            child::command(&self.words, &INHERITED, &self.env.named, self.dir.as_deref()).map_err(unstarted)?;
        command.env("LEASEHOLD_JOB_ID", &call.job_id).env("LEASEHOLD_CALL", &call.call_id);
        command.envs(call.traceparent.iter().map(|parent| ("TRACEPARENT", parent)));

        let (mut first, mut logged) = (None, 0);
        let listen = |line: String| {
            let line = self.env.hide_in_line(&line);
            if logged < LOGGED_LINES_MAX {
                logged += 1;
                tracing::debug!(tool = self.name, line, "stderr");
            }
            first.get_or_insert(line);
        };
        let input = arguments.to_string();
        let exchanged = child::exchange(&mut command, input.as_bytes(), answer_bytes_max, listen).await;
        let (answer, status) = exchanged.map_err(|unheard| match unheard {
            Unheard::Unstarted(error) => unstarted(error),
            Unheard::Lost(error) => ToolError::Lost { tool: self.name.clone(), reason: error.to_string() },
            Unheard::TooLarge => ToolError::too_large(answer_bytes_max),
        })?;
        if !status.success() {
            return Err(ToolError::failed(&first.unwrap_or_else(|| format!("it said nothing ({status})"))));
        }
        serde_json::from_slice(&answer).map_err(|error| ToolError::failed(&format!("its answer is no JSON: {error}")))
    }
}
