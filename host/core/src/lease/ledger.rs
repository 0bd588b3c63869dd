//! A job's money: nothing appears, nothing vanishes, nothing is promised twice (ARCP §9.6).
//!
//! Each currency's initial amount is split into what is spent, what is
//! reserved and what is free. A cost that was incurred is always counted, even
//! below zero: refusing to count it would make it a gift. What has not
//! happened yet, a priced operation or a child's grant, is reserved first and
//! never more than is free, so two children cannot both be given the whole rest.

use std::collections::BTreeMap;

use super::amount::{Amount, Budget, Currency, Decimal, exact_add, exact_sub};
use crate::error::{ErrorCode, Refusal};

/// What was granted, spent, reserved and is free, per currency.
///
/// A currency without an account is not bounded by the lease, and counting it
/// changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    accounts: BTreeMap<Currency, Account>,
}

impl Ledger {
    /// Opens an account for each currency, all of it free.
    #[must_use]
    pub fn new(budget: &Budget) -> Self {
        let open = |(currency, initial): (&Currency, &Decimal)| (currency.clone(), Account::new(*initial));
        Self { accounts: budget.iter().map(open).collect() }
    }

    /// Counts a cost already incurred, and gives what is free afterwards.
    ///
    /// `None` if the lease does not bound the currency. The balance may become
    /// negative; it is the next operation that is refused, not this report.
    ///
    /// A cost so small or so large that the sum cannot be counted exactly
    /// takes all that is free: were it refused, one tiny cost would shield the
    /// budget from every later one.
    ///
    /// # Errors
    ///
    /// If the value is negative; then nothing changes.
    pub fn debit(&mut self, currency: &Currency, value: Decimal) -> Result<Option<Decimal>, LedgerError> {
        if value < Decimal::ZERO {
            return Err(LedgerError::Negative(value));
        }
        let Some(account) = self.accounts.get_mut(currency) else { return Ok(None) };
        if account.shift(value, Decimal::ZERO).is_none() {
            account.exhaust();
        }
        Ok(Some(account.free))
    }

    /// Holds back the price of an operation that is about to happen.
    ///
    /// # Errors
    ///
    /// If less than that is free.
    pub fn reserve(&mut self, price: &Amount) -> Result<Reservation, LedgerError> {
        self.hold(price.currency(), price.value())?;
        Ok(Reservation { price: price.clone() })
    }

    /// Turns a reservation into a cost of `actual`, which may be less or more than was reserved.
    ///
    /// # Errors
    ///
    /// If `actual` is negative or cannot be counted exactly; then what was
    /// reserved counts as spent.
    pub fn settle(&mut self, reservation: Reservation, actual: Decimal) -> Result<(), LedgerError> {
        let (currency, held) = (reservation.price.currency(), reservation.price.value());
        let Some(account) = self.accounts.get_mut(currency) else { return Ok(()) };
        let outcome = match actual {
            actual if actual < Decimal::ZERO => Err(LedgerError::Negative(actual)),
            actual => account.shift(actual, -held).ok_or_else(|| LedgerError::Inexact(currency.clone())),
        };
        if outcome.is_err() {
            account.forfeit(held);
        }
        outcome
    }

    /// Gives a reservation back: the operation did not happen and cost nothing.
    pub fn release(&mut self, reservation: Reservation) {
        let held = reservation.price.value();
        if let Some(account) = self.accounts.get_mut(reservation.price.currency())
            && account.shift(Decimal::ZERO, -held).is_none()
        {
            account.forfeit(held);
        }
    }

    /// Sets money aside for a child or a call, all of it or nothing (ARCP §9.4).
    ///
    /// # Errors
    ///
    /// If less than that is free in any currency, or an amount is negative.
    pub fn carve_out(&mut self, grant: &Budget) -> Result<CarveOut, LedgerError> {
        let mut next = self.clone();
        for (currency, value) in grant {
            next.hold(currency, *value)?;
        }
        *self = next;
        Ok(CarveOut { grant: grant.clone() })
    }

