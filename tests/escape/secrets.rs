//! A token is used and never written down.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use leasehold::{secrets::SecretSource, transport::websocket};
use leasehold_core::secret::Secret;
use leasehold_tests::{RawClient, TestHost, within};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::{assert_without, everything_in};

/// A token of the host's.
const TOKEN: &str = "tk-known-5f0d7c1b-secret";

/// A token of some other host, given to this one by mistake; it is as secret.
const STRAY: &str = "tk-stray-91ab44ce-secret";

static LINES: AtomicUsize = AtomicUsize::new(0);
static LEAKS: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

/// Looks at every line of the log, of every level, and keeps what must not be there.
struct Watch;

impl io::Write for Watch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(line);
        if text.contains(TOKEN) || text.contains(STRAY) || text.contains("resume_token") {
            LEAKS.lock().expect("nobody panics with it").push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Watch {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Every way to present a token, rightly and wrongly, over a real socket, with a store in a real file.
#[tokio::test]
async fn a_token_is_in_no_log_no_file_and_no_answer() {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Watch).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no other test of this suite listens");
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let data_dir = data.path().to_owned();
    let host = TestHost::builder()
        .sqlite()
        .config(|config| {
            config.tokens.insert("carol".to_owned(), SecretSource::Text(Secret::new(TOKEN)));
            config.server.data = data_dir;
        })
        .start()
        .await;
    let url = host.serve_url().await;
    let connect = async || {
        let transport = within("a connection", websocket::connect(&url, &websocket::WebSocketConfig::default())).await;
        RawClient::new(transport.expect("the host listens"))
    };

    // Rightly.
    let mut carol = connect().await;
    let welcome = carol.open(TOKEN).await;
    assert_without(&welcome.to_string(), TOKEN, "the welcome");
    let run = carol.submit("hostile").input(json!({"do": "job"})).run().await;
    assert_without(&format!("{run:?}"), TOKEN, "a job");
    let run = carol.submit("hostile").input(json!({"do": "ambient"})).run().await;
    assert_without(&format!("{run:?}"), TOKEN, "a job");

    // Wrongly: each of these is refused, and the answer does not repeat what was said.
    let hello = |auth: Value| {
        let capabilities = json!({"encodings": ["json"], "features": []});
        json!({"client": {"name": "t", "version": "1"}, "auth": auth, "capabilities": capabilities})
    };
    let frame = |payload: Value| json!({"arcp": "1.1", "id": "request-1", "type": "session.hello", "payload": payload});
    for text in [
        frame(hello(json!({"scheme": "bearer", "token": STRAY}))).to_string(),
        frame(hello(json!({"scheme": STRAY, "token": TOKEN}))).to_string(),
        frame(hello(json!({"scheme": "bearer", "token": [TOKEN]}))).to_string(),
        frame(hello(json!({"scheme": "bearer", "token": {"value": TOKEN}}))).to_string(),
        frame(hello(json!(format!("Bearer {TOKEN}")))).to_string(),
        frame(hello(json!([STRAY]))).to_string(),
        frame(json!({"auth": {"scheme": "bearer", "token": TOKEN}, "client": TOKEN})).to_string(),
        frame(json!(TOKEN)).to_string(),
        frame(hello(json!({"scheme": "bearer", "token": TOKEN}))).to_string().replace('}', ""),
        json!({"arcp": "1.1", "id": "request-1", "type": "job.submit", "payload": {"token": STRAY}}).to_string(),
        TOKEN.to_owned(),
        json!(TOKEN).to_string(),
    ] {
        let mut client = connect().await;
        assert_eq!(client.id(), "request-1");
        client.send_text(text.clone()).await;
        let mut answers = String::new();
        while let Ok(answer) = client.recv_or_close().await {
            answers.push_str(&answer.to_string());
        }
        assert!(!answers.is_empty(), "{text}: the host says why");
        assert_without(&answers, TOKEN, &format!("the answer to {text}"));
        assert_without(&answers, STRAY, &format!("the answer to {text}"));
    }

    // In the header, where a proxy or a browser puts it.
    let address = url.trim_start_matches("ws://").trim_end_matches("/arcp").parse().expect("an address");
    for token in [TOKEN, STRAY] {
        let bearer = format!("Bearer {token}");
        let (_stream, head) = leasehold_tests::http::upgrade(address, "/arcp", &[("Authorization", &bearer)]).await;
        assert_without(&head, token, "the answer's head");
        let query = format!("/arcp?token={token}");
        let (_stream, head) = leasehold_tests::http::upgrade(address, &query, &[]).await;
        assert_without(&head, token, "the answer's head");
        let (_stream, head) = leasehold_tests::http::upgrade(address, &format!("/{token}"), &[]).await;
        assert_without(&head, token, "the answer's head");
    }

    let journals = everything_in(&**host.host().store()).await;
    assert!(journals.contains("carol"), "the journals were read");
    assert_without(&journals, TOKEN, "the store");
    assert_without(&journals, STRAY, "the store");
    let journal = host.folder("");
    for dir in [data.path(), &journal] {
        for entry in std::fs::read_dir(dir).expect("the data folder is there").flatten() {
            if entry.path().is_file() {
                let bytes = std::fs::read(entry.path()).expect("a file of the host's can be read");
                let text = String::from_utf8_lossy(&bytes);
                assert_without(&text, TOKEN, &entry.path().display().to_string());
            }
        }
    }
    host.stop().await;
    assert!(LINES.load(Ordering::Relaxed) > 20, "the log was watched");
    assert_eq!(*LEAKS.lock().expect("nobody panics with it"), Vec::<String>::new());
}
