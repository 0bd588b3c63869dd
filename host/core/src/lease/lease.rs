//! What a job may touch, as the wire writes it and as one lease bounds another (ARCP §9.2, §9.4).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    amount::{Amount, AmountError, Budget, Currency, Decimal, exact_add},
    pattern::{Pattern, PatternError, Question},
    quote,
    target::Target,
};
use crate::{
    error::{ErrorCode, Refusal},
    time::Timestamp,
};

/// The most patterns one namespace of a lease holds.
pub const PATTERNS_PER_NAMESPACE_MAX: usize = 256;
/// The most patterns a lease holds in all.
pub const PATTERNS_MAX: usize = 1024;
/// The most bytes all patterns of a lease have together.
pub const BYTES_MAX: usize = 32 << 10;
/// The most namespaces a lease names.
pub const NAMESPACES_MAX: usize = 64;

/// A kind of authority (ARCP §9.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// `fs.read`: patterns are path globs.
    FsRead,
    /// `fs.write`: patterns are path globs.
    FsWrite,
    /// `net.fetch`: patterns are URL globs.
    NetFetch,
    /// `tool.call`: patterns are tool name globs.
    ToolCall,
    /// `agent.delegate`: patterns are agent name globs.
    AgentDelegate,
    /// `cost.budget`: amounts instead of patterns (ARCP §9.6).
    CostBudget,
    /// `model.use`: patterns are model name globs (ARCP §9.7).
    ModelUse,
    /// `x-vendor.<vendor>.<name>`, spelled out; patterns are globs over any text.
    Vendor(String),
}

impl Namespace {
    /// The namespace as the wire spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::FsRead => "fs.read",
            Self::FsWrite => "fs.write",
            Self::NetFetch => "net.fetch",
            Self::ToolCall => "tool.call",
            Self::AgentDelegate => "agent.delegate",
            Self::CostBudget => "cost.budget",
            Self::ModelUse => "model.use",
            Self::Vendor(name) => name,
        }
    }

    /// Parses a namespace of ARCP §9.2 or a vendor's own.
    ///
    /// # Errors
    ///
    /// If it is neither: an unknown name is a grant that nobody enforces.
    pub fn parse(text: &str) -> Result<Self, NamespaceError> {
        Ok(match text {
            "fs.read" => Self::FsRead,
            "fs.write" => Self::FsWrite,
            "net.fetch" => Self::NetFetch,
            "tool.call" => Self::ToolCall,
            "agent.delegate" => Self::AgentDelegate,
            "cost.budget" => Self::CostBudget,
            "model.use" => Self::ModelUse,
            _ if is_vendor_name(text) => Self::Vendor(text.to_owned()),
            _ => return Err(NamespaceError { text: quote(text) }),
        })
    }
}

fn is_vendor_name(text: &str) -> bool {
    let parts = text.strip_prefix("x-vendor.").map(|rest| rest.split('.'));
    let part_fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= NAMESPACE_BYTES_MAX
        && parts.is_some_and(|mut parts| parts.clone().count() >= 2 && parts.all(part_fits))
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

text_form!(Namespace, NamespaceError);

/// Why a text is not a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a namespace: there are fs.read, fs.write, net.fetch, tool.call, agent.delegate, cost.budget, \
     model.use and x-vendor.<vendor>.<name>"
)]
pub struct NamespaceError {
    text: String,
}

/// What a job may touch and spend (ARCP §9.1). The default grants nothing.
///
/// On the wire it is a map from namespace to patterns; amounts of one
/// currency are added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Never `cost.budget`. A namespace without patterns is kept: naming
    /// `model.use` and granting nothing is not the same as leaving it out (ARCP §9.7).
    grants: BTreeMap<Namespace, Vec<Pattern>>,
    budget: Budget,
}

