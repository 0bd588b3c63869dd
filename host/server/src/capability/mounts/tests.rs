//! The effects by themselves, on real folders.

use std::{
    collections::BTreeMap,
    fs::{self as host, File},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use leasehold_core::{
    error::ErrorCode,
    id::{JobId, Ulid},
    lease::{
        Authority, Lease,
        gate::Gate,
        operation::{AppendFile, CreateDirectory, Operation, Remove, WriteFile},
    },
};
use tempfile::TempDir;

use super::{
    place::{Draft, NEW_FILE, OFFSET_MAX, instant},
    *,
};

const MAX: usize = 1 << 20;

/// A folder that is mounted and a folder that is not.
pub(super) struct House {
    pub(super) inside: TempDir,
    outside: TempDir,
}

impl House {
    pub(super) fn new() -> Self {
        let house = Self { inside: TempDir::new().unwrap(), outside: TempDir::new().unwrap() };
        host::write(house.outside.path().join("canary"), "canary").unwrap();
        host::write(house.inside.path().join("file"), "inside").unwrap();
        host::create_dir(house.inside.path().join("dir")).unwrap();
        house
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.inside.path().join(name)
    }

    pub(super) fn mounts(&self) -> Mounts {
        mounts(&[("/w", self.inside.path(), true)])
    }

    /// Everything outside is as it was.
    pub(super) fn assert_nothing_escaped(&self) {
        let names: Vec<_> =
            host::read_dir(self.outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"]);
        assert_eq!(host::read(self.outside.path().join("canary")).unwrap(), b"canary");
    }
}

fn mount(at: &str, dir: &Path, writable: bool) -> Mount {
    Mount { at: FilePath::parse(at).unwrap(), dir: dir.to_owned(), writable }
}

pub(super) fn mounts(table: &[(&str, &Path, bool)]) -> Mounts {
    Mounts::open(table.iter().map(|(at, dir, writable)| mount(at, dir, *writable)).collect()).unwrap()
}

pub(super) fn permit<Op: Operation>(op: Op) -> Permit<Op> {
    let everything = ["fs.read", "fs.write"].map(|namespace| (namespace.to_owned(), vec!["/**".to_owned()]));
    let lease = Lease::parse(&BTreeMap::from(everything)).unwrap();
    Gate::new(Authority { lease, expires_at: None }).permit(Timestamp::from_millis(0), op).unwrap()
}

/// A call of one job.
pub(super) fn call(number: u64) -> Call {
    Call { job_id: JobId::new(Ulid::from_parts(0, 1)), number }
}

pub(super) fn read(mounts: &Mounts, path: &str) -> Result<Vec<u8>, FileError> {
    mounts.read(permit(ReadFile::parse(path).unwrap()), MAX)
}

fn read_range(mounts: &Mounts, path: &str, offset: u64, length: u64) -> Result<Vec<u8>, FileError> {
    mounts.read_range(permit(ReadRange::parse(path, offset, length).unwrap()), MAX)
}

fn list(mounts: &Mounts, path: &str) -> Result<Vec<Entry>, FileError> {
    mounts.list(permit(ListDirectory::parse(path).unwrap()), 100)
}

fn names(mounts: &Mounts, path: &str) -> Result<Vec<String>, FileError> {
    Ok(list(mounts, path)?.into_iter().map(|entry| entry.name).collect())
}

pub(super) fn stat(mounts: &Mounts, path: &str) -> Result<(Kind, u64), FileError> {
    mounts.stat(permit(Stat::parse(path).unwrap())).map(|found| (found.kind, found.size))
}

pub(super) fn write(mounts: &Mounts, path: &str, contents: &[u8]) -> Result<(), FileError> {
    mounts.write(permit(WriteFile::parse(path).unwrap()), call(1), contents)
}

pub(super) fn append(mounts: &Mounts, path: &str, contents: &[u8]) -> Result<(), FileError> {
    mounts.append(permit(AppendFile::parse(path).unwrap()), contents)
}

pub(super) fn create_dir(mounts: &Mounts, path: &str) -> Result<(), FileError> {
    mounts.create_dir(permit(CreateDirectory::parse(path).unwrap()))
}

pub(super) fn remove(mounts: &Mounts, path: &str) -> Result<(), FileError> {
    mounts.remove(permit(Remove::parse(path).unwrap()))
}

/// The name of the variant, which is all that a table compares.
pub(super) fn outcome<T>(result: Result<T, FileError>) -> String {
    match result {
        Ok(_) => "Ok".to_owned(),
        Err(error) => format!("{error:?}").split(' ').next().unwrap().to_owned(),
    }
}

/// Every effect on one path, in the order of the table beneath. Who looks before a change hears the same.
fn all_outcomes(mounts: &Mounts, path: &str) -> [String; 8] {
    [
        outcome(read(mounts, path)),
        outcome(read_range(mounts, path, 0, 1)),
        outcome(list(mounts, path)),
        outcome(stat(mounts, path)),
        foreseen(mounts, WriteFile::parse(path).unwrap(), || write(mounts, path, b"x")),
        foreseen(mounts, AppendFile::parse(path).unwrap(), || append(mounts, path, b"x")),
        foreseen(mounts, CreateDirectory::parse(path).unwrap(), || create_dir(mounts, path)),
        foreseen(mounts, Remove::parse(path).unwrap(), || remove(mounts, path)),
    ]
}

fn foreseen<Op: Changes>(mounts: &Mounts, op: Op, effect: impl FnOnce() -> Result<(), FileError>) -> String {
    let looked = mounts.look(&permit(op)).map(drop);
    let done = effect();
    assert_eq!(looked, done);
    outcome(done)
}

#[test]
fn a_path_is_taken_as_it_is_written_and_leads_through_no_link() {
    let house = House::new();
    let outside = house.outside.path();
    symlink(outside.join("canary"), house.path("out_file")).unwrap();
    symlink(outside.join("new"), house.path("out_new")).unwrap();
    symlink(outside, house.path("out_dir")).unwrap();
    symlink("file", house.path("in_file")).unwrap();
    symlink("dir", house.path("in_dir")).unwrap();
    symlink("loop", house.path("loop")).unwrap();
    symlink("/proc/self/root", house.path("magic")).unwrap();
    symlink("..", house.path("dir/up")).unwrap();
    let _socket = UnixListener::bind(house.path("socket")).unwrap();
    let mounts = house.mounts();

    let long = format!("/w/{}", "n".repeat(255));
    let link = [
        "SymbolicLink",
        "SymbolicLink",
        "SymbolicLink",
        "Ok",
        "SymbolicLink",
        "SymbolicLink",
        "AlreadyExists",
        "SymbolicLink",
    ];
    let through = ["SymbolicLink"; 8];
    let through_file = ["NotADirectory"; 8];
    let directory = ["NotAFile", "NotAFile", "Ok", "Ok", "NotAFile", "NotAFile", "AlreadyExists", "NotEmpty"];
    let other = ["NotAFile", "NotAFile", "NotADirectory", "Ok", "NotAFile", "NotAFile", "AlreadyExists", "NotAFile"];
    let orphan = ["NotFound"; 8];
    let unmounted = ["Unmounted"; 8];
    #[rustfmt::skip]
    let table = [
        // path                 read, read_range, list, stat, write, append, create_dir, remove
        ("/w/out_file",         link),
        ("/w/out_new",          link),     // what does not exist yet is not created either
        ("/w/out_dir",          link),
        ("/w/in_file",          link),     // where it leads makes no difference
        ("/w/in_dir",           link),
        ("/w/loop",             link),
        ("/w/magic",            link),
        ("/w/dir/up",           link),
        ("/w/out_dir/canary",   through),
        ("/w/out_dir/new",      through),
        ("/w/in_dir/a/b",       through),
        ("/w/dir/up/file",      through),
        ("/w/magic/etc/passwd", through),
        ("/w/file/a",           through_file),
        ("/w/socket",           other),
        ("/w/dir",              directory),
        ("/w/dir/",             directory),
        ("/w/missing/a",        orphan),
        ("/w/FILE/a",           orphan),   // names are case-sensitive
        ("/w/.leasehold-1.tmp", orphan),   // what write needs for itself
        ("/w/.Leasehold-1.TMP", orphan),
        ("/w/.leasehold-1.tmp/a", orphan),
        ("/x",                  unmounted),
        ("/wx/file",            unmounted),
        ("/file",               unmounted),
    ];
    for (path, expected) in table {
        assert_eq!(all_outcomes(&mounts, path), expected, "{path}");
    }
    assert_eq!(all_outcomes(&mounts, &long)[..4], ["NotFound"; 4]);
    assert_eq!(write(&mounts, &long, b"x"), Ok(()));
    assert_eq!(read(&mounts, &long), Ok(b"x".to_vec()));
    assert_eq!(stat(&mounts, "/w/out_file"), Ok((Kind::Other, 0)));
    assert_eq!(read(&mounts, "/w/File"), Err(FileError::NotFound { path: "/w/File".into() }));
    assert_eq!(host::read(house.path("file")).unwrap(), b"inside");
    house.assert_nothing_escaped();
}

#[test]
fn a_message_names_the_link_and_never_the_host_s_folder() {
    let house = House::new();
    symlink(house.outside.path(), house.path("dir/link")).unwrap();
    let mounts = house.mounts();
    let folder = house.inside.path().to_str().unwrap();
    for (result, expected) in [
        (read(&mounts, "/w/dir/link/canary"), "`/w/dir/link` is a symbolic link, and links are not followed"),
        (read(&mounts, "/w/file/a"), "`/w/file` is not a directory"),
        (read(&mounts, "/w/no/a"), "nothing is named `/w/no`"),
        (read(&mounts, "/x"), "no mount covers `/x`"),
        (
            mounts.read(permit(ReadFile::parse("/w/file").unwrap()), 5),
            "`/w/file` is larger than the read limit of 5 bytes: read it in parts",
        ),
    ] {
        let message = result.unwrap_err().to_string();
        assert_eq!(message, expected);
        assert!(!message.contains(folder), "{message}");
    }
}

/// The link is there for half of the time, and the switch comes at any step of an effect.
#[test]
fn a_directory_swapped_for_a_link_in_between_lets_nothing_in_or_out() {
    let house = House::new();
    host::write(house.path("dir/canary"), "inside").unwrap();
    host::write(house.path("dir/marker"), "").unwrap();
    let mounts = house.mounts();
    race(
        20_000,
        || {
            host::rename(house.path("dir"), house.path("aside")).unwrap();
            symlink(house.outside.path(), house.path("dir")).unwrap();
            host::remove_file(house.path("dir")).unwrap();
            host::rename(house.path("aside"), house.path("dir")).unwrap();
        },
        &[
            &|| {
                for contents in [read(&mounts, "/w/dir/canary"), read_range(&mounts, "/w/dir/canary", 0, 100)] {
                    assert!(contents.as_deref().is_ok_and(|contents| contents == b"inside") || contents.is_err());
                }
                assert!(names(&mounts, "/w/dir").map_or(true, |names| names.contains(&"marker".to_owned())));
            },
            &|| {
                // Each may fail or land inside.
                let _ = append(&mounts, "/w/dir/appended", b"x");
                let _ = write(&mounts, "/w/dir/written", b"x");
                let _ = create_dir(&mounts, "/w/dir/created");
                let _ = remove(&mounts, "/w/dir/created");
            },
        ],
    );
    house.assert_nothing_escaped();
    assert_eq!(host::read(house.path("dir/canary")).unwrap(), b"inside");
}

#[test]
fn a_file_swapped_for_a_link_in_between_is_not_followed() {
    let house = House::new();
    host::write(house.path("regular"), "inside").unwrap();
    let mounts = house.mounts();
    race(
        20_000,
        || {
            symlink(house.outside.path().join("canary"), house.path("link")).unwrap();
            host::rename(house.path("link"), house.path("file")).unwrap();
            host::hard_link(house.path("regular"), house.path("next")).unwrap();
            host::rename(house.path("next"), house.path("file")).unwrap();
        },
        &[
            &|| {
                for contents in [read(&mounts, "/w/file"), read_range(&mounts, "/w/file", 0, 100)] {
                    assert!(contents.as_deref().is_ok_and(|contents| b"inside" == contents) || contents.is_err());
                }
                // Kind and size come from one look, so they cannot be of two files.
                assert!(stat(&mounts, "/w/file").is_ok_and(|it| [(Kind::Other, 0), (Kind::File, 6)].contains(&it)));
            },
            &|| {
                let _ = append(&mounts, "/w/file", b"");
                let _ = write(&mounts, "/w/file", b"inside");
            },
        ],
    );
    house.assert_nothing_escaped();
}

/// Runs `swap` so many times, and all of `others` again and again meanwhile.
fn race(rounds: usize, swap: impl Fn(), others: &[&(dyn Fn() + Sync)]) {
    let start = Barrier::new(others.len() + 1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for other in others {
            scope.spawn(|| {
                start.wait();
                while !done.load(Ordering::Relaxed) {
                    other();
                }
            });
        }
        start.wait();
        for _ in 0..rounds {
            swap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_blocks_nobody() {
    let house = House::new();
    fs::mknodat(fs::CWD, house.path("pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let mounts = house.mounts();
    let not_a_file = || FileError::NotAFile { path: "/w/pipe".into() };
    assert_eq!(read(&mounts, "/w/pipe"), Err(not_a_file()));
    assert_eq!(append(&mounts, "/w/pipe", b"x"), Err(not_a_file()));
    assert_eq!(write(&mounts, "/w/pipe", b"x"), Err(not_a_file()));
    assert_eq!(stat(&mounts, "/w/pipe"), Ok((Kind::Other, 0)));

    // The same when the name was a file until just before it is opened.
    let path = FilePath::parse("/w/pipe").unwrap();
    let place = mounts.place(&path, Purpose::Read, FileError::not_a_file).unwrap();
    for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::WRONLY | OFlags::CREATE] {
        assert_eq!(place.open_unasked(flags).unwrap_err(), not_a_file(), "{flags:?}");
    }
}

#[test]
fn a_device_is_neither_read_nor_written() {
    let mounts = mounts(&[("/dev", Path::new("/dev"), true)]);
    for path in ["/dev/null", "/dev/zero"] {
        assert_eq!(outcome(read(&mounts, path)), "NotAFile", "{path}");
        assert_eq!(outcome(read_range(&mounts, path, 0, 1)), "NotAFile", "{path}");
        assert_eq!(stat(&mounts, path), Ok((Kind::Other, 0)), "{path}");
    }
    assert_eq!(outcome(append(&mounts, "/dev/null", b"x")), "NotAFile");
    assert_eq!(outcome(write(&mounts, "/dev/null", b"x")), "NotAFile");
    assert_eq!(outcome(remove(&mounts, "/dev/null")), "NotAFile");
}

#[test]
fn a_read_is_bounded_by_the_limit_and_a_range_by_the_file() {
    let house = House::new();
    let mounts = house.mounts();
    host::write(house.path("file"), "0123456789").unwrap();
    for (max, expected) in [(0, "TooLarge"), (9, "TooLarge"), (10, "Ok"), (11, "Ok"), (usize::MAX, "Ok")] {
        let read = mounts.read(permit(ReadFile::parse("/w/file").unwrap()), max);
        assert_eq!(outcome(read), expected, "{max}");
    }
    for (offset, length, max, expected) in [
        (0, 4, MAX, "0123"),
        (8, 4, MAX, "89"),
        (9, 1, MAX, "9"),
        (10, 1, MAX, ""),
        (11, 1, MAX, ""),
        (0, 0, MAX, ""),
        (0, u64::MAX, MAX, "0123456789"),
        (0, u64::MAX, 3, "012"),
        (7, u64::MAX, usize::MAX, "789"),
        (u64::MAX, u64::MAX, MAX, ""),
        (OFFSET_MAX, 1, MAX, ""),
        (OFFSET_MAX - 1, u64::MAX, usize::MAX, ""),
    ] {
        let read = mounts.read_range(permit(ReadRange::parse("/w/file", offset, length).unwrap()), max);
        assert_eq!(read.unwrap(), expected.as_bytes(), "{length} bytes from {offset}, {max} allowed");
    }
    host::write(house.path("empty"), "").unwrap();
    assert_eq!(mounts.read(permit(ReadFile::parse("/w/empty").unwrap()), 0), Ok(vec![]));
}

#[test]
fn a_file_that_grows_or_shrinks_while_it_is_read_stays_bounded() {
    let house = House::new();
    let contents: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    host::write(house.path("file"), &contents).unwrap();
    let file = File::open(house.path("file")).unwrap();
    for (expected, limit, read) in [
        (0, 50_000, 50_000),
        (0, 200_000, 100_000),
        (100_000, 200_000, 100_000),
        (200_000, 300_000, 100_000),
        (u64::MAX, 200_000, 100_000),
    ] {
        assert_eq!(fill(&file, 0, limit, expected).unwrap(), contents[..read], "{expected} expected");
    }
}

#[test]
fn a_file_is_replaced_at_once_and_a_failed_write_leaves_nothing() {
    let house = House::new();
    let mounts = house.mounts();
    let versions = [[b'a'; 50_000].as_slice(), [b'b'; 70_000].as_slice()];
    write(&mounts, "/w/file", versions[0]).unwrap();
    race(
        100,
        || versions.iter().for_each(|version| write(&mounts, "/w/file", version).unwrap()),
        &[&|| {
            let contents = read(&mounts, "/w/file").unwrap();
            assert!(versions.contains(&contents.as_slice()), "{} bytes of a mixture", contents.len());
            assert!(names(&mounts, "/w").unwrap().iter().all(|name| ["dir", "file"].contains(&name.as_str())));
        }],
    );
    assert_eq!(outcome(write(&mounts, "/w/dir", b"x")), "NotAFile");

    // The last step fails: a directory came to stand where the file was.
    let path = FilePath::parse("/w/dir").unwrap();
    let place = mounts.place(&path, Purpose::Write, FileError::not_a_file).unwrap();
    let draft = Draft::create(&place, call(1), NEW_FILE).unwrap();
    assert_eq!(outcome(draft.publish()), "NotAFile");
    let left: Vec<_> = host::read_dir(house.inside.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_replaced_file_keeps_its_permissions_but_never_a_privilege() {
    let house = House::new();
    let mounts = house.mounts();
    for (old, new) in [(0o600, 0o600), (0o666, 0o666), (0o755, 0o755), (0o6755, 0o755)] {
        host::set_permissions(house.path("file"), host::Permissions::from_mode(old)).unwrap();
        write(&mounts, "/w/file", b"x").unwrap();
        let mode = host::metadata(house.path("file")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, new, "{old:o}");
    }
    write(&mounts, "/w/new", b"x").unwrap();
    append(&mounts, "/w/appended", b"x").unwrap();
    for name in ["new", "appended"] {
        let mode = host::metadata(house.path(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode & !0o644, 0, "{name} {mode:o}");
    }
}

#[test]
fn a_file_closed_to_the_host_is_neither_read_nor_replaced() {
    let house = House::new();
    host::set_permissions(house.path("file"), host::Permissions::from_mode(0o000)).unwrap();
    if File::open(house.path("file")).is_ok() {
        return; // the superuser is refused nothing
    }
    let mounts = house.mounts();
    assert_eq!(outcome(read(&mounts, "/w/file")), "Denied");
    host::create_dir(house.path("closed")).unwrap();
    host::write(house.path("closed/file"), "").unwrap();
    host::set_permissions(house.path("closed"), host::Permissions::from_mode(0o555)).unwrap();
    let denied = |path| all_outcomes(&mounts, path)[4..].iter().map(|it| it == "Denied").collect::<Vec<_>>();
    assert_eq!(denied("/w/file")[..2], [true, true]);
    assert_eq!(denied("/w/closed/file"), [true, false, false, true], "an addition needs no new name");
    assert_eq!(denied("/w/closed/new"), [true, true, true, false]);
    host::set_permissions(house.path("closed"), host::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_append_creates_a_file_and_then_adds_to_it() {
    let house = House::new();
    let mounts = house.mounts();
    for part in ["a", "", "bc"] {
        append(&mounts, "/w/log", part.as_bytes()).unwrap();
    }
    assert_eq!(read(&mounts, "/w/log"), Ok(b"abc".to_vec()));
    thread::scope(|scope| {
        for byte in [b"x", b"y"] {
            let mounts = &mounts;
            scope.spawn(move || (0..50).for_each(|_| append(mounts, "/w/both", byte).unwrap()));
        }
    });
    assert_eq!(stat(&mounts, "/w/both"), Ok((Kind::File, 100)));
}

#[test]
fn a_listing_is_sorted_and_bounded_and_holds_only_what_can_be_named() {
    let house = House::new();
    symlink("file", house.path("link")).unwrap();
    for name in ["a", "B", "é", ".hidden", ".leasehold-0123456789abcdef.tmp", ".leasehold-.tmp.old"] {
        host::write(house.path(name), "12").unwrap();
    }
    let hidden = if cfg!(target_os = "linux") { 2 } else { 1 };
    if cfg!(target_os = "linux") {
        host::write(house.path("dir/..").join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), "").unwrap();
    }
    let mounts = house.mounts();
    let entry = |name: &str, kind, size| Entry { name: name.to_owned(), kind, size };
    let expected = vec![
        entry(".hidden", Kind::File, 2),
        entry(".leasehold-.tmp.old", Kind::File, 2),
        entry("B", Kind::File, 2),
        entry("a", Kind::File, 2),
        entry("dir", Kind::Directory, 0),
        entry("file", Kind::File, 6),
        entry("link", Kind::Other, 0),
        entry("é", Kind::File, 2),
    ];
    let all = expected.len() + hidden;
    for (max, expected) in [
        (0, None),
        (expected.len() - 1, None),
        (all - 1, None), // what is left out costs the same
        (all, Some(expected)),
    ] {
        let listed = mounts.list(permit(ListDirectory::parse("/w").unwrap()), max);
        let expected = expected.ok_or(FileError::TooManyEntries { path: "/w".into(), limit: max });
        assert_eq!(listed, expected, "at most {max}");
    }
}

#[test]
fn a_directory_that_looks_empty_can_be_removed() {
    let house = House::new();
    let mounts = house.mounts();
    create_dir(&mounts, "/w/dir/sub").unwrap();
    assert_eq!(outcome(create_dir(&mounts, "/w/dir/sub")), "AlreadyExists");
    write(&mounts, "/w/dir/sub/file", b"x").unwrap();
    host::write(house.path("dir/sub/.leasehold-0123456789abcdef.tmp"), "left by a crash").unwrap();
    assert_eq!(remove(&mounts, "/w/dir/sub"), Err(FileError::NotEmpty { path: "/w/dir/sub".into() }));
    assert!(house.path("dir/sub/.leasehold-0123456789abcdef.tmp").exists());
    remove(&mounts, "/w/dir/sub/file").unwrap();
    remove(&mounts, "/w/dir/sub").unwrap();
    assert_eq!(outcome(remove(&mounts, "/w/dir/sub")), "NotFound");
    host::create_dir(house.path("dir/.leasehold-a-folder-of-somebody.tmp")).unwrap();
    assert_eq!(outcome(remove(&mounts, "/w/dir")), "NotEmpty");
}

#[test]
fn nothing_changes_beneath_a_read_only_mount() {
    let house = House::new();
    let mounts = mounts(&[("/w/ro", house.inside.path(), false)]);
    for path in ["/w/ro", "/w/ro/file", "/w/ro/new", "/w/ro/dir", "/w/ro/missing/new"] {
        let expected = ["ReadOnly"; 4];
        assert_eq!(all_outcomes(&mounts, path)[4..], expected, "{path}");
    }
    let error = write(&mounts, "/w/ro/file", b"x").unwrap_err();
    assert_eq!(error.to_string(), "the mount /w/ro is read-only");
    assert_eq!(ErrorCode::from(&error), ErrorCode::PermissionDenied);
    assert_eq!(read(&mounts, "/w/ro/file"), Ok(b"inside".to_vec()));
}

#[test]
fn the_longest_path_decides_and_what_leads_to_a_mount_is_a_directory() {
    let (outer, inner) = (House::new(), House::new());
    host::write(outer.path("lib"), "hidden by the inner mount").unwrap();
    host::write(inner.path("file"), "inner").unwrap();
    let mounts = mounts(&[
        ("/w", outer.inside.path(), true),
        ("/w/lib/inner", inner.inside.path(), false),
        ("/far/away", inner.inside.path(), true),
    ]);
    let held = ["NotAFile", "NotAFile", "Ok", "Ok", "NotAFile", "NotAFile", "AlreadyExists", "Mounted"];
    for path in ["/", "/far", "/far/away", "/w", "/w/lib"] {
        assert_eq!(all_outcomes(&mounts, path), held, "{path}");
        assert_eq!(stat(&mounts, path), Ok((Kind::Directory, 0)), "{path}");
    }
    for (path, expected) in [
        ("/", vec!["far", "w"]),
        ("/far", vec!["away"]),
        ("/far/away", vec!["dir", "file"]),
        ("/w", vec!["dir", "file", "lib"]),
        ("/w/lib", vec!["inner"]),
        ("/w/lib/inner", vec!["dir", "file"]),
    ] {
        assert_eq!(names(&mounts, path).unwrap(), expected, "{path}");
    }
    assert_eq!(list(&mounts, "/w").unwrap()[2].kind, Kind::Directory);
    assert_eq!(read(&mounts, "/w/file"), Ok(b"inside".to_vec()));
    assert_eq!(read(&mounts, "/w/lib/inner/file"), Ok(b"inner".to_vec()));
    assert_eq!(outcome(write(&mounts, "/w/lib/inner/file", b"x")), "ReadOnly");
    let in_order: Vec<_> = mounts.iter().map(|mount| (mount.at.to_string(), mount.writable)).collect();
    assert_eq!(in_order, [("/far/away".into(), true), ("/w".into(), true), ("/w/lib/inner".into(), false)]);
}

#[test]
fn without_mounts_there_is_an_empty_root() {
    let mounts = mounts(&[]);
    assert_eq!(list(&mounts, "/"), Ok(vec![]));
    assert_eq!(stat(&mounts, "/"), Ok((Kind::Directory, 0)));
    assert_eq!(outcome(stat(&mounts, "/a")), "Unmounted");
}

#[test]
fn a_mount_on_the_root_is_a_mount_like_any_other() {
    let house = House::new();
    let mounts = mounts(&[("/", house.inside.path(), true)]);
    assert_eq!(names(&mounts, "/").unwrap(), ["dir", "file"]);
    assert_eq!(read(&mounts, "/file"), Ok(b"inside".to_vec()));
    assert_eq!(read(&mounts, "/no/a"), Err(FileError::NotFound { path: "/no".into() }));
    assert_eq!(outcome(remove(&mounts, "/")), "Mounted");
}

#[test]
fn an_operator_learns_at_the_start_which_mount_cannot_be() {
    let house = House::new();
    let inside = house.inside.path();
    let missing = house.path("missing");
    for (table, expected) in [
        (vec![mount("/w", &missing, true)], format!("cannot open `{}` for the mount /w", missing.display())),
        (
            vec![mount("/w", &house.path("file"), true)],
            format!("cannot open `{}` for the mount /w", house.path("file").display()),
        ),
        (
            vec![mount("/w", inside, true), mount("/x", inside, true), mount("/w/", inside, false)],
            "there are two mounts /w".to_owned(),
        ),
        (
            vec![mount("/w/.leasehold-a.tmp", inside, true)],
            "the mount /w/.leasehold-a.tmp has a name in it that begins with `.leasehold-` and ends with `.tmp`"
                .to_owned(),
        ),
    ] {
        assert_eq!(Mounts::open(table).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_folder_is_opened_once_and_stays_the_one_that_was_opened() {
    let house = House::new();
    let folder = house.path("dir");
    host::write(folder.join("file"), "first").unwrap();
    let mounts = mounts(&[("/w", &folder, true)]);
    host::rename(&folder, house.path("aside")).unwrap();
    symlink(house.outside.path(), &folder).unwrap();
    assert_eq!(read(&mounts, "/w/file"), Ok(b"first".to_vec()));
    write(&mounts, "/w/new", b"x").unwrap();
    assert!(house.path("aside/new").exists());
    house.assert_nothing_escaped();
}

#[test]
fn an_instant_keeps_its_milliseconds_on_both_sides_of_1970() {
    for (seconds, nanoseconds, expected) in
        [(0, 0, 0), (1, 999_999_999, 1_999), (-1, 500_000_000, -500), (i64::MAX, 0, i64::MAX)]
    {
        assert_eq!(instant(seconds, nanoseconds).as_millis(), expected, "{seconds} {nanoseconds}");
    }
}
