//! The matcher of leases against the plainest one there is: a million pairs of a pattern and a target (ARCP §9.2, §9.4).
//!
//! The oracle knows nothing of the matcher. It cuts texts itself, tries every possibility, and is slow. Patterns and
//! targets are drawn from a few letters; most targets are made of the pattern, by filling its stars, and then spoilt in
//! one place, so that most pairs match or nearly do. [`lease_laws`](./lease_laws.rs) says the same of fewer and wilder
//! texts.

use std::{
    collections::BTreeMap,
    env,
    hash::{BuildHasher, RandomState},
};

use leasehold_core::lease::{
    Namespace,
    pattern::Pattern,
    target::{AgentName, FetchUrl, FilePath, ModelName, Target, ToolName},
};

/// How many pairs of a pattern and a target are asked about, at least.
const PAIRS: usize = 1_000_000;

/// How many pairs of patterns are compared.
const INCLUSIONS: usize = 100_000;

/// How many targets are made for one pattern.
const TARGETS: usize = 8;

#[test]
fn a_million_pairs_match_as_the_plainest_matcher_says() {
    let mut random = Random::new();
    let mut tally: BTreeMap<Kind, Tally> = BTreeMap::new();
    let (mut kinds, mut asked) = (Kind::ALL.iter().cycle(), 0);
    while asked < PAIRS {
        let kind = *kinds.next().expect("it has no end");
        let counts = tally.entry(kind).or_default();
        let pattern = kind.pattern(&mut random);
        let Ok(parsed) = Pattern::parse(&kind.namespace(), &pattern) else {
            counts.no_pattern += 1;
            continue;
        };
        for _ in 0..TARGETS {
            let target = kind.target(&mut random, &pattern);
            let Some(answer) = kind.ask(&parsed, &target) else {
                counts.no_target += 1;
                continue;
            };
            assert_eq!(answer, kind.oracle(&pattern, &target), "{kind:?}: `{pattern}` on `{target}`");
            *(if answer { &mut counts.matched } else { &mut counts.missed }) += 1;
            asked += 1;
        }
    }
    for (kind, counts) in &tally {
        println!("{kind:?}: {counts:?}");
        let least = PAIRS / Kind::ALL.len() / 10;
        assert!(counts.matched > least && counts.missed > least, "{kind:?}: {counts:?}");
    }
    println!("{asked} pairs");
}

/// ARCP §9.4: a grant is a part of another only if all that it matches is matched by the other.
#[test]
fn a_pattern_that_covers_another_matches_whatever_that_one_does() {
    let mut random = Random::new();
    let mut tally: BTreeMap<Kind, (usize, usize, usize)> = BTreeMap::new();
    for n in 0..INCLUSIONS {
        let kind = Kind::ALL[n % Kind::ALL.len()];
        let wide = kind.pattern(&mut random);
        let narrow = if random.below(4) == 0 { kind.pattern(&mut random) } else { narrowed(&mut random, &wide) };
        let parse = |text: &str| Pattern::parse(&kind.namespace(), text).ok();
        let (Some(a), Some(b)) = (parse(&wide), parse(&narrow)) else { continue };
        assert!(a.covers(&a) && b.covers(&b), "{kind:?}: a pattern covers itself: `{wide}` `{narrow}`");
        let (covered, witnessed, not_covered) = tally.entry(kind).or_default();
        let covers = a.covers(&b);
        *(if covers { &mut *covered } else { &mut *not_covered }) += 1;
        for _ in 0..if covers { TARGETS } else { 0 } {
            let target = kind.target(&mut random, &narrow);
            if kind.ask(&b, &target).is_some() && kind.oracle(&narrow, &target) {
                *witnessed += 1;
                assert!(kind.oracle(&wide, &target), "{kind:?}: `{wide}` covers `{narrow}` but not `{target}`");
            }
        }
    }
    for (kind, (covered, witnessed, not_covered)) in &tally {
        println!("{kind:?}: {covered} inclusions, {not_covered} others, {witnessed} targets of the included");
        let least = INCLUSIONS / Kind::ALL.len() / 10;
        assert!(*covered > least && *witnessed > least && *not_covered > least / 2, "{kind:?}");
    }
}

