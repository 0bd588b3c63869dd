//! One name after the other, from a descriptor: how a path becomes a place that an effect can act on.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::PathBuf,
};

use leasehold_core::{lease::target::FilePath, time::Timestamp};
use rustix::{
    fs::{self, Access, AtFlags, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use super::{Call, FileError, Kind, Metadata, Mount, error::failed};

/// A mount and its folder.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) mount: Mount,
    pub(super) dir: OwnedFd,
    /// Where the folder was when it was opened, with no link on the way.
    pub(super) real: PathBuf,
}

impl Root {
    /// Opens the directory that `names` lead to, one name after the other.
    pub(super) fn walk(&self, names: &[&str], flags: OFlags) -> Result<OwnedFd, FileError> {
        let failed_at = |count, errno| failed(join(&self.mount.at, &names[..count]), errno);
        // `.` and not a duplicate: two listings of one descriptor would share a position.
        let flags_of = |count| if count == names.len() { flags } else { SEARCH };
        let mut dir = open_at(&self.dir, ".", flags_of(0), Mode::empty()).map_err(|errno| failed_at(0, errno))?;
        for (name, count) in names.iter().zip(1..) {
            dir = match open_at(&dir, name, flags_of(count), Mode::empty()) {
                Ok(next) => next,
                // For a link as for a file, the system only says that it is no directory.
                Err(Errno::NOTDIR) if is_link(&dir, name) => return Err(failed_at(count, Errno::LOOP)),
                Err(errno) => return Err(failed_at(count, errno)),
            };
        }
        Ok(dir)
    }
}

/// A name in an open directory.
pub(super) struct Place<'a> {
    /// The name's whole path, for messages.
    pub(super) path: &'a FilePath,
    pub(super) parent: OwnedFd,
    pub(super) name: &'a str,
}

