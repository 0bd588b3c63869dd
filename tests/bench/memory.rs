//! What stays in memory: sessions that say nothing, and agents that wait.

use crate::{
    Row,
    load::{Bare, folder_of},
    program::{Program, TOKEN},
};

const SESSIONS: u64 = 2000;
const AGENTS: u64 = 1000;

/// Private memory of the host's process, before and after, for each of many.
pub async fn memory() -> Vec<Row> {
    let (agents, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    folder_of(&["sleeper", "echo"], agents.path());
    let host = Program::leasehold(agents.path(), &data.path().join("host"));

    // A few first, so that what is allocated once is not counted.
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(Bare::connect(&host.url, TOKEN).await);
    }
    let before = host.private_bytes();
    for _ in 0..SESSIONS {
        sessions.push(Bare::connect(&host.url, TOKEN).await);
    }
    let each_session = host.private_bytes().saturating_sub(before) / SESSIONS;

    let mut session = Bare::connect(&host.url, TOKEN).await;
    let mut park = async |count: u64| {
        for _ in 0..count {
            session.feed("sleeper", r#"{"sec":600}"#).await;
            session.flush().await;
            session.wait("job.accepted\"").await;
        }
        // A job behind them all: when it is done, they have all begun.
        session.echo().await;
    };
    park(50).await;
    let before = host.private_bytes();
    park(AGENTS).await;
    let each_agent = host.private_bytes().saturating_sub(before) / AGENTS;
    drop(sessions);
    #[expect(clippy::cast_precision_loss, reason = "kilobytes")]
    let kib = |bytes: u64| format!("{:.1} KiB", bytes as f64 / 1024.0);
    vec![
        Row::new("an idle session, of 2,000 (private memory of the host's process)", kib(each_session), "< 16 KB"),
        Row::new("a parked Rust agent, of 1,000 `sleeper`s (the same)", kib(each_agent), "< 256 KB"),
    ]
}