    /// Takes a finished child's grant back in: `rest` is free again, the remainder was spent.
    ///
    /// A rest below zero is what the child overspent, and is counted. A
    /// currency without a rest was spent whole, and none gives back more than
    /// it was given.
    pub fn return_rest(&mut self, carve_out: CarveOut, rest: &Budget) {
        for (currency, granted) in carve_out.grant {
            let Some(account) = self.accounts.get_mut(&currency) else { continue };
            let rest = rest.get(&currency).copied().unwrap_or_default().min(granted);
            let settled = exact_sub(granted, rest).and_then(|spent| account.shift(spent, -granted));
            if settled.is_none() {
                account.forfeit(granted);
                // What cannot be counted and was more than the grant takes what is free, as in `debit`.
                if rest < Decimal::ZERO {
                    account.exhaust();
                }
            }
        }
    }

    /// Takes a call's money back in: it has cost `cost`, and what was held above that is free again.
    ///
    /// What cannot be counted exactly takes all that was held, and all that is free if it was more. A cost in a currency
    /// of which nothing was held is counted, too.
    pub fn charge(&mut self, held: CarveOut, cost: &Budget) {
        let rest = |(currency, held): (&Currency, &Decimal)| {
            let cost = cost.get(currency).copied().unwrap_or_default();
            let uncountable = if cost > *held { Decimal::MIN } else { Decimal::ZERO };
            (currency.clone(), exact_sub(*held, cost).unwrap_or(uncountable))
        };
        let rest: Budget = held.grant().iter().map(rest).collect();
        let unheld: Vec<_> = cost.iter().filter(|(currency, _)| !held.grant().contains_key(*currency)).collect();
        self.return_rest(held, &rest);
        for (currency, cost) in unheld {
            // It is no cost below zero, which is all that is refused.
            let _ = self.debit(currency, *cost);
        }
    }

    /// A currency of which nothing is free, if there is one.
    #[must_use]
    pub fn exhausted(&self) -> Option<&Currency> {
        self.accounts.iter().find(|(_, account)| account.free <= Decimal::ZERO).map(|(currency, _)| currency)
    }

    /// What is free of each currency; it may be negative.
    #[must_use]
    pub fn remaining(&self) -> Budget {
        self.each(|account| account.free)
    }

    /// What each currency began with.
    #[must_use]
    pub fn initial(&self) -> Budget {
        self.each(|account| account.initial)
    }

    /// What was spent of each currency, by the job and by its finished children.
    #[must_use]
    pub fn spent(&self) -> Budget {
        self.each(|account| account.spent)
    }

    /// What is held back of each currency, for operations under way and for running children.
    #[must_use]
    pub fn reserved(&self) -> Budget {
        self.each(|account| account.reserved)
    }

    fn each(&self, part: impl Fn(&Account) -> Decimal) -> Budget {
        self.accounts.iter().map(|(currency, account)| (currency.clone(), part(account))).collect()
    }

    fn hold(&mut self, currency: &Currency, value: Decimal) -> Result<(), LedgerError> {
        if value < Decimal::ZERO {
            return Err(LedgerError::Negative(value));
        }
        let Some(account) = self.accounts.get_mut(currency) else { return Ok(()) };
        if value > account.free {
            return Err(LedgerError::Insufficient { currency: currency.clone(), asked: value, free: account.free });
        }
        account.shift(Decimal::ZERO, value).ok_or_else(|| LedgerError::Inexact(currency.clone()))
    }
}

/// Money held for one operation; give it back with [`Ledger::settle`] or [`Ledger::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is neither settled nor released holds its money for ever"]
pub struct Reservation {
    price: Amount,
}

impl Reservation {
    /// What is held.
    #[must_use]
    pub fn price(&self) -> &Amount {
        &self.price
    }
}

/// Money set aside for a child, or for a call under way; bring it back with [`Ledger::return_rest`].
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "a grant that is not returned is lost to the parent"]
pub struct CarveOut {
    grant: Budget,
}

impl CarveOut {
    /// What was set aside.
    #[must_use]
    pub fn grant(&self) -> &Budget {
        &self.grant
    }
}

/// Why money did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A cost below zero.
    #[error("a cost cannot be negative, and {0} is")]
    Negative(Decimal),
    /// More was to be held than is free.
    #[error("{currency}:{asked} was needed and {currency}:{free} is left")]
    Insufficient {
        /// The currency.
        currency: Currency,
        /// How much was needed.
        asked: Decimal,
        /// How much there is.
        free: Decimal,
    },
    /// The new balance would not fit a decimal.
    #[error("the {0} budget cannot be counted exactly with an amount so small or so large")]
    Inexact(Currency),
}

