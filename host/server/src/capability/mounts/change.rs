//! The effects that change something, and what they ask of a name before they begin.

use std::{fmt, io::Write as _};

use leasehold_core::{
    id::JobId,
    lease::{
        gate::Permit,
        operation::{AppendFile, CreateDirectory, Operation, Remove, WriteFile},
        target::FilePath,
    },
};
use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    FileError, Kind, Mounts, Purpose,
    error::failed,
    place::{Draft, NEW_DIRECTORY, NEW_FILE, Place},
};

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file is replaced or created.
    Write,
    /// A file gets longer or is created.
    Append,
    /// A directory is created.
    CreateDirectory,
    /// A file or an empty directory is removed.
    Remove,
}

/// An operation that changes a name.
pub trait Changes: Operation {
    /// How.
    const CHANGE: Change;

    /// The name.
    fn path(&self) -> &FilePath;
}

macro_rules! changes {
    ($($operation:ty => $change:ident),+ $(,)?) => {$(
        impl Changes for $operation {
            const CHANGE: Change = Change::$change;

            fn path(&self) -> &FilePath {
                self.path()
            }
        }
    )+};
}

changes! {
    WriteFile => Write,
    AppendFile => Append,
    CreateDirectory => CreateDirectory,
    Remove => Remove,
}

/// The call that an effect belongs to: the same one when it is made again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whose it is.
    pub job_id: JobId,
    /// The how-manieth call of the job it is.
    pub number: u64,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.job_id, self.number)
    }
}

impl Mounts {
    /// Replaces a file's contents at once, or creates the file; they are durable when this returns.
    ///
    /// A reader sees the old contents or the new, never a mixture. The new
    /// file keeps the old one's permission bits, but neither its owner nor its
    /// other names: a hard link goes on to hold the old contents. A file that
    /// the host may not write is not replaced, though its directory would allow it.
    ///
    /// A host that is killed meanwhile may leave a draft behind. It has the
    /// name of the call, so the same call replaces it, and [`Mounts::settle`] removes it.
    ///
    /// # Errors
    ///
    /// If the directory is missing, something else than a file has the name,
    /// or the mount is read-only. The old contents are then unchanged, unless
    /// the last step fails, which makes the new name durable.
    pub fn write(&self, permit: Permit<WriteFile>, call: Call, contents: &[u8]) -> Result<(), FileError> {
        let op = permit.spend();
        let (place, old) = self.ready(Change::Write, op.path())?;
        // Never setuid or setgid: the contents are now an agent's.
        let mode = old.map(|old| Mode::from_raw_mode(old.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO));
        let mut draft = Draft::create(&place, call, mode.unwrap_or(NEW_FILE))?;
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
        let (place, old) = self.ready(Change::Append, op.path())?;
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
        let (place, _) = self.ready(Change::CreateDirectory, op.path())?;
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
        let (place, old) = self.ready(Change::Remove, op.path())?;
        let unlink = |flags| fs::unlinkat(&place.parent, place.name, flags);
        let removed = if old.is_some_and(|old| Kind::of(&old) == Kind::Directory) {
            match unlink(AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    place.discard_drafts();
                    unlink(AtFlags::REMOVEDIR)
                }
                removed => removed,
            }
        } else {
            // A name that has meanwhile become a link is removed as a name: the link's target stays.
            unlink(AtFlags::empty())
        };
        match removed {
            Err(Errno::EXIST) => Err(FileError::NotEmpty { path: op.path().to_string() }),
            removed => removed.map_err(|errno| failed(op.path(), errno)),
        }?;
        place.sync()
    }

    /// Opens the place of a change and says what has the name, or why the change cannot be.
    ///
    /// Whatever can be known before an effect is asked here, by the effect
    /// itself and by whoever looks first, so that both hear the same.
    pub(super) fn ready<'a>(
        &self,
        change: Change,
        path: &'a FilePath,
    ) -> Result<(Place<'a>, Option<fs::Stat>), FileError> {
        let place = self.place(path, Purpose::Write, |path| match change {
            Change::Write | Change::Append => FileError::NotAFile { path },
            Change::CreateDirectory => FileError::AlreadyExists { path },
            Change::Remove => FileError::Mounted { path },
        })?;
        let old = place.existing()?;
        match (change, old.as_ref().map(|old| (Kind::of(old), old))) {
            (Change::Write | Change::Append | Change::CreateDirectory, None) => place.may_rename()?,
            (Change::Write, Some((Kind::File, _))) => place.may_write().and_then(|()| place.may_rename())?,
            (Change::Append, Some((Kind::File, _))) => place.may_write()?,
            (Change::Remove, Some((Kind::Directory, _))) if place.holds_entries() => {
                return Err(failed(path, Errno::NOTEMPTY));
            }
            (Change::Remove, Some((Kind::File | Kind::Directory, _))) => place.may_rename()?,
            (Change::Remove, None) => return Err(failed(path, Errno::NOENT)),
            (Change::CreateDirectory, Some(_)) => return Err(failed(path, Errno::EXIST)),
            (Change::Write | Change::Append | Change::Remove, Some((_, old))) => return Err(place.not_a_file(old)),
        }
        Ok((place, old))
    }
}
