//! What an operator gives servers and programs to know is known to nobody else, and nothing in the environment of the
//! host has its requests pass by somebody who would see it.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use leasehold::transport::websocket;
use leasehold_tests::{
    RawClient,
    host::{ALICE, BOB, token},
    program::{Serve, Served, run},
    upstream::{Asked, Reply, Upstream},
    within,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{assert_without, secrets::files_without};

/// What every secret of the operator begins with.
const KEPT: &str = "op-kept-";

/// The servers around a host. Each repeats what it was sent.
struct Around {
    web: Upstream,
    models: Upstream,
    tools: Upstream,
}

/// What a server was sent in its headers, in the words of a server that tells.
fn told(asked: &Asked) -> String {
    let header = |name| asked.header(name).unwrap_or_default();
    format!("{} {} {}", header("authorization"), header("x-key"), asked.line)
}

/// A server of tools with one tool, over streamable HTTP.
fn mcp(asked: &Asked) -> Reply {
    let result = match asked.body["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": asked.body["params"]["protocolVersion"], "capabilities": { "tools": {} },
            "serverInfo": { "name": "far", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [{
            "name": "tell", "description": told(asked), "inputSchema": { "type": "object", "title": told(asked) },
        }] }),
        Some("tools/call") if asked.body["params"]["arguments"]["fails"] == true => {
            json!({ "content": [{ "type": "text", "text": format!("no such token: {}", told(asked)) }], "isError": true })
        }
        Some("tools/call") => json!({ "content": [{ "type": "text", "text": told(asked) }] }),
        Some(_) if asked.body["id"].is_null() => return Reply::text(202, ""),
        Some(_) => {
            let error = json!({ "code": -32601, "message": "there is no such method" });
            let answer = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "error": error });
            return Reply::json(200, &answer).with("content-type", "application/json");
        }
        // It sends nothing by itself, and forgets nobody.
        None => return Reply::text(405, ""),
    };
    let answer = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result });
    Reply::json(200, &answer).with("content-type", "application/json")
}

impl Around {
    async fn start() -> Self {
        let web = Upstream::start(|asked| match asked.line.as_str() {
            "GET /away" => Reply::text(302, "").with("location", &format!("/{}", asked.header("x-key").unwrap_or(""))),
            _ => Reply::text(200, &told(asked)).with("x-told", &told(asked)),
        });
        Self { web: web.await, models: Upstream::openai().await, tools: Upstream::start(mcp).await }
    }

    /// The host's settings, with a secret in each place that takes one.
    fn settings(&self, dir: &Path) -> String {
        let [web, models, tools] = [&self.web, &self.models, &self.tools].map(Upstream::url);
        fs::write(dir.join("key"), format!("{KEPT}file\n")).expect("a file can be written");
        format!(
            r#"
[policy.alice.lease]
"net.fetch" = ["http://127.0.0.1:*/**"]
"tool.call" = ["**"]
"model.use" = ["**"]
[policy.bob]
observes = ["alice"]
[net]
allow = ["127.0.0.0/8"]
[net.inject."{web}/**"]
headers = {{ authorization = "Bearer {KEPT}inject", x-key = {{ file = "key" }} }}
[upstreams.main]
url = "{models}/v1"
key = "{KEPT}upstream"
headers = {{ x-key = "Team {KEPT}team" }}
[models.small]
upstream = "main"
[tools.far]
url = "{tools}/mcp"
headers = {{ Authorization = "Bearer {KEPT}header" }}
[tools.near]
run = ["sh", "-c", '''printf '{{"%s":["%s"]}}' "$KEY" "${{KEY#* }}"; echo "it is $KEY" >&2''']
env = {{ KEY = "Bearer {KEPT}env" }}
[tools.bad]
run = ["sh", "-c", '''echo "refused: ${{KEY#* }}" >&2; exit 1''']
env = {{ KEY = "Bearer {KEPT}env" }}
[tools.gone]
command = ["sh", "-c", '''echo "it is $KEY" >&2; exit 3''']
env = {{ KEY = "{KEPT}gone" }}
"#
        )
    }

    /// A host among them, which has found its server of tools.
    async fn serve(&self, dir: &Path, change: impl FnOnce(Serve) -> Serve) -> Served {
        let settings = dir.join("leasehold.toml");
        fs::write(&settings, self.settings(dir)).expect("a file can be written");
        let settings = settings.display().to_string();
        let serve = Serve::on(&dir.join("data")).await.args(["--config", &settings, "--log", "trace"]);
        let host = change(serve).start().await;
        host.log(|line| (line["message"] == "a server of tools is connected").then_some(())).await;
        host
    }
}

async fn connect(host: &Served, name: &str) -> RawClient {
    let transport = within("a connection", websocket::connect(&host.url, &websocket::WebSocketConfig::default())).await;
    let mut client = RawClient::new(transport.expect("the host listens"));
    client.open(&token(name)).await;
    client
}

fn lease() -> Value {
    json!({ "net.fetch": ["http://127.0.0.1:*/**"], "tool.call": ["**"], "model.use": ["**"] })
}

fn steps(calls: impl IntoIterator<Item = Value>) -> Value {
    let steps: Vec<Value> = calls.into_iter().map(|call| json!({ "do": "calls", "start": [call] })).collect();
    json!({ "do": "steps", "steps": steps })
}

fn question() -> Value {
    json!({ "call": "model", "model": "small", "request": { "messages": [{ "role": "user", "content": "hello" }] } })
}

