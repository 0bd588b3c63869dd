//! Paths that try to lead elsewhere (ARCP §9.2, `fs.read` and `fs.write`).
//!
//! Beside the mounted folders lies one that is not mounted, with a canary in
//! it. Whatever the agent tries, no frame and no journal record may hold it.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use leasehold_tests::{MountMode, Run, TestHost};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{House, assert_without, everything_in, told};

const CANARY: &str = "canary-7d41c0a9-must-never-be-seen";

/// Two mounted folders, and one beside them that is not.
struct Zoo {
    house: House,
    dir: TempDir,
}

impl Zoo {
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| dir.path().join(name);
        for folder in ["inside", "inside/sub", "readonly", "outside", "outside/sub"] {
            fs::create_dir(path(folder)).expect("a fresh folder takes folders");
        }
        for (file, text) in [
            ("inside/a.txt", "inside"),
            ("inside/sub/b.txt", "inside"),
            ("inside/secret.env", CANARY), // mounted, and outside the lease
            ("readonly/a.txt", "inside"),
            ("outside/canary.txt", CANARY),
            ("outside/sub/b.txt", CANARY),
        ] {
            fs::write(path(file), text).expect("a fresh folder takes files");
        }
        for (target, link) in [
            (path("outside/canary.txt"), "inside/link.txt"),
            (path("outside"), "inside/out"),
            (PathBuf::from("../outside/canary.txt"), "inside/relative.txt"),
            (PathBuf::from("../../outside"), "inside/sub/out"),
            (PathBuf::from("a.txt"), "inside/harmless.txt"), // links are refused, wherever they lead
            (PathBuf::from("/dev/zero"), "inside/zero"),
            (PathBuf::from("loop"), "inside/loop"),
            (path("outside/new.txt"), "inside/dangling.txt"),
        ] {
            symlink(target, path(link)).expect("a fresh folder takes links");
        }
        mknodat(CWD, path("inside/pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a fresh folder takes pipes");

        let everything = json!({"fs.read": ["/**"], "fs.write": ["/**"]});
        let builder = TestHost::builder()
            .mount_dir("/w", &path("inside"), MountMode::Rw)
            .mount_dir("/ro", &path("readonly"), MountMode::Ro)
            .policy("alice", everything);
        Self { house: House::start(builder).await, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn deed(&mut self, lease: &Value, deed: Value) -> Run {
        // What the agent itself says is repeated to whoever watches it.
        let folder = self.dir.path().display().to_string();
        let named_by_agent = deed.to_string().contains(&folder);
        let run = self.house.leased(lease.clone(), deed).await;
        let said = serde_json::to_string(&[&run.events[..], &[run.accepted.clone(), run.terminal.clone()]].concat());
        let said = said.expect("frames are JSON");
        assert_without(&said, CANARY, "a frame");
        if !named_by_agent {
            assert_without(&said, &folder, "a frame");
        }
        run
    }

    /// The host never wrote the canary down, and nothing outside was changed.
    async fn close(self) {
        let journals = everything_in(&**self.house.host.host().store()).await;
        assert!(journals.contains("fs.read"), "the journals were read");
        assert_without(&journals, CANARY, "a journal");
        let outside = |name: &str| fs::read_to_string(self.path(&format!("outside/{name}"))).ok();
        assert_eq!(outside("canary.txt").as_deref(), Some(CANARY));
        assert_eq!(outside("sub/b.txt").as_deref(), Some(CANARY));
        assert_eq!(names(&self.path("outside")), ["canary.txt", "sub"]);
        assert_eq!(names(&self.path("readonly")), ["a.txt"]);
        assert!(fs::metadata(self.path("inside/pipe")).is_ok_and(|it| it.file_type().is_fifo()), "it is a pipe still");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the folder is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Under a lease for a part of one mount, and under one for everything there is.
#[tokio::test]
async fn a_path_leads_to_what_the_lease_was_asked_about_or_nowhere() {
    let mut zoo = Zoo::open().await;
    let narrow = json!({"fs.read": ["/w/*.txt", "/w/sub/**", "/w/pipe", "/ro/**"]});
    let all = json!({"fs.read": ["/**"]});
    let long_name = format!("/w/{}", "n".repeat(256));
    let long_path = format!("/w{}", "/sub".repeat(2000));
    let deep_path = format!("/w{}", "/d".repeat(200));
    let outside = zoo.path("outside/canary.txt").display().to_string();
    let (denied, invalid, missing) = ("permission-denied", "invalid-request", "not-found");
    for (path, narrowly, widely) in [
        // path, under the narrow lease, under the wide one
        ("/w/a.txt", "ok", "ok"),
        ("//w///a.txt", "ok", "ok"),
        ("/./w/./sub/../a.txt", invalid, invalid),
        ("/w/sub/./b.txt", "ok", "ok"),
        ("/w/a.txt/", "ok", "ok"), // a trailing slash collapses too
        ("/w/a.txt/x", denied, "not-a-directory"),
        ("/w/secret.env", denied, ""),
        ("/w/../outside/canary.txt", invalid, invalid),
        ("/w/sub/../../outside/canary.txt", invalid, invalid),
        ("/w/..", invalid, invalid),
        ("/..", invalid, invalid),
        ("..", invalid, invalid),
        ("a.txt", invalid, invalid),
        ("w/a.txt", invalid, invalid),
        ("./w/a.txt", invalid, invalid),
        ("~/a.txt", invalid, invalid),
        ("", invalid, invalid),
        ("/w/a.txt\0.png", invalid, invalid),
        ("/w/\0", invalid, invalid),
        ("/w/a.txt\n", invalid, invalid),
        ("/w/%2e%2e/outside/canary.txt", denied, missing),
        ("/w/..\\outside\\canary.txt", missing, missing), // one odd name
        ("\\w\\a.txt", invalid, invalid),
        ("file:///w/a.txt", invalid, invalid),
        (&long_name, invalid, invalid),
        (&long_path, invalid, invalid),
        (&deep_path, invalid, invalid),
        ("/W/a.txt", denied, missing),
        ("/w/A.txt", missing, missing),
        ("/w/A.TXT", denied, missing),
        ("/w/a.txt ", denied, missing),
        ("/w/a\u{301}.txt", missing, missing),
        ("/etc/passwd", denied, missing),
        ("/proc/self/environ", denied, missing),
        (&outside, denied, missing),
        ("/w/link.txt", denied, denied),
        ("/w/relative.txt", denied, denied),
        ("/w/harmless.txt", denied, denied),
        ("/w/dangling.txt", denied, denied),
        ("/w/out/canary.txt", denied, denied),
        ("/w/sub/out/canary.txt", denied, denied),
        ("/w/zero", denied, denied),
        ("/w/loop", denied, denied),
        ("/w/pipe", "not-a-file", "not-a-file"),
        ("/w/sub", "not-a-file", "not-a-file"), // `/w/sub/**` covers its own root
        ("/ro/a.txt", "ok", "ok"),
    ] {
        for (lease, expected) in [(&narrow, narrowly), (&all, widely)] {
            // What a lease grants may be read; that row is only about the narrow one.
            if expected.is_empty() {
                continue;
            }
            for deed in ["read", "read_range"] {
                let mut input = json!({"do": deed, "path": path});
                if deed == "read_range" {
                    (input["offset"], input["length"]) = (0.into(), 4096.into());
                }
                let run = zoo.deed(lease, input).await;
                let outcome = run.result().unwrap_or_else(|_| panic!("{deed} {path:?}: {run:?}"));
                assert_eq!(told(&outcome), expected, "{deed} {path:?} under {lease}: {outcome}");
                if expected == "ok" {
                    assert_eq!(outcome["ok"]["text"], "inside");
                }
            }
        }
    }
    zoo.close().await;
}

/// Nothing outside is described or listed, and a link is shown as what it is: nothing that opens.
#[tokio::test]
async fn a_listing_and_a_description_stay_inside() {
    let mut zoo = Zoo::open().await;
    let all = json!({"fs.read": ["/**"]});
    for (deed, path, expected) in [
        ("list", "/w/out", "permission-denied"),
        ("list", "/w/sub/out", "permission-denied"),
        ("list", "/w/a.txt", "not-a-directory"),
        ("list", "/w/pipe", "not-a-directory"),
        ("list", "/etc", "not-found"),
        ("stat", "/w/out/canary.txt", "permission-denied"),
        ("stat", "/w/out/missing", "permission-denied"), // no oracle for what is outside
        ("stat", "/etc/passwd", "not-found"),
    ] {
        let run = zoo.deed(&all, json!({"do": deed, "path": path})).await;
        assert_eq!(run.result().as_ref().map(told), Ok(expected), "{deed} {path}: {run:?}");
    }
    let run = zoo.deed(&all, json!({"do": "list", "path": "/"})).await;
    let outcome = run.result().expect("it may list");
    let root: Vec<_> = outcome["ok"].as_array().into_iter().flatten().map(|entry| entry["name"].clone()).collect();
    assert_eq!(root, ["ro", "w"], "mounts and nothing else");
    let run = zoo.deed(&all, json!({"do": "list", "path": "/w"})).await;
    let outcome = run.result().expect("it may list");
    for entry in outcome["ok"].as_array().expect("entries") {
        let name = entry["name"].as_str().expect("a name");
        let kind = match name {
            "a.txt" | "secret.env" => "file",
            "sub" => "directory",
            _ => "other",
        };
        assert_eq!(entry["kind"], kind, "{name}");
    }
    for link in ["link.txt", "out", "zero", "dangling.txt", "pipe"] {
        let run = zoo.deed(&all, json!({"do": "stat", "path": format!("/w/{link}")})).await;
        let outcome = run.result().unwrap_or_else(|_| panic!("{link}: {run:?}"));
        let opaque = outcome["ok"]["kind"] == "other" && outcome["ok"]["size"] == 0;
        assert!(opaque || told(&outcome) == "permission-denied", "{link}: {outcome}");
    }
    // The text of a.txt is read so that the journals hold a read at all.
    zoo.deed(&all, json!({"do": "read", "path": "/w/a.txt"})).await;
    zoo.close().await;
}

#[tokio::test]
async fn nothing_is_written_where_the_lease_and_the_mount_do_not_both_allow_it() {
    let mut zoo = Zoo::open().await;
    let sub = json!({"fs.read": ["/**"], "fs.write": ["/w/sub/**", "/ro/**"]});
    let all = json!({"fs.read": ["/**"], "fs.write": ["/**"]});
    let (denied, invalid, missing) = ("permission-denied", "invalid-request", "not-found");
    let draft = "/w/.leasehold-0000000000000000.tmp";
    for (path, narrowly, widely) in [
        ("/ro/a.txt", denied, denied),
        ("/ro/new.txt", denied, denied),
        ("/w/new/x.txt", denied, missing), // no folder on the way is made
        ("/w/../outside/new.txt", invalid, invalid),
        ("/w/link.txt", denied, denied),
        ("/w/dangling.txt", denied, denied),
        ("/w/out/new.txt", denied, denied),
        ("/w/sub/out/new.txt", denied, denied),
        ("/w/pipe", denied, "not-a-file"),
        ("/w/sub", "not-a-file", "not-a-file"), // `/w/sub/**` covers its own root
        ("/w", denied, "not-a-file"),
        ("/", denied, "not-a-file"),
        ("/new.txt", denied, ""),
        ("/etc/passwd", denied, ""),
        ("/w/x\0", invalid, invalid),
        (draft, denied, ""), // the names the host writes under until a file is whole
    ] {
        for (lease, expected) in [(&sub, narrowly), (&all, widely)] {
            for deed in ["write", "append"] {
                let run = zoo.deed(lease, json!({"do": deed, "path": path, "text": "escaped"})).await;
                let outcome = run.result().unwrap_or_else(|_| panic!("{deed} {path:?}: {run:?}"));
                assert_ne!(told(&outcome), "ok", "{deed} {path:?} under {lease}");
                assert!(expected.is_empty() || told(&outcome) == expected, "{deed} {path:?} under {lease}: {outcome}");
            }
        }
    }
    for (path, expected) in [
        ("/w/out", denied), // the link itself
        ("/w/out/canary.txt", denied),
        ("/w/sub/out/sub", denied),
        ("/w", denied), // a mount stays
        ("/", denied),
        ("/ro/a.txt", denied),
        ("/w/sub", "not-empty"),
        (draft, ""),
    ] {
        let run = zoo.deed(&all, json!({"do": "remove", "path": path})).await;
        let outcome = run.result().unwrap_or_else(|_| panic!("remove {path}: {run:?}"));
        let code = told(&outcome);
        // Removing a link removes the link; then it is gone and nothing behind it is.
        assert!(code != "ok" || path == "/w/out", "remove {path}: {outcome}");
        assert!(expected.is_empty() || code == expected || code == "ok", "remove {path}: {outcome}");
    }
    for path in ["/w/out/new", "/ro/new", "/w/../new", "/new", "/w/sub/out/new"] {
        let run = zoo.deed(&all, json!({"do": "create_dir", "path": path})).await;
        assert_ne!(run.result().as_ref().map(told), Ok("ok"), "create_dir {path}");
    }
    // And what is allowed is done, once, under its own name.
    let run = zoo.deed(&sub, json!({"do": "write", "path": "/w/sub/new.txt", "text": "inside"})).await;
    assert_eq!(run.result().as_ref().map(told), Ok("ok"), "{run:?}");
    assert_eq!(names(&zoo.path("inside/sub")), ["b.txt", "new.txt", "out"]);
    zoo.deed(&all, json!({"do": "read", "path": "/w/sub/new.txt"})).await;
    zoo.close().await;
}

/// Exchanges two names for each other, over and over, until it is dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Exchange {
    fn of(a: PathBuf, b: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (go_on, swaps) = (Arc::clone(&stop), Arc::<AtomicU64>::default());
        let count = Arc::clone(&swaps);
        let thread = thread::spawn(move || {
            while !go_on.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("two names can be exchanged");
                count.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            }
        });
        Self { stop, swaps, thread: Some(thread) }
    }

    fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What went wrong there was printed there.
            let _ = thread.join();
        }
    }
}

