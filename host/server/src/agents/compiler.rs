//! Who audits and compiles components: a child process for each, under limits of its own.
//!
//! Whoever deploys an agent chooses every byte that a parser, a validator and
//! an optimising compiler then work through. That happens in a child
//! ([`worker`]), so that what crashes, never ends or takes all memory is not
//! the host. The host itself knows of such bytes their number and their digest
//! until the child has said that they are good.
//!
//! A program that is not `leasehold` has no such child to start, unless its
//! [`Place`] says where one is; without it, components are compiled within the process.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::{
        fs::MetadataExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::{
    audit::{Audit, Digest, printable},
    worker::{self, Report},
};

/// How often a wait looks whether the host stops.
const GLANCE: Duration = Duration::from_millis(20);

/// Of how many components it is remembered that they cannot be compiled.
const REFUSED_MAX: usize = 10_000;

/// Signals that the kernel sends to what has used up its processor time.
const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;

/// Whether this process is the program `leasehold`, which can be its own child.
static IS_LEASEHOLD: AtomicBool = AtomicBool::new(false);

/// Says that this program understands [`worker::COMMAND`].
pub fn this_program_compiles() {
    IS_LEASEHOLD.store(true, Ordering::Relaxed);
}

/// `[compile]`: what compiling one component may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address space of the child; what it compiles to is no larger, either.
    pub memory_bytes_max: u64,
    /// Its time on all processors together.
    pub cpu_sec_max: u32,
    /// Its time by the clock.
    pub timeout_sec: u32,
    /// Components compiled at once.
    pub concurrent_max: u32,
    /// Threads of one child.
    pub threads: u32,
    /// All compiled components together; above it those leave that were not used for longest and that nobody needs.
    pub cache_bytes_max: u64,
    /// How long a submission waits for an agent that is still being compiled.
    pub wait_sec: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // What CPython's component, the largest kind there is, needs is below half of it; of time, it needs a fifth.
            memory_bytes_max: 1 << 30,
            cpu_sec_max: 120,
            timeout_sec: 600,
            concurrent_max: 2,
            threads: 2,
            cache_bytes_max: 4 << 30,
            // Clients commonly wait half a minute for an answer.
            wait_sec: 25,
        }
    }
}

impl Settings {
    /// The name of the first setting that nothing could be compiled with.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let none = [
            ("memory_bytes_max", self.memory_bytes_max == 0),
            ("cpu_sec_max", self.cpu_sec_max == 0),
            ("timeout_sec", self.timeout_sec == 0),
            ("concurrent_max", self.concurrent_max == 0),
            ("threads", self.threads == 0),
        ];
        let (key, _) = none.into_iter().find(|(_, is_none)| *is_none)?;
        Some(format!("compile.{key} is 0, with which nothing could be compiled; it must be 1 at least"))
    }
}

/// Where components are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a child process of this program, which is `leasehold` or answers to [`worker::COMMAND`] as it does.
    Program(PathBuf),
    /// In the host's own process, without limits of its own: for components that are trusted not to be made to harm.
    InProcess,
}

impl Default for Place {
    /// This program itself if it is `leasehold`, and the host's own process otherwise.
    fn default() -> Self {
        if !IS_LEASEHOLD.load(Ordering::Relaxed) {
            return Self::InProcess;
        }
        // This one is what runs here even if another was put in its place.
        let itself = PathBuf::from("/proc/self/exe");
        match itself.exists() {
            true => Self::Program(itself),
            false => std::env::current_exe().map_or(Self::InProcess, Self::Program),
        }
    }
}

/// Why a component was not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is no agent, as its bytes say: this program will never find otherwise.
    #[error("{0}")]
    NoAgent(String),
    /// It takes more than it may, or crashes the compiler. Under these settings it would not be otherwise the next time.
    #[error("{0}")]
    Unfit(String),
    /// Something was in the way that has nothing to do with it.
    #[error("{0}")]
    Failed(String),
}

