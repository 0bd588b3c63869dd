//! The `leasehold` program as a user starts it: arguments, an exit code, and words on two streams.
//!
//! It is this package's binary `leasehold-under-test`, whose source is the
//! host's own `main.rs`, so that cargo builds it with the tests and in their
//! profile, and a test never builds anything.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use leasehold::client::{Client, ClientInfo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::{OnceCell, watch},
};

use crate::{
    PATIENCE, TestHost, agents_dir,
    host::{ALICE, BOB, token},
    shared_data_dir, within,
};

/// A call of the program, with nothing in its environment that would change what it does.
///
/// # Panics
///
/// If cargo has not built it, which it does for every test of this package.
#[must_use]
pub fn leasehold() -> Command {
    let mut command = Command::new(program());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("LEASEHOLD_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Where the program is.
///
/// # Panics
///
/// If cargo has not built it.
#[must_use]
pub fn program() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own file");
    let profile = test.ancestors().nth(2).expect("a test lies in `deps` of its profile's folder");
    let program = profile.join("leasehold-under-test");
    assert!(program.is_file(), "there is no {}; build it with `cargo build -p leasehold-tests`", program.display());
    program
}

/// The most memory a process ever had in use, in bytes.
///
/// # Panics
///
/// If there is no such process.
#[must_use]
pub fn peak_bytes(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_else(|| panic!("no peak in {text}"));
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Holds the exit code against the one that is documented.
    ///
    /// # Panics
    ///
    /// If it is another, with everything the program said.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        let Self { code: got, stdout, stderr } = &self;
        assert_eq!(*got, Some(code), "exit code\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    /// Holds its standard error against a text it must contain.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    #[must_use]
    pub fn complains(self, of: &str) -> Self {
        assert!(self.stderr.contains(of), "{of:?} is not in the standard error:\n{}", self.stderr);
        self
    }

    /// Its standard output as an object a line.
    ///
    /// # Panics
    ///
    /// If a line is not JSON.
    #[track_caller]
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Its standard output, which is one JSON document.
    ///
    /// # Panics
    ///
    /// If it is not.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Calls the program and waits for its end.
pub async fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = leasehold();
    command.args(args);
    outcome(command).await
}

/// Waits for a program's end.
///
/// # Panics
///
/// If it cannot be started or takes too long.
pub async fn outcome(command: Command) -> Outcome {
    outcome_within(PATIENCE, command).await
}

/// Waits for the end of a program that may take longer than others, as compilers do.
///
/// # Panics
///
/// If it cannot be started or takes longer than `limit`.
pub async fn outcome_within(limit: Duration, mut command: Command) -> Outcome {
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.expect("the program starts"),
        Err(_) => panic!("{command:?} took longer than {} s", limit.as_secs()),
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program speaks UTF-8");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A program that runs, and what it has said so far.
#[derive(Debug)]
pub struct Running {
    child: Child,
    words: watch::Receiver<Words>,
}

/// The lines of both streams, and how many of the streams are open.
#[derive(Clone, Debug, Default)]
struct Words {
    stdout: Vec<String>,
    stderr: Vec<String>,
    open: u8,
}

impl Running {
    /// Starts a program.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let (sender, words) = watch::channel(Words { open: 2, ..Words::default() });
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        listen(stdout.expect("it is piped"), sender.clone(), |words| &mut words.stdout);
        listen(stderr.expect("it is piped"), sender, |words| &mut words.stderr);
        Self { child, words }
    }

    /// Waits for the first line of standard output for which `wanted` has a value.
    ///
    /// # Panics
    ///
    /// If the program closes its streams before, with what it has said.
    pub async fn stdout<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        self.line(|words| words.stdout.iter().find_map(|line| wanted(line))).await
    }

    /// Waits for the first line of standard error for which `wanted` has a value.
    ///
    /// # Panics
    ///
    /// As [`stdout`](Self::stdout).
    pub async fn stderr<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        self.line(|words| words.stderr.iter().find_map(|line| wanted(line))).await
    }

    async fn line<T>(&self, wanted: impl Fn(&Words) -> Option<T>) -> T {
        let mut words = self.words.clone();
        let found = async {
            let seen = words.wait_for(|words| words.open == 0 || wanted(words).is_some()).await;
            let seen = seen.expect("the last words stay when the readers have gone").clone();
            wanted(&seen).unwrap_or_else(|| panic!("the program ended without the line that was waited for: {seen:?}"))
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain for a line of the program, which said {:?}", *self.words.borrow()),
        }
    }

    /// Its process.
    ///
    /// # Panics
    ///
    /// If it has been waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("the program has not been waited for")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it has been waited for.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the program has not been waited for");
        let pid = Pid::from_raw(id.cast_signed()).expect("a process id is not 0");
        kill_process(pid, signal).expect("a child can be sent a signal");
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    pub async fn end(mut self) -> Outcome {
        let status: ExitStatus =
            within("the program to end", self.child.wait()).await.expect("a child can be waited for");
        let words = within("its last words", self.words.wait_for(|words| words.open == 0)).await;
        let Words { stdout, stderr, .. } = words.expect("the last words stay").clone();
        Outcome { code: status.code(), stdout: stdout.join("\n"), stderr: stderr.join("\n") }
    }
}

