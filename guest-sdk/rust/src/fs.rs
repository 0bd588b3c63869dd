//! The files the lease grants: `fs.read` and `fs.write` (ARCP §9.2).
//!
//! A path is absolute and names a place in the job's own tree. `//` and `.`
//! collapse; `..` and symbolic links are refused. Every function can fail with
//! `lease-expired`, `budget-exhausted`, `permission-denied` and `cancelled`, in
//! addition to what it says itself.

use std::{
    cmp,
    io::{self, BufRead, Read, Seek, SeekFrom},
};

#[doc(inline)]
pub use crate::bindings::fs::Kind;
use crate::{Error, ErrorCode, Timestamp, bindings::fs};

/// How much [`File`] asks for at a time.
const BUFFER_SIZE: u64 = 256 * 1024;

/// Reads a whole file. Needs `fs.read` on `path`.
///
/// # Errors
///
/// `too-large` over the host's read limit (default 16 MiB), where [`open`] is
/// the way; `not-found`, `not-a-file`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let logo = leasehold_agent::fs::read("/workspace/logo.png")?;
/// # Ok(())
/// # }
/// ```
pub fn read(path: impl AsRef<str>) -> Result<Vec<u8>, Error> {
    Ok(fs::read(path.as_ref())?)
}

/// Reads a whole file as UTF-8. Needs `fs.read` on `path`.
///
/// # Errors
///
/// Those of [`read`], and `invalid-request` for a file that is not UTF-8.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let notes = leasehold_agent::fs::read_to_string("/workspace/notes.txt")?;
/// # Ok(())
/// # }
/// ```
pub fn read_to_string(path: impl AsRef<str>) -> Result<String, Error> {
    let path = path.as_ref();
    String::from_utf8(read(path)?).map_err(|_| Error::invalid_request(format!("{path} is not UTF-8")))
}

/// Reads at most `length` bytes from `offset`. Needs `fs.read` on `path`.
///
/// Gives fewer at the end of the file, none beyond it, and never more than the
/// host's read limit (default 16 MiB).
///
/// # Errors
///
/// `not-found`, `not-a-file`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let header = leasehold_agent::fs::read_range("/workspace/logo.png", 0, 8)?;
/// # Ok(())
/// # }
/// ```
pub fn read_range(path: impl AsRef<str>, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    Ok(fs::read_range(path.as_ref(), offset, length)?)
}

/// One entry of a directory, as [`list`] and [`walk`] give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole path, ready for [`read`] or [`list`].
    pub path: String,
    /// The last part of the path.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes for a file, 0 for everything else.
    pub size: u64,
}

impl Entry {
    /// Tells whether it is a file that can be read.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut entries = leasehold_agent::fs::list("/workspace")?;
    /// entries.retain(|entry| entry.is_file());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// Tells whether it is a directory that can be listed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut entries = leasehold_agent::fs::list("/workspace")?;
    /// entries.retain(|entry| entry.is_dir());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// Lists a directory in the order of its names. Needs `fs.read` on `path`.
///
/// Names that are not UTF-8 are left out.
///
/// # Errors
///
/// `too-large` over the host's limit (default 65,536 entries), `not-found`,
/// `not-a-directory`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// for entry in leasehold_agent::fs::list("/workspace")? {
///     leasehold_agent::info!("{} has {} bytes", entry.path, entry.size);
/// }
/// # Ok(())
/// # }
/// ```
pub fn list(path: impl AsRef<str>) -> Result<Vec<Entry>, Error> {
    let path = path.as_ref();
    let folder = path.trim_end_matches('/');
    let entry = |fs::Entry { name, kind, size }| Entry { path: format!("{folder}/{name}"), name, kind, size };
    Ok(fs::list(path)?.into_iter().map(entry).collect())
}

/// What is known of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Bytes for a file, 0 for everything else.
    pub size: u64,
    /// When it was last changed.
    pub modified: Timestamp,
}

/// Describes a file or directory without opening it. Needs `fs.read` on `path`.
///
/// # Errors
///
/// `not-found`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let bytes = leasehold_agent::fs::metadata("/workspace/notes.txt")?.size;
/// # Ok(())
/// # }
/// ```
pub fn metadata(path: impl AsRef<str>) -> Result<Metadata, Error> {
    let stat = fs::stat(path.as_ref())?;
    Ok(Metadata { kind: stat.kind, size: stat.size, modified: Timestamp::new(stat.modified) })
}

