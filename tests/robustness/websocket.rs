//! WebSocket at its edges, byte for byte over TCP, with the outcome Autobahn's test suite expects (RFC 6455).
//!
//! Autobahn talks to a server that echoes. Ours answers `session.ping`, so what
//! there is to echo is one of those, and a connection that works answers one
//! more after whatever a case has sent.

use std::net::SocketAddr;

use leasehold_tests::{TestHost, host::token, within};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const PROTOCOL_ERROR: u16 = 1002;
const NOT_TEXT: u16 = 1007;
const TOO_LARGE: u16 = 1009;

/// The largest frame of the host these cases are put to.
const FRAME_BYTES_MAX: usize = 128 << 10;

/// One case: what is sent in so many writes, and what comes back.
struct Case {
    name: String,
    writes: Vec<Vec<u8>>,
    heard: Vec<Heard>,
}

/// What comes back from a host.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    /// A WebSocket pong.
    Pong(Vec<u8>),
    /// A `session.pong` with this nonce.
    Answer(String),
    /// A refusal of a frame that could be read and made no sense.
    Refused,
    /// A close frame with this code, or none. It is the last thing there is.
    Closed(Option<u16>),
}

/// A frame as a client writes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    with_mask(first, payload, Some([0x37, 0xfa, 0x21, 0x3d]))
}

fn with_mask(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(bit | u8::try_from(length).expect("it is short")),
        length @ ..65536 => {
            frame.push(bit | 126);
            frame.extend(u16::try_from(length).expect("it is not long").to_be_bytes());
        }
        length => {
            frame.push(bit | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The last frame of a message, or its only one.
fn whole(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0x80 | opcode, payload.as_ref())
}

/// A frame that others follow.
fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(opcode, payload.as_ref())
}

fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    whole(CLOSE, [&code.to_be_bytes()[..], reason.as_ref()].concat())
}

/// A `session.ping` of at least so many bytes.
fn ping(nonce: &str, bytes: usize) -> Vec<u8> {
    let payload = json!({ "nonce": nonce, "sent_at": "2026-05-13T12:00:00Z" });
    let mut text = json!({ "arcp": "1.1", "id": nonce, "type": "session.ping", "payload": payload }).to_string();
    text.extend(std::iter::repeat_n(' ', bytes.saturating_sub(text.len())));
    text.into_bytes()
}

/// The same with anything in a place where a text stands, which only has to be UTF-8.
fn around(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(ping("n", 0)).expect("it is JSON");
    let (before, after) = text.split_once('{').expect("it is an object");
    [before.as_bytes(), b"{\"x\":\"", bytes, b"\",", after.as_bytes()].concat()
}

fn answer(nonce: &str) -> Heard {
    Heard::Answer(nonce.to_owned())
}

/// All the writes as one, and each byte as one.
fn chopped(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.iter().map(|byte| vec![*byte]).collect()
}

struct Table(Vec<Case>);

impl Table {
    fn case(&mut self, name: impl Into<String>, writes: Vec<Vec<u8>>, heard: Vec<Heard>) {
        self.0.push(Case { name: name.into(), writes, heard });
    }

    /// As one write.
    fn at_once(&mut self, name: impl Into<String>, frames: Vec<Vec<u8>>, heard: Vec<Heard>) {
        self.case(name, vec![frames.concat()], heard);
    }

    fn fails(&mut self, name: impl Into<String>, frames: Vec<Vec<u8>>, code: u16) {
        self.at_once(name, frames, vec![Heard::Closed(Some(code))]);
    }
}

/// Autobahn 1: frames of every length there is a header for.
fn framing(table: &mut Table) {
    for (kind, opcode) in [("text", TEXT), ("binary", BINARY)] {
        for bytes in [125, 126, 127, 128, 65_535, 65_536, FRAME_BYTES_MAX] {
            table.at_once(format!("{kind} of {bytes} bytes"), vec![whole(opcode, ping("n", bytes))], vec![answer("n")]);
        }
        let bytes = whole(opcode, ping("n", 0));
        table.case(format!("{kind} byte by byte"), chopped(&bytes), vec![answer("n")]);
        let bytes = whole(opcode, ping("n", 65_536));
        let in_pieces = bytes.chunks(997).map(<[u8]>::to_vec).collect();
        table.case(format!("{kind} of 65536 bytes in pieces"), in_pieces, vec![answer("n")]);
        table.at_once(format!("{kind} without content"), vec![whole(opcode, "")], vec![Heard::Refused]);
    }
    let three = ["1", "2", "3"].map(|nonce| whole(TEXT, ping(nonce, 0)));
    table.at_once("three texts in one write", three.to_vec(), ["1", "2", "3"].map(answer).to_vec());
    table.at_once("binary that is no text", vec![whole(BINARY, [0xff, 0xfe])], vec![Heard::Refused]);
}

