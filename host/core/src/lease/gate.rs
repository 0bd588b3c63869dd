//! The one place where an operation becomes permitted (ARCP §9.3).
//!
//! A [`Permit`] is made in [`Gate::permit`] and nowhere else, and an effect
//! takes one by value. The three ways round that do not compile.
//!
//! A permit cannot be forged, because its field is private:
//!
//! ```compile_fail,E0451
//! use leasehold_core::lease::{gate::Permit, operation::ReadFile};
//!
//! let permit = Permit { op: ReadFile::parse("/etc/passwd").unwrap() };
//! ```
//!
//! A permit cannot be used twice, because it moves into its effect and is not `Clone`:
//!
//! ```compile_fail,E0382
//! use leasehold_core::lease::{gate::Permit, operation::ReadFile};
//!
//! fn read(permit: Permit<ReadFile>) {
//!     let _path = permit.spend();
//! }
//!
//! fn read_twice(permit: Permit<ReadFile>) {
//!     read(permit);
//!     read(permit);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use leasehold_core::lease::{gate::Permit, operation::ReadFile};
//!
//! fn copy(permit: &Permit<ReadFile>) -> Permit<ReadFile> {
//!     permit.clone()
//! }
//! ```
//!
//! A permit cannot be aimed elsewhere, because the path inside is private and nothing sets it:
//!
//! ```compile_fail,E0616
//! use leasehold_core::lease::{gate::Permit, operation::ReadFile, target::FilePath};
//!
//! fn aim(permit: Permit<ReadFile>) -> ReadFile {
//!     let mut op = permit.spend();
//!     op.path = FilePath::parse("/etc/passwd").unwrap();
//!     op
//! }
//! ```
//!
//! What does compile is the one way there is:
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use leasehold_core::{
//!     lease::{Authority, Lease, gate::{Gate, Permit}, operation::ReadFile},
//!     time::Timestamp,
//! };
//!
//! fn read(permit: Permit<ReadFile>) -> String {
//!     permit.spend().path().to_string()
//! }
//!
//! let grants = BTreeMap::from([("fs.read".to_owned(), vec!["/in/**".to_owned()])]);
//! let gate = Gate::new(Authority { lease: Lease::parse(&grants)?, expires_at: None });
//! let permit = gate.permit(Timestamp::from_millis(0), ReadFile::parse("/in/a")?)?;
//! assert_eq!(read(permit), "/in/a");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::{
    Authority, Lease, Namespace, SubsetViolation,
    amount::{Currency, Decimal},
    ledger::{Ledger, LedgerError},
    operation::Operation,
};
use crate::{
    error::{ErrorCode, Refusal},
    time::Timestamp,
};

/// Proof that the lease covered an operation when it was asked.
///
/// Only [`Gate::permit`] makes one, and an effect takes it by value, so one
/// check pays for one effect. The target travels inside: an effect has no
/// other path to act on than the path that was checked.
#[derive(Debug)]
#[must_use = "a permit does nothing until an effect takes it"]
pub struct Permit<Op> {
    op: Op,
}

impl<Op> Permit<Op> {
    /// Gives the operation to the effect that performs it.
    pub fn spend(self) -> Op {
        self.op
    }

    /// Shows the operation without spending the permit.
    #[must_use]
    pub fn op(&self) -> &Op {
        &self.op
    }
}

/// One running job's authority: what it may do, until when, and what is left to pay for it.
#[derive(Debug)]
pub struct Gate {
    authority: Authority,
    ledger: Ledger,
    cancelling: bool,
}

