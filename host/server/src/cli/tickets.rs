//! What `submit --detach` leaves for `cancel`: how to come back to the session that submitted a job (ARCP §6.3).
//!
//! A file a job, in the user's own state folder and readable by nobody else,
//! since a resume token is a secret. It is worth nothing once the host's resume
//! window is over, and is removed then.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Failure, keep_private, user_state};
use crate::{
    client::{Client, Resume},
    clock::Clock,
};

#[derive(Serialize, Deserialize)]
struct Ticket {
    url: String,
    session_id: String,
    resume_token: String,
    last_event_seq: u64,
    /// Seconds since 1970.
    until: u64,
}

/// Where they are kept, if the user has a home.
fn folder() -> Option<PathBuf> {
    Some(user_state()?.join("sessions"))
}

fn file(job_id: &str) -> Option<PathBuf> {
    // An id of ours has nothing else in it, and another one must not lead elsewhere.
    let plain = !job_id.is_empty() && job_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    Some(folder()?.join(format!("{job_id}.json"))).filter(|_| plain)
}

fn now() -> u64 {
    u64::try_from(Clock::system().now().as_millis() / 1000).unwrap_or_default()
}

/// Keeps what is needed to come back to the session that a job was submitted in. Without a home nothing is kept.
pub fn keep(job_id: &str, url: &str, client: &Client) -> Result<(), Failure> {
    let (Some(folder), Some(file), Some(resume)) = (folder(), file(job_id), client.resume()) else { return Ok(()) };
    let window = client.welcome().get("resume_window_sec").and_then(Value::as_u64).unwrap_or(600);
    let ticket = Ticket {
        url: url.to_owned(),
        session_id: resume.session_id,
        resume_token: resume.resume_token,
        last_event_seq: resume.last_event_seq,
        until: now().saturating_add(window),
    };
    let text = serde_json::to_vec(&ticket).expect("a ticket is JSON");
    remove_old(&folder);
    keep_private(&file, &text).map_err(|error| Failure::Other(anyhow::anyhow!("{}: {error}", file.display())))
}

/// How to come back to the session that submitted a job to the host at `url`, if that was kept.
pub fn find(job_id: &str, url: &str) -> Option<Resume> {
    let ticket: Ticket = serde_json::from_slice(&fs::read(file(job_id)?).ok()?).ok()?;
    (ticket.url == url && ticket.until > now()).then_some(Resume {
        session_id: ticket.session_id,
        resume_token: ticket.resume_token,
        last_event_seq: ticket.last_event_seq,
    })
}

/// Removes what was kept of a job.
pub fn forget(job_id: &str) {
    if let Some(file) = file(job_id) {
        // One that is not there need not be removed.
        let _ = fs::remove_file(file);
    }
}

/// Removes what no host takes any more.
fn remove_old(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ticket = fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<Ticket>(&text).ok());
        if ticket.is_some_and(|ticket| ticket.until <= now()) {
            // Whoever else removed it did the same.
            let _ = fs::remove_file(entry.path());
        }
    }
}
