//! Money as exact decimals: parsed from text, added without rounding, never a float (ARCP §9.6).

use std::{collections::BTreeMap, fmt};

pub use rust_decimal::Decimal;

use super::quote;
use crate::error::Refusal;

/// An amount of each of several currencies.
pub type Budget = BTreeMap<Currency, Decimal>;

/// A budget as the wire writes one: `["USD:5.00"]`. For `#[serde(with)]`.
pub mod texts {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::{Amount, Budget};

    /// Writes it.
    ///
    /// # Errors
    ///
    /// If the serializer fails.
    pub fn serialize<S: Serializer>(budget: &Budget, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(budget.iter().map(|(currency, value)| format!("{currency}:{value}")))
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// If an amount is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Budget, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let amount = |text: &String| Amount::parse(text).map(|amount| (amount.currency().clone(), amount.value()));
        texts.iter().map(amount).collect::<Result<_, _>>().map_err(de::Error::custom)
    }
}

/// The name of what is counted, such as `USD` or `credits` (ARCP §9.6).
///
/// A letter and at most 31 letters, digits, `.`, `_` or `-`; the case counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(Box<str>);

impl Currency {
    /// Parses a currency.
    ///
    /// # Errors
    ///
    /// If the text does not match `[A-Za-z][A-Za-z0-9._-]{0,31}`.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let fits = text.len() <= CURRENCY_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if fits { Ok(Self(text.into())) } else { Err(AmountError::Currency(quote(text))) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A non-negative amount of one currency, `USD:5.00` on the wire (ARCP §9.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    currency: Currency,
    value: Decimal,
}

impl Amount {
    /// Makes an amount.
    ///
    /// # Errors
    ///
    /// If the value is negative.
    pub fn new(currency: Currency, value: Decimal) -> Result<Self, AmountError> {
        if value < Decimal::ZERO {
            return Err(AmountError::Negative(value));
        }
        // `-0` is zero, but would be written with a sign that no reader accepts.
        Ok(Self { currency, value: value.abs() })
    }

    /// Parses `currency:decimal`; the decimal has no sign, exponent or blank and at most 28 digits.
    ///
    /// # Errors
    ///
    /// If the text is anything else.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let (currency, value) = text.split_once(':').ok_or_else(|| AmountError::Form(quote(text)))?;
        if value.starts_with('-') {
            return Err(AmountError::Decimal(quote(value)));
        }
        Ok(Self { currency: Currency::parse(currency)?, value: parse_decimal(value)? })
    }

    /// What is counted.
    #[must_use]
    pub fn currency(&self) -> &Currency {
        &self.currency
    }

    /// How much of it.
    #[must_use]
    pub fn value(&self) -> Decimal {
        self.value
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.currency, self.value)
    }
}

/// Whether a metric is the host's own report of what is left of a budget (§9.6).
#[must_use]
pub fn is_budget_report(metric: &str) -> bool {
    metric == "cost.budget" || metric.starts_with("cost.budget.")
}

/// Whether a metric is a cost, which counts against a budget in its unit (§9.6).
#[must_use]
pub fn is_cost(metric: &str) -> bool {
    metric.starts_with("cost.") && !is_budget_report(metric)
}

/// Parses a number an agent reports: digits, at most one point between digits, an optional leading minus.
///
/// No exponent, no plus, no blank, no `NaN`, and no more digits than are held
/// exactly as they were written. Twenty-eight always are; of numbers with 29
/// those that a `Decimal` can be, since sums are written to journals and read again.
///
/// # Errors
///
/// If the text is anything else.
pub fn parse_decimal(text: &str) -> Result<Decimal, AmountError> {
    let error = || AmountError::Decimal(quote(text));
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.len() - usize::from(digits.contains('.'));
    if !plain(whole) || !plain(fraction) || count > DIGITS_MAX {
        return Err(error());
    }
    Decimal::from_str_exact(text).map_err(|_| error())
}

/// Adds without rounding; `None` if the exact sum does not fit a decimal.
///
/// `Decimal::checked_add` rounds when the digits run out, and money that is
/// rounded is not conserved.
#[must_use]
pub fn exact_add(a: Decimal, b: Decimal) -> Option<Decimal> {
    let add = |a: Decimal, b: Decimal| {
        let scale = a.scale().max(b.scale());
        let at_scale = |x: Decimal| x.mantissa().checked_mul(10i128.checked_pow(scale - x.scale())?);
        Decimal::try_from_i128_with_scale(at_scale(a)?.checked_add(at_scale(b)?)?, scale).ok()
    };
    // Zeros at the end of a fraction are kept for their looks, and given up when there is no room for them.
    add(a, b).or_else(|| add(a.normalize(), b.normalize()))
}

