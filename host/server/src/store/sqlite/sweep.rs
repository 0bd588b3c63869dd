//! Clearing away the records of streams that were removed, bit by bit between commits.
//!
//! A stream is removed by forgetting its name, which is one small change however long the stream is. Its place in the
//! file is written down, so that a start after a crash goes on with what was not cleared away yet.

use std::collections::VecDeque;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    Head, Outcome,
    file::is_damage,
    reading::{LAST_MAX, key},
};

/// What is yet to be cleared away, and when.
pub(super) struct Sweep {
    places: VecDeque<i64>,
    /// Who waits for the first places to be clear; those that an earlier run left have nobody.
    waiting: VecDeque<Option<oneshot::Sender<Outcome>>>,
    /// How many commits go before the next step.
    pause: u32,
    /// Whether the last step failed, and the next waits for commits to be seen to work.
    failed: bool,
    /// Whether the last step met damage, and the next looks at one stream alone.
    alone: bool,
}

impl Sweep {
    /// Goes on with what an earlier run left.
    pub(super) fn of(places: VecDeque<i64>) -> Self {
        Self { waiting: places.iter().map(|_| None).collect(), places, pause: 0, failed: false, alone: false }
    }

    pub(super) fn add(&mut self, place: i64, reply: oneshot::Sender<Outcome>) {
        self.places.push_back(place);
        self.waiting.push_back(Some(reply));
    }

    pub(super) fn is_done(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether to make a step now; asked before each commit and, with `idle`, when there is none to make.
    pub(super) fn is_due(&mut self, idle: bool) -> bool {
        self.pause = self.pause.saturating_sub(1);
        self.pause == 0 || (idle && !self.failed)
    }

    /// Has `sweep` clear away some of the first places, and tells those who wait.
    pub(super) fn step(&mut self, sweep: impl FnOnce(&[i64]) -> rusqlite::Result<usize>) {
        let together = if self.alone { 1 } else { STEP_STREAMS_MAX };
        let places: Vec<i64> = self.places.iter().take(together).copied().collect();
        (self.pause, self.failed) = (COMMITS_BETWEEN_STEPS, false);
        match sweep(&places) {
            Ok(cleared) => {
                self.alone &= cleared == 0;
                self.clear(cleared);
            }
            Err(error) if is_damage(&error) => {
                if self.alone {
                    tracing::error!(%error, "a removed stream is damaged and cannot be cleared away");
                    self.clear(1);
                }
                self.alone = !self.alone;
            }
            Err(error) => {
                // Nobody has to know: what was removed is removed, and its room comes back later.
                tracing::warn!(%error, streams = self.places.len(), "removed streams cannot be cleared away yet");
                (self.pause, self.failed) = (COMMITS_AFTER_A_FAILURE, true);
                self.answer(self.places.len());
                self.waiting.resize_with(self.places.len(), || None);
            }
        }
    }

    fn clear(&mut self, count: usize) {
        self.places.drain(..count);
        self.answer(count);
    }

    fn answer(&mut self, count: usize) {
        for reply in self.waiting.drain(..count).flatten() {
            // Whoever asked may have gone.
            let _ = reply.send(Ok(Head::default()));
        }
    }
}

impl Drop for Sweep {
    /// What was removed is removed, also when the store closes before its room is free.
    fn drop(&mut self) {
        self.answer(self.waiting.len());
    }
}

/// Clears away some records of the streams that were at `places`, and returns how many places are clear.
pub(super) fn sweep(connection: &Connection, places: &[i64]) -> rusqlite::Result<usize> {
    let mut select = connection
        .prepare_cached("SELECT key, length(bytes) FROM records WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3")?;
    let mut delete = connection.prepare_cached("DELETE FROM records WHERE key > ?1 AND key <= ?2")?;
    let mut forget = connection.prepare_cached("DELETE FROM removed WHERE id = ?1")?;
    let (mut records_left, mut bytes_left) = (STEP_RECORDS_MAX, STEP_BYTES_MAX);
    for (cleared, place) in places.iter().enumerate() {
        if records_left == 0 || bytes_left == 0 {
            return Ok(cleared);
        }
        let (begin, end) = (key(*place, 0), key(*place, LAST_MAX));
        let mut up_to = begin;
        let mut found = select.query([begin, end, i64::from(records_left)])?;
        while bytes_left > 0
            && let Some(row) = found.next()?
        {
            up_to = row.get(0)?;
            records_left -= 1;
            bytes_left = bytes_left.saturating_sub(row.get(1)?);
        }
        drop(found);
        delete.execute([begin, up_to])?;
        // It stopped for want of more, or at a bound, and then the next step looks again.
        if records_left == 0 || bytes_left == 0 {
            return Ok(cleared);
        }
        forget.execute([place])?;
    }
    Ok(places.len())
}

/// The places of streams that were removed and not cleared away.
pub(super) fn select_removed(connection: &Connection) -> rusqlite::Result<VecDeque<i64>> {
    connection.prepare("SELECT id FROM removed ORDER BY id")?.query_map([], |row| row.get(0))?.collect()
}

/// The bounds of one step, which appends may have to wait for: a few milliseconds.
const STEP_STREAMS_MAX: usize = 256;
const STEP_RECORDS_MAX: u32 = 1024;
const STEP_BYTES_MAX: u32 = 4 << 20;

/// While there is always something to commit, every so many commits are followed by a step.
const COMMITS_BETWEEN_STEPS: u32 = 8;

/// A step that failed is tried again after so many commits.
const COMMITS_AFTER_A_FAILURE: u32 = 1024;