impl Lease {
    /// Parses the map of `lease_request`.
    ///
    /// # Errors
    ///
    /// If a namespace is unknown, a pattern or amount malformed, or a limit
    /// exceeded; the error says which entry it was.
    pub fn parse(wire: &BTreeMap<String, Vec<String>>) -> Result<Self, LeaseError> {
        if wire.len() > NAMESPACES_MAX {
            return Err(LeaseError::TooManyNamespaces);
        }
        if wire.values().map(Vec::len).sum::<usize>() > PATTERNS_MAX {
            return Err(LeaseError::TooManyPatternsInAll);
        }
        if wire.values().flatten().map(String::len).sum::<usize>() > BYTES_MAX {
            return Err(LeaseError::TooLong);
        }
        let mut lease = Self::default();
        for (name, texts) in wire {
            let namespace = Namespace::parse(name).map_err(LeaseError::Namespace)?;
            if texts.len() > PATTERNS_PER_NAMESPACE_MAX {
                return Err(LeaseError::TooManyPatterns { namespace });
            }
            if namespace == Namespace::CostBudget {
                lease.budget = parse_budget(texts)?;
                continue;
            }
            let patterns = texts.iter().enumerate().map(|(index, text)| {
                Pattern::parse(&namespace, text).map_err(|error| LeaseError::Pattern {
                    namespace: namespace.clone(),
                    index,
                    error,
                })
            });
            let patterns = patterns.collect::<Result<_, _>>()?;
            lease.grants.insert(namespace, patterns);
        }
        Ok(lease)
    }

    /// Parses names of namespaces.
    ///
    /// # Errors
    ///
    /// If one is unknown, or there are more than a lease may name.
    pub fn parse_namespaces(names: &[String]) -> Result<Vec<Namespace>, LeaseError> {
        if names.len() > NAMESPACES_MAX {
            return Err(LeaseError::TooManyNamespaces);
        }
        names.iter().map(|name| Namespace::parse(name).map_err(LeaseError::Namespace)).collect()
    }

    /// The map as the wire writes it; what [`Lease::parse`] reads back.
    #[must_use]
    pub fn to_wire(&self) -> BTreeMap<String, Vec<String>> {
        self.namespaces().map(|namespace| (namespace.to_string(), self.texts(namespace))).collect()
    }

    /// The namespaces the lease names; `cost.budget` is among them if there is a budget.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.grants.keys().chain((!self.budget.is_empty()).then_some(&Namespace::CostBudget))
    }

    /// The patterns of one namespace as they were written, or the amounts of `cost.budget`.
    #[must_use]
    pub fn texts(&self, namespace: &Namespace) -> Vec<String> {
        match namespace {
            Namespace::CostBudget => {
                self.budget.iter().map(|(currency, value)| format!("{currency}:{value}")).collect()
            }
            _ => self.patterns(namespace).iter().map(ToString::to_string).collect(),
        }
    }

    /// The patterns of one namespace; none for `cost.budget`.
    #[must_use]
    pub fn patterns(&self, namespace: &Namespace) -> &[Pattern] {
        self.grants.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// Whether the lease names `namespace` at all, even without a pattern.
    #[must_use]
    pub fn names(&self, namespace: &Namespace) -> bool {
        self.namespaces().any(|named| named == namespace)
    }

    /// How much may be spent of each currency; empty where nothing is bounded (ARCP §9.6).
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The same lease with another budget.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// Whether a pattern of `namespace` matches `target` (ARCP §9.3).
    #[must_use]
    pub fn covers(&self, namespace: &Namespace, target: Target<'_>) -> bool {
        let question = Question::new(target);
        self.patterns(namespace).iter().any(|pattern| pattern.answers(&question))
    }
}

fn parse_budget(texts: &[String]) -> Result<Budget, LeaseError> {
    let mut budget = Budget::new();
    for (index, text) in texts.iter().enumerate() {
        let amount = Amount::parse(text).map_err(|error| LeaseError::Amount { index, error })?;
        let sum = budget.entry(amount.currency().clone()).or_insert(Decimal::ZERO);
        *sum = exact_add(*sum, amount.value()).ok_or(LeaseError::BudgetTooLarge { index })?;
    }
    Ok(budget)
}

