//! Streams that live as long as the process, for tests and for hosts that may forget.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Mutex,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Position, Store, StoreError, Stored, StreamId, Waiters, check_size, lock, page};

/// An engine that keeps streams in memory and never forgets one by itself.
#[derive(Debug, Default)]
pub struct Memory {
    streams: Mutex<BTreeMap<StreamId, Stream>>,
    waiters: Waiters,
}

/// The records after `trimmed`, without a gap; a stream exists from its first record on.
#[derive(Debug, Default)]
struct Stream {
    trimmed: u64,
    records: VecDeque<Bytes>,
}

impl Stream {
    fn last(&self) -> Position {
        Position::new(self.trimmed + self.records.len() as u64)
    }

    fn after(&self, after: Position) -> impl Iterator<Item = Stored> {
        let skipped = usize::try_from(after.get().saturating_sub(self.trimmed)).unwrap_or(usize::MAX);
        let numbered = (self.trimmed + 1..).zip(&self.records).skip(skipped);
        numbered.map(|(number, bytes)| Stored { position: Position::new(number), bytes: bytes.clone() })
    }
}

#[async_trait]
impl Store for Memory {
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        check_size(&records)?;
        let new_last = {
            let mut streams = lock(&self.streams);
            let actual = streams.get(stream).map_or(Position::ZERO, Stream::last);
            if actual != last {
                return Err(StoreError::Conflict { last: actual });
            }
            if records.is_empty() {
                return Ok(actual);
            }
            let entry = streams.entry(stream.clone()).or_default();
            entry.records.extend(records);
            entry.last()
        };
        self.waiters.announce([(stream, new_last)]);
        Ok(new_last)
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        Ok(lock(&self.streams).get(stream).map_or_else(Vec::new, |stream| page(stream.after(after), limit)))
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        let waiter = self.waiters.enter(stream)?;
        if lock(&self.streams).get(stream).is_some_and(|stream| !stream.records.is_empty() && stream.last() > after) {
            return Ok(());
        }
        waiter.past(after).await
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError> {
        let from = match after.map(StreamId::as_str) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let streams = lock(&self.streams);
        let listed = streams.range::<str, _>((from, Bound::Unbounded));
        Ok(listed
            .take_while(|(id, _)| id.as_str().starts_with(prefix))
            .take(limit)
            .map(|(id, stream)| (id.clone(), stream.last()))
            .collect())
    }

    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError> {
        if let Some(stream) = lock(&self.streams).get_mut(stream) {
            while stream.trimmed < up_to.get() && stream.records.pop_front().is_some() {
                stream.trimmed += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    crate::store::conformance::suite!(Memory::default());
}
