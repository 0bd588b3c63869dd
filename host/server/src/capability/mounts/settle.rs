//! What a recovery asks of a change that was cut off: did it take place?
//!
//! The answer comes from two looks at the name, one before the effect, which
//! stands in the journal with the intent, and one after the crash. It is given
//! only where the two looks prove it. A file that is not as it was, nor as the
//! effect would have left it, was changed by somebody else: then nobody knows,
//! and nothing is done over it. That includes what a copy of the file system
//! brings back under other inode numbers, or one that makes up new ones
//! whenever it is mounted.
//!
//! Two things cannot be told apart: the effect, and another program that did
//! the same to the same name. Of several jobs that were cut off, each is
//! settled before any goes on; else the next change of one is what the look
//! at the other finds.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use leasehold_core::lease::{gate::Permit, operation::AppendFile, target::FilePath};
use rustix::fs::{self, AtFlags, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Call, Change, Changes, FileError, Kind, Mounts, Purpose,
    error::failed,
    place::{Draft, describe, fill},
};

/// What had a name before it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Nothing.
    Absent,
    /// This.
    Present(Found),
}

/// What tells one file or directory, at one time, from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// File or directory.
    pub kind: Kind,
    /// Its number on its file system. The next file may have it as soon as this one is gone.
    pub inode: u64,
    /// Bytes for a file, 0 for everything else.
    pub size: u64,
    /// When its contents changed, since 1970.
    pub mtime_ns: i64,
    /// When anything about it changed, since 1970. No program can set it.
    pub ctime_ns: i64,
}

/// Contents by their size and digest, which is how the journal keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many bytes.
    pub size_bytes: u64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// What became of a change that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It took place, and is durable.
    Done,
    /// It did not: it can be made as if for the first time.
    NotDone,
    /// A first part of an addition took place: see [`Mounts::finish_append`].
    Torn,
    /// Nobody knows.
    Unknown {
        /// Why not, in words for the agent.
        why: String,
    },
}

impl Mounts {
    /// Looks at what a change would find, for the intent that is written before it.
    ///
    /// The caller [holds](Mounts::hold) the name, from here until the effect is over.
    ///
    /// # Errors
    ///
    /// If the change cannot be, with the error that it would end with.
    pub fn look<Op: Changes>(&self, permit: &Permit<Op>) -> Result<Before, FileError> {
        let (_, old) = self.ready(Op::CHANGE, permit.op().path())?;
        Ok(Before::of(old.as_ref()))
    }

    /// Tells whether the change of a call took place that found `before` and was cut off.
    ///
    /// `wanted` are the contents of a write or an append. A draft that the
    /// call has left behind is removed, whatever the answer. The caller holds
    /// the name, until what it does about the answer is done.
    pub fn settle<Op: Changes>(
        &self,
        permit: &Permit<Op>,
        call: Call,
        before: &Before,
        wanted: Option<&Fingerprint>,
    ) -> Settled {
        let path = permit.op().path();
        if Op::CHANGE == Change::Write {
            self.discard_draft(path, call);
        }
        let settled = self.compare(Op::CHANGE, path, before, wanted);
        settled.unwrap_or_else(|error| Settled::Unknown { why: error.to_string() })
    }

    /// Adds what is missing of an addition that was [torn](Settled::Torn), durably.
    ///
    /// What is there must be a first part of `contents`; if it is not, nothing is added and the answer is
    /// [`Settled::Unknown`].
    ///
    /// # Errors
    ///
    /// As [`append`](Mounts::append), and if the host may not read the file.
    pub fn finish_append(
        &self,
        permit: Permit<AppendFile>,
        contents: &[u8],
        before: &Before,
    ) -> Result<Settled, FileError> {
        let op = permit.spend();
        let path = op.path();
        let (place, _) = self.ready(Change::Append, path)?;
        let (mut file, _) = place.open(OFlags::RDWR | OFlags::APPEND)?;
        let now = fs::fstat(&file).map_err(|errno| failed(path, errno))?;
        let Some((old_size, added)) = before.added(&Found::of(&now)) else { return Ok(changed(path)) };
        let added = usize::try_from(added).unwrap_or(usize::MAX).min(contents.len());
        let there = fill(&file, old_size, added, added as u64).map_err(|error| failed(path, error))?;
        let Some(missing) = contents.strip_prefix(&*there).filter(|_| there.len() == added) else {
            return Ok(changed(path));
        };
        io::Write::write_all(&mut file, missing).map_err(|error| failed(path, error))?;
        file.sync_all().map_err(|error| failed(path, error))?;
        place.sync()?;
        Ok(Settled::Done)
    }

