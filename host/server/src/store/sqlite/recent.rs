//! What was committed last, in memory, for those who follow live streams.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use bytes::Bytes;

use super::{Change, Head};
use crate::store::{Position, Stored, StreamId, page};

/// What was committed last, as far as it fits.
///
/// Everything in it has an entry in `order`, and the oldest is dropped first, so memory is bounded by bytes and not by
/// the number of streams: one that has been quiet for long takes none. Only the writer changes it.
pub(super) struct Recent {
    pub(super) streams: HashMap<StreamId, Known>,
    pub(super) order: VecDeque<(StreamId, u64)>,
    pub(super) tail_bytes: usize,
    pub(super) bytes_max: usize,
}

/// What is known of a stream. The tail has the records up to `head.last`, without a gap.
#[derive(Default)]
pub(super) struct Known {
    head: Head,
    pub(super) tail: VecDeque<Bytes>,
    /// How often the stream stands in `order`, where it is named once for each record in the tail and perhaps for
    /// records that are gone; it is forgotten with the last of them.
    pub(super) named: usize,
}

impl Known {
    /// The position before the tail.
    fn before_tail(&self) -> u64 {
        self.head.last - self.tail.len() as u64
    }
}

impl Recent {
    pub(super) fn with_capacity(bytes_max: usize) -> Self {
        Self { streams: HashMap::new(), order: VecDeque::new(), tail_bytes: 0, bytes_max }
    }

    pub(super) fn head(&self, stream: &StreamId) -> Option<Head> {
        self.streams.get(stream).map(|known| known.head)
    }

    /// The records after `after`, or `None` if only the file knows them.
    pub(super) fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Option<Vec<Stored>> {
        let known = self.streams.get(stream)?;
        if !known.head.has_after(after) {
            return Some(vec![]);
        }
        let after = after.get().max(known.head.trimmed);
        let skipped = usize::try_from(after.checked_sub(known.before_tail())?).ok()?;
        let records = (after + 1..).zip(known.tail.iter().skip(skipped));
        Some(page(
            records.map(|(number, bytes)| Stored { position: Position::new(number), bytes: bytes.clone() }),
            limit,
        ))
    }

    pub(super) fn note(&mut self, stream: StreamId, change: Change) {
        let entry = self.streams.entry(stream);
        let stream = entry.key().clone();
        let known = entry.or_default();
        if change.anew {
            self.tail_bytes -= known.tail.drain(..).map(|record| record.len()).sum::<usize>();
        }
        // For a stream that was forgotten meanwhile, the tail begins here.
        known.head.last = change.head.last - change.added.len() as u64;
        for record in change.added {
            known.head.last += 1;
            if record.len() > record_bytes_max(self.bytes_max) {
                self.tail_bytes -= known.tail.drain(..).map(|record| record.len()).sum::<usize>();
                continue;
            }
            self.tail_bytes += record.len();
            known.tail.push_back(record);
            known.named += 1;
            self.order.push_back((stream.clone(), known.head.last));
        }
        known.head = change.head;
        while known.before_tail() < known.head.trimmed
            && let Some(trimmed) = known.tail.pop_front()
        {
            self.tail_bytes -= trimmed.len();
        }
        if known.named == 0 {
            known.named = 1;
            self.order.push_back((stream, 0));
        }
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.tail_bytes + self.order.len() * NAMED_BYTES > self.bytes_max
            && let Some((stream, number)) = self.order.pop_front()
        {
            let Entry::Occupied(mut entry) = self.streams.entry(stream) else { continue };
            let known = entry.get_mut();
            if known.before_tail() + 1 == number
                && let Some(record) = known.tail.pop_front()
            {
                self.tail_bytes -= record.len();
            }
            known.named -= 1;
            if known.named == 0 {
                entry.remove();
            }
        }
    }
}

/// A larger record is not cached, since it would drive out too much.
pub(super) fn record_bytes_max(cache_bytes: usize) -> usize {
    cache_bytes / 4
}

/// What an entry of [`Recent`] takes beside the record's bytes: two names, the maps' slots, allocations.
pub(super) const NAMED_BYTES: usize = 512;
