//! `[tools.NAME]`: what an operator says of a server of tools, or of a command that is one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use leasehold_core::{
    lease::{
        Lease, Namespace,
        target::{Target, ToolName},
    },
    secret::Secret,
};
use serde::Deserialize;
use serde_json::Value;

use super::price::Price;
use crate::secrets::{SecretSource, spellings};

/// One of `[tools.NAME]`. It has exactly one of `command`, `url` and `run`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The program of an MCP server that speaks over its pipes, and its arguments.
    pub command: Option<Vec<String>>,
    /// The address of an MCP server that speaks streamable HTTP.
    pub url: Option<String>,
    /// A program that is run for each call, and its arguments: JSON in, JSON out.
    pub run: Option<Vec<String>>,
    /// Of `command` and `run`: what is in its environment besides `PATH`, `HOME`, `LANG` and `TMPDIR`. In what a tool
    /// gives back, no agent sees a value of it that has 6 bytes or more.
    pub env: BTreeMap<String, SecretSource>,
    /// Those of `env` whose values are no secrets and may stand in what a tool gives back, such as a time zone.
    pub shown_env: Vec<String>,
    /// Of `command` and `run`: the folder it runs in; the host's own if it is not said.
    pub dir: Option<PathBuf>,
    /// Of `url`: headers of each request, which no agent sees either.
    pub headers: BTreeMap<String, SecretSource>,
    /// Of `run`: what it does, for whoever chooses among tools.
    pub description: String,
    /// Of `run`: the JSON Schema of its input, or the path of a file with it; any object if it is not said.
    pub input_schema: Option<Value>,
    /// Of `run`: the JSON Schema of its output, or the path of a file with it.
    pub output_schema: Option<Value>,
    /// Of a server: how long it may take to connect and to tell its tools.
    pub connect_timeout_sec: u32,
    /// How long one call may take.
    pub timeout_sec: u32,
    /// The largest answer.
    pub answer_bytes_max: usize,
    /// The largest arguments.
    pub arguments_bytes_max: usize,
    /// Calls at once; the next one waits.
    pub concurrent_max: usize,
    /// Of a server: how many tools it may have; of more, the first are taken.
    pub tools_max: usize,
    /// What each call costs, of a tool without a price of its own.
    pub price: Price,
    /// What each call of one tool costs.
    pub prices: BTreeMap<String, Price>,
    /// The tools that may be called once more where nobody knows whether a call was made; patterns as in a lease. Such
    /// a call does not wait for the disk either: it is made while the journal takes note of it.
    pub repeatable: Vec<String>,
    /// The tools that jobs can be granted, all if it is not said; patterns as in a lease.
    pub only: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            command: None,
            url: None,
            run: None,
            env: BTreeMap::new(),
            shown_env: Vec::new(),
            dir: None,
            headers: BTreeMap::new(),
            description: String::new(),
            input_schema: None,
            output_schema: None,
            connect_timeout_sec: 60,
            timeout_sec: 60,
            answer_bytes_max: 1 << 20,
            arguments_bytes_max: 1 << 20,
            concurrent_max: 16,
            tools_max: 1_000,
            price: Price::default(),
            prices: BTreeMap::new(),
            repeatable: Vec::new(),
            only: None,
        }
    }
}

impl Settings {
    /// Makes relative paths of it relative to `base`.
    pub fn settle(&mut self, base: &Path) {
        if let Some(dir) = &mut self.dir {
            *dir = base.join(&*dir);
        }
        for schema in [&mut self.input_schema, &mut self.output_schema].into_iter().flatten() {
            if let Value::String(path) = schema {
                *path = base.join(&*path).to_string_lossy().into_owned();
            }
        }
        // A program without a slash is found by `PATH`.
        for words in [&mut self.command, &mut self.run].into_iter().flatten() {
            if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
                *program = base.join(&*program).to_string_lossy().into_owned();
            }
        }
        for source in self.env.values_mut().chain(self.headers.values_mut()) {
            source.settle(base);
        }
    }

    /// The schema in a setting, read from its file if it is in one.
    pub(super) fn schema(key: &str, setting: Option<&Value>) -> Result<Option<Value>, String> {
        match setting {
            None => Ok(None),
            Some(Value::String(path)) => {
                let problem = |error: String| format!("{key}: {path}: {error}");
                let text = fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
                serde_json::from_str(&text).map(Some).map_err(|error| problem(error.to_string()))
            }
            Some(schema) => Ok(Some(schema.clone())),
        }
    }
}

/// A set of tools, by the patterns of a lease.
#[derive(Debug)]
pub(super) struct Names(Lease);

impl Names {
    /// Parses patterns.
    pub(super) fn parse(key: &str, patterns: &[String]) -> Result<Self, String> {
        let grants = BTreeMap::from([(Namespace::ToolCall.to_string(), patterns.to_vec())]);
        Lease::parse(&grants).map(Self).map_err(|error| format!("{key}: {error}"))
    }

