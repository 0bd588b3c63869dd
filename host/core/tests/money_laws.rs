//! The law of money, asked of whole trees of jobs: nothing appears and nothing vanishes, whatever happens in whichever
//! order (ARCP §9.6).
//!
//! A tree is what the host makes of ledgers: a job holds the price of a call before it and settles it after, carves a
//! child's grant out of what is free, takes back what the child left, and counts what its agent reports. A crash
//! forgets every ledger of the tree; what a new host has is made from the steps that were written down. After every
//! single operation each ledger that it touched adds up to what it began with, and so does the tree.

use std::{
    collections::BTreeMap,
    env,
    hash::{BuildHasher, RandomState},
};

use leasehold_core::lease::{
    amount::{Amount, Budget, Currency, Decimal},
    ledger::{CarveOut, Ledger, Reservation},
};

/// How many operations are asked about, in all.
const OPERATIONS: usize = 1_000_000;

/// How many of them in one tree.
const OPERATIONS_IN_A_TREE: usize = 250;

/// How many jobs one tree has at most.
const JOBS_MAX: usize = 16;

/// Cents, as agents and operators write them.
#[test]
fn money_is_conserved_over_a_tree_of_jobs() {
    let tally = grow(OPERATIONS * 3 / 4, Money::Cents);
    assert_eq!(tally.stuck, 0, "what is held is spent or free in the end");
}

/// Numbers of any length, whose sums may not fit.
#[test]
fn money_of_any_precision_is_conserved_over_a_tree_of_jobs() {
    grow(OPERATIONS / 4, Money::AnyLength);
}

/// How amounts are drawn.
#[derive(Clone, Copy, PartialEq)]
enum Money {
    Cents,
    AnyLength,
}

/// What happened in all trees.
#[derive(Debug, Default)]
struct Tally {
    operations: usize,
    crashes: usize,
    refused: usize,
    children: usize,
    overdrawn: usize,
    uncountable: usize,
    stuck: usize,
}

fn grow(operations: usize, money: Money) -> Tally {
    let mut random = Random::new();
    let mut tally = Tally::default();
    while tally.operations < operations {
        let mut tree = Tree::new(&mut random, money);
        for _ in 0..OPERATIONS_IN_A_TREE {
            tree.step(&mut random, &mut tally);
        }
        tree.end(&mut tally);
    }
    println!("{tally:?}");
    let seldom = operations / 1_000;
    for (what, count) in [
        ("crashes", tally.crashes),
        ("refusals", tally.refused),
        ("children", tally.children),
        ("overdrafts", tally.overdrawn),
    ] {
        assert!(count > seldom, "only {count} {what} in {operations} operations");
    }
    assert!(money == Money::Cents || tally.uncountable > 0, "every sum fitted");
    tally
}

/// One change of a ledger, as it is written down.
#[derive(Clone, Debug)]
enum Step {
    Debit(Currency, Decimal),
    Reserve(Amount),
    Settle(usize, Decimal),
    Release(usize),
    CarveOut(Budget),
    ReturnRest(usize, Budget),
    Charge(usize, Budget),
}

/// What a ledger gave and wants back.
#[derive(Debug, PartialEq)]
enum Held {
    Price(Reservation),
    Grant(CarveOut),
    Back,
}

/// One job: its ledger, and the steps it can be made from.
struct Job {
    ledger: Ledger,
    budget: Budget,
    steps: Vec<Step>,
    held: Vec<Held>,
    parent: Option<(usize, usize)>,
    running: bool,
    /// What it has spent, has free and holds for calls, as it was checked last.
    own: BTreeMap<Currency, Sum>,
}

impl Job {
    fn new(budget: Budget, parent: Option<(usize, usize)>) -> Self {
        let ledger = Ledger::new(&budget);
        Self { ledger, budget, steps: vec![], held: vec![], parent, running: true, own: BTreeMap::new() }
    }

    /// Does a step and writes it down; says whether it was refused.
    fn take(&mut self, step: Step) -> bool {
        let refused = perform(&mut self.ledger, &mut self.held, step.clone());
        self.steps.push(step);
        refused
    }

    /// Forgets all but what is written down.
    fn crash(&mut self) {
        let (mut ledger, mut held) = (Ledger::new(&self.budget), vec![]);
        for step in &self.steps {
            perform(&mut ledger, &mut held, step.clone());
        }
        assert_eq!((&ledger, &held), (&self.ledger, &self.held), "the same steps, the same money");
        (self.ledger, self.held) = (ledger, held);
    }

