//! The file effects, beneath the folders the operator mounts (ARCP §9.2, `fs.read` and `fs.write`).
//!
//! Every effect takes a permit by value and reads its path out of it. A path
//! leads to the mount with the longest prefix of it, and from that mount's
//! descriptor on, the effect opens one name after the other and follows no
//! symbolic link, neither on the way nor at the end. What is opened is a
//! descriptor, never a path that could meanwhile mean something else, so a
//! link swapped in between two steps is refused as it would be before them.
//! `openat2` could take all steps at once; it would not be safer, since `..`
//! never gets here, and it is missing from older kernels and from other systems.
//!
//! Only regular files are read or written: a name is described before it is
//! opened, so opening has no effect on a device, and the descriptor is
//! described again after, without ever waiting for the other end of a pipe.
//!
//! Three things are the operator's business, for no descriptor shows them. A
//! folder that the system has mounted beneath (a bind mount) is entered. A hard link
//! is a file like any other, wherever its other names are. On a file system
//! that ignores case, a file has more names than the one the lease was asked about.
//!
//! The functions block. A caller on an async runtime calls them in
//! `spawn_blocking`; an effect that has begun there ends, whether or not
//! anybody still waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::PathBuf,
};

use leasehold_core::{
    error::ErrorCode,
    lease::{
        gate::Permit,
        operation::{AppendFile, CreateDirectory, ListDirectory, ReadFile, ReadRange, Remove, Stat, WriteFile},
        target::FilePath,
    },
    time::Timestamp,
};
use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

/// A folder of the host that jobs see under a path of their own.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where jobs see it.
    pub at: FilePath,
    /// The folder. Symbolic links in this path are followed, once, when it is opened.
    pub dir: PathBuf,
    /// Whether anything beneath may change.
    pub writable: bool,
}

/// The tree that jobs see: every mount, opened.
///
/// Mounts may be nested; the longer path hides what the outer folder has in
/// its place. A directory that only leads to a mount exists, holds the names
/// on the way and nothing else.
#[derive(Debug)]
pub struct Mounts {
    /// In the order of their paths, so an outer mount stands before an inner one.
    roots: Vec<Root>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a device, a pipe or a socket. Nothing opens it.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without the directory.
    pub name: String,
    /// What it stands for.
    pub kind: Kind,
    /// Bytes for a file, 0 for everything else.
    pub size: u64,
}

/// What is known of a name without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it stands for.
    pub kind: Kind,
    /// Bytes for a file, 0 for everything else.
    pub size: u64,
    /// When it last changed; 1970 for a directory that only leads to a mount.
    pub modified: Timestamp,
}

/// Why the operator's mounts cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The folder is missing, no folder, or closed to the host.
    #[error("cannot open `{}` for the mount {at}", dir.display())]
    Open {
        /// The mount.
        at: FilePath,
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Two mounts have the same path.
    #[error("there are two mounts {at}")]
    Duplicate {
        /// Their path.
        at: FilePath,
    },
    /// The path holds a name that the host keeps for itself.
    #[error("the mount {at} has a name in it that begins with `{DRAFT_PREFIX}` and ends with `{DRAFT_SUFFIX}`")]
    Reserved {
        /// The path.
        at: FilePath,
    },
}

