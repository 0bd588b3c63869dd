//! The keys of running jobs: made before the acceptance, revoked after the end, whatever comes between (ARCP §9.8.2).
//!
//! Each credential has a stream of its own in the store. It begins before the
//! key is made and goes when the key is certain to be worth nothing, so the
//! streams that are there are the credentials that are outstanding: a start
//! finds in them what the host before it left behind, without reading any job.
//! A revocation that fails is tried again for as long as the host runs, and by
//! the next host.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{CredentialId, JobId},
    job::record::{Accepted, Granted},
    lease::{
        Authority, Namespace,
        amount::{Amount, Budget, Decimal},
        ledger::Ledger,
    },
    protocol::credential::{BEARER, Constraints, Credential},
    time::Timestamp,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Issued, JobFacts, ProvisionError, Provisioner,
    meter::{Entry, JobMeter, end_of},
    provisioner,
    settings::{CredentialEntry, Kind},
    vault::Vault,
};
use crate::{
    capability::models::Models,
    clock::{self, Clock},
    gateway::{Gateway, GatewaySettings},
    journal::{self, Journal},
    store::{Position, Store, StoreError, Stored, StreamId},
    writer::Writer,
};

/// The streams of credentials begin with this.
pub const CREDENTIALS: &str = "credential/";

/// How long a revocation that has failed waits at first.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// How many revocations are asked for at once.
const REVOCATIONS_MAX: usize = 16;

/// How many streams are looked at in one step.
const PAGE: usize = 256;

/// Makes the keys of jobs, knows those that are worth something, and unmakes them.
pub struct Keeper {
    store: Arc<dyn Store>,
    clock: Clock,
    vault: Vault,
    makers: BTreeMap<String, Maker>,
    gateway: Option<Arc<Gateway>>,
    /// Where the host is to listen, and where it does.
    listen: SocketAddr,
    listens: OnceLock<SocketAddr>,
    live: Mutex<HashMap<JobId, Vec<Live>>>,
    revocations: Semaphore,
    stopping: CancellationToken,
}

/// One `[credentials.NAME]`.
struct Maker {
    budget_percent: u32,
    retry_max: Duration,
    kind: MakerKind,
}

enum MakerKind {
    /// The host's own endpoint, and where it is if the operator has said so.
    Own(Option<String>),
    Other(Box<dyn Provisioner>),
}

/// A key of a job that runs or is about to.
struct Live {
    granted: Granted,
    /// What counts what it spends, if that is the host.
    meter: Option<Arc<JobMeter>>,
}

/// A credential that is not known to be worth nothing, as the operator sees it.
#[derive(Debug, serde::Serialize)]
pub struct Outstanding {
    /// Which.
    pub id: CredentialId,
    /// Whose.
    pub job_id: JobId,
    /// Who makes and unmakes it.
    pub provisioner: String,
    /// Since when there is one.
    pub issued_at: Timestamp,
    /// When a revocation failed last, if one did.
    pub failed_at: Option<Timestamp>,
    /// Why.
    pub why: Option<String>,
}

impl Keeper {
    /// Makes the keeper of a host; none if nobody makes keys.
    ///
    /// # Errors
    ///
    /// The setting that cannot be used, and why.
    pub fn new(
        entries: &BTreeMap<String, CredentialEntry>,
        (models, settings): (&Arc<Models>, &GatewaySettings),
        (data, listen): (&Path, SocketAddr),
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> Result<Option<Arc<Self>>, String> {
        if entries.is_empty() {
            return Ok(None);
        }
        let (mut makers, mut gateway) = (BTreeMap::new(), None);
        for (name, entry) in entries {
            let kind = match (provisioner(name, entry)?, &entry.kind) {
                (Some(other), _) => MakerKind::Other(other),
                (None, Kind::Gateway(own)) => {
                    if own.endpoint.is_none() && !listen.ip().is_loopback() {
                        return Err(format!(
                            "credentials.{name}.gateway.endpoint: it is needed, as clients do not reach the host at {listen}"
                        ));
                    }
                    gateway = Some(Arc::new(Gateway::new(Arc::clone(models), settings.clone())));
                    MakerKind::Own(own.endpoint.clone())
                }
                (None, _) => return Err(format!("credentials.{name}: nobody makes its keys")),
            };
            let retry_max = Duration::from_secs(entry.revoke_retry_sec_max.max(1).into());
            makers.insert(name.clone(), Maker { budget_percent: entry.budget_percent, retry_max, kind });
        }
        let vault = Vault::open(data).map_err(|what| format!("credentials: {what}"))?;
        let (live, listens, stopping) = (Mutex::default(), OnceLock::new(), CancellationToken::new());
        let revocations = Semaphore::new(REVOCATIONS_MAX);
        Ok(Some(Arc::new(Self { store, clock, vault, makers, gateway, listen, listens, live, revocations, stopping })))
    }

    /// The host's own endpoint, if it makes keys for it.
    #[must_use]
    pub fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.gateway.as_ref()
    }

