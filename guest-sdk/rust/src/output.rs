//! A result too large for one message, streamed (ARCP §8.4). Needs no grant.
//!
//! A job that wrote anything here has a streamed result: its function then
//! returns `()` or a summary `String`. Text and bytes cannot be mixed in one
//! result.

use std::{fmt, io, mem};

use crate::{Error, bindings::output};

/// How much a writer gathers before it calls the host.
const GATHERED_MAX: usize = 64 * 1024;

/// Adds text to the result, at once.
///
/// # Errors
///
/// `too-large` over the host's limit (default 256 MiB), `invalid-request` after
/// [`finish`] or when bytes were written.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::output::write_text("# Report\n")?;
/// # Ok(())
/// # }
/// ```
pub fn write_text(text: impl AsRef<str>) -> Result<(), Error> {
    Ok(output::write_text(text.as_ref())?)
}

/// Adds bytes to the result, at once.
///
/// # Errors
///
/// `too-large` over the host's limit (default 256 MiB), `invalid-request` after
/// [`finish`] or when text was written.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::output::write_bytes(b"\x89PNG")?;
/// # Ok(())
/// # }
/// ```
pub fn write_bytes(bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    Ok(output::write_bytes(bytes.as_ref())?)
}

/// Ends the result; the host does so itself when the agent returns.
///
/// # Errors
///
/// `invalid-request` if it has ended already.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::output::write_text("all there is")?;
/// leasehold_agent::output::finish()?;
/// # Ok(())
/// # }
/// ```
pub fn finish() -> Result<(), Error> {
    Ok(output::finish()?)
}

/// A buffered [`io::Write`] into the result, as bytes.
///
/// Dropping it writes what it still holds, and loses the error if that fails;
/// [`Writer::finish`] does not.
#[derive(Debug)]
pub struct Writer {
    gathered: Vec<u8>,
    write: fn(&[u8]) -> Result<(), Error>,
}

impl Writer {
    /// Makes a writer; nothing is written yet.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// use leasehold_agent::{fs, output};
    ///
    /// let mut writer = output::Writer::new();
    /// std::io::copy(&mut fs::open("/workspace/video.mp4")?, &mut writer)?;
    /// writer.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::over(|bytes| write_bytes(bytes))
    }

    fn over(write: fn(&[u8]) -> Result<(), Error>) -> Self {
        Self { gathered: Vec::new(), write }
    }

    /// Writes what is left and ends the result.
    ///
    /// # Errors
    ///
    /// Those of [`write_bytes`] and [`finish`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::output::Writer::new().finish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(mut self) -> Result<(), Error> {
        self.send()?;
        finish()
    }

    fn send(&mut self) -> Result<(), Error> {
        let bytes = mem::take(&mut self.gathered);
        if bytes.is_empty() { Ok(()) } else { (self.write)(&bytes) }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_MAX {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.send()?)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody is left to be told; `finish` is the way to know.
        self.send().ok();
    }
}

/// A buffered writer into the result, as text.
///
/// `write!` and `writeln!` answer with an [`Error`] of the host; the same
/// writer is a [`fmt::Write`] where one is asked for. Dropping it writes what it
/// still holds, and loses the error if that fails; [`TextWriter::finish`] does not.
#[derive(Debug)]
pub struct TextWriter {
    gathered: String,
    /// Why [`fmt::Write`] failed: a [`fmt::Error`] cannot say.
    failed: Option<Error>,
    write: fn(&str) -> Result<(), Error>,
}