/// Autobahn 2: pings and pongs.
fn signs_of_life(table: &mut Table) {
    let binary = [0, 0xff, 0xfe, 0xfd];
    for (name, payload) in
        [("without content", &b""[..]), ("of text", b"hello"), ("of bytes", &binary), ("of 125", &[0xfe; 125])]
    {
        table.at_once(format!("ping {name}"), vec![whole(PING, payload)], vec![Heard::Pong(payload.to_vec())]);
        table.at_once(format!("pong {name} nobody asked for"), vec![whole(PONG, payload)], vec![]);
    }
    table.fails("ping of 126 bytes", vec![whole(PING, [0xfe; 126])], PROTOCOL_ERROR);
    table.fails("pong of 126 bytes", vec![whole(PONG, [0xfe; 126])], PROTOCOL_ERROR);
    table.case("ping byte by byte", chopped(&whole(PING, "hello")), vec![Heard::Pong(b"hello".to_vec())]);
    let frames = vec![whole(PONG, "not asked for"), whole(PING, "asked")];
    table.at_once("pong and then ping", frames, vec![Heard::Pong(b"asked".to_vec())]);
    let ten = (0..10_u8).map(|n| vec![n]);
    let pings: Vec<_> = ten.clone().map(|payload| whole(PING, payload)).collect();
    let pongs: Vec<_> = ten.map(Heard::Pong).collect();
    table.at_once("ten pings", pings.clone(), pongs.clone());
    table.case("ten pings byte by byte", chopped(&pings.concat()), pongs);
}

/// Autobahn 3: bits that nothing was negotiated for.
fn reserved_bits(table: &mut Table) {
    for bits in 1..8_u8 {
        for (kind, opcode, payload) in
            [("text", TEXT, ping("n", 0)), ("ping", PING, b"x".to_vec()), ("close", CLOSE, vec![])]
        {
            let bytes = frame(0x80 | bits << 4 | opcode, &payload);
            table.fails(format!("{kind} with reserved bits {bits:03b}"), vec![bytes], PROTOCOL_ERROR);
        }
    }
    let frames = vec![whole(TEXT, ping("first", 0)), frame(0xc0 | TEXT, &ping("second", 0)), whole(PING, "third")];
    table.at_once("a reserved bit after a text", frames, vec![answer("first"), Heard::Closed(Some(PROTOCOL_ERROR))]);
    let bytes = frame(0xa0 | TEXT, &ping("n", 0));
    table.case("a reserved bit byte by byte", chopped(&bytes), vec![Heard::Closed(Some(PROTOCOL_ERROR))]);
}

/// Autobahn 4: opcodes nobody has defined.
fn opcodes(table: &mut Table) {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        table.fails(format!("opcode {opcode}"), vec![whole(opcode, "")], PROTOCOL_ERROR);
        table.fails(format!("opcode {opcode} with content"), vec![whole(opcode, "reserved")], PROTOCOL_ERROR);
    }
    for opcode in [3, 11] {
        let frames = vec![whole(TEXT, ping("first", 0)), whole(opcode, "x"), whole(PING, "third")];
        let heard = vec![answer("first"), Heard::Closed(Some(PROTOCOL_ERROR))];
        table.at_once(format!("opcode {opcode} after a text"), frames, heard);
    }
}

