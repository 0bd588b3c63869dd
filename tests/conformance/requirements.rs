//! The draft's requirements, each with what proves it: `requirements.toml` holds them, and this holds it to its word.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use leasehold::conformance;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirements {
    /// MUST-level and SHOULD-level words of each section of the draft.
    counts: BTreeMap<String, [usize; 2]>,
    requirement: Vec<Requirement>,
    elsewhere: Elsewhere,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    section: String,
    ordinal: usize,
    keyword: String,
    says: String,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    cases: Vec<u16>,
    not_ours: Option<String>,
    pending: Option<String>,
}

impl Requirement {
    fn place(&self) -> String {
        format!("§{} {} ({})", self.section, self.ordinal, self.keyword)
    }

    fn is_must(&self) -> bool {
        self.keyword.starts_with("MUST")
    }
}

/// Tests that no row names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    described: Vec<String>,
    chosen: Vec<String>,
}

/// The words of the draft of June 2026, those that define the words included.
const MUSTS: usize = 69;
const SHOULDS: usize = 27;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

fn requirements() -> Requirements {
    let text = fs::read_to_string(folder().join("requirements.toml")).expect("the file is there");
    toml::from_str(&text).unwrap_or_else(|error| panic!("requirements.toml: {error}"))
}

/// The test functions of a source: what `fn` names after a `#[test]` or `#[tokio::test]`.
fn tests_in(source: &str) -> Vec<String> {
    let (mut found, mut is_test) = (Vec::new(), false);
    for line in source.lines().map(str::trim) {
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        if let Some(name) = name.filter(|_| is_test) {
            found.push(name.to_owned());
            is_test = false;
        }
    }
    found
}

/// Every test of a section: those of the files that are named after one.
fn tests() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).expect("the folder is there").map(|entry| entry.expect("it can be read"));
    let of_sections = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".rs")
            && name.strip_prefix('s').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    of_sections.flat_map(|entry| tests_in(&fs::read_to_string(entry.path()).expect("it can be read"))).collect()
}

#[test]
fn the_reader_of_tests_reads_what_people_write() {
    let source = "#[test]\nfn a() {}\nfn no() {}\n#[tokio::test(start_paused = true)]\n#[ignore]\nasync fn b(x: u8) {}";
    assert_eq!(tests_in(source), ["a", "b"]);
}

#[test]
fn a_row_says_what_proves_it_or_why_nothing_does() {
    let (known, cases) = (tests(), conformance::cases());
    let mut places = BTreeSet::new();
    for row in &requirements().requirement {
        let place = row.place();
        assert!(places.insert((row.section.clone(), row.ordinal)), "{place} stands twice");
        assert!(["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"].contains(&row.keyword.as_str()), "{place}");
        assert!(!row.says.is_empty(), "{place} says nothing");
        let is_proved = !row.tests.is_empty() || !row.cases.is_empty();
        let ways = [is_proved, row.not_ours.is_some(), row.pending.is_some()].into_iter().filter(|way| *way).count();
        assert_eq!(ways, 1, "{place}: tests and cases, or not_ours, or pending");
        for test in &row.tests {
            assert!(known.contains(test), "{place}: there is no test `{test}`");
        }
        for case in &row.cases {
            assert!(cases.iter().any(|known| known.id == *case), "{place}: there is no case {case}");
        }
    }
}

#[test]
fn every_test_is_named_by_a_row_or_stands_elsewhere() {
    let Requirements { requirement, elsewhere, .. } = requirements();
    let by_rows: BTreeSet<&String> = requirement.iter().flat_map(|row| &row.tests).collect();
    let mut by_lists = BTreeSet::new();
    for test in elsewhere.described.iter().chain(&elsewhere.chosen) {
        assert!(by_lists.insert(test), "`{test}` stands elsewhere twice");
        assert!(!by_rows.contains(test), "`{test}` is named by a row and stands elsewhere");
    }
    let known = tests();
    for test in &known {
        assert!(by_rows.contains(test) || by_lists.contains(test), "requirements.toml does not name `{test}`");
    }
    for test in by_lists {
        assert!(known.contains(test), "elsewhere: there is no test `{test}`");
    }
}

#[test]
fn the_rows_are_as_many_as_the_words_of_the_draft() {
    let Requirements { counts, requirement, .. } = requirements();
    let mut found: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for row in &requirement {
        let of_section = found.entry(row.section.clone()).or_default();
        of_section[usize::from(!row.is_must())] += 1;
        assert_eq!(row.ordinal, of_section.iter().sum::<usize>(), "{} is not in its place", row.place());
    }
    assert_eq!(found, counts);
    let sum = |at: usize| counts.values().map(|count| count[at]).sum::<usize>();
    assert_eq!((sum(0), sum(1)), (MUSTS, SHOULDS));
}