impl Place<'_> {
    pub(super) fn stat(&self) -> Result<fs::Stat, FileError> {
        stat_at(&self.parent, self.name).map_err(|errno| failed(self.path, errno))
    }

    /// Describes what has this name, if anything does.
    pub(super) fn existing(&self) -> Result<Option<fs::Stat>, FileError> {
        match self.stat() {
            Ok(stat) => Ok(Some(stat)),
            Err(FileError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the regular file of this name and says how large it is.
    pub(super) fn open(&self, flags: OFlags) -> Result<(File, u64), FileError> {
        let stat = self.stat()?;
        if Kind::of(&stat) == Kind::File { self.open_unasked(flags) } else { Err(self.not_a_file(&stat)) }
    }

    /// Opens the name and looks at what was opened, which may be something
    /// else than a moment ago. It cannot be a link, and it cannot block.
    pub(super) fn open_unasked(&self, flags: OFlags) -> Result<(File, u64), FileError> {
        let opened = open_at(&self.parent, self.name, flags, NEW_FILE)
            .and_then(|file| Ok((fs::fstat(&file)?, File::from(file))))
            .map_err(|errno| failed(self.path, errno));
        let (stat, file) = opened?;
        if Kind::of(&stat) == Kind::File { Ok((file, describe(&stat).size)) } else { Err(self.not_a_file(&stat)) }
    }

    /// Asks whether the system lets the host write the file of this name.
    pub(super) fn may_write(&self) -> Result<(), FileError> {
        self.may(self.name, Access::WRITE_OK)
    }

    /// Asks whether the system lets the host give names in this directory, and take them.
    pub(super) fn may_rename(&self) -> Result<(), FileError> {
        self.may(".", Access::WRITE_OK | Access::EXEC_OK)
    }

    fn may(&self, name: &str, access: Access) -> Result<(), FileError> {
        fs::accessat(&self.parent, name, access, AtFlags::EACCESS).map_err(|errno| failed(self.path, errno))
    }

    /// Makes what happened to the name durable.
    pub(super) fn sync(&self) -> Result<(), FileError> {
        match retry_on_intr(|| fs::fsync(&self.parent)) {
            Ok(()) | Err(Errno::INVAL) => Ok(()), // a file system that does not sync directories
            Err(errno) => Err(failed(self.path, errno)),
        }
    }

    /// Whether the directory of this name holds anything but drafts, as far as the host can see.
    pub(super) fn holds_entries(&self) -> bool {
        self.drafts().is_some_and(|(_, drafts)| drafts.is_none())
    }

    /// Clears the directory of this name of drafts, if it holds nothing else.
    ///
    /// They are what a host left that was killed while it wrote. An agent does
    /// not see them, so a directory it has emptied must be empty. A write that
    /// is under way there meets the removal and fails, as it would a moment
    /// later. Whatever cannot be cleared shows when the directory is removed.
    pub(super) fn discard_drafts(&self) {
        let Some((dir, Some(mut entries))) = self.drafts() else { return };
        entries.rewind();
        for draft in entries.map_while(Result::ok).filter(is_draft_entry) {
            let _ = fs::unlinkat(&dir, draft.file_name(), AtFlags::empty());
        }
    }

    /// Opens the directory of this name, and reads it if it holds nothing but drafts.
    fn drafts(&self) -> Option<(OwnedFd, Option<fs::Dir>)> {
        let dir = open_at(&self.parent, self.name, LISTING, Mode::empty()).ok()?;
        let mut entries = fs::Dir::read_from(&dir).ok()?;
        let is_itself = |entry: &fs::DirEntry| matches!(entry.file_name().to_bytes(), b"." | b"..");
        let only_drafts = entries.all(|entry| entry.is_ok_and(|entry| is_itself(&entry) || is_draft_entry(&entry)));
        Some((dir, only_drafts.then_some(entries)))
    }

    pub(super) fn not_a_file(&self, stat: &fs::Stat) -> FileError {
        let path = self.path.to_string();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => FileError::SymbolicLink { path },
            _ => FileError::NotAFile { path },
        }
    }
}

/// A file under a name that no agent can say, until it takes the place of another.
pub(super) struct Draft<'a> {
    place: &'a Place<'a>,
    name: String,
    pub(super) file: File,
    published: bool,
}

impl<'a> Draft<'a> {
    /// Begins the draft of a call, in place of one that the same call has left behind.
    pub(super) fn create(place: &'a Place<'a>, call: Call, mode: Mode) -> Result<Self, FileError> {
        let name = Self::name(call);
        // Never what stands there already, whose owner, mode and other names would be kept.
        let create = || open_at(&place.parent, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode);
        let created = match create() {
            Err(Errno::EXIST) => fs::unlinkat(&place.parent, &name, AtFlags::empty()).and_then(|()| create()),
            created => created,
        };
        let file = created.map_err(|errno| failed(place.path, errno))?.into();
        Ok(Self { place, name, file, published: false })
    }

    /// The name of a call's draft.
    pub(super) fn name(call: Call) -> String {
        format!("{DRAFT_PREFIX}{call}{DRAFT_SUFFIX}")
    }

    /// Puts the draft where it belongs. A link that stands there meanwhile is replaced, not followed.
    pub(super) fn publish(mut self) -> Result<(), FileError> {
        let Place { path, parent, name } = self.place;
        fs::renameat(parent, &self.name, parent, *name).map_err(|errno| failed(path, errno))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            // The failure that led here is what the agent hears of; a draft that stays is hidden.
            let _ = fs::unlinkat(&self.place.parent, &self.name, AtFlags::empty());
        }
    }
}

/// Opens one name in a directory: never through a link, never waiting, never for a child process.
pub(super) fn open_at(dir: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| fs::openat(dir, name, flags | ALWAYS, mode))
}

