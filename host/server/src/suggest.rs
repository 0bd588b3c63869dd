//! The smallest lease that admits a run, read from its journal.
//!
//! A run that was recorded says what an agent needs better than its author's guess does. What was let through becomes
//! an entry, with exactly the target that the gate was asked about; what was refused is told apart, and granted to
//! nobody. Money is the least with which no call of the run would have been refused, and never less than was spent.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
};

use leasehold_core::{
    id::JobId,
    job::{
        charges::{Charges, Reported, Untold},
        record::{Begun, Called, Concluded, Outcome, Record, Redirected, Spent},
    },
    lease::{
        Lease, Namespace,
        amount::{Budget, Currency, Decimal},
        pattern::Pattern,
        target::{AgentName, FetchUrl, FilePath, ModelName, ToolName},
    },
    protocol::event::Event,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    audit::is_denial,
    journal,
    store::{Position, Store},
};

/// How deep delegations are followed; a host lets no job stand deeper by default.
const DEPTH_MAX: u32 = 16;

/// The digits after the point that a share is rounded to.
const DIGITS: u32 = 12;

/// The fewest digits after the point that an amount is given with.
const SCALE_MIN: u32 = 2;

/// What the operator has decided that a run was under.
pub struct Setting {
    /// What models are called besides their names.
    pub aliases: BTreeMap<String, String>,
    /// How much of what is left a job keeps when it hands part of itself on (`limits.delegate_reserve_percent`).
    pub delegate_reserve_percent: u32,
}

/// A lease that admits a run, and what it was made of.
#[derive(Debug, Default, Serialize)]
pub struct Suggestion {
    /// What to put into `lease_request`.
    pub lease_request: BTreeMap<String, Vec<String>>,
    /// What each entry is there for.
    pub entries: Vec<Entry>,
    /// What the run was refused; the lease refuses it, too.
    pub denied: Vec<Refused>,
    /// What to know about it.
    pub remarks: BTreeSet<String>,
}

/// One entry of the lease.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Such as `fs.read`.
    pub namespace: Namespace,
    /// The pattern or amount.
    pub entry: String,
    /// How many calls of the run need it. None do what only a delegated job was given.
    pub calls: u64,
}

/// A call that was refused.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The how-manieth call of the job.
    pub call: u64,
    /// Such as `net.fetch`.
    pub operation: String,
    /// What it was to act on, as the agent wrote it.
    pub target: String,
    /// Why.
    pub why: String,
}

/// Makes the lease of a job's run. Where at least `fold` targets have the same parent, `parent/*` stands for them.
///
/// # Errors
///
/// If there is no such job, its journal cannot be read, or no lease is so large.
pub async fn suggest(
    store: &dyn Store,
    job_id: JobId,
    setting: &Setting,
    fold: Option<usize>,
) -> anyhow::Result<Suggestion> {
    let run = read(store, job_id, setting, 0).await?;
    anyhow::ensure!(run.begun, "there is no job {job_id} in this store");
    run.suggestion(fold)
}

/// What one journal says of a run.
#[derive(Default)]
struct Run<'a> {
    aliases: Option<&'a BTreeMap<String, String>>,
    begun: bool,
    /// How many calls needed which target.
    needed: BTreeMap<(Namespace, String), u64>,
    /// What delegated jobs were given: patterns.
    given: BTreeSet<(Namespace, String)>,
    /// The calls that have begun and have not come to their end, and where they were led.
    under_way: BTreeMap<u64, (Begun, BTreeSet<String>)>,
    money: Money,
    denied: Vec<Refused>,
    remarks: BTreeSet<String>,
}

/// Reads a job's journal, and those of the jobs it delegated to as far as money needs them.
fn read<'a>(
    store: &'a dyn Store,
    job_id: JobId,
    setting: &'a Setting,
    depth: u32,
) -> Pin<Box<dyn Future<Output = anyhow::Result<Run<'a>>> + Send + 'a>> {
    Box::pin(async move {
        let shares = shares(store, job_id, setting, depth).await?;
        let mut run = Run { aliases: Some(&setting.aliases), ..Run::default() };
        let mut after = Position::ZERO;
        loop {
            let page = journal::page(store, job_id, after).await?;
            let Some((last, _)) = page.last() else { return Ok(run) };
            after = Position::new(*last);
            page.into_iter().for_each(|(_, record)| run.take(record, &shares));
        }
    })
}

