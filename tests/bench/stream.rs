//! Many events: one job's to one session, and to many that watch it.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    Row,
    load::{Bare, folder_of},
    program::{Program, TOKEN},
};

const EVENTS: u64 = 100_000;
const WATCHED: u64 = 20_000;
const WATCHERS: u64 = 10;

/// How many events a second a client is told, from a journal on the disk.
pub async fn stream() -> Vec<Row> {
    let (agents, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    folder_of(&["chatty"], agents.path());
    let host = Program::leasehold(agents.path(), &data.path().join("host"));
    let mut session = Bare::connect(&host.url, TOKEN).await;
    let begun = Instant::now();
    session.feed("chatty", &format!(r#"{{"count":{EVENTS}}}"#)).await;
    session.flush().await;
    session.events_of_one_job(EVENTS).await;
    let live = rate(EVENTS, begun);

    session.feed("chatty", &format!(r#"{{"count":{WATCHED}}}"#)).await;
    session.flush().await;
    let job = session.job_id().await;
    let mut watchers = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..WATCHERS {
        let (url, job) = (host.url.clone(), job.clone());
        watchers.spawn(async move {
            let mut watcher = Bare::offering(&url, TOKEN, &["subscribe"]).await;
            watcher.subscribe(&job).await;
            watcher.events_of_one_job(WATCHED).await;
        });
    }
    watchers.join_all().await;
    let watched = rate(WATCHED * WATCHERS, begun);
    vec![
        Row::new("100,000 events of one job to its session, SQLite FULL: events/s", format!("{live:.0}"), "≥ 40,000"),
        Row::new("20,000 events of a job to 10 that watch it: deliveries/s", format!("{watched:.0}"), "≥ 120,000"),
    ]
}

/// What sessions cost that do nothing but show that they are there (ARCP §6.4), every 15 seconds by default.
pub async fn idle() -> Vec<Row> {
    const SESSIONS: usize = 1000;
    const SPELL: Duration = Duration::from_secs(45);
    let (agents, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let host = Program::leasehold(agents.path(), &data.path().join("host"));
    let mut sessions = JoinSet::new();
    for _ in 0..SESSIONS {
        let mut session = Bare::offering(&host.url, TOKEN, &["heartbeat"]).await;
        sessions.spawn(async move { session.answer_pings().await });
    }
    let (before, begun) = (host.ticks(), Instant::now());
    tokio::time::sleep(SPELL).await;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = (host.ticks() - before) as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(sessions.len(), SESSIONS, "none was given up");
    vec![Row::new("1,000 idle sessions that answer pings: share of a core", format!("{share:.1} %"), "< 3 %")]
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: u64, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}