    /// Compares what was with what is. Where the change took place, it is made durable first.
    fn compare(
        &self,
        change: Change,
        path: &FilePath,
        before: &Before,
        wanted: Option<&Fingerprint>,
    ) -> Result<Settled, FileError> {
        let place = match self.place(path, Purpose::Settle, FileError::not_a_file) {
            Ok(place) => place,
            // Without its directory, the name is gone too; and so is what would have to be made durable.
            Err(FileError::NotFound { .. }) => {
                return Ok(match (change, before) {
                    (Change::Remove, Before::Present(_)) => Settled::Done,
                    (_, Before::Absent) => Settled::NotDone,
                    (_, Before::Present(_)) => changed(path),
                });
            }
            Err(error) => return Err(error),
        };
        let now = Before::of(place.existing()?.as_ref());
        if now == *before {
            return Ok(Settled::NotDone);
        }
        let io_failed = |error: io::Error| failed(path, error);
        match (change, before, now) {
            (Change::Write, _, Before::Present(Found { kind: Kind::File, .. })) => {
                let (file, size) = place.open(OFlags::RDONLY)?;
                let Some(wanted) = wanted.filter(|wanted| wanted.size_bytes == size) else { return Ok(changed(path)) };
                if !wanted.matches(&file, 0).map_err(io_failed)? {
                    return Ok(changed(path));
                }
                file.sync_all().map_err(io_failed)?;
            }
            (Change::Append, _, Before::Present(Found { kind: Kind::File, .. })) => {
                let (file, _) = place.open(OFlags::RDONLY)?;
                let now = fs::fstat(&file).map_err(|errno| failed(path, errno))?;
                match (before.added(&Found::of(&now)), wanted) {
                    (Some((_, 0)), _) if *before != Before::Absent => return Ok(Settled::NotDone),
                    (Some((_, added)), Some(wanted)) if added < wanted.size_bytes => return Ok(Settled::Torn),
                    (Some((old_size, _)), Some(wanted)) if wanted.matches(&file, old_size).map_err(io_failed)? => {}
                    _ => return Ok(changed(path)),
                }
                file.sync_all().map_err(io_failed)?;
            }
            (Change::CreateDirectory, Before::Absent, Before::Present(Found { kind: Kind::Directory, .. }))
            | (Change::Remove, Before::Present(_), Before::Absent) => {}
            _ => return Ok(changed(path)),
        }
        // The host may have been killed between the change and this.
        place.sync()?;
        Ok(Settled::Done)
    }

    /// Removes the draft of a call, if it left one.
    fn discard_draft(&self, path: &FilePath, call: Call) {
        // What cannot be removed is hidden, and goes with its directory.
        if let Ok(place) = self.place(path, Purpose::Write, FileError::not_a_file) {
            let _ = fs::unlinkat(&place.parent, Draft::name(call), AtFlags::empty());
        }
    }
}

fn changed(path: &FilePath) -> Settled {
    Settled::Unknown { why: format!("`{path}` is neither as it was before nor as it would be after") }
}

impl Before {
    fn of(stat: Option<&fs::Stat>) -> Self {
        stat.map_or(Self::Absent, |stat| Self::Present(Found::of(stat)))
    }

    /// How long the file was, and how much longer it now is; nothing if it is another or shorter.
    fn added(&self, now: &Found) -> Option<(u64, u64)> {
        match self {
            Self::Absent => Some((0, now.size)),
            Self::Present(old) if (old.kind, old.inode) != (now.kind, now.inode) => None,
            Self::Present(old) => Some((old.size, now.size.checked_sub(old.size)?)),
        }
    }
}