/// Subtracts without rounding; `None` if the exact difference does not fit a decimal.
#[must_use]
pub fn exact_sub(a: Decimal, b: Decimal) -> Option<Decimal> {
    exact_add(a, -b)
}

/// Why a text is not money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// No colon.
    #[error("`{0}` is not an amount such as USD:5.00")]
    Form(String),
    /// The part before the colon.
    #[error("`{0}` is not a currency: it must be a letter and at most 31 letters, digits, `.`, `_` or `-`")]
    Currency(String),
    /// The number.
    #[error("`{0}` is not a plain decimal of at most 28 digits such as 0.0234")]
    Decimal(String),
    /// Less than nothing.
    #[error("{0} is negative")]
    Negative(Decimal),
}

impl From<AmountError> for Refusal {
    fn from(error: AmountError) -> Self {
        Self::invalid(error.to_string())
    }
}

text_form!(Currency, AmountError);
text_form!(Amount, AmountError);

const CURRENCY_BYTES_MAX: usize = 32;
const DIGITS_MAX: usize = 29;

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCP §9.6: `amount ::= currency ":" decimal`.
    #[test]
    fn an_amount_is_a_currency_and_a_plain_decimal() {
        let widest = "9".repeat(28);
        let finest = format!("0.{}", "0".repeat(26) + "1");
        for (text, fits) in [
            ("USD:5.00", true),
            ("credits:1000", true),
            ("x-Gpu.hours_2:0.5", true),
            ("USD:0", true),
            ("USD:007", true),
            (&format!("USD:{widest}"), true),
            (&format!("USD:{finest}"), true),
            (&format!("USD:{widest}9"), false),
            (&format!("USD:{finest}0"), true),
            (&format!("USD:{finest}00"), false),
            ("USD:79228162514264337593543950335", true), // the widest sum that can have been written
            ("USD:79228162514264337593543950336", false),
            (&format!("A{}:1", "b".repeat(31)), true),
            (&format!("A{}:1", "b".repeat(32)), false),
            ("", false),
            ("USD", false),
            ("USD:", false),
            (":5", false),
            ("USD 5", false),
            ("USD: 5", false),
            ("USD:5 ", false),
            ("USD:-1", false),
            ("USD:-0", false),
            ("USD:+1", false),
            ("USD:1e3", false),
            ("USD:1_000", false),
            ("USD:.5", false),
            ("USD:5.", false),
            ("USD:1.2.3", false),
            ("USD:0x1", false),
            ("USD:NaN", false),
            ("USD:inf", false),
            ("USD:٣", false), // an Arabic digit is a digit to Unicode, not to the grammar
            ("9SD:5", false),
            ("US$:5", false),
            ("USD:5:5", false),
        ] {
            let parsed = Amount::parse(text);
            assert_eq!(parsed.is_ok(), fits, "{text}: {parsed:?}");
        }
    }

    #[test]
    fn an_amount_is_written_as_it_was_read() {
        for text in ["USD:5.00", "credits:1000", "USD:0", "USD:0.0000000000000000000000000"] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), text);
        }
        let minus_zero = -Decimal::ZERO;
        assert_eq!(Amount::new(Currency::parse("USD").unwrap(), minus_zero).unwrap().to_string(), "USD:0");
        assert!(Amount::new(Currency::parse("USD").unwrap(), Decimal::NEGATIVE_ONE).is_err());
    }

    #[test]
    fn a_reported_number_is_plain_notation() {
        for (text, expected) in [
            ("0.0234", Some("0.0234")),
            ("-0.12", Some("-0.12")),
            ("12", Some("12")),
            ("--1", None),
            ("-", None),
            ("", None),
            ("1e-3", None),
            ("NaN", None),
            ("-inf", None),
            ("1,5", None),
        ] {
            assert_eq!(parse_decimal(text).ok().map(|value| value.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_sum_is_exact_or_there_is_none() {
        let wide = "9".repeat(28);
        let fine = format!("0.{}1", "0".repeat(27));
        for (a, b, expected) in [
            ("0.1", "0.2", Some("0.3")),
            ("1.00", "-0.42", Some("0.58")),
            ("0.58", "-0.70", Some("-0.12")),
            (&wide, "0.00", Some(&*wide)), // zeros make way
            (&wide, "0.5", None),
            (&wide, &fine, None),
            ("79228162514264337593543950335", "1", None),
        ] {
            let sum = exact_add(Decimal::from_str_exact(a).unwrap(), Decimal::from_str_exact(b).unwrap());
            assert_eq!(sum.map(|sum| sum.to_string()).as_deref(), expected, "{a} + {b}");
        }
    }
}
