//! Where a redirect leads and what of the request goes there, as browsers do it
//! ([the Fetch standard](https://fetch.spec.whatwg.org/#http-redirect-fetch)).

use hyper::{
    StatusCode,
    header::{HeaderMap, LOCATION},
};
use leasehold_core::lease::{operation::Fetch, target::FetchUrl};

use super::{WebError, headers::Injections};

/// A redirect, before its permit is asked for.
#[derive(Debug)]
pub(super) struct Redirect {
    /// The request to make next.
    pub(super) fetch: Fetch,
    /// Whether its body goes along.
    pub(super) keeps_body: bool,
    /// Whether it stays with the same scheme, host and port, and so with what was meant for them alone.
    pub(super) same_origin: bool,
}

impl Redirect {
    /// Reads where an answer leads; `None` if it is no redirect.
    pub(super) fn read(
        fetch: &Fetch,
        status: StatusCode,
        headers: &HeaderMap,
        injections: &Injections,
    ) -> Result<Option<Self>, WebError> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = headers.get(LOCATION) else { return Ok(None) };
        let error = |reason: &str| WebError::Redirect { reason: reason.to_owned() };
        // In a URL the agent would see it, and so would whoever it leads to.
        if injections.told(location.as_bytes()) {
            return Err(error("it holds what the operator sent along"));
        }
        let location = str::from_utf8(location.as_bytes()).map_err(|_| error("its location is not a text"))?;
        let url = target(fetch.url(), location)?;
        let method = method_after(status, fetch.method());
        let keeps_body = method == fetch.method();
        let same_origin = origin(&url) == origin(fetch.url());
        let unusable = |problem: leasehold_core::lease::target::TargetError| error(&problem.to_string());
        Ok(Some(Self { fetch: Fetch::parse(method, url.as_str()).map_err(unusable)?, keeps_body, same_origin }))
    }
}

/// The URL a `Location` means, seen from `from`.
fn target(from: &FetchUrl, location: &str) -> Result<FetchUrl, WebError> {
    let error = |reason: String| WebError::Redirect { reason };
    // What browsers forgive here, each forgives in another way.
    if location.contains(|c: char| c.is_control() || c == '\\') {
        return Err(error("its location holds a control character or a backslash".into()));
    }
    let joined = from.as_url().join(location).map_err(|_| error("its location is no URL".into()))?;
    if !matches!(joined.scheme(), "http" | "https") {
        return Err(error(format!("it leads to `{}:`, and this host fetches http and https", joined.scheme())));
    }
    FetchUrl::parse(joined.as_str()).map_err(|problem| error(problem.to_string()))
}

/// `POST` has always become `GET` at 301 and 302, and 303 is made for that.
fn method_after(status: StatusCode, method: &str) -> &str {
    match (status.as_u16(), method) {
        (301 | 302, "POST") => "GET",
        (303, "HEAD") => "HEAD",
        (303, _) => "GET",
        _ => method,
    }
}

fn origin(url: &FetchUrl) -> (&str, &str, Option<u16>) {
    (url.scheme(), url.host(), url.port())
}