impl Serialize for Lease {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_wire().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Lease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&BTreeMap::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Why a `lease_request` is not a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// A key of the map.
    #[error("lease_request: {0}")]
    Namespace(NamespaceError),
    /// An entry of a namespace.
    #[error("lease_request.{namespace}[{index}]: {error}")]
    Pattern {
        /// Where it stands.
        namespace: Namespace,
        /// Which entry, from 0.
        index: usize,
        /// What is wrong with it.
        error: PatternError,
    },
    /// An entry of `cost.budget`.
    #[error("lease_request.cost.budget[{index}]: {error}")]
    Amount {
        /// Which entry, from 0.
        index: usize,
        /// What is wrong with it.
        error: AmountError,
    },
    /// Too much text in all.
    #[error("lease_request: its patterns have more than {BYTES_MAX} bytes together")]
    TooLong,
    /// The sum of one currency's entries.
    #[error("lease_request.cost.budget[{index}]: the sum of this currency has more than 28 digits")]
    BudgetTooLarge {
        /// The entry at which it overflows.
        index: usize,
    },
    /// Too many entries of one namespace.
    #[error("lease_request.{namespace}: more than {PATTERNS_PER_NAMESPACE_MAX} entries")]
    TooManyPatterns {
        /// Where.
        namespace: Namespace,
    },
    /// Too many entries of all namespaces together.
    #[error("lease_request: more than {PATTERNS_MAX} entries in all")]
    TooManyPatternsInAll,
    /// Too many keys.
    #[error("lease_request: more than {NAMESPACES_MAX} namespaces")]
    TooManyNamespaces,
}

impl From<LeaseError> for Refusal {
    fn from(error: LeaseError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// A lease and when it ends: all that one party can give to another (ARCP §9.4, §9.5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// What may be touched and spent.
    pub lease: Lease,
    /// The instant from which on nothing is permitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Authority {
    /// Grants `request` out of this authority, or says how it is too wide (ARCP §9.4).
    ///
    /// `remaining` is what is left of this authority's budget. What the
    /// request leaves out it inherits: the end of the lease, and every
    /// currency that is bounded here, since a bound that a child could shed by
    /// not mentioning it would be none. Nothing is taken from a ledger yet.
    ///
    /// # Errors
    ///
    /// If a pattern is not covered by one pattern here, an amount is over what
    /// remains or of a currency this budget lacks, or the end is later.
    pub fn delegate(&self, remaining: &Budget, request: Self) -> Result<Self, SubsetViolation> {
        for (namespace, patterns) in &request.lease.grants {
            let allowed = self.lease.patterns(namespace);
            if let Some(pattern) = patterns.iter().find(|pattern| !allowed.iter().any(|a| a.covers(pattern))) {
                return Err(SubsetViolation::Pattern {
                    namespace: namespace.clone(),
                    pattern: pattern.to_string(),
                    allowed: allowed.iter().map(ToString::to_string).collect(),
                });
            }
        }
        let budget = self.delegate_budget(remaining, request.lease.budget)?;
        let expires_at = match (self.expires_at, request.expires_at) {
            (Some(latest), Some(asked)) if asked > latest => return Err(SubsetViolation::Expiry { asked, latest }),
            (latest, asked) => asked.or(latest),
        };
        Ok(Self { lease: Lease { grants: request.lease.grants, budget }, expires_at })
    }

    /// Adds to a request all that this authority grants of some namespaces, but for those it asks for itself.
    #[must_use]
    pub fn with_all_of(&self, whole: &[Namespace], mut request: Self) -> Self {
        for namespace in whole.iter().filter(|namespace| **namespace != Namespace::CostBudget) {
            let patterns = || self.lease.patterns(namespace).to_vec();
            request.lease.grants.entry(namespace.clone()).or_insert_with(patterns);
        }
        request
    }

    fn delegate_budget(&self, remaining: &Budget, asked: Budget) -> Result<Budget, SubsetViolation> {
        // A budget restricts; where there is none, any is narrower.
        if self.lease.budget.is_empty() {
            return Ok(asked);
        }
        if let Some(currency) = asked.keys().find(|currency| !self.lease.budget.contains_key(*currency)) {
            let allowed = self.lease.budget.keys().cloned().collect();
            return Err(SubsetViolation::Currency { currency: currency.clone(), allowed });
        }
        let grants = self.lease.budget.iter().map(|(currency, initial)| {
            // Overspent is nothing left: an amount has no sign.
            let left = remaining.get(currency).copied().unwrap_or_default().min(*initial).max(Decimal::ZERO);
            match asked.get(currency) {
                Some(&asked) if asked > left => {
                    Err(SubsetViolation::Budget { currency: currency.clone(), asked, remaining: left })
                }
                asked => Ok((currency.clone(), asked.copied().unwrap_or(left))),
            }
        });
        grants.collect()
    }
}

/// How a requested authority is wider than the one it would come from (ARCP §9.4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubsetViolation {
    /// A pattern that no single pattern of the parent covers.
    #[error("{namespace} on `{pattern}` cannot be granted: {}", or_nothing(allowed, "only within"))]
    Pattern {
        /// Where it was asked for.
        namespace: Namespace,
        /// What was asked for.
        pattern: String,
        /// The parent's patterns.
        allowed: Vec<String>,
    },
    /// A currency in which the parent has no budget.
    #[error("a budget in {currency} cannot be granted: {}", or_nothing(allowed, "there is one in"))]
    Currency {
        /// The currency asked for.
        currency: Currency,
        /// The currencies the parent has.
        allowed: Vec<Currency>,
    },
    /// More money than is left.
    #[error("a budget of {currency}:{asked} cannot be granted: {currency}:{remaining} remains")]
    Budget {
        /// The currency.
        currency: Currency,
        /// How much was asked for.
        asked: Decimal,
        /// How much there is.
        remaining: Decimal,
    },
    /// An end later than the parent's own.
    #[error("a lease until {asked} cannot be granted: it ends at {latest} at the latest")]
    Expiry {
        /// The end asked for.
        asked: Timestamp,
        /// The parent's end.
        latest: Timestamp,
    },
}