/// Describes one name in a directory, a link as a link.
pub(super) fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<fs::Stat, Errno> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn is_link(dir: &OwnedFd, name: &str) -> bool {
    stat_at(dir, name).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Reads a directory's entries, of which there may be `max`.
pub(super) fn read_directory(
    path: &FilePath,
    dir: &OwnedFd,
    max: usize,
) -> Result<BTreeMap<String, (Kind, u64)>, FileError> {
    let mut entries = BTreeMap::new();
    let mut seen = 0;
    for entry in fs::Dir::read_from(dir).map_err(|errno| failed(path, errno))? {
        let entry = entry.map_err(|errno| failed(path, errno))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if seen == max {
            return Err(FileError::TooManyEntries { path: path.to_string(), limit: max });
        }
        seen += 1;
        let Some(text) = name.to_str().ok().filter(|text| !is_draft(text)) else {
            continue;
        };
        match stat_at(dir, name) {
            Ok(stat) => {
                let Metadata { kind, size, .. } = describe(&stat);
                entries.insert(text.to_owned(), (kind, size));
            }
            Err(Errno::NOENT) => {} // removed meanwhile
            Err(errno) => return Err(failed(path, errno)),
        }
    }
    Ok(entries)
}

/// Reads at most `limit` bytes from `offset`, of which `expected` are there.
///
/// What is allocated follows what the file holds, never what was asked for.
pub(super) fn fill(file: &File, offset: u64, limit: usize, expected: u64) -> io::Result<Vec<u8>> {
    // No file reaches beyond an `i64`, and the system takes no position there.
    let limit = usize::try_from(OFFSET_MAX.saturating_sub(offset)).unwrap_or(limit).min(limit);
    // One byte more than expected, so that the file's end shows without growing.
    let mut contents = vec![0; usize::try_from(expected.saturating_add(1)).unwrap_or(limit).min(limit)];
    let mut filled = 0;
    while filled < limit {
        if filled == contents.len() {
            contents.resize(filled.saturating_mul(2).max(GROWTH_BYTES_MIN).min(limit), 0);
        }
        match file.read_at(&mut contents[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    contents.truncate(filled);
    Ok(contents)
}

pub(super) fn describe(stat: &fs::Stat) -> Metadata {
    let kind = Kind::of(stat);
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    Metadata { kind, size, modified: instant(stat.st_mtime, stat.st_mtime_nsec) }
}

/// An instant of the file system, whose integer types differ from one system to the next.
pub(super) fn instant(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<i64>) -> Timestamp {
    let seconds = seconds.try_into().unwrap_or(0);
    let nanoseconds = nanoseconds.try_into().unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000))
}

/// The path of what `names` lead to from `at`.
pub(super) fn join(at: &FilePath, names: &[&str]) -> String {
    at.components().chain(names.iter().copied()).fold(String::new(), |path, name| path + "/" + name)
}

fn is_draft_entry(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_str().is_ok_and(is_draft)
}

/// Whether the host keeps names of this form for itself, on file systems that ignore case too.
pub(super) fn is_draft(name: &str) -> bool {
    let name = name.as_bytes();
    let begins = name.get(..DRAFT_PREFIX.len()).is_some_and(|it| it.eq_ignore_ascii_case(DRAFT_PREFIX.as_bytes()));
    begins && name[name.len().saturating_sub(DRAFT_SUFFIX.len())..].eq_ignore_ascii_case(DRAFT_SUFFIX.as_bytes())
}

pub(super) const DRAFT_PREFIX: &str = ".leasehold-";
pub(super) const DRAFT_SUFFIX: &str = ".tmp";

/// Before the process's umask.
pub(super) const NEW_FILE: Mode = Mode::from_raw_mode(0o644);
pub(super) const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o755);

pub(super) const ALWAYS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
pub(super) const LISTING: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// To pass through a directory, it need not be readable.
#[cfg(target_os = "linux")]
pub(super) const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
pub(super) const SEARCH: OFlags = LISTING;

pub(super) const OFFSET_MAX: u64 = i64::MAX.unsigned_abs();
pub(super) const GROWTH_BYTES_MIN: usize = 8 * 1024;