/// Audits and compiles components, so many at once.
#[derive(Debug)]
pub struct Compiler {
    place: Place,
    settings: Settings,
    /// How many are compiled now.
    busy: Mutex<u32>,
    free: Condvar,
    /// What cannot be compiled, and why, so that it is not tried for ever.
    refused: Mutex<BTreeMap<Digest, CompileError>>,
    stopping: AtomicBool,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(Place::default(), Settings::default())
    }
}

/// A component to be compiled, which nobody has looked into.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its bytes.
    pub wasm: &'a [u8],
    /// The same, as a file that can be read from its beginning.
    pub file: File,
    /// How large it may be.
    pub bytes_max: usize,
}

impl Compiler {
    /// Makes one.
    #[must_use]
    pub fn new(place: Place, settings: Settings) -> Self {
        let (busy, free) = (Mutex::new(0), Condvar::new());
        Self { place, settings, busy, free, refused: Mutex::default(), stopping: AtomicBool::new(false) }
    }

    /// How many components are compiled at once.
    #[must_use]
    pub fn concurrent_max(&self) -> usize {
        self.settings.concurrent_max as usize
    }

    /// How long a submission waits for an agent that is still being compiled.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.wait_sec.into())
    }

    /// Ends what is being compiled, and compiles nothing any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.free.notify_all();
    }

    /// Whether nothing is compiled any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Why this component was refused before, if it was.
    #[must_use]
    pub fn refused(&self, digest: &Digest) -> Option<CompileError> {
        lock(&self.refused).get(digest).cloned()
    }

    /// A text that is another for another build of the program that audits and compiles.
    ///
    /// What is refused may be an agent to the next build, whose version need not be another.
    #[must_use]
    pub fn build(&self) -> Option<String> {
        let program = match &self.place {
            Place::InProcess => Path::new("/proc/self/exe"),
            Place::Program(program) => program,
        };
        let metadata = program.metadata().ok()?;
        let version = env!("CARGO_PKG_VERSION");
        Some(format!("{version} {} {}.{:09}", metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
    }

    /// Audits a component and compiles it into a file that belongs to nobody else. Blocks until it has its turn, and
    /// then for seconds.
    ///
    /// `compatibility` is what [`engine::compatibility`](crate::sandbox::engine::compatibility) says of the engine it
    /// is for.
    ///
    /// # Errors
    ///
    /// If it is no agent, takes more than it may, or something is in the way.
    pub fn compile(&self, source: Source<'_>, compatibility: &str, into: &mut File) -> Result<Audit, CompileError> {
        let _turn = self.turn()?;
        // Another may have found out while this one waited.
        if let Some(why) = self.refused(&source.digest) {
            return Err(why);
        }
        let (digest, size_bytes) = (source.digest, source.wasm.len());
        let compiled = match &self.place {
            Place::InProcess => self.here(&source, into),
            Place::Program(program) => self.in_child(program, source, into),
        };
        let checked = compiled.and_then(|(is_for, audit)| {
            // What a child says that has read hostile bytes is held against what is known without it.
            if is_for != compatibility {
                let other = "the compiler is of another version of this program; restart the host, or install it anew";
                return Err(CompileError::Failed(other.to_owned()));
            }
            if audit.digest != digest || audit.size_bytes != size_bytes {
                return Err(CompileError::Failed(
                    "the compiler told of another component than it was given".to_owned(),
                ));
            }
            Ok(*audit)
        });
        if let Err(why @ (CompileError::NoAgent(_) | CompileError::Unfit(_))) = &checked {
            let mut refused = lock(&self.refused);
            if refused.len() >= REFUSED_MAX {
                refused.clear();
            }
            refused.insert(digest, why.clone());
        }
        checked
    }

    /// Waits for a turn.
    fn turn(&self) -> Result<Turn<'_>, CompileError> {
        let mut busy = lock(&self.busy);
        while *busy >= self.settings.concurrent_max && !self.stopping.load(Ordering::Relaxed) {
            busy = self.free.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(stopping());
        }
        *busy += 1;
        Ok(Turn(self))
    }

    fn here(&self, source: &Source<'_>, into: &mut File) -> Result<(String, Box<Audit>), CompileError> {
        let (report, compiled) = worker::compile(source.wasm, source.bytes_max);
        let told = self.told(report)?;
        into.write_all(&compiled).map_err(|error| CompileError::Failed(format!("it cannot be written: {error}")))?;
        Ok(told)
    }

    /// Has a child do it.
    fn in_child(
        &self,
        program: &Path,
        source: Source<'_>,
        into: &mut File,
    ) -> Result<(String, Box<Audit>), CompileError> {
        let cannot = |error: io::Error| {
            CompileError::Failed(format!("the compiler `{}` cannot be started: {error}", program.display()))
        };
        let Settings { memory_bytes_max, cpu_sec_max, timeout_sec, threads, .. } = self.settings;
        let deadline = Instant::now() + Duration::from_secs(timeout_sec.into());
        let mut command = Command::new(program);
        command
            .arg(worker::COMMAND)
            .arg(format!("--parent={}", std::process::id()))
            .arg(format!("--memory-bytes-max={memory_bytes_max}"))
            .arg(format!("--cpu-sec-max={cpu_sec_max}"))
            .arg(format!("--component-bytes-max={}", source.bytes_max))
            .env_clear()
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            .process_group(0)
            .stdin(source.file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // The child ends with the thread that starts it, and this one waits for it.
        let mut child = Leader::spawn(&mut command).map_err(cannot)?;
        let (sender, ends) = mpsc::channel();
        let streams = (child.child.stdout.take(), child.child.stderr.take(), into.try_clone().map_err(cannot)?);
        let (Some(stdout), Some(stderr), file) = streams else { unreachable!("both are piped") };
        let told = sender.clone();
        read_on("compiled", move || drop(told.send(End::Compiled(keep(stdout, file, memory_bytes_max)))))
            .map_err(cannot)?;
        read_on("compiler", move || drop(sender.send(End::Said(first(stderr, worker::REPORT_BYTES_MAX + 4096)))))
            .map_err(cannot)?;

        let (mut compiled, mut said, mut status) = (None, None, None);
        while compiled.is_none() || said.is_none() || status.is_none() {
            match ends.recv_timeout(GLANCE) {
                Ok(End::Compiled(end)) => compiled = Some(end),
                Ok(End::Said(text)) => said = Some(text),
                Err(RecvTimeoutError::Timeout) => {}
                // Both have told; what is left is its end.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
            }
            status = child.look().map_err(cannot)?;
            if let Some(Ok(Kept::TooMuch)) = compiled {
                break;
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Err(stopping());
            }
            if Instant::now() >= deadline {
                // A machine that has other work says nothing about the component.
                let what = format!("compiling it takes longer than {timeout_sec} s");
                return Err(CompileError::Failed(too_much(&what, "timeout_sec")));
            }
        }
        drop(child);
        match compiled {
            Some(Ok(Kept::TooMuch)) => {
                return Err(self.too_little_memory());
            }
            Some(Err(error)) => {
                return Err(CompileError::Failed(format!("the compile cache cannot be written to: {error}")));
            }
            _ => {}
        }
        let (status, said) = (status.expect("it has ended"), said.unwrap_or_default());
        self.judge(status, &said)
    }

    /// Says what the end of a child means.
    fn judge(&self, status: ExitStatus, said: &[u8]) -> Result<(String, Box<Audit>), CompileError> {
        let Settings { cpu_sec_max, .. } = self.settings;
        let text = String::from_utf8_lossy(said);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if status.success() {
            let report = serde_json::from_str(line);
            let report = report.map_err(|_| CompileError::Failed("the compiler ended without a report".to_owned()))?;
            return self.told(report);
        }
        if worker::is_of_memory(&text) {
            return Err(self.too_little_memory());
        }
        match (status.signal(), status.code()) {
            (Some(SIGXCPU), _) => {
                let what = format!("compiling it takes more than {cpu_sec_max} s of processor time");
                Err(CompileError::Unfit(too_much(&what, "cpu_sec_max")))
            }
            // Nobody here did that: the kernel, for want of memory, or somebody else.
            (Some(SIGKILL), _) => {
                Err(CompileError::Failed("the compiler was killed by somebody else; it is tried again".to_owned()))
            }
            (Some(signal), _) => Err(CompileError::Unfit(format!(
                "the compiler crashed on it (signal {signal}: {}); the component cannot be run here",
                shown(line)
            ))),
            // The machine has no more threads to give, which says nothing about the component.
            (None, Some(101)) if text.contains("Resource temporarily unavailable") => {
                Err(CompileError::Failed(format!("the compiler could not start ({})", shown(line))))
            }
            // What clap says of arguments it does not know is no end of ours.
            (None, Some(101)) => Err(CompileError::Unfit(format!(
                "the compiler gave it up ({}); the component cannot be run here",
                shown(line)
            ))),
            (None, code) => Err(CompileError::Failed(format!(
                "the compiler ended with code {} ({}); is it the program `leasehold` of this version?",
                code.unwrap_or_default(),
                shown(line)
            ))),
        }
    }

    fn told(&self, report: Report) -> Result<(String, Box<Audit>), CompileError> {
        match report {
            Report::Compiled { compatibility, audit } => Ok((compatibility, audit)),
            Report::Unfit(why) => Err(CompileError::NoAgent(shown(&why))),
            Report::TooLarge(why) => Err(CompileError::Unfit(shown(&why))),
            Report::Failed(why) => Err(CompileError::Failed(shown(&why))),
            Report::Memory => Err(self.too_little_memory()),
        }
    }

    fn too_little_memory(&self) -> CompileError {
        let bytes_max = self.settings.memory_bytes_max;
        let what = format!("compiling it takes more than {bytes_max} bytes of memory");
        CompileError::Unfit(too_much(&what, "memory_bytes_max"))
    }
}

fn too_much(what: &str, setting: &str) -> String {
    format!(
        "{what}; build it smaller (in release mode, with shorter functions), or raise compile.{setting} and start the \
         host again"
    )
}

/// The right to compile, until it is dropped.
struct Turn<'a>(&'a Compiler);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) -= 1;
        self.0.free.notify_one();
    }
}

