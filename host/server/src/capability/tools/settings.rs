//! `[tools.NAME]`: what an operator says of a server of tools, or of a command that is one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
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
use crate::secrets::SecretSource;

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
    /// Of `command` and `run`: what is in its environment besides `PATH`, `HOME`, `LANG` and `TMPDIR`.
    pub env: BTreeMap<String, SecretSource>,
    /// Of `command` and `run`: the folder it runs in; the host's own if it is not said.
    pub dir: Option<PathBuf>,
    /// Of `url`: headers of each request.
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

/// Secrets by their names, read once at the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets(pub(super) Vec<(String, Secret)>);

impl Secrets {
    /// Reads them from wherever they are.
    pub(super) fn read(key: &str, sources: &BTreeMap<String, SecretSource>) -> Result<Self, String> {
        let read = |(name, source): (&String, &SecretSource)| match source.read() {
            Ok(secret) => Ok((name.clone(), secret)),
            Err(error) => Err(format!("{key}.{name}: {error}")),
        };
        sources.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Takes them out of a text that came from somebody who knows them.
    ///
    /// A value of a few characters is no secret, and taking it out would make the text unreadable.
    pub(super) fn hide_in(&self, text: &str) -> String {
        const BYTES_MIN: usize = 6;
        let mut text = text.to_owned();
        for (_, secret) in self.0.iter().filter(|(_, secret)| secret.expose().len() >= BYTES_MIN) {
            if text.contains(secret.expose()) {
                text = text.replace(secret.expose(), "…");
            }
        }
        text
    }
}