impl Gate {
    /// Opens a gate on an authority, with its whole budget unspent.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        let ledger = Ledger::new(authority.lease.budget());
        Self { authority, ledger, cancelling: false }
    }

    /// Makes a permit for `op`, or says why not.
    ///
    /// Cancellation, time and money are asked before the grant, so an agent
    /// that has run out learns that, and not a denial it might try to work
    /// around.
    ///
    /// # Errors
    ///
    /// The first reason against, in the order in which [`Denied`] lists them.
    pub fn permit<Op: Operation>(&self, now: Timestamp, op: Op) -> Result<Permit<Op>, Denied> {
        self.open(now)?;
        if !self.authority.lease.covers(op.namespace(), op.target()) {
            return Err(Denied::NotGranted { namespace: op.namespace().clone(), target: op.target().to_string() });
        }
        Ok(Permit { op })
    }

    /// Whether any operation could be permitted: for whoever held a permit while time went by.
    ///
    /// # Errors
    ///
    /// If the job is being cancelled, its lease has ended, or its money is spent.
    pub fn open(&self, now: Timestamp) -> Result<(), Denied> {
        if self.cancelling {
            return Err(Denied::Cancelled);
        }
        if let Some(at) = self.authority.expires_at.filter(|at| now >= *at) {
            return Err(Denied::Expired(at));
        }
        match self.ledger.exhausted() {
            Some(currency) => Err(Denied::Exhausted(currency.clone())),
            None => Ok(()),
        }
    }

    /// Refuses every operation from now on (ARCP §7.4). There is no way back.
    pub fn cancel(&mut self) {
        self.cancelling = true;
    }

    /// Whether cancellation was asked for.
    #[must_use]
    pub fn is_cancelling(&self) -> bool {
        self.cancelling
    }

    /// The lease as granted; its budget is the initial one.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.authority.lease
    }

    /// When the lease ends (ARCP §9.5).
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.authority.expires_at
    }

    /// The job's money.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The job's money, to reserve, settle and carve out.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Counts a cost already incurred, see [`Ledger::debit`].
    ///
    /// # Errors
    ///
    /// If the value is negative or cannot be counted exactly.
    pub fn debit(&mut self, currency: &Currency, value: Decimal) -> Result<Option<Decimal>, LedgerError> {
        self.ledger.debit(currency, value)
    }

    /// Derives the authority of a sub-agent from what is left of this one (ARCP §9.4).
    ///
    /// It decides and takes nothing: the caller carves the grant out of
    /// [`Gate::ledger_mut`] before it gives it away.
    ///
    /// # Errors
    ///
    /// If the request is wider than this gate's authority in any respect.
    pub fn delegate(&self, request: Authority) -> Result<Authority, SubsetViolation> {
        self.authority.delegate(&self.ledger.remaining(), request)
    }
}

/// Why an operation was not permitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its job is being cancelled (ARCP §7.4).
    #[error("the job is being cancelled")]
    Cancelled,
    /// The lease has ended (ARCP §9.5).
    #[error("the lease expired at {0}")]
    Expired(Timestamp),
    /// A budget counter is at or below zero (ARCP §9.6).
    #[error("the {0} budget is spent")]
    Exhausted(Currency),
    /// No pattern of the lease covers the target (ARCP §9.3).
    #[error("the lease grants no {namespace} on {target}")]
    NotGranted {
        /// The namespace that was asked.
        namespace: Namespace,
        /// The target in its canonical form.
        target: String,
    },
}

impl From<&Denied> for ErrorCode {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Cancelled => Self::Cancelled,                // ARCP §7.4
            Denied::Expired(_) => Self::LeaseExpired,            // ARCP §9.5
            Denied::Exhausted(_) => Self::BudgetExhausted,       // ARCP §9.6
            Denied::NotGranted { .. } => Self::PermissionDenied, // ARCP §9.3
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::new(ErrorCode::from(&denied), denied.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::operation::{CallTool, Delegate, Fetch, ReadFile, UseModel, WriteFile},
        *,
    };

    const END: Timestamp = Timestamp::from_millis(10);

    fn lease(entries: &[(&str, &[&str])]) -> Lease {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let wire: BTreeMap<String, Vec<String>> =
            entries.iter().map(|(namespace, texts)| ((*namespace).to_owned(), owned(texts))).collect();
        Lease::parse(&wire).unwrap()
    }

    fn gate(left: i64) -> Gate {
        let lease = lease(&[("fs.read", &["/in/**"]), ("cost.budget", &["USD:1"])]);
        let mut gate = Gate::new(Authority { lease, expires_at: Some(END) });
        gate.debit(&Currency::parse("USD").unwrap(), Decimal::from(1 - left)).unwrap();
        gate
    }

    fn not_granted(target: &str) -> Denied {
        Denied::NotGranted { namespace: Namespace::FsRead, target: target.into() }
    }

    /// ARCP §9.3, §9.5, §9.6: each row is one question put to the gate.
    #[test]
    fn a_permit_needs_a_grant_and_time_and_money() {
        let spent = || Denied::Exhausted(Currency::parse("USD").unwrap());
        let table = [
            // path, now, left, outcome
            ("/in/a", 0, 1, Ok(())),
            ("/in", 9, 1, Ok(())),
            ("/out/a", 0, 1, Err(not_granted("/out/a"))),
            ("/in/a", 10, 1, Err(Denied::Expired(END))), // at, not only after
            ("/in/a", 11, 1, Err(Denied::Expired(END))),
            ("/in/a", 0, 0, Err(spent())), // at zero, not only below
            ("/in/a", 0, -1, Err(spent())),
            ("/out/a", 0, 0, Err(spent())),
            ("/out/a", 10, 0, Err(Denied::Expired(END))), // the first reason wins
        ];
        for (path, now, left, expected) in table {
            let op = ReadFile::parse(path).unwrap();
            let outcome = gate(left).permit(Timestamp::from_millis(now), op).map(|_| ());
            assert_eq!(outcome, expected, "{path} at {now} with {left} left");
        }
    }