    /// Notes where the host listens: there is its own endpoint, if the operator has not named another place.
    pub fn listens_at(&self, address: SocketAddr) {
        self.listens.get_or_init(|| address);
    }

    /// Those who make keys, and how much of a budget each of theirs may spend, in percent.
    pub fn makers(&self) -> impl Iterator<Item = (&str, u32)> {
        self.makers.iter().map(|(name, maker)| (name.as_str(), maker.budget_percent))
    }

    /// The keys that a job of this authority is given by those of whom `allowed` says so, and their parts of its budget.
    pub fn grant(&self, authority: &Authority, now: Timestamp, allowed: impl Fn(&str) -> bool) -> Vec<Granted> {
        if authority.lease.patterns(&Namespace::ModelUse).is_empty() {
            return Vec::new();
        }
        let mut ledger = Ledger::new(authority.lease.budget());
        let makers = self.makers.iter().filter(|(name, _)| allowed(name));
        let granted = makers.map(|(name, maker)| {
            let budget = part(&mut ledger, authority.lease.budget(), maker.budget_percent);
            Granted { id: CredentialId::new(clock::fresh(now)), provisioner: name.clone(), budget }
        });
        granted.collect()
    }

    /// Makes the keys that a job was granted, each written down before it is made.
    ///
    /// # Errors
    ///
    /// If one cannot be made. The others, and what there may be of that one, are revoked.
    pub async fn issue(self: &Arc<Self>, accepted: &Accepted) -> Result<Vec<Credential>, Refusal> {
        let live = accepted.credentials.iter().map(|granted| Live { granted: granted.clone(), meter: None });
        self.live().insert(accepted.job_id, live.collect());
        let issued = async {
            let noted = accepted.credentials.iter().map(|granted| self.note(accepted, granted));
            try_join_all(noted).await.map_err(|error| {
                tracing::error!(%error, "a credential could not be written down");
                Refusal::new(ErrorCode::InternalError, "the host could not store the job; try again later")
            })?;
            let made = accepted.credentials.iter().map(|granted| self.make(accepted, granted));
            join_all(made).await.into_iter().collect::<Result<Vec<_>, _>>()
        };
        let issued = issued.await;
        if issued.is_err() {
            self.end(accepted.job_id);
        }
        issued
    }

    async fn note(&self, accepted: &Accepted, granted: &Granted) -> Result<(), StoreError> {
        let own = self.makers.get(&granted.provisioner).is_some_and(Maker::is_own);
        let Granted { id, provisioner, .. } = granted.clone();
        let entry = Entry::Issued { at: accepted.at, job_id: accepted.job_id, provisioner, own };
        self.store.append(&stream(id), Position::ZERO, vec![entry.encode()]).await.map(drop)
    }

    async fn make(&self, accepted: &Accepted, granted: &Granted) -> Result<Credential, Refusal> {
        let Granted { id, provisioner, .. } = granted;
        let made = match self.makers.get(provisioner).map(|maker| &maker.kind) {
            Some(MakerKind::Other(other)) => {
                other.issue(self.clock.now(), &id.to_string(), &facts(accepted, granted)).await
            }
            Some(MakerKind::Own(_)) => return Ok(self.own(accepted, granted)),
            None => Err(ProvisionError::Refused("it is not configured".to_owned())),
        };
        let kept = made.and_then(|issued| {
            let kept = self.vault.keep(*id, &issued);
            kept.map(|()| issued).map_err(|error| ProvisionError::Broken(format!("it cannot be kept: {error}")))
        });
        match kept {
            Ok(issued) => {
                tracing::info!(job_id = %accepted.job_id, credential = %id, provisioner, "a key was made");
                Ok(shown(*id, issued))
            }
            Err(error) => {
                tracing::error!(job_id = %accepted.job_id, credential = %id, provisioner, %error, "no key was made");
                let message = match &error {
                    // That is said of the lease; the rest is between the host and who makes keys.
                    ProvisionError::Unbounded(_) => format!("credential `{provisioner}`: {error}"),
                    _ => format!(
                        "credential `{provisioner}` could not be made, so the job was not taken; try again later"
                    ),
                };
                Err(Refusal::new(Refusal::from(error).code, message))
            }
        }
    }