/// ARCP §14: a secret of the operator gets to the server or program it is for, and however that repeats it, it is in
/// nothing that an agent, a client, a watcher, a log, a file or an export shows.
#[tokio::test]
async fn a_secret_of_the_operator_goes_to_whom_it_is_for_and_is_in_nothing_else() {
    let (dir, around) = (tempfile::tempdir().unwrap(), Around::start().await);
    let host = around.serve(dir.path(), |serve| serve).await;
    let (mut alice, mut bob) = (connect(&host, ALICE).await, connect(&host, BOB).await);

    let quoting = |text: &str| json!({ "error": { "message": text } });
    let content = |text: &str| {
        let message = json!({ "role": "assistant", "content": text });
        json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }], "usage": {} })
    };
    let (key, team) = (format!("{KEPT}upstream"), format!("{KEPT}team"));
    for (status, body) in
        [(400, quoting(&key)), (400, quoting(&team)), (401, quoting(&key)), (200, content(&key)), (200, content(&team))]
    {
        around.models.answer(Reply::json(status, &body));
    }
    let url = around.web.url();
    let fetch = |path: &str| json!({ "call": "fetch", "url": format!("{url}{path}"), "redirects": 5 });
    let tool = |name: &str, arguments: Value| json!({ "call": "tool", "name": name, "arguments": arguments });
    let mut calls = vec![fetch("/told"), fetch("/away")];
    for (name, arguments) in
        [("far.tell", json!({})), ("far.tell", json!({ "fails": true })), ("near", json!({})), ("bad", json!({}))]
    {
        calls.push(tool(name, arguments));
    }
    calls.push(tool("gone.any", json!({})));
    calls.extend((0..6).map(|_| question()));
    let mut input = steps(calls);
    input["steps"].as_array_mut().unwrap().push(json!({ "do": "offers" }));
    let run_of = alice.submit("hostile").lease(lease()).input(input).run().await;
    let result = run_of.result().unwrap();
    let outcome = |n: usize| result[n]["ok"][0].clone();
    let said = |n: usize| outcome(n)["err"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(outcome(0)["ok"]["body"].as_str().unwrap().ends_with("GET /told"), "{result}");
    assert_eq!(outcome(2)["ok"], json!("…  POST /mcp"), "{result}");
    assert!(said(3).contains("no such token: …"), "{result}");
    assert_eq!(outcome(4)["ok"], json!({ "…": ["…"] }), "{result}");
    assert!(said(5).ends_with("refused: …") && said(6).contains("not connected"), "{result}");
    // The last question is answered as it should be.
    assert!((7..12).all(|n| !said(n).is_empty()) && outcome(12)["ok"].is_object(), "{result}");
    for (server, secrets) in [
        (&around.web, vec!["inject", "file"]),
        (&around.models, vec!["upstream", "team"]),
        (&around.tools, vec!["header"]),
    ] {
        let sent = format!("{:?}", server.asked());
        assert!(secrets.iter().all(|secret| sent.contains(&format!("{KEPT}{secret}"))), "{sent}");
    }

    let job = run_of.job_id().to_owned();
    bob.request("job.subscribe", json!({ "job_id": job, "history": true })).await.outcome().unwrap();
    let mut shown = vec![format!("{run_of:?}"), format!("{:?}", bob.follow(&job).await)];
    let (data, audit) = (host.data.display().to_string(), dir.path().join("audit"));
    let audit = audit.display().to_string();
    let stopped = host.terminate().await;
    assert!(stopped.stderr.contains("TRACE"), "the log is there");
    shown.extend([stopped.stdout, stopped.stderr]);
    for words in [
        vec!["journal", &job],
        vec!["journal", &job, "--json"],
        vec!["replay", &job, "--json"],
        vec!["lease", "suggest", &job, "--json"],
        vec!["audit", "export", &job, "-o", &audit],
    ] {
        let outcome = run([&words[..], &["--data", &data]].concat()).await;
        assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
        shown.extend([outcome.stdout, outcome.stderr]);
    }
    shown.push(fs::read_to_string(&audit).unwrap());
    for text in &shown {
        assert_without(text, KEPT, "what was shown");
    }
    files_without(Path::new(&data), KEPT);
}

/// A proxy of the environment would see what goes to a server, and choose which server that is.
#[tokio::test]
async fn no_proxy_of_the_environment_is_asked() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", trap.local_addr().unwrap());
    let caught = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&caught);
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (dir, around) = (tempfile::tempdir().unwrap(), Around::start().await);
    let through_the_trap = |serve: Serve| {
        let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
        let serve = proxies.iter().fold(serve, |serve, name| serve.env(name, Some(&address)));
        ["NO_PROXY", "no_proxy", "REQUEST_METHOD"].iter().fold(serve, |serve, name| serve.env(name, None))
    };
    let host = around.serve(dir.path(), through_the_trap).await;
    let fetch = json!({ "call": "fetch", "url": around.web.url() });
    let tool = json!({ "call": "tool", "name": "far.tell", "arguments": {} });
    let mut alice = connect(&host, ALICE).await;
    let run = alice.submit("hostile").lease(lease()).input(steps([fetch, tool, question()])).run().await;
    let result = run.result().unwrap();
    assert!((0..3).all(|n| result[n]["ok"][0].get("ok").is_some()), "{result}");
    assert!([&around.web, &around.tools, &around.models].iter().all(|server| !server.asked().is_empty()));
    assert_eq!(caught.load(Ordering::Relaxed), 0, "connections to the proxy");
}