impl Found {
    fn of(stat: &fs::Stat) -> Self {
        Self {
            kind: Kind::of(stat),
            inode: stat.st_ino,
            size: describe(stat).size,
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// An instant of the file system, whose integer types differ from one system to the next.
fn nanoseconds(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<i64>) -> i64 {
    let seconds = seconds.try_into().unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.try_into().unwrap_or(0))
}

impl Fingerprint {
    /// Takes the fingerprint of contents.
    #[must_use]
    pub fn of(contents: &[u8]) -> Self {
        Self { size_bytes: contents.len() as u64, sha256: format!("{:x}", Sha256::digest(contents)) }
    }

    /// Whether these contents stand in the file from `offset` on, with whatever follows them.
    ///
    /// The file was that long a moment ago.
    fn matches(&self, file: &File, offset: u64) -> io::Result<bool> {
        let mut digest = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = self.size_bytes;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            match file.read_at(&mut buffer[..part], offset + (self.size_bytes - left)) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    digest.update(&buffer[..count]);
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(format!("{:x}", digest.finalize()) == self.sha256)
    }
}

const BUFFER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::{
        fs::{self as host, FileTimes},
        io::Write as _,
        os::unix::fs::{MetadataExt as _, symlink},
        path::Path,
        time::{Duration, SystemTime},
    };

    use leasehold_core::lease::operation::{CreateDirectory, Remove, WriteFile};
    use rustix::fs::{CWD, FileType, Mode};

    use super::{
        super::{
            place::NEW_FILE,
            tests::{House, append, call, create_dir, mounts, outcome, permit, remove, write},
        },
        *,
    };

    /// What comes between the look and the recovery.
    type Meanwhile = fn(&House, &Mounts);

    const PATH: &str = "/w/dir/it";
    const CONTENTS: &[u8] = b"wanted";

    fn it(house: &House) -> std::path::PathBuf {
        house.path("dir/it")
    }

    /// A folder in which `old` stands, if anything.
    fn house(old: Option<&str>) -> House {
        let house = House::new();
        if let Some(old) = old {
            host::write(it(&house), old).unwrap();
        }
        house
    }

    fn name(settled: &Settled) -> &'static str {
        match settled {
            Settled::Done => "Done",
            Settled::NotDone => "NotDone",
            Settled::Torn => "Torn",
            Settled::Unknown { .. } => "Unknown",
        }
    }

    /// Looks, lets something come between, and settles: as the next start would, and as one whose
    /// mount has become read-only.
    fn settle<Op: Changes>(
        house: &House,
        op: impl Fn() -> Op,
        wanted: Option<&Fingerprint>,
        meanwhile: Meanwhile,
    ) -> (Before, Settled) {
        let before = house.mounts().look(&permit(op())).unwrap();
        let json = serde_json::to_string(&before).unwrap();
        assert!(json.len() < 160, "{json}");
        let before = serde_json::from_str(&json).unwrap();
        meanwhile(house, &house.mounts());
        let read_only = mounts(&[("/w", house.inside.path(), false)]);
        let settled = read_only.settle(&permit(op()), call(1), &before, wanted);
        let again = house.mounts().settle(&permit(op()), call(1), &before, wanted);
        assert_eq!(settled, again);
        house.assert_nothing_escaped();
        (before, settled)
    }