/// What there is to match, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Path,
    Url,
    Tool,
    Model,
    Agent,
    Vendor,
}

#[derive(Debug, Default)]
struct Tally {
    matched: usize,
    missed: usize,
    no_pattern: usize,
    no_target: usize,
}

impl Kind {
    /// URLs, of which there is most to get wrong, come up most often.
    const ALL: [Self; 8] =
        [Self::Url, Self::Path, Self::Url, Self::Tool, Self::Url, Self::Model, Self::Agent, Self::Vendor];

    fn namespace(self) -> Namespace {
        match self {
            Self::Path => Namespace::FsRead,
            Self::Url => Namespace::NetFetch,
            Self::Tool => Namespace::ToolCall,
            Self::Model => Namespace::ModelUse,
            Self::Agent => Namespace::AgentDelegate,
            Self::Vendor => Namespace::parse("x-vendor.acme.rows").expect("a vendor's namespace"),
        }
    }

    fn pattern(self, random: &mut Random) -> String {
        match self {
            Self::Path if random.below(40) == 0 => "**".to_owned(),
            Self::Path => format!("/{}", segments(random, 0)),
            Self::Tool | Self::Model | Self::Vendor => segments(random, 1),
            Self::Agent => {
                let name = text(random, &["a", "b", "*", "-"], 1, 3);
                let version = text(random, &["1", "2", ".", "*"], 1, 3);
                if random.below(3) == 0 { format!("{name}@{version}") } else { name }
            }
            Self::Url => url(random, true),
        }
    }

    /// A target that the pattern often matches, or nearly.
    fn target(self, random: &mut Random, pattern: &str) -> String {
        let mut target = match random.below(8) {
            0 => match self {
                Self::Path => format!("/{}", segments(random, 0).replace('*', "a")),
                Self::Url => url(random, false),
                _ => self.pattern(random).replace('*', ""),
            },
            _ => filled(random, pattern),
        };
        if self == Self::Agent && !target.contains('@') && random.below(2) == 0 {
            target.push_str("@1.2");
        }
        if self == Self::Url && pattern == "**" {
            target = url(random, false);
        }
        if random.below(3) == 0 {
            target = spoilt(random, &target);
        }
        target
    }

    /// What the matcher says, if the text is a target at all.
    fn ask(self, pattern: &Pattern, text: &str) -> Option<bool> {
        Some(match self {
            Self::Path => pattern.matches(Target::File(&FilePath::parse(text).ok()?)),
            Self::Url => pattern.matches(Target::Url(&FetchUrl::parse(text).ok()?)),
            Self::Tool => pattern.matches(Target::Tool(&ToolName::parse(text).ok()?)),
            Self::Model => pattern.matches(Target::Model(&ModelName::parse(text).ok()?)),
            Self::Agent => pattern.matches(Target::Agent(&AgentName::parse(text).ok()?)),
            Self::Vendor => pattern.matches(Target::Vendor(text)),
        })
    }

    /// What the plainest matcher says.
    fn oracle(self, pattern: &str, target: &str) -> bool {
        match self {
            Self::Path => oracle::path(pattern, target),
            Self::Url => pattern == "**" || oracle::url(pattern, target),
            Self::Tool | Self::Model | Self::Vendor => oracle::name(pattern, target),
            Self::Agent => {
                let name = target.split('@').next().unwrap_or_default();
                oracle::name(pattern, target) || oracle::name(pattern, name)
            }
        }
    }
}

/// Letters of which many are stars.
fn text(random: &mut Random, letters: &[&str], least: u64, most: u64) -> String {
    let count = least + random.below(most - least + 1);
    let mut text = String::with_capacity(16);
    for _ in 0..count {
        text.push_str(letters[random.index(letters.len())]);
    }
    text
}

