//! What a hostile agent tries: one catalogue for the suite that sees it fail and the bench that sees nobody suffer.

use serde_json::{Value, json};

/// One thing to try, as an input of the agent `hostile`.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it is.
    pub name: String,
    /// The deed.
    pub input: Value,
    /// The lease it is tried under.
    pub lease: Value,
}

/// Every door by which an agent hands its host a large argument, as the agent `hostile` names them.
pub const VIAS: [&str; 12] = [
    "log",
    "thought",
    "status",
    "vendor",
    "metric",
    "dimensions",
    "path",
    "write",
    "append",
    "output_text",
    "output_bytes",
    "grants",
];

/// How long an attempt may last, for those that would not end by themselves.
pub const RUNTIME_SEC_MAX: u32 = 1;

/// An attempt under no lease at all.
fn bare(name: impl Into<String>, input: Value) -> Attempt {
    Attempt { name: name.into(), input, lease: json!({}) }
}

/// Everything there is to try.
#[must_use]
pub fn attempts() -> Vec<Attempt> {
    let mut all = time_and_memory();
    all.extend(arguments());
    all.extend(events_and_results());
    all.extend(files());
    all.extend(calls());
    all
}

fn time_and_memory() -> Vec<Attempt> {
    vec![
        bare("computes for ever", json!({"do": "spin"})),
        bare("goes on though cancelled, busy", json!({"do": "ignore_cancel", "busy": true})),
        bare("goes on though cancelled, idle", json!({"do": "ignore_cancel"})),
        bare("sleeps for ever", json!({"do": "sleep", "ms": 86_400_000})),
        bare("takes all memory", json!({"do": "allocate"})),
        bare("takes more memory than a machine has", json!({"do": "allocate", "mib": 4095})),
        bare("recurses for ever", json!({"do": "recurse"})),
        bare("traps", json!({"do": "trap"})),
        bare("panics", json!({"do": "panic"})),
        bare("exits", json!({"do": "exit"})),
        bare("exits as if all were well", json!({"do": "exit", "code": 0})),
        bare("tries all that std has", json!({"do": "ambient"})),
        bare("asks for the time and for chance", json!({"do": "steps", "steps": [{"do": "clock"}, {"do": "random"}]})),
    ]
}

fn arguments() -> Vec<Attempt> {
    let big = |via| json!({"do": "big_argument", "bytes": 20 << 20, "via": via, "path": "/w/big"});
    VIAS.iter().map(|via| bare(format!("an argument of 20 MiB via {via}"), big(via))).collect()
}

fn events_and_results() -> Vec<Attempt> {
    let metric = |name: &str, value: &str| json!({"do": "metric", "name": name, "value": value, "unit": "USD"});
    let mut all = vec![
        bare("prints for ever", json!({"do": "flood_stdout", "lines": 300_000})),
        bare("complains for ever", json!({"do": "flood_stdout", "lines": 300_000, "stderr": true})),
        bare("logs for ever", json!({"do": "events_flood", "count": 1_000_000, "bytes": 1000})),
        bare("logs little for ever", json!({"do": "events_flood", "count": 1_000_000})),
        bare("streams for ever", json!({"do": "flood_output", "count": 1_000_000, "bytes": 30_000})),
        bare("claims the host's phase", json!({"do": "forge_status"})),
        bare("more than all", json!({"do": "bad_progress", "current": 9, "total": 1})),
        bare("a kind that is the host's", json!({"do": "bad_vendor", "kind": "job.result", "body": "{}"})),
        bare("a body that is no JSON", json!({"do": "bad_vendor", "kind": "x-vendor.evil.x"})),
        bare("a digest that is none", json!({"do": "bad_artifact", "uri": "file:///etc/passwd", "sha256": "x"})),
        bare("a result that is no JSON", json!({"do": "bad_result"})),
        bare("a result of 64 MiB", json!({"do": "big_result", "bytes": 64 << 20})),
        bare("two results", json!({"do": "chunks", "texts": ["a"], "result": {"and": "another"}})),
        bare("text and bytes in one stream", json!({"do": "chunks", "texts": ["a"], "bytes": ["b"]})),
        bare("a chunk after the last", json!({"do": "chunk_after_finish"})),
        bare("an error of 20 MiB", json!({"do": "fail", "code": "timeout", "bytes": 20 << 20})),
        bare("an error that is its client's", json!({"do": "fail", "code": "cancelled"})),
    ];
    for (name, value) in [
        ("cost.x", "-1"),
        ("cost.x", "NaN"),
        ("cost.x", "inf"),
        ("cost.x", "1e999"),
        ("cost.x", "99999999999999999999999999999999"),
        ("cost.budget.remaining", "1000000"),
        ("", "1"),
    ] {
        let mut attempt = bare(format!("a metric `{name}` of {value}"), metric(name, value));
        attempt.lease = json!({"cost.budget": ["USD:1"]});
        all.push(attempt);
    }
    all
}

