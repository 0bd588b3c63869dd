//! Components that are made to harm whoever compiles them.
//!
//! They are compiled by the program itself, as a child of the host, under
//! limits so small that a test need not wait for those of an operator.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use leasehold::agents::compiler::{Place, Settings};
use leasehold_tests::{
    TestHost, agents_dir,
    program::{self, Serve, outcome},
    some_agents, within,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A number as WebAssembly writes it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], &leb(content.len())[..], content].concat()
}

/// A component whose `run` is the first of these functions, none of which takes or gives anything.
///
/// Its text would be far larger than it is.
fn component(functions: &[Vec<u8>]) -> Vec<u8> {
    let count = leb(functions.len());
    let bodies = functions.iter().flat_map(|body| [leb(body.len()), body.clone()].concat());
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, b"\x01\x60\0\0"),
        section(3, &[count.clone(), vec![0; functions.len()]].concat()),
        section(7, b"\x01\x01f\0\0"),
        section(10, &count.into_iter().chain(bodies).collect::<Vec<u8>>()),
    ]
    .concat();
    [
        b"\0asm\x0d\0\x01\0".to_vec(),
        section(1, &module),
        section(2, b"\x01\0\0\0"),             // an instance of it,
        section(6, b"\x01\0\0\x01\0\x01f"),    // whose `f`
        section(7, b"\x01\x40\0\x01\0"),       // is of the type of a function
        section(8, b"\x01\0\0\0\0\0"),         // and is lifted to one,
        section(11, b"\x01\0\x03run\x01\0\0"), // which is `run`
    ]
    .concat()
}

/// So many functions that do nothing.
fn many_functions(count: usize) -> Vec<u8> {
    component(&vec![b"\0\x0b".to_vec(); count])
}

/// Blocks in each other, this deep.
fn nested(depth: usize) -> Vec<u8> {
    component(&[[b"\0".to_vec(), b"\x02\x40".repeat(depth), vec![0x0b; depth], vec![0x0b]].concat()])
}

/// One function of so many branches over a thousand variables, all of which are wanted at the end of the loop.
fn tangled(branches: usize) -> Vec<u8> {
    const VARIABLES: usize = 1000;
    let mut drawn = 1_usize;
    let mut variable = || {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        leb((drawn >> 33) % VARIABLES)
    };
    let mut body = [vec![1], leb(VARIABLES), b"\x7f\x03\x40".to_vec()].concat();
    for _ in 0..branches {
        for part in [&b"\x02\x40\x20"[..], &variable(), b"\x0d\0\x20", &variable(), b"\x20", &variable(), b"\x6a\x21"] {
            body.extend(part);
        }
        body.extend(variable());
        body.push(0x0b);
    }
    body.extend(b"\x20\0\x0d\0\x0b\x0b");
    component(&[body])
}

fn in_a_child() -> Place {
    Place::Program(program::program())
}

/// A host that compiles in a child, with agents and compiled ones of its own.
async fn host(agents: &Path, change: impl FnOnce(&mut Settings)) -> (TestHost, TempDir) {
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    program::compiled_agents(data.path()).await;
    let (compiled, folder) = (data.path().join("compiled"), agents.to_owned());
    let host = TestHost::builder().without_agents().compiler(in_a_child()).config(|config| {
        config.server.agents = folder;
        config.server.agents_interval_sec = 1;
        config.server.compiled = Some(compiled);
        config.limits.component_bytes_max = 8 << 20;
        change(&mut config.compile);
    });
    (host.start().await, data)
}

fn write(dir: &Path, name: &str, wasm: &[u8]) -> PathBuf {
    let path = dir.join(format!("{name}@1.0.0.wasm"));
    fs::write(&path, wasm).expect("the folder can be written to");
    path
}

