//! What an agent tells those who watch its job (ARCP §8.2). Needs no grant.
//!
//! The host stores an event before anyone sees it and cuts texts at its limit
//! (default 16 KiB). An agent that tells more than the host can store waits.

use serde::Serialize;

use crate::{Error, bindings::events};

/// Logs what helps to find a fault.
///
/// ```no_run
/// leasehold_agent::events::debug("the cache is cold");
/// ```
pub fn debug(message: impl AsRef<str>) {
    events::log(events::Level::Debug, message.as_ref());
}

/// Logs what went as it should.
///
/// ```no_run
/// leasehold_agent::events::info("opened the index");
/// ```
pub fn info(message: impl AsRef<str>) {
    events::log(events::Level::Info, message.as_ref());
}

/// Logs what the agent can cope with and people may want to know.
///
/// ```no_run
/// leasehold_agent::events::warn("skipped one file that is not UTF-8");
/// ```
pub fn warn(message: impl AsRef<str>) {
    events::log(events::Level::Warn, message.as_ref());
}

/// Logs what the agent cannot cope with.
///
/// ```no_run
/// leasehold_agent::events::error("the index is corrupt");
/// ```
pub fn error(message: impl AsRef<str>) {
    events::log(events::Level::Error, message.as_ref());
}

/// Tells the reasoning that explains what comes next.
///
/// ```no_run
/// leasehold_agent::events::thought("the tests fail since the rename, so the rename comes first");
/// ```
pub fn thought(text: impl AsRef<str>) {
    events::thought(text.as_ref());
}

/// Logs at `debug` what a format string and its arguments say.
///
/// ```no_run
/// leasehold_agent::debug!("{} entries in the cache", 0);
/// ```
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::events::debug(::std::format!($($message)+)) };
}

/// Logs at `info` what a format string and its arguments say.
///
/// ```no_run
/// leasehold_agent::info!("read {} files", 12);
/// ```
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::events::info(::std::format!($($message)+)) };
}

/// Logs at `warn` what a format string and its arguments say.
///
/// ```no_run
/// leasehold_agent::warn!("skipped {}", "/workspace/logo.png");
/// ```
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::events::warn(::std::format!($($message)+)) };
}

/// Logs at `error` what a format string and its arguments say.
///
/// ```no_run
/// leasehold_agent::error!("no chapter {}", 7);
/// ```
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::events::error(::std::format!($($message)+)) };
}

/// Tells as a thought what a format string and its arguments say.
///
/// ```no_run
/// leasehold_agent::thought!("{} is the newest, so it comes first", "/workspace/a.rs");
/// ```
#[macro_export]
macro_rules! thought {
    ($($message:tt)+) => { $crate::events::thought(::std::format!($($message)+)) };
}

/// A `status` event on its way to the host; [`Status::emit`] sends it.
#[derive(Clone, Copy, Debug)]
#[must_use = "a status is reported by `emit`"]
pub struct Status<'a> {
    phase: &'a str,
    message: Option<&'a str>,
}

/// Begins the report that the job has entered `phase`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::events::status("indexing").message("12 folders").emit()?;
/// # Ok(())
/// # }
/// ```
pub fn status(phase: &str) -> Status<'_> {
    Status { phase, message: None }
}

impl<'a> Status<'a> {
    /// Adds a sentence for people.
    ///
    /// ```
    /// let status = leasehold_agent::events::status("indexing").message("12 folders");
    /// ```
    pub fn message(mut self, message: &'a str) -> Self {
        self.message = Some(message);
        self
    }

    /// Reports the phase.
    ///
    /// # Errors
    ///
    /// `invalid-request` for the host's own phases `back_pressure`,
    /// `credential_rotated` and `lease_expired`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::events::status("indexing").emit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn emit(self) -> Result<(), Error> {
        Ok(events::status(self.phase, self.message)?)
    }
}

/// A `progress` event on its way to the host; [`Progress::emit`] sends it (ARCP §8.2.1).
#[derive(Clone, Copy, Debug)]
#[must_use = "progress is reported by `emit`"]
pub struct Progress<'a> {
    current: u64,
    total: Option<u64>,
    units: Option<&'a str>,
    message: Option<&'a str>,
}