    /// A key of the host's own endpoint, which follows from its id.
    fn own(&self, accepted: &Accepted, granted: &Granted) -> Credential {
        let endpoint = match self.makers.get(&granted.provisioner).map(|maker| &maker.kind) {
            Some(MakerKind::Own(Some(endpoint))) => endpoint.clone(),
            _ => format!("http://{}/v1", self.listens.get().unwrap_or(&self.listen)),
        };
        Credential {
            id: granted.id,
            scheme: BEARER.to_owned(),
            value: self.vault.derive(granted.id),
            endpoint,
            profile: Some("openai".to_owned()),
            constraints: Constraints {
                cost_budget: granted.budget.iter().map(|(currency, value)| format!("{currency}:{value}")).collect(),
                model_use: accepted.authority.lease.texts(&Namespace::ModelUse),
                expires_at: accepted.authority.expires_at,
            },
        }
    }

    /// Lets in the keys of a job that begins, whose journal that is.
    pub fn admit(&self, accepted: &Accepted, journal: &Arc<Journal>) {
        for granted in &accepted.credentials {
            // The record that the key was issued stands there, and nothing else.
            let last = Position::new(1);
            if self.makers.get(&granted.provisioner).is_some_and(Maker::is_own) {
                self.open(accepted, granted, journal, last, &[]);
            }
        }
    }

    fn open(&self, accepted: &Accepted, granted: &Granted, journal: &Arc<Journal>, last: Position, past: &[Stored]) {
        let Some(gateway) = &self.gateway else { return };
        let writer = Writer::new(Arc::clone(&self.store), stream(granted.id), last);
        let context = (self.clock.clone(), writer, Arc::clone(journal));
        let meter = Arc::new(JobMeter::new(accepted, granted, context, past));
        let mut live = self.live();
        let live = live.get_mut(&accepted.job_id).into_iter().flatten();
        for live in live.filter(|live| live.granted.id == granted.id) {
            live.meter = Some(Arc::clone(&meter));
        }
        gateway.admit(&granted.id.to_string(), &self.vault.derive(granted.id), meter);
    }