    /// What is held and not given back, by its index.
    fn open(&self, wanted: impl Fn(&Held) -> bool) -> Vec<usize> {
        (0..self.held.len()).filter(|index| wanted(&self.held[*index])).collect()
    }

    fn outstanding(&self, currency: &Currency) -> Sum {
        let mut sum = Sum::default();
        for held in &self.held {
            match held {
                Held::Price(reservation) if reservation.price().currency() == currency => {
                    sum.add(reservation.price().value());
                }
                Held::Grant(grant) => sum.add(grant.grant().get(currency).copied().unwrap_or_default()),
                Held::Price(_) | Held::Back => {}
            }
        }
        sum
    }
}

/// Does a step of a ledger; says whether it was refused.
fn perform(ledger: &mut Ledger, held: &mut Vec<Held>, step: Step) -> bool {
    let before = ledger.clone();
    let refused = match step {
        Step::Debit(currency, value) => ledger.debit(&currency, value).is_err(),
        Step::Reserve(price) => match ledger.reserve(&price) {
            Ok(reservation) => {
                held.push(Held::Price(reservation));
                false
            }
            Err(_) => true,
        },
        Step::CarveOut(grant) => match ledger.carve_out(&grant) {
            Ok(grant) => {
                held.push(Held::Grant(grant));
                false
            }
            Err(_) => true,
        },
        Step::Settle(index, actual) => {
            if let Held::Price(reservation) = std::mem::replace(&mut held[index], Held::Back) {
                // A cost that is none leaves the price spent.
                let _ = ledger.settle(reservation, actual);
            }
            return false;
        }
        Step::Release(index) => {
            if let Held::Price(reservation) = std::mem::replace(&mut held[index], Held::Back) {
                ledger.release(reservation);
            }
            return false;
        }
        Step::ReturnRest(index, rest) => {
            if let Held::Grant(grant) = std::mem::replace(&mut held[index], Held::Back) {
                ledger.return_rest(grant, &rest);
            }
            return false;
        }
        Step::Charge(index, cost) => {
            if let Held::Grant(grant) = std::mem::replace(&mut held[index], Held::Back) {
                ledger.charge(grant, &cost);
            }
            return false;
        }
    };
    assert!(!refused || *ledger == before, "what is refused changes nothing");
    refused
}

/// A job, the jobs it delegated, and theirs.
struct Tree {
    jobs: Vec<Job>,
    money: Money,
}

impl Tree {
    fn new(random: &mut Random, money: Money) -> Self {
        let mut budget = Budget::from([(currency("USD"), money.amount(random, 100_000))]);
        if random.below(3) == 0 {
            budget.insert(currency("credits"), money.amount(random, 1_000));
        }
        let mut tree = Self { jobs: vec![Job::new(budget, None)], money };
        tree.check(&mut Tally::default());
        tree
    }

    /// Does one thing with one of the jobs that run.
    fn step(&mut self, random: &mut Random, tally: &mut Tally) {
        tally.operations += 1;
        if random.below(150) == 0 {
            tally.crashes += 1;
            for job in self.jobs.iter_mut().filter(|job| job.running) {
                job.crash();
            }
            return self.check(tally);
        }
        let running: Vec<usize> = (0..self.jobs.len()).filter(|job| self.jobs[*job].running).collect();
        let at = running[random.index(running.len())];
        let mut touched = vec![at];
        match random.below(12) {
            0 | 1 => {
                let sign = if random.below(20) == 0 { Decimal::NEGATIVE_ONE } else { Decimal::ONE };
                let value = self.money.amount(random, 2_000) * sign;
                self.take(at, Step::Debit(self.currency(random), value), tally);
            }
            2 | 3 => {
                let price = Amount::new(self.currency(random), self.money.amount(random, 3_000))
                    .expect("it is no cost below zero");
                self.take(at, Step::Reserve(price), tally);
            }
            4..=6 => {
                let open = self.jobs[at].open(|held| matches!(held, Held::Price(_)));
                let Some(index) = random.of(&open) else { return };
                let step = match random.below(4) {
                    0 => Step::Release(index),
                    _ => Step::Settle(index, self.money.amount(random, 4_000)),
                };
                self.take(at, step, tally);
            }
            7 => {
                // A call that holds what it may cost, as the host's calls do.
                let grant = Budget::from([(self.currency(random), self.money.amount(random, 3_000))]);
                self.take(at, Step::CarveOut(grant), tally);
            }
            8 => {
                let children: Vec<usize> =
                    self.jobs.iter().filter_map(|job| job.parent).map(|(_, held)| held).collect();
                let calls = self.jobs[at].open(|held| matches!(held, Held::Grant(_)));
                let calls: Vec<usize> = calls.into_iter().filter(|call| !children.contains(call)).collect();
                let Some(index) = random.of(&calls) else { return };
                let amount = Budget::from([(self.currency(random), self.money.amount(random, 3_000))]);
                let step = match random.below(3) {
                    0 => Step::ReturnRest(index, amount),
                    _ => Step::Charge(index, amount),
                };
                self.take(at, step, tally);
            }
            9 | 10 => self.delegate(at, random, tally),
            _ => {
                touched.extend(self.finish(at, random));
            }
        }
        for job in touched {
            self.check_one(job, tally);
        }
        self.check_tree();
    }

