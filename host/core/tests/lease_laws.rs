//! The laws of authority, asked of thousands of leases (ARCP §9).
//!
//! The generators draw from alphabets of a few letters, so that patterns and
//! targets often meet, and each law fails if it was put to the test too
//! seldom: a law about nothing proves nothing.

use std::{cell::Cell, collections::BTreeMap};

use leasehold_core::{
    lease::{
        Authority, Lease, Namespace,
        amount::{Amount, Budget, Currency, Decimal},
        gate::Gate,
        ledger::Ledger,
        operation::{CallTool, Delegate, Fetch, Operation, ReadFile},
        pattern::Pattern,
        target::{AgentName, FetchUrl, FilePath, Target, ToolName},
    },
    time::Timestamp,
};
use proptest::{prelude::*, test_runner::TestRunner};

#[test]
fn a_path_pattern_matches_exactly_what_the_plainest_matcher_says() {
    law(6_000, 3_000, (path_pattern(), path(), fillings()), |(pattern, other, fillings)| {
        let parsed = parse(&Namespace::FsRead, &pattern);
        let mut met = false;
        for text in [other, filled(&pattern, &fillings)] {
            let target = FilePath::parse(&text).unwrap();
            let expected = oracle::path(&pattern, target.as_str());
            prop_assert_eq!(parsed.matches(Target::File(&target)), expected, "{} on {}", pattern, target);
            met |= expected;
        }
        Ok(met)
    });
}

#[test]
fn a_name_pattern_matches_exactly_what_the_plainest_matcher_says() {
    let pattern = prop::collection::vec(segment_or_any_depth(), 1..5).prop_map(|segments| segments.join("/"));
    law(4_000, 2_000, (pattern, fillings()), |(pattern, fillings)| {
        let text = filled(&pattern, &fillings);
        let Ok(target) = ToolName::parse(&text) else { return Ok(false) };
        let expected = oracle::name(&pattern, &text);
        let parsed = parse(&Namespace::ToolCall, &pattern);
        prop_assert_eq!(parsed.matches(Target::Tool(&target)), expected, "{} on {}", pattern, text);
        Ok(expected)
    });
}

/// ARCP §9.4: `a.covers(b) && b.matches(t) => a.matches(t)`.
#[test]
fn what_a_covered_path_pattern_matches_its_cover_matches() {
    let pair = prop_oneof![3 => narrowed(), 1 => (path_pattern(), path_pattern())];
    law(6_000, 3_000, (pair, path(), fillings()), |((wide, narrow), other, fillings)| {
        let (a, b) = (parse(&Namespace::FsRead, &wide), parse(&Namespace::FsRead, &narrow));
        prop_assert!(a.covers(&a) && b.covers(&b), "a pattern covers itself: {} {}", wide, narrow);
        let mut met = false;
        for text in [other, filled(&narrow, &fillings)] {
            let target = FilePath::parse(&text).unwrap();
            if a.covers(&b) && b.matches(Target::File(&target)) {
                prop_assert!(a.matches(Target::File(&target)), "{} covers {} but not {}", wide, narrow, target);
                met = true;
            }
        }
        Ok(met)
    });
}

/// The same law for URLs, whose scheme, host, port, path and query are compared each in its own way.
#[test]
fn what_a_covered_url_pattern_matches_its_cover_matches() {
    let narrow = (url_pattern(), fillings(), any::<bool>()).prop_map(|(wide, fillings, keep_stars)| {
        let refill = |text: &String| if keep_stars { text.replace('b', "*") } else { text.clone() };
        let narrow = filled(&wide.replace(":*", ""), &fillings.iter().map(refill).collect::<Vec<_>>());
        (wide, narrow)
    });
    let pair = prop_oneof![3 => narrow, 1 => (url_pattern(), url_pattern())];
    law(4_000, 2_000, (pair, fillings()), |((wide, narrow), fillings)| {
        let a = parse(&Namespace::NetFetch, &wide);
        let Ok(b) = Pattern::parse(&Namespace::NetFetch, &narrow) else { return Ok(false) };
        prop_assert!(a.covers(&a) && b.covers(&b), "a pattern covers itself: {} {}", wide, narrow);
        let Ok(target) = FetchUrl::parse(&filled(&narrow.replace(":*", ""), &fillings)) else { return Ok(false) };
        if !a.covers(&b) || !b.matches(Target::Url(&target)) {
            return Ok(false);
        }
        prop_assert!(a.matches(Target::Url(&target)), "{} covers {} but not {}", wide, narrow, target);
        Ok(true)
    });
}