/// Each is refused for its reason, while a neighbour is served all the time and another agent is deployed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_harms_its_compiler_is_refused_and_nobody_else_notices() {
    let dir = some_agents(&["echo"]);
    let echo = fs::read(agents_dir().join("echo@1.0.0.wasm")).expect("echo was built");
    let (host, _data) = host(dir.path(), |compile| {
        compile.memory_bytes_max = 256 << 20;
        compile.cpu_sec_max = 2;
    })
    .await;
    let registered = within("echo", host.host().register_agents()).await.expect("the folder can be read");
    assert!(registered.is_empty(), "{registered:?}");

    let table = [
        ("garbage", b"no component at all".to_vec(), "no WebAssembly component"),
        ("truncated", echo[..echo.len() / 2].to_vec(), "cut short"),
        ("functions", many_functions(900_000), "compile."),
        ("tangled", tangled(60_000), "compile."),
        ("nested", nested(2_000_000), "compile"),
    ];
    let paths: Vec<PathBuf> = table.iter().map(|(name, wasm, _)| write(dir.path(), name, wasm)).collect();
    // A terabyte, none of which is on the disk.
    let enormous = write(dir.path(), "enormous", b"");
    fs::File::options().write(true).open(&enormous).expect("it is there").set_len(1 << 40).expect("it has no content");
    write(dir.path(), "another", &echo);

    let mut session = host.session().await;
    let begun = Instant::now();
    let (mut slowest, mut echoes) = (Duration::ZERO, 0);
    let mut neighbour = async || {
        let begun = Instant::now();
        let run = session.submit("echo").input(json!("still here")).run().await;
        assert_eq!(run.result(), Ok(json!("still here")));
        (slowest, echoes) = (slowest.max(begun.elapsed()), echoes + 1);
    };
    // The folder's own look finds them all; what is wrong with each is asked for here.
    let registry = host.host().registry();
    for (path, (name, _, words)) in paths.iter().zip(&table) {
        let (registry, path, name) = (std::sync::Arc::clone(registry), path.clone(), (*name).to_owned());
        let mut asked = tokio::task::spawn_blocking(move || registry.prepare_file(&path, &name, "1.0.0").err());
        let error = loop {
            tokio::select! {
                error = &mut asked => break error.expect("nothing panics"),
                () = neighbour() => {}
            }
        };
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(!error.is_empty() && error.contains(words), "{error:?} says nothing of {words:?}");
    }
    let error = registry.prepare_file(&enormous, "enormous", "1.0.0").map(|_| ()).expect_err("it is too large");
    assert!(error.to_string().contains("limits.component_bytes_max"), "{error}");
    while !registry.all().iter().any(|agent| agent.id == "another@1.0.0") {
        neighbour().await;
        assert!(begun.elapsed() < leasehold_tests::PATIENCE, "what is in order was not deployed");
    }
    assert!(echoes > 0 && slowest < Duration::from_secs(10), "{echoes} echoes, the slowest in {slowest:?}");
    let ids: Vec<String> = registry.all().iter().map(|agent| agent.id.clone()).collect();
    assert_eq!(ids, ["another@1.0.0", "echo@1.0.0"]);
}

/// What it takes to compile grows with the component; so does what it says then. Only the time by the clock may be a
/// neighbour's fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_takes_too_much_is_told_which_setting_bounds_it() {
    let functions = many_functions(400_000);
    for (change, words, lasting) in [
        ((|compile| compile.memory_bytes_max = 160 << 20) as fn(&mut Settings), "compile.memory_bytes_max", true),
        (|compile| compile.cpu_sec_max = 1, "compile.cpu_sec_max", true),
        (|compile| compile.timeout_sec = 1, "compile.timeout_sec", false),
    ] {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let path = write(dir.path(), "functions", &functions);
        let (host, _data) = host(dir.path(), change).await;
        let registry = std::sync::Arc::clone(host.host().registry());
        let asked = tokio::task::spawn_blocking(move || {
            let first = registry.prepare_file(&path, "functions", "1.0.0").map(|_| ()).expect_err("it is too much");
            let begun = Instant::now();
            let second = registry.prepare_file(&path, "functions", "1.0.0").map(|_| ()).expect_err("it is still");
            (first.to_string(), second.to_string(), begun.elapsed())
        });
        let (first, second, took) = within("a refusal", asked).await.expect("nothing panics");
        assert!(first.contains(words), "{first}");
        // What is known by now is not compiled again.
        assert_eq!((first == second, took < Duration::from_secs(1)), (true, lasting), "{second} after {took:?}");
    }
}

