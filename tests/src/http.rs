//! A socket without a library, for what a library would not say.

use std::net::SocketAddr;

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
