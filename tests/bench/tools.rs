//! What the lease, the journal and the sandbox add to a call of a tool, and whether many calls of one agent overlap.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use leasehold::{
    capability::tools::{Call, Settings, Tools},
    clock::Clock,
    config::Config,
};
use leasehold_core::{
    lease::{Authority, Lease, gate::Gate, operation::CallTool},
    protocol::json::Json,
    time::Timestamp,
};
use leasehold_tests::{RawClient, TestHost, host::ALICE, python};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::{Row, shown};

/// Calls of one round, and how often each kind is measured.
const CALLS: usize = 300;
const ROUNDS: usize = 7;

/// How long the slow server takes to answer.
const SLOW: Duration = Duration::from_millis(200);

/// A tool of a local MCP server, called by itself and by an agent; and many requests of one agent at once.
pub async fn tools() -> Vec<Row> {
    let dir = std::env::temp_dir().join("leasehold-bench-tools");
    std::fs::create_dir_all(&dir).expect("a folder can be made");
    let mut rows = Vec::new();
    match python::environment(&dir, &["mcp==2.3.0", "mcp-server-time==2026.10.19"]).await {
        Ok(python) => rows.extend(overhead(&python).await),
        Err(why) => rows.push(Row::new("a tool of an MCP server", format!("not measured: {why}"), "")),
    }
    rows.extend(overlap().await);
    rows
}

/// Alternates between calls of the effect by itself and calls of agents, so that both meet the same machine.
async fn overhead(python: &Path) -> Vec<Row> {
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/server.py");
    let settings = |more: &str| {
        let settings =
            format!("[tools.suite]\ncommand = ['{}', '{}', 'stdio']\n{more}", python.display(), server.display());
        Config::parse(&settings).expect("the settings are understood").tools
    };
    let direct = Direct::start(&settings("")).await;
    let mut once = Leased::start(settings("")).await;
    let mut repeatable = Leased::start(settings("repeatable = ['suite.text']\n")).await;
    let mut best = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        let times = [direct.round().await, once.round().await, repeatable.round().await];
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }
    direct.tools.stop().await;
    let [direct, once, repeatable] = best;
    let added = |leased: Duration| {
        let added = leased.saturating_sub(direct);
        format!("{} ({:.0} %)", shown(added), added.as_secs_f64() / direct.as_secs_f64() * 100.0)
    };
    vec![
        crate::pieces::disk("this disk: fdatasync of 4 KiB appended"),
        Row::new("a tool of a local MCP server, without lease or journal", shown(direct), ""),
        Row::new("the same by an agent under a lease, from a durable journal", shown(once), ""),
        Row::new("what gate, sandbox and journal add to it", added(once), "< 10 %"),
        Row::new("the same by an agent, of a tool that may be called again", shown(repeatable), ""),
        Row::new("what gate, sandbox and journal add to it", added(repeatable), "< 10 %"),
    ]
}

/// An agent of a host with a durable journal.
struct Leased {
    session: RawClient,
    _host: TestHost,
}

impl Leased {
    async fn start(tools: BTreeMap<String, Settings>) -> Self {
        let builder = TestHost::builder().policy(ALICE, json!({ "tool.call": ["*"] }));
        let host = builder.config(|config| config.tools = tools).sqlite().start().await;
        let mut leased = Self { session: host.session().await, _host: host };
        // The first run meets a server that is still starting.
        while leased.calls(1).await.to_string().contains("\"err\"") {}
        leased
    }

    async fn calls(&mut self, count: usize) -> Value {
        let call = json!({ "do": "calls", "start": [{ "call": "tool", "name": "suite.text", "arguments": { "words": "a" } }] });
        let submission = self.session.submit("hostile").lease(json!({ "tool.call": ["suite.text"] }));
        let run = submission.input(json!({ "do": "steps", "steps": vec![call; count] })).run().await;
        run.result().expect("a result")
    }

    async fn round(&mut self) -> Duration {
        let begun = Instant::now();
        let told = self.calls(CALLS).await;
        let time = begun.elapsed();
        assert!(!told.to_string().contains("\"err\""), "every call was made: {told}");
        time / u32::try_from(CALLS).expect("few")
    }
}

/// The effect by itself.
struct Direct {
    tools: Tools,
    gate: Gate,
}

impl Direct {
    async fn start(settings: &BTreeMap<String, Settings>) -> Self {
        let tools = Tools::new(settings, Clock::system()).expect("the settings are of use");
        tools.settled().await;
        let grants = BTreeMap::from([("tool.call".to_owned(), vec!["*".to_owned()])]);
        let lease = Lease::parse(&grants).expect("it is a lease");
        Self { tools, gate: Gate::new(Authority { lease, expires_at: None }) }
    }

    async fn round(&self) -> Duration {
        let arguments = Json::of(&json!({ "words": "a" }));
        let call = Call {
            job_id: "job".into(),
            call_id: "call".into(),
            traceparent: None,
            deadline: None,
            cancelled: CancellationToken::new(),
        };
        let begun = Instant::now();
        for _ in 0..CALLS {
            let operation = CallTool::parse("suite.text").expect("a name");
            let permit = self.gate.permit(Timestamp::from_millis(0), operation).expect("granted");
            self.tools.call(permit, &arguments, &call).await.expect("the tool answers");
        }
        begun.elapsed() / u32::try_from(CALLS).expect("few")
    }
}

/// A hundred requests of one agent to a server that takes its time.
async fn overlap() -> Vec<Row> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                tokio::time::sleep(SLOW).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            });
        }
    });
    let Config { net, .. } = Config::parse("[net]\nallow = ['127.0.0.0/8']\n").expect("the settings are understood");
    let builder = TestHost::builder().policy(ALICE, json!({ "net.fetch": ["http://127.0.0.1:*/**"] }));
    let host = builder.config(|config| config.net = net).sqlite().start().await;
    let mut session = host.session().await;
    let mut walls = Vec::new();
    for count in [1, 100] {
        let start: Vec<Value> = vec![json!({ "call": "fetch", "url": url }); count];
        let lease = json!({ "net.fetch": ["http://127.0.0.1:*/**"] });
        let submission = session.submit("hostile").lease(lease).input(json!({ "do": "calls", "start": start }));
        let begun = Instant::now();
        let told = submission.run().await.result().expect("a result");
        walls.push(begun.elapsed());
        assert!(!told.to_string().contains("\"err\""), "{told}");
    }
    server.abort();
    let ratio = walls[1].as_secs_f64() / walls[0].as_secs_f64();
    let figure = format!("{} and {} ({ratio:.2} times)", shown(walls[0]), shown(walls[1]));
    vec![Row::new("one request of 200 ms by an agent, and a hundred at once", figure, "near one's")]
}
