//! The host as a process, and what the system says of it.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The one who connects.
pub const TOKEN: &str = "bench-token";

/// A process that is ended when this is dropped.
pub struct Program {
    child: Child,
    /// Where it listens.
    pub url: String,
    /// From its start to its ready line.
    pub ready: Duration,
}

impl Program {
    /// Starts `leasehold serve` on a free port of loopback.
    pub fn leasehold(agents: &Path, data: &Path) -> Self {
        let mut command = Command::new(leasehold());
        command.args(["serve", "--listen", "127.0.0.1:0", "--token"]).arg(format!("bench={TOKEN}"));
        command.arg("--agents").arg(agents).arg("--data").arg(data);
        // The defaults, but that one principal may park as many agents as are measured, and ask for whatever there is.
        let config = data.with_extension("toml");
        let text = "[limits]\nprincipal_jobs_max = 5000\n[policy.bench.lease]\n\"fs.read\" = [\"/**\"]\n\
                    \"fs.write\" = [\"/**\"]\n\"net.fetch\" = [\"**\"]\n\"tool.call\" = [\"**\"]\n\"model.use\" = [\"**\"]\n\
                    \"agent.delegate\" = [\"*\"]\n\"cost.budget\" = [\"USD:1000000\"]\n";
        fs::write(&config, text).expect("the folder of the data can be written to");
        command.arg("--config").arg(config);
        // What an operator leaves on would cost, and a log on a terminal is not what is measured.
        command.env("RUST_LOG", env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()));
        Self::start(command)
    }

    /// Starts any program that prints a line with a `ws://` URL once it serves.
    pub fn start(mut command: Command) -> Self {
        let begun = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let url = loop {
            let line = lines.next().expect("it says that it is ready").expect("it speaks UTF-8");
            if let Some(at) = line.find("ws://") {
                break line[at..].split_whitespace().next().expect("a URL").to_owned();
            }
        };
        Self { child, url, ready: begun.elapsed() }
    }

    /// The time this process has had of the cores, in ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // The name may hold anything; what follows it are numbers, the 12th and 13th of them user and system time.
        let numbers = text.rsplit_once(')').expect("a name").1.split_whitespace();
        numbers.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// What belongs to this process alone, in bytes.
    pub fn private_bytes(&self) -> u64 {
        private_bytes_of(self.child.id())
    }

    /// The most memory this process ever had in use, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        leasehold_tests::program::peak_bytes(self.child.id())
    }
}

/// The program under measurement.
pub fn leasehold() -> PathBuf {
    env!("CARGO_BIN_EXE_leasehold-under-test").into()
}

/// What belongs to a process alone, in bytes.
pub fn private_bytes_of(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("it runs");
    let kib = |key: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    (kib("Private_Dirty:") + kib("Private_Clean:")) * 1024
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