/// What had to be free for each delegation that took a share of what was left instead of an amount: what its job
/// needed, and what its parent keeps besides.
async fn shares(
    store: &dyn Store,
    job_id: JobId,
    setting: &Setting,
    depth: u32,
) -> anyhow::Result<BTreeMap<String, Budget>> {
    let (mut shares, mut after) = (BTreeMap::new(), Position::ZERO);
    let given = Decimal::new(100 - i64::from(setting.delegate_reserve_percent.min(99)), 2);
    if depth >= DEPTH_MAX {
        return Ok(shares);
    }
    loop {
        let page = journal::page(store, job_id, after).await?;
        let Some((last, _)) = page.last() else { return Ok(shares) };
        after = Position::new(*last);
        for (_, record) in page {
            let Record::Event { event: Event::Delegate { delegate_id, child_job_id, .. }, .. } = record else {
                continue;
            };
            let child = read(store, child_job_id, setting, depth + 1).await?;
            if child.begun {
                let part = |(currency, need): (Currency, Decimal)| (currency, round_up(need / given));
                shares.insert(delegate_id, child.money.need().into_iter().map(part).collect());
            }
        }
    }
}

impl Run<'_> {
    fn take(&mut self, record: Record, shares: &BTreeMap<String, Budget>) {
        match record {
            Record::Accepted(accepted) => {
                self.begun = true;
                self.money.knows(accepted.budget().keys());
                // They have a part of whatever the budget is: with what they had, they have no more.
                for (currency, part) in accepted.given_to_keys() {
                    self.money.debit(currency, part);
                }
                if !accepted.credentials.is_empty() {
                    let what = "the job had keys of its own; what was asked with them is not in `model.use`";
                    self.remarks.insert(what.to_owned());
                }
            }
            Record::Called(called) => self.called(called),
            Record::Begun(begun) => {
                self.money.ask();
                self.money.hold(begun.call, held(&begun, shares));
                self.under_way.insert(begun.call, (begun, BTreeSet::new()));
            }
            Record::Redirected(Redirected { call, url, .. }) => {
                if let Some((_, urls)) = self.under_way.get_mut(&call) {
                    urls.insert(url);
                }
            }
            Record::Concluded(concluded) => self.concluded(concluded),
            Record::Event { event, .. } => self.money.told(&event),
            Record::Ended { spent: Some(Spent(spent)), .. } => self.money.spent_in_all(&spent),
            _ => {}
        }
    }

    fn called(&mut self, Called { call, operation, args, outcome, .. }: Called) {
        let args: Value = serde_json::from_str(args.as_str()).unwrap_or_default();
        match &outcome {
            Outcome::Failed { error, .. } if is_denial(&outcome) => {
                self.denied.push(Refused {
                    call,
                    target: shown(&operation, &args),
                    operation,
                    why: error.message.clone(),
                });
            }
            _ => {
                if operation.ends_with(".list") && operation != "fs.list" {
                    let what = format!("the run looked at `{operation}`, which shows only what the lease covers");
                    self.remarks.insert(what);
                }
                self.money.ask();
                self.need(&operation, &args);
            }
        }
    }

    fn concluded(&mut self, Concluded { call, outcome, cost, .. }: Concluded) {
        let Some((begun, mut urls)) = self.under_way.remove(&call) else { return };
        let mut args: Value = serde_json::from_str(begun.args.as_str()).unwrap_or_default();
        match &outcome {
            Outcome::Done { summary, .. } => {
                let summary: Value = serde_json::from_str(summary.as_str()).unwrap_or_default();
                // What an alias stands for is what the gate is asked about.
                if let (Some(model), true) = (summary.get("model"), begun.operation == "model.use") {
                    args["model"] = model.clone();
                }
                // An older host wrote them down only there.
                let redirects = summary["redirects"].as_array().into_iter().flatten();
                urls.extend(redirects.filter_map(Value::as_str).map(str::to_owned));
            }
            // What the job was refused that does it is in that job's journal.
            Outcome::Failed { .. } if begun.is_delegation() => {}
            Outcome::Failed { error, .. } => {
                if is_denial(&outcome) {
                    let (operation, target) = (begun.operation.clone(), shown(&begun.operation, &args));
                    self.denied.push(Refused { call, operation, target, why: error.message.clone() });
                }
            }
        }
        self.went(&begun, &args, &urls);
        self.money.cost(&begun, &cost);
    }

    /// Grants what a call that had begun acted on, where it was led, and what it handed on.
    fn went(&mut self, begun: &Begun, args: &Value, urls: &BTreeSet<String>) {
        self.need(&begun.operation, args);
        for url in urls {
            self.need(&begun.operation, &serde_json::json!({ "url": url }));
        }
        self.give(&begun.operation, args);
    }

    /// Grants what an operation acted on.
    fn need(&mut self, operation: &str, args: &Value) {
        let Some((namespace, target)) = target(operation, args, self.aliases) else { return };
        *self.needed.entry((namespace, target)).or_default() += 1;
    }

    /// Grants what was handed on, since nobody can hand on more than he has (ARCP §9.4).
    fn give(&mut self, operation: &str, args: &Value) {
        if operation != "agent.delegate" {
            return;
        }
        let Ok(lease) = serde_json::from_value::<Lease>(args["lease"].clone()) else { return };
        for namespace in lease.namespaces().filter(|namespace| **namespace != Namespace::CostBudget) {
            self.given.extend(lease.texts(namespace).into_iter().map(|text| (namespace.clone(), text)));
        }
    }

    fn suggestion(mut self, fold: Option<usize>) -> anyhow::Result<Suggestion> {
        // What was cut off had been let through.
        for (begun, urls) in std::mem::take(&mut self.under_way).into_values() {
            let args: Value = serde_json::from_str(begun.args.as_str()).unwrap_or_default();
            self.went(&begun, &args, &urls);
        }
        let mut entries: BTreeMap<(Namespace, String), u64> = BTreeMap::new();
        for ((namespace, target), calls) in std::mem::take(&mut self.needed) {
            match pattern(&namespace, &target) {
                Some((text, exact)) => {
                    if !exact {
                        self.remarks.insert(format!(
                            "{namespace} on `{target}` has no pattern of its own; `{text}` stands for it"
                        ));
                    }
                    *entries.entry((namespace, text)).or_default() += calls;
                }
                None => drop(self.remarks.insert(format!("no pattern of {namespace} can stand for `{target}`"))),
            }
        }
        if let Some(fold) = fold {
            entries = folded(entries, fold);
        }
        for given in self.given {
            entries.entry(given).or_default();
        }
        let mut entries: Vec<Entry> = smallest(entries);
        for (currency, amount) in self.money.need() {
            let entry = format!("{currency}:{amount}");
            entries.push(Entry { namespace: Namespace::CostBudget, entry, calls: self.money.calls });
        }
        let mut lease_request: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in &entries {
            lease_request.entry(entry.namespace.to_string()).or_default().push(entry.entry.clone());
        }
        if let Err(error) = Lease::parse(&lease_request) {
            anyhow::bail!("the run needs more than a lease may hold ({error}); --fold N makes it smaller");
        }
        Ok(Suggestion { lease_request, entries, denied: self.denied, remarks: self.remarks })
    }
}