/// Why a permitted file effect did not happen.
///
/// The paths are those the agent sees; no message holds a path of the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing has that name.
    #[error("nothing is named `{path}`")]
    NotFound {
        /// The name.
        path: String,
    },
    /// The path is outside every mount.
    #[error("no mount covers `{path}`")]
    Unmounted {
        /// The path.
        path: String,
    },
    /// Something has that name already.
    #[error("`{path}` exists already")]
    AlreadyExists {
        /// The name.
        path: String,
    },
    /// A directory was needed and something else is there.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The name.
        path: String,
    },
    /// A regular file was needed and something else is there.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The name.
        path: String,
    },
    /// The directory to remove holds entries.
    #[error("the directory `{path}` is not empty")]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// The file is over the read limit.
    #[error("`{path}` is larger than the read limit of {limit} bytes: read it in parts")]
    TooLarge {
        /// The file.
        path: String,
        /// The most bytes that one read returns.
        limit: usize,
    },
    /// The directory is over the listing limit.
    #[error("`{path}` has more than {limit} entries, the most that are listed")]
    TooManyEntries {
        /// The directory.
        path: String,
        /// The most entries that are listed.
        limit: usize,
    },
    /// The operator lets nothing change beneath this mount.
    #[error("the mount {mount} is read-only")]
    ReadOnly {
        /// The mount.
        mount: String,
    },
    /// The path leads through a symbolic link, or to one.
    #[error("`{path}` is a symbolic link, and links are not followed")]
    SymbolicLink {
        /// The link.
        path: String,
    },
    /// The directory is a mount, or leads to one, and stays.
    #[error("`{path}` holds a mount and cannot be removed")]
    Mounted {
        /// The directory.
        path: String,
    },
    /// The system does not let the host do it.
    #[error("the system does not give the host access to `{path}`")]
    Denied {
        /// What it was about.
        path: String,
    },
    /// The file system beneath does not take such a name.
    #[error("`{path}` is not a name that this file system takes")]
    Invalid {
        /// The name.
        path: String,
    },
    /// The file system failed.
    #[error("`{path}`: {reason}")]
    Io {
        /// What it was about.
        path: String,
        /// What the system says.
        reason: String,
    },
}

impl From<&FileError> for ErrorCode {
    fn from(error: &FileError) -> Self {
        match error {
            FileError::ReadOnly { .. }
            | FileError::SymbolicLink { .. }
            | FileError::Mounted { .. }
            | FileError::Denied { .. } => Self::PermissionDenied,
            FileError::Io { .. } => Self::InternalError,
            FileError::NotFound { .. }
            | FileError::Unmounted { .. }
            | FileError::AlreadyExists { .. }
            | FileError::NotADirectory { .. }
            | FileError::NotAFile { .. }
            | FileError::NotEmpty { .. }
            | FileError::TooLarge { .. }
            | FileError::TooManyEntries { .. }
            | FileError::Invalid { .. } => Self::InvalidRequest,
        }
    }
}

