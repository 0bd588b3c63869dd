//! The interface `metrics`: figures, money among them (ARCP §8.2, §9.6).

use leasehold_core::{
    lease::amount::{Currency, Decimal, is_budget_report, is_cost, parse_decimal},
    protocol::event::{Event, Level},
};

use super::{
    JobCtx,
    bindings::{metrics, types::Error},
    invalid,
};

const NAME_BYTES_MAX: usize = 128;
const UNIT_BYTES_MAX: usize = 32;
const DIMENSIONS_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 256;

/// How many currencies a job is warned of.
const UNBOUNDED_MAX: usize = 8;

/// A counter is reported again once it has moved by this part of what it began with.
const MATERIAL: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

impl metrics::Host for JobCtx {
    async fn emit(
        &mut self,
        name: String,
        value: String,
        unit: Option<String>,
        dimensions: Vec<(String, String)>,
    ) -> Result<(), Error> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(invalid(format!("a metric's name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        if unit.as_ref().is_some_and(|unit| unit.len() > UNIT_BYTES_MAX) {
            return Err(invalid(format!("a metric's unit has at most {UNIT_BYTES_MAX} bytes")));
        }
        if dimensions.len() > DIMENSIONS_MAX {
            return Err(invalid(format!("a metric has at most {DIMENSIONS_MAX} dimensions")));
        }
        if dimensions.iter().any(|(key, value)| key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX) {
            return Err(invalid(format!(
                "a dimension has at most {KEY_BYTES_MAX} bytes of name and {VALUE_BYTES_MAX} bytes of value"
            )));
        }
        if is_budget_report(&name) {
            return Err(invalid("the host itself reports what is left of a budget"));
        }
        let number = parse_decimal(&value).map_err(|error| invalid(format!("the value of `{name}`: {error}")))?;
        let is_cost = is_cost(&name);
        if is_cost && number.is_sign_negative() && !number.is_zero() {
            return Err(invalid(format!("`{name}` is a cost and {value} is negative; nothing was counted")));
        }
        let currency = unit.as_deref().filter(|_| is_cost).and_then(|unit| Currency::parse(unit).ok());
        // Money first: a cost that was seen must have been counted.
        let left = match &currency {
            Some(currency) => self.gate.debit(currency, number).map_err(|error| invalid(error.to_string()))?,
            None => None,
        };
        let dimensions = dimensions.into_iter().collect();
        JobCtx::emit(self, Event::Metric { name, value: number, unit, dimensions }).await?;
        match (currency, left) {
            (Some(currency), Some(left)) => self.report_budget(&currency, left).await,
            (Some(currency), None) => self.warn_of_unbounded(currency).await,
            // Not a currency of this lease, so a figure like any other.
            _ => Ok(()),
        }
    }
}

impl JobCtx {
    /// Says once that a cost counts against nothing although the lease has a budget: `usd` is not `USD`.
    async fn warn_of_unbounded(&mut self, currency: Currency) -> Result<(), Error> {
        let bounded = self.gate.lease().budget();
        if bounded.is_empty() || self.unbounded.len() >= UNBOUNDED_MAX || self.unbounded.contains(&currency) {
            return Ok(());
        }
        let known: Vec<String> = bounded.keys().map(ToString::to_string).collect();
        let message =
            format!("costs in {currency} are not bounded: the lease's cost.budget is in {}", known.join(", "));
        self.unbounded.insert(currency);
        JobCtx::emit(self, Event::Log { level: Level::Warn, message }).await
    }

    /// Emits `cost.budget.remaining` after a material change, and whenever the counter runs out (ARCP §9.6).
    async fn report_budget(&mut self, currency: &Currency, left: Decimal) -> Result<(), Error> {
        let initial = self.gate.lease().budget().get(currency).copied().unwrap_or_default();
        let before = self.reported.get(currency).copied().unwrap_or(initial);
        let moved = before.saturating_sub(left) >= initial.saturating_mul(MATERIAL);
        let ran_out = left <= Decimal::ZERO && before > Decimal::ZERO;
        if !moved && !ran_out {
            return Ok(());
        }
        self.reported.insert(currency.clone(), left);
        JobCtx::emit(
            self,
            Event::Metric {
                name: "cost.budget.remaining".into(),
                value: left,
                unit: Some(currency.to_string()),
                dimensions: std::collections::BTreeMap::new(),
            },
        )
        .await
    }
}
