//! A file that can grow no further, at every length it might have: the system's own limit on a file's size, in a process
//! of its own.
//!
//! The limit lets a write go as far as it may and fails the next, or kills the process: a commit torn in the middle,
//! as a full disk or a loss of power tears it.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use leasehold::store::{
    Position, Store as _, StoreError, StreamId,
    sqlite::{Sqlite, SqliteOptions},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const FILE: &str = "LEASEHOLD_TEST_FULL_FILE";
const LENGTH: &str = "LEASEHOLD_TEST_FULL_LENGTH";

/// Every so many bytes of the log the limit is tried; no divisor of a page or of a frame of the log.
const STEP: u64 = 4999;

/// How many appends the process makes, of which the limit stops some.
const APPENDS: u64 = 12;

/// The longest log that so many appends make, and a little more.
const LENGTH_MAX: u64 = 400_000;

fn stream(number: u64) -> StreamId {
    StreamId::new(&format!("job/{}", number % 3)).unwrap()
}

fn record(number: u64) -> Bytes {
    Bytes::from(format!("{number} ").repeat(300))
}

fn limit(length: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: length, maximum }).unwrap();
}

/// The process in which a file may be no longer than it was told.
///
/// It appends, one record after the other, and says what was acknowledged and what failed. When it could not go on, it
/// is given room and tries again.
async fn append_within(file: &Path, length: u64) {
    let store = Sqlite::open(file, SqliteOptions::default()).unwrap();
    limit(Some(length));
    let mut said = std::io::stdout();
    for attempt in ["tight", "roomy"] {
        for number in 0..APPENDS {
            let stream = stream(number);
            let Err(StoreError::Conflict { last }) = store.append(&stream, Position::new(u64::MAX), vec![]).await
            else {
                // Even a question may fail while there is no room.
                writeln!(said, "says: failed {number} {attempt} a question").unwrap();
                continue;
            };
            if last.get() > number / 3 {
                continue; // the first attempt has done it
            }
            match store.append(&stream, last, vec![record(number)]).await {
                Ok(_) => writeln!(said, "says: acknowledged {number} {attempt}").unwrap(),
                Err(StoreError::Io(error)) if error.contains(&file.display().to_string()) => {
                    writeln!(said, "says: failed {number} {attempt} {error}").unwrap();
                }
                Err(other) => writeln!(said, "says: wrong {number} {attempt} {other}").unwrap(),
            }
        }
        limit(None);
    }
    store.close().await;
    writeln!(said, "says: closed").unwrap();
}

/// Starts this very test in a process in which the signal of the limit is ignored or kills.
fn child(test: &str, file: &Path, length: u64, signal: &str) -> Child {
    Command::new("sh")
        .args(["-c", signal, "sh"])
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(FILE, file)
        .env(LENGTH, length.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// In the child: does what it is for and returns whether this was the child.
async fn was_the_child() -> bool {
    let (Ok(file), Ok(length)) = (env::var(FILE), env::var(LENGTH)) else { return false };
    append_within(Path::new(&file), length.parse().unwrap()).await;
    true
}

/// Opens what the child left: every record that was acknowledged is there, each append is there as a whole or not at
/// all, and all works again. Gives how many there are.
async fn check(file: &Path, acknowledged: &[u64], case: &str) -> u64 {
    let store = Sqlite::open(file, SqliteOptions::default()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let mut kept = 0;
    for first in 0..3 {
        let stream = stream(first);
        let read = store.read(&stream, Position::ZERO, 100).await.unwrap();
        for (nth, stored) in (0..).zip(&read) {
            assert_eq!(stored.bytes, record(first + 3 * nth), "{case}");
        }
        kept += read.len() as u64;
        let lost = acknowledged.iter().find(|number| **number % 3 == first && **number / 3 >= read.len() as u64);
        assert_eq!(lost, None, "{case}: acknowledged and lost");
        let last = Position::new(read.len() as u64);
        assert!(store.append(&stream, last, vec!["on".into()]).await.is_ok(), "{case}");
    }
    store.close().await;
    kept
}

struct Told {
    acknowledged: Vec<u64>,
    failed: usize,
    closed: bool,
}

/// Reads what the child says until it is gone.
fn listen(child: &mut Child, case: &str) -> Told {
    let mut told = Told { acknowledged: vec![], failed: 0, closed: false };
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The harness says something, too, and the first line of ours follows on its last.
        let Some((_, said)) = line.split_once("says: ") else { continue };
        match said.split(' ').collect::<Vec<_>>()[..] {
            ["acknowledged", number, _] => told.acknowledged.push(number.parse().unwrap()),
            ["failed", _, "tight", ..] => told.failed += 1,
            ["closed"] => told.closed = true,
            _ => panic!("{case}: {line}"),
        }
    }
    told
}

#[tokio::test]
async fn a_write_that_fails_anywhere_in_a_commit_fails_that_append_and_nothing_else() {
    if was_the_child().await {
        return;
    }
    let test = "full::a_write_that_fails_anywhere_in_a_commit_fails_that_append_and_nothing_else";
    let (mut failed, mut unhindered) = (0, 0);
    for length in (0..LENGTH_MAX).step_by(usize::try_from(STEP).unwrap()) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        let case = format!("{length} bytes");
        let mut child = child(test, &file, length, "trap '' XFSZ; exec \"$@\"");
        let told = listen(&mut child, &case);
        assert!(child.wait().unwrap().success() && told.closed, "{case}");
        assert_eq!(told.acknowledged.len() as u64, APPENDS, "{case}: each is acknowledged once, at last");
        assert_eq!(check(&file, &told.acknowledged, &case).await, APPENDS, "{case}");
        failed += usize::from(told.failed > 0);
        unhindered += usize::from(told.failed == 0);
    }
    assert!(failed > 20 && unhindered > 0, "the limit hindered {failed} times and {unhindered} times not");
}

#[tokio::test]
async fn a_process_that_dies_anywhere_in_a_commit_leaves_what_it_acknowledged() {
    if was_the_child().await {
        return;
    }
    let test = "full::a_process_that_dies_anywhere_in_a_commit_leaves_what_it_acknowledged";
    let mut died = 0;
    for length in (0..LENGTH_MAX).step_by(usize::try_from(STEP).unwrap()) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        let case = format!("{length} bytes");
        let mut child = child(test, &file, length, "exec \"$@\"");
        let told = listen(&mut child, &case);
        let lived = child.wait().unwrap().success();
        died += usize::from(!lived);
        let kept = check(&file, &told.acknowledged, &case).await;
        // The one that was under way may be there, though nobody was told.
        let acknowledged = told.acknowledged.len() as u64;
        assert!((acknowledged..=acknowledged + 1).contains(&kept), "{case}: {kept} of {acknowledged}");
        assert!(!lived || kept == APPENDS, "{case}");
    }
    assert!(died > 20, "{died} died");
}
