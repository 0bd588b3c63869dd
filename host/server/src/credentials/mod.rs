//! Keys of jobs that somebody else makes (ARCP §9.8).
//!
//! The id of a credential is the host's, and is known before the key is made:
//! whoever keeps it durably first can revoke what a crash has left behind,
//! whether or not the key was ever seen. So a [`Provisioner`] remembers
//! nothing, and revoking what is not there has succeeded.
//!
//! A credential may have several keys, one after the other (`rotation.rs`); each
//! has an id of its own for whoever makes it, and all of them together spend no
//! more than the credential may.

pub mod command;
pub mod keeper;
pub mod litellm;
mod meter;
mod rotation;
pub mod settings;
mod tally;
mod turns;
mod vault;

use std::fmt;

use async_trait::async_trait;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{CredentialId, JobId, Principal},
    lease::{amount::Budget, pattern::Pattern},
    secret::Secret,
    time::Timestamp,
};

pub use leasehold_core::protocol::credential::Constraints;

use self::{
    command::Command,
    litellm::Litellm,
    settings::{CredentialEntry, Kind},
};

/// One of the keys that a credential has one after the other, the first of turn 1. As a text it is the id under which it
/// is made and revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId {
    /// The credential, whose id the client knows.
    pub credential: CredentialId,
    /// The how-manieth of its keys.
    pub turn: u32,
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.turn {
            1 => write!(f, "{}", self.credential),
            turn => write!(f, "{}-{turn}", self.credential),
        }
    }
}

/// What a key is made for.
#[derive(Clone, Debug)]
pub struct JobFacts {
    /// The job.
    pub job_id: JobId,
    /// Who has submitted it.
    pub principal: Principal,
    /// The models its lease covers (ARCP §9.7).
    pub models: Vec<Pattern>,
    /// How much of each currency the key may spend; a currency that is not here is not bounded.
    ///
    /// It is counted elsewhere, so the caller has carved it out of the job's money.
    pub budget: Budget,
    /// When the key is worth nothing any more, whatever happens (ARCP §9.5).
    pub expires_at: Option<Timestamp>,
}

/// A key, as `job.accepted` carries it to the submitter (ARCP §9.8.1).
#[derive(Clone, Debug)]
pub struct Issued {
    /// How the key is shown to the endpoint; `bearer` is the one way that all clients know.
    pub scheme: String,
    /// The key.
    pub value: Secret,
    /// Where it is of use.
    pub endpoint: String,
    /// What is spoken there, such as `openai`.
    pub profile: Option<String>,
    /// What the other side enforces.
    pub constraints: Constraints,
}

/// What makes keys and unmakes them.
#[async_trait]
pub trait Provisioner: Send + Sync + 'static {
    /// Makes a key for a job, as the credential `id`, which no other key has or had.
    ///
    /// It is worth no more than `facts` say, or none is made.
    ///
    /// # Errors
    ///
    /// If there is none. One may have been made all the same, so `id` is revoked then, too.
    async fn issue(&self, now: Timestamp, id: &str, facts: &JobFacts) -> Result<Issued, ProvisionError>;

    /// Makes a credential worth nothing. If it is, this succeeds.
    ///
    /// # Errors
    ///
    /// If that is not certain; then it is to be tried again.
    async fn revoke(&self, id: &str) -> Result<(), ProvisionError>;

    /// Says what a key has spent, as far as that is known where it is counted; nothing if nobody can tell.
    ///
    /// # Errors
    ///
    /// If it cannot be asked.
    async fn spent(&self, id: &str) -> Result<Option<Budget>, ProvisionError>;

    /// Sets what a key that is out may spend in all, from its first call on.
    ///
    /// # Errors
    ///
    /// If it is not certain that the key is bounded so.
    async fn bound(&self, id: &str, budget: &Budget) -> Result<(), ProvisionError>;
}

/// Makes the provisioner of a setting; none if the host makes the keys itself.
///
/// # Errors
///
/// If the setting cannot be used; the text names the key.
pub fn provisioner(name: &str, entry: &CredentialEntry) -> Result<Option<Box<dyn Provisioner>>, String> {
    let named = |kind: &str, what: String| format!("credentials.{name}.{kind}.{what}");
    Ok(match &entry.kind {
        Kind::Gateway(_) => None,
        Kind::Litellm(entry) => Some(Box::new(Litellm::new(entry).map_err(|what| named("litellm", what))?)),
        Kind::Command(entry) => Some(Box::new(Command::new(entry).map_err(|what| named("command", what))?)),
    })
}

/// Why there is no key, or one that may still be worth something. No message holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// What makes keys cannot make one that is worth no more than the lease.
    #[error("no key can be bounded as the lease is: {0}")]
    Unbounded(String),
    /// It is not there, or did not answer in time; it may be another time.
    #[error("what makes keys cannot be reached: {0}")]
    Unreachable(String),
    /// It has refused.
    #[error("what makes keys has refused: {0}")]
    Refused(String),
    /// It has answered with something else.
    #[error("what makes keys gave no proper answer: {0}")]
    Broken(String),
}

impl From<ProvisionError> for Refusal {
    fn from(error: ProvisionError) -> Self {
        let code = match error {
            ProvisionError::Unbounded(_) => ErrorCode::InvalidRequest,
            _ => ErrorCode::InternalError,
        };
        Self::new(code, error.to_string())
    }
}