/// The same law for agents, which are matched with and without their version.
#[test]
fn what_a_covered_agent_pattern_matches_its_cover_matches() {
    let pattern = || prop_oneof!["[ab*]{1,3}", "[ab*]{1,3}@[12*]{1,2}", "[ab*@1]{1,5}"];
    let narrow = (pattern(), prop::collection::vec("[ab*]{0,2}", 1..3), prop_oneof![Just(""), Just("@1"), Just("@*")])
        .prop_map(|(wide, fillings, version)| (wide.clone(), filled(&wide, &fillings) + version));
    let pair = prop_oneof![3 => narrow, 1 => (pattern(), pattern())];
    law(10_000, 1_500, (pair, "[ab]{1,2}(@[12]{1,2})?", fillings()), |((wide, narrow), name, fillings)| {
        let (a, b) = (parse(&Namespace::AgentDelegate, &wide), parse(&Namespace::AgentDelegate, &narrow));
        let mut met = false;
        for target in [AgentName::parse(&name), AgentName::parse(&filled(&narrow, &fillings))].into_iter().flatten() {
            if a.covers(&b) && b.matches(Target::Agent(&target)) {
                prop_assert!(a.matches(Target::Agent(&target)), "{} covers {} but not {}", wide, narrow, target);
                met = true;
            }
        }
        Ok(met)
    });
}

/// No text an agent can write reaches a host or a path outside the pattern.
#[test]
fn a_url_that_parses_keeps_its_form_and_its_place() {
    let piece = prop::sample::select(vec![
        "a", "b.test", "/", "/", "//", "..", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "%25", "%00", "%61", "%", "\\",
        "@", ":", "443", "?", "#", ";", "public", "*", "[::1]", "ä", "。",
    ]);
    let start = prop::sample::select(vec![
        "https://ok.test/public/",
        "HTTPS://OK.test:443/public",
        "https://ok.test/",
        "https://ok.test",
        "https://",
    ]);
    let pattern = parse(&Namespace::NetFetch, "https://ok.test/public/**");
    law(20_000, 2_000, (start, prop::collection::vec(piece, 0..7)), |(start, pieces)| {
        let text = format!("{start}{}", pieces.concat());
        let Ok(url) = FetchUrl::parse(&text) else { return Ok(false) };
        prop_assert!(FetchUrl::parse(url.as_str()).is_ok_and(|again| again == url), "{} is not stable", url);
        // What a client library reads out of what is sent.
        let sent = url.as_url();
        let within = sent.scheme() == "https"
            && sent.host_str() == Some("ok.test")
            && sent.port_or_known_default() == Some(443)
            && (sent.path() == "/public" || sent.path().starts_with("/public/"));
        prop_assert_eq!(pattern.matches(Target::Url(&url)), within, "{} became {}", text, url);
        // An encoded `%` is left alone; apart from it nothing is left that a server might still decode into a step.
        let path = sent.path().to_ascii_lowercase().replace("%25", "_");
        let tricks = ["%2e", "%2f", "%5c", "%00", "\\"];
        prop_assert!(
            !path.contains("/../") && tricks.iter().all(|trick| !path.contains(trick)),
            "{} became {}",
            text,
            url
        );
        Ok(within)
    });
}

