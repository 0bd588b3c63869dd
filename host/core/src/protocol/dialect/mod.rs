//! What one SDK's client spells differently from the draft.
//!
//! A session speaks the draft's words. Where a client cannot read them, its
//! dialect says so here as data, one small file per SDK that names what differs
//! from [`GENERIC`], and the encoder reads it. The dialect is chosen once, from
//! the client's hello, unless whoever connects has named it.

mod csharp;
mod detect;
mod echo;
pub(super) mod family_b;
mod fsharp;
mod generic;
mod go;
mod java;
mod php;
mod python;
mod ruby;
mod typescript;

use std::time::Duration;

pub use detect::detect;

use crate::{error::Refusal, protocol::status::Status};

/// How a client's spelling differs from the draft's.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Name for logs, and for whoever names a dialect.
    pub name: &'static str,
    /// Which words it has at all.
    pub words: Words,
    /// How its requests are refused.
    pub refusals: Refusals,
    /// How the counters of `job.accepted` are written.
    pub budget: BudgetForm,
    /// How the lease of `job.accepted` is written.
    pub lease: LeaseForm,
    /// How the end of a cancelled or timed-out job is written.
    pub stopped: StoppedForm,
    /// Whether a result is written once more as `output`, where this SDK looks for it.
    pub output: bool,
    /// How an event of a job is written.
    pub event: EventForm,
    /// How long the client needs after `job.subscribed` before it takes what is told of the job.
    pub subscribe_pause: Duration,
    /// Whether the client takes the end of a job that it watches, if that failed, for the refusal of a submission that
    /// is not answered yet.
    pub mistakes_ends: bool,
    /// Whether a credential of another scheme than `bearer` ends the reading of its acceptance (§9.8.1).
    pub only_bearer: bool,
}

/// Which types of messages there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Those of the draft. What else a dialect says is about these.
    Draft,
    /// Those from before it: `session.open`, `tool.invoke` and so on.
    Rfc,
}

impl Words {
    /// The word for a status.
    #[must_use]
    pub fn status(self, status: Status) -> &'static str {
        match self {
            Self::Draft => status.as_str(),
            Self::Rfc => family_b::status(status),
        }
    }
}

/// What a refused request asked for; some clients learn of each in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A session (§6.2, §6.3).
    Session,
    /// A job (§7.1).
    Submit,
    /// A listing (§6.6).
    List,
    /// To watch a job (§7.6).
    Subscribe,
    /// To cancel one (§7.4).
    Cancel,
    /// Anything else, for whose answer no client waits.
    Other,
}

impl Asked {
    /// What a frame of this type asks for.
    #[must_use]
    pub fn by(kind: &str) -> Self {
        match kind {
            "job.submit" | "tool.invoke" => Self::Submit,
            "session.list_jobs" => Self::List,
            "job.subscribe" | "subscribe" => Self::Subscribe,
            "job.cancel" | "cancel" => Self::Cancel,
            _ => Self::Other,
        }
    }
}

/// How each kind of request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of `Asked`, and `other` is all that are not named")]
pub struct Refusals {
    pub session: RefusalForm,
    pub submit: RefusalForm,
    pub list: RefusalForm,
    pub subscribe: RefusalForm,
    pub other: RefusalForm,
}

impl Refusals {
    /// The form for one of them.
    #[must_use]
    pub fn form(&self, asked: Asked) -> RefusalForm {
        match asked {
            Asked::Session => self.session,
            Asked::Submit => self.submit,
            Asked::List => self.list,
            Asked::Subscribe => self.subscribe,
            // No client of the draft waits for either.
            Asked::Cancel | Asked::Other => self.other,
        }
    }
}

/// The frame that refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalForm {
    /// `session.error` under the request's id.
    SessionError,
    /// `job.error` under the request's id, with no job in its envelope.
    ///
    /// Every SDK reads it, and none takes it for the end of the session or of a job, as several do with
    /// `session.error`.
    JobError,
    /// `job.error` under the request's id, with the job that was asked for in its envelope.
    JobErrorOfIt,
    /// `job.error` of a job that does not exist, with the request's trace.
    JobErrorOfNone,
    /// `nack`, which names the request as `correlation_id`.
    Nack,
    /// `session.unauthenticated` for a missing or wrong token, `session.rejected` for anything else.
    SessionRejected,
}

/// How a budget counter is written (§7.1).
#[derive(Debug, PartialEq, Eq)]
pub enum BudgetForm {
    /// `{"USD": 5.00}`
    Number,
    /// `{"USD": "USD:5.00"}`
    Amount,
}

/// How an effective lease is written (§7.1, §9.2).
#[derive(Debug, PartialEq, Eq)]
pub enum LeaseForm {
    /// `{"fs.read": ["/a/**"]}`
    Map,
    /// `{"id": "lse_…", "capabilities": ["fs.read"], "issued_at": "…"}`
    Capabilities,
}

/// How the end of a job is written that neither succeeded nor failed (§7.3).
#[derive(Debug, PartialEq, Eq)]
pub enum StoppedForm {
    /// `job.error` with the code `CANCELLED` or `TIMEOUT`.
    Error,
    /// `job.result` with the `final_status` alone.
    Result,
}

/// How an event of a job is written (§8.1).
#[derive(Debug, PartialEq, Eq)]
pub enum EventForm {
    /// `job.event`
    Plain,
    /// `subscribe.event`, with the whole `job.event` in its payload.
    Wrapped,
}

/// The draft's own spelling.
pub const GENERIC: &Dialect = &generic::DIALECT;

/// Every dialect there is.
pub const ALL: [&Dialect; 11] = [
    GENERIC,
    &typescript::DIALECT,
    &python::DIALECT,
    &go::DIALECT,
    &csharp::DIALECT,
    &fsharp::DIALECT,
    &java::DIALECT,
    &ruby::DIALECT,
    &php::DIALECT,
    &echo::DIALECT,
    &family_b::DIALECT,
];

/// The dialect of this name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Dialect> {
    ALL.into_iter().find(|dialect| dialect.name == name)
}

/// The dialect of this name; the draft's own spelling if there is none.
#[must_use]
pub fn named(name: &str) -> &'static Dialect {
    find(name).unwrap_or(GENERIC)
}

/// The dialect that somebody asked for by its name.
///
/// # Errors
///
/// If there is none of that name.
pub fn asked(name: &str) -> Result<&'static Dialect, Refusal> {
    find(name).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|dialect| dialect.name).collect();
        let name: String = name.chars().take(32).collect();
        Refusal::invalid(format!("there is no dialect `{name}`; this host knows {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_under_its_own_name() {
        for dialect in ALL {
            assert_eq!(named(dialect.name), dialect);
            assert_eq!(asked(dialect.name), Ok(dialect));
        }
        let refusal = asked("klingon").unwrap_err();
        assert!(ALL.iter().all(|dialect| refusal.message.contains(dialect.name)), "{refusal}");
    }
}