impl Mounts {
    /// Opens every mount's folder, once: what is later put in its place is not seen.
    ///
    /// # Errors
    ///
    /// If a folder cannot be opened, or a path is taken twice or reserved.
    pub fn open(mut mounts: Vec<Mount>) -> Result<Self, MountError> {
        mounts.sort_by(|a, b| a.at.cmp(&b.at));
        if let Some([_, twice]) = mounts.array_windows().find(|[a, b]| a.at == b.at) {
            return Err(MountError::Duplicate { at: twice.at.clone() });
        }
        let open = |mount: Mount| {
            if mount.at.components().any(is_draft) {
                return Err(MountError::Reserved { at: mount.at });
            }
            match retry_on_intr(|| fs::open(&mount.dir, LISTING, Mode::empty())) {
                Ok(dir) => Ok(Root { mount, dir }),
                Err(errno) => Err(MountError::Open { at: mount.at, dir: mount.dir, source: errno.into() }),
            }
        };
        Ok(Self { roots: mounts.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The mounts, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.roots.iter().map(|root| &root.mount)
    }

    /// Reads a whole file of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// If there is no such regular file, or it is larger.
    pub fn read(&self, permit: Permit<ReadFile>, max: usize) -> Result<Vec<u8>, FileError> {
        let op = permit.spend();
        let (file, size) = self.place(op.path(), Purpose::Read, FileError::not_a_file)?.open(OFlags::RDONLY)?;
        let too_large = || FileError::TooLarge { path: op.path().to_string(), limit: max };
        if size > max as u64 {
            return Err(too_large());
        }
        // The file may grow meanwhile: one byte over the limit is enough to know.
        let contents = fill(&file, 0, max.saturating_add(1), size).map_err(|error| failed(op.path(), error))?;
        if contents.len() > max { Err(too_large()) } else { Ok(contents) }
    }

    /// Reads a part of a file, cut to `max` bytes; shorter at the file's end and empty beyond it.
    ///
    /// # Errors
    ///
    /// If there is no such regular file.
    pub fn read_range(&self, permit: Permit<ReadRange>, max: usize) -> Result<Vec<u8>, FileError> {
        let op = permit.spend();
        let (file, size) = self.place(op.path(), Purpose::Read, FileError::not_a_file)?.open(OFlags::RDONLY)?;
        let limit = usize::try_from(op.length()).unwrap_or(max).min(max);
        fill(&file, op.offset(), limit, size.saturating_sub(op.offset())).map_err(|error| failed(op.path(), error))
    }

    /// Lists a directory of at most `max_entries` in the order of the names.
    ///
    /// Names that are not UTF-8 are left out, and so are unfinished files of
    /// [`Mounts::write`]; they count, since they cost the same.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or it holds more entries.
    pub fn list(&self, permit: Permit<ListDirectory>, max_entries: usize) -> Result<Vec<Entry>, FileError> {
        let op = permit.spend();
        let path = op.path();
        let held = self.held(path);
        let found = self
            .find(path)
            .and_then(|(root, names)| root.walk(&names, LISTING))
            .and_then(|dir| read_directory(path, &dir, max_entries));
        let mut entries = match found {
            // What leads to a mount is a directory, whatever the outer folder has there.
            Err(error) if held.is_some() && error.is_absence() => BTreeMap::new(),
            found => found?,
        };
        entries.extend(held.into_iter().flatten().map(|name| (name.to_owned(), (Kind::Directory, 0))));
        if entries.len() > max_entries {
            return Err(FileError::TooManyEntries { path: path.to_string(), limit: max_entries });
        }
        Ok(entries.into_iter().map(|(name, (kind, size))| Entry { name, kind, size }).collect())
    }

    /// Describes a name without opening it; a symbolic link at the end is [`Kind::Other`].
    ///
    /// # Errors
    ///
    /// If nothing has the name.
    pub fn stat(&self, permit: Permit<Stat>) -> Result<Metadata, FileError> {
        let op = permit.spend();
        let path = op.path();
        let found = self.find(path).and_then(|(root, names)| match names.split_last() {
            None => fs::fstat(&root.dir).map_err(|errno| failed(path, errno)),
            Some((name, parents)) => Place { path, parent: root.walk(parents, SEARCH)?, name }.stat(),
        });
        match (found.map(|stat| describe(&stat)), self.held(path)) {
            (Ok(found), None) => Ok(found),
            (Ok(found), Some(_)) if found.kind == Kind::Directory => Ok(found),
            (Err(error), held) if held.is_none() || !error.is_absence() => Err(error),
            (_, _) => Ok(Metadata { kind: Kind::Directory, size: 0, modified: Timestamp::from_millis(0) }),
        }
    }

    /// Replaces a file's contents at once, or creates the file; they are durable when this returns.
    ///
    /// A reader sees the old contents or the new, never a mixture. The new
    /// file keeps the old one's permission bits, but neither its owner nor its
    /// other names: a hard link goes on to hold the old contents. A file that
    /// the host may not write is not replaced, though its directory would allow it.
    ///
    /// # Errors
    ///
    /// If the directory is missing, something else than a file has the name,
    /// or the mount is read-only. The old contents are then unchanged, unless
    /// the last step fails, which makes the new name durable.
    pub fn write(&self, permit: Permit<WriteFile>, contents: &[u8]) -> Result<(), FileError> {
        let op = permit.spend();
        let place = self.place(op.path(), Purpose::Write, FileError::not_a_file)?;
        let old = place.existing_file()?;
        if old.is_some() {
            let access = fs::accessat(&place.parent, place.name, fs::Access::WRITE_OK, AtFlags::empty());
            access.map_err(|errno| failed(op.path(), errno))?;
        }
        // Never setuid or setgid: the contents are now an agent's.
        let mode = old.map(|old| Mode::from_raw_mode(old.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO));
        let mut draft = Draft::create(&place, mode.unwrap_or(NEW_FILE))?;
        draft.file.write_all(contents).map_err(|error| failed(op.path(), error))?;
        if let Some(mode) = mode {
            // The process's umask took its share at creation.
            fs::fchmod(&draft.file, mode).map_err(|errno| failed(op.path(), errno))?;
        }
        draft.file.sync_all().map_err(|error| failed(op.path(), error))?;
        draft.publish()?;
        place.sync()
    }

    /// Adds to the end of a file, or creates it; the addition is durable when this returns.
    ///
    /// Additions of several jobs do not overwrite each other. On a full disk,
    /// a first part of the contents may have been added.
    ///
    /// # Errors
    ///
    /// If the directory is missing, something else than a file has the name, or the mount is read-only.
    pub fn append(&self, permit: Permit<AppendFile>, contents: &[u8]) -> Result<(), FileError> {
        let op = permit.spend();
        let place = self.place(op.path(), Purpose::Write, FileError::not_a_file)?;
        let old = place.existing_file()?;
        let create = if old.is_some() { OFlags::empty() } else { OFlags::CREATE };
        let (mut file, _) = place.open_unasked(OFlags::WRONLY | OFlags::APPEND | create)?;
        file.write_all(contents).map_err(|error| failed(op.path(), error))?;
        file.sync_all().map_err(|error| failed(op.path(), error))?;
        if old.is_some() { Ok(()) } else { place.sync() }
    }

    /// Creates a directory, durably.
    ///
    /// # Errors
    ///
    /// If the name is taken, its parent is missing, or the mount is read-only.
    pub fn create_dir(&self, permit: Permit<CreateDirectory>) -> Result<(), FileError> {
        let op = permit.spend();
        let place = self.place(op.path(), Purpose::Write, |path| FileError::AlreadyExists { path })?;
        fs::mkdirat(&place.parent, place.name, NEW_DIRECTORY).map_err(|errno| failed(op.path(), errno))?;
        place.sync()
    }

    /// Removes a regular file or an empty directory, durably.
    ///
    /// # Errors
    ///
    /// If it is anything else, holds entries, holds a mount, or is on a read-only one.
    pub fn remove(&self, permit: Permit<Remove>) -> Result<(), FileError> {
        let op = permit.spend();
        let place = self.place(op.path(), Purpose::Write, |path| FileError::Mounted { path })?;
        let stat = place.stat()?;
        let removed = match Kind::of(&stat) {
            Kind::Directory => match fs::unlinkat(&place.parent, place.name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    place.discard_drafts();
                    fs::unlinkat(&place.parent, place.name, AtFlags::REMOVEDIR)
                }
                removed => removed,
            },
            // A name that has meanwhile become a link is removed as a name: the link's target stays.
            Kind::File => fs::unlinkat(&place.parent, place.name, AtFlags::empty()),
            Kind::Other => return Err(place.not_a_file(&stat)),
        };
        match removed {
            Err(Errno::EXIST) => Err(FileError::NotEmpty { path: op.path().to_string() }),
            removed => removed.map_err(|errno| failed(op.path(), errno)),
        }?;
        place.sync()
    }

    /// Finds the innermost mount that covers `path`, and the names beneath it.
    fn find<'s, 'a>(&'s self, path: &'a FilePath) -> Result<(&'s Root, Vec<&'a str>), FileError> {
        // The mounts that cover one path are prefixes of one another, so the longest stands last.
        let covering = |root: &'s Root| Some((root, beneath(&root.mount.at, path)?.collect::<Vec<_>>()));
        match self.roots.iter().rev().find_map(covering) {
            None => Err(FileError::Unmounted { path: path.to_string() }),
            Some((_, names)) if names.iter().copied().any(is_draft) => {
                Err(FileError::NotFound { path: path.to_string() })
            }
            Some(found) => Ok(found),
        }
    }

    /// The names that mounts hold directly beneath `path`, if `path` is `/`, a mount, or leads to one.
    fn held(&self, path: &FilePath) -> Option<BTreeSet<&str>> {
        let mut held = path.components().next().is_none().then(BTreeSet::new);
        for mut names in self.roots.iter().filter_map(|root| beneath(path, &root.mount.at)) {
            held.get_or_insert_default().extend(names.next());
        }
        held
    }

    /// Opens the directory that holds the last name of `path`.
    ///
    /// A path that mounts hold in place has no such directory: it is `held`.
    fn place<'a>(
        &self,
        path: &'a FilePath,
        purpose: Purpose,
        held: impl FnOnce(String) -> FileError,
    ) -> Result<Place<'a>, FileError> {
        let found = self.find(path);
        if let (Purpose::Write, Ok((Root { mount: Mount { at, writable: false, .. }, .. }, _))) = (purpose, &found) {
            return Err(FileError::ReadOnly { mount: at.to_string() });
        }
        if self.held(path).is_some() {
            return Err(held(path.to_string()));
        }
        let (root, names) = found?;
        let Some((name, parents)) = names.split_last() else {
            return Err(held(path.to_string()));
        };
        let flags = match purpose {
            Purpose::Read => SEARCH,
            Purpose::Write => LISTING, // only a directory opened for reading can be synced
        };
        Ok(Place { path, parent: root.walk(parents, flags)?, name })
    }
}

