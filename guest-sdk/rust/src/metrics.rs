//! Figures an agent reports, money among them (ARCP §8.2 `metric`, §9.6). Needs no grant.

use std::fmt::Display;

use crate::{Error, bindings::metrics};

/// A figure on its way to the host; [`Metric::emit`] sends it.
#[derive(Clone, Debug)]
#[must_use = "a metric is reported by `emit`"]
pub struct Metric<'a> {
    name: &'a str,
    value: String,
    unit: Option<&'a str>,
    dimensions: Vec<(String, String)>,
}

/// Begins a figure; its value is whatever prints as a plain decimal number.
///
/// Integers, floats (which std prints without exponent), decimal types and
/// texts such as `"0.0234"` all do; at most 28 significant digits count.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// use leasehold_agent::metrics::metric;
///
/// metric("parse.duration", 12.5).unit("ms").dimension("format", "toml").emit()?;
/// # Ok(())
/// # }
/// ```
pub fn metric(name: &str, value: impl Display) -> Metric<'_> {
    Metric { name, value: value.to_string(), unit: None, dimensions: Vec::new() }
}

/// Reports money spent: the metric `cost.<name>`, taken off the budget in `currency`.
///
/// The cost that exhausts a budget is accepted; the next operation is refused
/// with `budget-exhausted` (ARCP §9.6). Money is best given as a text, since a
/// float is seldom the amount that was meant.
///
/// # Errors
///
/// `invalid-request` for a negative or malformed amount.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::metrics::cost("inference", "0.0234", "USD")?;
/// # Ok(())
/// # }
/// ```
pub fn cost(name: &str, amount: impl Display, currency: &str) -> Result<(), Error> {
    metric(&format!("cost.{name}"), amount).unit(currency).emit()
}

impl<'a> Metric<'a> {
    /// Says what the value counts: `ms`, `tokens`, `USD`. At most 32 bytes.
    ///
    /// ```
    /// let metric = leasehold_agent::metrics::metric("queue", 3).unit("files");
    /// ```
    pub fn unit(mut self, unit: &'a str) -> Self {
        self.unit = Some(unit);
        self
    }

    /// Adds something to tell figures of one name apart by. At most 16 of 64 + 256 bytes.
    ///
    /// ```
    /// let metric = leasehold_agent::metrics::metric("queue", 3).dimension("shard", "eu-1");
    /// ```
    pub fn dimension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.dimensions.push((name.into(), value.into()));
        self
    }

    /// Reports the figure.
    ///
    /// # Errors
    ///
    /// `invalid-request` for a value that is no plain decimal, a negative cost,
    /// a name under `cost.budget.`, or anything over its limit.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// leasehold_agent::metrics::metric("tokens.in", 812).emit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn emit(self) -> Result<(), Error> {
        Ok(metrics::emit(self.name, &self.value, self.unit, &self.dimensions)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_without_exponent() {
        let table: [(&dyn Display, &str); 6] = [
            (&1e-9, "0.000000001"),
            (&1e21, "1000000000000000000000"),
            (&0.1, "0.1"),
            (&-3, "-3"),
            (&2.0, "2"),
            (&"0.0234", "0.0234"),
        ];
        for (value, expected) in table {
            assert_eq!(metric("m", value).value, expected);
        }
    }
}
