//! Streams that live as long as the process, for tests and for hosts that may forget.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Mutex,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Begun, Position, Store, StoreError, Stored, StreamId, Waiters, check_size, lock, page};

/// An engine that keeps streams in memory and never forgets one by itself.
#[derive(Debug, Default)]
pub struct Memory {
    streams: Mutex<Streams>,
    waiters: Waiters,
}

#[derive(Debug, Default)]
struct Streams {
    by_name: BTreeMap<StreamId, Stream>,
    by_number: BTreeMap<u64, StreamId>,
    /// The greatest number given.
    newest: u64,
    size_bytes: u64,
}

/// The records after `trimmed`, without a gap; a stream exists from its first record on.
#[derive(Debug, Default)]
struct Stream {
    number: u64,
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
        let mut streams = lock(&self.streams);
        let streams = &mut *streams;
        let actual = streams.by_name.get(stream).map_or(Position::ZERO, Stream::last);
        if actual != last {
            return Err(StoreError::Conflict { last: actual });
        }
        if records.is_empty() {
            return Ok(actual);
        }
        let entry = streams.by_name.entry(stream.clone()).or_insert_with(|| {
            streams.newest += 1;
            streams.by_number.insert(streams.newest, stream.clone());
            Stream { number: streams.newest, ..Stream::default() }
        });
        streams.size_bytes += size_bytes(&records);
        entry.records.extend(records);
        // Still under the lock, so that announcements come in the order of the changes.
        self.waiters.announce([(stream, entry.last())]);
        Ok(entry.last())
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let streams = lock(&self.streams);
        Ok(streams.by_name.get(stream).map_or_else(Vec::new, |stream| page(stream.after(after), limit)))
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        let waiter = self.waiters.enter(stream)?;
        let has_more = |stream: &Stream| !stream.records.is_empty() && stream.last() > after;
        if lock(&self.streams).by_name.get(stream).is_some_and(has_more) {
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
        let listed = streams.by_name.range::<str, _>((from, Bound::Unbounded));
        Ok(listed
            .take_while(|(id, _)| id.as_str().starts_with(prefix))
            .take(limit)
            .map(|(id, stream)| (id.clone(), stream.last()))
            .collect())
    }

    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError> {
        let mut streams = lock(&self.streams);
        let streams = &mut *streams;
        let Some(found) = streams.by_name.get_mut(stream) else { return Ok(()) };
        while found.trimmed < up_to.get()
            && let Some(record) = found.records.pop_front()
        {
            found.trimmed += 1;
            streams.size_bytes -= record.len() as u64;
        }
        if found.records.is_empty() {
            self.waiters.announce([(stream, Position::ZERO)]);
        }
        Ok(())
    }

    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError> {
        let mut streams = lock(&self.streams);
        let actual = streams.by_name.get(stream).map_or(Position::ZERO, Stream::last);
        if actual != last {
            return Err(StoreError::Conflict { last: actual });
        }
        if let Some(removed) = streams.by_name.remove(stream) {
            streams.by_number.remove(&removed.number);
            streams.size_bytes -= size_bytes(&removed.records);
            self.waiters.announce([(stream, Position::ZERO)]);
        }
        Ok(())
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        let streams = lock(&self.streams);
        let listed = streams.by_number.range((Bound::Excluded(after), Bound::Unbounded)).take(limit);
        let begun = |(number, stream): (&u64, &StreamId)| {
            let last = streams.by_name.get(stream)?.last();
            Some(Begun { number: *number, stream: stream.clone(), last })
        };
        Ok(listed.filter_map(begun).collect())
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(lock(&self.streams).size_bytes)
    }
}

fn size_bytes<'a>(records: impl IntoIterator<Item = &'a Bytes>) -> u64 {
    records.into_iter().map(|record| record.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::Memory;

    crate::store::conformance::suite!(Memory::default());
}