fn files() -> Vec<Attempt> {
    let mut all = Vec::new();
    for path in
        ["/etc/passwd", "/proc/self/environ", "/w/../etc/passwd", "/w/./../../etc/passwd", "etc/passwd", "/w\0/x"]
    {
        all.push((format!("reads {path:?}"), json!({"do": "read", "path": path})));
    }
    all.extend(
        [
            ("lists the root", json!({"do": "list", "path": "/"})),
            ("writes into /etc", json!({"do": "write", "path": "/etc/cron.d/x", "text": "x"})),
            ("appends to /dev/null", json!({"do": "append", "path": "/dev/null", "text": "x"})),
            ("makes a folder in /tmp", json!({"do": "create_dir", "path": "/tmp/escaped"})),
            ("removes the root", json!({"do": "remove", "path": "/"})),
            (
                "reads past every end",
                json!({"do": "read_range", "path": "/w/a", "offset": u64::MAX, "length": u64::MAX}),
            ),
            ("asks a hundred thousand times", json!({"do": "stat_many", "path": "/etc/passwd", "count": 100_000})),
        ]
        .map(|(name, input)| (name.to_owned(), input)),
    );
    let lease = json!({"fs.read": ["/w/**"], "fs.write": ["/w/**"]});
    all.into_iter().map(|(name, input)| Attempt { name, input, lease: lease.clone() }).collect()
}

fn calls() -> Vec<Attempt> {
    let fetch = |url: &str| json!({"call": "fetch", "url": url});
    let child = |input: Value| json!({"call": "delegate", "agent": "hostile", "input": input, "lease": {}});
    let many = |count: usize, call: Value| vec![call; count];
    let deed = |start: Vec<Value>, then: &str| json!({"do": "calls", "start": start, "then": then});
    let mut nested = json!(0);
    for _ in 0..100 {
        nested = json!([nested]);
    }
    let tool = |arguments: Value| json!({"call": "tool", "name": "any", "arguments": arguments});
    let model = |request: Value| json!({"call": "model", "model": "any", "request": request});
    let text = "x".repeat(2 << 20);
    let smuggled = json!({"call": "fetch", "url": "http://example.com/", "headers": [["x", "a\r\nhost: evil"]]});
    let table = [
        ("fetches its host's metadata", deed(vec![fetch("http://169.254.169.254/latest/meta-data/")], "all")),
        ("fetches from loopback", deed(vec![fetch("http://127.0.0.1:22/")], "all")),
        ("fetches a file", deed(vec![fetch("file:///etc/passwd")], "all")),
        ("smuggles a header", deed(vec![smuggled], "all")),
        ("fetches two hundred times at once", deed(many(200, fetch("http://127.0.0.1:1/")), "all")),
        ("fetches and forgets", deed(many(200, fetch("http://10.0.0.1/")), "leak")),
        ("calls a tool that is not there", deed(vec![tool(json!({}))], "all")),
        ("hands a tool a text of 2 MiB", deed(vec![tool(json!({"text": text}))], "all")),
        ("hands a tool a hundred lists in each other", deed(vec![tool(nested.clone())], "all")),
        ("hands a tool a number without end", deed(vec![tool(json!(1e300))], "all")),
        ("asks a model that is not there", deed(vec![model(json!({"messages": []}))], "all")),
        ("asks a model with 2 MiB", deed(vec![model(json!({"messages": [{"role": "user", "content": text}]}))], "all")),
        ("asks a model nonsense", deed(vec![model(nested)], "all")),
        ("delegates two hundred times at once", deed(many(200, child(json!({"do": "spin"}))), "drop")),
        ("delegates and forgets", deed(many(20, child(json!({"do": "sleep", "ms": 60_000}))), "leak")),
        ("delegates to one that computes for ever", deed(vec![child(json!({"do": "spin"}))], "all")),
        (
            "finishes what is of another kind",
            deed(vec![child(json!({"do": "noop"})), fetch("http://a.test/")], "mistake"),
        ),
        ("waits for nothing", deed(vec![], "first")),
        ("starts two hundred and drops them", deed(many(200, child(json!({"do": "noop"}))), "drop")),
    ];
    let lease = json!({
        "net.fetch": ["**"], "tool.call": ["**"], "model.use": ["**"], "agent.delegate": ["*"],
    });
    let mut all: Vec<Attempt> =
        table.into_iter().map(|(name, input)| Attempt { name: name.to_owned(), input, lease: lease.clone() }).collect();
    for how in ["ask", "wait", "finish", "drop"] {
        all.push(bare(format!("forges a handle to {how}"), json!({"do": "forge_handle", "handle": 77, "how": how})));
    }
    let whole = json!({"agent.delegate": ["hostile"]});
    let input = json!({"do": "delegate_for_ever", "lease": whole});
    all.push(Attempt { name: "delegates to itself for ever".to_owned(), input, lease: whole });
    all
}
