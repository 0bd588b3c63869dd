//! A socket without a library, for what a library would not say; and one request of HTTP.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::within;

/// Asks for an upgrade of `path` with these headers besides the necessary ones, and gives the head of the answer.
///
/// # Panics
///
/// If the host does not answer with HTTP.
pub async fn upgrade(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (TcpStream, String) {
    let mut stream = within("a connection", TcpStream::connect(address)).await.expect("the host listens");
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    within("a write", stream.write_all(request.as_bytes())).await.expect("the host reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("an answer", stream.read_u8()).await.expect("the host answers"));
    }
    (stream, String::from_utf8(head).expect("a head is ASCII"))
}

/// The status of an answer.
///
/// # Panics
///
/// If it has none.
#[must_use]
pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status")
}

/// The value of a header.
#[must_use]
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim())
}

/// Upgrades and speaks WebSocket from then on.
///
/// # Panics
///
/// If the host does not upgrade.
pub async fn websocket(address: SocketAddr, headers: &[(&str, &str)]) -> WebSocketStream<TcpStream> {
    let (stream, head) = upgrade(address, "/arcp", headers).await;
    assert_eq!(status(&head), 101, "{head}");
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

/// Posts JSON with a bearer token on a connection of its own, and gives the status and the JSON of the answer.
///
/// # Panics
///
/// If there is no answer.
pub async fn post(address: SocketAddr, path: &str, bearer: &str, body: &Value) -> (u16, Value) {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP is spoken there");
    let connection = tokio::spawn(connection);
    let request = Request::post(path).header("host", address.to_string()).header("authorization", bearer);
    let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
    let answer = within("an answer", client.send_request(request)).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = within("a body", body.collect()).await.expect("a body").to_bytes();
    connection.abort();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}
