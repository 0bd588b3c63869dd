//! What tokens cost, exactly (ARCP §9.6).
//!
//! A price has at most six decimals and tokens are counted up to 10^12, so
//! the cost of any call has at most twelve decimals and is never rounded.

use leasehold_core::lease::amount::{Amount, Budget, Decimal, exact_add};
use serde::Deserialize;

use super::settings::ModelEntry;

/// The tokens of a call, as the upstream has counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the request, the remembered ones included.
    pub input: u64,
    /// Of them, those that the upstream remembered.
    pub cached: u64,
    /// Of the answer.
    pub output: u64,
}

impl Usage {
    /// Reads the `usage` of an answer; `None` if it is not what the API says.
    pub(super) fn read(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            prompt_tokens: u64,
            #[serde(default)]
            completion_tokens: u64,
            #[serde(default)]
            prompt_tokens_details: Option<Details>,
        }
        #[derive(Deserialize)]
        struct Details {
            #[serde(default)]
            cached_tokens: Option<u64>,
        }
        let wire: Wire = serde_json::from_str(json).ok()?;
        let cached = wire.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or_default();
        Some(Self { input: wire.prompt_tokens, cached: cached.min(wire.prompt_tokens), output: wire.completion_tokens })
    }
}

/// The prices of a million tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// Of a request.
    pub input: Option<Amount>,
    /// Of a request that is remembered; never more than of another.
    pub cached_input: Option<Amount>,
    /// Of an answer.
    pub output: Option<Amount>,
}

impl Prices {
    /// Takes the prices of a model.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it.
    pub(super) fn new(entry: &ModelEntry) -> Result<Self, String> {
        let (input, cached) = (&entry.input_per_mtok, &entry.cached_input_per_mtok);
        let named =
            [("input_per_mtok", input), ("cached_input_per_mtok", cached), ("output_per_mtok", &entry.output_per_mtok)];
        for (key, price) in named {
            let Some(price) = price else { continue };
            if price.value().normalize().scale() > PRICE_SCALE_MAX || price.value() > PRICE_MAX {
                return Err(format!(
                    "{key}: a price has at most {PRICE_SCALE_MAX} decimals and is at most {PRICE_MAX}"
                ));
            }
        }
        let within = |cached: &Amount| {
            input.as_ref().is_some_and(|input| input.currency() == cached.currency() && input.value() >= cached.value())
        };
        if cached.as_ref().is_some_and(|cached| !within(cached)) {
            return Err("cached_input_per_mtok: it is in the currency of input_per_mtok and not more than that".into());
        }
        Ok(Self {
            input: input.clone(),
            cached_input: cached.clone().or_else(|| input.clone()),
            output: entry.output_per_mtok.clone(),
        })
    }

    /// What so many tokens cost, in each currency that has a price.
    #[must_use]
    pub fn cost(&self, usage: Usage) -> Budget {
        let mut cost = Budget::new();
        let cached = usage.cached.min(usage.input);
        for (price, tokens) in
            [(&self.input, usage.input - cached), (&self.cached_input, cached), (&self.output, usage.output)]
        {
            let Some(price) = price else { continue };
            let sum = cost.entry(price.currency().clone()).or_insert(Decimal::ZERO);
            *sum = exact_add(*sum, of_tokens(price.value(), tokens)).unwrap_or(Decimal::MAX);
        }
        cost
    }
}

/// What `tokens` cost at a price for a million of them.
fn of_tokens(price: Decimal, tokens: u64) -> Decimal {
    let price = price.normalize();
    let units = price.mantissa() * i128::from(tokens.min(TOKENS_MAX));
    // 10^15 × 10^12 fits, and so does the sum of three of them.
    Decimal::try_from_i128_with_scale(units, price.scale() + MILLION_SCALE).unwrap_or(Decimal::MAX).normalize()
}

