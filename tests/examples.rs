//! Every example's `session.jsonl`, replayed over WebSocket and over lines.
//!
//! A line is `{"send": frame}` or `{"expect": frame}`. What differs from run to
//! run is written as a placeholder: `<job>`, `<job-2>`, `<session>`, `<ts>` and
//! the like; `<token>` is whatever the host wants. `"until": TYPE` beside a
//! `send` names the last frame that answers it, where that is not plain.
//!
//! With `LEASEHOLD_BLESS=1` the `expect` lines are written anew; read what
//! `git diff` says before it is committed.

use std::{fs, path::PathBuf};

use leasehold::transport::websocket::{self, WebSocketConfig};
use leasehold_core::time::Timestamp;
use leasehold_tests::{MountMode, RawClient, TestHost, agents_dir, host, within};
use serde_json::{Value, json};

/// A host with this example alone, and the folder the transcripts speak of.
async fn host_of(example: &str) -> TestHost {
    let builder = TestHost::builder().without_agents().mount("/workspace", MountMode::Ro);
    // Who delegates needs to be allowed to, and somebody to delegate to.
    let (builder, others): (_, &[&str]) = match example {
        "team" => {
            let ceiling = json!({ "fs.read": ["/**"], "agent.delegate": ["team-*"] });
            (builder.policy(host::ALICE, ceiling), &["team-reader", "team-editor"])
        }
        _ => (builder, &[]),
    };
    let host = builder.start().await;
    for agent in [&[example], others].concat() {
        let component = agents_dir().join(format!("{agent}@1.0.0.wasm"));
        host.host().registry().register_file(&component, agent, "1.0.0").expect("the example is an agent");
    }
    let folder = host.folder("/workspace");
    fs::create_dir(folder.join("letters")).expect("the folder is ours");
    for (name, text) in [
        ("notes.md", "# Notes\n\nA lease is a promise. A promise is kept.\n".as_bytes()),
        ("letters/first.txt", b"Dear reader,\nthe agent reads what it may.\n"),
        ("letters/second.txt", b"The agent stops where the lease stops.\n"),
        ("picture.bin", &[0xff, 0xfe, 0, 1]),
        (".hidden", b"not for the report\n"),
    ] {
        fs::write(folder.join(name), text).expect("the folder is ours");
    }
    host
}

/// What stands for what in one run of a transcript.
#[derive(Default)]
struct Names {
    /// In the order in which they were met.
    known: Vec<(String, String)>,
}

impl Names {
    /// The placeholder of a text, if it is one of those that differ from run to run.
    fn placeholder(&mut self, key: &str, text: &str) -> Option<String> {
        if let Some((_, name)) = self.known.iter().find(|(real, _)| real == text) {
            return Some(name.clone());
        }
        let kind = match key {
            "resume_token" => "resume-token",
            "runtime_version" => "version",
            "nonce" => "nonce",
            "trace_id" => "trace",
            _ if text.parse::<Timestamp>().is_ok() => return Some("<ts>".to_owned()),
            _ => match text.split_once('_')? {
                ("msg", id) if id.len() == 26 => return Some("<id>".to_owned()),
                ("job", id) if id.len() == 26 => "job",
                ("sess", id) if id.len() == 26 => "session",
                ("res", id) if id.len() == 26 => "result",
                _ => return None,
            },
        };
        let same = self.known.iter().filter(|(_, name)| name.trim_start_matches('<').starts_with(kind)).count();
        let name = if same == 0 { format!("<{kind}>") } else { format!("<{kind}-{}>", same + 1) };
        self.known.push((text.to_owned(), name.clone()));
        Some(name)
    }