/// ARCP §9.4: "No delegated grant may name a resource or capability the parent lease does not cover".
#[test]
fn a_delegated_lease_permits_nothing_its_parent_refuses() {
    let strategy = (authority(), authority(), any::<u64>(), fillings(), 0..22i64, 0..300u32);
    law(2_000, 150, strategy, |(parent, drawn, choice, fillings, now, spent)| {
        // A request made of the parent's own patterns is granted more often than one drawn blindly.
        let wire = drawn.lease.to_wire().into_iter().enumerate().map(|(index, (name, texts))| {
            let own = Namespace::parse(&name).map(|namespace| parent.lease.texts(&namespace)).unwrap_or_default();
            let texts = match (choice >> (2 * index)) & 3 {
                0 => texts,
                1 if name != "cost.budget" => own.iter().map(|text| filled(text, &fillings)).collect(),
                1 | 2 => own,
                _ => vec![],
            };
            (name, texts)
        });
        let Ok(lease) = Lease::parse(&wire.collect()) else { return Ok(false) };
        let mut parent_gate = Gate::new(parent.clone());
        if let Some(currency) = parent.lease.budget().keys().next() {
            parent_gate.debit(currency, Decimal::new(spent.into(), 2)).unwrap();
        }
        let Ok(child) = parent_gate.delegate(Authority { lease, expires_at: drawn.expires_at }) else {
            return Ok(false);
        };

        for (currency, rest) in &parent_gate.ledger().remaining() {
            let given = child.lease.budget().get(currency);
            prop_assert!(given.is_some_and(|given| *given <= (*rest).max(Decimal::ZERO)), "{} of {}", currency, rest);
        }
        prop_assert!(parent.expires_at.is_none_or(|end| child.expires_at.is_some_and(|at| at <= end)));
        prop_assert!(child.delegate(child.lease.budget(), child.clone()).is_ok_and(|same| same == child));

        let now = Timestamp::from_millis(now);
        let child_gate = Gate::new(child.clone());
        let mut met = false;
        for (namespace, text) in questions(&child, &fillings).into_iter().chain(questions(&drawn, &fillings)) {
            if permits(&child_gate, now, &namespace, &text) {
                prop_assert!(permits(&parent_gate, now, &namespace, &text), "{} on {}", namespace, text);
                met = true;
            }
        }
        Ok(met)
    });
}

#[test]
fn an_authority_survives_its_wire_form() {
    law(1_000, 1_000, authority(), |authority| {
        let json = serde_json::to_string(&authority).unwrap();
        prop_assert_eq!(serde_json::from_str::<Authority>(&json).unwrap(), authority);
        Ok(true)
    });
}

