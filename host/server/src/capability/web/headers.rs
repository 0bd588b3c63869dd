//! What an agent may say in the headers of a request, and what the operator says besides.
//!
//! A header is a name and a value that mean the same to every server on the
//! way, or it is refused: what frames the message, names the host or belongs
//! to one connection is the host's to say. So is what makes servers behind a
//! proxy answer for another URL than the one the lease was asked about.

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT,
};
use leasehold_core::lease::{
    Namespace,
    pattern::Pattern,
    target::{FetchUrl, Target},
};

use super::{Settings, SettingsError, WebError};
use crate::secrets::spellings;

/// What belongs to one connection.
const CONNECTION: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the host says of a message itself.
const MESSAGE: [&str; 3] = ["content-length", "expect", "host"];

/// What some servers take for the URL, in the place of the URL.
const PLACE: [&str; 8] = [
    "forwarded",
    "x-forwarded",
    "x-host",
    "x-http-host-override",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// What a request loses with the body when a redirect turns it into a `GET`.
const OF_THE_BODY: [&str; 4] = ["content-encoding", "content-language", "content-location", "content-type"];

/// Why an agent cannot set a header. Names are compared as CGI does, to which `a_b` and `a-b` are one.
fn reserved(name: &HeaderName) -> Option<&'static str> {
    let name = alike(name);
    if CONNECTION.contains(&&*name) || name.starts_with("proxy-") {
        Some("it belongs to the connection, which is the host's")
    } else if MESSAGE.contains(&&*name) {
        Some("the host says it, from the URL and the body")
    } else if PLACE.contains(&&*name) || name.starts_with("x-forwarded-") {
        Some("it names another place than the URL")
    } else {
        None
    }
}

fn alike(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Reads the headers an agent asked for.
pub(super) fn parse(asked: &[(String, Vec<u8>)], settings: &Settings) -> Result<HeaderMap, WebError> {
    let too_large = |limit| Err(WebError::HeadersTooLarge { limit });
    if asked.len() > settings.headers_max {
        return too_large(format!("{} pieces", settings.headers_max));
    }
    // `: ` and the end of the line are sent, too.
    let bytes = asked.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    if bytes > settings.headers_bytes_max {
        return too_large(format!("{} bytes", settings.headers_bytes_max));
    }
    let mut headers = HeaderMap::new();
    for (text, value) in asked {
        let (name, value) = parse_one(text, value)?;
        let appended = headers.try_append(name, value);
        appended.map_err(|_| WebError::Header { name: shown(text), reason: "there are too many" })?;
    }
    Ok(headers)
}

/// Reads one header, an agent's or the operator's.
fn parse_one(text: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), WebError> {
    let error = |reason| WebError::Header { name: shown(text), reason };
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| error("its name must be 1 to 65535 letters, digits or `!#$%&'*+-.^_`|~`"))?;
    if let Some(reason) = reserved(&name) {
        return Err(error(reason));
    }
    // Beyond ASCII, servers differ in what they read, and some have made line breaks of it.
    if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(error("its value must be printable ASCII in one line"));
    }
    let value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| error("its value is malformed"))?;
    Ok((name, value))
}

/// What an agent wrote, for a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

/// Adds what the host says of every request. The trace is the host's, so that no agent joins another's.
pub(super) fn complete(
    headers: &mut HeaderMap,
    url: &FetchUrl,
    traceparent: Option<&HeaderValue>,
    body: Option<usize>,
) -> Result<(), WebError> {
    let host = url.port().map_or_else(|| url.host().to_owned(), |port| format!("{}:{port}", url.host()));
    let error = |_| WebError::Header { name: "host".into(), reason: "the URL's host is malformed" };
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(error)?);
    if let Some(length) = body {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent.clone());
    }
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT_DEFAULT));
    // One request a connection.
    headers.insert("connection", HeaderValue::from_static("close"));
    Ok(())
}

const USER_AGENT_DEFAULT: &str = concat!("leasehold/", env!("CARGO_PKG_VERSION"));

/// Reads the trace context of the job.
pub(super) fn trace(traceparent: Option<&str>) -> Result<Option<HeaderValue>, WebError> {
    let value = traceparent.map(|text| parse_one("traceparent", text.as_bytes())).transpose()?;
    Ok(value.map(|(_, value)| value))
}

/// Takes away what was meant for the origin that a redirect leaves.
pub(super) fn drop_credentials(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, COOKIE, HeaderName::from_static("cookie2")] {
        headers.remove(name);
    }
}

/// Takes away what describes a body.
pub(super) fn drop_content(headers: &mut HeaderMap) {
    for name in OF_THE_BODY {
        headers.remove(name);
    }
}

/// Headers that the operator adds and no agent sees: `[net.inject]`.
pub(super) struct Injections {
    /// The longest pattern last.
    rules: Vec<(Pattern, Vec<(HeaderName, HeaderValue)>)>,
    /// What is looked for in answers, the longest first.
    secrets: Vec<Box<[u8]>>,
}

