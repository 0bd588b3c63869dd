//! Why a mount cannot be opened, and why a permitted effect did not happen.

use std::{io, path::PathBuf};

use leasehold_core::{error::ErrorCode, lease::target::FilePath};
use rustix::io::Errno;

use super::place::{DRAFT_PREFIX, DRAFT_SUFFIX};

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

impl FileError {
    /// Whether it says that no directory is there to be opened.
    pub(super) fn is_absence(&self) -> bool {
        use FileError::{NotADirectory, NotFound, SymbolicLink, Unmounted};
        matches!(self, NotFound { .. } | Unmounted { .. } | NotADirectory { .. } | SymbolicLink { .. })
    }

    pub(super) fn not_a_file(path: String) -> Self {
        Self::NotAFile { path }
    }
}

/// Says what a failure of the system means to an agent.
pub(super) fn failed(path: impl ToString, error: impl Into<io::Error>) -> FileError {
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
