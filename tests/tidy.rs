//! Rules of the house that no compiler keeps: who imports whom, what a comment cites, where a number is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Core, from the bottom up: a module imports those before it.
const CORE: [&str; 8] = ["error", "secret", "time", "id", "lease", "protocol", "job", "session"];

/// The server, from the bottom up.
const SERVER: [&str; 32] = [
    "child",
    "clock",
    "rate",
    "secrets",
    "store",
    "transport",
    "client",
    "conformance",
    "seal",
    "writer",
    "journal",
    "audit",
    "tape",
    "checkpoint",
    "sandbox",
    "capability",
    "gateway",
    "credentials",
    "agents",
    "policy",
    "config",
    "runner",
    "jobs",
    "replay",
    "suggest",
    "retention",
    "sessions",
    "connection",
    "host",
    "project",
    "scaffold",
    "cli",
];

/// Imports against the order, each with its reason.
const BACK: [(&str, &str, &str); 1] = [(
    "sandbox",
    "capability",
    "the engine's linker offers the capabilities, and what a run keeps is the context of its job",
)];

/// The sections of the ARCP 1.1 draft.
const SECTIONS: &[&str] = &[
    "1", "1.1", "1.2", "1.3", "2", "2.1", "2.2", "3", "4", "5", "6", "6.1", "6.2", "6.3", "6.4", "6.5", "6.6", "6.7",
    "7", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "7.7", "8", "8.1", "8.2", "8.2.1", "8.3", "8.4", "9", "9.1", "9.2",
    "9.3", "9.4", "9.5", "9.6", "9.7", "9.8", "9.8.1", "9.8.2", "9.8.3", "10", "11", "12", "13", "13.1", "13.2",
    "13.3", "13.4", "13.5", "13.6", "13.7", "13.8", "14", "15", "16", "16.1", "16.2",
];

/// What core may depend on: nothing that reads a clock, draws a random number, or waits.
const CORE_DEPENDS_ON: [&str; 8] =
    ["jiff", "rust_decimal", "serde", "serde_json", "serde_path_to_error", "thiserror", "ulid", "url"];

/// The longest file, its tests not counted.
const LINES_MAX: usize = 1000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace")
}

/// A file of ours.
struct Source {
    /// From the root of the workspace.
    path: String,
    text: String,
}

impl Source {
    /// The file without its tests.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
    }

    /// The code without comments, line by line.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.code().lines().map(|line| line.split("//").next().unwrap_or_default())
    }

    fn is_under(&self, dir: &str) -> bool {
        self.path.starts_with(dir)
    }
}

/// Every file with one of these endings that is ours.
fn sources(endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = ["host", "guest-sdk", "examples", "tests", "wit"].map(|dir| root().join(dir)).to_vec();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().expect("a directory tells what its entries are");
            if kind.is_dir()
                && !matches!(name.as_str(), "target" | "node_modules" | "__pycache__")
                && !name.starts_with('.')
            {
                dirs.push(path);
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The modules that a crate's `lib.rs` declares.
fn modules(crate_dir: &str) -> BTreeSet<String> {
    let lib = fs::read_to_string(root().join(crate_dir).join("src/lib.rs")).expect("a crate has a lib.rs");
    let name =
        |line: &str| Some(line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    lib.lines().filter_map(name).collect()
}

/// The modules of its own crate that a text names after `crate::`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|before: char| before == '$' || before == '_' || before.is_alphanumeric()) {
            continue;
        }
        let after = &text[at + "crate::".len()..];
        match after.strip_prefix('{') {
            None => found.extend(word(after)),
            Some(group) => found.extend(top_level(group).into_iter().filter_map(word)),
        }
    }
    found
}

