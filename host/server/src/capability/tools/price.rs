//! What a call of a tool costs: the operator's prices, in exact decimals (ARCP §9.6).
//!
//! A price is known before the call, as the most it can be, and after it, as
//! what the tool's own count of units makes of it. Where the count is missing
//! or is none, the most is charged: a tool that is paid by the unit and does
//! not say how many there were is not free.

use leasehold_core::lease::amount::{Amount, Budget, Currency, Decimal, exact_add, parse_decimal};
use serde::Deserialize;
use serde_json::Value;

/// A price, as it stands in the settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// For each call that was made.
    pub per_call: Option<Amount>,
    /// For each unit of what the tool says that it did.
    pub per_unit: Option<PerUnit>,
}

/// A price for each of something that an answer counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerUnit {
    /// For one.
    pub amount: Amount,
    /// Where the answer says how many, as a JSON pointer such as `/usage/pages`.
    pub of: String,
    /// How many are reserved before the call, and charged where the answer does not say.
    pub max: u64,
}

impl Price {
    /// Whether it can be charged at all.
    ///
    /// # Errors
    ///
    /// If the pointer is none, or the most it can cost is no exact decimal.
    pub fn verify(&self) -> Result<(), String> {
        if self.per_unit.as_ref().is_some_and(|unit| !unit.of.is_empty() && !unit.of.starts_with('/')) {
            return Err("`of` is a JSON pointer such as \"/usage/pages\"".into());
        }
        match self.sum(self.units_max()) {
            Some(_) => Ok(()),
            None => Err("`max` times `amount` has more than 28 digits".into()),
        }
    }

    /// The most that a call costs: what is reserved before it, and kept if nobody knows what it did.
    #[must_use]
    pub fn most(&self) -> Budget {
        // `verify` has seen that it is one; a price that was not verified costs what can be counted of it.
        self.sum(self.units_max()).unwrap_or_default()
    }

    /// What a call cost that was made and failed, which counts no units.
    #[must_use]
    pub fn failed(&self) -> Budget {
        self.sum(Decimal::ZERO).unwrap_or_default()
    }

    /// What a call cost, by what its answer says.
    ///
    /// A count below zero is none. One above `max` is charged as it is, since
    /// it was done; one that cannot be multiplied exactly is `max`.
    #[must_use]
    pub fn settle(&self, answer: &Value) -> Budget {
        let said = self.per_unit.as_ref().and_then(|unit| match answer.pointer(&unit.of)? {
            Value::Number(number) => parse_decimal(&number.to_string()).ok(),
            _ => None,
        });
        said.and_then(|units| self.sum(units.max(Decimal::ZERO))).unwrap_or_else(|| self.most())
    }

    fn units_max(&self) -> Decimal {
        self.per_unit.as_ref().map_or(Decimal::ZERO, |unit| unit.max.into())
    }

    /// The price of a call with so many units; `None` if it is no exact decimal.
    fn sum(&self, units: Decimal) -> Option<Budget> {
        let mut budget = Budget::new();
        let mut add = |currency: &Currency, value: Decimal| {
            let sum = budget.entry(currency.clone()).or_insert(Decimal::ZERO);
            *sum = exact_add(*sum, value)?;
            Some(())
        };
        if let Some(amount) = &self.per_call {
            add(amount.currency(), amount.value())?;
        }
        if let Some(unit) = &self.per_unit {
            add(unit.amount.currency(), exact_mul(unit.amount.value(), units)?)?;
        }
        budget.retain(|_, value| !value.is_zero());
        Some(budget)
    }
}

/// Multiplies without rounding; `None` if the exact product does not fit a decimal.
fn exact_mul(a: Decimal, b: Decimal) -> Option<Decimal> {
    let (a, b) = (a.normalize(), b.normalize());
    let product = a.mantissa().checked_mul(b.mantissa())?;
    Decimal::try_from_i128_with_scale(product, a.scale() + b.scale()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn price(text: &str) -> Price {
        toml::from_str(text).unwrap()
    }

    fn written(budget: &Budget) -> Vec<String> {
        budget.iter().map(|(currency, value)| format!("{currency}:{}", value.normalize())).collect()
    }

    /// ARCP §9.6: each row is a price, the most it may be, and what one answer makes of it.
    #[test]
    fn an_answer_is_charged_by_what_it_counts_and_by_the_most_where_it_counts_nothing() {
        let both = "per_call = 'USD:0.01'\nper_unit = { amount = 'USD:0.002', of = '/usage/pages', max = 100 }";
        let units = "per_unit = { amount = 'credits:3', of = '/n', max = 4 }";
        let table = [
            ("", json!({}), vec![], vec![]),
            ("per_call = 'USD:0.01'", json!({}), vec!["USD:0.01"], vec!["USD:0.01"]),
            (both, json!({ "usage": { "pages": 3 } }), vec!["USD:0.21"], vec!["USD:0.016"]),
            (both, json!({ "usage": { "pages": 0 } }), vec!["USD:0.21"], vec!["USD:0.01"]),
            (both, json!({ "usage": { "pages": -7 } }), vec!["USD:0.21"], vec!["USD:0.01"]),
            (both, json!({ "usage": { "pages": 1.5 } }), vec!["USD:0.21"], vec!["USD:0.013"]),
            (both, json!({ "usage": { "pages": 1000 } }), vec!["USD:0.21"], vec!["USD:2.01"]), // it was done
            (both, json!({ "usage": {} }), vec!["USD:0.21"], vec!["USD:0.21"]),
            (both, json!({ "usage": { "pages": "3" } }), vec!["USD:0.21"], vec!["USD:0.21"]),
            (both, json!({ "usage": { "pages": 1e300 } }), vec!["USD:0.21"], vec!["USD:0.21"]),
            (both, json!("just a text"), vec!["USD:0.21"], vec!["USD:0.21"]),
            (units, json!({ "n": 2 }), vec!["credits:12"], vec!["credits:6"]),
            (units, json!({ "n": 0 }), vec!["credits:12"], vec![]),
        ];
        for (text, answer, most, cost) in table {
            let price = price(text);
            assert_eq!(price.verify(), Ok(()), "{text}");
            assert_eq!(written(&price.most()), most, "{text}");
            assert_eq!(written(&price.settle(&answer)), cost, "{text}: {answer}");
        }
    }

    #[test]
    fn a_price_that_cannot_be_charged_exactly_is_refused() {
        for text in [
            "per_unit = { amount = 'USD:1', of = 'pages', max = 1 }",
            "per_unit = { amount = 'USD:99999.00000000000000000000001', of = '/n', max = 9999 }",
        ] {
            assert!(price(text).verify().is_err(), "{text}");
        }
        assert!(toml::from_str::<Price>("per_call = 'USD:-1'").is_err());
        assert!(toml::from_str::<Price>("per_cal = 'USD:1'").is_err());
    }
}