const PRICE_SCALE_MAX: u32 = 6;
const PRICE_MAX: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);
const MILLION_SCALE: u32 = 6;
const TOKENS_MAX: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use leasehold_core::lease::amount::Currency;

    use super::*;

    fn prices(input: &str, cached: Option<&str>, output: &str) -> Result<Prices, String> {
        let mut entry: ModelEntry = toml::from_str("upstream = \"main\"").unwrap();
        let parse = |text: &str| Amount::parse(text).unwrap();
        entry.input_per_mtok = Some(parse(input));
        entry.cached_input_per_mtok = cached.map(parse);
        entry.output_per_mtok = Some(parse(output));
        Prices::new(&entry)
    }

    #[test]
    fn a_call_costs_exactly_what_its_tokens_cost() {
        for (input, cached, output, usage, expected) in [
            ("USD:0.15", None, "USD:0.60", (1_000_000, 0, 1_000_000), "0.75"),
            ("USD:0.15", None, "USD:0.60", (1, 0, 0), "0.00000015"),
            ("USD:0.15", Some("USD:0.075"), "USD:0.60", (10, 4, 3), "0.000003"), // 6·0.15 + 4·0.075 + 3·0.60
            ("USD:0.15", None, "USD:0.60", (10, 4, 3), "0.0000033"),             // remembered ones cost as much
            ("USD:0.15", Some("USD:0"), "USD:0.60", (4, 9, 0), "0"),             // no more than all is remembered
            ("USD:0.000001", None, "USD:0", (1, 0, 0), "0.000000000001"),
            ("USD:1000000000", None, "USD:1000000000", (u64::MAX, 0, u64::MAX), "2000000000000000"),
        ] {
            let (usage, usd) =
                (Usage { input: usage.0, cached: usage.1, output: usage.2 }, Currency::parse("USD").unwrap());
            let cost = prices(input, cached, output).unwrap().cost(usage);
            assert_eq!(cost[&usd].normalize().to_string(), expected, "{usage:?} at {input} and {output}");
        }
    }

    #[test]
    fn each_currency_is_counted_by_itself() {
        let cost =
            prices("USD:1", None, "credits:2").unwrap().cost(Usage { input: 1_000_000, cached: 0, output: 500_000 });
        let cost: Vec<String> = cost.iter().map(|(currency, value)| format!("{currency}:{value}")).collect();
        assert_eq!(cost, ["USD:1", "credits:1"]);
        assert!(Prices::default().cost(Usage { input: 1, cached: 0, output: 1 }).is_empty(), "no price, no cost");
    }

    #[test]
    fn a_price_that_could_not_be_counted_exactly_is_refused() {
        for (input, cached, fits) in [
            ("USD:0.123456", None, true),
            ("USD:0.1234560", None, true),
            ("USD:0.1234567", None, false),
            ("USD:1000000000.000001", None, false),
            ("USD:1", Some("USD:1"), true),
            ("USD:1", Some("USD:1.1"), false), // then a reservation might be too small
            ("USD:1", Some("EUR:0.1"), false),
        ] {
            assert_eq!(prices(input, cached, "USD:1").is_ok(), fits, "{input} {cached:?}");
        }
    }

    #[test]
    fn a_usage_is_read_or_there_is_none() {
        for (json, expected) in [
            (r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}"#, Some((3, 0, 2))),
            (
                r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}"#,
                Some((3, 1, 2)),
            ),
            (
                r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":9}}"#,
                Some((3, 3, 2)),
            ),
            (r#"{"prompt_tokens":3,"completion_tokens":0,"prompt_tokens_details":null}"#, Some((3, 0, 0))),
            (r#"{"prompt_tokens":3}"#, Some((3, 0, 0))),
            (r#"{"prompt_tokens":-3,"completion_tokens":2}"#, None),
            (r#"{"prompt_tokens":3.5,"completion_tokens":2}"#, None),
            (r#"{"prompt_tokens":"3","completion_tokens":2}"#, None),
            (r#"{"prompt_tokens":1e30,"completion_tokens":2}"#, None),
            (r#"{"completion_tokens":2}"#, None),
            ("null", None),
            ("[]", None),
        ] {
            let expected = expected.map(|(input, cached, output)| Usage { input, cached, output });
            assert_eq!(Usage::read(json), expected, "{json}");
        }
    }
}
