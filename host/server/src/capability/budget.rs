//! A job's money on its way: held back before a call, settled after it, and reported (ARCP §9.6).
//!
//! A balance changes only where the agent does something: when it starts a call, when it takes the end of one, when it
//! reports a cost. So a replay finds at each of its steps the balance that was there before, whenever the calls ended.

use leasehold_core::{
    job::{
        charges::metric_of,
        record::{Concluded, Spent, call_id},
    },
    lease::{
        amount::{Currency, Decimal},
        ledger::CarveOut,
    },
    protocol::event::{Event, Level},
};

use super::{JobCtx, bindings::types::Error, delegate};

/// How many currencies a job is warned of.
const UNBOUNDED_MAX: usize = 8;

/// A counter is reported again once it has moved by this part of what it began with.
const MATERIAL: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

impl JobCtx {
    /// What was spent, and what is held for calls whose cost nobody has counted.
    pub fn spent(&self) -> Spent {
        let gate = self.gate();
        let (mut spent, reserved) = (gate.ledger().spent(), gate.ledger().reserved());
        for (currency, held) in reserved {
            let sum = spent.entry(currency).or_default();
            *sum = sum.saturating_add(held);
        }
        Spent(spent)
    }

    /// Counts what a call cost instead of what was held for it, and says so.
    pub(super) async fn settle(&mut self, operation: &str, held: CarveOut, end: &Concluded) -> Result<(), Error> {
        self.gate().ledger_mut().charge(held, &end.cost);
        for (currency, cost) in end.cost.iter().filter(|(_, cost)| **cost > Decimal::ZERO) {
            self.charges.add(end.call, currency, *cost);
            // A child has shown its costs where it made them.
            if operation != delegate::OPERATION {
                self.charge(operation, end.call, currency, *cost).await?;
            }
            let left = self.gate().ledger().remaining().get(currency).copied();
            if let Some(left) = left {
                self.report_budget(currency, left).await?;
            }
        }
        Ok(())
    }

    /// Shows what the host has charged for a call.
    async fn charge(&mut self, operation: &str, call: u64, currency: &Currency, cost: Decimal) -> Result<(), Error> {
        self.emit(Event::Metric {
            name: metric_of(operation),
            value: cost,
            unit: Some(currency.to_string()),
            dimensions: [("call_id".to_owned(), call_id(call))].into(),
        })
        .await
    }

    /// Says once that a cost counts against nothing although the lease has a budget: `usd` is not `USD`.
    pub(super) async fn warn_of_unbounded(&mut self, currency: Currency) -> Result<(), Error> {
        let known: Vec<String> = self.gate().lease().budget().keys().map(ToString::to_string).collect();
        if known.is_empty() || self.unbounded.len() >= UNBOUNDED_MAX || self.unbounded.contains(&currency) {
            return Ok(());
        }
        let message =
            format!("costs in {currency} are not bounded: the lease's cost.budget is in {}", known.join(", "));
        self.unbounded.insert(currency);
        self.emit(Event::Log { level: Level::Warn, message }).await
    }

    /// Emits `cost.budget.remaining` after a material change, and whenever the counter runs out (ARCP §9.6).
    pub(super) async fn report_budget(&mut self, currency: &Currency, left: Decimal) -> Result<(), Error> {
        let initial = self.gate().lease().budget().get(currency).copied().unwrap_or_default();
        let before = self.reported.get(currency).copied().unwrap_or(initial);
        let moved = before.saturating_sub(left).abs() >= initial.saturating_mul(MATERIAL);
        let ran_out = left <= Decimal::ZERO && before > Decimal::ZERO;
        if !moved && !ran_out {
            return Ok(());
        }
        self.reported.insert(currency.clone(), left);
        self.emit(Event::Metric {
            name: "cost.budget.remaining".into(),
            value: left,
            unit: Some(currency.to_string()),
            dimensions: std::collections::BTreeMap::new(),
        })
        .await
    }
}
