//! What operations act on, parsed once into forms that compare component by component.
//!
//! Two texts that name the same thing become the same value, and a text whose
//! meaning depends on who reads it (`..`, an encoded slash, a backslash, user
//! information before a host) is refused. String globs over raw text are how
//! other lease checks were bypassed.

use std::fmt;

use url::{Host, Url};

use super::quote;
use crate::error::Refusal;

/// A target of any kind, as a lease is asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// For `fs.read` and `fs.write`.
    File(&'a FilePath),
    /// For `net.fetch`.
    Url(&'a FetchUrl),
    /// For `tool.call`.
    Tool(&'a ToolName),
    /// For `model.use`.
    Model(&'a ModelName),
    /// For `agent.delegate`.
    Agent(&'a AgentName),
    /// For an `x-vendor.<vendor>.<name>` namespace, whose targets are plain texts.
    Vendor(&'a str),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Url(url) => url.fmt(f),
            Self::Tool(name) => name.fmt(f),
            Self::Model(name) => name.fmt(f),
            Self::Agent(name) => name.fmt(f),
            Self::Vendor(text) => f.write_str(text),
        }
    }
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}: {reason}")]
pub struct TargetError {
    kind: &'static str,
    text: String,
    reason: &'static str,
}

impl TargetError {
    pub(super) fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        Self { kind, text: quote(text), reason }
    }

    /// What is wrong, without the text.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Self {
        Self::invalid(error.to_string())
    }
}

macro_rules! displayed_as_str {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        text_form!($name, TargetError);
    };
}

/// An absolute path in the job's own tree, in its one canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Box<str>);

impl FilePath {
    /// Parses a path: `//` and `.` collapse and a trailing `/` drops.
    ///
    /// `..` is refused and not resolved: through a symbolic link `a/..` is not
    /// where the text says. At most 4,096 bytes, 255 a component, 128 components.
    ///
    /// # Errors
    ///
    /// If the text is relative, over a limit, or holds `..` or a control character.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let error = |reason| TargetError::new("a path", text, reason);
        if text.len() > PATH_BYTES_MAX {
            return Err(error("it is longer than 4096 bytes"));
        }
        if !text.starts_with('/') {
            return Err(error("it must begin with `/`"));
        }
        if text.chars().any(char::is_control) {
            return Err(error("it holds a control character"));
        }
        let mut canonical = String::with_capacity(text.len());
        let mut count = 0;
        for component in text.split('/').filter(|component| !matches!(*component, "" | ".")) {
            count += 1;
            if component == ".." {
                return Err(error("`..` is not allowed"));
            }
            if component.len() > PATH_COMPONENT_BYTES_MAX {
                return Err(error("a name in it is longer than 255 bytes"));
            }
            if count > PATH_COMPONENTS_MAX {
                return Err(error("it is deeper than 128 names"));
            }
            canonical.push('/');
            canonical.push_str(component);
        }
        if canonical.is_empty() {
            canonical.push('/');
        }
        Ok(Self(canonical.into()))
    }

    /// The names from the root down; none for the root itself.
    pub fn components(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

displayed_as_str!(FilePath);

/// A URL in its one canonical form, without fragment or user information.
///
/// Scheme and host are in lower case, a host outside ASCII is in Punycode, a
/// dot at its end and the scheme's own port are dropped, dot segments are
/// resolved, and what needs no percent-encoding has none. So the URL that is
/// checked is, byte for byte, the URL that is requested.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchUrl(Url);

impl FetchUrl {
    /// Parses an absolute URL with a host, `<scheme>://<host>…`.
    ///
    /// Any scheme but `file` parses, since a lease may name more schemes than
    /// this host speaks. At most 8,192 bytes and 256 path segments.
    ///
    /// # Errors
    ///
    /// If the text is over a limit, has no host, or could be read in two
    /// ways: user information, `%2f`, `%5c`, `%00`, a lone `%`, a backslash,
    /// blanks, control characters, `..;`.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let error = |reason| TargetError::new("a URL", text, reason);
        if text.len() > URL_BYTES_MAX {
            return Err(error("it is longer than 8192 bytes"));
        }
        // The URL standard drops or converts these, which is help no check should need.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(error("it holds a blank, a control character or a backslash"));
        }
        let parts = UrlParts::split(text).ok_or_else(|| error("it must begin with a scheme and `://`"))?;
        if parts.scheme.eq_ignore_ascii_case("file") {
            return Err(error("files are reached with fs.read, not with a URL"));
        }
        if parts.authority.is_empty() {
            return Err(error("it has no host"));
        }
        if parts.authority.contains('@') {
            return Err(error("user information before the host is not allowed"));
        }
        let path = decode_unreserved(parts.path).map_err(error)?;
        let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
        let slash = if path.is_empty() { "/" } else { "" };
        let mut url = Url::parse(&format!("{}://{}{slash}{path}{query}", parts.scheme, parts.authority))
            .map_err(|_| error("its host or port is malformed"))?;
        let host = canonical_host(&url).ok_or_else(|| error("its host is malformed"))?;
        if url.host_str() != Some(&*host) {
            url.set_host(Some(&host)).map_err(|_| error("its host is malformed"))?;
        }
        if url.path().split('/').count() > URL_SEGMENTS_MAX + 1 {
            return Err(error("its path is deeper than 256 segments"));
        }
        // Some servers cut a segment at `;` before they resolve dots.
        if url.path().split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))) {
            return Err(error("its path holds a dot segment that is not resolved"));
        }
        Ok(Self(url))
    }

    /// The URL, for the client that requests it.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The host as text; an IPv6 address stands in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The port, if it is not the scheme's own.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.port()
    }

    /// The path; it begins with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// The query, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }
}