impl FileError {
    /// Whether it says that no directory is there to be opened.
    fn is_absence(&self) -> bool {
        use FileError::{NotADirectory, NotFound, SymbolicLink, Unmounted};
        matches!(self, NotFound { .. } | Unmounted { .. } | NotADirectory { .. } | SymbolicLink { .. })
    }

    fn not_a_file(path: String) -> Self {
        Self::NotAFile { path }
    }
}

impl Kind {
    fn of(stat: &fs::Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            _ => Self::Other,
        }
    }
}

/// What a directory is opened for.
#[derive(Clone, Copy)]
enum Purpose {
    Read,
    Write,
}

/// A mount and its folder.
#[derive(Debug)]
struct Root {
    mount: Mount,
    dir: OwnedFd,
}

impl Root {
    /// Opens the directory that `names` lead to, one name after the other.
    fn walk(&self, names: &[&str], flags: OFlags) -> Result<OwnedFd, FileError> {
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
struct Place<'a> {
    /// The name's whole path, for messages.
    path: &'a FilePath,
    parent: OwnedFd,
    name: &'a str,
}

impl Place<'_> {
    fn stat(&self) -> Result<fs::Stat, FileError> {
        stat_at(&self.parent, self.name).map_err(|errno| failed(self.path, errno))
    }

