//! MCP servers by their address, over streamable HTTP.

use std::process::Stdio;

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::*;

/// The suite's server behind an address.
struct Served {
    port: u16,
    _child: Child,
}

impl Served {
    async fn start(python: &Path, port: u16) -> Self {
        let mut child = Command::new(python);
        child
            .arg(server_program())
            .arg("http")
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = child.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        within("the server", async { while !lines.next_line().await.unwrap().unwrap().contains("Uvicorn running") {} })
            .await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { port, _child: child }
    }

    fn settings(&self, more: &str) -> String {
        format!("[suite]\nurl = 'http://127.0.0.1:{}/mcp'\n{more}", self.port)
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn it_is_the_same_over_http() {
    let Some(python) = python().await else { return };
    let served = Served::start(python, free_port().await).await;
    let tools = tools(
        &served
            .settings("answer_bytes_max = 100_000\nheaders = { Authorization = 'Bearer tk-secret' }\ntimeout_sec = 5"),
    );
    within("the server", tools.settled()).await;
    assert!(names(&tools).contains(&"suite.weather".to_owned()), "{:?}", names(&tools));
    let weather = call(&tools, "suite.weather", json!({ "city": "Ulm" })).await;
    assert_eq!(weather["city"], "Ulm");
    assert_eq!(call(&tools, "suite.text", json!({ "words": "ä\nb" })).await, json!("ä\nb"));
    assert!(matches!(failure(&tools, "suite.fail", json!({ "words": "no" })).await, ToolError::Failed(_)));

    // ARCP §11, and the operator's header, which the server has and no agent sees.
    let told = call(&tools, "suite.told", json!({})).await;
    assert_eq!(told["meta"]["traceparent"], json!(a_call().traceparent));
    assert_eq!(told["headers"], json!({ "traceparent": a_call().traceparent, "authorization": "…" }));

    for size in [100_000, 30_000_000] {
        let large = failure(&tools, "suite.large", json!({ "size": size })).await;
        assert_eq!(large, ToolError::TooLarge { what: "answer", max: 100_000 }, "{size}");
    }
    assert_eq!(call(&tools, "suite.text", json!({ "words": "still here" })).await, json!("still here"));

    assert_eq!(call(&tools, "suite.grow", json!({})).await, json!("grown"));
    until("the new tool", async || names(&tools).contains(&"suite.grown".to_owned())).await;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls");
    let calls = (0..16).map(|_| call(&tools, "suite.together", json!({ "path": path, "count": 16 })));
    assert!(within("the calls", futures_util::future::join_all(calls)).await.iter().all(|answer| answer == "all here"));

    let mark = dir.path().join("mark");
    let late = failure(&tools, "suite.wait", json!({ "mark": mark })).await;
    assert!(matches!(late, ToolError::Timeout { seconds: 5, .. }), "{late}");
    file_holds(&mark, "cancelled").await;
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_connected_to_again() {
    let Some(python) = python().await else { return };
    let (clock, hands) = Clock::manual(Timestamp::from_millis(0));
    let port = free_port().await;
    let served = Served::start(python, port).await;
    let tools = tools_at(&served.settings("price = { per_call = 'USD:1' }"), clock);
    within("the server", tools.settled()).await;
    let lost = try_call(&tools, "suite.die", json!({})).await.unwrap_err();
    assert!(matches!(lost.error, ToolError::Lost { .. }) && lost.cost.len() == 1, "{lost}");
    until("the host to see it", async || {
        matches!(
            failure(&tools, "suite.text", json!({ "words": "x" })).await,
            ToolError::NotConnected { again: Some(_), .. }
        )
    })
    .await;
    drop(served);
    let served = Served::start(python, port).await;
    hands.advance(Duration::from_secs(1));
    until("the server to be back", async || try_call(&tools, "suite.text", json!({ "words": "x" })).await.is_ok())
        .await;

    // One that was restarted unnoticed has forgotten the session: the call is not made, and costs nothing.
    drop(served);
    let _served = Served::start(python, port).await;
    let forgotten = try_call(&tools, "suite.text", json!({ "words": "x" })).await.unwrap_err();
    assert!(matches!(forgotten.error, ToolError::NotConnected { .. }) && forgotten.cost.is_empty(), "{forgotten}");
    until("the host to see it", async || {
        matches!(
            failure(&tools, "suite.text", json!({ "words": "x" })).await,
            ToolError::NotConnected { again: Some(_), .. }
        )
    })
    .await;
    hands.advance(Duration::from_secs(2));
    until("the server to be back", async || try_call(&tools, "suite.text", json!({ "words": "x" })).await.is_ok())
        .await;
}

/// Each row is an answer of something that is no server.
#[tokio::test]
async fn what_is_no_server_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answers, mut next) = tokio::sync::mpsc::channel::<String>(1);
    tokio::spawn(async move {
        let mut answer = String::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Ok(next) = next.try_recv() {
                answer = next;
            }
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer.is_empty() {
                tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        }
    });
    let table = [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "500"),
        ("HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer x=\"tk-secret\"\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello", ""),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", ""),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{", ""),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n", ""),
        ("nonsense", ""),
        ("", "it did not answer in 1 s"),
    ];
    for (answer, said) in table {
        answers.send(answer.to_owned()).await.unwrap();
        let tools = tools(&format!(
            "[x]\nurl = 'http://127.0.0.1:{port}/mcp'\nconnect_timeout_sec = 1\nheaders = {{ K = 'tk-secret' }}"
        ));
        within(answer, tools.settled()).await;
        let away = failure(&tools, "x.any", json!({})).await;
        assert!(matches!(away, ToolError::NotConnected { .. }), "{answer}: {away}");
        let text = away.to_string();
        assert!(text.contains(said) && !text.contains("tk-secret") && text.len() < 2_000, "{answer}: {away}");
        within("the end", tools.stop()).await;
    }
}
