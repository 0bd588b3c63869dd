//! Who may connect, and how far each may go.

use std::collections::{BTreeMap, BTreeSet};

use itertools::Itertools as _;
use leasehold_core::{
    error::Refusal,
    id::Principal,
    lease::{Authority, Lease, Namespace, pattern::Pattern},
    secret::Secret,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::capability::mounts::Mounts;

/// The tokens a host knows, and the ceiling of each principal.
///
/// A ceiling is a lease, and a submission is a delegation from it, so what a
/// job may be given and what a sub-agent may be given is decided by the same
/// code (ARCP §9.4). A ceiling's `cost.budget` bounds each job by itself.
pub struct Policy {
    /// SHA-256 of each token: equal lengths compare in constant time.
    tokens: Vec<([u8; 32], Principal)>,
    ceilings: BTreeMap<Principal, Authority>,
    /// For a principal without a policy of its own.
    fallback: Authority,
    /// Who a peer is that needs no token, if there is such a one.
    anonymous: Option<Principal>,
    rights: BTreeMap<Principal, Rights>,
}

/// What a principal may do to jobs that are not of its session. Without an entry: nothing but watch its own.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Whose jobs it may list and watch besides its own (ARCP §6.6, §7.6).
    pub observes: Observes,
    /// Whether it may cancel its own jobs from any session (ARCP §7.4).
    pub cancels_from_any_session: bool,
    /// Who may make keys for its jobs (ARCP §9.8); everyone who makes any if it is not said.
    pub credentials: Option<BTreeSet<String>>,
}

/// Whose jobs a principal may watch besides its own.
#[derive(Clone, Debug)]
pub enum Observes {
    /// Those of these principals.
    These(BTreeSet<Principal>),
    /// All jobs.
    Everyone,
}

impl Default for Observes {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Policy {
    /// Makes a policy.
    ///
    /// A principal without a ceiling of its own may read what is mounted,
    /// write where the mount is writable, and nothing else.
    ///
    /// # Errors
    ///
    /// If a mount's path cannot be a pattern.
    pub fn new(
        tokens: impl IntoIterator<Item = (Principal, Secret)>,
        ceilings: BTreeMap<Principal, Lease>,
        mounts: &Mounts,
    ) -> Result<Self, Refusal> {
        let tokens = tokens.into_iter().map(|(principal, token)| (digest(&token), principal)).collect();
        let mut grants: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mount in mounts.iter() {
            let root = mount.at.to_string();
            let pattern = format!("{}/**", root.trim_end_matches('/'));
            grants.entry("fs.read".into()).or_default().push(pattern.clone());
            if mount.writable {
                grants.entry("fs.write".into()).or_default().push(pattern);
            }
        }
        let lease = Lease::parse(&grants).map_err(|error| Refusal::invalid(error.to_string()))?;
        let ceilings =
            ceilings.into_iter().map(|(principal, lease)| (principal, Authority { lease, expires_at: None })).collect();
        let (fallback, rights) = (Authority { lease, expires_at: None }, BTreeMap::new());
        Ok(Self { tokens, ceilings, fallback, anonymous: None, rights })
    }

    /// Lets principals do more than what is the session's.
    #[must_use]
    pub fn with_rights(self, rights: BTreeMap<Principal, Rights>) -> Self {
        Self { rights, ..self }
    }

    /// Lets a peer in without a token, as `principal`: a process that started this one owns it.
    #[must_use]
    pub fn with_anonymous(self, principal: Principal) -> Self {
        Self { anonymous: Some(principal), ..self }
    }

    /// Whose token this is.
    ///
    /// Every known token is compared whatever the outcome, so that the time
    /// taken says nothing of how many there are before it.
    #[must_use]
    pub fn authenticate(&self, token: Option<&Secret>) -> Option<Principal> {
        let Some(token) = token else { return self.anonymous.clone() };
        let presented = digest(token);
        let mut found = None;
        for (known, principal) in &self.tokens {
            if bool::from(known.ct_eq(&presented)) {
                found = Some(principal.clone());
            }
        }
        // A peer that needs no token may still send one, as SDKs do that always have one.
        found.or_else(|| self.anonymous.clone().filter(|_| self.tokens.is_empty()))
    }

    /// Whether a principal may list and watch another's jobs (ARCP §6.6, §7.6). It may always watch its own.
    #[must_use]
    pub fn may_observe(&self, principal: &Principal, owner: &Principal) -> bool {
        let observes = || match self.rights.get(principal).map(|rights| &rights.observes) {
            Some(Observes::Everyone) => true,
            Some(Observes::These(owners)) => owners.contains(owner),
            None => false,
        };
        principal == owner || observes()
    }

    /// Whether a principal may cancel its jobs from any session (ARCP §7.4).
    #[must_use]
    pub fn may_cancel_from_any_session(&self, principal: &Principal) -> bool {
        self.rights.get(principal).is_some_and(|rights| rights.cancels_from_any_session)
    }