    /// Describes the regular file of this name, if anything has it.
    fn existing_file(&self) -> Result<Option<fs::Stat>, FileError> {
        match self.stat() {
            Ok(stat) if Kind::of(&stat) == Kind::File => Ok(Some(stat)),
            Ok(stat) => Err(self.not_a_file(&stat)),
            Err(FileError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the regular file of this name and says how large it is.
    fn open(&self, flags: OFlags) -> Result<(File, u64), FileError> {
        match self.existing_file()? {
            Some(_) => self.open_unasked(flags),
            None => Err(failed(self.path, Errno::NOENT)),
        }
    }

    /// Opens the name and looks at what was opened, which may be something
    /// else than a moment ago. It cannot be a link, and it cannot block.
    fn open_unasked(&self, flags: OFlags) -> Result<(File, u64), FileError> {
        let opened = open_at(&self.parent, self.name, flags, NEW_FILE)
            .and_then(|file| Ok((fs::fstat(&file)?, File::from(file))))
            .map_err(|errno| failed(self.path, errno));
        let (stat, file) = opened?;
        if Kind::of(&stat) == Kind::File { Ok((file, describe(&stat).size)) } else { Err(self.not_a_file(&stat)) }
    }

    /// Makes what happened to the name durable.
    fn sync(&self) -> Result<(), FileError> {
        match retry_on_intr(|| fs::fsync(&self.parent)) {
            Ok(()) | Err(Errno::INVAL) => Ok(()), // a file system that does not sync directories
            Err(errno) => Err(failed(self.path, errno)),
        }
    }

    /// Clears the directory of this name of drafts, if it holds nothing else.
    ///
    /// They are what a host left that was killed while it wrote. An agent does
    /// not see them, so a directory it has emptied must be empty. A write that
    /// is under way there meets the removal and fails, as it would a moment
    /// later. Whatever cannot be cleared shows when the directory is removed.
    fn discard_drafts(&self) {
        let Ok(dir) = open_at(&self.parent, self.name, LISTING, Mode::empty()) else { return };
        let Ok(mut entries) = fs::Dir::read_from(&dir) else { return };
        let is_draft = |entry: &fs::DirEntry| entry.file_name().to_str().is_ok_and(is_draft);
        let is_itself = |entry: &fs::DirEntry| matches!(entry.file_name().to_bytes(), b"." | b"..");
        if entries.all(|entry| entry.is_ok_and(|entry| is_itself(&entry) || is_draft(&entry))) {
            entries.rewind();
            for draft in entries.map_while(Result::ok).filter(is_draft) {
                let _ = fs::unlinkat(&dir, draft.file_name(), AtFlags::empty());
            }
        }
    }

    fn not_a_file(&self, stat: &fs::Stat) -> FileError {
        let path = self.path.to_string();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => FileError::SymbolicLink { path },
            _ => FileError::NotAFile { path },
        }
    }
}

/// A file under a name that no agent can say, until it takes the place of another.
struct Draft<'a> {
    place: &'a Place<'a>,
    name: String,
    file: File,
    published: bool,
}

impl<'a> Draft<'a> {
    fn create(place: &'a Place<'a>, mode: Mode) -> Result<Self, FileError> {
        loop {
            let number = getrandom::u64()
                .map_err(|error| FileError::Io { path: place.path.to_string(), reason: error.to_string() })?;
            let name = format!("{DRAFT_PREFIX}{number:016x}{DRAFT_SUFFIX}");
            match open_at(&place.parent, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode) {
                Ok(file) => return Ok(Self { place, name, file: file.into(), published: false }),
                Err(Errno::EXIST) => {} // draw again
                Err(errno) => return Err(failed(place.path, errno)),
            }
        }
    }