displayed_as_str!(FetchUrl);

/// Where the parts of a URL lie in its text, before anything is decoded.
pub(super) struct UrlParts<'a> {
    pub(super) scheme: &'a str,
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) has_fragment: bool,
}

impl<'a> UrlParts<'a> {
    /// Splits `<scheme>://<authority>[/path][?query][#fragment]`.
    pub(super) fn split(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let well_formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        if !well_formed {
            return None;
        }
        let (rest, has_fragment) = rest.split_once('#').map_or((rest, false), |(rest, _)| (rest, true));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some(Self { scheme, authority, path, query, has_fragment })
    }
}

/// Decodes what RFC 3986 §2.3 says is the same encoded or not, and writes the rest in upper case.
pub(super) fn decode_unreserved(path: &str) -> Result<String, &'static str> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return Err("a `%` in its path encodes nothing");
        };
        match byte {
            b'/' | b'\\' | 0 => return Err("an encoded slash, backslash or NUL in its path is not allowed"),
            b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => decoded.push(char::from(byte)),
            _ => decoded.push_str(&format!("%{byte:02X}")),
        }
        rest = &after[2..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// The host in the form in which hosts compare; `None` if it has none such.
fn canonical_host(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Ipv4(_) | Host::Ipv6(_) => url.host_str().map(str::to_owned),
        Host::Domain(domain) => {
            let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
            // The url crate takes any text as host where the scheme is not one of the web's.
            let well_formed = domain.split('.').all(|label| !label.is_empty() && label.bytes().all(is_host_byte));
            well_formed.then_some(domain)
        }
    }
}

/// Whether a byte may stand in a label of a host name.
pub(super) fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses a name: 1 to 256 bytes, no control characters, no blank at either end.
            ///
            /// # Errors
            ///
            /// If the text is anything else.
            pub fn parse(text: &str) -> Result<Self, TargetError> {
                let error = |reason| TargetError::new($kind, text, reason);
                if text.is_empty() || text.len() > NAME_BYTES_MAX {
                    return Err(error("it must be 1 to 256 bytes long"));
                }
                if text.chars().any(char::is_control) || text.trim() != text {
                    return Err(error("it holds a control character, or a blank at an end"));
                }
                Ok(Self(text.into()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        displayed_as_str!($name);
    };
}

name!(
    /// The name of a registered tool.
    ToolName, "a tool name"
);
name!(
    /// The name of a model, opaque to the protocol (ARCP §9.7).
    ModelName, "a model name"
);

/// An agent's name, with or without a version (ARCP §7.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(Box<str>);

impl AgentName {
    /// Parses `name` or `name@version`, at most 256 bytes.
    ///
    /// # Errors
    ///
    /// If the text does not follow the grammar of ARCP §7.5.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let error = |reason| TargetError::new("an agent name", text, reason);
        if text.len() > NAME_BYTES_MAX {
            return Err(error("it is longer than 256 bytes"));
        }
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let name_fits = name.bytes().next().is_some_and(lower)
            && name.bytes().all(|byte| lower(byte) || matches!(byte, b'.' | b'_' | b'-'));
        if !name_fits {
            return Err(error("the name must match [a-z0-9][a-z0-9._-]*"));
        }
        let version_fits = version.is_none_or(|version| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'_' | b'-');
            !version.is_empty() && version.bytes().all(fits)
        });
        if !version_fits {
            return Err(error("the version must match [a-zA-Z0-9.+_-]+"));
        }
        Ok(Self(text.into()))
    }

    /// The name without its version.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(name, _)| name)
    }

    /// The version, if one was named.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, version)| version)
    }

    /// The whole text, `name` or `name@version`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