/// Autobahn 5: messages in parts.
fn fragmentation(table: &mut Table) {
    let text = ping("n", 60);
    let (head, tail) = text.split_at(20);
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        table.fails(format!("{name} in parts"), vec![part(opcode, ""), whole(CONTINUATION, "")], PROTOCOL_ERROR);
    }
    for (kind, opcode) in [("text", TEXT), ("binary", BINARY)] {
        let (first, last) = (part(opcode, head), whole(CONTINUATION, tail));
        table.at_once(format!("{kind} in two parts"), vec![first.clone(), last.clone()], vec![answer("n")]);
        table.case(format!("{kind} in two parts and writes"), vec![first.clone(), last.clone()], vec![answer("n")]);
        let bytes = [first.clone(), last.clone()].concat();
        table.case(format!("{kind} in two parts byte by byte"), chopped(&bytes), vec![answer("n")]);
        let frames = vec![first, whole(PING, "between"), last];
        let heard = vec![Heard::Pong(b"between".to_vec()), answer("n")];
        table.at_once(format!("ping within {kind}"), frames.clone(), heard.clone());
        table.case(format!("ping within {kind}, in writes"), frames, heard);
        let mut frames = vec![part(opcode, "")];
        frames.extend(text.iter().map(|byte| part(CONTINUATION, [*byte])));
        frames.push(whole(CONTINUATION, ""));
        table.at_once(format!("{kind} a byte a part, empty at both ends"), frames, vec![answer("n")]);
    }
    let empty = vec![part(TEXT, ""), part(CONTINUATION, ""), whole(CONTINUATION, "")];
    table.at_once("a text of empty parts", empty, vec![Heard::Refused]);
    let mut frames = vec![part(TEXT, head)];
    frames.extend((0..5_u8).map(|n| whole(PING, [n])));
    frames.extend([part(CONTINUATION, ""), whole(PONG, "x"), whole(CONTINUATION, tail)]);
    let heard = (0..5_u8).map(|n| Heard::Pong(vec![n])).chain([answer("n")]).collect();
    table.at_once("five pings and a pong within a text", frames, heard);
    for (name, frames) in [
        ("a last part of nothing", vec![whole(CONTINUATION, "x"), whole(TEXT, ping("n", 0))]),
        ("a part of nothing", vec![part(CONTINUATION, "x"), whole(TEXT, ping("n", 0))]),
        ("a text within a text", vec![part(TEXT, head), whole(TEXT, ping("n", 0))]),
        ("a binary within a text", vec![part(TEXT, head), whole(BINARY, ping("n", 0))]),
        ("the beginning of a text within a text", vec![part(TEXT, head), part(TEXT, tail)]),
    ] {
        table.fails(name, frames, PROTOCOL_ERROR);
    }
    let frames = vec![part(TEXT, head), whole(CONTINUATION, tail), whole(CONTINUATION, "more")];
    table.at_once("a part after the last", frames, vec![answer("n"), Heard::Closed(Some(PROTOCOL_ERROR))]);
}

/// Autobahn 6: text that is UTF-8, and text that is not.
fn utf8(table: &mut Table) {
    let good = [
        "κόσμε",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "🦊",
    ];
    for text in good {
        let bytes = around(text.as_bytes());
        table.at_once(format!("text with {}", text.escape_unicode()), vec![whole(TEXT, &bytes)], vec![answer("n")]);
    }
    // A character may be cut by the end of a frame, and by the end of a write.
    let bytes = around("κόσμε🦊".as_bytes());
    let mut frames = vec![part(TEXT, "")];
    frames.extend(bytes.iter().map(|byte| part(CONTINUATION, [*byte])));
    frames.push(whole(CONTINUATION, ""));
    table.at_once("characters cut by frames", frames, vec![answer("n")]);
    table.case("characters cut by writes", chopped(&whole(TEXT, &bytes)), vec![answer("n")]);
    let bad: [(&str, &[u8]); 17] = [
        ("a continuation alone", b"\x80"),
        ("a last continuation alone", b"\xbf"),
        ("two continuations", b"\x80\xbf"),
        ("a lead of two and a space", b"\xc3 "),
        ("a lead of three cut short", b"\xe2\x82"),
        ("a lead of four cut short", b"\xf0\x9f\xa6"),
        ("a slash in two bytes", b"\xc0\xaf"),
        ("a slash in three bytes", b"\xe0\x80\xaf"),
        ("a slash in four bytes", b"\xf0\x80\x80\xaf"),
        ("a nul in two bytes", b"\xc0\x80"),
        ("a high surrogate", b"\xed\xa0\x80"),
        ("a low surrogate", b"\xed\xbf\xbf"),
        ("a pair of surrogates", b"\xed\xa0\x80\xed\xb0\x80"),
        ("beyond the last character", b"\xf4\x90\x80\x80"),
        ("a lead of five", b"\xf8\x88\x80\x80\x80"),
        ("a lead of six", b"\xfc\x84\x80\x80\x80\x80"),
        ("bytes that never occur", b"\xfe\xff"),
    ];
    for (name, bytes) in bad {
        let heard = vec![Heard::Refused, Heard::Closed(Some(NOT_TEXT))];
        table.at_once(format!("text with {name}"), vec![whole(TEXT, around(bytes))], heard.clone());
        let text = around(bytes);
        let (head, tail) = text.split_at(7);
        let frames = vec![part(TEXT, head), whole(CONTINUATION, tail)];
        table.at_once(format!("text in parts with {name}"), frames, heard);
    }
    let cut = vec![part(TEXT, &"\u{1f98a}".as_bytes()[..2]), whole(CONTINUATION, "")];
    table.at_once("a text that ends within a character", cut, vec![Heard::Refused, Heard::Closed(Some(NOT_TEXT))]);
}

