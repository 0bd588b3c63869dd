//! A store whose host dies at a chosen append: from then on nothing it asks is ever answered.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use leasehold::{
    checkpoint,
    store::{Begun, Position, Store, StoreError, Stored, StreamId},
};
use tokio::sync::watch;

/// When a host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It lives as long as the test lets it.
    Never,
    /// Just before the n-th append (from 0) is written.
    Before(u64),
    /// Just after it is written, and before anyone is told.
    After(u64),
}

/// A host's view of a store that outlives it.
pub struct Mortal {
    inner: Arc<dyn Store>,
    death: Death,
    appends: AtomicU64,
    dead: watch::Sender<bool>,
}

impl Mortal {
    /// A view of `inner` that ends with `death`.
    pub fn of(inner: &Arc<dyn Store>, death: Death) -> Arc<Self> {
        let (inner, appends, dead) = (Arc::clone(inner), AtomicU64::new(0), watch::Sender::default());
        Arc::new(Self { inner, death, appends, dead })
    }

    /// Returns once the host is dead.
    pub async fn died(&self) {
        // The sender lives as long as this does.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// How many appends there were.
    pub fn appends(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }

    async fn alive(&self) {
        if *self.dead.borrow() {
            pending().await
        }
    }

    async fn die<T>(&self) -> T {
        self.dead.send_replace(true);
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
        let n = self.appends.fetch_add(1, Ordering::SeqCst);
        if self.death == Death::Before(n) {
            return self.die().await;
        }
        let appended = self.inner.append(stream, last, records).await;
        if self.death == Death::After(n) {
            return self.die().await;
        }
        self.alive().await;
        appended
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.alive().await;
        self.inner.read(stream, after, limit).await
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
