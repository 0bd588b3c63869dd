//! The interface `metrics`: figures, money among them (ARCP §8.2, §9.6).

use leasehold_core::{
    job::charges::Reported,
    lease::amount::{Decimal, is_budget_report, is_cost, parse_decimal},
    protocol::event::Event,
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
        if is_cost(&name) && number.is_sign_negative() && !number.is_zero() {
            return Err(invalid(format!("`{name}` is a cost and {value} is negative; nothing was counted")));
        }
        let event = Event::Metric { name, value: number, unit, dimensions: dimensions.into_iter().collect() };
        let cost = Reported::of(&event).map(|cost| (self.charges.beyond(&cost), cost));
        // What the host has charged is a figure like any other, and only what is beyond it is counted.
        let cost = cost.filter(|(beyond, cost)| *beyond > Decimal::ZERO || cost.value.is_zero());
        // Money first: a cost that was seen must have been counted.
        let left = match &cost {
            Some((beyond, cost)) => {
                self.gate().debit(&cost.currency, *beyond).map_err(|error| invalid(error.to_string()))?
            }
            None => None,
        };
        JobCtx::emit(self, event).await?;
        match (cost, left) {
            (Some((_, cost)), Some(left)) => self.report_budget(&cost.currency, left).await,
            (Some((_, cost)), None) => self.warn_of_unbounded(cost.currency).await,
            (None, _) => Ok(()),
        }
    }
}
