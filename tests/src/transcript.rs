//! Transcripts: what a client sends and what it must receive, a frame a line.
//!
//! A line is `{"send": frame}` or `{"expect": frame}`. What differs from run to
//! run is written as a placeholder: `<job>`, `<job-2>`, `<session>`, `<ts>` and
//! the like; `<token>` is whatever the host wants. Beside a `send` stand:
//!
//! - `"until": TYPE`, the last frame that answers it, where that is not plain;
//! - `"own_words": BEGINNING`, where a message that begins so goes on in words
//!   of the agent's language, which are written `<own words>`.

use std::{
    env, fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use leasehold_core::time::Timestamp;
use serde_json::{Value, json};

use crate::{
    RawClient,
    host::{ALICE, token},
};

/// Whether transcripts are to be written anew.
#[must_use]
pub fn blesses() -> bool {
    env::var_os("LEASEHOLD_BLESS").is_some_and(|bless| bless == "1")
}

/// A client that has no more to do than its transcript.
pub fn go_on(_: &Value) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// What stands for what in one run of a transcript.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Placeholders of a test's own, and what they stand for wherever it occurs within a text.
    given: Vec<(&'static str, String)>,
    /// Whole texts and their placeholders, in the order in which they were met.
    known: Vec<(String, String)>,
}

impl Names {
    /// With placeholders of a test's own, such as `<agent>`.
    #[must_use]
    pub fn with(given: &[(&'static str, &str)]) -> Self {
        let given = given.iter().map(|(name, real)| (*name, (*real).to_owned())).collect();
        Self { given, known: Vec::new() }
    }

    /// What a placeholder that was met stands for.
    ///
    /// # Panics
    ///
    /// If it was not met yet.
    #[must_use]
    pub fn real(&self, placeholder: &str) -> &str {
        let found = self.known.iter().find(|(_, name)| name == placeholder);
        found.map_or_else(|| panic!("nothing stands for {placeholder} yet"), |(real, _)| real)
    }

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
            _ => match text.split_once('_') {
                Some(("msg", id)) if id.len() == 26 => return Some("<id>".to_owned()),
                Some(("job", id)) if id.len() == 26 => "job",
                Some(("sess", id)) if id.len() == 26 => "session",
                Some(("res", id)) if id.len() == 26 => "result",
                _ => {
                    let hidden = self.given.iter().fold(text.to_owned(), |text, (name, real)| text.replace(real, name));
                    return (hidden != text).then_some(hidden);
                }
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
            Value::String(text) if text == "<token>" => *text = token(ALICE),
            Value::String(text) => match self.known.iter().find(|(_, name)| name == text) {
                Some((real, _)) => real.clone_into(text),
                None => *text = self.given.iter().fold(text.clone(), |text, (name, real)| text.replace(name, real)),
            },
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

    async fn recv(&mut self, client: &mut RawClient, own_words: Option<&str>) -> Value {
        let mut frame = client.recv().await;
        // The runtime's own version changes with every release.
        if let Some(version) = frame.pointer_mut("/payload/runtime/version") {
            *version = json!("<version>");
        }
        // The order of the fields of a model's request is the agent's own, and no model minds.
        if frame.pointer("/payload/body/tool").is_some_and(|tool| tool == "model.use") {
            frame["payload"]["body"]["args"]["sha256"] = json!("<digest>");
        }
        if let Some(beginning) = own_words
            && let Some(Value::String(message)) = frame.pointer_mut("/payload/message")
            && message.len() > beginning.len()
            && message.starts_with(beginning)
        {
            *message = format!("{beginning}<own words>");
        }
        self.hide("", &mut frame);
        frame
    }
}

/// A transcript.
#[derive(Debug)]
pub struct Transcript {
    path: PathBuf,
    /// Each as it is written and as it is read.
    lines: Vec<(String, Value)>,
}

impl Transcript {
    /// Reads a transcript of the examples, such as `echo/session.jsonl`.
    ///
    /// # Panics
    ///
    /// If it cannot be read, or a line is not JSON.
    #[must_use]
    pub fn of_examples(path: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace");
        let path = root.join("examples").join(path);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => (line.to_owned(), value),
            Err(error) => panic!("{line}: {error}"),
        };
        Self { lines: text.lines().map(parse).collect(), path }
    }

    /// A client that is to do what the transcript says, over a wire that is named where something differs.
    #[must_use]
    pub fn player<'t>(&'t self, names: Names, wire: &'t str) -> Player<'t> {
        Player { transcript: self, names, wire, next: 0, own_words: None }
    }

    /// Holds a host to the whole transcript and to the connection's end.
    ///
    /// # Panics
    ///
    /// If a frame differs, or the host goes on.
    pub async fn replay(
        &self,
        client: &mut RawClient,
        names: Names,
        wire: &str,
        seen: impl FnMut(&Value) -> ControlFlow<()>,
    ) {
        self.player(names, wire).play(client, seen).await;
        let more = client.recv_or_close().await;
        assert!(more.is_err(), "{} over {wire}: the host goes on: {more:?}", self.path.display());
    }

    /// Writes down what a host answers now.
    ///
    /// # Panics
    ///
    /// If the file cannot be written.
    pub async fn bless(
        &self,
        client: &mut RawClient,
        mut names: Names,
        mut seen: impl FnMut(&Value) -> ControlFlow<()>,
    ) {
        let mut text = String::new();
        for (written, line) in self.lines.iter().filter(|(_, line)| line.get("send").is_some()) {
            text.push_str(&format!("{written}\n"));
            names.send(client, &line["send"]).await;
            loop {
                let frame = names.recv(client, line["own_words"].as_str()).await;
                text.push_str(&format!("{}\n", json!({ "expect": frame })));
                if seen(&frame).is_break() || is_last(&line["send"], line["until"].as_str(), &frame) {
                    break;
                }
            }
        }
        fs::write(&self.path, text).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }
}

/// How far a client is in a transcript, which it may go on with on another connection.
#[derive(Debug)]
pub struct Player<'t> {
    transcript: &'t Transcript,
    /// What stands for what by now.
    pub names: Names,
    wire: &'t str,
    next: usize,
    own_words: Option<&'t str>,
}

impl Player<'_> {
    /// Does what the transcript says, to its end or until `seen`, which is shown every frame that came, with
    /// placeholders, breaks off.
    ///
    /// # Panics
    ///
    /// If a frame differs.
    pub async fn play(&mut self, client: &mut RawClient, mut seen: impl FnMut(&Value) -> ControlFlow<()>) {
        let path = self.transcript.path.display();
        while let Some((_, line)) = self.transcript.lines.get(self.next) {
            self.next += 1;
            match (line.get("send"), line.get("expect")) {
                (Some(frame), None) => {
                    self.own_words = line["own_words"].as_str();
                    self.names.send(client, frame).await;
                }
                (None, Some(expected)) => {
                    let frame = self.names.recv(client, self.own_words).await;
                    let place = format!("{path}:{} over {}", self.next, self.wire);
                    assert_eq!(&frame, expected, "{place} differs; LEASEHOLD_BLESS=1 writes it anew");
                    if seen(&frame).is_break() {
                        return;
                    }
                }
                _ => panic!("{path}:{}: a line sends or expects", self.next),
            }
        }
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