    /// Puts the draft where it belongs. A link that stands there meanwhile is replaced, not followed.
    fn publish(mut self) -> Result<(), FileError> {
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
fn open_at(dir: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| fs::openat(dir, name, flags | ALWAYS, mode))
}

/// Describes one name in a directory, a link as a link.
fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<fs::Stat, Errno> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_link(dir: &OwnedFd, name: &str) -> bool {
    stat_at(dir, name).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Reads a directory's entries, of which there may be `max`.
fn read_directory(path: &FilePath, dir: &OwnedFd, max: usize) -> Result<BTreeMap<String, (Kind, u64)>, FileError> {
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
fn fill(file: &File, offset: u64, limit: usize, expected: u64) -> io::Result<Vec<u8>> {
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

fn describe(stat: &fs::Stat) -> Metadata {
    let kind = Kind::of(stat);
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    Metadata { kind, size, modified: instant(stat.st_mtime, stat.st_mtime_nsec) }
}

/// An instant of the file system, whose integer types differ from one system to the next.
fn instant(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<i64>) -> Timestamp {
    let seconds = seconds.try_into().unwrap_or(0);
    let nanoseconds = nanoseconds.try_into().unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000))
}

/// The names that lead from `outer` to `inner`, none if they are equal.
fn beneath<'a>(outer: &FilePath, inner: &'a FilePath) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
    let mut names = inner.components();
    outer.components().all(|name| names.next() == Some(name)).then_some(names)
}

/// The path of what `names` lead to from `at`.
fn join(at: &FilePath, names: &[&str]) -> String {
    at.components().chain(names.iter().copied()).fold(String::new(), |path, name| path + "/" + name)
}

/// Whether the host keeps names of this form for itself, on file systems that ignore case too.
fn is_draft(name: &str) -> bool {
    let name = name.as_bytes();
    let begins = name.get(..DRAFT_PREFIX.len()).is_some_and(|it| it.eq_ignore_ascii_case(DRAFT_PREFIX.as_bytes()));
    begins && name[name.len().saturating_sub(DRAFT_SUFFIX.len())..].eq_ignore_ascii_case(DRAFT_SUFFIX.as_bytes())
}

/// Says what a failure of the system means to an agent.
fn failed(path: impl ToString, error: impl Into<io::Error>) -> FileError {
    let path = path.to_string();
    let error = error.into();
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => FileError::NotFound { path },
        Some(Errno::EXIST) => FileError::AlreadyExists { path },
        Some(Errno::NOTDIR) => FileError::NotADirectory { path },
        Some(Errno::NOTEMPTY) => FileError::NotEmpty { path },
        Some(Errno::LOOP) => FileError::SymbolicLink { path },
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => FileError::Denied { path },
        Some(Errno::NAMETOOLONG | Errno::ILSEQ) => FileError::Invalid { path },
        // A pipe without a reader, a socket, a device without a driver.
        Some(Errno::ISDIR | Errno::NXIO | Errno::NODEV) => FileError::NotAFile { path },
        _ => FileError::Io { path, reason: error.to_string() },
    }
}

const DRAFT_PREFIX: &str = ".leasehold-";
const DRAFT_SUFFIX: &str = ".tmp";

/// Before the process's umask.
const NEW_FILE: Mode = Mode::from_raw_mode(0o644);
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o755);

const ALWAYS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const LISTING: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// To pass through a directory, it need not be readable.
#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = LISTING;