/// What a call held, or what it has to find free where it took a share of what there was.
fn held(begun: &Begun, shares: &BTreeMap<String, Budget>) -> Budget {
    let args: Value = serde_json::from_str(begun.args.as_str()).unwrap_or_default();
    let share = shares.get(&leasehold_core::job::record::call_id(begun.call));
    match share {
        Some(share) if args["lease"].get("cost.budget").is_none() => share.clone(),
        _ => begun.reserved.clone(),
    }
}

/// What the gate is asked about, in its canonical form.
fn target(operation: &str, args: &Value, aliases: Option<&BTreeMap<String, String>>) -> Option<(Namespace, String)> {
    let text = |key: &str| args[key].as_str();
    Some(match operation {
        "fs.read" | "fs.read_range" | "fs.list" | "fs.stat" => {
            (Namespace::FsRead, FilePath::parse(text("path")?).ok()?.to_string())
        }
        "fs.write" | "fs.append" | "fs.create_dir" | "fs.remove" => {
            (Namespace::FsWrite, FilePath::parse(text("path")?).ok()?.to_string())
        }
        "net.fetch" => (Namespace::NetFetch, FetchUrl::parse(text("url")?).ok()?.to_string()),
        "tool.call" => (Namespace::ToolCall, ToolName::parse(text("tool")?).ok()?.to_string()),
        "model.use" => {
            let asked = text("model")?;
            let model = aliases.and_then(|aliases| aliases.get(asked)).map_or(asked, String::as_str);
            (Namespace::ModelUse, ModelName::parse(model).ok()?.to_string())
        }
        "agent.delegate" => (Namespace::AgentDelegate, AgentName::parse(text("agent")?).ok()?.to_string()),
        _ => return None,
    })
}