    fn settle_write(house: &House, meanwhile: Meanwhile) -> &'static str {
        let wanted = Fingerprint::of(CONTENTS);
        name(&settle(house, || WriteFile::parse(PATH).unwrap(), Some(&wanted), meanwhile).1)
    }

    fn settle_append(house: &House, meanwhile: Meanwhile) -> (Before, &'static str) {
        let wanted = Fingerprint::of(CONTENTS);
        let (before, settled) = settle(house, || AppendFile::parse(PATH).unwrap(), Some(&wanted), meanwhile);
        (before, name(&settled))
    }

    /// The draft is whole, and does not have the name yet.
    fn draft(_: &House, mounts: &Mounts) {
        let path = FilePath::parse(PATH).unwrap();
        let (place, _) = mounts.ready(Change::Write, &path).unwrap();
        let mut draft = Draft::create(&place, call(1), NEW_FILE).unwrap();
        draft.file.write_all(CONTENTS).unwrap();
        std::mem::forget(draft);
    }

    fn put(house: &House, contents: &str) {
        host::write(house.path("other"), contents).unwrap();
        host::rename(house.path("other"), it(house)).unwrap();
    }

    fn add(house: &House, contents: &[u8]) {
        host::OpenOptions::new().append(true).create(true).open(it(house)).unwrap().write_all(contents).unwrap();
    }

    fn clear(house: &House) {
        let it = it(house);
        let _ = host::remove_file(&it).or_else(|_| host::remove_dir(&it));
    }

    fn set_mtime(path: &Path, mtime: SystemTime) {
        File::open(path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
    }

    /// Removes and makes the name again until the clock of the file system has moved on.
    fn again(house: &House, make: fn(&Path)) {
        let before = host::metadata(it(house)).unwrap();
        loop {
            clear(house);
            make(&it(house));
            set_mtime(&it(house), before.modified().unwrap());
            let now = host::metadata(it(house)).unwrap();
            if (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
                return;
            }
        }
    }

    fn link(house: &House, mounts: &Mounts) {
        let target = house.path("target");
        host::write(&target, CONTENTS).unwrap();
        clear(house);
        symlink(target, it(house)).unwrap();
        drop(mounts.look(&permit(WriteFile::parse(PATH).unwrap())).unwrap_err());
    }

    fn parent_link(house: &House, _: &Mounts) {
        host::rename(house.path("dir"), house.path("aside")).unwrap();
        host::create_dir(house.path("target")).unwrap();
        host::write(house.path("target/it"), CONTENTS).unwrap();
        symlink("target", house.path("dir")).unwrap();
    }

    const NOTHING: Meanwhile = |_, _| {};
    const DIRECTORY: Meanwhile = |house, _| {
        clear(house);
        host::create_dir(it(house)).unwrap();
    };
    const PIPE: Meanwhile = |house, _| {
        clear(house);
        fs::mknodat(CWD, it(house), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    };
    const GONE: Meanwhile = |house, _| clear(house);
    const PARENT_GONE: Meanwhile = |house, _| host::remove_dir_all(house.path("dir")).unwrap();
    const PARENT_A_FILE: Meanwhile = |house, _| {
        host::remove_dir_all(house.path("dir")).unwrap();
        host::write(house.path("dir"), "").unwrap();
    };

    #[test]
    fn a_write_that_was_cut_off_is_settled() {
        let wrote: Meanwhile = |_, mounts| write(mounts, PATH, CONTENTS).unwrap();
        #[rustfmt::skip]
        let table: [(&str, Meanwhile, &str, &str); 16] = [
            // meanwhile                        where a file was, and where nothing was
            ("nothing", NOTHING, "NotDone", "NotDone"),
            ("the draft was whole", draft, "NotDone", "NotDone"),
            ("it was renamed", wrote, "Done", "Done"),
            (
                "in the same tick",
                |house, mounts| {
                    let before = host::metadata(it(house)).ok();
                    write(mounts, PATH, CONTENTS).unwrap();
                    if let Some(before) = before {
                        set_mtime(&it(house), before.modified().unwrap());
                    }
                },
                "Done",
                "Done",
            ),
            (
                "it was renamed, then changed",
                |house, mounts| {
                    write(mounts, PATH, CONTENTS).unwrap();
                    add(house, b"more");
                },
                "Unknown",
                "Unknown",
            ),
            (
                "the draft was whole, then another wrote",
                |house, mounts| {
                    draft(house, mounts);
                    put(house, "theirs");
                },
                "Unknown",
                "Unknown",
            ),
            ("another wrote as much", |house, _| put(house, "theirs"), "Unknown", "Unknown"),
            ("another wrote the same", |house, _| put(house, "wanted"), "Done", "Done"),
            (
                "another wrote in place",
                |house, _| {
                    host::write(it(house), "theirs").unwrap();
                    set_mtime(&it(house), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
                },
                "Unknown",
                "Unknown",
            ),
            ("it was removed", GONE, "Unknown", "NotDone"),
            ("a link came", link, "Unknown", "Unknown"),
            ("a directory came", DIRECTORY, "Unknown", "Unknown"),
            ("a pipe came", PIPE, "Unknown", "Unknown"),
            ("its directory went", PARENT_GONE, "Unknown", "NotDone"),
            ("its directory became a file", PARENT_A_FILE, "Unknown", "Unknown"),
            ("its directory became a link", parent_link, "Unknown", "Unknown"),
        ];
        for (what, meanwhile, with_old, without) in table {
            for (old, expected) in [(Some("before"), with_old), (None, without)] {
                let house = house(old);
                assert_eq!(settle_write(&house, meanwhile), expected, "{what}, {old:?}");
                let names = host::read_dir(house.path("dir")).into_iter().flatten().flatten();
                let drafts = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".leasehold-"));
                assert_eq!(drafts.count(), 0, "{what}, {old:?}");
            }
        }
    }

    #[test]
    fn an_append_that_was_cut_off_is_settled_and_finished_once() {
        let appended: Meanwhile = |_, mounts| append(mounts, PATH, CONTENTS).unwrap();
        #[rustfmt::skip]
        let table: [(&str, Meanwhile, &str, &str); 18] = [
            // meanwhile                        where a file was, and where nothing was
            ("nothing", NOTHING, "NotDone", "NotDone"),
            ("all was added", appended, "Done", "Done"),
            ("a file was created", |house, _| add(house, b""), "NotDone", "Torn"),
            ("a byte was added", |house, _| add(house, b"w"), "Torn", "Torn"),
            ("all but a byte was added", |house, _| add(house, b"wante"), "Torn", "Torn"),
            ("all was added, then more", |house, mounts| {
                append(mounts, PATH, CONTENTS).unwrap();
                add(house, b"more");
            }, "Done", "Done"),
            ("a part was added, then more", |house, _| add(house, b"want, more"), "Unknown", "Unknown"),
            ("another added less", |house, _| add(house, b"their"), "Torn, Unknown", "Torn, Unknown"),
            ("another added as much", |house, _| add(house, b"theirs"), "Unknown", "Unknown"),
            ("another added, then all was", |house, mounts| {
                add(house, b"more");
                append(mounts, PATH, CONTENTS).unwrap();
            }, "Unknown", "Unknown"),
            ("it was cut", |house, _| host::write(it(house), "bef").unwrap(), "Unknown", "Torn, Unknown"),
            ("it became another", |house, _| put(house, "beforewanted"), "Unknown", "Unknown"),
            ("it was removed", GONE, "Unknown", "NotDone"),
            ("a link came", link, "Unknown", "Unknown"),
            ("a directory came", DIRECTORY, "Unknown", "Unknown"),
            ("a pipe came", PIPE, "Unknown", "Unknown"),
            ("its directory went", PARENT_GONE, "Unknown", "NotDone"),
            ("its directory became a link", parent_link, "Unknown", "Unknown"),
        ];
        for (what, meanwhile, with_old, without) in table {
            for (old, expected) in [(Some("before"), with_old), (None, without)] {
                let house = house(old);
                let (before, mut settled) = settle_append(&house, meanwhile);
                if settled == "Torn" {
                    let left = host::read(it(&house)).unwrap();
                    let permit = || permit(AppendFile::parse(PATH).unwrap());
                    let finished = house.mounts().finish_append(permit(), CONTENTS, &before).unwrap();
                    if finished == Settled::Done {
                        let whole = [old.unwrap_or_default().as_bytes(), CONTENTS].concat();
                        // A kill after that, and once more.
                        assert_eq!(house.mounts().finish_append(permit(), CONTENTS, &before), Ok(Settled::Done));
                        let wanted = Fingerprint::of(CONTENTS);
                        assert_eq!(house.mounts().settle(&permit(), call(1), &before, Some(&wanted)), Settled::Done);
                        assert_eq!(host::read(it(&house)).unwrap(), whole, "{what}, {old:?}");
                    } else {
                        settled = "Torn, Unknown";
                        assert_eq!(host::read(it(&house)).unwrap(), left, "{what}, {old:?}");
                    }
                }
                assert_eq!(settled, expected, "{what}, {old:?}");
            }
        }
    }

    #[test]
    fn a_directory_whose_creation_was_cut_off_is_settled() {
        #[rustfmt::skip]
        let table: [(&str, Meanwhile, &str); 8] = [
            ("nothing", NOTHING, "NotDone"),
            ("it was created", |_, mounts| create_dir(mounts, PATH).unwrap(), "Done"),
            (
                "it was created and has entries",
                |house, mounts| {
                    create_dir(mounts, PATH).unwrap();
                    host::write(it(house).join("a"), "").unwrap();
                },
                "Done",
            ),
            ("a file came", |house, _| put(house, ""), "Unknown"),
            ("a link came", |house, _| symlink(house.path("dir"), it(house)).unwrap(), "Unknown"),
            ("its directory went", PARENT_GONE, "NotDone"),
            ("its directory became a file", PARENT_A_FILE, "Unknown"),
            ("its directory became a link", parent_link, "Unknown"),
        ];
        for (what, meanwhile, expected) in table {
            let settled = settle(&house(None), || CreateDirectory::parse(PATH).unwrap(), None, meanwhile).1;
            assert_eq!(name(&settled), expected, "{what}");
        }
    }

    #[test]
    fn a_removal_that_was_cut_off_is_settled() {
        let removed: Meanwhile = |_, mounts| remove(mounts, PATH).unwrap();
        #[rustfmt::skip]
        let file: [(&str, Meanwhile, &str); 9] = [
            ("nothing", NOTHING, "NotDone"),
            ("it was removed", removed, "Done"),
            // The new file may have the old one's number, size and time of change.
            (
                "it was removed and came again",
                |house, _| {
                    again(house, |path| host::write(path, "before").unwrap());
                },
                "Unknown",
            ),
            ("another added to it", |house, _| add(house, b"more"), "Unknown"),
            ("a link came", link, "Unknown"),
            ("a directory came", DIRECTORY, "Unknown"),
            ("its directory went", PARENT_GONE, "Done"),
            ("its directory became a file", PARENT_A_FILE, "Unknown"),
            ("its directory became a link", parent_link, "Unknown"),
        ];
        for (what, meanwhile, expected) in file {
            let settled = settle(&house(Some("before")), || Remove::parse(PATH).unwrap(), None, meanwhile).1;
            assert_eq!(name(&settled), expected, "a file; {what}");
        }
        #[rustfmt::skip]
        let directory: [(&str, Meanwhile, &str); 4] = [
            ("nothing", NOTHING, "NotDone"),
            ("it was removed", removed, "Done"),
            (
                "it was removed and came again",
                |house, _| {
                    again(house, |path| host::create_dir(path).unwrap());
                },
                "Unknown",
            ),
            (
                "a file came",
                |house, _| {
                    clear(house);
                    put(house, "");
                },
                "Unknown",
            ),
        ];
        for (what, meanwhile, expected) in directory {
            let house = house(None);
            host::create_dir(it(&house)).unwrap();
            let settled = settle(&house, || Remove::parse(PATH).unwrap(), None, meanwhile).1;
            assert_eq!(name(&settled), expected, "a directory; {what}");
        }
    }

    #[test]
    fn a_change_of_nothing_is_settled_too() {
        let nothing = Fingerprint::of(b"");
        let appended: Meanwhile = |_, mounts| append(mounts, PATH, b"").unwrap();
        let wrote: Meanwhile = |_, mounts| write(mounts, PATH, b"").unwrap();
        for (old, appended_is) in [(None, "Done"), (Some(""), "NotDone"), (Some("before"), "NotDone")] {
            let settled = settle(&house(old), || AppendFile::parse(PATH).unwrap(), Some(&nothing), appended).1;
            assert_eq!(name(&settled), appended_is, "{old:?}");
            let settled = settle(&house(old), || WriteFile::parse(PATH).unwrap(), Some(&nothing), wrote).1;
            assert_eq!(name(&settled), "Done", "{old:?}");
        }
    }

    #[test]
    fn contents_longer_than_the_buffer_are_compared_to_the_last_byte() {
        let contents: Vec<u8> = (0..=u8::MAX).cycle().take(2 * BUFFER_BYTES + 1).collect();
        let house = House::new();
        host::write(it(&house), [b"old".as_slice(), &contents, b"more"].concat()).unwrap();
        let file = File::open(it(&house)).unwrap();
        let mut other = contents.clone();
        other[2 * BUFFER_BYTES] ^= 1;
        for (contents, offset, expected) in [
            (contents.as_slice(), 3, true),
            (&contents, 2, false),
            (&contents, 8, false),
            (&other, 3, false),
            (b"", 0, true),
        ] {
            assert_eq!(Fingerprint::of(contents).matches(&file, offset).unwrap(), expected, "{offset}");
        }
    }

    #[test]
    fn who_does_not_know_says_why() {
        let house = house(Some("before"));
        let before = house.mounts().look(&permit(WriteFile::parse(PATH).unwrap())).unwrap();
        let settled =
            |mounts: &Mounts, wanted| mounts.settle(&permit(WriteFile::parse(PATH).unwrap()), call(1), &before, wanted);
        write(&house.mounts(), PATH, CONTENTS).unwrap();
        let theirs = Fingerprint::of(b"theirs");
        let neither = "`/w/dir/it` is neither as it was before nor as it would be after";
        let elsewhere = mounts(&[("/x", house.inside.path(), true)]);
        let inner = mounts(&[("/w", house.inside.path(), true), (PATH, &house.path("dir"), true)]);
        for (settled, expected) in [
            (settled(&house.mounts(), Some(&theirs)), neither),
            (settled(&house.mounts(), None), neither),
            (settled(&elsewhere, Some(&theirs)), "no mount covers `/w/dir/it`"),
            (settled(&inner, Some(&theirs)), "`/w/dir/it` is not a regular file"),
        ] {
            assert_eq!(settled, Settled::Unknown { why: expected.to_owned() });
        }
    }

    #[test]
    fn a_call_made_again_replaces_its_own_draft_and_no_other() {
        let house = house(None);
        let mounts = house.mounts();
        let ours = house.path("dir").join(Draft::name(call(1)));
        let theirs = house.path("dir").join(Draft::name(call(2)));
        host::write(&theirs, "of another call").unwrap();
        // A link in its place, and a file with another name, are left as they are.
        let kept = house.path("kept");
        host::write(&kept, "kept").unwrap();
        let leave: [fn(&Path, &Path) -> io::Result<()>; 2] =
            [|kept, ours| host::hard_link(kept, ours), |kept, ours| symlink(kept, ours)];
        for leave in leave {
            leave(&kept, &ours).unwrap();
            write(&mounts, PATH, CONTENTS).unwrap();
            assert_eq!(host::read(it(&house)).unwrap(), CONTENTS);
            assert_eq!(host::read(&kept).unwrap(), b"kept");
            assert!(host::symlink_metadata(&ours).is_err());
            assert!(theirs.exists());
        }
        host::create_dir(&ours).unwrap();
        assert_ne!(outcome(write(&mounts, PATH, b"x")), "Ok");
        assert_eq!(host::read(it(&house)).unwrap(), CONTENTS);
    }

    #[test]
    fn an_addition_is_finished_only_where_it_may_be() {
        let house = house(None);
        let before = house.mounts().look(&permit(AppendFile::parse(PATH).unwrap())).unwrap();
        let finish =
            |mounts: &Mounts| mounts.finish_append(permit(AppendFile::parse(PATH).unwrap()), CONTENTS, &before);
        assert_eq!(outcome(finish(&house.mounts())), "NotFound");
        add(&house, b"want");
        assert_eq!(outcome(finish(&mounts(&[("/w", house.inside.path(), false)]))), "ReadOnly");
        assert_eq!(host::read(it(&house)).unwrap(), b"want");
        assert_eq!(finish(&house.mounts()), Ok(Settled::Done));
        assert_eq!(host::read(it(&house)).unwrap(), CONTENTS);
        link(&house, &house.mounts());
        assert_eq!(outcome(finish(&house.mounts())), "SymbolicLink");
    }
}
