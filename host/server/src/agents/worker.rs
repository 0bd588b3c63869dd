//! The child process that a host has audit and compile a component it does not trust.
//!
//! It is this program again, under a name that no help shows. It gives up what
//! it could do harm with before it reads a byte: it can open no file, use no
//! more memory and processor time than it was told, and ends with its host. The
//! component is its standard input, what it was compiled to its standard
//! output, and one line of JSON on its standard error says what it is
//! ([`Report`]).

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use clap::Args;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, getpriority_process, set_dumpable_behavior,
    set_parent_process_death_signal, setpriority_process, setrlimit,
};
use serde::{Deserialize, Serialize};

use super::audit::{self, Audit, AuditError};
use crate::sandbox::engine;

/// The name of the subcommand.
pub const COMMAND: &str = "compile-component";

/// The longest line that is made of a component: an agent's has some three kilobytes.
pub const REPORT_BYTES_MAX: usize = 1 << 20;

/// How far below the host's own work compiling comes: a third of a share where there are no processors left.
const NICE: i32 = 5;

/// What a worker may use. Whoever starts it says so, and it says so to the kernel.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// The process that it ends with.
    #[arg(long)]
    pub parent: u32,
    /// Its address space.
    #[arg(long)]
    pub memory_bytes_max: u64,
    /// Its time on all processors together.
    #[arg(long)]
    pub cpu_sec_max: u64,
    /// The largest component.
    #[arg(long)]
    pub component_bytes_max: usize,
}

/// What a worker tells its host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The component is an agent, and its compiled form stands on the standard output.
    Compiled {
        /// Which engines can run it.
        compatibility: String,
        /// What it asks for.
        audit: Box<Audit>,
    },
    /// It is none, for this reason.
    Unfit(String),
    /// It is larger than the operator allows.
    TooLarge(String),
    /// There was not enough memory.
    Memory,
    /// Something else went wrong, and may not the next time.
    Failed(String),
}

/// Audits and compiles a component; the compiled form is empty unless the report says `Compiled`.
#[must_use]
pub fn compile(wasm: &[u8], component_bytes_max: usize) -> (Report, Vec<u8>) {
    let audit = match audit::audit(wasm, component_bytes_max) {
        Ok(audit) => audit,
        // What the operator says is no property of the component.
        Err(error @ AuditError::TooLarge { .. }) => return (Report::TooLarge(error.to_string()), Vec::new()),
        Err(error) => return (Report::Unfit(error.to_string()), Vec::new()),
    };
    if let Err(refused) = audit.check() {
        return (Report::Unfit(refused.to_string()), Vec::new());
    }
    let compiled = engine::compiling().map_err(|error| (false, error)).and_then(|engine| {
        let compiled = engine.precompile_component(wasm).map_err(|error| (true, error))?;
        Ok((engine::compatibility(&engine), compiled))
    });
    match compiled {
        Ok((compatibility, compiled)) => (Report::Compiled { compatibility, audit: Box::new(audit) }, compiled),
        Err((its_own, error)) => {
            let text = format!("cannot compile the component: {error:#}");
            let report = match its_own {
                _ if is_of_memory(&text) => Report::Memory,
                true => Report::Unfit(text),
                false => Report::Failed(text),
            };
            (report, Vec::new())
        }
    }
}

/// Whether a text is what somebody says who has got no memory.
#[must_use]
pub fn is_of_memory(text: &str) -> bool {
    ["memory allocation of", "Cannot allocate memory", "out of memory"].iter().any(|words| text.contains(words))
}