displayed_as_str!(AgentName);

const PATH_BYTES_MAX: usize = 4096;
const PATH_COMPONENT_BYTES_MAX: usize = 255;
const PATH_COMPONENTS_MAX: usize = 128;
const URL_BYTES_MAX: usize = 8192;
const URL_SEGMENTS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_form_or_none() {
        let deep = "/a".repeat(128);
        let long = format!("/{}", "n".repeat(255));
        for (text, expected) in [
            ("/", Some("/")),
            ("//", Some("/")),
            ("/./", Some("/")),
            ("/a/b", Some("/a/b")),
            ("//a///b//", Some("/a/b")),
            ("/a/./b/.", Some("/a/b")),
            ("/a/...", Some("/a/...")), // three dots are a name
            ("/a/..b", Some("/a/..b")),
            ("/A", Some("/A")),
            ("/a b/%2e%2e", Some("/a b/%2e%2e")), // a path is not a URL: nothing is decoded
            ("/a\\..\\b", Some("/a\\..\\b")),     // nor is a backslash a separator
            ("/ä/日", Some("/ä/日")),
            ("", None),
            ("a", None),
            ("./a", None),
            ("~/a", None),
            ("C:/a", None),
            ("/..", None),
            ("/a/../b", None),
            ("/a/..", None),
            ("/a\0b", None),
            ("/a\nb", None),
            ("/a\u{85}b", None),
            (&deep, Some(&deep)),
            (&format!("{deep}/a"), None),
            (&long, Some(&long)),
            (&format!("{long}n"), None),
            (&"/".repeat(4096), Some("/")),
            (&"/".repeat(4097), None),
        ] {
            let parsed = FilePath::parse(text);
            assert_eq!(parsed.as_ref().ok().map(FilePath::as_str), expected, "{text:?}: {parsed:?}");
        }
    }

    #[test]
    fn components_are_the_names_of_a_path() {
        for (text, expected) in [("/", vec![]), ("/a", vec!["a"]), ("//a/./b/", vec!["a", "b"])] {
            assert_eq!(FilePath::parse(text).unwrap().components().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn a_url_has_one_form_or_none() {
        let deep = format!("https://a.test{}", "/a".repeat(256));
        for (text, expected) in [
            ("https://a.test", Some("https://a.test/")),
            ("HTTPS://A.Test:443/X", Some("https://a.test/X")),
            ("http://a.test:80/", Some("http://a.test/")),
            ("https://a.test:80/", Some("https://a.test:80/")),
            ("https://a.test./x", Some("https://a.test/x")),
            ("https://bücher.test/ä", Some("https://xn--bcher-kva.test/%C3%A4")),
            ("https://ａ.test/", Some("https://a.test/")), // full-width letters are letters to IDNA
            ("https://a.test/x#part", Some("https://a.test/x")),
            ("https://a.test#@b.test/", Some("https://a.test/")),
            ("https://a.test?.b.test/", Some("https://a.test/?.b.test/")),
            ("https://a.test/a/../b/./c", Some("https://a.test/b/c")),
            ("https://a.test/../../b", Some("https://a.test/b")),
            ("https://a.test/a/%2e%2E/b", Some("https://a.test/b")),
            ("https://a.test/a/.%2e/b", Some("https://a.test/b")),
            ("https://a.test/%7Eme/%41%2d%5f", Some("https://a.test/~me/A-_")),
            ("https://a.test/%c3%a4", Some("https://a.test/%C3%A4")),
            ("https://a.test/%252e%252e/b", Some("https://a.test/%252e%252e/b")), // decoded once, by nobody twice
            ("https://a.test//b", Some("https://a.test//b")),
            ("https://0x7f.1/", Some("https://127.0.0.1/")), // every spelling of an address is one address
            ("https://2130706433/", Some("https://127.0.0.1/")),
            ("https://127.0.0.1./", Some("https://127.0.0.1/")),
            ("https://[0:0::1]:443/", Some("https://[::1]/")),
            ("s3://Bucket/Key", Some("s3://bucket/Key")),
            ("s3://bucket", Some("s3://bucket/")),
            ("s3://bucket/a/../b", Some("s3://bucket/b")),
            ("", None),
            ("a.test/x", None),
            ("//a.test/x", None),
            ("https:a.test/x", None),
            ("https:/a.test/x", None),
            ("https:///a.test/x", None),
            ("https://", None),
            ("https:///", None),
            ("https://?x", None),
            ("https://me@a.test/", None),
            ("https://@a.test/", None),
            ("https://me:pw@a.test/", None),
            ("https://a.test:/x", Some("https://a.test/x")),
            ("https://a.test:99999/", None),
            ("https://a.test:x/", None),
            ("https://a..test/", None),
            ("https://.a.test/", None),
            ("https://a.test../", None),
            ("https://a%00.test/", None),
            ("https://a%2fb.test/", None),
            ("https://a test/", None),
            ("https://a.test/a b", None),
            ("https://a.test/a\tb", None),
            (" https://a.test/", None),
            ("https://a.test\\@b.test/", None),
            ("https://a.test/a\\..\\b", None),
            ("https://a.test/a%2fb", None),
            ("https://a.test/a%2Fb", None),
            ("https://a.test/a%5cb", None),
            ("https://a.test/a%00", None),
            ("https://a.test/100%", None),
            ("https://a.test/%zz", None),
            ("https://a.test/%ä", None),
            ("https://a.test/public/..;/admin", None),
            ("https://a.test/public/%2e%2e;x=1/admin", None),
            ("file:///etc/passwd", None),
            ("file://host/etc/passwd", None),
            ("javascript:alert(1)", None),
            ("data://a,b", None),
            ("s3://bu%63ket/", None),
            ("https://[::1/", None),
            (&deep, Some(&deep)),
            (&format!("{deep}/a"), None),
            (&format!("https://a.test/{}", "a".repeat(8192)), None),
        ] {
            let parsed = FetchUrl::parse(text);
            assert_eq!(parsed.as_ref().ok().map(FetchUrl::as_str), expected, "{text:?}: {parsed:?}");
            if let Ok(url) = parsed {
                assert_eq!(FetchUrl::parse(url.as_str()), Ok(url), "{text:?}: its form is stable");
            }
        }
    }

    /// ARCP §7.5: `agent ::= name | name "@" version`.
    #[test]
    fn an_agent_is_a_name_and_perhaps_a_version() {
        for (text, expected) in [
            ("helper", Some(("helper", None))),
            ("helper@1.0.0", Some(("helper", Some("1.0.0")))),
            ("0.a_b-c@V+1", Some(("0.a_b-c", Some("V+1")))),
            ("", None),
            ("@1", None),
            ("helper@", None),
            ("helper@1@2", None),
            ("Helper", None),
            (".helper", None),
            ("a/b", None),
            ("a@1/2", None),
            ("a b", None),
        ] {
            let parsed = AgentName::parse(text).ok();
            assert_eq!(parsed.as_ref().map(|agent| (agent.name(), agent.version())), expected, "{text}");
        }
    }

    #[test]
    fn a_name_is_short_and_printable() {
        let long = "n".repeat(257);
        for (text, expected) in
            [("search.web", true), ("a/b c", true), ("", false), (" a", false), ("a\n", false), (&*long, false)]
        {
            assert_eq!(ToolName::parse(text).is_ok(), expected, "{text}");
            assert_eq!(ModelName::parse(text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn an_error_quotes_a_bounded_text_and_shows_what_does_not_print() {
        let error = FilePath::parse(&format!("/\u{1b}[2J{}", "x".repeat(5000))).unwrap_err().to_string();
        assert!(
            error.starts_with("`/\\u{1b}[2Jxxx") && error.ends_with("…` is not a path: it is longer than 4096 bytes"),
            "{error}"
        );
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn a_target_is_its_text_in_json_and_is_checked_on_the_way_in() {
        let path: FilePath = serde_json::from_str(r#""//a/b""#).unwrap();
        assert_eq!(serde_json::to_string(&path).unwrap(), r#""/a/b""#);
        assert!(serde_json::from_str::<FilePath>(r#""/a/../b""#).is_err());
    }
}