/// A child that leads a process group, all of which ends with it, or when this is dropped.
struct Leader {
    child: Child,
    ended: bool,
}

impl Leader {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, ended: false })
    }

    /// Whether it has ended. What it has left behind is ended then.
    fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() && !std::mem::replace(&mut self.ended, true) {
            self.kill();
        }
        Ok(status)
    }

    /// The number of a group is free for others once it is empty, but numbers are given out in turn, so it is not given
    /// again at once.
    fn kill(&self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It fails if there is nobody left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// The end of one of a child's streams.
enum End {
    Compiled(io::Result<Kept>),
    Said(Vec<u8>),
}

enum Kept {
    All,
    TooMuch,
}

/// Writes what comes into a file, up to a bound.
fn keep(from: impl Read, mut into: File, bytes_max: u64) -> io::Result<Kept> {
    let written = io::copy(&mut from.take(bytes_max.saturating_add(1)), &mut into)?;
    Ok(if written > bytes_max { Kept::TooMuch } else { Kept::All })
}

/// The first bytes that come; the rest is read and dropped, so that nobody waits to say it.
fn first(mut from: impl Read, bytes_max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    // A child that cannot be read from has said nothing.
    let _ = from.by_ref().take(bytes_max as u64).read_to_end(&mut kept);
    let _ = io::copy(&mut from, &mut io::sink());
    kept
}

/// Starts a thread that ends with the stream it reads.
fn read_on(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn stopping() -> CompileError {
    CompileError::Failed("the host is stopping".to_owned())
}

/// A child's words as one line of a bounded length.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 4_000;
    printable(text, CHARS_MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tempfile::TempDir;

    use super::*;

    /// What a fake compiler is given to compile.
    const WASM: &[u8] = b"bytes that nobody here looks into";

    /// A program that does this instead of compiling. `$DIR` is a folder of its own.
    struct Fake {
        dir: TempDir,
        compiler: Compiler,
    }

    impl Fake {
        fn new(script: &str, change: impl FnOnce(&mut Settings)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("compiler");
            let shown = dir.path().display();
            fs::write(&program, format!("#!/bin/sh\nDIR='{shown}'\necho begun >> $DIR/log\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
            let mut settings = Settings { timeout_sec: 60, ..Settings::default() };
            change(&mut settings);
            Self { dir, compiler: Compiler::new(Place::Program(program), settings) }
        }

        fn compile(&self) -> Result<Audit, CompileError> {
            let source = || {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(WASM).unwrap();
                io::Seek::rewind(&mut file).unwrap();
                Source { digest: Digest::of(WASM), wasm: WASM, file, bytes_max: 1 << 20 }
            };
            let mut into = tempfile::tempfile().unwrap();
            loop {
                match self.compiler.compile(source(), "this engine", &mut into) {
                    // Another test has started a child while this one's program was being written.
                    Err(CompileError::Failed(why)) if why.contains("Text file busy") => {}
                    compiled => return compiled,
                }
            }
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
        }

        fn begun(&self) -> usize {
            self.read("log").lines().filter(|line| *line == "begun").count()
        }
    }

    /// A script that reports this.
    fn reporting(report: &str) -> String {
        format!("echo '{report}' >&2")
    }

    fn good(is_for: &str, digest: &Digest, size_bytes: usize) -> String {
        format!(
            r#"{{"compiled":{{"compatibility":"{is_for}","audit":{{"digest":"{digest}","size_bytes":{size_bytes},
            "imports":[],"refused":[],"exports":["run"],"authority":[],"core_modules":1,"functions":1,
            "memory_min_bytes":0}}}}}}"#
        )
        .replace('\n', " ")
    }

    /// Each row is a way for a child to end, what is said of it, and whose fault it is. What is the component's is not
    /// compiled again.
    #[test]
    fn whatever_becomes_of_the_child_is_told_from_its_end() {
        let of_another = Digest::of(b"another");
        let own = Digest::of(WASM);
        let (failed, unfit) = (CompileError::Failed as fn(String) -> CompileError, CompileError::Unfit as fn(_) -> _);
        for (script, words, kind) in [
            ("true", "without a report", failed),
            ("echo nonsense >&2", "without a report", failed),
            ("exit 2", "is it the program `leasehold` of this version?", failed),
            ("echo \"thread panicked\" >&2; exit 101", "thread panicked", unfit),
            ("kill -SEGV $$", "signal 11", unfit),
            ("echo 'memory allocation of 8 bytes failed' >&2; kill -ABRT $$", "compile.memory_bytes_max", unfit),
            ("kill -XCPU $$", "compile.cpu_sec_max", unfit),
            ("kill -KILL $$", "killed by somebody else", failed),
            ("exec sleep 1000", "compile.timeout_sec", failed),
            (&reporting(r#"{"unfit":"it is ugly"}"#), "it is ugly", CompileError::NoAgent),
            (&reporting(r#""memory""#), "compile.memory_bytes_max", unfit),
            (&reporting(r#"{"failed":"no luck"}"#), "no luck", failed),
            (&reporting(&good("another engine", &own, WASM.len())), "another version", failed),
            (&reporting(&good("this engine", &of_another, WASM.len())), "another component", failed),
            (&reporting(&good("this engine", &own, 1)), "another component", failed),
        ] {
            let fake = Fake::new(script, |settings| {
                if script.contains("sleep") {
                    settings.timeout_sec = 1;
                }
            });
            let first = fake.compile().expect_err(script);
            assert_eq!(first, kind(first.to_string()), "{script}");
            assert!(first.to_string().contains(words), "{script}: {first}");
            let second = fake.compile().expect_err(script);
            assert_eq!(first, second, "{script}");
            assert_eq!(fake.begun(), if matches!(first, CompileError::Failed(_)) { 2 } else { 1 }, "{script}");
        }
        let fake = Fake::new(&reporting(&good("this engine", &own, WASM.len())), |_| ());
        assert_eq!(fake.compile().unwrap().exports, ["run"]);
    }

    #[test]
    fn a_child_that_is_killed_is_no_reason_against_the_next() {
        let report = good("this engine", &Digest::of(WASM), WASM.len());
        let script =
            format!("if [ ! -e $DIR/again ]; then touch $DIR/again; kill -KILL $$; fi; {}", reporting(&report));
        let fake = Fake::new(&script, |_| ());
        assert!(matches!(fake.compile(), Err(CompileError::Failed(_))));
        assert!(fake.compile().is_ok());
    }

    /// Whether a process computes or waits.
    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    #[test]
    fn a_child_ends_with_all_it_has_started_in_time_or_before() {
        for (then, words) in [("wait", "compile.timeout_sec"), ("exit 0", "without a report")] {
            let fake = Fake::new(&format!("sleep 1000 & echo $! > $DIR/pid; {then}"), |s| s.timeout_sec = 2);
            let begun = Instant::now();
            let error = fake.compile().expect_err("it says nothing");
            assert!(error.to_string().contains(words), "{then}: {error}");
            let pid = fake.read("pid");
            assert!(!pid.is_empty());
            while lives(&pid) {
                assert!(begun.elapsed() < Duration::from_secs(60), "{then}: what it started goes on");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn a_child_that_says_more_than_it_may_is_not_listened_to() {
        let fake = Fake::new("exec cat /dev/zero", |settings| settings.memory_bytes_max = 1 << 20);
        let error = fake.compile().expect_err("it writes for ever");
        assert!(error.to_string().contains("compile.memory_bytes_max"), "{error}");
        let fake = Fake::new("exec cat /dev/zero >&2", |settings| settings.timeout_sec = 1);
        let error = fake.compile().expect_err("it complains for ever");
        assert!(error.to_string().contains("compile.timeout_sec"), "{error}");
    }

    #[test]
    fn a_child_has_the_component_and_two_pipes_and_no_environment() {
        let script =
            "cat > $DIR/component; tr '\\0' '\\n' < /proc/$$/environ > $DIR/env; pwd > $DIR/pwd; echo $@ > $DIR/args";
        let fake = Fake::new(script, |_| ());
        assert!(fake.compile().is_err());
        assert_eq!(fake.read("component").as_bytes(), WASM);
        assert_eq!((fake.read("env").trim(), fake.read("pwd").trim()), ("RAYON_NUM_THREADS=2", "/"));
        assert!(fake.read("args").starts_with("compile-component --parent="), "{}", fake.read("args"));
    }

    #[test]
    fn so_many_are_compiled_at_once_and_a_host_that_stops_waits_for_none() {
        let fake = Fake::new("sleep 1000", |settings| settings.concurrent_max = 1);
        thread::scope(|scope| {
            let both = [scope.spawn(|| fake.compile()), scope.spawn(|| fake.compile())];
            while fake.begun() == 0 {
                thread::sleep(Duration::from_millis(5));
            }
            fake.compiler.stop();
            for one in both {
                let error = one.join().unwrap().expect_err("it does not end");
                assert!(matches!(&error, CompileError::Failed(why) if why.contains("stopping")), "{error}");
            }
        });
        assert_eq!(fake.begun(), 1);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let compiler = Compiler::new(Place::Program("/no/such/program".into()), Settings::default());
        let source = Source { digest: Digest::of(b""), wasm: b"", file: tempfile::tempfile().unwrap(), bytes_max: 1 };
        let error = compiler.compile(source, "", &mut tempfile::tempfile().unwrap()).expect_err("it is not there");
        assert!(matches!(&error, CompileError::Failed(why) if why.contains("/no/such/program")), "{error}");
    }
}