/// Runs the worker.
#[must_use]
pub fn main(args: &WorkerArgs) -> ExitCode {
    let (report, compiled) = match work(args) {
        Ok(done) => done,
        Err(error) => (Report::Failed(format!("the compiler cannot work: {error}")), Vec::new()),
    };
    let mut line = serde_json::to_string(&report).expect("a report is JSON");
    if line.len() > REPORT_BYTES_MAX {
        let unfit = Report::Unfit("the names of its imports and exports are longer than any agent's".to_owned());
        line = serde_json::to_string(&unfit).expect("a report is JSON");
    } else if io::stdout().write_all(&compiled).and_then(|()| io::stdout().flush()).is_err() {
        return ExitCode::FAILURE;
    }
    match writeln!(io::stderr(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work(args: &WorkerArgs) -> io::Result<(Report, Vec<u8>)> {
    confine(args)?;
    let mut wasm = Vec::new();
    // One byte more, so that a component that is too large is seen to be.
    io::stdin().take(args.component_bytes_max as u64 + 1).read_to_end(&mut wasm)?;
    Ok(compile(&wasm, args.component_bytes_max))
}

/// Gives up everything that compiling does not need.
fn confine(args: &WorkerArgs) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A host that ended before that line sends no signal any more.
    if getppid().map(|parent| parent.as_raw_nonzero().get().cast_unsigned()) != Some(args.parent) {
        return Err(io::Error::other("the host has gone"));
    }
    close_inherited();
    // Should the machine run out of memory, this is what the kernel is to end. It may not let us say so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A host that is nicer than that may not be less so; one that cannot say how nice it is stays as it is.
    let _ = setpriority_process(None, getpriority_process(None).unwrap_or(0).max(NICE));
    let limit = |resource, value: u64| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::As, args.memory_bytes_max)?;
    // The kernel says so once, and a second later it ends what goes on.
    let cpu = Rlimit { current: Some(args.cpu_sec_max), maximum: Some(args.cpu_sec_max + 1) };
    setrlimit(Resource::Cpu, cpu)?;
    // From here on it can open nothing: no file, no socket, no pipe, not even in place of a stream that it closes.
    limit(Resource::Nofile, 0)?;
    Ok(())
}

/// Closes what the host was started with and did not open itself, which nobody marked to be closed.
#[expect(unsafe_code, reason = "only a number says which files these are")]
fn close_inherited() {
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(number).collect();
    for file in listed.into_iter().filter(|file| *file > 2) {
        // The one that the list was read from has been closed with it.
        if fs::symlink_metadata(format!("/proc/self/fd/{file}")).is_err() {
            continue;
        }
        // SAFETY: this process has just begun, has one thread, and has opened nothing that it still uses, so no value
        // owns the file.
        unsafe { rustix::io::close(file) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{engine::Sandbox, limits::Limits};

    /// A component with an entry, and this in its module.
    fn component(body: &str) -> Vec<u8> {
        let text = format!(
            r#"(component (core module $m {body} (func (export "f")))
                (core instance $i (instantiate $m)) (func (export "run") (canon lift (core func $i "f"))))"#
        );
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn what_was_compiled_is_for_the_engine_that_runs_it() {
        let (report, compiled) = compile(&component(""), 1 << 20);
        let Report::Compiled { compatibility, audit } = report else { panic!("{report:?}") };
        let small = Limits { stack_bytes_max: 64 << 10, memory_bytes_max: 1 << 20, ..Limits::default() };
        for limits in [Limits::default(), small] {
            let sandbox = Sandbox::new(&limits, 1).unwrap();
            assert_eq!(compatibility, engine::compatibility(sandbox.engine()));
        }
        assert!(!compiled.is_empty() && audit.core_modules == 1);
    }

    #[test]
    fn a_report_can_be_read_back_and_one_of_a_refused_component_cannot() {
        let (report, _) = compile(&component(""), 1 << 20);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Report>(&text).unwrap()).unwrap(), text);
        let forged = text.replace(r#""refused":[]"#, r#""refused":["evil:corp/x is nothing this host offers"]"#);
        assert_ne!(forged, text);
        assert!(serde_json::from_str::<Report>(&forged).is_err());
        let forged = text.replace(r#""authority":[]"#, r#""authority":[{"namespace":"root","because":[]}]"#);
        assert_ne!(forged, text);
        assert!(serde_json::from_str::<Report>(&forged).is_err());
    }

    #[test]
    fn what_is_no_agent_is_said_to_be_none_and_nothing_is_compiled() {
        let good = component("");
        for (wasm, words) in [
            (&b"#!/bin/sh"[..], "no WebAssembly component"),
            (&good[..good.len() - 1], ""),
            (&wat::parse_str("(component)").unwrap(), "run"),
        ] {
            let (report, compiled) = compile(wasm, 1 << 20);
            assert!(matches!(&report, Report::Unfit(why) if why.contains(words)), "{report:?}");
            assert!(compiled.is_empty());
        }
        assert!(matches!(compile(&good, 8).0, Report::TooLarge(why) if why.contains("more than the 8 allowed")));
    }
}