const OFFSET_MAX: u64 = i64::MAX.unsigned_abs();
const GROWTH_BYTES_MIN: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs as host,
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

    use leasehold_core::lease::{Authority, Lease, gate::Gate, operation::Operation};
    use tempfile::TempDir;

    use super::*;

    const MAX: usize = 1 << 20;

    /// A folder that is mounted and a folder that is not.
    struct House {
        inside: TempDir,
        outside: TempDir,
    }

    impl House {
        fn new() -> Self {
            let house = Self { inside: TempDir::new().unwrap(), outside: TempDir::new().unwrap() };
            host::write(house.outside.path().join("canary"), "canary").unwrap();
            host::write(house.inside.path().join("file"), "inside").unwrap();
            host::create_dir(house.inside.path().join("dir")).unwrap();
            house
        }

        fn path(&self, name: &str) -> PathBuf {
            self.inside.path().join(name)
        }

        fn mounts(&self) -> Mounts {
            mounts(&[("/w", self.inside.path(), true)])
        }

        /// Everything outside is as it was.
        fn assert_nothing_escaped(&self) {
            let names: Vec<_> =
                host::read_dir(self.outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["canary"]);
            assert_eq!(host::read(self.outside.path().join("canary")).unwrap(), b"canary");
        }
    }

    fn mount(at: &str, dir: &Path, writable: bool) -> Mount {
        Mount { at: FilePath::parse(at).unwrap(), dir: dir.to_owned(), writable }
    }

    fn mounts(table: &[(&str, &Path, bool)]) -> Mounts {
        Mounts::open(table.iter().map(|(at, dir, writable)| mount(at, dir, *writable)).collect()).unwrap()
    }

    fn permit<Op: Operation>(op: Op) -> Permit<Op> {
        let everything = ["fs.read", "fs.write"].map(|namespace| (namespace.to_owned(), vec!["/**".to_owned()]));
        let lease = Lease::parse(&BTreeMap::from(everything)).unwrap();
        Gate::new(Authority { lease, expires_at: None }).permit(Timestamp::from_millis(0), op).unwrap()
    }

    fn read(mounts: &Mounts, path: &str) -> Result<Vec<u8>, FileError> {
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

    fn stat(mounts: &Mounts, path: &str) -> Result<(Kind, u64), FileError> {
        mounts.stat(permit(Stat::parse(path).unwrap())).map(|found| (found.kind, found.size))
    }

    fn write(mounts: &Mounts, path: &str, contents: &[u8]) -> Result<(), FileError> {
        mounts.write(permit(WriteFile::parse(path).unwrap()), contents)
    }

    fn append(mounts: &Mounts, path: &str, contents: &[u8]) -> Result<(), FileError> {
        mounts.append(permit(AppendFile::parse(path).unwrap()), contents)
    }

    fn create_dir(mounts: &Mounts, path: &str) -> Result<(), FileError> {
        mounts.create_dir(permit(CreateDirectory::parse(path).unwrap()))
    }

    fn remove(mounts: &Mounts, path: &str) -> Result<(), FileError> {
        mounts.remove(permit(Remove::parse(path).unwrap()))
    }

    /// The name of the variant, which is all that a table compares.
    fn outcome<T>(result: Result<T, FileError>) -> String {
        match result {
            Ok(_) => "Ok".to_owned(),
            Err(error) => format!("{error:?}").split(' ').next().unwrap().to_owned(),
        }
    }

    /// Every effect on one path, in the order of the table beneath.
    fn all_outcomes(mounts: &Mounts, path: &str) -> [String; 8] {
        [
            outcome(read(mounts, path)),
            outcome(read_range(mounts, path, 0, 1)),
            outcome(list(mounts, path)),
            outcome(stat(mounts, path)),
            outcome(write(mounts, path, b"x")),
            outcome(append(mounts, path, b"x")),
            outcome(create_dir(mounts, path)),
            outcome(remove(mounts, path)),
        ]
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
        let other =
            ["NotAFile", "NotAFile", "NotADirectory", "Ok", "NotAFile", "NotAFile", "AlreadyExists", "NotAFile"];
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
        let draft = Draft::create(&place, NEW_FILE).unwrap();
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
        assert_eq!(outcome(append(&mounts, "/w/file", b"x")), "Denied");
        assert_eq!(outcome(write(&mounts, "/w/file", b"x")), "Denied");
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
}
