//! The keys that a credential has one after the other, as its stream tells (ARCP §9.8.2).
//!
//! The key of the next turn is written down before it is made, becomes the
//! credential's once its value is kept, and is told; only then the one before
//! it goes, after a while. So a host that finds a stream in the middle of this
//! knows which keys there may be, and goes on where the one before it stopped.

use std::{collections::BTreeMap, time::Duration};

use leasehold_core::{
    lease::amount::{Budget, Decimal},
    time::Timestamp,
};

use super::meter::Entry;

/// The keys of one credential.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turns {
    /// What they may spend, all together.
    part: Budget,
    /// What those have spent that are worth nothing any more.
    spent: Budget,
    /// Those that may be worth something, and what each may spend in all.
    keys: BTreeMap<u32, Budget>,
    /// The one the client has, or is told of next.
    newest: u32,
    /// One that no key was ever written down for.
    next: u32,
    /// The host's secret that it follows from, if it does.
    vault: Option<String>,
    since: Timestamp,
    told: Option<Timestamp>,
}

/// When keys change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How long one key is the credential's; for ever if it is not said.
    pub after: Option<Duration>,
    /// How long the one before it is still worth something once the new one is told.
    pub grace: Duration,
    /// How long it takes until everything that a key has spent is told.
    pub settles: Duration,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the next key.
    Turn,
    /// Tell of the newest.
    Tell,
    /// Make one worth nothing: one that has had its time, or one that may have been made and that nobody was given.
    Retire(u32),
}

impl Turns {
    /// The first key, before anything is known of it.
    pub fn new(part: &Budget) -> Self {
        Self {
            part: part.clone(),
            spent: Budget::new(),
            keys: [(1, part.clone())].into(),
            newest: 1,
            next: 2,
            vault: None,
            since: Timestamp::from_millis(0),
            told: None,
        }
    }

    /// Reads a stream.
    pub fn read<'a>(part: &Budget, entries: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut turns = Self::new(part);
        entries.into_iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).for_each(|entry| turns.take(&entry));
        turns
    }

    /// Takes in the next entry.
    pub fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Issued { at, vault, .. } => {
                (self.since, self.told, self.vault) = (*at, Some(*at), vault.clone());
            }
            Entry::Turning { turn, budget, .. } => {
                // What the new one may spend, the one before it may not.
                if let Some(before) = self.keys.get_mut(&self.newest) {
                    *before = less(before, budget);
                }
                self.keys.insert(*turn, budget.clone());
                self.next = turn + 1;
            }
            Entry::Turned { at, turn, vault } => {
                (self.newest, self.since, self.told, self.vault) = (*turn, *at, None, vault.clone());
            }
            Entry::Told { at } => self.told = Some(*at),
            Entry::Retired { turn, spent } => {
                let bound = self.keys.remove(turn).unwrap_or_default();
                let spent = spent.as_ref().map_or(&bound, |spent| &spent.0);
                add(&mut self.spent, spent);
                let left = less(&self.part, &self.spent);
                if let (1, Some(only)) = (self.keys.len(), self.keys.get_mut(&self.newest)) {
                    *only = left;
                }
            }
            Entry::Reserved { .. } | Entry::Settled { .. } | Entry::Failed { .. } => {}
        }
    }

    /// What is to be done next, and when; nothing if the newest key stays for ever. `is_lost` says that the host has not
    /// got its value.
    pub fn next(&self, plan: Plan, is_lost: bool) -> Option<(Timestamp, Step)> {
        let now = self.since;
        if let Some((stray, _)) = self.keys.range(self.newest + 1..).next() {
            return Some((now, Step::Retire(*stray)));
        }
        let Some(told) = self.told else { return Some((now, Step::Tell)) };
        if let Some((old, _)) = self.keys.range(..self.newest).next() {
            return Some((told.saturating_add(plan.grace), Step::Retire(*old)));
        }
        if is_lost {
            return Some((now, Step::Turn));
        }
        plan.after.map(|after| (self.since.saturating_add(after), Step::Turn))
    }

    /// The one the client has, or is told of next.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The one that comes after all that were ever written down: one that was given up may still be made by mistake.
    pub fn upcoming(&self) -> u32 {
        self.next
    }

    /// Whether nobody was ever given this one.
    pub fn is_stray(&self, turn: u32) -> bool {
        turn > self.newest
    }

    /// The host's secret that the newest follows from, if it does.
    pub fn vault(&self) -> Option<&str> {
        self.vault.as_deref()
    }

    /// Those that may be worth something, and what each may spend in all.
    pub fn keys(&self) -> impl Iterator<Item = (u32, &Budget)> {
        self.keys.iter().map(|(turn, budget)| (*turn, budget))
    }

    /// What one may spend in all.
    pub fn bound(&self, turn: u32) -> Budget {
        self.keys.get(&turn).cloned().unwrap_or_default()
    }

    /// What was not spent of the credential's part, if these keys have spent as much as that.
    pub fn left(&self, spent: impl Fn(u32) -> Option<Budget>) -> Budget {
        let keys = self.keys.iter().map(|(turn, bound)| spent(*turn).unwrap_or_else(|| bound.clone()));
        let left = keys.fold(less(&self.part, &self.spent), |left, spent| less(&left, &spent));
        left.into_iter().filter(|(_, left)| *left > Decimal::ZERO).collect()
    }

    /// Half of what a key has left, for the next, so that both can go on while both are worth something.
    pub fn half(&self, turn: u32, spent: &Budget) -> Budget {
        let half = |left: Decimal| left.saturating_mul(Decimal::new(5, 1)).max(Decimal::ZERO).trunc_with_scale(DIGITS);
        less(&self.bound(turn), spent).into_iter().map(|(currency, left)| (currency, half(left).normalize())).collect()
    }
}