/// Hosts that share a folder of compiled agents put the same ones into it at once, and both can run what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_share_a_folder_of_compiled_agents() {
    let (dir, shared) = (some_agents(&["echo"]), tempfile::tempdir().expect("a temporary folder can be made"));
    let compiled = shared.path().join("compiled");
    let start = async || {
        let host = TestHost::builder().without_agents().compiler(in_a_child());
        let host = host.config(|config| {
            config.server.agents = dir.path().to_owned();
            config.server.compiled = Some(compiled.clone());
        });
        let host = host.start().await;
        let problems = within("echo", host.host().register_agents()).await.expect("the folder can be read");
        assert!(problems.is_empty(), "{problems:?}");
        host
    };
    let (a, b) = tokio::join!(start(), start());
    for host in [&a, &b] {
        let run = host.session().await.submit("echo").input(json!(1)).run().await;
        assert_eq!(run.result(), Ok(json!(1)));
    }
    let mut endings: Vec<String> = Vec::new();
    for file in fs::read_dir(&compiled).expect("the folder is there").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        endings.push(name.rsplit_once('.').map_or(name.clone(), |(_, ending)| ending.to_owned()));
    }
    endings.sort();
    assert_eq!(endings, ["cwasm", "json", "wasm"]);
}

/// The processes that compile for another.
fn children_of(parent: u32) -> Vec<u32> {
    let argument = format!("--parent={parent}");
    let compiles = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    };
    let ids = fs::read_dir("/proc").expect("there is /proc").flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(compiles).collect()
}

async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            match found() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

/// How long a submission waits for its agent (`compile.wait_sec`).
const WAIT: Duration = Duration::from_secs(25);

/// The second time nothing but what has not been compiled is compiled: what is no agent is known to be none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_ready_before_its_agents_and_a_submission_waits_for_its_own() {
    let (dir, data) = (some_agents(&["echo"]), tempfile::tempdir().expect("a temporary folder can be made"));
    write(dir.path(), "garbage", b"no component at all");
    write(dir.path(), "tangled", &tangled(60_000));
    // A folder that is there is not filled with what other tests have compiled.
    fs::DirBuilder::new().mode(0o700).create(data.path().join("compiled")).expect("the folder can be made");
    for expected in [&["echo@1.0.0", "garbage@1.0.0", "tangled@1.0.0"][..], &["tangled@1.0.0"]] {
        let starting = Serve::on(data.path()).await.agents(dir.path()).spawn();
        let id = starting.id();
        let host = starting.ready().await;
        until("a child", || children_of(id).first().copied()).await;
        let waited = async {
            loop {
                let begun = Instant::now();
                let run = outcome(host.command(["submit", "echo", "--input", "\"here\""])).await;
                // Only a machine that does much else takes longer than a submission waits.
                if !run.stderr.contains("is still being compiled") || begun.elapsed() < WAIT {
                    return run.exits(0);
                }
            }
        };
        assert!(within("an echo", waited).await.stdout.contains("here"));
        host.log(|line| line["problem"].as_str()?.contains("no WebAssembly component").then_some(())).await;
        let compiled = |line: &Value| {
            let compiles = line["message"] == "an agent is being compiled";
            Some(line["agent"].as_str()?.to_owned()).filter(|_| compiles)
        };
        host.log(|line| compiled(line).filter(|agent| agent.starts_with("tangled"))).await;
        let ended = host.terminate().await.exits(0);
        let log = ended.stderr.lines().filter_map(|line| compiled(&serde_json::from_str(line).ok()?));
        let mut log: Vec<String> = log.collect();
        log.sort();
        assert_eq!(log, expected);
    }
}