fn segments(random: &mut Random, least: u64) -> String {
    let count = least + random.below(5);
    let segment = |random: &mut Random| match random.below(8) {
        0 | 1 => "**".to_owned(),
        2 => "*".to_owned(),
        3 => text(random, &["a", "b", "*", "*"], 1, 4),
        4 => text(random, &["a", ".", "A", "?", "["], 1, 3).replace("..", "."),
        5 => text(random, &["a", "b"], 0, 2),
        _ => text(random, &["a", "b", "*"], 1, 3),
    };
    (0..count).map(|_| segment(random)).collect::<Vec<_>>().join("/")
}

fn url(random: &mut Random, is_pattern: bool) -> String {
    if is_pattern && random.below(60) == 0 {
        return "**".to_owned();
    }
    let scheme = ["https", "https", "https", "http", "HTTPS", "s3"][random.index(6)];
    let label = |random: &mut Random| match random.below(4) {
        0 if is_pattern => text(random, &["a", "b", "*"], 1, 3),
        1 => text(random, &["a", "B", "b"], 1, 2),
        _ => text(random, &["a", "b"], 1, 2),
    };
    let labels = 1 + random.below(3);
    let mut host = (0..labels).map(|_| label(random)).collect::<Vec<_>>().join(".");
    if is_pattern && random.below(4) == 0 {
        host = format!("*.{host}");
    }
    if random.below(12) == 0 {
        host.push('.');
    }
    let port = match random.below(10) {
        0 if is_pattern => ":*",
        1 => ":443",
        2 => ":80",
        3 => ":8443",
        _ => "",
    };
    let segment = |random: &mut Random| match random.below(8) {
        0 | 1 if is_pattern => "**".to_owned(),
        2 if is_pattern => "*".to_owned(),
        3 => text(random, &["a", "%61", "%41", "-", "%2D"], 1, 3),
        4 if is_pattern => text(random, &["a", "b", "*"], 1, 3),
        _ => text(random, &["a", "b"], 0, 2),
    };
    let depth = random.below(5);
    let path: String = (0..depth).map(|_| format!("/{}", segment(random))).collect();
    let query = ["", "", "", "", "?a", "?b=a"][random.index(6)];
    format!("{scheme}://{host}{port}{path}{query}")
}

/// The pattern with something in the place of each star.
fn filled(random: &mut Random, pattern: &str) -> String {
    // The slashes after a scheme are no segments.
    let (scheme, rest) = pattern.split_once("://").map_or(("", pattern), |(scheme, rest)| (scheme, rest));
    let (host, port) = if scheme.is_empty() { ("", "") } else { rest.split_once(":*").map_or(("", ""), |it| it) };
    let rest = match host {
        "" => rest.to_owned(),
        host => format!("{host}{}{port}", ["", ":443", ":1"][random.index(3)]),
    };
    let one = |random: &mut Random, segment: &str, dots: bool| -> String {
        let letters: &[&str] = if dots { &["a", "b", "."] } else { &["a", "b"] };
        segment.chars().map(|c| if c == '*' { text(random, letters, 0, 2) } else { c.to_string() }).collect()
    };
    let mut names = Vec::new();
    for (at, segment) in rest.split('/').enumerate() {
        if segment == "**" {
            for _ in 0..random.below(3) {
                names.push(text(random, &["a", "b"], 1, 2));
            }
        } else {
            names.push(one(random, segment, at == 0 && !scheme.is_empty()));
        }
    }
    let filled = names.join("/");
    match scheme {
        "" if filled.is_empty() && pattern.starts_with('/') => "/".to_owned(),
        "" if pattern == "**" => format!("/{filled}"),
        "" => filled,
        scheme => format!("{scheme}://{filled}"),
    }
}

/// A pattern made of another one by putting something narrower in the place of some stars.
fn narrowed(random: &mut Random, wide: &str) -> String {
    if wide == "**" {
        return wide.to_owned();
    }
    let port = [":*", "", ":443"][random.index(3)];
    let segments = wide.split('/').map(|segment| match segment {
        "**" => match random.below(5) {
            0 => "**".to_owned(),
            1 => "*/**".to_owned(),
            2 => "a/b".to_owned(),
            3 => "*".to_owned(),
            _ => "a*".to_owned(),
        },
        segment => {
            let segment = segment.replace(":*", port);
            let (before, after) = segment.split_at(segment.find(":*").unwrap_or(segment.len()));
            before.replacen('*', ["*", "", "a", "a*b"][random.index(4)], 1) + after
        }
    });
    let narrow = segments.collect::<Vec<_>>().join("/");
    if random.below(6) == 0 { spoilt(random, &narrow) } else { narrow }
}

