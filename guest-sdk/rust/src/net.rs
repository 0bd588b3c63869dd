//! HTTP requests the lease grants: `net.fetch` (ARCP §9.2).
//!
//! A status such as 404 is a [`Response`] and no error. Every function can fail with `lease-expired`,
//! `budget-exhausted`, `permission-denied` and `cancelled`, in addition to what it says itself.

use std::{
    io::{self, Read},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error,
    bindings::{calls, net},
    calls::{Pending, UnderWay},
};

/// How many redirects a request follows that does not say.
const REDIRECTS: u32 = 10;

/// Gets what is at a URL. Needs `net.fetch` on it.
///
/// # Errors
///
/// `timeout`, `too-large` over the host's limit (default 16 MiB), and `internal-error` if nobody answers.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let page = leasehold_agent::net::get("https://example.com/")?;
/// leasehold_agent::info!("{} and {} bytes", page.status, page.body.len());
/// # Ok(())
/// # }
/// ```
pub fn get(url: impl Into<String>) -> Result<Response, Error> {
    request("GET", url).send()
}

/// Begins a request.
///
/// ```no_run
/// use leasehold_agent::net;
///
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let created = net::request("POST", "https://api.example.com/notes")
///     .header("accept", "application/json")
///     .json(&serde_json::json!({ "text": "kept" }))?
///     .send()?
///     .successful()?;
/// # Ok(())
/// # }
/// ```
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request(net::Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        redirects: REDIRECTS,
        timeout_ms: None,
    })
}

/// A request that was not sent; see [`request`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request(net::Request);

impl Request {
    /// Adds a header. The host sets `host`, `content-length` and what belongs to the connection.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.0.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = body.into();
        self
    }

    /// Sets a body of JSON, and says so in `content-type`.
    ///
    /// # Errors
    ///
    /// `invalid-request` if the value is no JSON.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let body = serde_json::to_vec(body)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Follows at most so many redirects, each of which needs a grant of its own; 0 gives the redirect itself.
    pub fn redirects(mut self, most: u32) -> Self {
        self.0.redirects = most;
        self
    }

    /// Waits no longer than this, within the host's own limit (default 60 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Sends it and waits for the whole response.
    ///
    /// # Errors
    ///
    /// Those of [`get`].
    pub fn send(&self) -> Result<Response, Error> {
        Ok(net::fetch(&self.0)?.into())
    }

    /// Sends it, and goes on meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`get`] that are known at once.
    pub fn start(&self) -> Result<Pending<Response>, Error> {
        Ok(Pending::new(net::start(&self.0)?, |call| Ok(net::finish(call)?.into())))
    }

    /// Sends it and reads the response as it comes.
    ///
    /// # Errors
    ///
    /// Those of [`get`], but for `too-large`.
    ///
    /// ```no_run
    /// use std::io::{self, Read};
    ///
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut stream = leasehold_agent::net::request("GET", "https://example.com/large").open()?;
    /// let mut beginning = vec![0; 512];
    /// let read = stream.read(&mut beginning)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(&self) -> Result<Stream, Error> {
        let call = net::start_stream(&self.0)?;
        let head = net::head(&call)?.into();
        Ok(Stream { head, call, part: Vec::new(), taken: 0 })
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Where it came from, after redirects.
    pub url: String,
    /// As the server sent them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl From<net::Response> for Response {
    fn from(response: net::Response) -> Self {
        let net::Response { status, url, headers, body } = response;
        Self { status, url, headers, body }
    }
}

impl Response {
    /// Gives the first value of a header, if it is a text.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let page = leasehold_agent::net::get("https://example.com/")?;
    /// assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    ///
    /// `invalid-request` if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Reads the body as UTF-8.
    ///
    /// # Errors
    ///
    /// `invalid-request` if it is something else.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.body).map_err(|_| Error::invalid_request(format!("{} is not UTF-8", self.url)))
    }

    /// Makes an error of a status that is not one of success.
    ///
    /// # Errors
    ///
    /// `internal-error` for a status from 300 on.
    pub fn successful(self) -> Result<Self, Error> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(Error::new(crate::ErrorCode::InternalError, format!("{} answered {status}", self.url))),
        }
    }
}

/// A response that is read as it comes. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    /// Everything but the body, which is read from the stream.
    pub head: Response,
    call: calls::PendingCall,
    part: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// Waits for the next part of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// `internal-error` if the connection broke, `timeout`.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.taken < self.part.len() {
            let rest = self.part.split_off(self.taken);
            (self.part, self.taken) = (Vec::new(), 0);
            return Ok(Some(rest));
        }
        Ok(net::next(&self.call)?)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.part.len() {
            match net::next(&self.call).map_err(|error| io::Error::from(Error::from(error)))? {
                Some(part) => (self.part, self.taken) = (part, 0),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.part.len() - self.taken);
        buffer[..length].copy_from_slice(&self.part[self.taken..self.taken + length]);
        self.taken += length;
        Ok(length)
    }
}

impl UnderWay for Stream {
    fn call(&self) -> &calls::PendingCall {
        &self.call
    }
}
