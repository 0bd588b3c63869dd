//! Tools: real MCP servers from PyPI over both transports, and commands of the host.
//!
//! The effect is asked directly, with permits of a real gate. That a job's
//! lease decides who gets one is the subject of the suites `escape` and
//! `conformance`.

mod commands;
mod http;
mod servers;

use std::{
    collections::BTreeMap,
    env,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold::{
    capability::tools::{Answer, Call, Failure, Settings, Tool, ToolError, Tools},
    clock::Clock,
};
use leasehold_core::{
    lease::{
        Authority, Lease,
        gate::{Gate, Permit},
        operation::CallTool,
    },
    protocol::json::Json,
    time::Timestamp,
};
use leasehold_tests::{python, within};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// The official SDK, and a server that others have written with it.
const PACKAGES: [&str; 2] = ["mcp==2.3.0", "mcp-server-time==2026.10.19"];

/// The Python that has them, unless this machine cannot have it.
async fn python() -> Option<&'static Path> {
    static PYTHON: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let made = PYTHON.get_or_init(|| async {
        match python::environment(Path::new(env!("CARGO_TARGET_TMPDIR")), &PACKAGES).await {
            Ok(python) => Some(python),
            Err(why) if env::var_os("CI").is_none() => {
                let _ = writeln!(std::io::stderr(), "SKIPPED: tools of MCP servers: {why}");
                None
            }
            Err(why) => panic!("{why}"),
        }
    });
    made.await.as_deref()
}

/// The suite's own server.
fn server_program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/server.py")
}

/// Tools as an operator's file describes them.
fn tools_at(settings: &str, clock: Clock) -> Tools {
    let settings: BTreeMap<String, Settings> = toml::from_str(settings).unwrap();
    Tools::new(&settings, clock).unwrap()
}

fn tools(settings: &str) -> Tools {
    tools_at(settings, Clock::system())
}

/// The settings of the suite's own server as a child, under the name `suite`.
fn suite(python: &Path, more: &str) -> String {
    let (python, server) = (python.display(), server_program());
    format!("[suite]\ncommand = ['{python}', '{}', 'stdio']\n{more}", server.display())
}

fn operation(name: &str) -> CallTool {
    CallTool::parse(name).unwrap()
}

fn permit(name: &str) -> Permit<CallTool> {
    let lease = Lease::parse(&BTreeMap::from([("tool.call".to_owned(), vec!["**".to_owned()])])).unwrap();
    Gate::new(Authority { lease, expires_at: None }).permit(Timestamp::from_millis(0), operation(name)).unwrap()
}

fn a_call() -> Call {
    Call {
        job_id: "job_01".into(),
        call_id: "call_7".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        deadline: None,
        cancelled: CancellationToken::new(),
    }
}

async fn try_call(tools: &Tools, name: &str, arguments: Value) -> Result<Answer, Failure> {
    within(name, tools.call(permit(name), &Json::of(&arguments), &a_call())).await
}

async fn call(tools: &Tools, name: &str, arguments: Value) -> Value {
    let answer = try_call(tools, name, arguments).await.unwrap();
    serde_json::from_str(answer.content.as_str()).unwrap()
}

async fn failure(tools: &Tools, name: &str, arguments: Value) -> ToolError {
    try_call(tools, name, arguments).await.unwrap_err().error
}

fn names(tools: &Tools) -> Vec<String> {
    tools.list().iter().map(|tool| tool.name.to_string()).collect()
}

fn named(tools: &Tools, name: &str) -> Tool {
    tools.list().into_iter().find(|tool| tool.name.as_str() == name).unwrap()
}

/// Waits until something is so that nothing announces.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Waits until a file holds a text.
async fn file_holds(path: &Path, text: &str) {
    until(&format!("{} to say {text}", path.display()), async || {
        std::fs::read_to_string(path).is_ok_and(|said| said == text)
    })
    .await;
}

/// Waits until there is no process of this number any more.
async fn process_gone(pid: &str) {
    until(&format!("process {pid} to end"), async || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // A zombie has ended, and waits for whoever adopts it.
        status.is_empty() || status.contains("State:\tZ")
    })
    .await;
}

/// ARCP §9.6: each row is a setting that is of no use, and what the operator is told.
#[tokio::test]
async fn a_setting_that_is_of_no_use_is_named() {
    let table = [
        ("[x]\n", "tools.x: it has exactly one of"),
        ("[x]\nrun = ['a']\nurl = 'http://a/'", "tools.x: it has exactly one of"),
        ("[x]\nrun = []", "tools.x: run"),
        ("[x]\ncommand = ['']", "tools.x: command"),
        ("['a.b']\ncommand = ['a']", "the name of a server"),
        ("['a b']\nrun = ['a']", "the name of a tool"),
        ("['a..b']\nrun = ['a']", "the name of a tool"),
        ("[a]\ncommand = ['a']\n['a.b']\nrun = ['a']", "tools.a.b: it could be a tool of another entry"),
        ("[x]\nurl = 'ftp://a/'", "tools.x: url"),
        ("[x]\nurl = 'https://me:tk-secret@a/mcp'", "tools.x: url"),
        ("[x]\nurl = 'http://a/'\nheaders = { 'a b' = 'x' }", "headers.a b"),
        ("[x]\nurl = 'http://a/'\nheaders = { a = \"tk-secret\\n\" }", "headers.a"),
        ("[x]\nrun = ['a']\nenv = { KEY = { env = 'LEASEHOLD_TEST_NO_SUCH_VARIABLE' } }", "tools.x: env.KEY"),
        ("[x]\nrun = ['a']\ninput_schema = 'no-such-file.json'", "input_schema: no-such-file.json"),
        ("[x]\nrun = ['a']\ninput_schema = { type = 'strin' }", "tools.x: input_schema"),
        ("[x]\nrun = ['a']\nprices.y = { per_call = 'USD:1' }", "prices.\"y\""),
        ("[x]\nrun = ['a']\nprice.per_unit = { amount = 'USD:1', of = 'n', max = 1 }", "tools.x: price"),
        ("[x]\nrun = ['a']\nrepeatable = ['']", "repeatable"),
    ];
    for (text, said) in table {
        let settings: BTreeMap<String, Settings> = toml::from_str(text).unwrap();
        let error = Tools::new(&settings, Clock::system()).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.contains(said), "{text}: {error}");
        assert!(!error.contains("tk-secret"), "{error}");
    }
    for (text, said) in [
        ("[x]\nruns = ['a']", "unknown field `runs`"),
        ("[x]\nprice = { per_call = 'USD:-1' }", "not a plain decimal"),
        ("[x]\nprice = { per_unit = { amount = 'USD:1' } }", "missing field"),
    ] {
        let error = toml::from_str::<BTreeMap<String, Settings>>(text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
