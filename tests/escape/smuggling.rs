//! Headers, methods, URLs and bodies that would become something else on the wire.
//!
//! The server keeps every byte that it gets. What is refused leaves none; what
//! is sent is one request, with the lines that were asked for and no others.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use leasehold::capability::web::{Request, Settings, WebError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::web::{Refused, Site, read_head};

type Wire = Arc<Mutex<Vec<Vec<u8>>>>;

/// A server that keeps what each connection brought, up to its end.
async fn recording() -> (Site, Wire) {
    let wire = Wire::default();
    let kept = Arc::clone(&wire);
    let site = Site::new(Settings::default(), move |mut stream| {
        let kept = Arc::clone(&kept);
        async move {
            let mut all = read_head(&mut stream).await?;
            let head = String::from_utf8_lossy(&all).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).await?;
            all.append(&mut body);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.shutdown().await?;
            // Whatever still comes would be a second request.
            stream.read_to_end(&mut all).await?;
            kept.lock().expect("nobody panicked").push(all);
            Ok(())
        }
    });
    (site.await, wire)
}

/// What came of one attempt.
async fn attempt(site: &Site, wire: &Wire, method: &str, path: &str, request: Request) -> Result<Vec<u8>, Refused> {
    let response = site.fetch(method, &format!("http://site.test{path}"), request).await?;
    assert_eq!(response.status, 200);
    assert_eq!(response.body.all(100).await.expect("the body comes"), "ok");
    // The server keeps what it got once the connection is closed.
    loop {
        if let Some(all) = wire.lock().expect("nobody panicked").pop() {
            return Ok(all);
        }
        tokio::task::yield_now().await;
    }
}