/// Autobahn 7: how a connection ends.
fn closing(table: &mut Table) {
    table.at_once("close without a code", vec![whole(CLOSE, "")], vec![Heard::Closed(None)]);
    table.fails("close with half a code", vec![whole(CLOSE, [3])], PROTOCOL_ERROR);
    let longest = "x".repeat(123);
    for (name, reason) in
        [("without a reason", ""), ("with a reason", "goodbye"), ("with the longest reason", &longest)]
    {
        table.at_once(format!("close {name}"), vec![close(1000, reason)], vec![Heard::Closed(Some(1000))]);
    }
    table.fails("close with a reason too long", vec![close(1000, "x".repeat(124))], PROTOCOL_ERROR);
    let heard = vec![Heard::Refused, Heard::Closed(Some(NOT_TEXT))];
    table.at_once("close with a reason that is no text", vec![close(1000, [0xce, 0xba, 0xff])], heard);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
        table.at_once(format!("close with {code}"), vec![close(code, "")], vec![Heard::Closed(Some(code))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        table.fails(format!("close with {code}, which nobody may say"), vec![close(code, "")], PROTOCOL_ERROR);
    }
    for (name, after) in [("close", close(1000, "")), ("ping", whole(PING, "x")), ("text", whole(TEXT, ping("n", 0)))] {
        let frames = vec![close(1000, ""), after];
        table.at_once(format!("{name} after a close"), frames, vec![Heard::Closed(Some(1000))]);
    }
    let frames = vec![whole(TEXT, ping("n", 0)), close(1000, "")];
    table.at_once("close after a text", frames, vec![answer("n"), Heard::Closed(Some(1000))]);
    let text = ping("n", 0);
    let frames = vec![part(TEXT, &text[..9]), close(1000, ""), whole(CONTINUATION, &text[9..])];
    table.at_once("close within a text", frames, vec![Heard::Closed(Some(1000))]);
}

/// RFC 6455 §5.3: a client masks what it sends, in any way it likes.
fn masks(table: &mut Table) {
    for (name, first, payload) in [
        ("text", 0x80 | TEXT, ping("n", 0)),
        ("text in parts", TEXT, ping("n", 0)),
        ("binary", 0x80 | BINARY, ping("n", 0)),
        ("ping", 0x80 | PING, b"x".to_vec()),
        ("close", 0x80 | CLOSE, vec![]),
    ] {
        table.fails(format!("{name} without a mask"), vec![with_mask(first, &payload, None)], PROTOCOL_ERROR);
    }
    for mask in [[0; 4], [0xff; 4], [0, 0, 0, 1], [0x80, 0, 0, 0]] {
        let bytes = with_mask(0x80 | TEXT, &ping("n", 0), Some(mask));
        table.at_once(format!("text under the mask {mask:x?}"), vec![bytes], vec![answer("n")]);
    }
}

/// Autobahn 9: lengths beyond what is taken, none of which is waited for.
fn lengths(table: &mut Table) {
    let heard = vec![Heard::Refused, Heard::Closed(Some(TOO_LARGE))];
    for (name, length) in [
        ("one byte too many", FRAME_BYTES_MAX as u64 + 1),
        ("a gibibyte", 1 << 30),
        ("the most there can be", i64::MAX as u64),
    ] {
        for (kind, opcode) in [("text", TEXT), ("binary", BINARY)] {
            let mut bytes = vec![0x80 | opcode, 0xff];
            bytes.extend(length.to_be_bytes());
            bytes.extend([0; 4]);
            table.at_once(format!("{kind} of {name}"), vec![bytes], heard.clone());
        }
    }
    let half = vec![b' '; FRAME_BYTES_MAX / 2 + 1];
    let frames = vec![part(TEXT, &half), whole(CONTINUATION, &half)];
    table.at_once("a text that grows too large in parts", frames, heard);
    let text = ping("n", FRAME_BYTES_MAX);
    let (head, tail) = text.split_at(FRAME_BYTES_MAX / 2);
    let frames = vec![part(TEXT, head), whole(CONTINUATION, tail)];
    table.at_once("a text as large as may be in parts", frames, vec![answer("n")]);
}

/// ARCP §4: the WebSocket below it is that of the RFC.
#[tokio::test]
async fn the_edges_of_websocket_are_where_the_rfc_has_them() {
    let host = TestHost::builder().config(|config| config.server.frame_bytes_max = FRAME_BYTES_MAX).start().await;
    let address = host.serve().await;
    let mut table = Table(Vec::new());
    for fill in [framing, signs_of_life, reserved_bits, opcodes, fragmentation, utf8, closing, masks, lengths] {
        fill(&mut table);
    }
    assert!(table.0.len() >= 120, "{} cases", table.0.len());
    let mut wrong = Vec::new();
    for case in &table.0 {
        let heard = within(&case.name, put(address, case)).await;
        if heard != case.heard {
            wrong.push(format!("{}: {heard:?} instead of {:?}", case.name, case.heard));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.0.len(), wrong.join("\n"));
}

/// Puts a case to a host, and gives what comes back.
async fn put(address: SocketAddr, case: &Case) -> Vec<Heard> {
    let mut peer = Peer::connect(address).await;
    for bytes in &case.writes {
        // A host that has closed takes no more, which is then seen below.
        if peer.socket.write_all(bytes).await.is_err() {
            break;
        }
    }
    let ends = matches!(case.heard.last(), Some(Heard::Closed(_)));
    if !ends {
        peer.socket.write_all(&whole(TEXT, ping("end", 0))).await.expect("the connection is open");
    }
    let mut heard = Vec::new();
    loop {
        let Some(next) = peer.hear().await else { return heard };
        match next {
            Heard::Answer(nonce) if nonce == "end" => return heard,
            Heard::Closed(_) => {
                heard.push(next);
                // Farewell, so that the host need not wait for it.
                let _ = peer.socket.shutdown().await;
                while peer.hear().await.is_some() {
                    heard.push(Heard::Refused);
                }
                return heard;
            }
            next => heard.push(next),
        }
    }
}

/// A client that speaks no WebSocket but what it is told to.
struct Peer {
    socket: TcpStream,
}

impl Peer {
    /// A client with a session.
    async fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("the host listens");
        socket.set_nodelay(true).expect("a socket can be told so");
        let request = format!(
            "GET /arcp HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("the connection is open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("the host answers"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let mut peer = Self { socket };
        let payload = json!({
            "client": { "name": "edges", "version": "1" },
            "auth": { "scheme": "bearer", "token": token("alice") },
            "capabilities": { "encodings": ["json"], "features": [] },
        });
        let hello = json!({ "arcp": "1.1", "id": "1", "type": "session.hello", "payload": payload });
        peer.socket.write_all(&whole(TEXT, hello.to_string())).await.expect("the connection is open");
        let (opcode, welcome) = peer.frame().await.expect("the host answers");
        assert!(opcode == TEXT && String::from_utf8_lossy(&welcome).contains("session.welcome"));
        peer
    }

    /// The next frame, or nothing if the connection is over.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = [self.socket.read_u8().await.ok()?, self.socket.read_u8().await.ok()?];
        // A host sends whole messages, unmasked, and negotiates nothing.
        assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "{first:x} {second:x}");
        let length = match second {
            126 => self.socket.read_u16().await.ok()?.into(),
            127 => self.socket.read_u64().await.ok()?,
            length => length.into(),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a host sends no such frame")];
        self.socket.read_exact(&mut payload).await.ok()?;
        Some((first & 0x0f, payload))
    }

    async fn hear(&mut self) -> Option<Heard> {
        let (opcode, payload) = self.frame().await?;
        Some(match opcode {
            PONG => Heard::Pong(payload),
            CLOSE => Heard::Closed(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
            TEXT => {
                let frame: Value = serde_json::from_slice(&payload).expect("a host speaks JSON");
                match frame["type"].as_str() {
                    Some("session.pong") => answer(frame["payload"]["ping_nonce"].as_str().expect("a nonce")),
                    Some("session.error" | "job.error") => Heard::Refused,
                    other => panic!("{other:?}: {frame}"),
                }
            }
            other => panic!("the host sent opcode {other}"),
        })
    }
}