/// Replaces a file's contents at once, or creates the file. Needs `fs.write` on `path`.
///
/// A reader sees the old contents or the new, never a mixture.
///
/// # Errors
///
/// `not-found` without its directory, `not-a-file`, `too-large` over the host's
/// write limit (default 16 MiB).
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::fs::write("/workspace/report.md", "# Report\n")?;
/// # Ok(())
/// # }
/// ```
pub fn write(path: impl AsRef<str>, contents: impl AsRef<[u8]>) -> Result<(), Error> {
    Ok(fs::write(path.as_ref(), contents.as_ref())?)
}

/// Adds to the end of a file, or creates it. Needs `fs.write` on `path`.
///
/// # Errors
///
/// Those of [`write()`], and `unknown-outcome` if the host stopped meanwhile.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::fs::append("/workspace/diary.txt", "a quiet day\n")?;
/// # Ok(())
/// # }
/// ```
pub fn append(path: impl AsRef<str>, contents: impl AsRef<[u8]>) -> Result<(), Error> {
    Ok(fs::append(path.as_ref(), contents.as_ref())?)
}

/// Creates a directory. Needs `fs.write` on `path`.
///
/// # Errors
///
/// `already-exists`, and `not-found` without its parent.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::fs::create_dir("/workspace/chapters")?;
/// # Ok(())
/// # }
/// ```
pub fn create_dir(path: impl AsRef<str>) -> Result<(), Error> {
    Ok(fs::create_dir(path.as_ref())?)
}

/// Removes a file or an empty directory. Needs `fs.write` on `path`.
///
/// # Errors
///
/// `not-found`, `not-empty`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::fs::remove("/workspace/draft.txt")?;
/// # Ok(())
/// # }
/// ```
pub fn remove(path: impl AsRef<str>) -> Result<(), Error> {
    Ok(fs::remove(path.as_ref())?)
}

/// Opens a file of any size to read it in parts. Needs `fs.read` on `path`.
///
/// # Errors
///
/// `not-found`, `not-a-file`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// use std::io::BufRead;
///
/// for line in leasehold_agent::fs::open("/workspace/server.log")?.lines() {
///     leasehold_agent::debug!("{}", line?);
/// }
/// # Ok(())
/// # }
/// ```
pub fn open(path: impl Into<String>) -> Result<File, Error> {
    let path = path.into();
    let Metadata { kind, size, .. } = metadata(&path)?;
    if kind != Kind::File {
        return Err(Error::new(ErrorCode::NotAFile, format!("{path} is not a file")));
    }
    Ok(File::new(path, size, |path, offset, length| read_range(path, offset, length)))
}

/// A file that is read in parts, through a buffer.
///
/// The host keeps nothing open: each part is asked for by path, and the lease
/// is checked each time. A file that changes meanwhile is read as it changes.
#[derive(Debug)]
pub struct File {
    path: String,
    size: u64,
    position: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffered_from: u64,
    read_range: fn(&str, u64, u64) -> Result<Vec<u8>, Error>,
}

impl File {
    fn new(path: String, size: u64, read_range: fn(&str, u64, u64) -> Result<Vec<u8>, Error>) -> Self {
        Self { path, size, position: 0, buffer: Vec::new(), buffered_from: 0, read_range }
    }

    /// Gives the size it had when it was opened.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let bytes = leasehold_agent::fs::open("/workspace/server.log")?.size();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of the buffer from the position on.
    fn buffered(&self) -> &[u8] {
        let skipped = self.position.checked_sub(self.buffered_from).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.buffer.get(skipped..)).unwrap_or_default()
    }
}

impl BufRead for File {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffered().is_empty() {
            self.buffer = (self.read_range)(&self.path, self.position, BUFFER_SIZE)?;
            self.buffered_from = self.position;
        }
        Ok(self.buffered())
    }

    fn consume(&mut self, amount: usize) {
        self.position = self.position.saturating_add(cmp::min(amount, self.buffered().len()) as u64);
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(into)?;
        self.consume(amount);
        Ok(amount)
    }
}