fn listen(
    stream: impl AsyncRead + Send + Unpin + 'static,
    words: watch::Sender<Words>,
    lines: fn(&mut Words) -> &mut Vec<String>,
) {
    tokio::spawn(async move {
        let mut stream = BufReader::new(stream).lines();
        while let Ok(Some(line)) = stream.next_line().await {
            words.send_modify(|words| lines(words).push(line));
        }
        words.send_modify(|words| words.open -= 1);
    });
}

/// A `leasehold serve` to be started: on a free port, with the agents under test and tokens for Alice and Bob.
#[derive(Debug)]
pub struct Serve {
    command: Command,
    listen: String,
    agents: PathBuf,
    data: PathBuf,
    temporary: Option<TempDir>,
}

impl Serve {
    /// One with a data folder of its own.
    ///
    /// # Panics
    ///
    /// If there can be none.
    pub async fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let data = temporary.path().join("data");
        Self { temporary: Some(temporary), ..Self::on(&data).await }
    }

    /// One with a data folder that may hold what another left.
    pub async fn on(data: &Path) -> Self {
        let mut command = leasehold();
        command.args(["serve", "--json", "--log-format", "json"]);
        command.arg("--data").arg(data);
        for name in [ALICE, BOB] {
            command.arg("--token").arg(format!("{name}={}", token(name)));
        }
        compiled_agents(data).await;
        let (listen, agents) = ("127.0.0.1:0".to_owned(), agents_dir().to_owned());
        Self { command, listen, agents, data: data.to_owned(), temporary: None }
    }

    /// Takes the place of a host that is gone, so that its clients find it.
    ///
    /// # Panics
    ///
    /// If the URL is not one of a [`Served`].
    #[must_use]
    pub fn in_place_of(mut self, url: &str) -> Self {
        let authority = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next());
        self.listen = authority.expect("a host's URL names its address").to_owned();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment, or takes it away.
    #[must_use]
    pub fn env(mut self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.command.env(name, value),
            None => self.command.env_remove(name),
        };
        self
    }

    /// Registers the agents of another folder.
    #[must_use]
    pub fn agents(mut self, dir: &Path) -> Self {
        self.agents = dir.to_owned();
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not get ready.
    pub async fn start(self) -> Served {
        self.spawn().ready().await
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Starting {
        self.command.arg("--agents").arg(&self.agents).args(["--listen", &self.listen]);
        Starting { running: Running::start(self.command), data: self.data, temporary: self.temporary }
    }
}

/// A `leasehold serve` that may not be ready. It is killed when this is dropped.
#[derive(Debug)]
pub struct Starting {
    running: Running,
    data: PathBuf,
    temporary: Option<TempDir>,
}

impl Starting {
    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not get ready.
    pub async fn ready(self) -> Served {
        let ready = self.running.stdout(|line| serde_json::from_str::<Value>(line).ok()).await;
        let url = ready["url"].as_str().expect("the ready line names the address").to_owned();
        Served { running: self.running, url, data: self.data, _temporary: self.temporary }
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Kills it so long after it was started, ready or not, and waits until it is gone.
    ///
    /// Nothing shows how far a start is, so a timer is as good a way to choose a moment of it as any.
    pub async fn kill_after(self, moment: Duration) -> Outcome {
        tokio::time::sleep(moment).await;
        self.running.signal(Signal::KILL);
        self.running.end().await
    }
}

/// Puts the agents' compiled code where a host looks for it, so that not every host compiles them all.
///
/// # Panics
///
/// If the files cannot be copied.
pub async fn compiled_agents(data: &Path) {
    static COMPILED: OnceCell<()> = OnceCell::const_new();
    COMPILED.get_or_init(|| async { drop(TestHost::new().await) }).await;
    let to = data.join("compiled");
    if to.exists() {
        return;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&to).expect("the folder can be made");
    for file in fs::read_dir(shared_data_dir().join("compiled")).expect("a host has made it").flatten() {
        if file.path().extension().is_some_and(|extension| extension == "cwasm" || extension == "json") {
            fs::copy(file.path(), to.join(file.file_name())).expect("the file can be copied");
        }
    }
}

/// A running `leasehold serve`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Served {
    running: Running,
    /// Where clients connect.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
    _temporary: Option<TempDir>,
}

impl Served {
    /// A client of this host, with an open session.
    ///
    /// # Panics
    ///
    /// If the host does not let it in.
    pub async fn client(&self, name: &str) -> Client {
        let token = token(name);
        let client = Client::connect_ws(&self.url, Some(&token), ClientInfo::default());
        within("a session", client).await.expect("the host lets its own principal in")
    }

    /// A call of the program as a client of this host, by the environment.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = leasehold();
        command.args(args).env("LEASEHOLD_URL", &self.url).env("LEASEHOLD_TOKEN", token(ALICE));
        command
    }

    /// Waits for a line of its log that `wanted` has a value for.
    pub async fn log<T>(&self, wanted: impl Fn(&Value) -> Option<T>) -> T {
        self.running.stderr(|line| wanted(&serde_json::from_str(line).ok()?)).await
    }

    /// The most memory it ever had in use, in bytes.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        peak_bytes(self.running.id())
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub async fn kill(self) -> Outcome {
        self.running.signal(Signal::KILL);
        self.running.end().await
    }

    /// Asks it to stop, as a supervisor does, and waits until it has.
    pub async fn terminate(self) -> Outcome {
        self.running.signal(Signal::TERM);
        self.running.end().await
    }

    /// Asks it to stop, as its user does at the terminal, and waits until it has.
    pub async fn interrupt(self) -> Outcome {
        self.running.signal(Signal::INT);
        self.running.end().await
    }
}
