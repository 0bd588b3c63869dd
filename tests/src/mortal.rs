//! A store whose host dies at a chosen record: from then on nothing it asks is ever answered.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use leasehold::{
    checkpoint, journal,
    store::{Begun, Position, Store, StoreError, Stored, StreamId},
};
use tokio::sync::watch;

/// When a host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It lives as long as the test lets it.
    Never,
    /// Just before the n-th record (from 0) is written.
    Before(u64),
    /// Just after it is written, and before anyone is told.
    After(u64),
}

/// A host's view of a store that outlives it.
pub struct Mortal {
    inner: Arc<dyn Store>,
    death: Death,
    records: AtomicU64,
    /// Nothing is answered any more.
    silent: AtomicBool,
    dead: watch::Sender<bool>,
}

impl Mortal {
    /// A view of `inner` that ends with `death`.
    pub fn of(inner: &Arc<dyn Store>, death: Death) -> Arc<Self> {
        let (inner, records, dead) = (Arc::clone(inner), AtomicU64::new(0), watch::Sender::default());
        Arc::new(Self { inner, death, records, silent: AtomicBool::new(false), dead })
    }

    /// Ends the host now.
    pub fn kill(&self) {
        self.silent.store(true, Ordering::SeqCst);
        self.dead.send_replace(true);
    }

    /// Returns once the host is dead.
    pub async fn died(&self) {
        // The sender lives as long as this does.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// How many records the host wrote, or tried to.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::SeqCst)
    }

    async fn alive(&self) {
        if self.silent.load(Ordering::SeqCst) {
            pending().await
        }
    }

    async fn die<T>(&self) -> T {
        self.kill();
        pending().await
    }
}

#[async_trait]
impl Store for Mortal {
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        self.alive().await;
        // What the host notes for itself comes at moments of its own.
        if stream.as_str() == checkpoint::STREAM {
            return self.inner.append(stream, last, records).await;
        }
        let count = records.len() as u64;
        let begin = self.records.fetch_add(count, Ordering::SeqCst);
        let fatal = match self.death {
            Death::Never => None,
            Death::Before(n) => n.checked_sub(begin).filter(|n| *n < count),
            Death::After(n) => n.checked_sub(begin).filter(|n| *n < count).map(|n| n + 1),
        };
        if let Some(written) = fatal {
            // What gathers in one append is chance: a faster disk would have been given the first of a job's records
            // alone. All other streams rely on an append being one.
            let written = match stream.as_str().starts_with(journal::JOBS) {
                true => written,
                false if matches!(self.death, Death::After(_)) => count,
                false => 0,
            };
            let first = records.into_iter().take(usize::try_from(written).unwrap_or(usize::MAX)).collect();
            // Nobody is told whether it failed, nor reads what it wrote.
            self.silent.store(true, Ordering::SeqCst);
            let _ = self.inner.append(stream, last, first).await;
            return self.die().await;
        }
        let appended = self.inner.append(stream, last, records).await;
        self.alive().await;
        appended
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.alive().await;
        let read = self.inner.read(stream, after, limit).await;
        self.alive().await;
        read
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        self.alive().await;
        let grown = self.inner.grown(stream, after).await;
        self.alive().await;
        grown
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError> {
        self.alive().await;
        self.inner.streams(prefix, after, limit).await
    }

    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError> {
        self.alive().await;
        self.inner.trim(stream, up_to).await
    }

    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError> {
        self.alive().await;
        self.inner.remove(stream, last).await
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        self.alive().await;
        self.inner.begun(after, limit).await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        self.alive().await;
        self.inner.size_bytes().await
    }
}
