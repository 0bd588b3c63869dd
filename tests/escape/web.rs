//! What stands between agents' fetches and servers here: a network of the tests' own, which counts.

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, ready},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use leasehold::capability::web::{Fetches, Network, Request, Response, Settings, WebError};
use leasehold_core::{
    lease::{Authority, Lease, gate::Gate, operation::Fetch, target::TargetError},
    time::Timestamp,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

/// The one address that is somewhere: whoever connects to it gets to the test's server.
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));

/// Names, and where connections go.
pub struct Net {
    server: SocketAddr,
    /// What a name resolves to, look by look; the last answer stays.
    names: Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>,
    pub lookups: AtomicUsize,
    /// Connections to the test's server.
    pub public: AtomicUsize,
    /// Every other address that a connection was asked for.
    pub reached: Mutex<Vec<SocketAddr>>,
}

impl Net {
    /// From now on, `name` is at these addresses, look by look.
    pub fn name(&self, name: &str, looks: &[&[IpAddr]]) {
        let looks = looks.iter().map(|look| look.to_vec()).collect();
        self.names.lock().expect("no test panicked here").insert(name.to_owned(), looks);
    }
}

/// The network as a client takes it.
struct Shared(Arc<Net>);

#[async_trait]
impl Network for Shared {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        let mut names = self.0.names.lock().expect("no test panicked here");
        let looks = names.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        let look = if looks.len() > 1 { looks.pop_front() } else { looks.front().cloned() };
        Ok(look.unwrap_or_default())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if address.ip() != PUBLIC {
            self.0.reached.lock().expect("no test panicked here").push(address);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.0.public.fetch_add(1, Ordering::Relaxed);
        TcpStream::connect(self.0.server).await
    }
}

/// A job with every `net.fetch` there is, and a server at `site.test` that is the test's.
pub struct Site {
    pub net: Arc<Net>,
    fetches: Fetches,
    gate: Gate,
}

impl Site {
    /// `serve` gets every connection as it is.
    pub async fn new<F, S>(settings: Settings, serve: F) -> Self
    where
        F: Fn(TcpStream) -> S + Send + Sync + 'static,
        S: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a port");
        let server = listener.local_addr().expect("it has an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let net = Arc::new(Net {
            server,
            names: Mutex::default(),
            lookups: AtomicUsize::new(0),
            public: AtomicUsize::new(0),
            reached: Mutex::default(),
        });
        net.name("site.test", &[&[PUBLIC]]);
        let web = leasehold::capability::web::Web::with(settings, Shared(Arc::clone(&net))).expect("the settings work");
        let grants = ["net.fetch".to_owned()].map(|name| (name, vec!["**".to_owned()]));
        let lease = Lease::parse(&BTreeMap::from(grants)).expect("it is a lease");
        let gate = Gate::new(Authority { lease, expires_at: None });
        Self { net, fetches: web.of_a_job(), gate }
    }

    /// Fetches under a lease that grants everything.
    pub async fn fetch(&self, method: &str, url: &str, request: Request) -> Outcome {
        let permit = |fetch| self.gate.permit(Timestamp::from_millis(0), fetch);
        let fetch = Fetch::parse(method, url).map_err(Refused::Url)?;
        let first = permit(fetch).expect("everything is granted");
        self.fetches.open(first, request, |fetch| ready(permit(fetch))).await.map_err(Refused::Web)
    }

    /// Fetches from the test's server and reads the body, in no more than so long.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<(u16, Vec<u8>), WebError> {
        let request = Request { timeout: Some(timeout), redirects: 5, ..Request::default() };
        match self.fetch("GET", &format!("http://site.test{path}"), request).await {
            Ok(response) => {
                let status = response.status;
                Ok((status, response.body.all(u64::MAX).await?.to_vec()))
            }
            Err(Refused::Web(error)) => Err(error),
            Err(Refused::Url(error)) => panic!("{error}"),
        }
    }
}

pub type Outcome = Result<Response, Refused>;

/// Where a fetch was stopped.
#[derive(Debug)]
pub enum Refused {
    /// Its URL or method is none.
    Url(TargetError),
    /// By the client.
    Web(WebError),
}

/// Reads the head of a request, and no byte more.
pub async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}