/// Begins a report of how far the job has come (ARCP §8.2.1).
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::events::progress(47).total(120).units("files").message("src/auth.rs").emit()?;
/// # Ok(())
/// # }
/// ```
pub fn progress(current: u64) -> Progress<'static> {
    Progress { current, total: None, units: None, message: None }
}

impl<'a> Progress<'a> {
    /// Says how far there is to go; without it the end is not known.
    ///
    /// ```
    /// let progress = leasehold_agent::events::progress(1).total(3);
    /// ```
    pub fn total(mut self, total: u64) -> Self {
        self.total = Some(total);
        self
    }

    /// Says what is counted.
    ///
    /// ```
    /// let progress = leasehold_agent::events::progress(1).units("files");
    /// ```
    pub fn units<'b>(self, units: &'b str) -> Progress<'b>
    where
        'a: 'b,
    {
        Progress { units: Some(units), ..self }
    }

    /// Says what the agent is at.
    ///
    /// ```
    /// let progress = leasehold_agent::events::progress(1).message("src/auth.rs");
    /// ```
    pub fn message<'b>(self, message: &'b str) -> Progress<'b>
    where
        'a: 'b,
    {
        Progress { message: Some(message), ..self }
    }

    /// Reports the progress.
    ///
    /// # Errors
    ///
    /// `invalid-request` if the current figure is over the total.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::events::progress(1).emit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn emit(self) -> Result<(), Error> {
        Ok(events::progress(self.current, self.total, self.units, self.message)?)
    }
}

/// An `artifact_ref` event on its way to the host; [`Artifact::emit`] sends it.
#[derive(Clone, Debug)]
#[must_use = "an artifact is reported by `emit`"]
pub struct Artifact {
    reference: events::Reference,
}

/// Begins the report that something was made and can be found at `uri`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// use leasehold_agent::events::artifact;
///
/// artifact("file:///workspace/report.md", "text/markdown").byte_size(5_120).emit()?;
/// # Ok(())
/// # }
/// ```
pub fn artifact(uri: impl Into<String>, content_type: impl Into<String>) -> Artifact {
    let (uri, content_type) = (uri.into(), content_type.into());
    Artifact { reference: events::Reference { uri, content_type, byte_size: None, sha256: None } }
}

impl Artifact {
    /// Says how large it is.
    ///
    /// ```
    /// let artifact = leasehold_agent::events::artifact("file:///a", "text/plain").byte_size(3);
    /// ```
    pub fn byte_size(mut self, bytes: u64) -> Self {
        self.reference.byte_size = Some(bytes);
        self
    }

    /// Says what its SHA-256 is, in 64 hexadecimal digits.
    ///
    /// ```
    /// let artifact = leasehold_agent::events::artifact("file:///a", "text/plain").sha256("0".repeat(64));
    /// ```
    pub fn sha256(mut self, hexadecimal: impl Into<String>) -> Self {
        self.reference.sha256 = Some(hexadecimal.into());
        self
    }

    /// Reports the artifact.
    ///
    /// # Errors
    ///
    /// `invalid-request` if a part is malformed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::events::artifact("file:///workspace/a.txt", "text/plain").emit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn emit(self) -> Result<(), Error> {
        Ok(events::artifact_ref(&self.reference)?)
    }
}

/// Emits an event of the agent's own kind, `x-vendor.<vendor>.<name>`, whose body is a JSON object.
///
/// # Errors
///
/// `invalid-request` for another kind or a body that is no object.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// use std::collections::BTreeMap;
///
/// leasehold_agent::events::vendor("x-vendor.acme.heat", &BTreeMap::from([("celsius", 71)]))?;
/// # Ok(())
/// # }
/// ```
pub fn vendor(kind: &str, body: &impl Serialize) -> Result<(), Error> {
    Ok(events::vendor(kind, &serde_json::to_string(body)?)?)
}