impl TextWriter {
    /// Makes a writer; nothing is written yet.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut report = leasehold_agent::output::TextWriter::new();
    /// writeln!(report, "# {} files", 12)?;
    /// report.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::over(|text| write_text(text))
    }

    fn over(write: fn(&str) -> Result<(), Error>) -> Self {
        Self { gathered: String::new(), failed: None, write }
    }

    /// Adds a text.
    ///
    /// # Errors
    ///
    /// Those of [`write_text`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::output::TextWriter::new().write_str("# Report\n")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_str(&mut self, text: &str) -> Result<(), Error> {
        self.gathered.push_str(text);
        if self.gathered.len() >= GATHERED_MAX { self.flush() } else { Ok(()) }
    }

    /// Adds what a format string and its arguments say: the method behind `write!`.
    ///
    /// # Errors
    ///
    /// Those of [`write_text`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut report = leasehold_agent::output::TextWriter::new();
    /// write!(report, "{} words", 512)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> Result<(), Error> {
        fmt::write(self, arguments).map_err(|error| self.failed.take().unwrap_or_else(|| error.into()))
    }

    /// Hands over what was gathered, so that watchers see it now.
    ///
    /// # Errors
    ///
    /// Those of [`write_text`], also of an earlier write through [`fmt::Write`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut report = leasehold_agent::output::TextWriter::new();
    /// writeln!(report, "the first chapter")?;
    /// report.flush()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush(&mut self) -> Result<(), Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let text = mem::take(&mut self.gathered);
        if text.is_empty() { Ok(()) } else { (self.write)(&text) }
    }

    /// Writes what is left and ends the result.
    ///
    /// # Errors
    ///
    /// Those of [`TextWriter::flush`] and [`finish`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::output::TextWriter::new().finish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        finish()
    }
}

impl Default for TextWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for TextWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Self::write_str(self, text).map_err(|error| {
            self.failed = Some(error);
            fmt::Error
        })
    }
}

impl Drop for TextWriter {
    fn drop(&mut self) {
        // Nobody is left to be told; `finish` is the way to know.
        self.flush().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io::Write};

    use super::*;
    use crate::ErrorCode;

    thread_local! {
        static SENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    fn count(size: usize) -> Result<(), Error> {
        SENT.with_borrow_mut(|sent| sent.push(size));
        Ok(())
    }

    fn refuse<T: ?Sized>(_: &T) -> Result<(), Error> {
        Err(Error::new(ErrorCode::TooLarge, "256 MiB are enough"))
    }

    #[test]
    fn small_writes_become_few_calls_and_none_is_lost() {
        let mut writer = TextWriter::over(|text| count(text.len()));
        for _ in 0..3 {
            writer.write_str(&"é".repeat(15_000)).unwrap();
        }
        writer.flush().unwrap();
        writer.flush().unwrap();
        write!(writer, "the end").unwrap();
        drop(writer);
        assert_eq!(SENT.take(), [90_000, 7]);

        let mut writer = Writer::over(|bytes| count(bytes.len()));
        for _ in 0..3 {
            writer.write_all(&[0; 30_000]).unwrap();
        }
        writer.flush().unwrap();
        writer.write_all(b"the end").unwrap();
        drop(writer);
        assert_eq!(SENT.take(), [90_000, 7]);
    }

    #[test]
    fn a_refusal_reaches_the_agent_as_it_was() {
        let text = "x".repeat(GATHERED_MAX);
        let mut writer = TextWriter::over(refuse);
        assert_eq!(write!(writer, "{text}").map_err(|error| error.code()), Err(ErrorCode::TooLarge));
        assert_eq!(fmt::Write::write_str(&mut writer, &text), Err(fmt::Error));
        assert_eq!(writer.flush().map_err(|error| error.code()), Err(ErrorCode::TooLarge));
        assert_eq!(writer.flush(), Ok(()));

        let mut writer = Writer::over(refuse);
        let error = writer.write_all(text.as_bytes()).map_err(Error::from).map_err(|error| error.code());
        assert_eq!(error, Err(ErrorCode::TooLarge));
    }

    #[test]
    fn a_display_that_fails_is_not_the_hosts_fault() {
        struct Failing;
        impl fmt::Display for Failing {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let error = write!(TextWriter::new(), "{Failing}").map_err(|error| error.code());
        assert_eq!(error, Err(ErrorCode::InternalError));
    }
}
