//! The programs a build calls: where they are looked for, and how they are called.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use super::{BuildError, Options, Progress, io_error};

/// So much of a tool's output an error keeps: the end, where compilers put what matters.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// A program as it is called in a project.
#[derive(Clone, Debug)]
pub struct Tool {
    /// What it is called in messages.
    pub name: &'static str,
    program: PathBuf,
    /// What comes before every other argument, such as `-m ziglang`.
    first: Vec<OsString>,
}

impl Tool {
    /// A program that is called by a name of its own.
    pub fn new(name: &'static str, program: impl Into<PathBuf>) -> Self {
        Self { name, program: program.into(), first: Vec::new() }
    }

    /// The same program under another name.
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The same program, with more arguments that come before every other.
    pub fn with(mut self, first: &[&str]) -> Self {
        self.first.extend(first.iter().map(OsString::from));
        self
    }

    /// Every program of a name: the project's own tools first, then where everybody's are.
    pub fn all(name: &'static str, dir: &Path, options: &Options) -> impl Iterator<Item = Self> + use<> {
        Self::own(name, dir).chain(within(options.tools.search.clone(), name))
    }

    /// The programs of a name among a project's own tools.
    pub fn own(name: &'static str, dir: &Path) -> impl Iterator<Item = Self> + use<> {
        within([".venv/bin", "node_modules/.bin"].map(|folder| dir.join(folder)), name)
    }

    /// A call of it in `dir`, without what an outer build left in the environment.
    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first).current_dir(dir).stdin(Stdio::null());
        let within_cargo = env::var_os("CARGO").is_some();
        for (key, _) in env::vars_os() {
            // A toolchain that the outer cargo was started with is not the project's, if the project names its own.
            let of_outer_toolchain = key == "RUSTUP_TOOLCHAIN" && within_cargo && names_toolchain(dir);
            if of_outer_toolchain || key.to_str().is_some_and(is_of_outer_build) {
                command.env_remove(key);
            }
        }
        command
    }

    /// What it prints when it is called so, if it succeeds.
    pub fn ask<S: AsRef<OsStr>>(&self, dir: &Path, args: impl IntoIterator<Item = S>) -> Option<String> {
        let output = self.command(dir).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a call of it for the agent `name`, and gives its lines on.
    pub fn run(
        &self,
        mut command: Command,
        name: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), BuildError> {
        let mut output = Output::default();
        let status = run(&mut command, &mut |line| {
            let (Line::Out(line) | Line::Err(line)) = line;
            progress(Progress::Line(&line));
            output.push(&line);
        });
        self.succeeded(status, name, output.end())
    }

    /// Runs a call of it for the agent `name`, and gives on what `words` finds in its lines.
    pub fn run_quietly(
        &self,
        mut command: Command,
        name: &str,
        words: &dyn Fn(&str) -> String,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), BuildError> {
        let mut output = Output::default();
        let status = run(&mut command, &mut |line| {
            let (Line::Out(line) | Line::Err(line)) = line;
            output.push(&line);
        });
        let said = words(&output.end());
        said.lines().for_each(|line| progress(Progress::Line(line)));
        self.succeeded(status, name, said)
    }

    fn succeeded(&self, status: io::Result<ExitStatus>, name: &str, output: String) -> Result<(), BuildError> {
        let status = status.map_err(|source| self.not_started(source))?;
        match status.success() {
            true => Ok(()),
            false => Err(BuildError::Compile { tool: self.name, names: vec![name.to_owned()], status, output }),
        }
    }

    /// Says that it is of a version that does not do; `said` is what it prints of its version.
    pub fn unfit(&self, said: &str, wanted: &'static str, advice: &str) -> BuildError {
        let found = match said.trim() {
            "" => "unknown".to_owned(),
            said => said.lines().next().unwrap_or_default().to_owned(),
        };
        BuildError::ToolVersion { tool: self.name, found, wanted, advice: advice.to_owned() }
    }

    /// Says why it could not be started.
    pub fn not_started(&self, source: io::Error) -> BuildError {
        io_error("run", &self.program, source)
    }
}

/// The folders where everybody's programs are: those of the environment that is active, then the search path.
pub fn search_path() -> Vec<PathBuf> {
    let active = env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    // A relative folder would be another one for each project.
    active.into_iter().chain(env::split_paths(&path)).filter(|folder| folder.is_absolute()).collect()
}

