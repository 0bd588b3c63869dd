//! The patterns of a lease: one small dialect, matched and compared without backtracking (ARCP §9.2).
//!
//! | pattern | matches |
//! |---|---|
//! | `*` within a segment | zero or more characters other than `/` |
//! | `**` as a whole segment | zero or more segments |
//! | anything else | itself: `?`, `[`, `{` are plain characters |
//!
//! A pattern is anchored at both ends and its case counts. The segments of a
//! path pattern are the names of a path. The host of a URL pattern stands
//! apart: a `*` there covers any part of a host, dots included, and never
//! reaches into the path. The query counts only where the pattern has one, and
//! then to the letter.
//!
//! Patterns are written by clients and matched against what agents ask, so
//! both sides may be hostile: sizes are bounded, and matching costs at most
//! the product of two bounded lengths.

use std::{cell::OnceCell, fmt};

use super::{
    Namespace, quote,
    target::{FetchUrl, Target, UrlParts, decode_unreserved, is_host_byte},
};
use crate::error::Refusal;

/// One pattern of a lease, parsed for its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    glob: Glob,
}

impl Pattern {
    /// Parses a pattern as `namespace` reads it, at most 1,024 bytes and 64 segments.
    ///
    /// What could never match is refused, so that a lease which grants less
    /// than its author believes is found out when it is submitted.
    ///
    /// # Errors
    ///
    /// If the text is over a limit, holds `..` or a control character, or is
    /// a path pattern without root or a URL pattern without scheme or host.
    pub fn parse(namespace: &Namespace, text: &str) -> Result<Self, PatternError> {
        let error = |reason| PatternError { text: quote(text), reason };
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(error("it is longer than 1024 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(error("it holds a control character"));
        }
        let glob = match namespace {
            Namespace::FsRead | Namespace::FsWrite => Glob::Path(path_segments(text).map_err(error)?),
            Namespace::NetFetch if text == "**" => Glob::AnyUrl,
            Namespace::NetFetch => Glob::Url(UrlGlob::parse(text).map_err(error)?),
            Namespace::AgentDelegate => Glob::Agent {
                whole: Segments::new(text.split('/')).map_err(error)?,
                name: text
                    .split_once('@')
                    .map(|(name, _)| Segments::new(name.split('/')))
                    .transpose()
                    .map_err(error)?,
            },
            Namespace::ToolCall | Namespace::ModelUse | Namespace::Vendor(_) => {
                Glob::Name(Segments::new(text.split('/')).map_err(error)?)
            }
            Namespace::CostBudget => return Err(error("a budget is an amount, not a pattern")),
        };
        Ok(Self { text: text.into(), glob })
    }

    /// Whether the pattern matches `target`; never for a target of another kind.
    #[must_use]
    pub fn matches(&self, target: Target<'_>) -> bool {
        self.answers(&Question::new(target))
    }

    /// Answers a question that was taken apart once for all the patterns of a lease.
    pub(super) fn answers(&self, question: &Question<'_>) -> bool {
        match (&self.glob, question.target) {
            (Glob::Path(path), Target::File(_)) => path.answers(question),
            (Glob::AnyUrl, Target::Url(_)) => true,
            (Glob::Url(glob), Target::Url(url)) => glob.answers(url, question),
            (Glob::Name(name), Target::Tool(_) | Target::Model(_) | Target::Vendor(_)) => name.answers(question),
            (Glob::Agent { whole, .. }, Target::Agent(agent)) => {
                whole.answers(question) || accepts(&whole.segments, &[agent.name()])
            }
            _ => false,
        }
    }

    /// Whether every target that `other` matches is matched by `self` too (ARCP §9.4).
    ///
    /// `true` is always right. `false` may be wrong for a few contrived
    /// pairs, which costs a delegation and never widens one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.glob, &other.glob) {
            (Glob::Path(a), Glob::Path(b)) | (Glob::Name(a), Glob::Name(b)) => a.covers(b),
            (Glob::AnyUrl, Glob::AnyUrl | Glob::Url(_)) => true,
            (Glob::Url(a), Glob::Url(b)) => a.covers(b),
            // A name has no `@`, so whatever `x@y` matches has a name that `x` matches.
            (Glob::Agent { whole: a, .. }, Glob::Agent { whole: b, name }) => {
                a.covers(b) || name.as_ref().is_some_and(|name| a.covers(name))
            }
            _ => false,
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a pattern: {reason}")]
pub struct PatternError {
    text: String,
    reason: &'static str,
}

impl From<PatternError> for Refusal {
    fn from(error: PatternError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Glob {
    Path(Segments),
    AnyUrl,
    Url(UrlGlob),
    Name(Segments),
    /// `name` is what stands before the first `@`, if there is one.
    Agent {
        whole: Segments,
        name: Option<Segments>,
    },
}

/// The segments of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segments {
    /// The literal segments before the first star, as text: one comparison turns most targets away.
    head: Box<str>,
    segments: Box<[Segment]>,
}

impl Segments {
    /// Compiles segments; a run of `*` and `**` gets its `**` last.
    ///
    /// `**/*` and `*/**` both say "one or more segments". In one form they
    /// cover each other without a special case.
    fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, &'static str> {
        let mut segments: Vec<Segment> = Vec::new();
        for (index, text) in texts.enumerate() {
            if index == PATTERN_SEGMENTS_MAX {
                return Err("it has more than 64 segments");
            }
            let segment = if text == "**" { Segment::AnyDepth } else { Segment::One(Text::new(text)) };
            match segments.last() {
                Some(Segment::AnyDepth) if segment == Segment::AnyDepth => {}
                Some(Segment::AnyDepth) if segment.is_star() => segments.insert(segments.len() - 1, segment),
                _ => segments.push(segment),
            }
        }
        let literals: Vec<&str> = segments.iter().map_while(Segment::literal).collect();
        Ok(Self { head: literals.join("/").into(), segments: segments.into() })
    }

    fn answers(&self, question: &Question<'_>) -> bool {
        question.text.starts_with(&*self.head) && accepts(&self.segments, question.segments())
    }

    fn covers(&self, other: &Self) -> bool {
        accepts(&self.segments, &other.segments)
    }
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`: any number of segments.
    AnyDepth,
    /// One segment that fits.
    One(Text),
}

impl Segment {
    fn is_star(&self) -> bool {
        matches!(self, Self::One(text) if *text.text == *"*")
    }

    fn literal(&self) -> Option<&str> {
        match self {
            Self::One(Text { text, stars: None }) => Some(text),
            _ => None,
        }
    }
}

/// Characters of which each `*` stands for any characters, no two stars in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Text {
    text: Box<str>,
    /// Where the first and the last star are.
    stars: Option<(usize, usize)>,
}

impl Text {
    fn new(text: &str) -> Self {
        let mut last = None;
        let text: String = text.chars().filter(|c| last.replace(*c) != Some('*') || *c != '*').collect();
        let stars = text.find('*').zip(text.rfind('*'));
        Self { text: text.into(), stars }
    }

    fn fits(&self, other: &str) -> bool {
        let Some((first, last)) = self.stars else { return *self.text == *other };
        // Bytes, because most questions end here, and a slice of a `str` looks for character borders.
        let (glob, bytes) = (self.text.as_bytes(), other.as_bytes());
        let (prefix, suffix) = (&glob[..first], &glob[last + 1..]);
        if bytes.len() < prefix.len() + suffix.len() || !bytes.ends_with(suffix) || !bytes.starts_with(prefix) {
            return false;
        }
        if first == last {
            return true;
        }
        let mut rest = &other[prefix.len()..other.len() - suffix.len()];
        // The leftmost place of each part leaves the most room for the next.
        for part in self.text[first + 1..last].split('*') {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        true
    }
}

/// A target, taken apart.
pub(super) struct Question<'a> {
    target: Target<'a>,
    /// Empty for what is no URL, and so is `host`.
    scheme: &'a str,
    host: &'a str,
    /// The segments with a `/` between them.
    text: &'a str,
    segments: OnceCell<Vec<&'a str>>,
}

impl<'a> Question<'a> {
    pub(super) fn new(target: Target<'a>) -> Self {
        let (scheme, host, text) = match target {
            Target::File(path) => ("", "", &path.as_str()[1..]),
            Target::Url(url) => (url.scheme(), url.host(), &url.path()[1..]),
            Target::Tool(name) => ("", "", name.as_str()),
            Target::Model(name) => ("", "", name.as_str()),
            Target::Agent(name) => ("", "", name.as_str()),
            Target::Vendor(text) => ("", "", text),
        };
        Self { target, scheme, host, text, segments: OnceCell::new() }
    }

    fn segments(&self) -> &[&'a str] {
        self.segments.get_or_init(|| match self.target {
            // The root has no names; every other text has at least one segment.
            Target::File(_) if self.text.is_empty() => vec![],
            _ => self.text.split('/').collect(),
        })
    }
}

/// What a pattern is laid against: a segment of a target, or one of another pattern.
trait Laid {
    /// The segment, with the stars of a pattern as characters; `None` for a `**`.
    fn text(&self) -> Option<&str>;
}

impl Laid for &str {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

/// Laid against a pattern, another pattern is a target whose stars are characters.
///
/// No literal equals a star, so only a star can accept one, and it then
/// accepts whatever that one stands for. Only a `**` can accept a `**`.
impl Laid for Segment {
    fn text(&self) -> Option<&str> {
        match self {
            Self::AnyDepth => None,
            Self::One(text) => Some(&text.text),
        }
    }
}

/// Walks a pattern along what it is laid against.
///
/// When a part after a `**` does not fit, only that last `**` has to take in
/// one segment more: an earlier one could not do better, since the parts
/// before it already sit as far left as they can.
fn accepts<L: Laid>(pattern: &[Segment], laid: &[L]) -> bool {
    let (mut at, mut to) = (0, 0);
    let mut last_any_depth = None;
    loop {
        match (pattern.get(at), laid.get(to)) {
            (Some(Segment::AnyDepth), _) => {
                at += 1;
                last_any_depth = Some((at, to));
            }
            (None, None) => return true,
            // Too few are left, and there would be fewer still further right.
            (Some(_), None) => return false,
            (Some(Segment::One(text)), Some(segment)) if segment.text().is_some_and(|other| text.fits(other)) => {
                at += 1;
                to += 1;
            }
            (_, Some(_)) => {
                let Some((after, from)) = &mut last_any_depth else { return false };
                if *after == pattern.len() {
                    return true;
                }
                *from += 1;
                (at, to) = (*after, *from);
            }
        }
    }
}

fn path_segments(text: &str) -> Result<Segments, &'static str> {
    if !text.starts_with('/') && text != "**" && !text.starts_with("**/") {
        return Err("a path pattern begins with `/`, or is `**` for every path");
    }
    if text.split('/').any(|segment| segment == "..") {
        return Err("`..` is not allowed");
    }
    Segments::new(text.split('/').filter(|segment| !matches!(*segment, "" | ".")))
}

/// A URL pattern in the canonical form of the URLs it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UrlGlob {
    scheme: Box<str>,
    host: Text,
    port: Port,
    path: Segments,
    query: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// `:*`
    Any,
    /// This one, or the scheme's own.
    Exactly(Option<u16>),
}

impl UrlGlob {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let parts =
            UrlParts::split(text).ok_or("a URL pattern begins with a scheme and `://`, or is `**` for every URL")?;
        if parts.has_fragment {
            return Err("a fragment is never sent, so a pattern has none");
        }
        if decode_unreserved(parts.path)?.split('/').any(|segment| segment == "..") {
            return Err("`..` is not allowed");
        }
        let (host, port) = match parts.authority.rsplit_once(':') {
            // The colons inside brackets belong to an IPv6 address.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (parts.authority, None),
        };
        let starred_host = if host.contains('*') { Some(canonical_starred_host(host)?) } else { None };
        // What has no star goes through the parser of targets, so the two cannot drift apart.
        let starless = format!(
            "{}://{}{}{}{}",
            parts.scheme,
            if starred_host.is_some() { "host" } else { host },
            port.filter(|port| *port != "*").map(|port| format!(":{port}")).unwrap_or_default(),
            parts.path,
            parts.query.map(|query| format!("?{query}")).unwrap_or_default(),
        );
        let url = FetchUrl::parse(&starless).map_err(|error| error.reason())?;
        Ok(Self {
            scheme: url.scheme().into(),
            host: Text::new(starred_host.as_deref().unwrap_or(url.host())),
            port: if port == Some("*") { Port::Any } else { Port::Exactly(url.port()) },
            path: Segments::new(url.path()[1..].split('/'))?,
            query: url.query().map(Into::into),
        })
    }

    fn answers(&self, url: &FetchUrl, question: &Question<'_>) -> bool {
        self.host.fits(question.host)
            && *self.scheme == *question.scheme
            && (self.port == Port::Any || self.port == Port::Exactly(url.port()))
            && self.query.as_deref().is_none_or(|query| url.query() == Some(query))
            && self.path.answers(question)
    }

    fn covers(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.host.fits(&other.host.text)
            && (self.port == Port::Any || self.port == other.port)
            && self.query.as_ref().is_none_or(|query| other.query.as_ref() == Some(query))
            && self.path.covers(&other.path)
    }
}

/// Brings a host with stars into the form of [`FetchUrl::host`], label by label.
fn canonical_starred_host(host: &str) -> Result<String, &'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let labels: Vec<String> = host
        .split('.')
        .map(|label| {
            if !label.is_empty() && label.bytes().all(|byte| is_host_byte(byte) || byte == b'*') {
                return Ok(label.to_ascii_lowercase());
            }
            if label.is_ascii() || label.contains('*') {
                return Err("its host is malformed; beside a `*` write a name in Punycode");
            }
            match url::Host::parse(label) {
                Ok(url::Host::Domain(label)) if label.bytes().all(is_host_byte) => Ok(label),
                _ => Err("its host is malformed"),
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(labels.join("."))
}

const PATTERN_BYTES_MAX: usize = 1024;
const PATTERN_SEGMENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::{
        super::target::{AgentName, FilePath, ToolName},
        *,
    };

    fn path(text: &str) -> Pattern {
        Pattern::parse(&Namespace::FsRead, text).unwrap()
    }

    fn url(text: &str) -> Pattern {
        Pattern::parse(&Namespace::NetFetch, text).unwrap()
    }

    #[test]
    fn a_path_pattern_matches_names_from_the_root_down() {
        for (pattern, target, expected) in [
            ("/w/**", "/w/a", true),
            ("/w/**", "/w/a/b", true),
            ("/w/**", "/w", true),
            ("/w/**", "/wx", false),
            ("/w/**", "//w//a", true),
            ("/w/**", "/", false),
            ("/w/**", "/x/w/a", false),
            ("/ws/*", "/ws/a", true),
            ("/ws/*", "/ws/a/b/c", false),
            ("/ws/*", "/ws", false),
            ("/W/a", "/w/a", false),
            ("/w/?", "/w/a", false),
            ("/w/?", "/w/?", true),
            ("/w/[a]", "/w/a", false),
            ("/w/[a]", "/w/[a]", true),
            ("/w/{a,b}", "/w/a", false),
            ("/w/{a,b}", "/w/{a,b}", true),
            ("/w/a.c", "/w/abc", false),
            ("/w/*.rs", "/w/a.rs", true),
            ("/w/*.rs", "/w/.rs", true),
            ("/w/*.rs", "/w/a.rs.bak", false),
            ("/w/a*b*c", "/w/abc", true),
            ("/w/a*b*c", "/w/axbxbxc", true),
            ("/w/a*b*c", "/w/axc", false),
            ("/w/a*a", "/w/a", false), // the two ends do not overlap
            ("/w/a**b", "/w/axb", true),
            ("/w/a**b", "/w/a/b", false), // within a segment `**` is `*`
            ("/w/***", "/w/a", true),
            ("/w/***", "/w/a/b", false),
            ("/**/x", "/x", true),
            ("/**/x", "/a/b/x", true),
            ("/**/x", "/a/x/b", false),
            ("/a/**/b/**/c", "/a/b/c", true),
            ("/a/**/b/**/c", "/a/1/b/2/b/3/c", true),
            ("/a/**/b/**/c", "/a/c/b", false),
            ("/**/a/b", "/a/a/b", true), // the first `a` is given up again
            ("/**/*", "/", false),
            ("/**/*", "/a/b", true),
            ("**", "/", true),
            ("**", "/a/b", true),
            ("**/x", "/a/x", true),
            ("/**", "/", true),
            ("/", "/", true),
            ("/", "/a", false),
            ("//w/./a/", "/w/a", true),
            ("/w/**/", "/w/a/b", true),
        ] {
            let target = FilePath::parse(target).unwrap();
            assert_eq!(path(pattern).matches(Target::File(&target)), expected, "{pattern} on {target}");
        }
    }

    #[test]
    fn a_url_pattern_keeps_scheme_host_port_and_path_apart() {
        for (pattern, target, expected) in [
            ("https://api.example.com/**", "https://api.example.com/", true),
            ("https://api.example.com/**", "https://api.example.com/a/b?c", true),
            ("https://api.example.com/**", "https://API.example.com:443/a", true),
            ("https://api.example.com/**", "https://api.example.com./a", true),
            ("HTTPS://API.Example.Com.:443/**", "https://api.example.com/a", true),
            ("https://api.example.com/**", "http://api.example.com/", false),
            ("https://api.example.com/**", "https://api.example.com:8443/", false),
            ("https://api.example.com/**", "https://api.example.com.evil.com/", false),
            ("https://api.example.com/**", "https://evil.com/https://api.example.com/", false),
            ("https://api.example.com/**", "https://api.example.com/a/../../", true), // it cannot leave the host
            ("https://api.example.com/public/**", "https://api.example.com/public/../admin", false),
            ("https://api.example.com/public/**", "https://api.example.com/public/%2e%2e/admin", false),
            ("https://api.example.com/public/**", "https://api.example.com/public/%252e%252e/admin", true),
            ("https://api.example.com/public/**", "https://api.example.com/public", true),
            ("https://api.example.com/public/**", "https://api.example.com/publicity", false),
            ("https://api.example.com/%7Eme", "https://api.example.com/~me", true),
            ("https://api.example.com/~me", "https://api.example.com/%7eme", true),
            ("https://api.example.com/a", "https://api.example.com/A", false),
            ("https://*.example.com/**", "https://a.example.com/", true),
            ("https://*.example.com/**", "https://a.b.example.com/x", true),
            ("https://*.example.com/**", "https://example.com/", false),
            ("https://*.example.com/**", "https://evil.com/.example.com/", false),
            ("https://*.example.com/**", "https://evil.com/x.example.com/", false),
            ("https://*.example.com/**", "https://evil.test?.example.com", false),
            ("https://*.example.com/**", "https://evil.test/?.example.com/", false),
            ("https://*.example.com/**", "https://evil.test#.example.com/x", false),
            ("https://*.EXAMPLE.com./**", "https://a.example.com/", true),
            ("https://*.bücher.test/**", "https://a.xn--bcher-kva.test/", true),
            ("https://bücher.test/**", "https://xn--bcher-kva.test/", true),
            ("https://a*z.test/", "https://abcz.test/", true),
            ("https://**/x", "https://a.b.c/x", true),
            ("https://*/**", "https://[::1]/x", true),
            ("https://*/**", "https://a.test:8443/x", false), // a port is granted by name
            ("https://*:*/**", "https://a.test:8443/x", true),
            ("https://a.test:*/**", "https://a.test/x", true),
            ("https://a.test:8443/**", "https://a.test:8443/x", true),
            ("https://a.test:8443/**", "https://a.test/x", false),
            ("https://[::1]:8443/**", "https://[0::1]:8443/x", true),
            ("https://[::1]/**", "https://[::1]/x", true),
            ("https://127.1/**", "https://127.0.0.1/x", true),
            ("https://a.test", "https://a.test/", true),
            ("https://a.test", "https://a.test/x", false),
            ("https://a.test/*", "https://a.test/", true), // `*` may be nothing
            ("https://a.test/*", "https://a.test/x/y", false),
            ("https://a.test/a/*/c", "https://a.test/a//c", true),
            ("https://a.test/x", "https://a.test/x?q=1", true),
            ("https://a.test/x?q=1", "https://a.test/x?q=1", true),
            ("https://a.test/x?q=1", "https://a.test/x?q=2", false),
            ("https://a.test/x?q=1", "https://a.test/x", false),
            ("https://a.test/x?q=*", "https://a.test/x?q=2", false),
            ("https://a.test/x?q=*", "https://a.test/x?q=*", true),
            ("s3://bucket/**", "s3://bucket/a/b", true),
            ("s3://bucket/**", "https://bucket/a/b", false),
            ("https://bucket/**", "s3://bucket/a", false),
            ("**", "https://a.test:1/x?y", true),
            ("**", "s3://bucket", true),
        ] {
            let target = FetchUrl::parse(target).unwrap();
            assert_eq!(url(pattern).matches(Target::Url(&target)), expected, "{pattern} on {target}");
        }
    }

    #[test]
    fn a_name_pattern_treats_a_slash_as_a_border() {
        for (pattern, target, expected) in [
            ("search", "search", true),
            ("search.*", "search.web", true),
            ("search.*", "search", false),
            ("*", "search", true),
            ("*", "server/search", false),
            ("server/*", "server/search", true),
            ("**", "server/search", true),
            ("anthropic/claude-3-*", "anthropic/claude-3-opus-20240229", true),
            ("anthropic/claude-3-*", "openai/claude-3-x", false),
            ("Search", "search", false),
        ] {
            let parsed = Pattern::parse(&Namespace::ToolCall, pattern).unwrap();
            let target = ToolName::parse(target).unwrap();
            assert_eq!(parsed.matches(Target::Tool(&target)), expected, "{pattern} on {target}");
        }
    }

    /// ARCP §7.5, §9.2: an agent is granted by its name, or by name and version.
    #[test]
    fn an_agent_pattern_matches_with_and_without_the_version() {
        for (pattern, target, expected) in [
            ("helper", "helper", true),
            ("helper", "helper@1.0", true),
            ("helper@1.0", "helper@1.0", true),
            ("helper@1.0", "helper@2.0", false),
            ("helper@1.0", "helper", false), // which version it will be is not known
            ("helper@1.*", "helper@1.7", true),
            ("help*", "helper@1.0", true),
            ("*@1.0", "helper@1.0", true),
            ("**", "helper@1.0", true),
            ("other", "helper", false),
        ] {
            let parsed = Pattern::parse(&Namespace::AgentDelegate, pattern).unwrap();
            let target = AgentName::parse(target).unwrap();
            assert_eq!(parsed.matches(Target::Agent(&target)), expected, "{pattern} on {target}");
        }
    }

    /// ARCP §9.4: "No delegated grant may name a resource […] the parent lease does not cover".
    #[test]
    fn a_pattern_covers_what_is_surely_within_it() {
        use Namespace::{AgentDelegate, FsRead, NetFetch, ToolCall};
        for (namespace, parent, child, expected) in [
            (FsRead, "/w/*", "/w/**", false),
            (FsRead, "/w/**", "/w/a*", true),
            (FsRead, "/a/*", "/a/**", false),
            (FsRead, "/a/**", "/a/*", true),
            (FsRead, "/a/**", "/a", true),
            (FsRead, "/a/**", "/a/**", true),
            (FsRead, "/a/**", "/a/**/b/*/**", true),
            (FsRead, "/a/**", "/**", false),
            (FsRead, "/a/**", "/ab/**", false),
            (FsRead, "/a/**", "**", false),
            (FsRead, "**", "/a", true),
            (FsRead, "**", "**", true),
            (FsRead, "/**", "**", true),
            (FsRead, "/a*", "/a*b", true),
            (FsRead, "/a*b", "/a*", false),
            (FsRead, "/*a*", "/*ba*", true),
            (FsRead, "/a*a", "/a", false),
            (FsRead, "/a", "/a*", false),
            (FsRead, "/**/*", "/*/**", true), // both are one name or more
            (FsRead, "/*/**", "/**/*", true),
            (FsRead, "/*/**", "/**", false),
            (FsRead, "/**/x/**", "/a/**/x", true),
            (FsRead, "/**/x", "/**", false),
            (FsRead, "/w/?", "/w/a", false),
            (NetFetch, "**", "https://a.test/**", true),
            (NetFetch, "https://a.test/**", "**", false),
            (NetFetch, "https://*.a.test/**", "https://b.a.test/x/*", true),
            (NetFetch, "https://*.a.test/**", "https://*.b.a.test/**", true),
            (NetFetch, "https://*.b.a.test/**", "https://*.a.test/**", false),
            (NetFetch, "https://*.a.test/**", "https://*/**", false),
            (NetFetch, "https://*.a.test/**", "http://b.a.test/**", false),
            (NetFetch, "https://a.test/**", "https://a.test:8443/**", false),
            (NetFetch, "https://a.test:*/**", "https://a.test:8443/**", true),
            (NetFetch, "https://a.test:8443/**", "https://a.test:*/**", false),
            (NetFetch, "https://a.test/x", "https://a.test/x?q", true),
            (NetFetch, "https://a.test/x?q", "https://a.test/x", false),
            (NetFetch, "https://a.test/x?q", "https://a.test/x?q", true),
            (ToolCall, "search.*", "search.web", true),
            (ToolCall, "*", "**", false),
            (AgentDelegate, "helper", "helper@1.0", true),
            (AgentDelegate, "helper", "helper@*", true),
            (AgentDelegate, "helper@*", "helper", false),
            (AgentDelegate, "help*", "helper", true),
            (AgentDelegate, "helper@1.*", "helper@1.2*", true),
        ] {
            let covers =
                Pattern::parse(&namespace, parent).unwrap().covers(&Pattern::parse(&namespace, child).unwrap());
            assert_eq!(covers, expected, "{namespace}: {parent} covers {child}");
        }
    }

    #[test]
    fn a_pattern_that_is_ambiguous_or_can_never_match_is_refused() {
        use Namespace::{CostBudget, FsRead, NetFetch, ToolCall};
        let long = format!("/{}", "a".repeat(1024));
        let deep = "/a".repeat(65);
        for (namespace, text) in [
            (FsRead, ""),
            (FsRead, "*"),
            (FsRead, "src/**"),
            (FsRead, "./a"),
            (FsRead, "/w/../x/**"),
            (FsRead, "/.."),
            (FsRead, "/a\0"),
            (FsRead, "/a\n"),
            (FsRead, &long),
            (FsRead, &deep),
            (NetFetch, "*"),
            (NetFetch, "**/x"),
            (NetFetch, "a.test/**"),
            (NetFetch, "*://a.test/**"),
            (NetFetch, "http*://a.test/**"),
            (NetFetch, "https:a.test"),
            (NetFetch, "https:///x"),
            (NetFetch, "https://me@a.test/"),
            (NetFetch, "https://*@a.test/"),
            (NetFetch, "https://*.a.test:x/"),
            (NetFetch, "https://*.a.test:99999/"),
            (NetFetch, "https://*..test/"),
            (NetFetch, "https://.*/"),
            (NetFetch, "https://[*]/"),
            (NetFetch, "https://*ü.test/"),
            (NetFetch, "https://*.a b/"),
            (NetFetch, "https://*.１/"),
            (NetFetch, "https://a.test/../x"),
            (NetFetch, "https://a.test/%2e%2E/x"),
            (NetFetch, "https://a.test/a%2fb"),
            (NetFetch, "https://a.test/a\\b"),
            (NetFetch, "https://a.test/x#y"),
            (NetFetch, "file:///etc/**"),
            (ToolCall, ""),
            (ToolCall, "a\tb"),
            (CostBudget, "USD:1"),
        ] {
            assert!(Pattern::parse(&namespace, text).is_err(), "{namespace}: {text:?}");
        }
    }

    #[test]
    fn a_pattern_of_one_kind_matches_no_target_of_another() {
        let everything = [path("**"), url("**"), Pattern::parse(&Namespace::ToolCall, "**").unwrap()];
        let (file, web, tool) = (
            FilePath::parse("/a").unwrap(),
            FetchUrl::parse("https://a.test/").unwrap(),
            ToolName::parse("a").unwrap(),
        );
        let targets = [Target::File(&file), Target::Url(&web), Target::Tool(&tool)];
        for (i, pattern) in everything.iter().enumerate() {
            for (k, target) in targets.iter().enumerate() {
                assert_eq!(pattern.matches(*target), i == k, "{pattern} on {target}");
            }
        }
    }

    /// A backtracking matcher takes longer than the age of the universe for these.
    #[test]
    fn a_hostile_pattern_is_answered_at_once() {
        let deep = FilePath::parse(&"/a".repeat(128)).unwrap();
        let wide = FilePath::parse(&format!("/{}", "a".repeat(255))).unwrap();
        for (pattern, target) in [
            (format!("{}/b", "/**/a".repeat(31)), &deep),
            (format!("/**{}/b", "/a*".repeat(62)), &deep),
            (format!("/{}b", "a*".repeat(500)), &wide),
            (format!("/{}b", "*a".repeat(100)), &wide),
        ] {
            assert!(!path(&pattern).matches(Target::File(target)), "{pattern}");
        }
    }
}
