//! The fifteen error codes of ARCP §12, and what the wire says of each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An error code of ARCP §12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The lease does not cover the operation (§9.3).
    PermissionDenied,
    /// A delegation would widen the lease it comes from (§9.4).
    LeaseSubsetViolation,
    /// No such job, or none the principal may know of.
    JobNotFound,
    /// An idempotency key came back with other parameters (§7.2).
    DuplicateKey,
    /// No agent of that name.
    AgentNotAvailable,
    /// The agent exists, the version does not (§7.5).
    AgentVersionNotAvailable,
    /// The client cancelled the job (§7.4).
    Cancelled,
    /// The job ran longer than `max_runtime_sec`.
    Timeout,
    /// The session can no longer be resumed (§6.3).
    ResumeWindowExpired,
    /// The peer fell silent (§6.4).
    HeartbeatLost,
    /// The lease's `expires_at` was reached (§9.5).
    LeaseExpired,
    /// A budget counter reached zero (§9.6).
    BudgetExhausted,
    /// Malformed or out of place.
    InvalidRequest,
    /// Missing or wrong credentials (§6.1).
    Unauthenticated,
    /// A fault of the runtime.
    InternalError,
}

impl ErrorCode {
    /// All of them, in the order of §12.
    pub const ALL: [Self; 15] = [
        Self::PermissionDenied,
        Self::LeaseSubsetViolation,
        Self::JobNotFound,
        Self::DuplicateKey,
        Self::AgentNotAvailable,
        Self::AgentVersionNotAvailable,
        Self::Cancelled,
        Self::Timeout,
        Self::ResumeWindowExpired,
        Self::HeartbeatLost,
        Self::LeaseExpired,
        Self::BudgetExhausted,
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::InternalError,
    ];

    /// The code as the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::LeaseSubsetViolation => "LEASE_SUBSET_VIOLATION",
            Self::JobNotFound => "JOB_NOT_FOUND",
            Self::DuplicateKey => "DUPLICATE_KEY",
            Self::AgentNotAvailable => "AGENT_NOT_AVAILABLE",
            Self::AgentVersionNotAvailable => "AGENT_VERSION_NOT_AVAILABLE",
            Self::Cancelled => "CANCELLED",
            Self::Timeout => "TIMEOUT",
            Self::ResumeWindowExpired => "RESUME_WINDOW_EXPIRED",
            Self::HeartbeatLost => "HEARTBEAT_LOST",
            Self::LeaseExpired => "LEASE_EXPIRED",
            Self::BudgetExhausted => "BUDGET_EXHAUSTED",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether the same request may succeed later.
    ///
    /// §12 fixes three of these: `LEASE_EXPIRED` and `BUDGET_EXHAUSTED` never,
    /// `INTERNAL_ERROR` always. An agent can be deployed while the host runs,
    /// so `AGENT_NOT_AVAILABLE` is worth another try.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::InternalError | Self::Timeout | Self::HeartbeatLost | Self::AgentNotAvailable)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest message of a refusal.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// A refusal as the wire carries it: a code of §12 and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Which of the fifteen.
    pub code: ErrorCode,
    /// What is wrong, where, and what to do. Never empty, never a secret.
    pub message: String,
}

impl Refusal {
    /// Makes a refusal. A message may quote what a peer sent, so it is cut at [`MESSAGE_BYTES_MAX`].
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        Self { code, message }
    }

    /// Shorthand for the most common one.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_code_is_its_spelling_on_the_wire() {
        let mut names = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
            names.insert(code.as_str());
        }
        assert_eq!(names.len(), 15);
    }

    /// ARCP §12: "MUST be returned with `retryable: false`", "Always retryable".
    #[test]
    fn the_three_fixed_retry_flags_hold() {
        assert!(!ErrorCode::LeaseExpired.retryable());
        assert!(!ErrorCode::BudgetExhausted.retryable());
        assert!(ErrorCode::InternalError.retryable());
    }
}