/// The lines of a head that the host does not always say.
fn lines(all: &[u8]) -> Vec<String> {
    let text = String::from_utf8(all.to_vec()).expect("a head is ASCII");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head has an end");
    assert_eq!(body, "", "nothing follows");
    let usual = ["accept: */*", "host: site.test", "connection: close"];
    let said = head.split("\r\n").filter(|line| !usual.contains(line) && !line.starts_with("user-agent: leasehold/"));
    said.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_header_is_sent_as_one_line_or_not_at_all() {
    let (site, wire) = recording().await;
    let long = "x".repeat(70_000);
    let table: &[(&str, &[u8], Option<&str>)] = &[
        // What an agent may say.
        ("x-plain", b"value", Some("x-plain: value")),
        ("X-Case", b"Value", Some("x-case: Value")),
        ("x-empty", b"", Some("x-empty: ")),
        ("x-blank", b" \t value \t", Some("x-blank: value")),
        ("x-tab", b"a\tb", Some("x-tab: a\tb")),
        ("x-colon", b"a: b", Some("x-colon: a: b")),
        ("x-comma", b"a, b;c=\"d\"", Some("x-comma: a, b;c=\"d\"")),
        ("x-encoded", b"%0d%0aHost: b.test", Some("x-encoded: %0d%0aHost: b.test")),
        ("x-http-method-override", b"DELETE", Some("x-http-method-override: DELETE")), // no lease speaks of methods
        ("range", b"bytes=0-1", Some("range: bytes=0-1")),
        // What would begin another line, or end one that is open.
        ("x-a", b"v\r\nhost: b.test", None),
        ("x-a", b"v\nhost: b.test", None),
        ("x-a", b"v\rhost: b.test", None),
        ("x-a", b"v\r\n\r\nGET /admin HTTP/1.1\r\nhost: site.test\r\n\r\n", None),
        ("x-a", b"v\r\n folded", None),
        ("x-a", b"v\n\tfolded", None),
        ("x-a", b"\r\n", None),
        ("x-a", b"\nx", None),
        ("x-a", b"x\r", None),
        ("x-a", b"v\0w", None),
        ("x-a", b"v\x0bw", None),
        ("x-a", b"v\x0cw", None),
        ("x-a", b"v\x1bw", None),
        ("x-a", b"v\x7fw", None),
        ("x-a", b"v\x85w", None),                       // a line break of Latin-1
        ("x-a", "v\u{2028}w".as_bytes(), None),         // and of Unicode
        ("x-a", "v\u{560d}\u{560a}w".as_bytes(), None), // a line break to who keeps the low byte of each
        ("x-a", "v\u{10d}\u{10a}host: b".as_bytes(), None),
        ("x-a", b"v\xe5\x98\x8a\xe5\x98\x8dw", None),
        ("x-a", b"\xff\xfe", None),
        ("x-a", "käse".as_bytes(), None),
        // Names that are none.
        ("", b"v", None),
        (" x-a", b"v", None),
        ("x-a ", b"v", None),
        ("x a", b"v", None),
        ("x-a:", b"v", None),
        (":authority", b"b.test", None),
        (":path", b"/admin", None),
        ("x-a: v\r\nhost", b"b.test", None),
        ("x-a\r\nhost", b"b.test", None),
        ("x-a\n", b"v", None),
        ("x-a\0", b"v", None),
        ("x\u{e4}", b"v", None),
        ("ho\u{17f}t", b"b.test", None), // a long s, which is an s in upper case
        ("x(a)", b"v", None),
        (&long, b"v", None),
        ("x-long", long.as_bytes(), None),
        // What frames the message.
        ("content-length", b"0", None),
        ("Content-Length", b"5", None),
        ("content_length", b"5", None),
        ("Transfer-Encoding", b"chunked", None),
        ("transfer_encoding", b"chunked", None),
        ("TRANSFER-ENCODING", b"identity, chunked", None),
        ("te", b"trailers", None),
        ("Trailer", b"x-a", None),
        ("expect", b"100-continue", None),
        // Whose host it is.
        ("host", b"b.test", None),
        ("Host", b"site.test", None),
        ("HOST", b"127.0.0.1", None),
        ("x-forwarded-host", b"b.test", None),
        ("X_Forwarded_Host", b"b.test", None),
        ("x-forwarded-for", b"127.0.0.1", None),
        ("X-Forwarded-Proto", b"https", None),
        ("x-forwarded-prefix", b"/admin", None),
        ("forwarded", b"host=b.test", None),
        ("x-host", b"b.test", None),
        ("x-real-ip", b"127.0.0.1", None),
        ("X-Original-URL", b"/admin", None),
        ("x-rewrite-url", b"/admin", None),
        ("x-http-host-override", b"b.test", None),
        // What belongs to the connection.
        ("connection", b"keep-alive", None),
        ("Connection", b"x-plain, authorization", None),
        ("keep-alive", b"timeout=100", None),
        ("upgrade", b"websocket", None),
        ("http2-settings", b"AAMAAABkAAQCAAAAAAIAAAAA", None),
        ("proxy-authorization", b"Basic YTpi", None),
        ("Proxy-Connection", b"keep-alive", None),
        ("proxy-anything", b"v", None),
        ("proxy_authenticate", b"v", None),
    ];
    let mut refused = 0;
    for (name, value, expected) in table {
        let request = Request { headers: vec![((*name).to_owned(), value.to_vec())], ..Request::default() };
        let shown: String = name.escape_debug().take(80).collect();
        match (attempt(&site, &wire, "GET", "/x", request).await, expected) {
            (Ok(all), Some(line)) => assert_eq!(lines(&all), ["GET /x HTTP/1.1", line], "{shown}"),
            (Err(Refused::Web(WebError::Header { .. } | WebError::HeadersTooLarge { .. })), None) => refused += 1,
            (outcome, _) => panic!("{shown}: {}: {outcome:?}", value.escape_ascii()),
        }
    }
    let sent = table.iter().filter(|(_, _, expected)| expected.is_some()).count();
    assert_eq!(site.net.public.load(std::sync::atomic::Ordering::Relaxed), sent, "nothing refused reached the network");
    assert!(wire.lock().expect("nobody panicked").is_empty());
    println!("header smuggling: {refused} attempts refused, {sent} honest headers sent as one line each");
    assert!(refused >= 40, "{refused}");
}

#[tokio::test]
async fn a_url_and_a_method_are_one_line() {
    let (site, wire) = recording().await;
    for (method, path, expected) in [
        ("GET", "", Some("GET / HTTP/1.1")),
        ("get", "/x", Some("GET /x HTTP/1.1")),
        ("M-SEARCH", "/x", Some("M-SEARCH /x HTTP/1.1")),
        ("GET", "//b.test/x", Some("GET //b.test/x HTTP/1.1")),
        ("GET", "/http://b.test/", Some("GET /http://b.test/ HTTP/1.1")),
        ("GET", "/x%0d%0aHost:%20b.test", Some("GET /x%0D%0AHost:%20b.test HTTP/1.1")),
        ("GET", "/x?a=%0d%0aHost:%20b.test", Some("GET /x?a=%0d%0aHost:%20b.test HTTP/1.1")),
        ("GET", "/x%20HTTP/1.1%0d%0a%0d%0a", Some("GET /x%20HTTP/1.1%0D%0A%0D%0A HTTP/1.1")),
        ("GET", "/ä?ö", Some("GET /%C3%A4?%C3%B6 HTTP/1.1")),
        ("GET", "/x?a=\"<>'`{|}^~[]", Some("GET /x?a=%22%3C%3E%27`{|}^~[] HTTP/1.1")),
        ("GET", "/x?q#fragment", Some("GET /x?q HTTP/1.1")),
        ("GET", "/x\r\nhost: b.test", None),
        ("GET", "/x\nhost: b.test", None),
        ("GET", "/x HTTP/1.1\r\n\r\n", None),
        ("GET", "/x?a b", None),
        ("GET", "/x?a\r\n", None),
        ("GET", "/x\0", None),
        ("GET", "\\@b.test/", None),
        ("GET", "@b.test/", None),
        ("GET /admin HTTP/1.1\r\nhost: b.test\r\n\r\nGET", "/x", None),
        ("GET ", "/x", None),
        ("GET\t", "/x", None),
        ("", "/x", None),
        ("CONNECT", "/x", None),
        ("TRACE", "/x", None),
    ] {
        match (attempt(&site, &wire, method, path, Request::default()).await, expected) {
            (Ok(all), Some(line)) => assert_eq!(lines(&all), [line], "{path}"),
            (Err(Refused::Url(_) | Refused::Web(WebError::Method { .. })), None) => {}
            (outcome, _) => panic!("{method:?} {path:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_the_request_says() {
    let (site, wire) = recording().await;
    for body in [
        "0\r\n\r\nGET /admin HTTP/1.1\r\nhost: site.test\r\n\r\n",
        "\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
        "GET /admin HTTP/1.1\r\nhost: site.test\r\ncontent-length: 0\r\n\r\n",
    ] {
        for method in ["POST", "GET", "DELETE"] {
            let request = Request { body: Bytes::from(body), ..Request::default() };
            let all = attempt(&site, &wire, method, "/x", request).await.expect("a body may hold anything");
            let text = String::from_utf8(all).expect("it is ASCII");
            let (head, sent) = text.split_once("\r\n\r\n").expect("a head has an end");
            assert_eq!(sent, body, "{method}");
            let said: Vec<&str> = head.split("\r\n").filter(|line| line.contains("content-length")).collect();
            assert_eq!(said, [format!("content-length: {}", body.len())], "{method}");
            assert!(!head.contains("transfer-encoding"), "{method}");
        }
    }
}

#[tokio::test]
async fn a_header_is_named_in_its_refusal_and_shortened() {
    let (site, _) = recording().await;
    for (name, expected) in [
        ("Host", "the header `Host` cannot be sent: the host says it, from the URL and the body"),
        ("a\r\nb", "the header `a\\r\\nb` cannot be sent: its name must be"),
        ("x-forwarded-for", "the header `x-forwarded-for` cannot be sent: it names another place than the URL"),
        (&"é".repeat(1000), &format!("the header `{}…` cannot be sent", "é".repeat(64))),
    ] {
        let request = Request { headers: vec![(name.to_owned(), b"v".to_vec())], ..Request::default() };
        match site.fetch("GET", "http://site.test/", request).await {
            Err(Refused::Web(error)) => assert!(error.to_string().starts_with(expected), "{error}"),
            outcome => panic!("{name}: {outcome:?}"),
        }
    }
}
