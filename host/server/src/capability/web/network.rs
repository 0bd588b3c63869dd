//! The two things a fetch asks of the system: what a name resolves to, and a connection to an address.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{net::TcpStream, sync::Semaphore};

/// A network to fetch from.
///
/// Both halves are apart so that every address is looked at between them: a
/// name is resolved once, and what is connected to is an address.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The addresses of a name, best first.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;

    /// Connects to this address and to no other.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// The network of this machine, with its resolver and without its proxies.
pub struct System {
    lookups: Arc<Semaphore>,
}

impl System {
    /// At most `lookups_max` names are resolved at once.
    #[must_use]
    pub fn new(lookups_max: usize) -> Self {
        Self { lookups: Arc::new(Semaphore::new(lookups_max.clamp(1, Semaphore::MAX_PERMITS))) }
    }
}

#[async_trait]
impl Network for System {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        // The system's resolver cannot be interrupted. The place goes with its thread, so that names which
        // nobody answers for leave threads for the store however many fetches give up on them.
        let found = tokio::task::spawn_blocking(move || {
            let _place = place;
            (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        });
        found.await.map_err(io::Error::other)?
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