/// What an agent asked for, as it wrote it.
fn shown(operation: &str, args: &Value) -> String {
    let key = match operation {
        "net.fetch" => "url",
        "tool.call" => "tool",
        "model.use" => "model",
        "agent.delegate" => "agent",
        _ => "path",
    };
    args[key].as_str().unwrap_or_default().to_owned()
}

/// The narrowest pattern for a target, and whether it matches nothing else.
fn pattern(namespace: &Namespace, target: &str) -> Option<(String, bool)> {
    let is_pattern = |text: &str| Pattern::parse(namespace, text).is_ok();
    if is_pattern(target) {
        return Some((target.to_owned(), !target.contains('*')));
    }
    // A long query: without it the pattern matches any.
    let (path, _) = target.split_once('?')?;
    is_pattern(path).then(|| (path.to_owned(), false))
}

/// Puts `parent/*` for the targets of one parent, where there are many.
fn folded(entries: BTreeMap<(Namespace, String), u64>, fold: usize) -> BTreeMap<(Namespace, String), u64> {
    let mut siblings: BTreeMap<(Namespace, String), usize> = BTreeMap::new();
    let parent_of = |(namespace, text): &(Namespace, String)| Some((namespace.clone(), siblings_of(namespace, text)?));
    for parent in entries.keys().filter_map(parent_of) {
        *siblings.entry(parent).or_default() += 1;
    }
    let mut folded = BTreeMap::new();
    for (entry, calls) in entries {
        let parent = parent_of(&entry).filter(|parent| siblings.get(parent).is_some_and(|count| *count >= fold));
        *folded.entry(parent.unwrap_or(entry)).or_default() += calls;
    }
    folded
}

/// The pattern of a target and all beside it.
fn siblings_of(namespace: &Namespace, text: &str) -> Option<String> {
    let parent = match namespace {
        Namespace::FsRead | Namespace::FsWrite => text.rsplit_once('/').filter(|(_, name)| !name.is_empty())?.0,
        Namespace::NetFetch => {
            let path = text.split('?').next()?;
            let (scheme, rest) = path.split_once("://")?;
            let (parent, _) = rest.rsplit_once('/')?;
            &text[..scheme.len() + 3 + parent.len()]
        }
        Namespace::ModelUse => text.rsplit_once('/')?.0,
        Namespace::ToolCall => return Some(format!("{}.*", text.rsplit_once('.')?.0)),
        _ => return None,
    };
    Some(format!("{parent}/*"))
}

/// Leaves out what another entry covers, so that no entry can be missed.
fn smallest(entries: BTreeMap<(Namespace, String), u64>) -> Vec<Entry> {
    let parse = |((namespace, text), calls): ((Namespace, String), u64)| {
        let pattern = Pattern::parse(&namespace, &text).ok()?;
        Some((namespace, pattern, calls))
    };
    let mut kept: Vec<(Namespace, Pattern, u64)> = Vec::new();
    for (namespace, pattern, mut calls) in entries.into_iter().filter_map(parse) {
        let is_of = |known: &(Namespace, Pattern, u64)| known.0 == namespace;
        if let Some(wider) = kept.iter_mut().find(|known| is_of(known) && known.1.covers(&pattern)) {
            wider.2 += calls;
            continue;
        }
        kept.retain(|known| {
            let narrower = is_of(known) && pattern.covers(&known.1);
            calls += if narrower { known.2 } else { 0 };
            !narrower
        });
        kept.push((namespace, pattern, calls));
    }
    kept.into_iter().map(|(namespace, pattern, calls)| Entry { namespace, entry: pattern.to_string(), calls }).collect()
}

/// The money of a run, as far as its journal tells when it moved.
///
/// What a call held is free again when the agent takes its end, which the journal tells by the cost that is shown then.
/// Of a call that cost nothing, and of a delegation, it tells only when that end had come in.
#[derive(Default)]
struct Money {
    spent: Budget,
    held: BTreeMap<u64, Budget>,
    costs: BTreeMap<u64, Budget>,
    /// What calls came to whose end the agent has not taken.
    untold: Untold,
    /// What was charged for the others, which counts once however often it is told.
    charges: Charges,
    /// What was spent and held at most: so much is needed.
    most: Budget,
    /// What was spent and held when a call was let through: more than that is needed.
    asked: Budget,
    /// How many calls held something.
    calls: u64,
    scale: u32,
}