/// ARCP §9.6: whatever happens, spent and reserved and free are the whole, and a
/// ledger of plain integers that does the same says the same.
#[test]
fn money_is_conserved() {
    let usd = Currency::parse("USD").unwrap();
    let cents = |cents: i64| Decimal::new(cents, 2);
    law(1_000, 1_000, (0..2_000i64, prop::collection::vec(movement(), 1..40)), |(initial, moves)| {
        let budget = |value: i64| Budget::from([(usd.clone(), cents(value))]);
        let mut ledger = Ledger::new(&budget(initial));
        let (mut spent, mut reserved) = (0, 0);
        let (mut reservations, mut carve_outs) = (vec![], vec![]);
        for step in moves {
            let free = initial - spent - reserved;
            match step.clone() {
                Move::Debit(value) => {
                    prop_assert_eq!(ledger.debit(&usd, cents(value)).is_ok(), value >= 0);
                    spent += value.max(0);
                }
                Move::Reserve(value) => {
                    let outcome = ledger.reserve(&Amount::new(usd.clone(), cents(value)).unwrap());
                    prop_assert_eq!(outcome.is_ok(), value <= free, "{:?} of {}", step, free);
                    if let Ok(reservation) = outcome {
                        reservations.push((reservation, value));
                        reserved += value;
                    }
                }
                Move::Settle(which, actual) if which < reservations.len() => {
                    let (reservation, held) = reservations.swap_remove(which);
                    prop_assert_eq!(ledger.settle(reservation, cents(actual)).is_ok(), actual >= 0);
                    spent += if actual < 0 { held } else { actual };
                    reserved -= held;
                }
                Move::Release(which) if which < reservations.len() => {
                    let (reservation, held) = reservations.swap_remove(which);
                    ledger.release(reservation);
                    reserved -= held;
                }
                Move::CarveOut(value) => {
                    let outcome = ledger.carve_out(&budget(value));
                    prop_assert_eq!(outcome.is_ok(), value <= free, "{:?} of {}", step, free);
                    if let Ok(carve_out) = outcome {
                        carve_outs.push((carve_out, value));
                        reserved += value;
                    }
                }
                Move::ReturnRest(which, rest) if which < carve_outs.len() => {
                    let (carve_out, granted) = carve_outs.swap_remove(which);
                    ledger.return_rest(carve_out, &budget(rest));
                    spent += granted - rest.min(granted);
                    reserved -= granted;
                }
                Move::Settle(..) | Move::Release(_) | Move::ReturnRest(..) => {}
            }
            let free = initial - spent - reserved;
            prop_assert_eq!(ledger.spent(), budget(spent), "after {:?}", step);
            prop_assert_eq!(ledger.reserved(), budget(reserved), "after {:?}", step);
            prop_assert_eq!(ledger.remaining(), budget(free), "after {:?}", step);
            prop_assert_eq!(ledger.exhausted().is_some(), free <= 0, "after {:?}", step);
        }
        Ok(true)
    });
}

/// ARCP §9.6: conservation for numbers so long that a sum may not fit. A cost
/// that cannot be counted takes what is free, so that none shields the budget.
#[test]
fn money_of_any_precision_is_counted_exactly_or_all_of_it_is_gone() {
    let costs = prop::collection::vec("[0-9]{1,14}(\\.[0-9]{1,14})?", 1..10);
    law(2_000, 1_000, ("[0-9]{1,24}", costs), |(initial, costs)| {
        let usd = Currency::parse("USD").unwrap();
        let value = |text: &str| Amount::parse(&format!("USD:{text}")).unwrap().value();
        // Whole units and units of 10^-14, because both together need more bits than an integer has.
        let halves = |text: &str| -> (i128, i128) {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let sign = if text.starts_with('-') { -1 } else { 1 };
            (whole.parse().unwrap(), sign * format!("{fraction:0<14}").parse::<i128>().unwrap())
        };
        let unit = 10i128.pow(14);
        let carried = |(whole, fraction): (i128, i128)| (whole + fraction.div_euclid(unit), fraction.rem_euclid(unit));
        let sum = |a: (i128, i128), b: (i128, i128)| carried((a.0 + b.0, a.1 + b.1));

        let mut ledger = Ledger::new(&Budget::from([(usd.clone(), value(&initial))]));
        let initial = carried(halves(&initial));
        let mut spent = (0, 0);
        let mut counted = false;
        for cost in &costs {
            let was_exhausted = ledger.exhausted().is_some();
            let outcome = ledger.debit(&usd, value(cost));
            prop_assert!(outcome.is_ok(), "{:?}", outcome);
            let now = carried(halves(&ledger.spent()[&usd].to_string()));
            let free = carried(halves(&ledger.remaining()[&usd].to_string()));
            if now == sum(spent, carried(halves(cost))) {
                counted = true;
            } else if was_exhausted {
                prop_assert_eq!(now, spent, "nothing was left to take");
            } else {
                prop_assert_eq!((now, free), (initial, (0, 0)), "all that was free");
            }
            prop_assert_eq!(sum(now, free), initial);
            spent = now;
        }
        Ok(counted)
    });
}