/// A file and a folder on the way change places with links to the canary while the agent reads and writes: ten thousand
/// times each, or as often as `LEASEHOLD_TEST_SWAPS` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_swapped_in_between_two_steps_leads_nowhere() {
    const READS: usize = 100;
    const ROUNDS_MIN: u32 = 2;
    const ROUNDS_MAX: u32 = 50;
    let swaps_min = std::env::var("LEASEHOLD_TEST_SWAPS");
    let swaps_min: u64 = swaps_min.map_or(10_000, |swaps| swaps.parse().expect("a number of swaps"));
    let mut zoo = Zoo::open().await;
    let all = json!({"fs.read": ["/**"], "fs.write": ["/**"]});
    // `spot` is a file or a link to the canary; `way` is a folder or a link to the folder outside.
    fs::write(zoo.path("inside/spot"), "inside").expect("the folder takes files");
    symlink(zoo.path("outside/canary.txt"), zoo.path("inside/spot-link")).expect("the folder takes links");
    fs::create_dir_all(zoo.path("inside/way/sub")).expect("the folder takes folders");
    fs::write(zoo.path("inside/way/sub/b.txt"), "inside").expect("the folder takes files");
    symlink(zoo.path("outside"), zoo.path("inside/way-link")).expect("the folder takes links");

    for (name, deeds) in [
        ("spot", [json!({"do": "read", "path": "/w/spot"}), json!({"do": "append", "path": "/w/spot", "text": ""})]),
        (
            "way",
            [
                json!({"do": "read", "path": "/w/way/sub/b.txt"}),
                json!({"do": "write", "path": "/w/way/sub/b.txt", "text": "inside"}),
            ],
        ),
    ] {
        let exchange = Exchange::of(zoo.path(&format!("inside/{name}")), zoo.path(&format!("inside/{name}-link")));
        let (mut done, mut refused) = (0, 0);
        // As often as it takes for the agent to meet both.
        for round in 0.. {
            let steps: Vec<Value> = deeds.iter().cycle().take(READS).cloned().collect();
            let run = zoo.deed(&all, json!({"do": "steps", "steps": steps})).await;
            let outcomes = run.result().unwrap_or_else(|_| panic!("{name}: {run:?}"));
            for outcome in outcomes.as_array().expect("one outcome a step") {
                match told(outcome) {
                    "ok" => done += 1,
                    "permission-denied" => refused += 1,
                    // Between two looks at it, it became something else.
                    "not-a-file" | "not-a-directory" | "not-found" | "internal-error" => {}
                    other => panic!("{name}: {other}: {outcome}"),
                }
            }
            let enough = exchange.swaps() >= swaps_min && round >= ROUNDS_MIN;
            if (done > 0 && refused > 0 && enough) || (round >= ROUNDS_MAX && exchange.swaps() >= swaps_min) {
                break;
            }
        }
        println!("{name}: {} swaps, {done} done, {refused} refused", exchange.swaps());
        drop(exchange);
        assert!(done > 0 && refused > 0, "{name}: {done} done, {refused} refused");
    }
    zoo.close().await;
}
