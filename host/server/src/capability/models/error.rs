//! Why a model gave no answer.

use std::time::Duration;

use leasehold_core::{
    error::{ErrorCode, Refusal},
    lease::target::ModelName,
};

/// Why a model gave no answer. No message holds a key or a header of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The host has no model of that name.
    #[error("this host has no model `{0}`")]
    NotFound(ModelName),
    /// The request is not one, or asks for what is not given.
    #[error("{field}: {reason}")]
    Invalid {
        /// Where.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request is too large.
    #[error("the request is larger than {bytes_max} bytes")]
    RequestTooLarge {
        /// The most it may be.
        bytes_max: usize,
    },
    /// The answer is too large, or a chunk of it.
    #[error("the answer of the model's upstream, or a chunk of it, is larger than {bytes_max} bytes")]
    AnswerTooLarge {
        /// The most it may be.
        bytes_max: usize,
    },
    /// The upstream has refused the request.
    #[error("the model's upstream refused with status {status}: {message}")]
    Refused {
        /// With this status of HTTP.
        status: u16,
        /// And these words, cut.
        message: String,
    },
    /// The upstream has too much to do.
    #[error("the model's upstream has too many requests{}", after(.retry_after))]
    RateLimited {
        /// When to try again, if it has said so.
        retry_after: Option<Duration>,
    },
    /// Nobody answers there.
    #[error("the model's upstream cannot be reached")]
    Unreachable,
    /// No place among the calls under way in time; nothing was asked.
    #[error("the model's upstream is busy with other calls")]
    Busy,
    /// The answer did not come in time.
    #[error("the model's upstream did not answer in time")]
    Timeout,
    /// The answer is not what the API says, or ended too early.
    #[error("the model's upstream gave no proper answer: {0}")]
    Broken(String),
}

impl ModelError {
    pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let mut reason: String = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX)); // it may quote the request
        Self::Invalid { field: field.into(), reason }
    }

    pub(super) fn broken(reason: impl Into<String>) -> Self {
        Self::Broken(reason.into())
    }

    /// Whether the upstream may have done the work and charge for it.
    ///
    /// Then the call settles at what was reserved for it, since nobody knows
    /// better, and at nothing otherwise.
    #[must_use]
    pub fn may_have_cost(&self) -> bool {
        match self {
            Self::Timeout | Self::Broken(_) | Self::AnswerTooLarge { .. } => true,
            Self::NotFound(_)
            | Self::Invalid { .. }
            | Self::RequestTooLarge { .. }
            | Self::Refused { .. }
            | Self::RateLimited { .. }
            | Self::Unreachable
            | Self::Busy => false,
        }
    }
}

impl From<&ModelError> for ErrorCode {
    fn from(error: &ModelError) -> Self {
        match error {
            ModelError::NotFound(_) | ModelError::Invalid { .. } | ModelError::RequestTooLarge { .. } => {
                Self::InvalidRequest
            }
            // What the upstream says of the request is said of the agent's; the rest is between it and the host.
            ModelError::Refused { status: 400 | 404 | 413 | 415 | 422, .. } => Self::InvalidRequest,
            ModelError::Timeout => Self::Timeout,
            ModelError::AnswerTooLarge { .. }
            | ModelError::Refused { .. }
            | ModelError::RateLimited { .. }
            | ModelError::Unreachable
            | ModelError::Busy
            | ModelError::Broken(_) => Self::InternalError,
        }
    }
}

impl From<ModelError> for Refusal {
    fn from(error: ModelError) -> Self {
        Self::new(ErrorCode::from(&error), error.to_string())
    }
}

fn after(retry_after: &Option<Duration>) -> String {
    retry_after.map(|after| format!("; try again in {} s", after.as_secs())).unwrap_or_default()
}

/// The longest words of somebody else in a message.
pub(super) const REASON_BYTES_MAX: usize = 500;