    fn take(&mut self, at: usize, step: Step, tally: &mut Tally) {
        let uncountable = |job: &Job| {
            let free = job.ledger.remaining();
            free.values().any(Decimal::is_zero)
        };
        let before = uncountable(&self.jobs[at]);
        let cost = matches!(&step, Step::Debit(..));
        tally.refused += usize::from(self.jobs[at].take(step));
        tally.uncountable += usize::from(cost && !before && uncountable(&self.jobs[at]));
        let overdrawn = self.jobs[at].ledger.remaining().values().any(|free| *free < Decimal::ZERO);
        tally.overdrawn += usize::from(overdrawn);
    }

    /// A child is given some or all of what is free, or more, which is refused.
    fn delegate(&mut self, at: usize, random: &mut Random, tally: &mut Tally) {
        if self.jobs.iter().filter(|job| job.running).count() >= JOBS_MAX {
            return;
        }
        let mut grant = Budget::new();
        for (currency, free) in self.jobs[at].ledger.remaining() {
            let asked = match random.below(4) {
                0 => free.max(Decimal::ZERO),
                _ => self.money.amount(random, 20_000),
            };
            grant.insert(currency, asked);
        }
        let held = self.jobs[at].held.len();
        if self.jobs[at].take(Step::CarveOut(grant.clone())) {
            tally.refused += 1;
            return;
        }
        tally.children += 1;
        self.jobs.push(Job::new(grant, Some((at, held))));
        self.check_one(self.jobs.len() - 1, tally);
    }

    /// A job ends: what it holds for calls is spent or given back, its children end before it, and its parent takes
    /// back the rest.
    fn finish(&mut self, at: usize, random: &mut Random) -> Option<usize> {
        let (parent, held) = self.jobs[at].parent?;
        let children: Vec<usize> =
            (0..self.jobs.len()).filter(|job| self.jobs[*job].parent.is_some_and(|(of, _)| of == at)).collect();
        for child in children {
            self.finish(child, random);
        }
        if !self.jobs[at].running {
            return None;
        }
        for index in self.jobs[at].open(|held| *held != Held::Back) {
            let step = match &self.jobs[at].held[index] {
                Held::Price(reservation) => Step::Settle(index, reservation.price().value()),
                Held::Grant(_) | Held::Back => Step::ReturnRest(index, Budget::new()),
            };
            self.jobs[at].take(step);
        }
        self.jobs[at].running = false;
        let rest = match random.below(8) {
            // Nobody knows what it left.
            0 => Budget::new(),
            _ => self.jobs[at].ledger.remaining(),
        };
        self.jobs[parent].take(Step::ReturnRest(held, rest));
        Some(parent)
    }

    /// All jobs end but the first, and nothing is held any more.
    fn end(mut self, tally: &mut Tally) {
        let mut random = Random(tally.operations as u64);
        for job in (1..self.jobs.len()).rev() {
            if self.jobs[job].running {
                self.finish(job, &mut random);
                self.check(tally);
            }
        }
        for index in self.jobs[0].open(|held| *held != Held::Back) {
            let step = match &self.jobs[0].held[index] {
                Held::Price(_) => Step::Release(index),
                Held::Grant(_) | Held::Back => Step::ReturnRest(index, Budget::new()),
            };
            self.jobs[0].take(step);
        }
        self.check(tally);
        let reserved = self.jobs[0].ledger.reserved();
        tally.stuck += usize::from(reserved.values().any(|reserved| !reserved.is_zero()));
    }