    /// Takes up the keys of a job that an earlier host began, with what they have spent.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn take_up(&self, accepted: &Accepted, journal: &Arc<Journal>) -> Result<(), StoreError> {
        let mut pasts = Vec::new();
        for granted in &accepted.credentials {
            let past = self.read(granted.id).await?;
            // One without a stream was revoked.
            if past.is_empty() {
                continue;
            }
            pasts.push((granted, past));
        }
        let live = pasts.iter().map(|(granted, _)| Live { granted: (*granted).clone(), meter: None }).collect();
        self.live().insert(accepted.job_id, live);
        for (granted, past) in pasts {
            match self.makers.get(&granted.provisioner) {
                Some(maker) if maker.is_own() => self.open(accepted, granted, journal, end_of(&past), &past),
                Some(_) => {}
                None => tracing::error!(
                    job_id = %accepted.job_id, credential = %granted.id, provisioner = granted.provisioner,
                    "the key of a job that goes on was made by what is not configured any more"
                ),
            }
        }
        Ok(())
    }

    async fn read(&self, id: CredentialId) -> Result<Vec<Stored>, StoreError> {
        read(&*self.store, &stream(id)).await
    }

    /// The keys of a job while it runs, for who submits it again (ARCP §7.2).
    #[must_use]
    pub fn of(&self, accepted: &Accepted) -> Vec<Credential> {
        let live = self.live();
        let live = live.get(&accepted.job_id).into_iter().flatten();
        let credential = |live: &Live| match live.meter {
            Some(_) => Some(self.own(accepted, &live.granted)),
            None => self.vault.kept(live.granted.id).map(|issued| shown(live.granted.id, issued)),
        };
        live.filter_map(credential).collect()
    }

    /// Lets no call of a job's keys go on, and says what of their parts of its budget was not spent.
    ///
    /// Nobody tells what is left of a key that is counted elsewhere, so all of its part is spent.
    #[must_use]
    pub fn close(&self, job_id: JobId) -> Budget {
        let mut left = Budget::new();
        for live in self.live().get(&job_id).into_iter().flatten() {
            for (currency, value) in live.meter.iter().flat_map(|meter| meter.close()) {
                let sum: &mut Decimal = left.entry(currency).or_default();
                *sum = sum.saturating_add(value);
            }
        }
        left
    }

    /// Revokes the keys of a job that has ended, or was not taken, in the background.
    pub fn end(self: &Arc<Self>, job_id: JobId) {
        let live = self.live().remove(&job_id).unwrap_or_default();
        for Live { granted: Granted { id, provisioner, .. }, meter } in live {
            let own = self.makers.get(&provisioner).is_some_and(Maker::is_own);
            if let (true, Some(gateway)) = (own, &self.gateway) {
                gateway.revoke(&id.to_string());
            }
            if let Some(meter) = &meter {
                let _ = meter.close(); // what it has left was asked before
            }
            let keeper = Arc::clone(self);
            tokio::spawn(async move {
                if let Some(meter) = meter {
                    meter.flushed().await;
                }
                keeper.revoke(job_id, id, &provisioner, own).await;
            });
        }
    }

    /// Revokes what earlier hosts left behind: the keys of all jobs but those that `is_running`.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn sweep(self: &Arc<Self>, is_running: impl Fn(JobId) -> bool) -> Result<(), StoreError> {
        for stream in streams(&*self.store).await? {
            let Some((id, Entry::Issued { job_id, provisioner, own, .. })) = self.first(&stream).await? else {
                continue;
            };
            if is_running(job_id) || self.live().contains_key(&job_id) {
                continue;
            }
            tracing::info!(%job_id, credential = %id, provisioner, "a key of a job that does not run is revoked");
            let keeper = Arc::clone(self);
            tokio::spawn(async move { keeper.revoke(job_id, id, &provisioner, own).await });
        }
        Ok(())
    }

    async fn first(&self, stream: &StreamId) -> Result<Option<(CredentialId, Entry)>, StoreError> {
        let Some(first) = self.store.read(stream, Position::ZERO, 1).await?.pop() else { return Ok(None) };
        let id = stream.as_str().strip_prefix(CREDENTIALS).and_then(|id| id.parse().ok());
        let known = id.zip(serde_json::from_slice(&first.bytes).ok());
        if known.is_none() {
            tracing::error!(%stream, "a credential cannot be read and is left alone");
        }
        Ok(known)
    }

    /// Makes a key worth nothing, however long that takes.
    async fn revoke(&self, job_id: JobId, id: CredentialId, provisioner: &str, own: bool) {
        let maker = self.makers.get(provisioner);
        let retry_max = maker.map_or(Duration::from_secs(600), |maker| maker.retry_max);
        let (mut pause, mut said) = (RETRY_MIN, None);
        loop {
            let why = match self.try_revoke(id, maker, own).await {
                Ok(()) => return tracing::info!(%job_id, credential = %id, provisioner, "a key was revoked"),
                Err(why) => why,
            };
            // Whoever reads warnings only now and then finds what has been so for long among the errors.
            match pause >= retry_max {
                true => tracing::error!(
                    %job_id, credential = %id, provisioner, why,
                    "a key cannot be revoked; revoke it by hand (`leasehold credentials` lists such keys)"
                ),
                false => tracing::warn!(%job_id, credential = %id, provisioner, why, "a key could not be revoked yet"),
            }
            if said.as_ref() != Some(&why) {
                self.note_failure(id, &why).await;
                said = Some(why);
            }
            tokio::select! {
                () = self.clock.sleep_until(self.clock.now().saturating_add(pause)) => {}
                // The next host goes on.
                () = self.stopping.cancelled() => return,
            }
            pause = (pause * 2).min(retry_max);
        }
    }

    async fn try_revoke(&self, id: CredentialId, maker: Option<&Maker>, own: bool) -> Result<(), String> {
        match maker.map(|maker| &maker.kind) {
            // No host lets a key in whose job does not run.
            _ if own => {}
            Some(MakerKind::Other(other)) => {
                let _place = self.revocations.acquire().await;
                other.revoke(&id.to_string()).await.map_err(|error| error.to_string())?;
            }
            Some(MakerKind::Own(_)) | None => return Err("who made it is not configured any more".to_owned()),
        }
        self.vault.forget(id);
        let gone = async {
            let last = journal::last(&*self.store, &stream(id)).await?;
            self.store.remove(&stream(id), last).await
        };
        gone.await.map_err(|error| format!("the host's store: {error}"))
    }

    async fn note_failure(&self, id: CredentialId, why: &str) {
        let noted = async {
            let last = journal::last(&*self.store, &stream(id)).await?;
            if last == Position::ZERO {
                return Ok(());
            }
            let entry = Entry::Failed { at: self.clock.now(), why: why.to_owned() };
            self.store.append(&stream(id), last, vec![entry.encode()]).await.map(drop)
        };
        if let Err(error) = noted.await {
            tracing::warn!(credential = %id, %error, "a failed revocation could not be written down");
        }
    }

    /// Tries nothing again any more: the host is about to stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    fn live(&self) -> MutexGuard<'_, HashMap<JobId, Vec<Live>>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maker {
    fn is_own(&self) -> bool {
        matches!(self.kind, MakerKind::Own(_))
    }
}