    /// Whether the provisioner of this name makes keys for jobs of a principal (ARCP §9.8).
    #[must_use]
    pub fn may_have_key_of(&self, principal: &Principal, provisioner: &str) -> bool {
        let names = self.rights.get(principal).and_then(|rights| rights.credentials.as_ref());
        names.is_none_or(|names| names.contains(provisioner))
    }

    /// Says of each entry of a request what would become of it, as [`grant`](Self::grant) decides.
    #[must_use]
    pub fn explain(&self, principal: &Principal, request: &Lease) -> Vec<Finding> {
        let ceiling = &self.ceilings.get(principal).unwrap_or(&self.fallback).lease;
        let named = request.namespaces().filter(|namespace| **namespace != Namespace::CostBudget);
        let pattern = |namespace: &Namespace, pattern: &Pattern| {
            let allowed = ceiling.patterns(namespace);
            let (granted, why) = match allowed.iter().find(|allowed| allowed.covers(pattern)) {
                Some(allowed) => (true, format!("within `{allowed}`")),
                None if allowed.is_empty() => (false, format!("the ceiling grants no {namespace}")),
                None => (false, format!("the ceiling grants only {}", allowed.iter().join(", "))),
            };
            Finding { namespace: namespace.clone(), entry: pattern.to_string(), granted, why }
        };
        let patterns =
            named.flat_map(|namespace| request.patterns(namespace).iter().map(move |p| pattern(namespace, p)));
        let mut findings: Vec<Finding> = patterns.collect();
        let currencies = request.budget().keys().chain(ceiling.budget().keys()).sorted().dedup();
        findings.extend(currencies.map(|currency| {
            let (asked, most) = (request.budget().get(currency), ceiling.budget().get(currency));
            let (granted, why) = match (asked, most) {
                (_, None) if ceiling.budget().is_empty() => (true, "the ceiling bounds no spending".to_owned()),
                (_, None) => (false, format!("the ceiling has no budget in {currency}")),
                (None, Some(_)) => (true, "not asked for, and the ceiling's all the same".to_owned()),
                (Some(asked), Some(most)) if asked > most => (false, format!("the ceiling is {currency}:{most} a job")),
                (Some(_), Some(most)) => (true, format!("within {currency}:{most} a job")),
            };
            let entry = format!("{currency}:{}", asked.or(most).copied().unwrap_or_default());
            Finding { namespace: Namespace::CostBudget, entry, granted, why }
        }));
        findings
    }

    /// The authority a submission of `principal` gets, or how it is too much (ARCP §9.4). Of the namespaces in `whole`
    /// it gets all that the ceiling has.
    ///
    /// # Errors
    ///
    /// `LEASE_SUBSET_VIOLATION` with what the ceiling is.
    pub fn grant(&self, principal: &Principal, request: Authority, whole: &[Namespace]) -> Result<Authority, Refusal> {
        let ceiling = self.ceilings.get(principal).unwrap_or(&self.fallback);
        let request = ceiling.with_all_of(whole, request);
        ceiling.delegate(ceiling.lease.budget(), request).map_err(Refusal::from)
    }
}

/// One entry of a request, and what would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Such as `fs.read`.
    pub namespace: Namespace,
    /// The pattern or amount.
    pub entry: String,
    /// Whether it is within the ceiling. A submission of which one entry is not gets nothing (ARCP §9.4).
    pub granted: bool,
    /// Within what, or why not.
    pub why: String,
}

fn digest(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}

#[cfg(test)]
mod tests {
    use leasehold_core::error::ErrorCode;

    use super::*;
    use crate::capability::mounts::Mount;

    fn lease(grants: &[(&str, &str)]) -> Lease {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (namespace, pattern) in grants {
            map.entry((*namespace).into()).or_default().push((*pattern).into());
        }
        Lease::parse(&map).unwrap()
    }

    fn policy(ceilings: &[(&str, Lease)]) -> Policy {
        let dir = tempfile::tempdir().unwrap();
        let mount = |at: &str, writable| Mount { at: at.parse().unwrap(), dir: dir.path().to_owned(), writable };
        let mounts = Mounts::open(vec![mount("/in", false), mount("/out", true)]).unwrap();
        let tokens = [("alice", "tk-a"), ("bob", "tk-b")];
        let tokens = tokens.map(|(name, token)| (Principal::new(name), Secret::new(token)));
        let ceilings = ceilings.iter().map(|(name, lease)| (Principal::new(*name), lease.clone())).collect();
        Policy::new(tokens, ceilings, &mounts).unwrap()
    }

    #[test]
    fn a_token_names_its_principal_and_nothing_else_does() {
        let policy = policy(&[]);
        for (token, expected) in [
            (Some("tk-a"), Some("alice")),
            (Some("tk-b"), Some("bob")),
            (Some("tk-"), None),
            (Some(""), None),
            (None, None),
        ] {
            let token = token.map(Secret::new);
            assert_eq!(policy.authenticate(token.as_ref()).as_ref().map(Principal::as_str), expected);
        }
    }

