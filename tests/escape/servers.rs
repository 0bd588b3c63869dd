//! Servers that hold, flood or confuse whoever fetches from them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use leasehold::capability::web::{Request, Settings, WebError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Barrier,
    task::JoinSet,
    time::interval,
};

use crate::web::{Refused, Site, read_head};

/// Time for a server that behaves; one that does not gets [`SHORT`].
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(400);

/// A server that answers every request with these bytes, and then says no more.
async fn saying(answer: &'static [u8]) -> Site {
    let site = Site::new(Settings::default(), move |mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(answer).await?;
        stream.shutdown().await
    });
    site.await
}

/// A server that repeats a piece after a beginning until nobody takes it any more, and counts what was taken.
async fn flooding(settings: Settings, begin: &'static str, piece: &'static str) -> (Site, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let site = Site::new(settings, move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            read_head(&mut stream).await?;
            stream.write_all(begin.as_bytes()).await?;
            let many = piece.repeat(1 + (8 << 10) / piece.len());
            // A gigabyte would do.
            while counted.load(Ordering::Relaxed) < 1 << 30 {
                stream.write_all(many.as_bytes()).await?;
                counted.fetch_add(many.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    (site.await, sent)
}

/// A server that says one byte of `piece` every 50 ms, for ever.
async fn dripping(begin: &'static [u8], piece: &'static [u8]) -> Site {
    let site = Site::new(Settings::default(), move |mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(begin).await?;
        let mut drip = interval(Duration::from_millis(50));
        for byte in piece.iter().cycle() {
            drip.tick().await;
            stream.write_all(&[*byte]).await?;
        }
        Ok(())
    });
    site.await
}

fn is_timeout<T>(outcome: &Result<T, WebError>) -> bool {
    matches!(outcome, Err(WebError::Timeout { .. }))
}

#[tokio::test]
async fn a_server_that_drips_has_the_time_of_the_fetch_and_no_more() {
    for (what, site) in [
        ("the status line", dripping(b"", b"H").await),
        ("the headers", dripping(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n").await),
        ("hints before the answer", dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n").await),
        ("a body of some length", dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x").await),
        ("a body in chunks", dripping(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n").await),
        ("a body without end", dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x").await),
        ("nothing", dripping(b"", b"").await),
    ] {
        let begun = Instant::now();
        let outcome = site.get("/", SHORT).await;
        // The last one closes the connection, having nothing to say.
        let closed = what == "nothing" && matches!(outcome, Err(WebError::Broken { .. }));
        assert!(closed || is_timeout(&outcome), "{what}: {outcome:?}");
        assert!(begun.elapsed() < SHORT + Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_in_a_body_is_given_up_before_the_time_is_over() {
    let settings = Settings { idle_timeout_sec: 1, ..Settings::default() };
    let site = Site::new(settings, |mut stream: TcpStream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
        stream.read_u8().await.map(|_| ())
    });
    let error = site.await.get("/", LONG).await.expect_err("the other half does not come");
    assert_eq!(error.to_string(), "the next part of the answer took longer than 1 s");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_given_up() {
    let settings = Settings { connect_timeout_sec: 1, ..Settings::default() };
    let site = Site::new(settings, |mut stream: TcpStream| async move {
        // It reads and never answers.
        stream.read_to_end(&mut Vec::new()).await.map(|_| ())
    });
    let outcome = site.await.fetch("GET", "https://site.test/", Request::default()).await;
    assert!(matches!(&outcome, Err(Refused::Web(WebError::Timeout { what: "connecting", .. }))), "{outcome:?}");
}

#[tokio::test]
async fn a_flood_ends_at_its_limit_and_not_at_the_server_s() {
    let small = || Settings { response_bytes_max: 1 << 20, ..Settings::default() };
    let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n";
    // What a socket holds on its way is taken, too.
    let sent_max = 16 << 20;
    for (what, begin, piece) in [
        ("one header of a gigabyte", "HTTP/1.1 200 OK\r\nx-a: ", "a"),
        ("headers without end", "HTTP/1.1 200 OK\r\n", "x-a: b\r\n"),
        ("a status line without end", "HTTP/1.1 200 ", "OK"),
        ("a body without end", "HTTP/1.1 200 OK\r\n\r\n", "body"),
        ("a gzip without end", gzip, "\u{1}\u{2}"),
        (
            "chunks without end",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "40\r\na chunk of 64 bytes that says nothing, and is one of very many..\r\n",
        ),
        ("a chunk's extension", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "a"),
        ("trailers", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x-a: b\r\n"),
    ] {
        let (site, sent) = flooding(small(), begin, piece).await;
        let begun = Instant::now();
        let outcome = site.get("/", LONG).await;
        let sent = sent.load(Ordering::Relaxed);
        println!("flood: {what}: {sent} bytes were taken in {:?}", begun.elapsed());
        let is_expected = match &outcome {
            Err(error) => error.is_too_large() || matches!(error, WebError::Broken { .. }),
            // Trailers are nobody's to read, so their flood ends with the body.
            Ok((200, body)) => what == "trailers" && body.is_empty(),
            Ok(_) => false,
        };
        assert!(is_expected, "{what}: {:?}", outcome.map(|(status, body)| (status, body.len())));
        assert!(sent < sent_max, "{what}: {sent} bytes were taken");
    }
}

/// The library reads zeros before a size for as long as they come; nothing is kept of them.
#[tokio::test]
async fn a_chunk_s_size_without_end_has_the_time_of_the_fetch() {
    let begin = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (site, _) = flooding(Settings::default(), begin, "0").await;
    assert!(is_timeout(&site.get("/", SHORT).await));
}

/// 10 GiB of zeros compressed twice are a few kilobytes on the wire, and that is what an agent gets.
#[tokio::test]
async fn a_compressed_body_stays_what_it_is() {
    const BOMB: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip, gzip\r\ncontent-length: 14\r\n\r\n\
        \x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xffbomb";
    let (status, body) = saying(BOMB).await.get("/", LONG).await.expect("it is an answer");
    assert_eq!((status, &*body), (200, &b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xffbomb"[..]));
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_none() {
    let ok = |body: &str| Ok((200, body.as_bytes().to_vec()));
    for (answer, expected) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], ok("ok")),
        (b"HTTP/1.0 200 OK\r\n\r\nok", ok("ok")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", ok("ok")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", ok("ok")),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", ok("ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\nsmuggled", Ok((204, vec![]))),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 8\r\n\r\nsmuggled", Ok((304, vec![]))),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nok", Err(())),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", Err(())),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok", Err(())),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nok", Err(())),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", Err(())), // no last chunk
        (b"HTTP/1.1 200 OK\r\nx a: b\r\n\r\n", Err(())),
        (b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\n\r\n", Err(())),
        (b"HTTP/9.9 200 OK\r\n\r\nok", Err(())),
        (b"HTTP/1.1 2x0 OK\r\n\r\nok", Err(())),
        (b"HTTP/1.1 99999 OK\r\n\r\nok", Err(())),
        (b"just text", Err(())),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Err(())),
        (b"220 mail.test ESMTP\r\n", Err(())),
        (b"\x16\x03\x01\x02\x00\x01\x00", Err(())),
        (b"", Err(())),
    ] {
        let outcome = saying(answer).await.get("/", LONG).await;
        if let Err(error) = &outcome {
            let is_expected = error.is_too_large() || matches!(error, WebError::Broken { .. });
            assert!(is_expected, "{}: {error:?}", answer.escape_ascii());
        }
        assert_eq!(outcome.map_err(|_| ()), expected, "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_circle_of_redirects_is_left_where_the_limit_is() {
    for location in ["/", "http://site.test/", "//site.test/again", "?", "http://SITE.test:80/%2E/"] {
        let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let site = Site::new(Settings::default(), move |mut stream: TcpStream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await?;
                stream.write_all(answer.as_bytes()).await
            }
        });
        let site = site.await;
        let error = site.get("/", LONG).await.expect_err("it leads nowhere");
        assert_eq!(error.to_string(), "there were more than 5 redirects");
        assert_eq!(site.net.public.load(Ordering::Relaxed), 6, "{location}");
        // However many an agent asks for, the operator's limit stands.
        let request = Request { redirects: u32::MAX, ..Request::default() };
        let outcome = site.fetch("GET", "http://site.test/", request).await;
        assert!(matches!(&outcome, Err(Refused::Web(WebError::Redirects { limit: 10 }))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_connection_is_closed_with_whoever_wanted_it() {
    let (closed, mut closing) = tokio::sync::mpsc::unbounded_channel();
    let site = Site::new(Settings::default(), move |mut stream: TcpStream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
            // Returns when the other side is gone.
            let _ = stream.read_u8().await;
            closed.send(()).map_err(io::Error::other)
        }
    });
    let site = site.await;
    let response = site.fetch("GET", "http://site.test/", Request::default()).await.expect("half an answer is one");
    assert!(closing.try_recv().is_err());
    drop(response);
    tokio::time::timeout(LONG, closing.recv()).await.expect("the connection is closed");
}

/// Nobody is answered until all have asked.
#[tokio::test]
async fn a_hundred_fetches_of_one_job_are_under_way_at_once() {
    const MANY: usize = 100;
    let all = Arc::new(Barrier::new(MANY));
    let site = Site::new(Settings::default(), move |mut stream: TcpStream| {
        let all = Arc::clone(&all);
        async move {
            read_head(&mut stream).await?;
            all.wait().await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
        }
    });
    let site = Arc::new(site.await);
    let mut fetches = JoinSet::new();
    for _ in 0..MANY {
        let site = Arc::clone(&site);
        fetches.spawn(async move { site.get("/", LONG).await });
    }
    for outcome in fetches.join_all().await {
        assert_eq!(outcome.expect("it is answered"), (200, b"ok".to_vec()));
    }
}
