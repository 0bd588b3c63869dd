//! What is left of a job's budget, read from its journal (ARCP §9.6).

use std::collections::BTreeMap;

use super::{
    charges::{Charges, Reported, Untold},
    record::{Begun, Concluded, Record, Spent},
};
use crate::lease::{
    amount::{Budget, Currency, Decimal, exact_sub},
    ledger::{CarveOut, Ledger},
};

/// A job's money, as far as its journal was read.
///
/// It counts as the job itself does: what is held for calls under way is not free, what was charged for a call is not
/// counted again when it is told. Only the end of a call counts when it comes about, and not when its agent takes it.
/// Of the part that the job's keys have, what they spent is counted: the rest is still the job's.
#[derive(Debug)]
pub struct Balance {
    ledger: Ledger,
    charges: Charges,
    under_way: BTreeMap<u64, (Begun, CarveOut)>,
    untold: Untold,
    spent: Option<Spent>,
}

impl Balance {
    /// Of a job that begins with this budget.
    #[must_use]
    pub fn new(budget: &Budget) -> Self {
        Self {
            ledger: Ledger::new(budget),
            charges: Charges::default(),
            under_way: BTreeMap::new(),
            untold: Untold::default(),
            spent: None,
        }
    }

    /// Counts what the next record says.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Begun(begun) => {
                // An end that has cost more may have come about that the agent had not taken yet.
                let held = self.ledger.carve_out(&begun.reserved).unwrap_or_default();
                self.under_way.insert(begun.call, (begun, held));
            }
            Record::Concluded(Concluded { call, cost, .. }) => {
                let Some((begun, held)) = self.under_way.remove(&call) else { return };
                self.ledger.charge(held, &cost);
                match begun.is_delegation() {
                    // A child has told its costs where it made them.
                    true => cost.iter().for_each(|(currency, cost)| self.charges.add(call, currency, *cost)),
                    false => self.untold.add(&begun, &cost),
                }
            }
            Record::Event { event, .. } => {
                let Some(cost) = Reported::of(&event) else { return };
                match self.untold.told_by(&event) {
                    Some(call) => self.charges.add(call, &cost.currency, cost.value),
                    None => {
                        let beyond = self.charges.beyond(&cost);
                        self.debit(&cost.currency, beyond);
                    }
                }
            }
            Record::Aside { event, .. } => {
                if let Some(cost) = Reported::of(&event) {
                    self.debit(&cost.currency, cost.value);
                }
            }
            Record::Ended { spent, .. } => self.spent = spent,
            _ => {}
        }
    }

    fn debit(&mut self, currency: &Currency, value: Decimal) {
        // A negative one was never written.
        let _ = self.ledger.debit(currency, value);
    }

    /// What is left of each currency; it may be negative. A job that has ended has said what it spent.
    #[must_use]
    pub fn left(&self) -> Budget {
        let Some(Spent(spent)) = &self.spent else { return self.ledger.remaining() };
        let left = |(currency, initial): (Currency, Decimal)| {
            let spent = spent.get(&currency).copied().unwrap_or_default();
            (currency, exact_sub(initial, spent).unwrap_or_default())
        };
        self.ledger.initial().into_iter().map(left).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::{
        job::{
            charges::metric_of,
            record::{End, Outcome, call_id},
        },
        lease::amount::Amount,
        protocol::{event::Event, json::Json},
        time::Timestamp,
    };

    const AT: Timestamp = Timestamp::from_millis(0);

    fn budget(texts: &[&str]) -> Budget {
        let amount = |text: &&str| Amount::parse(text).map(|amount| (amount.currency().clone(), amount.value()));
        texts.iter().map(amount).collect::<Result<_, _>>().unwrap()
    }

    fn begun(call: u64, operation: &str, reserved: &[&str]) -> Record {
        let (operation, reserved) = (operation.to_owned(), budget(reserved));
        Record::Begun(Begun { at: AT, call, operation, args: Json::default(), reserved })
    }

    fn concluded(call: u64, cost: &[&str]) -> Record {
        let outcome = Outcome::Done { summary: Json::default(), answer: None };
        Record::Concluded(Concluded { at: AT, call, outcome, cost: budget(cost) })
    }

    fn metric(name: &str, amount: &str, call: Option<u64>) -> Event {
        let (unit, value) = amount.split_once(':').unwrap();
        let dimensions = call.map(|call| ("call_id".to_owned(), call_id(call))).into_iter().collect();
        Event::Metric { name: name.to_owned(), value: value.parse().unwrap(), unit: Some(unit.to_owned()), dimensions }
    }

    fn event(name: &str, amount: &str, call: Option<u64>) -> Record {
        Record::Event { at: AT, event: metric(name, amount, call) }
    }

    fn left(balance: &Balance) -> String {
        balance.left().iter().fold(String::new(), |mut text, (currency, left)| {
            let _ = write!(text, "{currency}:{} ", left.normalize());
            text
        })
    }

    /// ARCP §9.6: each row is a record, and what is left after it.
    #[test]
    fn what_is_left_is_what_the_job_itself_counts() {
        let tool = metric_of("tool.call");
        let ended = |spent| Record::Ended { at: AT, end: End::Result(Json::default()), spent };
        let mut balance = Balance::new(&budget(&["USD:10", "credits:5"]));
        for (record, expected) in [
            (event("cost.x", "USD:0.5", None), "USD:9.5 credits:5 "),
            (event("cost.x", "EUR:1", None), "USD:9.5 credits:5 "),
            (event("price", "USD:1", None), "USD:9.5 credits:5 "),
            (event("cost.budget.remaining", "USD:1", None), "USD:9.5 credits:5 "),
            // What is held is not free, and what was charged is told once by the host and once by the agent.
            (begun(1, "tool.call", &["USD:2"]), "USD:7.5 credits:5 "),
            (concluded(1, &["USD:1"]), "USD:8.5 credits:5 "),
            (event(&tool, "USD:1", Some(1)), "USD:8.5 credits:5 "),
            (event("cost.mine", "USD:1", Some(1)), "USD:8.5 credits:5 "),
            (event("cost.mine", "USD:1", Some(1)), "USD:7.5 credits:5 "),
            (event("cost.mine", "credits:1", Some(1)), "USD:7.5 credits:4 "),
            // A child has told its costs itself.
            (begun(2, "agent.delegate", &["USD:4"]), "USD:3.5 credits:4 "),
            (concluded(2, &["USD:3"]), "USD:4.5 credits:4 "),
            (event("cost.mine", "USD:3.5", Some(2)), "USD:4 credits:4 "),
            // What a key has spent is not its agent's to report.
            (Record::Aside { at: AT, event: metric("cost.model.use", "USD:1", Some(2)) }, "USD:3 credits:4 "),
            (begun(3, "model.use", &["USD:3"]), "USD:0 credits:4 "),
            (concluded(3, &["USD:3.5", "credits:1"]), "USD:-0.5 credits:3 "),
            // Only the job knows what it held that nobody counted, and what it gave to its keys.
            (ended(None), "USD:-0.5 credits:3 "),
            (ended(Some(Spent(budget(&["USD:11"])))), "USD:-1 credits:5 "),
        ] {
            let row = format!("{record:?}");
            balance.take(record);
            assert_eq!(left(&balance), expected, "{row}");
        }
    }
}