/// The programs of a name in some folders.
fn within<I: IntoIterator<Item = PathBuf>>(folders: I, name: &'static str) -> impl Iterator<Item = Tool> + use<I> {
    let paths = folders.into_iter().map(move |folder| folder.join(name));
    paths.filter(|path| is_program(path)).map(move |path| Tool::new(name, path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The first number with a dot in a text, as tools print their version: `go version go1.27.3 linux/amd64`.
pub fn version_in(text: &str) -> Option<Vec<u64>> {
    let mut words = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
    let word = words.find(|word| word.contains('.'))?;
    word.split('.').map(|part| part.parse().ok()).collect()
}

/// Whether a variable speaks of a build that is going on, and not of how its user wants to build.
///
/// The host is started by `cargo run`, and by build scripts and tests, all of
/// which would have an agent compiled for the wrong target, with the host's
/// flags, or under clippy.
fn is_of_outer_build(key: &str) -> bool {
    const NAMES: &[&str] = &[
        "CARGO",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_CRATE_NAME",
        "CARGO_ENCODED_RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    const PREFIXES: &[&str] = &["CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "DEP_"];
    NAMES.contains(&key)
        || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || (key.starts_with("CARGO_TARGET_") && key.ends_with("_RUSTFLAGS"))
}

/// Whether rustup would find a toolchain file for `dir`.
fn names_toolchain(dir: &Path) -> bool {
    dir.ancestors().any(|dir| dir.join("rust-toolchain.toml").is_file() || dir.join("rust-toolchain").is_file())
}

/// A line of a tool's output.
pub enum Line {
    Out(String),
    Err(String),
}

/// Runs a tool and hands over its lines as they come.
pub fn run(command: &mut Command, each: &mut dyn FnMut(Line)) -> io::Result<ExitStatus> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (sender, lines) = mpsc::channel();
    // Both pipes are read at once: a tool that fills the one nobody reads would stop for ever.
    let readers = [
        child.stdout.take().map(|pipe| read_lines(pipe, sender.clone(), Line::Out)),
        child.stderr.take().map(|pipe| read_lines(pipe, sender, Line::Err)),
    ];
    lines.iter().for_each(each);
    for reader in readers.into_iter().flatten() {
        // A reader does not panic, and what it could not read is lost either way.
        let _ = reader.join();
    }
    child.wait()
}

fn read_lines(
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<Line>,
    line: fn(String) -> Line,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        // A compiler quotes sources, which may not be UTF-8.
        while pipe.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&bytes);
            if lines.send(line(text.trim_end_matches(['\r', '\n']).to_owned())).is_err() {
                return;
            }
            bytes.clear();
        }
    })
}

/// What a tool has said, of which only the end is kept.
#[derive(Default)]
pub struct Output(String);

impl Output {
    pub fn push(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
        if self.0.len() > 2 * OUTPUT_BYTES_MAX {
            self.0 = tail(self.0.as_bytes());
        }
    }

    pub fn end(&self) -> String {
        tail(self.0.as_bytes())
    }
}

/// The end of a tool's output, from the beginning of a line.
pub fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    let Some(over) = text.len().checked_sub(OUTPUT_BYTES_MAX + 1) else { return text.to_owned() };
    let start = text.as_bytes()[over..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| over + at + 1);
    format!("…\n{}", text.get(start..).unwrap_or_default())
}

/// Output of a tool within an error: on lines of its own, or not at all.
pub struct Block<'a>(pub &'a str);

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "\n{}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_tools_print() {
        let table: [(&str, Option<&[u64]>); 6] = [
            ("componentize-py 0.25.1\n", Some(&[0, 25, 1])),
            ("v20.20.2\n", Some(&[20, 20, 2])),
            ("go1.27.3", Some(&[1, 27, 3])),
            ("go1.28rc1", Some(&[1, 28])),
            ("python 3", None),
            ("", None),
        ];
        for (said, expected) in table {
            assert_eq!(version_in(said).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn what_speaks_of_an_outer_build_is_told_from_what_its_user_wants() {
        let table = [
            ("CARGO_PKG_NAME", true),
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_BIN_EXE_leasehold", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", true),
            ("RUSTC_WORKSPACE_WRAPPER", true), // `cargo clippy`
            ("CARGO_MAKEFLAGS", true),         // its job server is gone
            ("TARGET", true),
            ("CARGO_HOME", false), // how the user wants to build
            ("CARGO_TARGET_DIR", false),
            ("CARGO_NET_OFFLINE", false),
            ("CARGO_REGISTRIES_CRATES_IO_PROTOCOL", false),
            ("CARGO_PROFILE_RELEASE_LTO", false),
            ("CARGO_TARGET_WASM32_WASIP2_LINKER", false),
            ("RUSTC_WRAPPER", false),
            ("PATH", false),
        ];
        for (key, expected) in table {
            assert_eq!(is_of_outer_build(key), expected, "{key}");
        }
    }

    #[test]
    fn a_tool_that_never_stops_talking_costs_only_so_much() {
        let talk = "0123456789\n".repeat(OUTPUT_BYTES_MAX);
        let kept = tail(talk.as_bytes());
        assert!(kept.len() <= OUTPUT_BYTES_MAX + "…\n".len());
        assert!(kept.starts_with("…\n0123456789\n"), "{}", &kept[..20]);
        assert_eq!(tail(b"short\n"), "short");
        assert_eq!(tail(&vec![b'x'; OUTPUT_BYTES_MAX * 2]), "…\n");
    }
}