/// The text with one thing wrong.
fn spoilt(random: &mut Random, text: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let extra = ['a', 'b', '/', '.', 'A', '-', '@', '?'][random.index(8)];
    let at = random.index(letters.len() + 1);
    match random.below(4) {
        0 if at < letters.len() => drop(letters.remove(at)),
        1 if at < letters.len() => letters[at] = extra,
        2 if at < letters.len() => letters[at] = letters[at].to_ascii_uppercase(),
        _ => letters.insert(at, extra),
    }
    letters.into_iter().collect()
}

/// The same dialect, as slow and plain as can be: try every possibility.
mod oracle {
    pub fn path(pattern: &str, path: &str) -> bool {
        let pattern: Vec<&str> = pattern.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let path: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        segments(&pattern, &path)
    }

    /// The segments of a name may be empty.
    pub fn name(pattern: &str, name: &str) -> bool {
        segments(&pattern.split('/').collect::<Vec<_>>(), &name.split('/').collect::<Vec<_>>())
    }

    pub fn url(pattern: &str, url: &str) -> bool {
        let (pattern, url) = (parts(pattern), parts(url));
        let port = pattern.port == ":*" || pattern.port == url.port;
        let query = pattern.query.is_none() || pattern.query == url.query;
        let host = characters(pattern.host.as_bytes(), url.host.as_bytes());
        pattern.scheme == url.scheme && host && port && query && name(&pattern.path, &url.path)
    }

    struct Parts {
        scheme: String,
        host: String,
        port: String,
        path: String,
        query: Option<String>,
    }

    /// Cuts a URL that was drawn above, or spoilt in one place and found to be a URL all the same.
    fn parts(text: &str) -> Parts {
        let (scheme, rest) = text.split_once("://").expect("a URL");
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query.to_owned())));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let scheme = scheme.to_lowercase();
        let (host, port) = authority.split_once(':').map_or((authority, ""), |(host, port)| (host, port));
        let own = match &*scheme {
            "https" => "443",
            "http" => "80",
            _ => "none",
        };
        let port = if port.is_empty() || port == own { String::new() } else { format!(":{port}") };
        let host = host.to_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        let path = path.replace("%61", "a").replace("%41", "A").replace("%2D", "-");
        Parts { scheme, host, port, path: dotless(&path), query }
    }

    /// A path without its dot segments (RFC 3986 §5.2.4).
    fn dotless(path: &str) -> String {
        let mut names = Vec::new();
        let last = path.split('/').count() - 1;
        for (at, name) in path.split('/').enumerate() {
            match name {
                "." | ".." => {
                    if name == ".." {
                        names.pop();
                    }
                    if at == last {
                        names.push("");
                    }
                }
                name => names.push(name),
            }
        }
        names.join("/")
    }

    fn segments(pattern: &[&str], target: &[&str]) -> bool {
        match pattern.split_first() {
            None => target.is_empty(),
            Some((first, rest)) if *first == "**" => {
                (0..=target.len()).any(|skipped| segments(rest, &target[skipped..]))
            }
            Some((first, rest)) => target
                .split_first()
                .is_some_and(|(name, others)| characters(first.as_bytes(), name.as_bytes()) && segments(rest, others)),
        }
    }

    fn characters(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skipped| characters(rest, &text[skipped..])),
            Some((first, rest)) => text.first() == Some(first) && characters(rest, &text[1..]),
        }
    }
}

/// SplitMix64: a seed is all of its state.
struct Random(u64);

impl Random {
    /// Choices that nobody made before, unless `LEASEHOLD_TEST_SEED` says which. The seed is shown if the test fails.
    fn new() -> Self {
        let seed = env::var("LEASEHOLD_TEST_SEED")
            .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().expect("a seed is a number"));
        println!("LEASEHOLD_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index")
    }
}
