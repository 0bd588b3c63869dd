//! What an agent costs in each language: to compile, to load, to start, to leave waiting.

use std::{
    env, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use leasehold::{
    agents::{audit::Digest, compiler::Place},
    capability::{JobCtx, bindings::AgentPre},
    sandbox::instance,
    store::memory::Memory,
};
use leasehold_tests::agents_dir;

use crate::{
    Row, Times,
    pieces::Bench,
    program::{self, private_bytes_of},
    shown,
};

/// A folder of components in other languages, as NAME@VERSION.wasm, each of which greets whom its input names.
const AGENTS: &str = "LEASEHOLD_BENCH_AGENTS";

/// How many agents wait at once.
const PARKED: usize = 200;
const STARTS: usize = 300;
const LOADS: usize = 20;
const INPUT: &str = r#"{"name":"Ada"}"#;

/// What is wanted of a language, by what an agent's name ends in.
struct Goals {
    ending: &'static str,
    load: &'static str,
    start: &'static str,
    memory: &'static str,
}

const GOALS: [Goals; 6] = [
    Goals { ending: "-python", load: "< 8 ms", start: "< 2.5 ms", memory: "< 0.8 MB" },
    Goals { ending: "-typescript", load: "< 3 ms", start: "< 1 ms", memory: "< 0.2 MB" },
    Goals { ending: "-javascript", load: "< 3 ms", start: "< 1 ms", memory: "< 0.2 MB" },
    Goals { ending: "-go", load: "< 3 ms", start: "< 1 ms", memory: "< 0.6 MB" },
    Goals { ending: "-c", load: "< 0.5 ms", start: "< 0.15 ms", memory: "< 0.1 MB" },
    Goals { ending: "", load: "< 0.5 ms", start: "< 0.15 ms", memory: "< 0.1 MB" },
];

/// Four rows for each agent there is: `hello` in Rust, and those of the folder.
pub async fn languages() -> Vec<Row> {
    let mut files = vec![agents_dir().join("hello-rust@1.0.0.wasm")];
    match env::var_os(AGENTS) {
        Some(dir) => {
            let dir = fs::read_dir(dir).unwrap_or_else(|error| panic!("{AGENTS}: {error}"));
            files.extend(dir.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(is_wasm)));
        }
        None => println!("| languages besides Rust | not measured: {AGENTS} names no folder | |"),
    }
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        // An engine of its own for each: what the agents of one leave in its memory is no agent of the next.
        let bench = Bench::of(Arc::new(Memory::default()), PARKED + 8, Place::Program(program::leasehold()));
        rows.extend(language(&bench, &file).await);
    }
    rows
}

fn is_wasm(extension: &std::ffi::OsStr) -> bool {
    extension == "wasm"
}

async fn language(bench: &Bench, file: &Path) -> Vec<Row> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("an agent's file is named NAME@VERSION.wasm");
    let (name, version) = stem.split_once('@').expect("an agent's file is named NAME@VERSION.wasm");
    let goals = GOALS.iter().find(|goals| name.ends_with(goals.ending)).expect("the last one is for all");
    let wasm = fs::read(file).expect("the component can be read");
    let digest = Digest::of(&wasm);

    let begun = Instant::now();
    bench.registry.prepare_file(file, name, version).unwrap_or_else(|error| panic!("{error}"));
    let compiled = begun.elapsed();
    let begun = Instant::now();
    bench.registry.prepare_compiled(file, name, version).expect("it is an agent").expect("it was compiled");
    let registered = begun.elapsed();

    // Loaded anew each time, so nothing of it is in this process but what the kernel keeps of the file.
    let mut loads = Vec::new();
    for _ in 0..LOADS {
        let begun = Instant::now();
        let pre = load(bench, &digest);
        drop(start(bench, &pre).await);
        loads.push(begun.elapsed());
    }
    let pre = load(bench, &digest);
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (context, accepted) = bench.job(INPUT);
        let begun = Instant::now();
        let mut store = instance::store(&bench.sandbox, &bench.world.limits, context);
        let ran = instance::run(&mut store, &pre, accepted.input.as_str()).await;
        drop(store);
        starts.push(begun.elapsed());
        assert!(matches!(ran, instance::Ran::Returned(Ok(_))), "{name}: {ran:?}");
    }
    // What an agent has when it has computed something and stays.
    let mut parked = Vec::new();
    for _ in 0..20 {
        parked.push(start(bench, &pre).await);
    }
    let before = private_bytes_of(std::process::id());
    while parked.len() < PARKED {
        parked.push(start(bench, &pre).await);
    }
    let grown = private_bytes_of(std::process::id()).saturating_sub(before);
    let each = grown / (PARKED as u64 - 20);
    drop(parked);

    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let mb = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    let least = |times: &[Duration]| shown(*times.iter().min().expect("there are some"));
    let size = mb(wasm.len() as u64);
    vec![
        Row::new(
            format!("`{name}`, {size}: compiled in a child, and registered when it was"),
            format!("{}, {}", shown(compiled), shown(registered)),
            "",
        ),
        Row::new(
            format!("`{name}`: loaded from the cache and run for the first time"),
            format!("min {}, {}", least(&loads), Times::new(loads.clone()).figures()),
            goals.load,
        ),
        Row::new(
            format!("`{name}`: store, instantiate, run, drop"),
            format!("min {}, {}", least(&starts), Times::new(starts.clone()).figures()),
            goals.start,
        ),
        Row::new(
            format!("`{name}`: private memory of one that has run and stays, of {PARKED}"),
            mb(each),
            goals.memory,
        ),
    ]
}

fn load(bench: &Bench, digest: &Digest) -> AgentPre<JobCtx> {
    let ready = bench.compiled.load(bench.sandbox.engine(), digest).expect("it was compiled");
    let linked = bench.sandbox.linker().instantiate_pre(&ready.component).and_then(AgentPre::new);
    linked.expect("it fits the contract")
}

/// Runs an agent and keeps what it has.
async fn start(bench: &Bench, pre: &AgentPre<JobCtx>) -> Box<dyn Send> {
    let (context, accepted) = bench.job(INPUT);
    let mut store = instance::store(&bench.sandbox, &bench.world.limits, context);
    let ran = instance::run(&mut store, pre, accepted.input.as_str()).await;
    assert!(matches!(ran, instance::Ran::Returned(Ok(_))), "{ran:?}");
    Box::new(store)
}
