//! `host/TROUBLESHOOTING.md` knows every error, and no error that is none.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use leasehold_core::error::ErrorCode;
use leasehold_tests::program::run;

use crate::code;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace")
}

fn guide() -> String {
    fs::read_to_string(root().join("host/TROUBLESHOOTING.md")).expect("the guide is there")
}

/// The cells of each row of the guide's tables.
fn rows(guide: &str) -> Vec<Vec<&str>> {
    let rows = guide.lines().filter(|line| line.starts_with("| ")).map(|line| line.trim_matches('|'));
    rows.map(|row| row.split(" | ").map(str::trim).collect()).collect()
}

/// ARCP §12.
#[test]
fn every_code_stands_in_the_guide_with_its_retryable() {
    let guide = guide();
    let rows = rows(&guide);
    for code in ErrorCode::ALL {
        let name = format!("`{code}`");
        let row = rows.iter().find(|row| row[0] == name && row.len() == 4);
        let row = row.unwrap_or_else(|| panic!("{code} has no row with its causes and the way out"));
        assert_eq!(row[1], if code.retryable() { "yes" } else { "no" }, "{code}");
    }
}

#[tokio::test]
async fn every_exit_code_stands_in_the_guide() {
    let help = run(["--help"]).await.exits(code::SUCCESS).stdout;
    let (_, codes) = help.split_once("Exit codes:").expect("the help lists them");
    let codes = codes.split_once("\n\n").expect("they are a paragraph").0;
    let numbers: BTreeSet<&str> = codes
        .split([' ', '\n', ';'])
        .filter(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    assert!(numbers.len() >= 7, "{numbers:?}");
    let guide = guide();
    let rows = rows(&guide);
    for number in numbers {
        assert!(rows.iter().any(|row| row[0] == format!("`{number}`")), "exit code {number} has no row");
    }
}

/// A message in the guide that nobody says any more would be looked for in vain.
#[test]
fn every_message_in_the_guide_is_one_of_the_program() {
    let said = sources();
    let guide = guide();
    let mut checked = 0;
    for row in rows(&guide).iter().filter(|row| row[0].starts_with('`') && row.len() == 3) {
        let message = row[0].trim_start_matches('`').replace("\\`", "\u{0}");
        let message = message.split('`').next().expect("a split has a first part").replace('\u{0}', "`");
        // What another program says, and the numbers.
        if ["Disk full", "server.data …"].contains(&message.as_str())
            || message.bytes().all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        for part in message.split('…').map(|part| part.trim_matches([' ', ':', ';', ',', '(', ')', '.'])) {
            let part = part.strip_suffix("Connection refused").unwrap_or(part);
            assert!(part.len() < 3 || said.contains(part), "nobody says `{part}` of `{message}`");
            checked += usize::from(part.len() >= 3);
        }
    }
    assert!(checked > 60, "{checked} messages");
}

/// The sources of the host, with texts that go over several lines in one.
fn sources() -> String {
    let mut dirs: Vec<PathBuf> = ["host/server/src", "host/core/src"].map(|dir| root().join(dir)).to_vec();
    let mut said = String::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                said += &fs::read_to_string(path).expect("a source is text");
            }
        }
    }
    let mut lines = said.split("\\\n");
    let mut whole = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        whole += line.trim_start();
    }
    whole.replace("\\\"", "\"")
}
