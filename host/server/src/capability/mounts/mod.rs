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
//! A change is made so that a recovery can finish it exactly once: the name is
//! [held](Mounts::hold), [looked at](Mounts::look), what was found is written
//! down, and then the effect takes place. After a crash in between,
//! [`Mounts::settle`] tells from the name whether it did. This stands on one
//! host at a time running a job: a host that was only thought dead, and wakes
//! before its effect, still makes it.
//!
//! All but [`Mounts::hold`] block. A caller on an async runtime calls them in
//! `spawn_blocking`; an effect that has begun there ends, whether or not
//! anybody still waits for it.

mod change;
mod error;
mod hold;
mod place;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use leasehold_core::{
    lease::{
        gate::Permit,
        operation::{ListDirectory, ReadFile, ReadRange, Stat},
        target::FilePath,
    },
    time::Timestamp,
};
use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::retry_on_intr,
};
use serde::{Deserialize, Serialize};

pub use self::{
    change::{Call, Change, Changes},
    error::{FileError, MountError},
    hold::Held,
    settle::{Before, Fingerprint, Found, Settled},
};
use self::{
    error::failed,
    hold::Names,
    place::{LISTING, Place, Root, SEARCH, describe, fill, is_draft, read_directory},
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
    names: Names,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
            let dir = retry_on_intr(|| fs::open(&mount.dir, LISTING, Mode::empty())).map_err(io::Error::from);
            match dir.and_then(|dir| Ok((dir, mount.dir.canonicalize()?))) {
                Ok((dir, real)) => Ok(Root { mount, dir, real }),
                Err(source) => Err(MountError::Open { at: mount.at, dir: mount.dir, source }),
            }
        };
        let roots = mounts.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { roots, names: Names::default() })
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
            Purpose::Write | Purpose::Settle => LISTING, // only a directory opened for reading can be synced
        };
        Ok(Place { path, parent: root.walk(parents, flags)?, name })
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
    /// To find out what a change has done, though the mount may since have become read-only.
    Settle,
}

/// The names that lead from `outer` to `inner`, none if they are equal.
fn beneath<'a>(outer: &FilePath, inner: &'a FilePath) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
    let mut names = inner.components();
    outer.components().all(|name| names.next() == Some(name)).then_some(names)
}

#[cfg(test)]
mod tests;