    #[test]
    fn a_peer_that_owns_the_process_needs_no_token_but_a_wrong_one_is_still_wrong() {
        let owned = policy(&[]).with_anonymous(Principal::new("local"));
        assert!(owned.authenticate(None).is_some());
        assert!(owned.authenticate(Some(&Secret::new("wrong"))).is_none());
    }

    /// ARCP §7.6, §7.4.
    #[test]
    fn a_principal_watches_its_own_jobs_and_those_it_was_given() {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(Principal::new);
        let rights = |observes| Rights { observes, cancels_from_any_session: true, credentials: None };
        let policy = policy(&[]).with_rights(BTreeMap::from([
            (alice.clone(), rights(Observes::These(BTreeSet::from([bob.clone()])))),
            (carol.clone(), rights(Observes::Everyone)),
        ]));
        for (who, owner, allowed) in [
            (&alice, &alice, true),
            (&alice, &bob, true),
            (&alice, &carol, false),
            (&bob, &bob, true),
            (&bob, &alice, false),
            (&carol, &alice, true),
        ] {
            assert_eq!(policy.may_observe(who, owner), allowed, "{who} {owner}");
        }
        assert!(policy.may_cancel_from_any_session(&alice) && !policy.may_cancel_from_any_session(&bob));
    }

    #[test]
    fn a_principal_without_a_policy_may_use_the_mounts_and_nothing_else() {
        let policy = policy(&[("bob", lease(&[("net.fetch", "https://a.test/**")]))]);
        for (who, namespace, pattern, allowed) in [
            ("alice", "fs.read", "/in/x", true),
            ("alice", "fs.read", "/out/**", true),
            ("alice", "fs.write", "/out/**", true),
            ("alice", "fs.write", "/in/x", false), // mounted read-only
            ("alice", "fs.read", "/etc/passwd", false),
            ("alice", "net.fetch", "https://a.test/", false),
            ("bob", "net.fetch", "https://a.test/x", true),
            ("bob", "fs.read", "/in/x", false), // a policy replaces the default
        ] {
            let request = Authority { lease: lease(&[(namespace, pattern)]), expires_at: None };
            let granted = policy.grant(&Principal::new(who), request, &[]);
            assert_eq!(granted.is_ok(), allowed, "{who} {namespace} {pattern}");
            if let Err(refusal) = granted {
                assert_eq!(refusal.code, ErrorCode::LeaseSubsetViolation);
            }
        }
    }

    /// ARCP §9.4: what is explained is what is decided.
    #[test]
    fn a_request_is_granted_where_each_of_its_entries_is_and_nowhere_else() {
        let ceiling = [("fs.read", "/in/**"), ("cost.budget", "USD:5"), ("tool.call", "a.*"), ("tool.call", "b.x")];
        let policy = policy(&[("bob", lease(&ceiling)), ("carol", lease(&ceiling[2..]))]);
        for (who, request, refused) in [
            ("bob", &[("fs.read", "/in/a"), ("fs.read", "/out/a")][..], &["/out/a"][..]),
            ("bob", &[("fs.read", "/in/a"), ("tool.call", "a.b"), ("tool.call", "b.y")], &["b.y"]),
            ("bob", &[("fs.write", "/in/a"), ("net.fetch", "https://a.test/")], &["/in/a", "https://a.test/"]),
            ("bob", &[("cost.budget", "USD:5")], &[]),
            ("bob", &[("cost.budget", "USD:5.01")], &["USD:5.01"]),
            ("bob", &[("cost.budget", "EUR:1")], &["EUR:1"]),
            ("bob", &[], &[]),
            ("carol", &[("cost.budget", "EUR:1"), ("tool.call", "**")], &["**"]),
            ("alice", &[("fs.read", "/in/**"), ("fs.write", "/in/x")], &["/in/x"]),
        ] {
            let (who, request) = (Principal::new(who), lease(request));
            let findings = policy.explain(&who, &request);
            let told: Vec<_> = findings.iter().filter(|finding| !finding.granted).map(|f| f.entry.as_str()).collect();
            assert_eq!(told, refused, "{findings:?}");
            let granted = policy.grant(&who, Authority { lease: request, expires_at: None }, &[]);
            assert_eq!(granted.is_ok(), told.is_empty(), "{findings:?}");
        }
    }

    /// One SDK asks for namespaces and not for patterns: it gets what there is, which is never more than the ceiling.
    #[test]
    fn a_namespace_asked_for_as_a_whole_is_what_the_ceiling_has_of_it() {
        let policy = policy(&[]);
        let own = lease(&[("fs.write", "/out/a")]);
        let request = Authority { lease: own, expires_at: None };
        let whole = [Namespace::FsRead, Namespace::FsWrite, Namespace::NetFetch, Namespace::CostBudget];
        let granted = policy.grant(&Principal::new("alice"), request, &whole).unwrap();
        let wire = granted.lease.to_wire();
        assert_eq!(wire["fs.read"], ["/in/**", "/out/**"]);
        assert_eq!(wire["fs.write"], ["/out/a"], "what it asks for by a pattern is no more than that");
        assert_eq!((&wire["net.fetch"], wire.len()), (&Vec::new(), 3));
    }
}
