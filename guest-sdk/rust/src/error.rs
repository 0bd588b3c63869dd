//! Why something did not work: the host's refusals and an agent's own failures.

use std::{fmt, io, str::FromStr};

use crate::bindings;
#[doc(inline)]
pub use crate::bindings::types::ErrorCode;

impl ErrorCode {
    /// Every code there is.
    pub const ALL: [Self; 18] = [
        Self::PermissionDenied,
        Self::LeaseSubsetViolation,
        Self::LeaseExpired,
        Self::BudgetExhausted,
        Self::JobNotFound,
        Self::AgentNotAvailable,
        Self::AgentVersionNotAvailable,
        Self::Cancelled,
        Self::Timeout,
        Self::InvalidRequest,
        Self::InternalError,
        Self::NotFound,
        Self::AlreadyExists,
        Self::NotADirectory,
        Self::NotAFile,
        Self::NotEmpty,
        Self::TooLarge,
        Self::UnknownOutcome,
    ];

    /// Spells the code as `/wit` does.
    ///
    /// ```
    /// use leasehold_agent::ErrorCode;
    ///
    /// assert_eq!(ErrorCode::PermissionDenied.as_str(), "permission-denied");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PermissionDenied => "permission-denied",
            Self::LeaseSubsetViolation => "lease-subset-violation",
            Self::LeaseExpired => "lease-expired",
            Self::BudgetExhausted => "budget-exhausted",
            Self::JobNotFound => "job-not-found",
            Self::AgentNotAvailable => "agent-not-available",
            Self::AgentVersionNotAvailable => "agent-version-not-available",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::InvalidRequest => "invalid-request",
            Self::InternalError => "internal-error",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::NotADirectory => "not-a-directory",
            Self::NotAFile => "not-a-file",
            Self::NotEmpty => "not-empty",
            Self::TooLarge => "too-large",
            Self::UnknownOutcome => "unknown-outcome",
        }
    }

    /// Tells whether the job can do nothing more: cancelled, out of time or out of money.
    ///
    /// Every further operation would be answered the same way, so an agent that
    /// tolerates errors of single files stops at these.
    ///
    /// ```
    /// use leasehold_agent::ErrorCode;
    ///
    /// assert!(ErrorCode::BudgetExhausted.ends_the_job());
    /// assert!(!ErrorCode::NotFound.ends_the_job());
    /// ```
    #[must_use]
    pub fn ends_the_job(self) -> bool {
        matches!(self, Self::Cancelled | Self::LeaseExpired | Self::BudgetExhausted)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let code = Self::ALL.into_iter().find(|code| code.as_str() == text);
        code.ok_or_else(|| Error::invalid_request(format!("`{text}` is not an error code")))
    }
}

/// A code and a sentence: what the host answers, and what an agent ends its job with.
///
/// Returned from the agent it becomes `job.error` (ARCP §7.3), where clients
/// read the message, so it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// Makes an error.
    ///
    /// ```
    /// use leasehold_agent::{Error, ErrorCode};
    ///
    /// let error = Error::new(ErrorCode::NotFound, "no chapter 7");
    /// assert_eq!(error.to_string(), "not-found: no chapter 7");
    /// ```
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Makes the error of an input that makes no sense.
    ///
    /// ```
    /// # use leasehold_agent::{Error, ErrorCode};
    /// assert_eq!(Error::invalid_request("sec is negative").code(), ErrorCode::InvalidRequest);
    /// ```
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// Makes the error of an agent that failed through no fault of its input.
    ///
    /// ```
    /// # use leasehold_agent::{Error, ErrorCode};
    /// assert_eq!(Error::internal("the index is corrupt").code(), ErrorCode::InternalError);
    /// ```
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InternalError, message)
    }

    /// Says which kind of error it is.
    ///
    /// ```no_run
    /// use leasehold_agent::{ErrorCode, fs, warn};
    ///
    /// match fs::read("/workspace/notes.txt") {
    ///     Err(error) if error.code() == ErrorCode::PermissionDenied => warn!("{error}"),
    ///     _ => {}
    /// }
    /// ```
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Says what happened to what, for people.
    ///
    /// ```
    /// # use leasehold_agent::Error;
    /// assert_eq!(Error::internal("the index is corrupt").message(), "the index is corrupt");
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<bindings::Error> for Error {
    fn from(error: bindings::Error) -> Self {
        Self { code: error.code, message: error.message }
    }
}

impl From<Error> for bindings::Error {
    fn from(error: Error) -> Self {
        Self { code: error.code, message: error.message }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() { io::Error::from(error).into() } else { Self::invalid_request(error.to_string()) }
    }
}

impl From<std::string::FromUtf8Error> for Error {
    fn from(error: std::string::FromUtf8Error) -> Self {
        Self::invalid_request(error.to_string())
    }
}

impl From<fmt::Error> for Error {
    fn from(error: fmt::Error) -> Self {
        Self::internal(error.to_string())
    }
}

/// An error of ours that travelled as an [`io::Error`] comes back as it was.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(ours) => return ours,
            Err(error) => error,
        };
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            io::ErrorKind::AlreadyExists => ErrorCode::AlreadyExists,
            io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
            io::ErrorKind::IsADirectory => ErrorCode::NotAFile,
            io::ErrorKind::DirectoryNotEmpty => ErrorCode::NotEmpty,
            io::ErrorKind::FileTooLarge => ErrorCode::TooLarge,
            io::ErrorKind::TimedOut => ErrorCode::Timeout,
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                ErrorCode::InvalidRequest
            }
            _ => ErrorCode::InternalError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.code {
            ErrorCode::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorCode::NotFound => io::ErrorKind::NotFound,
            ErrorCode::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorCode::NotADirectory => io::ErrorKind::NotADirectory,
            ErrorCode::NotEmpty => io::ErrorKind::DirectoryNotEmpty,
            ErrorCode::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorCode::BudgetExhausted => io::ErrorKind::QuotaExceeded,
            ErrorCode::Timeout => io::ErrorKind::TimedOut,
            ErrorCode::InvalidRequest | ErrorCode::NotAFile => io::ErrorKind::InvalidInput,
            // `Cancelled` among them: as `Interrupted`, std would try again for ever.
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_spelling_and_is_found_by_it() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert!("PERMISSION_DENIED".parse::<ErrorCode>().is_err());
    }

    #[test]
    fn an_error_survives_a_journey_through_std() {
        for code in ErrorCode::ALL {
            let error = Error::new(code, "what happened");
            assert_eq!(Error::from(io::Error::from(error.clone())), error);
            assert_ne!(io::Error::from(error).kind(), io::ErrorKind::Interrupted, "{code}");
        }
    }

    #[test]
    fn an_error_of_std_gets_the_nearest_code() {
        for (kind, expected) in [
            (io::ErrorKind::NotFound, ErrorCode::NotFound),
            (io::ErrorKind::UnexpectedEof, ErrorCode::InvalidRequest),
            (io::ErrorKind::BrokenPipe, ErrorCode::InternalError),
        ] {
            assert_eq!(Error::from(io::Error::from(kind)).code(), expected, "{kind}");
        }
        let error = serde_json::from_str::<u8>("x").map_err(Error::from).map_err(|error| error.code());
        assert_eq!(error, Err(ErrorCode::InvalidRequest));
    }
}
