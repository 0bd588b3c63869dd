//! A child process and everything it starts: one process group, which ends as a whole.

use std::{
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use leasehold_core::secret::Secret;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    runtime::Handle,
    time::timeout,
};

/// How long a group has between being asked to end and being ended.
const GRACE: Duration = Duration::from_secs(2);

/// How long the pipes of a child that has ended may still be held open by something that left its group.
const PIPES_GRACE: Duration = Duration::from_millis(250);

/// The longest line of a child's stderr that is kept; what is beyond it is dropped.
const LINE_BYTES_MAX: usize = 2_048;

/// A child process that leads a process group of its own.
///
/// When this is dropped, the group is asked to end, and ended by force if it does not.
#[derive(Debug)]
pub(crate) struct Group(Option<Led>);

/// A group that has not been ended yet. Whatever becomes of whoever ends it, it does not outlive this.
#[derive(Debug)]
struct Led {
    leader: Child,
    id: Option<Pid>,
}

/// The three pipes of a child.
pub(crate) struct Streams {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// Describes a child: `words` are its program and arguments.
///
/// Of the host's own environment it sees what `inherited` names. Everything else there may be a secret.
pub(crate) fn command(
    words: &[String],
    inherited: &[&str],
    env: &[(String, Secret)],
    dir: Option<&Path>,
) -> io::Result<Command> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().process_group(0).kill_on_drop(true);
    command.envs(inherited.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(env.iter().map(|(name, secret)| (name, secret.expose())));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    Ok(command)
}

impl Group {
    /// Starts the child that [`command`] has described.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Self, Streams)> {
        let mut leader = command.spawn()?;
        let id = leader.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let streams = (leader.stdin.take(), leader.stdout.take(), leader.stderr.take());
        let group = Self(Some(Led { leader, id }));
        match streams {
            (Some(stdin), Some(stdout), Some(stderr)) => Ok((group, Streams { stdin, stdout, stderr })),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Returns when the leader has ended, and ends what it has left behind.
    ///
    /// The number of a group is free for others once it is empty, but numbers
    /// are given out in turn, so it is not given again at once.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let led = self.0.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let status = led.leader.wait().await?;
        led.signal(Signal::KILL);
        led.id = None;
        Ok(status)
    }

    /// Asks the group to end, and ends it.
    pub(crate) async fn end(mut self) {
        if let Some(led) = self.0.take() {
            led.end().await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let (Some(led), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        if led.id.is_some() {
            runtime.spawn(led.end());
        }
    }
}

impl Led {
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // It fails if there is nobody left in the group, which is what it is for.
            let _ = kill_process_group(id, signal);
        }
    }

    async fn end(mut self) {
        self.signal(Signal::TERM);
        let _ = timeout(GRACE, self.leader.wait()).await;
        self.signal(Signal::KILL);
        let _ = self.leader.wait().await;
        self.id = None;
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Why there is nothing of an [`exchange`].
pub(crate) enum Unheard {
    /// The child was not started.
    Unstarted(io::Error),
    /// It cannot be watched any more.
    Lost(io::Error),
    /// It wrote more than it may.
    TooLarge,
}

/// Runs a child that reads `input`, writes something and ends; gives what it wrote, and how it ended.
///
/// Nothing that it starts outlives this, whether it is waited for or dropped.
pub(crate) async fn exchange(
    command: &mut Command,
    input: &[u8],
    answer_bytes_max: usize,
    line: impl FnMut(String),
) -> Result<(Vec<u8>, ExitStatus), Unheard> {
    let (mut group, streams) = Group::spawn(command).map_err(Unheard::Unstarted)?;
    let mut answer = Vec::new();
    let ended = {
        let mut stdin = streams.stdin;
        let feed = async move {
            // A command need not read what it does not want to know.
            let _ = stdin.write_all(input).await;
            Ok(())
        };
        let mut stdout = streams.stdout.take(answer_bytes_max as u64 + 1);
        let read = async {
            let _ = stdout.read_to_end(&mut answer).await;
            if answer.len() > answer_bytes_max { Err(Unheard::TooLarge) } else { Ok(()) }
        };
        let listen = async {
            lines(streams.stderr, line).await;
            Ok(())
        };
        let talk = async { tokio::try_join!(feed, read, listen).map(|_| ()) };
        tokio::pin!(talk);
        tokio::select! {
            done = &mut talk => {
                done?;
                group.wait().await
            }
            ended = group.wait() => {
                // What it wrote is in the pipes; whoever left the group may hold them open for ever.
                if let Ok(done) = timeout(PIPES_GRACE, talk).await {
                    done?;
                }
                ended
            }
        }
    };
    Ok((answer, ended.map_err(Unheard::Lost)?))
}

/// Gives each line of a child's stderr to `line`, cut and without control characters, until the child closes it.
pub(crate) async fn lines(mut from: impl AsyncRead + Unpin, mut line: impl FnMut(String)) {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 4_096]);
    let mut tell = |kept: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(kept);
        if !text.trim().is_empty() {
            line(text.trim().replace(char::is_control, " "));
        }
        kept.clear();
    };
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        for byte in &buffer[..count] {
            match byte {
                b'\n' => tell(&mut kept),
                _ if kept.len() < LINE_BYTES_MAX => kept.push(*byte),
                _ => {}
            }
        }
    }
    tell(&mut kept);
}