    /// Whether a tool is one of them.
    pub(super) fn hold(&self, name: &ToolName) -> bool {
        self.0.covers(&Namespace::ToolCall, Target::Tool(name))
    }
}

/// The shortest value that is taken for a secret: without one of a few characters a text could not be read.
const SECRET_BYTES_MIN: usize = 6;

/// What stands where a secret was.
const HIDDEN: &str = "…";

/// Secrets by their names, read once at the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    pub(super) named: Vec<(String, Secret)>,
    /// What is looked for, the longest first.
    spellings: Arc<[Secret]>,
}

/// Each of these takes the secrets out of what came from somebody who knows them.
impl Secrets {
    /// Reads them from wherever they are; those that are `shown` are none.
    pub(super) fn read(key: &str, sources: &BTreeMap<String, SecretSource>, shown: &[String]) -> Result<Self, String> {
        if let Some(name) = shown.iter().find(|name| !sources.contains_key(*name)) {
            return Err(format!("shown_{key}: there is no `{name}` in `{key}`"));
        }
        let read = |(name, source): (&String, &SecretSource)| match source.read() {
            Ok(secret) => Ok((name.clone(), secret)),
            Err(error) => Err(format!("{key}.{name}: {error}")),
        };
        Ok(Self::new(sources.iter().map(read).collect::<Result<Vec<_>, _>>()?, shown))
    }

    fn new(named: Vec<(String, Secret)>, shown: &[String]) -> Self {
        let hidden = named.iter().filter(|(name, _)| !shown.contains(name));
        let spellings = spellings(hidden.map(|(_, secret)| secret.expose()), SECRET_BYTES_MIN);
        Self { named, spellings: spellings.into_iter().map(Secret::new).collect() }
    }

    /// A text.
    pub(super) fn hide_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &*self.spellings {
            if text.contains(secret.expose()) {
                text = text.replace(secret.expose(), HIDDEN);
            }
        }
        text
    }

    /// A line that may be cut off, and a secret with it.
    pub(super) fn hide_in_line(&self, line: &str) -> String {
        let begun = |secret: &str| {
            let ends = secret.char_indices().map(|(at, _)| at).filter(|at| *at >= SECRET_BYTES_MIN);
            ends.rev().find(|at| line.ends_with(&secret[..*at]))
        };
        match self.spellings.iter().filter_map(|secret| begun(secret.expose())).max() {
            Some(length) => self.hide_in(&line[..line.len() - length]) + HIDDEN,
            None => self.hide_in(line),
        }
    }

    /// Every text in a value, and not the value's own text, where a secret may be escaped and a mark would break it.
    pub(super) fn hide_in_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.hide_in(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.hide_in_value(item)).collect(),
            Value::Object(members) => {
                members.into_iter().map(|(key, value)| (self.hide_in(&key), self.hide_in_value(value))).collect()
            }
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_found_however_it_is_repeated_and_nothing_of_it_stays() {
        let values = ["Bearer tk-0123", "tk-0123-long", "short", "a \"quoted\\\" word", "-----KEY\nAAAABBBB\nCCCC"];
        let named = |name: &str, value: &str| (name.to_owned(), Secret::new(value));
        let mut all: Vec<_> = values.map(|value| named("KEY", value)).into();
        all.push(named("TZ", "Europe/Berlin"));
        let secrets = Secrets::new(all, &["TZ".to_owned()]);
        for (text, expected) in [
            ("Bearer tk-0123", "…"),
            ("invalid token tk-0123", "invalid token …"),
            ("tk-0123-long", "…"), // and not what is left without the shorter one
            ("too short", "too short"),
            ("a \"quoted\\\" word", "…"),
            (r#"{"said":"a \"quoted\\\" word"}"#, r#"{"said":"…"}"#),
            ("it is AAAABBBB", "it is …"),
            ("-----KEY\nAAAABBBB\nCCCC", "…"),
            ("Bearer", "Bearer"),
            ("noon in Europe/Berlin", "noon in Europe/Berlin"), // is no secret, says the operator
        ] {
            assert_eq!(secrets.hide_in(text), expected, "{text}");
        }
        for (line, expected) in
            [("x Bearer tk-01", "x …"), ("x tk-0123-lo", "x …"), ("x tk-012", "x …"), ("x tk-01", "x tk-01")]
        {
            assert_eq!(secrets.hide_in_line(line), expected, "{line}");
        }
        let value = json!({ "tk-0123": ["x tk-0123", 7, null, { "a": "a \"quoted\\\" word" }] });
        assert_eq!(secrets.hide_in_value(value), json!({ "…": ["x …", 7, null, { "a": "…" }] }));
        assert!(!format!("{secrets:?}").contains("tk-"), "{secrets:?}");
    }
}