/// How many digits behind the point the half of an amount has.
const DIGITS: u32 = 6;

/// Adds to a sum of each currency.
pub(super) fn add(sum: &mut Budget, more: &Budget) {
    for (currency, value) in more {
        let sum = sum.entry(currency.clone()).or_default();
        *sum = sum.saturating_add(*value);
    }
}

fn less(budget: &Budget, by: &Budget) -> Budget {
    let without = |(currency, value): (&_, &Decimal)| {
        let by = by.get(currency).copied().unwrap_or_default();
        (Clone::clone(currency), value.saturating_sub(by).max(Decimal::ZERO))
    };
    budget.iter().map(without).collect()
}

#[cfg(test)]
mod tests {
    use leasehold_core::{
        id::{JobId, Ulid},
        job::record::Spent,
        lease::amount::Currency,
    };

    use super::*;

    const PLAN: Plan =
        Plan { after: Some(Duration::from_millis(100)), grace: Duration::from_millis(10), settles: Duration::ZERO };

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn usd(cents: i64) -> Budget {
        [(Currency::parse("USD").unwrap(), Decimal::new(cents, 2))].into()
    }

    fn issued() -> Entry {
        let job_id = JobId::new(Ulid::from_parts(0, 1));
        Entry::Issued { at: at(0), job_id, provisioner: "mine".into(), own: false, vault: None }
    }

    fn turning(turn: u32) -> Entry {
        Entry::Turning { at: at(100), turn, budget: usd(20) }
    }

    fn turned(turn: u32) -> Entry {
        Entry::Turned { at: at(105), turn, vault: None }
    }

    /// Each row is a stream as a host may find it, and what it does next.
    #[test]
    fn whatever_a_host_finds_it_knows_what_comes_next() {
        let (told, retired) = (|| Entry::Told { at: at(107) }, |turn| Entry::Retired { turn, spent: None });
        for (entries, is_lost, next) in [
            (vec![], false, Some((0, Step::Tell))), // as before the first record
            (vec![issued()], false, Some((100, Step::Turn))),
            (vec![issued()], true, Some((0, Step::Turn))),
            (vec![issued(), turning(2)], false, Some((0, Step::Retire(2)))), // nobody knows whether it was made
            (vec![issued(), turning(2)], true, Some((0, Step::Retire(2)))),
            (vec![issued(), turning(2), retired(2)], false, Some((100, Step::Turn))),
            (vec![issued(), turning(2), turned(2)], false, Some((105, Step::Tell))),
            (vec![issued(), turning(2), turned(2)], true, Some((105, Step::Tell))),
            (vec![issued(), turning(2), turned(2), told()], false, Some((117, Step::Retire(1)))),
            (vec![issued(), turning(2), turned(2), told(), retired(1)], false, Some((205, Step::Turn))),
            (vec![issued(), turning(2), turned(2), told(), retired(1)], true, Some((105, Step::Turn))),
        ] {
            let texts: Vec<_> = entries.iter().map(Entry::encode).collect();
            let turns = Turns::read(&usd(50), texts.iter().map(|text| &text[..]));
            assert_eq!(turns.next(PLAN, is_lost), next.map(|(ms, step)| (at(ms), step)), "{entries:?} {is_lost}");
            let never = Plan { after: None, ..PLAN };
            let stays = turns.next(never, is_lost).is_none();
            assert_eq!(stays, next.is_some_and(|(_, step)| step == Step::Turn) && !is_lost, "{entries:?}");
        }
    }

    #[test]
    fn a_number_that_was_given_up_is_given_to_no_other_key() {
        let mut turns = Turns::new(&usd(50));
        [issued(), turning(2), Entry::Retired { turn: 2, spent: None }].iter().for_each(|entry| turns.take(entry));
        assert_eq!((turns.newest(), turns.upcoming()), (1, 3));
    }

    /// ARCP §9.6: whatever the keys do, they do not spend more than the one credential may.
    #[test]
    fn all_keys_of_a_credential_together_may_spend_its_part() {
        let mut turns = Turns::new(&usd(50));
        turns.take(&issued());
        let spent = usd(10);
        assert_eq!(turns.half(1, &spent), usd(20));
        turns.take(&turning(2));
        assert_eq!((turns.bound(1), turns.bound(2)), (usd(30), usd(20)));
        // It was never made.
        let mut stopped = turns.clone();
        stopped.take(&Entry::Retired { turn: 2, spent: Some(Spent::default()) });
        assert_eq!(stopped.bound(1), usd(50));
        turns.take(&turned(2));
        let mut untold = turns.clone();
        turns.take(&Entry::Retired { turn: 1, spent: Some(Spent(usd(15))) });
        assert_eq!((turns.bound(2), turns.left(|_| Some(usd(5)))), (usd(35), usd(30)));
        // Nobody tells, so all it could is spent.
        untold.take(&Entry::Retired { turn: 1, spent: None });
        assert_eq!((untold.bound(2), untold.left(|_| None)), (usd(20), Budget::new()));
    }
}