    /// Puts placeholders into a frame that came.
    fn hide(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(name) = self.placeholder(key, text) {
                    *text = name;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(key, item)),
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| self.hide(key, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Puts what they stand for into a frame that goes.
    fn show(&self, value: &mut Value) {
        match value {
            Value::String(text) if text == "<token>" => *text = host::token("alice"),
            Value::String(text) => {
                if let Some((real, _)) = self.known.iter().find(|(_, name)| name == text) {
                    real.clone_into(text);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.show(item)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.show(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    async fn send(&self, client: &mut RawClient, frame: &Value) {
        let mut frame = frame.clone();
        self.show(&mut frame);
        client.send_frame(&frame).await;
    }

    async fn recv(&mut self, client: &mut RawClient) -> Value {
        let mut frame = client.recv().await;
        // The runtime's own version changes with every release.
        if let Some(version) = frame.pointer_mut("/payload/runtime/version") {
            *version = json!("<version>");
        }
        self.hide("", &mut frame);
        frame
    }
}

/// Whether a frame is the last that a request of this type brings about.
fn is_last(request: &Value, until: Option<&str>, frame: &Value) -> bool {
    let kind = frame["type"].as_str().unwrap_or_default();
    match (until, request["type"].as_str().unwrap_or_default()) {
        (Some(until), _) => kind == until,
        (None, "session.hello") => kind == "session.welcome",
        (None, "job.submit") => matches!(kind, "job.result" | "job.error" | "session.error"),
        (None, "session.list_jobs") => kind == "session.jobs",
        (None, "session.close") => kind == "session.closed",
        (None, other) => panic!("say with `until` how the answer to {other} ends"),
    }
}

struct Transcript {
    path: PathBuf,
    /// Each as it is written and as it is read.
    lines: Vec<(String, Value)>,
}

impl Transcript {
    fn of(example: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let path = root.parent().expect("tests is a folder of the workspace").join("examples").join(example);
        let path = path.join("session.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => (line.to_owned(), value),
            Err(error) => panic!("{line}: {error}"),
        };
        Self { lines: text.lines().map(parse).collect(), path }
    }

    /// Holds a host to the transcript.
    async fn replay(&self, client: &mut RawClient, wire: &str) {
        let mut names = Names::default();
        for (n, (_, line)) in self.lines.iter().enumerate() {
            match (line.get("send"), line.get("expect")) {
                (Some(frame), None) => names.send(client, frame).await,
                (None, Some(expected)) => {
                    let frame = names.recv(client).await;
                    let place = format!("{}:{} over {wire}", self.path.display(), n + 1);
                    assert_eq!(&frame, expected, "{place} differs; LEASEHOLD_BLESS=1 writes it anew");
                }
                _ => panic!("{}:{}: a line sends or expects", self.path.display(), n + 1),
            }
        }
        let more = client.recv_or_close().await;
        assert!(more.is_err(), "{} over {wire}: the host goes on: {more:?}", self.path.display());
    }

    /// Writes down what a host answers now.
    async fn bless(&self, client: &mut RawClient) {
        let mut names = Names::default();
        let mut text = String::new();
        for (written, line) in self.lines.iter().filter(|(_, line)| line.get("send").is_some()) {
            text.push_str(&format!("{written}\n"));
            names.send(client, &line["send"]).await;
            loop {
                let frame = names.recv(client).await;
                text.push_str(&format!("{}\n", json!({ "expect": frame })));
                if is_last(&line["send"], line["until"].as_str(), &frame) {
                    break;
                }
            }
        }
        fs::write(&self.path, text).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }
}

async fn check(example: &str) {
    let transcript = Transcript::of(example);
    if std::env::var_os("LEASEHOLD_BLESS").is_some_and(|bless| bless == "1") {
        transcript.bless(&mut host_of(example).await.raw()).await;
        return;
    }
    let host = host_of(example).await;
    let url = host.serve_url().await;
    let socket = within("a connection", websocket::connect(&url, &WebSocketConfig::default())).await;
    transcript.replay(&mut RawClient::new(socket.expect("the host listens")), "WebSocket").await;
    // A host of its own, because a listing shows what was done before.
    let host = host_of(example).await;
    transcript.replay(&mut RawClient::new(host.connect_lines()), "lines").await;
}

/// One test an example, so that a failure names it.
macro_rules! examples {
    ($($test:ident: $example:literal),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                check($example).await;
            }
        )*

        const TESTED: &[&str] = &[$($example),*];
    };
}

examples! {
    chatty_does_what_its_transcript_says: "chatty",
    echo_does_what_its_transcript_says: "echo",
    hello_does_what_its_transcript_says: "hello",
    sleeper_does_what_its_transcript_says: "sleeper",
    summarize_files_does_what_its_transcript_says: "summarize-files",
    team_does_what_its_transcript_says: "team",
    team_editor_does_what_its_transcript_says: "team-editor",
    team_reader_does_what_its_transcript_says: "team-reader",
}

#[test]
fn every_example_is_tested() {
    let mut agents: Vec<String> = fs::read_dir(agents_dir())
        .expect("the agents were built")
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_string_lossy().split_once('@')?.0.to_owned()))
        .filter(|name| name != "hostile")
        .collect();
    agents.sort();
    assert_eq!(agents, TESTED);
}