    fn currency(&self, random: &mut Random) -> Currency {
        // One of them has an account in some trees, and one in none.
        currency(["USD", "USD", "USD", "credits", "EUR"][random.index(5)])
    }

    fn check(&mut self, tally: &mut Tally) {
        for job in 0..self.jobs.len() {
            self.check_one(job, tally);
        }
        self.check_tree();
    }

    /// Spent, reserved and free are what the job began with, and no less is reserved than is held.
    fn check_one(&mut self, at: usize, tally: &mut Tally) {
        let job = &self.jobs[at];
        let (spent, reserved, free) = (job.ledger.spent(), job.ledger.reserved(), job.ledger.remaining());
        let children: Vec<&Job> =
            self.jobs.iter().filter(|child| child.running && child.parent.is_some_and(|(of, _)| of == at)).collect();
        let mut own = BTreeMap::new();
        for (currency, initial) in &job.budget {
            let mut whole = Sum::of(&[spent[currency], reserved[currency], free[currency]]);
            assert_eq!(whole, Sum::of(&[*initial]), "{currency} of {:?} after {:?}", job.ledger, job.steps.last());
            assert!(spent[currency] >= Decimal::ZERO && reserved[currency] >= Decimal::ZERO, "{:?}", job.ledger);
            let (outstanding, reserved) = (job.outstanding(currency), Sum::of(&[reserved[currency]]));
            assert!(reserved >= outstanding, "{reserved:?} for {outstanding:?}: {:?}", job.ledger);
            if reserved > outstanding {
                assert!(self.money == Money::AnyLength, "{reserved:?} for {outstanding:?}: {:?}", job.ledger);
                tally.uncountable += 1;
            }
            // What is held for a child is the child's own.
            for given in children.iter().filter_map(|child| child.budget.get(currency)) {
                whole.add(-*given);
            }
            own.insert(currency.clone(), whole);
        }
        self.jobs[at].own = own;
    }

    /// What all running jobs have spent, have free and hold for calls is what the first of them began with.
    fn check_tree(&self) {
        for (currency, initial) in &self.jobs[0].budget {
            let mut whole = Sum::default();
            for own in self.jobs.iter().filter(|job| job.running).filter_map(|job| job.own.get(currency)) {
                whole.plus(*own);
            }
            assert_eq!(whole, Sum::of(&[*initial]), "{currency} over the tree");
        }
    }
}

impl Money {
    fn amount(self, random: &mut Random, cents_max: u64) -> Decimal {
        match self {
            Self::Cents => Decimal::new(random.below(cents_max + 1).cast_signed(), 2),
            Self::AnyLength => {
                let mantissa = i128::from(random.below(u64::MAX)) * i128::from(random.below(1 << 31) + 1);
                let mantissa = mantissa >> random.below(94);
                let scale = [0, 0, 2, 2, 9, 28][random.index(6)];
                Decimal::try_from_i128_with_scale(mantissa, scale).expect("fewer than 96 bits")
            }
        }
    }
}

fn currency(text: &str) -> Currency {
    Currency::parse(text).expect("it is one")
}

/// An exact sum of decimals: whole units, and units of 10^-28.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sum {
    whole: i128,
    fraction: i128,
}

impl Sum {
    const UNIT: i128 = 10i128.pow(28);

    fn of(parts: &[Decimal]) -> Self {
        let mut sum = Self::default();
        for part in parts {
            sum.add(*part);
        }
        sum
    }

    fn add(&mut self, value: Decimal) {
        let unit = 10i128.pow(value.scale());
        let whole = value.mantissa().div_euclid(unit);
        let fraction = value.mantissa().rem_euclid(unit) * 10i128.pow(28 - value.scale());
        self.plus(Self { whole, fraction });
    }

    fn plus(&mut self, other: Self) {
        let carried = self.fraction + other.fraction;
        self.whole += other.whole + carried.div_euclid(Self::UNIT);
        self.fraction = carried.rem_euclid(Self::UNIT);
    }
}

/// SplitMix64: a seed is all of its state.
struct Random(u64);

impl Random {
    /// Choices that nobody made before, unless `LEASEHOLD_TEST_SEED` says which. The seed is shown if the test fails.
    fn new() -> Self {
        let seed = env::var("LEASEHOLD_TEST_SEED")
            .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().expect("a seed is a number"));
        println!("LEASEHOLD_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index")
    }

    fn of(&mut self, indices: &[usize]) -> Option<usize> {
        (!indices.is_empty()).then(|| indices[self.index(indices.len())])
    }
}
