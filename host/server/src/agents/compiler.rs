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
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
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
    audit::{Audit, Digest},
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes_max: 2 << 30,
            cpu_sec_max: 120,
            timeout_sec: 300,
            concurrent_max: 2,
            threads: 2,
            cache_bytes_max: 4 << 30,
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
    /// It is no agent, or takes more than it may. It would not be otherwise the next time.
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
    refused: Mutex<BTreeMap<Digest, String>>,
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

    /// Ends what is being compiled, and compiles nothing any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.free.notify_all();
    }

    /// Why this component was refused before, if it was.
    #[must_use]
    pub fn refused(&self, digest: &Digest) -> Option<String> {
        lock(&self.refused).get(digest).cloned()
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
            return Err(CompileError::Unfit(why));
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
        if let Err(CompileError::Unfit(why)) = &checked {
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
        let streams = (child.0.stdout.take(), child.0.stderr.take(), into.try_clone().map_err(cannot)?);
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
            status = child.0.try_wait().map_err(cannot)?;
            if let Some(Ok(Kept::TooMuch)) = compiled {
                break;
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Err(stopping());
            }
            if Instant::now() >= deadline {
                return Err(self.too_much(&format!("longer than {timeout_sec} s"), "timeout_sec"));
            }
        }
        // Nothing that it started may go on.
        drop(child);
        match compiled {
            Some(Ok(Kept::TooMuch)) => {
                return Err(self.too_much(&format!("{memory_bytes_max} bytes and more"), "memory_bytes_max"));
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
        let Settings { memory_bytes_max, cpu_sec_max, .. } = self.settings;
        let text = String::from_utf8_lossy(said);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if status.success() {
            let report = serde_json::from_str(line);
            let report = report.map_err(|_| CompileError::Failed("the compiler ended without a report".to_owned()))?;
            return self.told(report);
        }
        if is_of_memory(&text) {
            return Err(self.too_much(&format!("more than {memory_bytes_max} bytes of memory"), "memory_bytes_max"));
        }
        match (status.signal(), status.code()) {
            (Some(SIGXCPU), _) => {
                Err(self.too_much(&format!("more than {cpu_sec_max} s of processor time"), "cpu_sec_max"))
            }
            // Nobody here did that: the kernel, for want of memory, or somebody else.
            (Some(SIGKILL), _) => {
                Err(CompileError::Failed("the compiler was killed by somebody else; it is tried again".to_owned()))
            }
            (Some(signal), _) => Err(CompileError::Unfit(format!(
                "the compiler crashed on it (signal {signal}: {}); the component cannot be run here",
                shown(line)
            ))),
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
            Report::Unfit(why) => Err(CompileError::Unfit(shown(&why))),
            Report::Failed(why) => Err(CompileError::Failed(shown(&why))),
            Report::Memory => {
                let most = format!("more than {} bytes of memory", self.settings.memory_bytes_max);
                Err(self.too_much(&most, "memory_bytes_max"))
            }
        }
    }

    fn too_much(&self, what: &str, setting: &str) -> CompileError {
        CompileError::Unfit(format!(
            "compiling it takes {what}; build it smaller (in release mode, with shorter functions), or raise \
             compile.{setting} and start the host again"
        ))
    }
}

/// The right to compile, until it is dropped.
struct Turn<'a>(&'a Compiler);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) -= 1;
        self.0.free.notify_one();
    }
}

/// A child that leads a process group, all of which ends when this is dropped.
struct Leader(Child);

impl Leader {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // It fails if there is nobody left.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
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

fn is_of_memory(text: &str) -> bool {
    worker::is_of_memory(text)
}

fn stopping() -> CompileError {
    CompileError::Failed("the host is stopping".to_owned())
}

/// A child's words as one line of a bounded length.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 4_000;
    text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
