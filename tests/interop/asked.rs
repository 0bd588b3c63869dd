//! A dialect that is asked for by its name, where a hello cannot say whose it is.

use std::process::Stdio;

use leasehold::transport::{
    Transport,
    websocket::{WebSocketConfig, connect},
};
use leasehold_tests::{
    ErrorCode, RawClient, Reply,
    host::{ALICE, token},
    program::{Serve, leasehold, run},
    raw::hello,
};
use serde_json::{Value, json};

async fn client(url: &str) -> RawClient {
    RawClient::new(connect(url, &WebSocketConfig::default()).await.expect("the host listens"))
}

/// The counters of a job's budget, which two dialects write in two ways.
async fn budget(client: &mut RawClient) -> Value {
    client.submit("echo").lease(json!({ "cost.budget": ["USD:1"] })).reply().await.payload()["budget"].clone()
}

#[tokio::test]
async fn the_url_can_name_it_and_the_log_says_which_is_spoken() {
    let host = Serve::new().await.start().await;
    for (query, dialect, expected) in [
        ("", "generic", json!({ "USD": 1 })),
        ("?dialect=python", "python", json!({ "USD": "USD:1" })),
        ("?x=1&dialect=go", "go", json!({ "USD": 1 })),
    ] {
        let mut client = client(&format!("{}{query}", host.url)).await;
        client.open(&token(ALICE)).await;
        assert_eq!(budget(&mut client).await, expected, "{query}");
        let session_id = client.session_id().to_owned();
        let opened = |line: &Value| (line["session_id"] == session_id.as_str()).then(|| line["dialect"].clone());
        assert_eq!(host.log(opened).await, dialect, "{query}");
    }
}

#[tokio::test]
async fn one_that_nobody_speaks_is_refused_with_those_there_are() {
    let host = Serve::new().await.start().await;
    for query in ["?dialect=klingon", "?dialect="] {
        let mut client = client(&format!("{}{query}", host.url)).await;
        client.send("session.hello", hello(&token(ALICE))).await;
        let refused = Reply(client.recv().await);
        assert_eq!((refused.kind(), refused.outcome()), ("session.error", Err(ErrorCode::InvalidRequest)), "{query}");
        assert!(refused.message().contains("typescript"), "{}", refused.message());
        assert_eq!(client.closed().await.code, 1008);
    }
    let _ = run(["stdio", "--dialect", "klingon"]).await.exits(2).complains("typescript");
}

#[tokio::test]
async fn a_flag_can_name_it_where_there_is_no_url() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = leasehold();
    command.args(["stdio", "--dialect", "python", "--agents"]).arg(leasehold_tests::agents_dir());
    command.arg("--data").arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut client = RawClient::new(Transport::lines(stdout, stdin, 1 << 20));
    client.open("").await;
    assert_eq!(budget(&mut client).await, json!({ "USD": "USD:1" }));
}