impl Seek for File {
    /// Moves the position, also beyond the end; the end is where it was when the file was opened.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.size.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Walks a directory and all below it, in the order of names. Needs `fs.read` on each directory.
///
/// A directory comes before what it holds, and it is listed only when the walk
/// goes on. A directory that cannot be listed is one error; the walk goes on
/// beside it.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let mut walk = leasehold_agent::fs::walk("/workspace");
/// while let Some(entry) = walk.next() {
///     let entry = entry?;
///     if entry.is_dir() && entry.name == "target" {
///         walk.skip_dir();
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn walk(path: impl Into<String>) -> Walk {
    Walk { next_dir: Some(path.into()), waiting: Vec::new(), list: |path| list(path) }
}

/// The iterator that [`walk`] gives.
#[derive(Debug)]
#[must_use = "a walk is lazy"]
pub struct Walk {
    /// The directory that was given last, to be listed before anything else.
    next_dir: Option<String>,
    /// What is still to be given, the next one last.
    waiting: Vec<Entry>,
    list: fn(&str) -> Result<Vec<Entry>, Error>,
}

impl Walk {
    /// Leaves out what the directory holds that was given last.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut walk = leasehold_agent::fs::walk("/workspace");
    /// if let Some(Ok(entry)) = walk.next() {
    ///     walk.skip_dir();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn skip_dir(&mut self) {
        self.next_dir = None;
    }
}

impl Iterator for Walk {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(dir) = self.next_dir.take() {
            match (self.list)(&dir) {
                Ok(entries) => self.waiting.extend(entries.into_iter().rev()),
                Err(error) => return Some(Err(error)),
            }
        }
        let entry = self.waiting.pop()?;
        if entry.is_dir() {
            self.next_dir = Some(entry.path.clone());
        }
        Some(Ok(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(path: &str, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        assert_eq!(path, "/digits");
        let end = offset.saturating_add(length).min(1_000_000);
        Ok((offset..end).map(|n| b'0' + (n % 10) as u8).collect())
    }

    #[test]
    fn a_file_is_read_from_where_one_is() {
        let mut file = File::new("/digits".into(), 1_000_000, digits);
        for (to, position, expected) in [
            (SeekFrom::Start(3), 3, "345"),
            (SeekFrom::Current(1), 7, "789"),   // within the buffer
            (SeekFrom::Current(-8), 2, "234"),  // back
            (SeekFrom::End(-2), 999_998, "89"), // shorter at the end
            (SeekFrom::Start(1), 1, "123"),     // before the buffer
            (SeekFrom::End(5), 1_000_005, ""),  // beyond the end
            (SeekFrom::Start(262_143), 262_143, "345"),
        ] {
            assert_eq!(file.seek(to).unwrap(), position);
            let mut text = String::new();
            file.by_ref().take(3).read_to_string(&mut text).unwrap();
            assert_eq!(text, expected, "{to:?}");
        }
        assert!(file.seek(SeekFrom::Current(-300_000)).is_err());
        file.rewind().unwrap();
        assert_eq!(io::copy(&mut file, &mut io::sink()).unwrap(), 1_000_000);
    }

    fn tree(path: &str) -> Result<Vec<Entry>, Error> {
        let entry = |name: &str, kind| Entry { path: format!("{path}/{name}"), name: name.into(), kind, size: 0 };
        match path {
            "/w" => Ok(vec![
                entry("a", Kind::Directory),
                entry("b", Kind::Directory),
                entry("c.txt", Kind::File),
                entry("d", Kind::Directory),
            ]),
            "/w/a" => Ok(vec![entry("link", Kind::Other), entry("x.txt", Kind::File)]),
            "/w/b" => Err(Error::new(ErrorCode::PermissionDenied, "not b")),
            "/w/d" => Ok(vec![entry("y.txt", Kind::File)]),
            _ => panic!("{path} is not to be listed"),
        }
    }

    #[test]
    fn a_walk_goes_down_first_and_past_what_it_cannot_enter() {
        let mut walk = Walk { list: tree, ..walk("/w") };
        let mut seen = Vec::new();
        while let Some(entry) = walk.next() {
            let path = entry.map(|entry| entry.path).unwrap_or_else(|error| error.message().to_owned());
            if path == "/w/d" {
                walk.skip_dir();
            }
            seen.push(path);
        }
        assert_eq!(seen, ["/w/a", "/w/a/link", "/w/a/x.txt", "/w/b", "not b", "/w/c.txt", "/w/d"]);
    }
}
