//! What the agent can be told to do.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::calls::{Call, Then};

/// One deed, as the input spells it: `{"do": "read_range", "path": "/a", "offset": 0, "length": 9}`.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Deed {
    /// Nothing.
    Noop,
    /// Ends the run with an error of the agent's own, its message padded with `bytes`.
    Fail {
        code: String,
        #[serde(default = "on_purpose")]
        message: String,
        #[serde(default)]
        bytes: usize,
    },
    /// Does these in order and gives an array of their outcomes.
    Steps { steps: Vec<Deed> },

    /// Computes for ever, without a call.
    Spin,
    /// Takes and touches memory: `mib` of it or what there is, or, without `mib`, until it dies.
    Allocate { mib: Option<u64> },
    /// Calls itself `depth` times, or, without it, until it dies.
    Recurse { depth: Option<u64> },
    /// Executes `unreachable`.
    Trap,
    /// Panics.
    Panic {
        #[serde(default = "on_purpose")]
        message: String,
    },
    /// Ends the process it is not.
    Exit {
        #[serde(default = "three")]
        code: i32,
    },
    /// Prints lines.
    FloodStdout {
        lines: u64,
        #[serde(default)]
        stderr: bool,
    },
    /// Makes one call with an argument of `bytes`, or of as many as fit into its memory.
    BigArgument {
        bytes: usize,
        #[serde(default)]
        via: Via,
        #[serde(default)]
        path: String,
    },

    /// Reads a file; gives `{"size": …, "text": … or null}`.
    Read { path: String },
    /// Reads a part of a file; gives what `read` gives.
    ReadRange { path: String, offset: u64, length: u64 },
    /// Lists a directory; gives `[{"name": …, "kind": …, "size": …}]`.
    List { path: String },
    /// Describes a path; gives `{"kind": …, "size": …, "modified": …}`.
    Stat { path: String },
    /// Replaces a file.
    Write { path: String, text: String },
    /// Adds to a file.
    Append { path: String, text: String },
    /// Creates a directory.
    CreateDir { path: String },
    /// Removes a file or directory.
    Remove { path: String },
    /// Describes a path many times; gives `{"count": …, "refused": …, "last": code or null}`.
    StatMany { path: String, count: u64 },

    /// Tries all that `std` would give a program; gives each answer.
    Ambient,
    /// Calls every function of WASI that needs nothing to be called on; gives each answer.
    Raw,
    /// Gives the names of the others.
    RawNames,
    /// Calls one of them on what nobody was given.
    RawForged { function: String },
    /// Reads both clocks.
    Clock,
    /// Draws a random number.
    Random,
    /// Gives what the job may know of itself.
    Job {
        #[serde(default)]
        namespaces: Vec<String>,
    },

    /// Logs many events, each padded with `bytes`.
    EventsFlood {
        count: u64,
        #[serde(default)]
        bytes: usize,
    },
    /// Reports a metric, whatever its parts are.
    Metric {
        name: String,
        value: String,
        unit: Option<String>,
        #[serde(default)]
        dimensions: BTreeMap<String, String>,
    },
    /// Claims a phase that is the host's to claim.
    ForgeStatus {
        #[serde(default = "back_pressure")]
        phase: String,
        message: Option<String>,
    },
    /// Reports progress that makes no sense.
    BadProgress { current: u64, total: Option<u64> },
    /// Emits a vendor event of any kind, with any text as its body.
    BadVendor {
        #[serde(default = "evil")]
        kind: String,
        #[serde(default = "not_json")]
        body: String,
    },
    /// Refers to an artifact by a digest that is none.
    BadArtifact { uri: String, sha256: String },

    /// Returns a text, JSON or not.
    BadResult {
        #[serde(default = "not_json")]
        text: String,
    },
    /// Returns a JSON string of so many bytes.
    BigResult { bytes: usize },
    /// Streams texts and then bytes, and returns `result`, whatever it is.
    ///
    /// The first refusal is returned instead.
    Chunks {
        #[serde(default)]
        texts: Vec<String>,
        #[serde(default)]
        bytes: Vec<String>,
        #[serde(default)]
        finish: bool,
        #[serde(default)]
        result: Value,
    },
    /// Writes to a result that has ended.
    ChunkAfterFinish,
    /// Streams `count` texts of `bytes`.
    FloodOutput { count: u64, bytes: usize },

    /// Starts calls that take their time; see [`Then`] for what is given.
    Calls {
        start: Vec<Call>,
        #[serde(default)]
        then: Then,
        patience_ms: Option<u64>,
    },
    /// Gives the tools and models that the lease covers.
    Offers,
    /// Uses a call that nobody started, as if it had this handle.
    ForgeHandle { handle: u32, how: Forged },
    /// Has a task done by another agent that does this same deed: a delegation without end.
    DelegateForEver { lease: BTreeMap<String, Vec<String>> },

    /// Sleeps, and asks nobody.
    Sleep { ms: u64 },
    /// Goes on for ever, cancelled or not.
    IgnoreCancel {
        #[serde(default)]
        busy: bool,
    },
    /// Waits for a cancellation, which it then obeys.
    WaitCancel {
        #[serde(default = "twenty")]
        poll_ms: u64,
    },
}

/// What is done with a call that is none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forged {
    Ask,
    Wait,
    Finish,
    Drop,
}

/// Where a big argument goes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    #[default]
    Log,
    Thought,
    Status,
    Vendor,
    Metric,
    /// As many dimensions as there would be bytes, each of them empty.
    Dimensions,
    Path,
    Write,
    Append,
    OutputText,
    OutputBytes,
    Grants,
}

fn on_purpose() -> String {
    "on purpose".into()
}

fn three() -> i32 {
    3
}

fn back_pressure() -> String {
    "back_pressure".into()
}

fn evil() -> String {
    "evil".into()
}

fn not_json() -> String {
    "this is not JSON".into()
}

fn twenty() -> u64 {
    20
}