impl Money {
    fn knows<'c>(&mut self, currencies: impl Iterator<Item = &'c Currency>) {
        for currency in currencies {
            self.most.entry(currency.clone()).or_default();
        }
    }

    /// An operation was let through.
    fn ask(&mut self) {
        for (currency, now) in self.now() {
            raise(&mut self.asked, &currency, now);
        }
    }

    fn hold(&mut self, call: u64, amount: Budget) {
        self.calls += u64::from(!amount.is_empty());
        self.held.insert(call, amount);
        self.note();
    }

    /// What a call came to.
    fn cost(&mut self, begun: &Begun, cost: &Budget) {
        self.costs.insert(begun.call, cost.clone());
        if begun.is_delegation() {
            cost.iter().for_each(|(currency, cost)| self.charges.add(begun.call, currency, *cost));
        } else {
            self.untold.add(begun, cost);
        }
        if begun.is_delegation() || cost.values().all(|cost| *cost <= Decimal::ZERO) {
            self.release(begun.call);
        }
    }

    /// What the host or the agent said of a cost.
    fn told(&mut self, event: &Event) {
        let Some(cost) = Reported::of(event) else { return };
        match self.untold.told_by(event) {
            // The agent has taken the end of the call, and what was held for it is free again.
            Some(call) => {
                self.charges.add(call, &cost.currency, cost.value);
                self.release(call);
            }
            None => {
                let beyond = self.charges.beyond(&cost);
                self.debit(cost.currency, beyond);
            }
        }
    }

    /// What a call held is free again, less what it cost.
    fn release(&mut self, call: u64) {
        if self.held.remove(&call).is_none() {
            return;
        }
        for (currency, cost) in self.costs.remove(&call).unwrap_or_default() {
            self.debit(currency, cost);
        }
    }

    fn debit(&mut self, currency: Currency, value: Decimal) {
        let sum = self.spent.entry(currency).or_default();
        *sum = sum.saturating_add(value);
        self.note();
    }

    fn spent_in_all(&mut self, spent: &Budget) {
        for (currency, spent) in spent {
            raise(&mut self.most, currency, *spent);
        }
    }

    fn note(&mut self) {
        for (currency, now) in self.now() {
            self.scale = self.scale.max(now.scale());
            raise(&mut self.most, &currency, now);
        }
    }

    /// What is spent and held.
    fn now(&self) -> Budget {
        let mut now = self.spent.clone();
        for (currency, amount) in self.held.values().flatten() {
            let sum = now.entry(currency.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        now
    }

    /// The least of each currency with which every call that was let through would have been.
    fn need(&self) -> Budget {
        let step = Decimal::new(1, self.scale.max(SCALE_MIN));
        let need = |(currency, most): (&Currency, &Decimal)| {
            let asked = self.asked.get(currency).copied().unwrap_or_default();
            let least = if *most > asked { *most } else { asked.saturating_add(step) };
            (currency.clone(), least.normalize())
        };
        self.most.iter().map(need).collect()
    }
}

fn raise(budget: &mut Budget, currency: &Currency, to: Decimal) {
    let known = budget.entry(currency.clone()).or_default();
    *known = to.max(*known);
}

/// An amount with no more digits than a lease may have, and no less money.
fn round_up(amount: Decimal) -> Decimal {
    let cut = amount.trunc_with_scale(DIGITS);
    let rest = if cut < amount { Decimal::new(1, DIGITS) } else { Decimal::ZERO };
    cut.saturating_add(rest).normalize()
}

#[cfg(test)]
mod tests {
    use leasehold_core::{
        error::ErrorCode,
        id::Ulid,
        job::record::Accepted,
        lease::Authority,
        protocol::{event::ToolError, json::Json},
        time::Timestamp,
    };
    use serde_json::json;

    use super::*;
    use crate::store::memory::Memory;

    const AT: Timestamp = Timestamp::from_millis(0);

    fn job(n: u128) -> JobId {
        JobId::new(Ulid::from_parts(0, n))
    }

    fn accepted(job_id: JobId, lease: Value) -> Record {
        let authority = Authority { lease: serde_json::from_value(lease).unwrap(), expires_at: None };
        Record::Accepted(Box::new(Accepted { authority, ..journal::accepted_for_tests(job_id) }))
    }

    fn done(summary: Value) -> Outcome {
        Outcome::Done { summary: Json::of(&summary), answer: None }
    }

    fn failed(code: ErrorCode) -> Outcome {
        let error = ToolError { code, message: "why not".into(), retryable: false };
        Outcome::Failed { error, code: "x".into() }
    }

    fn called(call: u64, operation: &str, args: Value, outcome: Outcome) -> Record {
        Record::Called(Called { at: AT, call, operation: operation.into(), args: Json::of(&args), outcome })
    }

    fn budget(texts: &[&str]) -> Budget {
        serde_json::from_value::<Lease>(json!({ "cost.budget": texts })).unwrap().budget().clone()
    }

    fn begun(call: u64, operation: &str, args: Value, reserved: &[&str]) -> Record {
        let reserved = budget(reserved);
        Record::Begun(Begun { at: AT, call, operation: operation.into(), args: Json::of(&args), reserved })
    }

    fn concluded(call: u64, outcome: Outcome, cost: &[&str]) -> Record {
        Record::Concluded(Concluded { at: AT, call, outcome, cost: budget(cost) })
    }

    /// What the host says that the call of a tool cost, or an agent that anything did.
    fn cost(value: &str, call: Option<u64>) -> Record {
        let dimensions = call.map(|call| ("call_id".to_owned(), leasehold_core::job::record::call_id(call)));
        let (name, unit) = ("cost.tool.call".to_owned(), Some("USD".to_owned()));
        let value = value.parse().unwrap();
        Record::Event {
            at: AT,
            event: Event::Metric { name, value, unit, dimensions: dimensions.into_iter().collect() },
        }
    }

    async fn suggestion(jobs: Vec<Vec<Record>>, fold: Option<usize>) -> anyhow::Result<Suggestion> {
        let store = Memory::default();
        for (n, records) in (1..).zip(jobs) {
            let records = records.iter().map(|record| record.encode().into()).collect();
            store.append(&journal::stream(job(n)), Position::ZERO, records).await.unwrap();
        }
        let aliases = [("smart".to_owned(), "tier-a/big".to_owned())].into();
        suggest(&store, job(1), &Setting { aliases, delegate_reserve_percent: 10 }, fold).await
    }

    async fn lease_of(records: Vec<Record>) -> Value {
        let records = [vec![accepted(job(1), json!({}))], records].concat();
        json!(suggestion(vec![records], None).await.unwrap().lease_request)
    }

    /// ARCP §9.2.
    #[tokio::test]
    async fn each_operation_needs_what_its_gate_was_asked_about() {
        let redirected = |url: &str| Record::Redirected(Redirected { at: AT, call: 1, url: url.into() });
        let fetch = |url: &str| begun(1, "net.fetch", json!({ "url": url, "redirects": 5 }), &[]);
        let table = [
            (vec![called(1, "fs.read", json!({ "path": "/w//a/" }), done(json!({})))], json!({ "fs.read": ["/w/a"] })),
            (
                vec![called(1, "fs.stat", json!({ "path": "/w" }), failed(ErrorCode::InvalidRequest))],
                json!({ "fs.read": ["/w"] }),
            ),
            (
                vec![called(1, "fs.create_dir", json!({ "path": "/w/a" }), done(json!({})))],
                json!({ "fs.write": ["/w/a"] }),
            ),
            (vec![called(1, "fs.read", json!({ "path": "a" }), failed(ErrorCode::InvalidRequest))], json!({})),
            (vec![called(1, "fs.read", json!({ "path": "/a" }), failed(ErrorCode::PermissionDenied))], json!({})),
            (
                vec![
                    fetch("HTTPS://A.test?q=1"),
                    concluded(1, done(json!({ "redirects": ["https://b.test/x"] })), &[]),
                ],
                json!({ "net.fetch": ["https://a.test/?q=1", "https://b.test/x"] }),
            ),
            (
                // What was led to two places, of which the second failed, and what was cut off on its way.
                vec![
                    fetch("https://a.test/"),
                    redirected("https://b.test/x"),
                    redirected("https://b.test/y"),
                    concluded(1, failed(ErrorCode::InternalError), &[]),
                    begun(2, "net.fetch", json!({ "url": "https://c.test/", "redirects": 5 }), &[]),
                    Record::Redirected(Redirected { at: AT, call: 2, url: "https://d.test/".into() }),
                ],
                json!({ "net.fetch": [
                    "https://a.test/", "https://b.test/x", "https://b.test/y", "https://c.test/", "https://d.test/",
                ] }),
            ),
            (
                // The redirect was refused, and not where it led from.
                vec![fetch("https://a.test/"), concluded(1, failed(ErrorCode::PermissionDenied), &[])],
                json!({ "net.fetch": ["https://a.test/"] }),
            ),
            (
                vec![begun(1, "tool.call", json!({ "tool": "s.t", "arguments": {} }), &[])],
                json!({ "tool.call": ["s.t"] }),
            ),
            (
                vec![
                    begun(1, "model.use", json!({ "model": "fast" }), &[]),
                    concluded(1, done(json!({ "model": "tier-b/x" })), &[]),
                ],
                json!({ "model.use": ["tier-b/x"] }),
            ),
            (
                vec![
                    begun(1, "model.use", json!({ "model": "smart" }), &[]),
                    concluded(1, failed(ErrorCode::Timeout), &[]),
                ],
                json!({ "model.use": ["tier-a/big"] }),
            ),
            (
                vec![
                    called(1, "fs.read", json!({ "path": "/w/a" }), done(json!({}))),
                    called(2, "fs.read", json!({ "path": "/v" }), done(json!({}))),
                    begun(
                        3,
                        "agent.delegate",
                        json!({ "agent": "h@1", "lease": { "fs.read": ["/w/**"], "tool.call": ["s.*"] } }),
                        &[],
                    ),
                ],
                json!({ "agent.delegate": ["h@1"], "fs.read": ["/v", "/w/**"], "tool.call": ["s.*"] }),
            ),
        ];
        for (records, expected) in table {
            let row = format!("{records:?}");
            assert_eq!(lease_of(records).await, expected, "{row}");
        }
    }

    /// ARCP §9.6: the counter must be above zero when an operation is asked for, and hold its price.
    #[tokio::test]
    async fn money_is_the_least_that_lets_every_call_through() {
        let call = |n, most: &str, actual: &str| {
            [
                begun(n, "tool.call", json!({ "tool": "t" }), &[most]),
                concluded(n, done(json!({})), &[actual]),
                cost(&actual[4..], Some(n)),
            ]
        };
        let read = |n| called(n, "fs.read", json!({ "path": "/a" }), done(json!({})));
        let start = |n, most: &str| begun(n, "tool.call", json!({ "tool": "t" }), &[most]);
        let table: [(&str, Vec<Record>, &str); 11] = [
            ("nothing spent, and yet bounded", vec![], "USD:0.01"),
            ("spent at last", vec![cost("5", None)], "USD:5"),
            ("a call after it was spent", vec![cost("5", None), read(1)], "USD:5.01"),
            ("finer than a cent", vec![cost("0.0005", None), read(1)], "USD:0.0006"),
            ("held more than it cost", call(1, "USD:3", "USD:1").into(), "USD:3"),
            ("one after the other", [call(1, "USD:3", "USD:1"), call(2, "USD:3", "USD:1")].concat(), "USD:4"),
            ("side by side", vec![start(1, "USD:3"), start(2, "USD:3")], "USD:6"),
            ("reported once more", [&call(1, "USD:1", "USD:1")[..], &[cost("1", Some(1))]].concat(), "USD:1"),
            (
                "and again",
                [&call(1, "USD:1", "USD:1")[..], &[cost("1", Some(1)), cost("1", Some(1))]].concat(),
                "USD:2",
            ),
            ("reported as more", [&call(1, "USD:1", "USD:1")[..], &[cost("1.5", Some(1))]].concat(), "USD:1.5"),
            (
                "freed when nothing was spent",
                vec![start(1, "USD:3"), concluded(1, done(json!({})), &[]), start(2, "USD:3")],
                "USD:3",
            ),
        ];
        for (what, records, expected) in table {
            let records = [vec![accepted(job(1), json!({ "cost.budget": ["USD:100"] }))], records].concat();
            let lease = suggestion(vec![records], None).await.unwrap().lease_request;
            assert_eq!(lease["cost.budget"], [expected], "{what}");
        }
    }

    /// A delegation that names no budget takes a share of what is left, so enough must be left.
    #[tokio::test]
    async fn a_share_is_as_large_as_its_job_needed() {
        let args = |lease: Value| json!({ "agent": "h", "lease": lease });
        let told = Record::Event {
            at: AT,
            event: Event::Delegate {
                delegate_id: leasehold_core::job::record::call_id(1),
                child_job_id: job(2),
                agent: "h".into(),
                input: Json::default(),
                lease: Some(Lease::default()),
                lease_constraints: None,
            },
        };
        let bounded = |n| accepted(job(n), json!({ "cost.budget": ["USD:90"] }));
        for (lease, expected) in [(json!({}), "USD:2"), (json!({ "cost.budget": ["USD:50"] }), "USD:50")] {
            let parent = vec![
                bounded(1),
                begun(1, "agent.delegate", args(lease), &[if expected == "USD:2" { "USD:81" } else { "USD:50" }]),
                told.clone(),
                concluded(1, done(json!({})), &["USD:1.8"]),
            ];
            let child = vec![bounded(2), cost("1.8", None)];
            let lease = suggestion(vec![parent, child], None).await.unwrap().lease_request;
            assert_eq!(lease["cost.budget"], [expected]);
        }
    }

    #[tokio::test]
    async fn siblings_are_folded_where_there_are_enough_of_them() {
        let mut records = vec![accepted(job(1), json!({}))];
        let paths = ["/w/a", "/w/b", "/w/c", "/v/a", "/x"];
        let reads = (1..).zip(paths).map(|(n, path)| called(n, "fs.read", json!({ "path": path }), done(json!({}))));
        records.extend(reads);
        for (n, url) in
            (10..).zip(["https://a.test/p?q=1", "https://a.test/p?q=2", "https://a.test/q", "https://b.test/"])
        {
            records.push(begun(n, "net.fetch", json!({ "url": url }), &[]));
        }
        for (n, tool) in (20..).zip(["s.a", "s.b", "s.c"]) {
            records.push(begun(n, "tool.call", json!({ "tool": tool }), &[]));
        }
        let folded = suggestion(vec![records.clone()], Some(3)).await.unwrap();
        let expected = json!({
            "fs.read": ["/v/a", "/w/*", "/x"],
            "net.fetch": ["https://a.test/*", "https://b.test/"],
            "tool.call": ["s.*"],
        });
        assert_eq!(json!(folded.lease_request), expected);
        let calls: Vec<_> = folded.entries.iter().map(|entry| (entry.entry.as_str(), entry.calls)).collect();
        assert!(calls.contains(&("/w/*", 3)) && calls.contains(&("https://a.test/*", 3)), "{calls:?}");
        let plain = suggestion(vec![records], None).await.unwrap();
        assert_eq!(plain.lease_request.values().map(Vec::len).sum::<usize>(), 12);
    }

    #[tokio::test]
    async fn what_no_pattern_can_say_exactly_is_said() {
        let long = format!("https://a.test/p?q={}", "x".repeat(2000));
        let records = vec![
            accepted(job(1), json!({})),
            called(1, "fs.read", json!({ "path": "/w/*.md" }), done(json!({}))),
            begun(2, "net.fetch", json!({ "url": long }), &[]),
            called(3, "tool.list", json!({}), done(json!({}))),
            called(4, "fs.read", json!({ "path": "/secret" }), failed(ErrorCode::PermissionDenied)),
        ];
        let told = suggestion(vec![records], None).await.unwrap();
        assert_eq!(json!(told.lease_request), json!({ "fs.read": ["/w/*.md"], "net.fetch": ["https://a.test/p"] }));
        assert_eq!(told.remarks.len(), 3, "{:?}", told.remarks);
        let refused = Refused { call: 4, operation: "fs.read".into(), target: "/secret".into(), why: "why not".into() };
        assert_eq!(told.denied, [refused]);
    }

    /// ARCP §10: another job has a lease of its own, and this one's let it begin.
    #[tokio::test]
    async fn what_a_delegated_job_was_refused_its_parent_was_not() {
        for code in [ErrorCode::PermissionDenied, ErrorCode::LeaseExpired, ErrorCode::BudgetExhausted] {
            let args = json!({ "agent": "h@1", "lease": {} });
            let records = vec![
                accepted(job(1), json!({})),
                begun(1, "agent.delegate", args.clone(), &[]),
                concluded(1, failed(code), &[]),
                called(2, "agent.delegate", args, failed(code)),
            ];
            let told = suggestion(vec![records], None).await.unwrap();
            assert_eq!(json!(told.lease_request), json!({ "agent.delegate": ["h@1"] }));
            let denied: Vec<u64> = told.denied.iter().map(|refused| refused.call).collect();
            assert_eq!(denied, [2], "{code}: the one that did not begin");
        }
    }

    #[tokio::test]
    async fn a_run_that_fits_no_lease_is_to_be_folded() {
        let mut records = vec![accepted(job(1), json!({}))];
        records.extend((1..=300).map(|n| called(n, "fs.read", json!({ "path": format!("/w/{n}") }), done(json!({})))));
        let error = suggestion(vec![records.clone()], None).await.unwrap_err().to_string();
        assert!(error.contains("--fold"), "{error}");
        assert_eq!(
            json!(suggestion(vec![records], Some(2)).await.unwrap().lease_request),
            json!({ "fs.read": ["/w/*"] })
        );
        assert!(suggestion(vec![], None).await.unwrap_err().to_string().contains("there is no job"));
    }
}