/// Runs a law on `cases` values, and fails if it was about something in fewer than `at_least` of them.
fn law<S: Strategy>(cases: u32, at_least: u32, strategy: S, holds: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    let met = Cell::new(0);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        met.set(met.get() + u32::from(holds(value)?));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(met.get() >= at_least, "only {} of {cases} cases were about anything", met.get());
}

fn parse(namespace: &Namespace, text: &str) -> Pattern {
    Pattern::parse(namespace, text).unwrap_or_else(|error| panic!("{error}"))
}

/// A segment such that many match each other.
fn segment_or_any_depth() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]{1,3}", 3 => "[ab*]{1,4}", 1 => Just("*".to_owned()), 4 => Just("**".to_owned())]
}

fn path_pattern() -> impl Strategy<Value = String> {
    prop::collection::vec(segment_or_any_depth(), 0..5).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,3}", 0..5).prop_map(|names| format!("/{}", names.join("/")))
}

/// What may stand in the place of stars.
fn fillings() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[ab]{0,3}", 1..6)
}

/// A target that the pattern matches: the pattern with each `*` replaced, and each `**` by one name a letter.
fn filled(pattern: &str, fillings: &[String]) -> String {
    let mut fillings = fillings.iter().cycle();
    let mut fill = || fillings.next().cloned().unwrap_or_default();
    let segments = pattern.split('/').filter_map(|segment| match segment {
        "**" => {
            let names: Vec<String> = fill().chars().map(String::from).collect();
            (!names.is_empty()).then(|| names.join("/"))
        }
        _ => Some(segment.chars().map(|c| if c == '*' { fill() } else { c.to_string() }).collect()),
    });
    let text = segments.collect::<Vec<_>>().join("/");
    if text.is_empty() { "/".to_owned() } else { text }
}

/// A pattern and one made of it by putting something narrower in the place of stars, so that inclusion often holds.
fn narrowed() -> impl Strategy<Value = (String, String)> {
    let narrower = prop::collection::vec(prop_oneof!["[ab*]{0,2}", Just("**".to_owned())], 1..5);
    (path_pattern(), narrower).prop_map(|(wide, narrower)| {
        let mut narrower = narrower.iter().cycle();
        let mut next = || narrower.next().map_or("", |text| text);
        let segments = wide.split('/').map(|segment| match segment {
            "**" => next().to_owned(),
            _ => segment.replacen('*', next(), 1),
        });
        let narrow = segments.collect::<Vec<_>>().join("/");
        (wide, if narrow.starts_with('/') { narrow } else { format!("/{narrow}") })
    })
}

fn url_pattern() -> impl Strategy<Value = String> {
    let label = prop_oneof![3 => "[ab]{1,2}", 2 => "[ab*]{1,2}"];
    let host = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
    let port = prop_oneof![4 => Just(""), 1 => Just(":*"), 1 => Just(":8443"), 1 => Just(":443")];
    let query = prop_oneof![4 => Just(""), 1 => Just("?a"), 1 => Just("?b")];
    let scheme = prop_oneof![4 => Just("https"), 1 => Just("http")];
    (scheme, host, port, path_pattern(), query)
        .prop_map(|(scheme, host, port, path, query)| format!("{scheme}://{host}.test{port}{path}{query}"))
}

fn authority() -> impl Strategy<Value = Authority> {
    let paths = prop::collection::vec(path_pattern(), 0..4);
    let urls = prop::collection::vec(url_pattern(), 0..3);
    let tools = prop::collection::vec("[ab*]{1,3}(/[ab*]{1,2})?", 0..3);
    let agents = prop::collection::vec("[ab*]{1,2}(@[12*])?", 0..3);
    let amount = (prop_oneof![Just("USD"), Just("EUR")], 0..500i64)
        .prop_map(|(currency, cents)| format!("{currency}:{}", Decimal::new(cents, 2)));
    let budget = prop::collection::vec(amount, 0..3);
    (paths, urls, tools, agents, budget, prop::option::of(0..20i64)).prop_map(
        |(paths, urls, tools, agents, budget, expires_at)| {
            let namespaces = ["fs.read", "net.fetch", "tool.call", "agent.delegate", "cost.budget"];
            let texts = [paths, urls, tools, agents, budget];
            let wire: BTreeMap<_, _> = namespaces.into_iter().map(str::to_owned).zip(texts).collect();
            Authority {
                lease: Lease::parse(&wire).expect("generated within the grammar"),
                expires_at: expires_at.map(Timestamp::from_millis),
            }
        },
    )
}

