//! What the host has charged for a job's calls, so that whoever reports it once more does not pay twice (ARCP §9.6).

use std::collections::BTreeMap;

use super::record::{Begun, call_number};
use crate::{
    lease::amount::{Budget, Currency, Decimal, exact_sub, is_cost},
    protocol::event::Event,
};

/// Of how many calls and currencies it is remembered; a cost that is reported later than that counts as a new one.
const REMEMBERED_MAX: usize = 1024;

/// What was charged for calls and has not been reported since.
///
/// It follows from what an agent does, in the order in which it does it, so a replay finds what was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges(BTreeMap<(u64, Currency), Decimal>);

impl Charges {
    /// Takes note of what a call cost. Where there are too many, the oldest call is forgotten.
    pub fn add(&mut self, call: u64, currency: &Currency, cost: Decimal) {
        if cost <= Decimal::ZERO {
            return;
        }
        let key = (call, currency.clone());
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&key) {
            self.0.pop_first();
        }
        let charged = self.0.entry(key).or_default();
        *charged = charged.saturating_add(cost);
    }

    /// What a reported cost adds to what was charged for the call it names. What was charged is used up by it.
    ///
    /// A difference that no decimal can hold exactly is none: then all of it is added.
    pub fn beyond(&mut self, cost: &Reported) -> Decimal {
        let Some(call) = cost.call else { return cost.value };
        let key = (call, cost.currency.clone());
        let Some(charged) = self.0.remove(&key) else { return cost.value };
        if charged <= cost.value {
            return exact_sub(cost.value, charged).unwrap_or(cost.value);
        }
        if let Some(rest) = exact_sub(charged, cost.value) {
            self.0.insert(key, rest);
        }
        Decimal::ZERO
    }
}

/// A cost as a metric tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Of which call, if it names one.
    pub call: Option<u64>,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub value: Decimal,
}

impl Reported {
    /// The cost that an event is, if it is one.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let Event::Metric { name, value, unit: Some(unit), dimensions } = event else { return None };
        let call = dimensions.get("call_id").and_then(|id| call_number(id));
        let currency = Currency::parse(unit).ok().filter(|_| is_cost(name))?;
        Some(Self { call, currency, value: *value })
    }
}

/// The name of the metric by which the host tells what it has charged for a call.
#[must_use]
pub fn metric_of(operation: &str) -> String {
    format!("cost.{operation}")
}

/// What calls came to that the host has not told, as it does when it charges it: when their agent takes their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untold(BTreeMap<(u64, Currency), (String, Decimal)>);

impl Untold {
    /// Takes note of what a call came to.
    pub fn add(&mut self, begun: &Begun, cost: &Budget) {
        for (currency, cost) in cost.iter().filter(|(_, cost)| **cost > Decimal::ZERO) {
            self.0.insert((begun.call, currency.clone()), (metric_of(&begun.operation), *cost));
        }
    }

    /// The call of which an event is the host's own word, once for each, and no report of its agent.
    pub fn told_by(&mut self, event: &Event) -> Option<u64> {
        let Event::Metric { name, .. } = event else { return None };
        let Reported { call, currency, value } = Reported::of(event)?;
        let key = (call?, currency);
        let is_it = self.0.get(&key).is_some_and(|(metric, cost)| metric == name && *cost == value);
        (is_it && self.0.remove(&key).is_some()).then_some(key.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(call: Option<u64>, currency: &str, value: &str) -> Reported {
        Reported { call, currency: Currency::parse(currency).unwrap(), value: value.parse().unwrap() }
    }

    fn charges(of: &[(u64, &str, &str)]) -> Charges {
        let mut charges = Charges::default();
        for (call, currency, cost) in of {
            charges.add(*call, &Currency::parse(currency).unwrap(), cost.parse().unwrap());
        }
        charges
    }

    /// ARCP §9.6: each row is a cost that is reported after those above it.
    #[test]
    fn what_was_charged_covers_what_is_reported_of_it_once_and_nothing_else() {
        let mut charges = charges(&[(1, "USD", "0.10"), (1, "credits", "3"), (2, "USD", "1")]);
        for (call, currency, value, beyond) in [
            (None, "USD", "0.10", "0.10"),
            (Some(3), "USD", "0.10", "0.10"),
            (Some(1), "EUR", "0.10", "0.10"),
            (Some(1), "USD", "0.04", "0.00"),
            (Some(1), "USD", "0.04", "0.00"),
            (Some(1), "USD", "0.04", "0.02"), // of a tenth, two hundredths were left
            (Some(1), "USD", "0.04", "0.04"),
            (Some(1), "credits", "1000", "997"),
            (Some(2), "USD", "1", "0"),
            (Some(2), "USD", "0", "0"),
        ] {
            let added = charges.beyond(&reported(call, currency, value));
            assert_eq!(added, beyond.parse().unwrap(), "{call:?} {currency}:{value}");
        }
        assert_eq!(charges, Charges::default(), "all is used up");
    }

    #[test]
    fn a_difference_that_cannot_be_counted_exactly_is_no_rebate() {
        let (tiny, large) = ("0.0000000000000000000000000001", "9999999999999999999999999999");
        assert_eq!(charges(&[(1, "USD", tiny)]).beyond(&reported(Some(1), "USD", large)), large.parse().unwrap());
        let mut charges = charges(&[(1, "USD", large)]);
        assert_eq!(charges.beyond(&reported(Some(1), "USD", tiny)), Decimal::ZERO);
        assert_eq!(charges.beyond(&reported(Some(1), "USD", tiny)), tiny.parse().unwrap());
    }

    #[test]
    fn of_many_calls_the_newest_are_remembered() {
        let mut charges = Charges::default();
        let usd = Currency::parse("USD").unwrap();
        let last = REMEMBERED_MAX as u64 + 1;
        (1..=last).for_each(|call| charges.add(call, &usd, Decimal::ONE));
        for (call, beyond) in [(1, Decimal::ONE), (2, Decimal::ZERO), (last, Decimal::ZERO)] {
            assert_eq!(charges.beyond(&reported(Some(call), "USD", "1")), beyond, "{call}");
        }
    }
}
