//! Why a fetch did not happen, in words for the agent that asked.

use leasehold_core::{error::ErrorCode, lease::gate::Denied};

/// Why a request was not made, or its answer not read to the end.
///
/// A message names hosts as the agent or a redirect named them, and never an
/// address they resolved to.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The lease does not cover a redirect, or no longer covers anything.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// This host does not speak the scheme.
    #[error("this host fetches http and https, not `{scheme}`")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The method would show the agent what the operator adds.
    #[error("the method {method} is not allowed: it has the server repeat the request's headers")]
    Method {
        /// The method.
        method: String,
    },
    /// A header cannot be sent.
    #[error("the header `{name}` cannot be sent: {reason}")]
    Header {
        /// As the agent wrote it, shortened.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The headers of the request are over a limit.
    #[error("the request has more than {limit} of headers: send less")]
    HeadersTooLarge {
        /// Which, with its unit.
        limit: String,
    },
    /// The body of the request is over the limit.
    #[error("the request's body is larger than {limit} bytes: send it in parts")]
    BodyTooLarge {
        /// The most that is sent.
        limit: usize,
    },
    /// The host's addresses are not for agents.
    #[error("`{host}` is at no address that agents may reach; the operator of this host can allow it in `net.allow`")]
    Address {
        /// The name or address that was asked for.
        host: String,
    },
    /// A redirect was asked to be followed and cannot be.
    #[error("the redirect was not followed: {reason}; ask for no redirects to see the answer itself")]
    Redirect {
        /// Why.
        reason: String,
    },
    /// There were more redirects than asked for.
    #[error("there were more than {limit} redirects")]
    Redirects {
        /// The most that were to be followed.
        limit: u32,
    },
    /// It took too long.
    #[error("{what} took longer than {sec} s")]
    Timeout {
        /// What did.
        what: &'static str,
        /// The limit.
        sec: f64,
    },
    /// The answer's head is over a limit.
    #[error("the answer of `{host}` has more than {limit} of headers, the most this host reads")]
    HeadTooLarge {
        /// Who answered.
        host: String,
        /// Which, with its unit.
        limit: String,
    },
    /// The answer's body is over the limit.
    #[error("the answer's body is larger than {limit} bytes: {advice}")]
    TooLarge {
        /// The most that is read.
        limit: u64,
        /// The way round.
        advice: &'static str,
    },
    /// The fetches of this moment use all memory they may.
    #[error("the fetches of this host use all memory they may: try again, or read the answer in parts")]
    Busy,
    /// Nothing answers to the name.
    #[error("the name `{host}` cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
    },
    /// No connection came about.
    #[error("`{host}` cannot be connected to: {reason}")]
    Connect {
        /// The host.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// The other side is not who it should be, or does not speak TLS.
    #[error("there is no secure connection to `{host}`: {reason}")]
    Tls {
        /// The host.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("`{host}` did not answer properly: {reason}")]
    Broken {
        /// The host.
        host: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<&WebError> for ErrorCode {
    fn from(error: &WebError) -> Self {
        match error {
            WebError::Denied(denied) => denied.into(),
            WebError::Address { .. } | WebError::Redirect { .. } => Self::PermissionDenied,
            WebError::Timeout { .. } => Self::Timeout,
            WebError::Busy
            | WebError::Resolve { .. }
            | WebError::Connect { .. }
            | WebError::Tls { .. }
            | WebError::Broken { .. } => Self::InternalError,
            WebError::Scheme { .. }
            | WebError::Method { .. }
            | WebError::Header { .. }
            | WebError::HeadersTooLarge { .. }
            | WebError::BodyTooLarge { .. }
            | WebError::Redirects { .. }
            | WebError::HeadTooLarge { .. }
            | WebError::TooLarge { .. } => Self::InvalidRequest,
        }
    }
}

impl WebError {
    /// Whether an answer was over a limit, which agents are told by a code of its own.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::HeadTooLarge { .. } | Self::TooLarge { .. })
    }
}