/// Targets that the authority's own patterns match.
fn questions(authority: &Authority, fillings: &[String]) -> Vec<(Namespace, String)> {
    let namespaces = [Namespace::FsRead, Namespace::NetFetch, Namespace::ToolCall, Namespace::AgentDelegate];
    let of = |namespace: Namespace| {
        let texts = authority.lease.texts(&namespace).into_iter();
        texts.map(move |text| (namespace.clone(), filled(&text.replace(":*", ""), fillings)))
    };
    namespaces.into_iter().flat_map(of).collect()
}

fn permits(gate: &Gate, now: Timestamp, namespace: &Namespace, text: &str) -> bool {
    fn ask<Op: Operation, E>(gate: &Gate, now: Timestamp, op: Result<Op, E>) -> bool {
        op.is_ok_and(|op| gate.permit(now, op).is_ok())
    }
    match namespace {
        Namespace::FsRead => ask(gate, now, ReadFile::parse(text)),
        Namespace::NetFetch => ask(gate, now, Fetch::parse("GET", text)),
        Namespace::ToolCall => ask(gate, now, CallTool::parse(text)),
        _ => ask(gate, now, Delegate::parse(text)),
    }
}

/// A movement of money, in cents.
#[derive(Clone, Debug)]
enum Move {
    Debit(i64),
    Reserve(i64),
    Settle(usize, i64),
    Release(usize),
    CarveOut(i64),
    ReturnRest(usize, i64),
}

fn movement() -> impl Strategy<Value = Move> {
    prop_oneof![
        (-5..200i64).prop_map(Move::Debit),
        (0..400i64).prop_map(Move::Reserve),
        (0..3usize, -5..400i64).prop_map(|(which, cents)| Move::Settle(which, cents)),
        (0..3usize).prop_map(Move::Release),
        (0..600i64).prop_map(Move::CarveOut),
        (0..3usize, -50..600i64).prop_map(|(which, cents)| Move::ReturnRest(which, cents)),
    ]
}

/// The same dialect, as slow and plain as can be: try every possibility.
mod oracle {
    /// Whether the names of a path match a path pattern.
    pub fn path(pattern: &str, path: &str) -> bool {
        let names = |text: &str| text.split('/').filter(|name| !name.is_empty()).map(letters).collect::<Vec<_>>();
        segments(&names(pattern), &names(path))
    }

    /// Whether a name, whose segments may be empty, matches a name pattern.
    pub fn name(pattern: &str, name: &str) -> bool {
        let parts = |text: &str| text.split('/').map(letters).collect::<Vec<_>>();
        segments(&parts(pattern), &parts(name))
    }

    fn letters(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    fn segments(pattern: &[Vec<char>], target: &[Vec<char>]) -> bool {
        match pattern.split_first() {
            None => target.is_empty(),
            Some((first, rest)) if *first == ['*', '*'] => {
                (0..=target.len()).any(|skipped| segments(rest, &target[skipped..]))
            }
            Some((first, rest)) => {
                target.split_first().is_some_and(|(name, others)| characters(first, name) && segments(rest, others))
            }
        }
    }

    fn characters(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| characters(rest, &text[skipped..])),
            Some((first, rest)) => text.first() == Some(first) && characters(rest, &text[1..]),
        }
    }
}
