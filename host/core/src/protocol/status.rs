//! Where a job is, as a table (ARCP §7.3).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a job. The last four are terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not yet begun.
    Pending,
    /// The agent has been started.
    Running,
    /// The agent returned a result.
    Success,
    /// The agent failed, or the host had to end it.
    Error,
    /// The client had it cancelled.
    Cancelled,
    /// It ran longer than `max_runtime_sec`.
    TimedOut,
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its agent is started.
    Start,
    /// Its agent returns a result.
    Finish,
    /// It fails.
    Fail,
    /// Its cancellation is complete.
    Cancel,
    /// Its time is up.
    RunOutOfTime,
}

impl Step {
    /// The step that leads to a terminal status.
    #[must_use]
    pub fn to(status: Status) -> Option<Self> {
        Some(match status {
            Status::Pending | Status::Running => return None,
            Status::Success => Self::Finish,
            Status::Error => Self::Fail,
            Status::Cancelled => Self::Cancel,
            Status::TimedOut => Self::RunOutOfTime,
        })
    }
}

impl Status {
    /// Every status there is.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Success, Self::Error, Self::Cancelled, Self::TimedOut];

    /// Every transition there is (ARCP §7.3). A terminal status has none, so
    /// a job ends once however many things end it.
    #[must_use]
    pub fn after(self, step: Step) -> Option<Self> {
        use Status::{Cancelled, Error, Pending, Running, Success, TimedOut};
        Some(match (self, step) {
            (Pending, Step::Start) => Running,
            (Running, Step::Finish) => Success,
            (Pending | Running, Step::Fail) => Error,
            (Pending | Running, Step::Cancel) => Cancelled,
            (Pending | Running, Step::RunOutOfTime) => TimedOut,
            _ => return None,
        })
    }

    /// Whether the job has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The status as the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Status::*, *};

    const STEPS: [Step; 5] = [Step::Start, Step::Finish, Step::Fail, Step::Cancel, Step::RunOutOfTime];

    /// ARCP §7.3: "Terminal states are `success`, `error`, `cancelled`, and `timed_out`."
    #[test]
    fn a_terminal_status_is_left_by_nothing() {
        for status in Status::ALL {
            let left = STEPS.iter().any(|step| status.after(*step).is_some());
            assert_eq!(left, !status.is_terminal(), "{status}");
        }
    }

    #[test]
    fn a_job_that_never_started_can_end_but_not_succeed() {
        assert_eq!(Pending.after(Step::Finish), None);
        assert_eq!(Pending.after(Step::Cancel), Some(Cancelled));
        assert_eq!(Running.after(Step::Start), None);
    }

    #[test]
    fn the_name_of_a_status_is_its_spelling_on_the_wire() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
    }
}
