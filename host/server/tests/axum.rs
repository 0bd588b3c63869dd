//! A host as a route of an axum program, up to the upgrade and its refusals; `tests/library.rs` has the rest.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use leasehold::{
    client::{Client, ClientInfo},
    host::Host,
    store::memory::Memory,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[tokio::test]
async fn a_host_is_one_route_of_an_axum_program() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let host = Host::builder().agents(dir.path()).data(dir.path().join("data")).token("alice", "a token");
    let host = Arc::new(host.store(Arc::new(Memory::default())).start().await.expect("it starts"));
    let router = Router::new().route("/", get(|| async { "a page" })).merge(host.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback is free");
    let address = listener.local_addr().expect("a listener has an address");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });

    let url = format!("ws://{address}/arcp");
    let client = Client::connect_ws(&url, Some("a token"), ClientInfo::default()).await;
    client.expect("the token is right").close().await.expect("the host says goodbye");
    assert!(Client::connect_ws(&url, Some("another"), ClientInfo::default()).await.is_err());
    for (path, status, words) in [("/arcp", "426", "ARCP host"), ("/", "200", "a page"), ("/other", "404", "")] {
        let mut socket = TcpStream::connect(address).await.expect("the program listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("the connection is open");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("the program answers and closes");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words), "{path}: {answer}");
    }
}