/// Lists what there is instead, as far as a message has room.
fn or_nothing(allowed: &[impl fmt::Display], intro: &str) -> String {
    let shown: Vec<String> =
        allowed.iter().take(LISTED_MAX).map(|item| format!("`{}`", quote(&item.to_string()))).collect();
    match allowed.len() {
        0 => "there is nothing to grant it from".to_owned(),
        n if n > LISTED_MAX => format!("{intro} {} and {} more", shown.join(", "), n - LISTED_MAX),
        _ => format!("{intro} {}", shown.join(", ")),
    }
}

impl From<SubsetViolation> for Refusal {
    fn from(violation: SubsetViolation) -> Self {
        Self::new(ErrorCode::LeaseSubsetViolation, violation.to_string())
    }
}

const NAMESPACE_BYTES_MAX: usize = 128;
const LISTED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::{
        super::target::{FetchUrl, FilePath},
        *,
    };

    fn wire(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        entries.iter().map(|(namespace, texts)| ((*namespace).to_owned(), owned(texts))).collect()
    }

    fn lease(entries: &[(&str, &[&str])]) -> Lease {
        Lease::parse(&wire(entries)).unwrap()
    }

    fn authority(entries: &[(&str, &[&str])], expires_at: Option<i64>) -> Authority {
        Authority { lease: lease(entries), expires_at: expires_at.map(Timestamp::from_millis) }
    }

    fn budget(entries: &[(&str, &str)]) -> Budget {
        entries.iter().map(|(currency, value)| (currency.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_namespace_is_one_of_seven_or_a_vendors() {
        for name in ["fs.read", "fs.write", "net.fetch", "tool.call", "agent.delegate", "cost.budget", "model.use"] {
            let namespace = Namespace::parse(name).unwrap();
            assert_eq!(namespace.to_string(), name);
            assert!(!matches!(namespace, Namespace::Vendor(_)), "{name}");
        }
        for (name, expected) in [
            ("x-vendor.acme.gpu", true),
            ("x-vendor.acme.gpu.time", true),
            ("x-vendor.acme", false),
            ("x-vendor..gpu", false),
            ("x-vendor.acme.", false),
            ("x-vendor.acme.g pu", false),
            ("x-acme.gpu", false),
            ("fs", false),
            ("fs.*", false),
            ("FS.READ", false),
            ("capabilities", false),
            ("", false),
        ] {
            assert_eq!(Namespace::parse(name).is_ok(), expected, "{name}");
        }
    }

    /// ARCP §9.2: a lease is a map from namespace to patterns, and nothing is granted by leaving one out.
    #[test]
    fn a_lease_survives_its_wire_form() {
        let json = r#"{"cost.budget":["USD:3.00","credits:1000"],"fs.read":["/in/**"],"model.use":[],"x-vendor.acme.gpu":["a/*"]}"#;
        let lease: Lease = serde_json::from_str(json).unwrap();
        assert!(lease.names(&Namespace::ModelUse) && !lease.names(&Namespace::FsWrite));
        assert_eq!(serde_json::to_string(&lease).unwrap(), json);
        assert_eq!(serde_json::to_string(&Lease::default()).unwrap(), "{}");
        assert_eq!(lease.texts(&Namespace::CostBudget), ["USD:3.00", "credits:1000"]);
        assert_eq!(lease.texts(&Namespace::FsRead), ["/in/**"]);
    }

    #[test]
    fn amounts_of_one_currency_are_added_up() {
        let summed = lease(&[("cost.budget", &["USD:1.50", "EUR:1", "USD:0.25"])]);
        assert_eq!(summed.texts(&Namespace::CostBudget), ["EUR:1", "USD:1.75"]);
    }

    #[test]
    fn an_error_says_which_entry_is_wrong() {
        let wide = ["USD:9999999999999999999999999999"; 8];
        let many = ["/a"; 257];
        let table: [(&str, &[&str], &str); 10] = [
            ("fs.read", &["/a", "/a/../b"], "lease_request.fs.read[1]: `/a/../b` is not a pattern: `..`"),
            ("net.fetch", &["a.test/**"], "lease_request.net.fetch[0]: `a.test/**` is not a pattern: a URL pattern"),
            ("cost.budget", &["USD:1", "USD:-1"], "lease_request.cost.budget[1]: `-1` is not a plain decimal"),
            ("cost.budget", &["USD:1e3"], "lease_request.cost.budget[0]: `1e3` is not a plain decimal"),
            ("cost.budget", &[":5"], "lease_request.cost.budget[0]: `` is not a currency"),
            ("cost.budget", &["USD:"], "lease_request.cost.budget[0]: `` is not a plain decimal"),
            ("cost.budget", &["USD 5"], "lease_request.cost.budget[0]: `USD 5` is not an amount"),
            ("cost.budget", &wide, "lease_request.cost.budget[7]: the sum of this currency"),
            ("fs.delete", &["/a"], "lease_request: `fs.delete` is not a namespace"),
            ("fs.read", &many, "lease_request.fs.read: more than 256 entries"),
        ];
        for (namespace, texts, expected) in table {
            let refusal = Refusal::from(Lease::parse(&wire(&[(namespace, texts)])).unwrap_err());
            assert_eq!(refusal.code, ErrorCode::InvalidRequest);
            assert!(refusal.message.starts_with(expected), "{}", refusal.message);
        }
    }

    #[test]
    fn a_lease_has_a_size() {
        let spread = |namespaces: usize, each: usize| {
            let name = |n: usize| format!("x-vendor.acme.n{n}");
            (0..namespaces).map(|n| (name(n), vec!["a".to_owned(); each])).collect::<BTreeMap<_, _>>()
        };
        assert!(Lease::parse(&spread(4, 256)).is_ok());
        assert_eq!(Lease::parse(&spread(5, 256)), Err(LeaseError::TooManyPatternsInAll));
        assert!(Lease::parse(&spread(64, 1)).is_ok());
        assert_eq!(Lease::parse(&spread(65, 1)), Err(LeaseError::TooManyNamespaces));
    }

    #[test]
    fn a_grant_to_read_is_none_to_write() {
        let lease = lease(&[("fs.read", &["/a/**", "/b"]), ("net.fetch", &["https://a.test/**"])]);
        let file = |text| FilePath::parse(text).unwrap();
        assert!(lease.covers(&Namespace::FsRead, Target::File(&file("/a/x"))));
        assert!(lease.covers(&Namespace::FsRead, Target::File(&file("/b"))));
        assert!(!lease.covers(&Namespace::FsRead, Target::File(&file("/c"))));
        assert!(!lease.covers(&Namespace::FsWrite, Target::File(&file("/a/x"))));
        assert!(!lease.covers(&Namespace::FsRead, Target::Url(&FetchUrl::parse("https://a.test/").unwrap())));
    }

    /// ARCP §9.4, each row one request and the lease that comes of it.
    #[test]
    fn a_delegated_lease_inherits_what_it_leaves_out() {
        let parent = authority(&[("fs.read", &["/w/**"]), ("cost.budget", &["USD:5.00", "credits:9"])], Some(100));
        let remaining = budget(&[("USD", "2.00"), ("credits", "-3")]);
        for (request, expires_at, expected, ends_at) in [
            (r#"{}"#, None, r#"{"cost.budget":["USD:2.00","credits:0"]}"#, 100),
            (r#"{"cost.budget":["USD:1"]}"#, Some(100), r#"{"cost.budget":["USD:1","credits:0"]}"#, 100),
            (r#"{"cost.budget":["USD:2","credits:0"]}"#, Some(1), r#"{"cost.budget":["USD:2","credits:0"]}"#, 1),
            (r#"{"fs.read":["/w/a*"]}"#, None, r#"{"cost.budget":["USD:2.00","credits:0"],"fs.read":["/w/a*"]}"#, 100),
            (r#"{"net.fetch":[]}"#, None, r#"{"cost.budget":["USD:2.00","credits:0"],"net.fetch":[]}"#, 100),
        ] {
            let lease = serde_json::from_str(request).unwrap();
            let request = Authority { lease, expires_at: expires_at.map(Timestamp::from_millis) };
            let child = parent.delegate(&remaining, request).unwrap();
            assert_eq!(serde_json::to_string(&child.lease).unwrap(), expected);
            assert_eq!(child.expires_at, Some(Timestamp::from_millis(ends_at)), "{expected}");
        }
    }

    /// ARCP §9.4: "Delegation that would expand authority is rejected with `LEASE_SUBSET_VIOLATION`".
    #[test]
    fn a_request_wider_than_its_parent_is_refused_with_what_there_is() {
        let grants: &[(&str, &[&str])] = &[("fs.read", &["/w/**", "/x/a", "/x/b"]), ("tool.call", &[])];
        let parent = authority(&[grants, &[("cost.budget", &["USD:5.00", "credits:9"])]].concat(), Some(100));
        let remaining = budget(&[("USD", "2.00"), ("credits", "-3")]);
        for (request, expires_at, expected) in [
            (
                r#"{"fs.read":["/w/a","/**"]}"#,
                None,
                "fs.read on `/**` cannot be granted: only within `/w/**`, `/x/a`, `/x/b`",
            ),
            (r#"{"fs.read":["/x/*"]}"#, None, "fs.read on `/x/*` cannot be granted: only"), // two patterns do not make one
            (r#"{"fs.write":["/w/a"]}"#, None, "fs.write on `/w/a` cannot be granted: there is nothing"),
            (r#"{"tool.call":["a"]}"#, None, "tool.call on `a` cannot be granted: there is nothing"),
            (r#"{"cost.budget":["USD:2.01"]}"#, None, "a budget of USD:2.01 cannot be granted: USD:2.00 remains"),
            (r#"{"cost.budget":["credits:1"]}"#, None, "a budget of credits:1 cannot be granted: credits:0 remains"),
            (
                r#"{"cost.budget":["EUR:0"]}"#,
                None,
                "a budget in EUR cannot be granted: there is one in `USD`, `credits`",
            ),
            (r#"{}"#, Some(101), "a lease until 1970-01-01T00:00:00.101Z cannot be granted: it ends at 1970"),
        ] {
            let lease = serde_json::from_str(request).unwrap();
            let request = Authority { lease, expires_at: expires_at.map(Timestamp::from_millis) };
            let refusal = Refusal::from(parent.delegate(&remaining, request).unwrap_err());
            assert_eq!(refusal.code, ErrorCode::LeaseSubsetViolation);
            assert!(refusal.message.starts_with(expected), "{}", refusal.message);
        }
    }

    #[test]
    fn a_parent_without_bounds_lets_a_child_have_some() {
        let parent = authority(&[("fs.read", &["**"])], None);
        let asked = authority(&[("cost.budget", &["EUR:1"])], Some(5));
        assert_eq!(parent.delegate(&Budget::new(), asked.clone()), Ok(asked));
    }

    #[test]
    fn a_parent_whose_rest_is_not_known_gives_no_money() {
        let parent = authority(&[("cost.budget", &["USD:5"])], None);
        let child = parent.delegate(&Budget::new(), Authority::default()).unwrap();
        assert_eq!(child.lease.texts(&Namespace::CostBudget), ["USD:0"]);
    }

    #[test]
    fn an_authority_survives_json() {
        let whole = authority(&[("fs.read", &["/a"])], Some(1_778_700_600_000));
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(json, r#"{"lease":{"fs.read":["/a"]},"expires_at":"2026-05-13T19:30:00.000Z"}"#);
        assert_eq!(serde_json::from_str::<Authority>(&json).unwrap(), whole);
        assert_eq!(serde_json::from_str::<Authority>(r#"{"lease":{}}"#).unwrap(), Authority::default());
    }
}