/// A child that is killed is tried again, and one whose host is killed does not outlive it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_may_be_killed_and_ends_with_its_host() {
    let dir = some_agents(&["echo"]);
    write(dir.path(), "tangled", &tangled(60_000));
    let starting = Serve::new().await.agents(dir.path()).spawn();
    let host = starting.id();
    let first = until("a child", || children_of(host).first().copied()).await;
    let pid = Pid::from_raw(first.cast_signed()).expect("a process id is not 0");
    for (name, value) in [
        ("Max core file size", " 0 "),
        ("Max file size", " 0 "),
        ("Max open files", " 0 "),
        ("Max cpu time", " 120 "),
        ("Max address space", " 1073741824 "),
    ] {
        // It may be looked at before it has given everything up.
        let limited = || {
            let limits = fs::read_to_string(format!("/proc/{first}/limits")).ok()?;
            limits.lines().any(|line| line.starts_with(name) && line.contains(value)).then_some(())
        };
        until(&format!("{name}{value}"), limited).await;
    }
    kill_process(pid, Signal::KILL).expect("it runs");
    // It was not the component's fault, so it is tried again at the next look; meanwhile the host is ready.
    let served = starting.ready().await;
    let second = until("another child", || children_of(host).into_iter().find(|id| *id != first)).await;
    assert_ne!(first, second);
    let _ = served.kill().await;
    until("the end of all", || children_of(host).is_empty().then_some(())).await;
}

/// The folder of compiled agents has a bound, and what runs is not what pays for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_bound_what_neither_an_agent_nor_a_job_needs_is_removed() {
    let dir = some_agents(&["echo", "sleeper"]);
    let (host, data) = host(dir.path(), |compile| compile.cache_bytes_max = 1).await;
    let problems = within("the agents", host.host().register_agents()).await.expect("the folder can be read");
    assert!(problems.is_empty(), "{problems:?}");
    let registry = host.host().registry();
    let mut needed: Vec<String> = registry.all().iter().map(|agent| agent.audit.digest.to_string()).collect();
    let mut session = host.session().await;
    let job_id = session.submit("sleeper").input(json!({ "sec": 600 })).job_id().await;
    fs::remove_file(dir.path().join("sleeper@1.0.0.wasm")).expect("it is there");
    until("the agent to go", || (registry.all().len() == 1).then_some(())).await;

    let compiled = data.path().join("compiled");
    let digests = || {
        let names = fs::read_dir(&compiled).expect("the folder is there").flatten().map(|file| file.file_name());
        let mut digests: Vec<String> = names.map(|name| name.to_string_lossy()[..64].to_owned()).collect();
        digests.sort();
        digests.dedup();
        digests
    };
    // What was used in the last hour stays, whoever needs it.
    let all = digests();
    assert!(all.len() > 2, "{all:?}");
    let tidied = within("a look", host.host().tidy_compiled()).await.expect("the folder can be read");
    assert_eq!((tidied.removed, digests()), (0, all));
    for file in fs::read_dir(&compiled).expect("the folder is there").flatten() {
        let file = fs::File::options().append(true).open(file.path()).expect("it can be written to");
        file.set_modified(std::time::UNIX_EPOCH).expect("it is ours");
    }
    let tidied = within("a look", host.host().tidy_compiled()).await.expect("the folder can be read");
    needed.sort();
    assert_eq!(digests(), needed, "{tidied:?}");

    session.request_with("job.cancel", json!({ "job_id": job_id }), json!({})).await;
    session.follow(&job_id).await;
    let run = session.submit("echo").input(json!("still here")).run().await;
    assert_eq!(run.result(), Ok(json!("still here")));
}