    #[test]
    fn after_a_cancel_nothing_is_permitted_and_no_other_reason_is_given() {
        let mut gate = gate(0);
        assert!(!gate.is_cancelling());
        gate.cancel();
        assert!(gate.is_cancelling());
        for path in ["/in/a", "/out/a"] {
            assert_eq!(gate.permit(END, ReadFile::parse(path).unwrap()).unwrap_err(), Denied::Cancelled);
        }
    }

    /// ARCP §9.3: "An operation not covered by the lease MUST fail with `PERMISSION_DENIED`".
    #[test]
    fn a_lease_that_grants_nothing_permits_nothing() {
        let now = Timestamp::from_millis(0);
        let nothing = Gate::new(Authority::default());
        let read_only = Gate::new(Authority { lease: lease(&[("fs.read", &["**"])]), expires_at: None });
        for gate in [&nothing, &read_only] {
            assert!(gate.permit(now, WriteFile::parse("/a").unwrap()).is_err());
            assert!(gate.permit(now, Fetch::parse("GET", "https://a.test/").unwrap()).is_err());
            assert!(gate.permit(now, CallTool::parse("a").unwrap()).is_err());
            assert!(gate.permit(now, UseModel::parse("a").unwrap()).is_err());
            assert!(gate.permit(now, Delegate::parse("a").unwrap()).is_err());
        }
        assert!(nothing.permit(now, ReadFile::parse("/a").unwrap()).is_err());
        assert!(read_only.permit(now, ReadFile::parse("/a").unwrap()).is_ok());
    }

    /// ARCP §9.7: "does not match at least one pattern […] MUST surface as `PERMISSION_DENIED`".
    #[test]
    fn a_model_is_permitted_by_name_and_none_by_silence() {
        let models = lease(&[("model.use", &["tier-fast/*", "anthropic/claude-3-haiku-*"])]);
        let named = Gate::new(Authority { lease: models, expires_at: None });
        let silent = Gate::new(Authority { lease: lease(&[("tool.call", &["**"])]), expires_at: None });
        for (gate, model, expected) in [
            (&named, "tier-fast/small", true),
            (&named, "anthropic/claude-3-haiku-20240307", true),
            (&named, "anthropic/claude-3-opus-20240229", false),
            (&named, "tier-fast/a/b", false),
            (&silent, "tier-fast/small", false),
        ] {
            let op = UseModel::parse(model).unwrap();
            assert_eq!(gate.permit(Timestamp::from_millis(0), op).is_ok(), expected, "{model}");
        }
    }

    #[test]
    fn the_operation_that_comes_out_of_a_permit_is_the_one_that_went_in() {
        let permit = gate(1).permit(Timestamp::from_millis(0), ReadFile::parse("//in/./a").unwrap()).unwrap();
        assert_eq!(permit.op().path().as_str(), "/in/a");
        assert_eq!(permit.spend(), ReadFile::parse("/in/a").unwrap());
    }

    #[test]
    fn each_denial_has_its_own_code() {
        for (denied, code) in [
            (Denied::Cancelled, ErrorCode::Cancelled),
            (Denied::Expired(END), ErrorCode::LeaseExpired),
            (Denied::Exhausted(Currency::parse("USD").unwrap()), ErrorCode::BudgetExhausted),
            (not_granted("/x"), ErrorCode::PermissionDenied),
        ] {
            assert_eq!(Refusal::from(denied).code, code);
        }
    }

    #[test]
    fn a_gate_delegates_what_is_left_and_not_what_it_began_with() {
        let whole = Authority { lease: lease(&[("cost.budget", &["USD:5.00"])]), expires_at: None };
        let mut gate = Gate::new(whole);
        let usd = Currency::parse("USD").unwrap();
        gate.debit(&usd, Decimal::from(3)).unwrap();
        let ask = |amount| Authority { lease: lease(&[("cost.budget", &[amount])]), expires_at: None };
        assert!(gate.delegate(ask("USD:2.01")).is_err());
        let grant = gate.delegate(ask("USD:2.00")).unwrap();
        let _carve_out = gate.ledger_mut().carve_out(grant.lease.budget()).unwrap();
        assert!(gate.delegate(ask("USD:0.01")).is_err());
    }
}