impl Injections {
    pub(super) fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let mut rules = Vec::new();
        let mut secrets = Vec::new();
        for (text, inject) in &settings.inject {
            let error = |what: String| SettingsError(format!("net.inject.\"{text}\": {what}"));
            let pattern = Pattern::parse(&Namespace::NetFetch, text).map_err(|problem| error(problem.to_string()))?;
            let mut headers = Vec::new();
            for (name, source) in &inject.headers {
                let error = |what: String| error(format!("headers.{name}: {what}"));
                let secret = source.read().map_err(error)?;
                let parsed = parse_one(name, secret.expose().as_bytes());
                let (name, mut value) = parsed.map_err(|problem| error(problem.to_string()))?;
                // Not for `Debug`, and not for a compression that remembers.
                value.set_sensitive(true);
                headers.push((name, value));
                secrets.push(secret);
            }
            rules.push((pattern, headers));
        }
        rules.sort_by_key(|(pattern, _)| pattern.as_str().len());
        let secrets = spellings(secrets.iter().map(|secret| secret.expose().trim()), SECRET_BYTES_MIN);
        Ok(Self { rules, secrets: secrets.into_iter().map(|secret| secret.into_bytes().into()).collect() })
    }

    /// Adds what belongs to `url` in the place of what the agent said, and tells whether there was anything.
    pub(super) fn add(&self, url: &FetchUrl, headers: &mut HeaderMap) -> bool {
        let matching = self.rules.iter().filter(|(pattern, _)| pattern.matches(Target::Url(url)));
        let mut added = false;
        for (name, value) in matching.flat_map(|(_, headers)| headers) {
            let said: Vec<HeaderName> = headers.keys().filter(|said| alike(said) == alike(name)).cloned().collect();
            for said in said {
                headers.remove(said);
            }
            headers.insert(name, value.clone());
            added = true;
        }
        if added {
            // In an answer that is compressed, nothing can be found.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        added
    }

    /// Whether a text holds a secret of the operator.
    pub(super) fn told(&self, text: &[u8]) -> bool {
        self.secrets.iter().any(|secret| find(text, secret).is_some())
    }

    /// Writes asterisks over every secret of the operator.
    pub(super) fn mask(&self, text: &mut [u8]) {
        for secret in &self.secrets {
            let mut from = 0;
            while let Some(at) = find(&text[from..], secret) {
                from += at + secret.len();
                text[from - secret.len()..from].fill(b'*');
            }
        }
    }

    /// How many bytes at the end of a text may be the beginning of a secret; mostly none.
    pub(super) fn open_end(&self, text: &[u8]) -> usize {
        let begun = |secret: &[u8]| (1..secret.len()).rev().find(|length| text.ends_with(&secret[..*length]));
        self.secrets.iter().filter_map(|secret| begun(secret)).max().unwrap_or(0)
    }

    /// The answer's headers, less what belongs to the connection.
    pub(super) fn shown(&self, headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
        let shown = headers.iter().filter(|(name, _)| !CONNECTION.contains(&name.as_str()));
        let masked = shown.map(|(name, value)| {
            let mut value = value.as_bytes().to_vec();
            self.mask(&mut value);
            (name.as_str().to_owned(), value)
        });
        masked.collect()
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// A shorter value is hardly a secret, and would be found where it is none.
const SECRET_BYTES_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_wherever_it_stands_and_however_it_is_cut() {
        let settings =
            "inject.'**'.headers = { authorization = 'Bearer tk-tk-0123', x-key = 'tk-tk-tk-9', x-v = 'v2' }";
        let injections = Injections::read(&toml::from_str(settings).unwrap()).unwrap();
        for (text, expected, open_end) in [
            ("plain v2", "plain v2", 0), // what is short is no secret
            ("Bearer tk-tk-0123", "*****************", 0),
            ("tk-tk-0123", "**********", 0),
            ("<tk-tk-tk-9><tk-tk-0123>", "<**********><**********>", 0),
            ("tk-tk-0123tk-tk-0123", "********************", 0),
            ("tk-tk-tk-0123", "tk-**********", 0),
            ("x tk-tk-t", "x tk-tk-t", 7),
            ("x tk-tk-tk-", "x tk-tk-tk-", 9),
            ("x tk-tk-tk-0", "x tk-tk-tk-0", 7),
            ("Bearer", "Bearer", 6),
            ("Bearer tk", "Bearer tk", 9),
            ("bearer", "bearer", 0),
        ] {
            let mut masked = text.as_bytes().to_vec();
            injections.mask(&mut masked);
            assert_eq!(String::from_utf8_lossy(&masked), expected, "{text}");
            assert_eq!(injections.open_end(&masked), open_end, "{text}");
            assert_eq!(injections.told(text.as_bytes()), text != expected, "{text}");
        }
    }
}