/// Says so if earlier hosts left keys behind and this one has nobody who could revoke them.
///
/// # Errors
///
/// If the store fails.
pub async fn warn_of_orphans(store: &dyn Store) -> Result<(), StoreError> {
    let left = streams(store).await?.len();
    if left > 0 {
        tracing::error!(
            left,
            "keys of jobs are outstanding and no [credentials.NAME] is configured that could revoke them; \
             `leasehold credentials` lists them"
        );
    }
    Ok(())
}

/// The credentials that a store knows of and that are not known to be worth nothing.
///
/// # Errors
///
/// If the store fails.
pub async fn outstanding(store: &dyn Store) -> Result<Vec<Outstanding>, StoreError> {
    let mut found = Vec::new();
    for stream in streams(store).await? {
        let id = stream.as_str().strip_prefix(CREDENTIALS).and_then(|id| id.parse().ok());
        let Some(id) = id else { continue };
        let mut known: Option<Outstanding> = None;
        for stored in read(store, &stream).await? {
            match (serde_json::from_slice(&stored.bytes), &mut known) {
                (Ok(Entry::Issued { at, job_id, provisioner, .. }), _) => {
                    known = Some(Outstanding { id, job_id, provisioner, issued_at: at, failed_at: None, why: None });
                }
                (Ok(Entry::Failed { at, why }), Some(known)) => {
                    (known.failed_at, known.why) = (Some(at), Some(why));
                }
                _ => {}
            }
        }
        found.extend(known);
    }
    Ok(found)
}

async fn streams(store: &dyn Store) -> Result<Vec<StreamId>, StoreError> {
    let mut found: Vec<StreamId> = Vec::new();
    loop {
        let page = store.streams(CREDENTIALS, found.last(), PAGE).await?;
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page.into_iter().map(|(stream, _)| stream));
    }
}

async fn read(store: &dyn Store, stream: &StreamId) -> Result<Vec<Stored>, StoreError> {
    let mut all = Vec::new();
    loop {
        let page = store.read(stream, end_of(&all), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn stream(id: CredentialId) -> StreamId {
    StreamId::new(&format!("{CREDENTIALS}{id}")).expect("a credential's id is a stream name")
}

/// Takes a key's part out of what is free; nothing of what cannot be divided exactly.
fn part(ledger: &mut Ledger, budget: &Budget, percent: u32) -> Budget {
    let percent = Decimal::new(percent.into(), 2);
    let part_of = |value: &Decimal| value.checked_mul(percent).map(|part| part.normalize());
    let mut parts = Budget::new();
    for (currency, value) in budget {
        let part = part_of(value).filter(|part| {
            let alone = Budget::from([(currency.clone(), *part)]);
            Amount::new(currency.clone(), *part).is_ok() && ledger.carve_out(&alone).is_ok()
        });
        parts.insert(currency.clone(), part.unwrap_or_default());
    }
    parts
}

fn facts(accepted: &Accepted, granted: &Granted) -> JobFacts {
    JobFacts {
        job_id: accepted.job_id,
        principal: accepted.principal.clone(),
        models: accepted.authority.lease.patterns(&Namespace::ModelUse).to_vec(),
        budget: granted.budget.clone(),
        expires_at: accepted.authority.expires_at,
    }
}

fn shown(id: CredentialId, issued: Issued) -> Credential {
    let Issued { scheme, value, endpoint, profile, constraints } = issued;
    Credential { id, scheme, value, endpoint, profile, constraints }
}