impl From<&LedgerError> for ErrorCode {
    fn from(error: &LedgerError) -> Self {
        match error {
            LedgerError::Negative(_) | LedgerError::Inexact(_) => Self::InvalidRequest, // ARCP §9.6
            LedgerError::Insufficient { .. } => Self::BudgetExhausted,                  // ARCP §9.6
        }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::new(ErrorCode::from(&error), error.to_string())
    }
}

/// One currency; `spent + reserved + free` is `initial`, always and exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    initial: Decimal,
    spent: Decimal,
    reserved: Decimal,
    free: Decimal,
}

impl Account {
    fn new(initial: Decimal) -> Self {
        Self { initial, spent: Decimal::ZERO, reserved: Decimal::ZERO, free: initial }
    }

    /// Counts all that is free as spent.
    fn exhaust(&mut self) {
        if self.free > Decimal::ZERO
            && let Some(spent) = exact_sub(self.initial, self.reserved)
        {
            (self.spent, self.free) = (spent, Decimal::ZERO);
        }
    }

    /// Counts what was held as spent, and leaves it held for ever where the sum would not fit: it is not free again.
    fn forfeit(&mut self, held: Decimal) {
        if self.shift(held, -held).is_none() {
            self.exhaust();
        }
    }

    /// Moves money out of what is free, or back into it where a difference is negative; all or nothing.
    fn shift(&mut self, spent: Decimal, reserved: Decimal) -> Option<()> {
        let next = Self {
            initial: self.initial,
            spent: exact_add(self.spent, spent)?,
            reserved: exact_add(self.reserved, reserved)?,
            free: exact_sub(self.free, exact_add(spent, reserved)?)?,
        };
        // So that `exhaust` always finds a sum that fits.
        exact_sub(next.initial, next.reserved)?;
        *self = next;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd() -> Currency {
        Currency::parse("USD").unwrap()
    }

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    fn budget(text: &str) -> Budget {
        Budget::from([(usd(), decimal(text))])
    }

    fn price(text: &str) -> Amount {
        Amount::parse(&format!("USD:{text}")).unwrap()
    }

    /// ARCP §9.6: "The runtime MUST decrement the matching counter by `value`".
    #[test]
    fn a_cost_is_counted_even_below_zero() {
        let mut ledger = Ledger::new(&budget("1.00"));
        for (cost, left, exhausted) in
            [(".42", "0.58", false), (".70", "-0.12", true), ("100", "-100.12", true), ("0", "-100.12", true)]
        {
            assert_eq!(ledger.debit(&usd(), decimal(&format!("0{cost}"))), Ok(Some(decimal(left))), "{cost}");
            assert_eq!(ledger.exhausted().is_some(), exhausted, "after {cost}");
        }
    }

    #[test]
    fn ten_tenths_leave_exactly_nothing() {
        let mut ledger = Ledger::new(&budget("1.00"));
        for _ in 0..10 {
            assert_eq!(ledger.exhausted(), None);
            ledger.debit(&usd(), decimal("0.1")).unwrap();
        }
        assert_eq!(ledger.remaining(), budget("0"));
        assert_eq!(ledger.exhausted(), Some(&usd()));
    }

    /// ARCP §9.6: "Negative values are rejected and produce no decrement".
    #[test]
    fn what_is_no_cost_of_this_lease_changes_nothing() {
        let mut ledger = Ledger::new(&budget("1.00"));
        let before = ledger.clone();
        let minus = decimal("-0.01");
        for (currency, value, expected) in [
            ("USD", minus, Err(LedgerError::Negative(minus))),
            ("EUR", minus, Err(LedgerError::Negative(minus))),
            ("EUR", decimal("5"), Ok(None)),
            ("usd", decimal("5"), Ok(None)), // the case of a currency counts
        ] {
            assert_eq!(ledger.debit(&Currency::parse(currency).unwrap(), value), expected, "{currency}:{value}");
            assert_eq!(ledger, before, "{currency}:{value}");
        }
    }

    /// Were it refused, one tiny cost would shield the budget from every later one.
    #[test]
    fn a_cost_that_cannot_be_counted_exactly_takes_all_that_is_free() {
        let mut ledger = Ledger::new(&budget("9999999999999999999999999999"));
        let tiny = decimal("0.0000000000000000000000000001");
        assert_eq!(ledger.debit(&usd(), tiny), Ok(Some(Decimal::ZERO)));
        assert_eq!(ledger.exhausted(), Some(&usd()));
    }

    #[test]
    fn a_budget_of_zero_is_exhausted_at_once_and_one_empty_currency_is_enough() {
        assert_eq!(Ledger::new(&budget("0.00")).exhausted(), Some(&usd()));
        assert_eq!(Ledger::new(&Budget::new()).exhausted(), None);
        let credits = (Currency::parse("credits").unwrap(), Decimal::TEN);
        let mut two = Ledger::new(&Budget::from([(usd(), Decimal::ONE), credits]));
        assert_eq!(two.exhausted(), None);
        two.debit(&usd(), Decimal::ONE).unwrap();
        assert_eq!(two.exhausted(), Some(&usd()));
    }

    #[test]
    fn no_more_is_reserved_than_is_free() {
        let mut ledger = Ledger::new(&budget("1.00"));
        let first = ledger.reserve(&price("0.60")).unwrap();
        let refused = ledger.reserve(&price("0.60"));
        let short = LedgerError::Insufficient { currency: usd(), asked: decimal("0.60"), free: decimal("0.40") };
        assert_eq!(refused, Err(short));
        ledger.release(first);
        let second = ledger.reserve(&price("1.00")).unwrap();
        assert_eq!(ledger.exhausted(), Some(&usd()));
        ledger.settle(second, decimal("0.25")).unwrap();
        assert_eq!(ledger.remaining(), budget("0.75"));
        assert_eq!(ledger.spent(), budget("0.25"));
        assert_eq!(ledger.reserved(), budget("0"));
    }

    #[test]
    fn a_reservation_settles_at_what_it_really_cost_or_at_its_price() {
        for (actual, left) in [("0", "1"), ("0.5", "0.5"), ("3", "-2"), ("-1", "0.4")] {
            let mut ledger = Ledger::new(&budget("1"));
            let reservation = ledger.reserve(&price("0.6")).unwrap();
            assert_eq!(ledger.settle(reservation, decimal(actual)).is_err(), actual == "-1");
            assert_eq!(ledger.remaining(), budget(left), "{actual}");
            assert_eq!(ledger.reserved(), budget("0"), "{actual}");
        }
    }

    #[test]
    fn a_price_in_a_currency_without_account_is_not_bounded() {
        let mut ledger = Ledger::new(&budget("1"));
        let reservation = ledger.reserve(&Amount::parse("EUR:1000").unwrap()).unwrap();
        ledger.settle(reservation, decimal("2000")).unwrap();
        assert_eq!(ledger, Ledger::new(&budget("1")));
    }

    /// ARCP §9.4: a grant must not exceed "the parent's remaining budget […] at the time of delegation".
    #[test]
    fn two_children_cannot_both_have_the_whole_rest() {
        let mut parent = Ledger::new(&budget("5.00"));
        parent.debit(&usd(), decimal("3.00")).unwrap();
        let rest = parent.remaining();
        let first = parent.carve_out(&rest).unwrap();
        let before = parent.clone();
        assert!(parent.carve_out(&rest).is_err());
        assert!(parent.carve_out(&budget("-1")).is_err());
        assert_eq!(parent, before);
        parent.return_rest(first, &budget("1.50"));
        assert_eq!(parent.remaining(), budget("1.50"));
        assert_eq!(parent.spent(), budget("3.50"));
    }

    #[test]
    fn a_carve_out_takes_all_of_a_grant_or_nothing() {
        let eur = Currency::parse("EUR").unwrap();
        let mut parent = Ledger::new(&Budget::from([(usd(), decimal("1")), (eur.clone(), decimal("9"))]));
        let before = parent.clone();
        assert!(parent.carve_out(&Budget::from([(usd(), decimal("2")), (eur, decimal("9"))])).is_err());
        assert_eq!(parent, before);
    }

    #[test]
    fn a_child_gives_back_what_is_left_and_never_more() {
        for (rest, left) in [
            (budget("2"), "5"),
            (budget("0.5"), "3.5"),
            (Budget::new(), "3"),  // nothing said, all spent
            (budget("-1"), "2"),   // overspent is spent
            (budget("1000"), "5"), // nothing is won
        ] {
            let mut parent = Ledger::new(&budget("5"));
            let carve_out = parent.carve_out(&budget("2")).unwrap();
            assert_eq!(parent.remaining(), budget("3"));
            parent.return_rest(carve_out, &rest);
            assert_eq!(parent.remaining(), budget(left), "{rest:?}");
            assert_eq!(parent.reserved(), budget("0"), "{rest:?}");
        }
    }
}
