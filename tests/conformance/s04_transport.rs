//! ARCP §4: WebSocket and stdio.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use leasehold::transport::{CloseReason, Transport};
use leasehold_tests::{RawClient, TestHost, host, http, raw::hello, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

/// A hello of Alice as it goes over the wire.
fn hello_frame(id: &str) -> String {
    json!({ "arcp": "1.1", "id": id, "type": "session.hello", "payload": hello(&host::token("alice")) }).to_string()
}

fn ping_frame(id: &str) -> String {
    json!({ "arcp": "1.1", "id": id, "type": "session.ping", "payload": { "nonce": id } }).to_string()
}

/// The next message that is not control.
async fn text(socket: &mut WebSocketStream<TcpStream>) -> Value {
    match within("a message", socket.next()).await.expect("the connection is open").expect("it is well-formed") {
        Message::Text(text) => serde_json::from_str(&text).expect("a frame is JSON"),
        other => panic!("{other:?}"),
    }
}

/// A host with a listener, and a session over it.
async fn over_websocket(host: &TestHost) -> (SocketAddr, WebSocketStream<TcpStream>) {
    let address = host.serve().await;
    let mut socket = http::websocket(address, &[]).await;
    within("a write", socket.send(Message::text(hello_frame("h")))).await.expect("the host reads");
    assert_eq!(text(&mut socket).await["type"], "session.welcome");
    (address, socket)
}

#[tokio::test]
async fn the_listener_upgrades_its_path_and_its_names_and_asks_for_no_subprotocol() {
    let host = TestHost::new().await;
    let address = host.serve().await;
    for (path, headers, expected) in [
        ("/arcp", &[][..], 101),
        ("/arcp", &[("Sec-WebSocket-Protocol", "arcp.v1")], 101),
        ("/other", &[], 404),
        ("/arcp", &[("Host", "evil.example")], 403),
        ("/arcp", &[("Origin", "http://evil.example")], 403),
        ("/arcp", &[("Host", "localhost")], 101),
    ] {
        let (_, head) = http::upgrade(address, path, headers).await;
        assert_eq!(http::status(&head), expected, "{path} {headers:?}: {head}");
        if headers.is_empty() {
            assert_eq!(http::header(&head, "Sec-WebSocket-Protocol"), None, "{head}");
        }
    }
    let mut socket = http::websocket(address, &[("Sec-WebSocket-Protocol", "arcp.v1")]).await;
    within("a write", socket.send(Message::text(hello_frame("h")))).await.unwrap();
    assert_eq!(text(&mut socket).await["type"], "session.welcome");
}

#[tokio::test]
async fn a_binary_message_crashes_nothing_and_is_answered_as_text() {
    let host = TestHost::new().await;
    let address = host.serve().await;
    let mut socket = http::websocket(address, &[]).await;
    within("a write", socket.send(Message::binary(hello_frame("h").into_bytes()))).await.unwrap();
    assert_eq!(text(&mut socket).await["type"], "session.welcome");
}

#[tokio::test]
async fn a_message_in_three_fragments_is_one_frame() {
    let host = TestHost::new().await;
    let (_, mut socket) = over_websocket(&host).await;
    let ping = ping_frame("in three").into_bytes();
    let third = ping.len() / 3;
    for (part, code, is_last) in [
        (&ping[..third], Data::Text, false),
        (&ping[third..2 * third], Data::Continue, false),
        (&ping[2 * third..], Data::Continue, true),
    ] {
        let frame = Frame::message(part.to_vec(), OpCode::Data(code), is_last);
        within("a write", socket.send(Message::Frame(frame))).await.unwrap();
    }
    assert_eq!(text(&mut socket).await["payload"]["ping_nonce"], "in three");
    // Once: what follows is the answer to the next.
    within("a write", socket.send(Message::text(ping_frame("next")))).await.unwrap();
    assert_eq!(text(&mut socket).await["payload"]["ping_nonce"], "next");
}

#[tokio::test]
async fn a_websocket_ping_is_answered_with_its_payload() {
    let host = TestHost::new().await;
    let (_, mut socket) = over_websocket(&host).await;
    within("a write", socket.send(Message::Ping("abc".into()))).await.unwrap();
    let pong = within("a pong", socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("abc".into()));
}

#[tokio::test]
async fn a_frame_at_the_limit_is_served_and_one_over_it_ends_the_connection() {
    const LIMIT: usize = 64 << 10;
    let host = TestHost::builder().config(|config| config.server.frame_bytes_max = LIMIT).start().await;
    let (address, mut socket) = over_websocket(&host).await;
    let padded = |size: usize| {
        let bare = ping_frame("padded");
        let padding = " ".repeat(size - bare.len());
        format!("{bare}{padding}")
    };
    within("a write", socket.send(Message::text(padded(LIMIT)))).await.unwrap();
    assert_eq!(text(&mut socket).await["type"], "session.pong");

    let submit = json!({
        "arcp": "1.1", "id": "s", "type": "job.submit",
        "payload": { "agent": "chatty", "input": { "count": 1, "start_delay_ms": 200 } },
    });
    within("a write", socket.send(Message::text(submit.to_string()))).await.unwrap();
    let job_id = text(&mut socket).await["payload"]["job_id"].clone();
    within("a write", socket.send(Message::text(padded(LIMIT + 1)))).await.unwrap();
    let close = loop {
        match within("a close", socket.next()).await {
            Some(Ok(Message::Close(Some(close)))) => break close,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(close.code), CloseReason::TOO_LARGE);

    // Its jobs are unharmed.
    let mut socket = http::websocket(address, &[]).await;
    within("a write", socket.send(Message::text(hello_frame("h")))).await.unwrap();
    text(&mut socket).await;
    loop {
        let list = json!({ "arcp": "1.1", "id": "l", "type": "session.list_jobs", "payload": {} });
        within("a write", socket.send(Message::text(list.to_string()))).await.unwrap();
        let jobs = text(&mut socket).await["payload"]["jobs"].clone();
        assert_eq!(jobs[0]["job_id"], job_id);
        match jobs[0]["status"].as_str() {
            Some("running") => {}
            status => break assert_eq!(status, Some("success")),
        }
    }
}

#[tokio::test]
async fn lines_may_be_cut_anywhere_and_blank_ones_mean_nothing() {
    let host = TestHost::new().await;
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(theirs);
    host.serve_one(Transport::lines(reader, writer, 1 << 20));
    let (reader, mut writer) = tokio::io::split(ours);
    let mut lines = BufReader::new(reader).lines();
    let third = ping_frame("third");
    let (head, tail) = third.split_at(20);
    // Two frames in one write, CRLF, blank lines; then one frame in two writes.
    for part in
        [format!("{}\r\n\r\n\n{}\n", hello_frame("first"), ping_frame("second")), head.into(), format!("{tail}\n")]
    {
        within("a write", writer.write_all(part.as_bytes())).await.unwrap();
    }
    for expected in ["session.welcome", "session.pong", "session.pong"] {
        let line = within("a line", lines.next_line()).await.unwrap().expect("the host goes on");
        let frame: Value = serde_json::from_str(&line).expect("nothing but JSON, one document a line");
        assert_eq!(frame["type"], expected, "{frame}");
    }
}

#[tokio::test]
async fn the_end_of_the_input_ends_the_session_and_not_its_jobs() {
    let host = TestHost::new().await;
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(theirs);
    let served = tokio::spawn({
        let host = Arc::clone(host.host());
        async move { host.serve_one(Transport::lines(reader, writer, 1 << 20)).await }
    });
    let (reader, writer) = tokio::io::split(ours);
    let mut client = RawClient::new(Transport::lines(reader, writer, 1 << 20));
    client.open(&host::token("alice")).await;
    let job_id = client.submit("chatty").input(json!({ "count": 1, "start_delay_ms": 100 })).job_id().await;
    client.disconnect().await;
    within("the session to end", served).await.unwrap();
    let mut other = host.session().await;
    assert_eq!(other.status_at_end(&job_id).await, "success");
}
