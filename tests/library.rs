//! A host inside another program: described by a builder, reached through memory, and among the routes of a web server.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http_body_util::Full;
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use leasehold::{
    client::{Client, ClientError, ClientInfo, Submit},
    config::MountMode,
    host::{Builder, Host},
    store::memory::Memory,
};
use leasehold_tests::{agents_dir, shared_data_dir, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A host of alice, that keeps nothing.
fn described() -> Builder {
    let builder = Host::builder().agents(agents_dir()).data(shared_data_dir()).token("alice", "a token");
    builder.store(Arc::new(Memory::default())).config(|config| config.limits.live_agents_max = 8)
}

/// Submits a job and gives what it comes to.
async fn result(client: &mut Client, submit: Submit) -> Value {
    within("the acceptance", client.submit(submit)).await.expect("the job is accepted");
    loop {
        let frame = within("the end", client.next_event()).await.expect("the session goes on");
        if frame.is_terminal() {
            return frame.payload;
        }
    }
}

#[tokio::test]
async fn a_host_in_a_program_is_reached_through_memory() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(dir.path().join("a.txt"), "seen through a mount").expect("the folder can be written to");
    let host = described().mount("/in", dir.path(), MountMode::Ro).policy("alice", [("fs.read", &["/in/**"][..])]);
    let host = within("the host", host.start()).await.expect("it starts");
    let opened = Client::open(host.connect(), Some("a token"), ClientInfo::default());
    let mut client = within("a session", opened).await.expect("the token is right");
    let submit = Submit {
        lease_request: Some(json!({ "fs.read": ["/in/a.txt"] })),
        ..Submit::new("hostile", json!({ "do": "read", "path": "/in/a.txt" }))
    };
    let end = result(&mut client, submit).await;
    assert_eq!(end["result"]["ok"]["text"], "seen through a mount", "{end}");
    let stranger = Client::open(host.connect(), Some("another"), ClientInfo::default());
    let refused = within("a refusal", stranger).await;
    assert!(matches!(refused, Err(ClientError::Unauthenticated { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_owner_of_a_program_needs_no_token() {
    let host = described().config(|config| config.tokens.clear()).owner("me").start();
    let host = within("the host", host).await.expect("it starts");
    let opened = Client::open(host.connect(), None, ClientInfo::default());
    let mut client = within("a session", opened).await.expect("it is the owner");
    assert_eq!(result(&mut client, Submit::new("echo", json!(1))).await["result"], 1);
}

#[tokio::test]
async fn a_host_that_cannot_start_says_which_setting_is_wrong() {
    for (builder, named) in [
        (described().mount("in", ".", MountMode::Ro), "mounts"),
        (described().policy("bob", [("fs.read", &["/x"][..])]), "policy.bob"),
        (described().agents("/nowhere/at/all"), "server.agents"),
    ] {
        let error = within("the host", builder.start()).await.err().expect("it does not start").to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_host_is_one_route_of_a_web_server() {
    let host = Arc::new(within("the host", described().start()).await.expect("it starts"));
    let route = Arc::new(host.route());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback is free");
    let address = listener.local_addr().expect("a listener has an address");
    let serving = Arc::clone(&host);
    tokio::spawn(async move {
        while let Ok((stream, remote)) = listener.accept().await {
            let (host, route) = (Arc::clone(&serving), Arc::clone(&route));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let host = Arc::clone(&host);
                let response = match request.uri().path() {
                    "/" => Response::new(Full::from("a page")),
                    _ => route.answer(request, Some(remote), |peer| async move { host.serve_one(peer).await }),
                };
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::spawn(connection);
        }
    });

    let url = format!("ws://{address}/arcp");
    let opened = Client::connect_ws(&url, Some("a token"), ClientInfo::default());
    let mut client = within("a session", opened).await.expect("the token is right");
    assert_eq!(result(&mut client, Submit::new("echo", json!({ "a": 1 }))).await["result"], json!({ "a": 1 }));
    // As at a listener of its own; and the program's pages are its own business.
    for (request, status, words) in [
        ("GET /arcp HTTP/1.1\r\nHost: localhost", "426", "ARCP host"),
        ("GET / HTTP/1.1\r\nHost: localhost", "200", "a page"),
        ("GET /other HTTP/1.1\r\nHost: localhost", "404", ""),
        (
            "GET /arcp HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "403",
            "allowed_hosts",
        ),
    ] {
        let answer = within("an answer", ask(address, request)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words), "{request}: {answer}");
    }
    host.stop();
    assert!(within("a farewell", client.next_event()).await.is_err());
}

/// Sends a request, and gives the whole answer.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the program listens");
    let request = request.replacen("\r\n", "\r\nAccept: */*\r\n", 1);
    let close = if request.contains("Upgrade") { "" } else { "\r\nConnection: close" };
    socket.write_all(format!("{request}{close}\r\n\r\n").as_bytes()).await.expect("the connection is open");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("the program answers and closes");
    answer
}