/// The items of a group up to its closing brace, without what is nested in them.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut items) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[begin..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn word(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn the_import_reader_reads_what_people_write() {
    for (text, expected) in [
        ("use crate::a::B;", &["a"][..]),
        ("use crate::{a, b::{c, d::E}, f::G as H};", &["a", "b", "f"]),
        ("use crate::{\n    a::B,\n    c::{\n        D,\n    },\n};", &["a", "c"]),
        ("let x = crate::a::f(crate::b::C);", &["a", "b"]),
        ("$crate::a::B; my_crate::b::C", &[]),
    ] {
        assert_eq!(imports(text).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn modules_import_those_below_them() {
    let sources = sources(&[".rs"]);
    let mut broken = Vec::new();
    let mut used = BTreeSet::new();
    for (dir, order) in [("host/core", &CORE[..]), ("host/server", &SERVER[..])] {
        let rank: BTreeMap<&str, usize> = order.iter().enumerate().map(|(rank, name)| (*name, rank)).collect();
        let declared = modules(dir);
        for module in &declared {
            assert!(rank.contains_key(module.as_str()), "{dir}: say in the table where `{module}` stands");
        }
        assert_eq!(declared.len(), order.len(), "{dir}: the table names a module that is gone");
        let src = format!("{dir}/src/");
        for source in sources.iter().filter(|source| source.is_under(&src)) {
            let inside = &source.path[src.len()..];
            let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
            let Some(own) = rank.get(module) else { continue };
            if inside.ends_with("/tests.rs") {
                continue;
            }
            let code: String = source.lines().flat_map(|line| [line, "\n"]).collect();
            // What is no module is a macro, which stands at the root.
            for import in imports(&code).iter().filter(|import| declared.contains(*import)) {
                let allowed = BACK.iter().any(|(from, to, _)| *from == module && to == import);
                if allowed {
                    used.insert((module.to_owned(), import.clone()));
                } else if rank[import.as_str()] > *own {
                    broken.push(format!("{}: `{module}` stands below `{import}`", source.path));
                }
            }
        }
    }
    assert!(broken.is_empty(), "imports against the order in this file:\n{}", broken.join("\n"));
    for (from, to, _) in BACK {
        assert!(
            used.contains(&(from.to_owned(), to.to_owned())),
            "`{from}` no longer imports `{to}`: delete the exception"
        );
    }
}

#[test]
fn core_depends_on_nothing_that_has_a_clock() {
    let manifest = fs::read_to_string(root().join("host/core/Cargo.toml")).expect("core has a manifest");
    let dependencies = manifest.split("[dependencies]").nth(1).expect("core depends on something");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let names = dependencies.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for name in names.filter_map(|line| line.split(['.', ' ', '=']).next()) {
        assert!(CORE_DEPENDS_ON.contains(&name), "host/core/Cargo.toml: `{name}`; core decides and does nothing");
    }
}

/// The sections a text cites, but not those of an RFC.
fn citations(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('§').filter_map(|(at, sign)| {
        let before = text[..at].trim_end();
        let number = before.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_of_rfc = number.len() < before.len() && number.trim_end().ends_with("RFC");
        let after = &text[at + sign.len()..];
        let end = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
        let cited = after[..end].trim_end_matches('.');
        (!is_of_rfc && !cited.is_empty()).then_some(cited)
    })
}

#[test]
fn every_section_that_is_cited_exists() {
    assert_eq!(citations("ARCP §9.5: x, §6.2. RFC 6455 §8.1 and §7.").collect::<Vec<_>>(), ["9.5", "6.2", "7"]);
    let mut broken = Vec::new();
    for source in
        sources(&[".rs", ".wit", ".md", ".toml", ".py"]).iter().filter(|source| source.path != "tests/tidy.rs")
    {
        for (n, line) in source.text.lines().enumerate() {
            let unknown = citations(line).filter(|cited| !SECTIONS.contains(cited));
            broken.extend(unknown.map(|cited| format!("{}:{}: §{cited}", source.path, n + 1)));
        }
    }
    assert!(broken.is_empty(), "the ARCP draft has no such section:\n{}", broken.join("\n"));
}

#[test]
fn no_file_is_longer_than_one_can_read() {
    let too_long: Vec<String> = sources(&[".rs"])
        .iter()
        .filter(|source| !source.is_under("tests/") && !source.path.ends_with("/tests.rs"))
        .map(|source| (source.code().lines().count(), &source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines before its tests"))
        .collect();
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}

/// Each row is something that happens in one place, by a text that cannot be missing where it happens.
#[test]
fn what_is_done_in_one_place_is_done_nowhere_else() {
    let sources = sources(&[".rs"]);
    for (text, places, why) in [
        ("last_seq += 1", &["host/core/src/session/outbox.rs"][..], "`event_seq` is made by the outbox (ARCP §8.3)"),
        ("Place { event_seq", &["host/core/src/session/outbox.rs"], "`event_seq` is made by the outbox (ARCP §8.3)"),
        ("Envelope {", &["host/core/src/protocol/server.rs"], "a frame is stamped by the encoder"),
        ("Permit {", &["host/core/src/lease/gate.rs"], "a permit is made by the gate (ARCP §9.3)"),
        (
            "unsafe {",
            &["host/server/src/agents/cache.rs", "host/server/src/agents/worker.rs"],
            "compiled code is mapped by the cache, and what a compiler has inherited is closed by its number",
        ),
        (
            ".to_socket_addrs(",
            &["host/server/src/capability/web/network.rs"],
            "a name is resolved once, and what it resolves to is looked at",
        ),
    ] {
        let hosts = sources.iter().filter(|source| source.is_under("host/") && source.path.contains("/src/"));
        for source in hosts.filter(|source| !places.contains(&source.path.as_str())) {
            let found = source.lines().position(|line| {
                let before = line.split(text).next().filter(|_| line.contains(text));
                // `-> Permit {` and `struct Permit {` name a type and make nothing.
                before.is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
            });
            if let Some(line) = found {
                panic!("{}:{}: `{text}`; {why}", source.path, line + 1);
            }
        }
        for place in places {
            let source =
                sources.iter().find(|source| source.path == *place).unwrap_or_else(|| panic!("{place} is gone"));
            assert!(source.lines().any(|line| line.contains(text)), "{place} no longer does `{text}`");
        }
    }
}

/// Those of one kind that exist in every language share a transcript.
#[test]
fn every_example_explains_itself_and_has_a_transcript() {
    let examples = root().join("examples");
    for entry in fs::read_dir(&examples).expect("there are examples").flatten().filter(|entry| entry.path().is_dir()) {
        let (dir, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        assert!(dir.join("README.md").is_file(), "{} has no README.md", dir.display());
        let shared = ["hello", "survey"].into_iter().find(|kind| name.starts_with(&format!("{kind}-")));
        let transcript = match shared {
            Some(kind) => examples.join(format!("{kind}.jsonl")),
            None => dir.join("session.jsonl"),
        };
        assert!(transcript.is_file(), "there is no {}", transcript.display());
    }
}
