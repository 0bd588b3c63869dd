//! The keys of running jobs: made before the acceptance, revoked after the end, whatever comes between (ARCP §9.8.2).
//!
//! Each credential has a stream of its own in the store. It begins before the
//! key is made and goes when the key is certain to be worth nothing, so the
//! streams that are there are the credentials that are outstanding: a start
//! finds in them what the host before it left behind, without reading any job.
//! The keys that a credential has one after the other stand in one stream
//! (`rotation.rs`).
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
    secret::Secret,
    time::Timestamp,
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Issued, JobFacts, KeyId, ProvisionError, Provisioner,
    meter::{Entry, JobMeter, end_of},
    provisioner,
    rotation::{Rotation, final_spend},
    settings::{CredentialEntry, Kind},
    turns::{Plan, Turns, add},
    vault::Vault,
};
use crate::{
    capability::models::Models,
    clock::{self, Clock},
    gateway::{Gateway, GatewaySettings, Meter},
    journal::{self, Journal},
    store::{Position, Store, StoreError, Stored, StreamId},
    writer::Writer,
};

/// The streams of credentials begin with this.
pub const CREDENTIALS: &str = "credential/";

/// How long a revocation that has failed waits at first.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(1);

/// How long the end of a job waits for who makes its keys.
const CLOSE_MAX: Duration = Duration::from_secs(5);

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
    plan: Plan,
    kind: MakerKind,
}

enum MakerKind {
    /// The host's own endpoint, and where it is if the operator has said so.
    Own(Option<String>),
    Other(Box<dyn Provisioner>),
}

/// A credential of a job that runs or is about to.
struct Live {
    granted: Granted,
    /// The turn of its newest key.
    newest: u32,
    /// What writes its stream, once the job has begun.
    writer: Option<Arc<Writer>>,
    /// What counts what its keys spend, if that is the host.
    meter: Option<Arc<JobMeter>>,
    /// What rotates them, if anything does, and what ends that.
    rotating: Option<JoinHandle<()>>,
    over: CancellationToken,
}

impl Live {
    fn new(granted: &Granted, newest: u32) -> Self {
        let over = CancellationToken::new();
        Self { granted: granted.clone(), newest, writer: None, meter: None, rotating: None, over }
    }

    fn key(&self) -> KeyId {
        KeyId { credential: self.granted.id, turn: self.newest }
    }
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
            let sec = |sec: u32| Duration::from_secs(sec.into());
            let retry_max = sec(entry.revoke_retry_sec_max.max(1));
            let (grace, settles) = (sec(entry.rotate_grace_sec), sec(entry.spend_settles_sec));
            let plan = Plan { after: entry.rotate_after_sec.map(sec), grace, settles };
            makers.insert(name.clone(), Maker { budget_percent: entry.budget_percent, retry_max, plan, kind });
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
        let live = accepted.credentials.iter().map(|granted| Live::new(granted, 1));
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
        let entry = self.issued(accepted, granted).encode();
        self.store.append(&stream(granted.id), Position::ZERO, vec![entry]).await.map(drop)
    }

    /// The first record of a credential.
    fn issued(&self, accepted: &Accepted, granted: &Granted) -> Entry {
        let own = self.makers.get(&granted.provisioner).is_some_and(Maker::is_own);
        let (provisioner, vault) = (granted.provisioner.clone(), own.then(|| self.vault.name()));
        Entry::Issued { at: accepted.at, job_id: accepted.job_id, provisioner, own, vault }
    }

    /// What the keys of a credential may spend that somebody else counts.
    fn counted_elsewhere(&self, granted: &Granted) -> Budget {
        let own = self.makers.get(&granted.provisioner).is_some_and(Maker::is_own);
        if own { Budget::new() } else { granted.budget.clone() }
    }

    async fn make(&self, accepted: &Accepted, granted: &Granted) -> Result<Credential, Refusal> {
        let Granted { id, provisioner, .. } = granted;
        let made = match self.makers.get(provisioner).map(|maker| &maker.kind) {
            Some(MakerKind::Other(other)) => {
                other.issue(self.clock.now(), &id.to_string(), &facts(accepted, granted)).await
            }
            Some(MakerKind::Own(_)) => return Ok(self.own(accepted, granted, 1)),
            None => Err(ProvisionError::Refused("it is not configured".to_owned())),
        };
        let kept = made.and_then(|issued| {
            let kept = self.vault.keep(KeyId { credential: *id, turn: 1 }, &issued);
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
    fn own(&self, accepted: &Accepted, granted: &Granted, turn: u32) -> Credential {
        let endpoint = match self.makers.get(&granted.provisioner).map(|maker| &maker.kind) {
            Some(MakerKind::Own(Some(endpoint))) => endpoint.clone(),
            _ => format!("http://{}/v1", self.listens.get().unwrap_or(&self.listen)),
        };
        Credential {
            id: granted.id,
            scheme: BEARER.to_owned(),
            value: self.vault.derive(KeyId { credential: granted.id, turn }),
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
    pub fn admit(self: &Arc<Self>, accepted: &Accepted, journal: &Arc<Journal>) {
        for granted in &accepted.credentials {
            // The record that the key was issued stands there, and nothing else.
            let mut turns = Turns::new(&self.counted_elsewhere(granted));
            turns.take(&self.issued(accepted, granted));
            self.open(accepted, granted, journal, (Position::new(1), &[]), turns);
        }
    }

    /// Lets the keys of a credential in, and begins to rotate them.
    fn open(
        self: &Arc<Self>,
        accepted: &Accepted,
        granted: &Granted,
        journal: &Arc<Journal>,
        (last, past): (Position, &[Stored]),
        turns: Turns,
    ) {
        let Some(maker) = self.makers.get(&granted.provisioner) else { return };
        let writer = Writer::new(Arc::clone(&self.store), stream(granted.id), last);
        let meter = maker.is_own().then(|| {
            let context = (self.clock.clone(), Arc::clone(&writer), Arc::clone(journal));
            Arc::new(JobMeter::new(accepted, granted, context, past))
        });
        let newest = KeyId { credential: granted.id, turn: turns.newest() };
        for (turn, _) in turns.keys().filter(|(turn, _)| !turns.is_stray(*turn)) {
            meter.iter().for_each(|meter| self.let_in(KeyId { turn, ..newest }, meter));
        }
        let is_lost = match maker.is_own() {
            // One from before hosts wrote that down follows from this one's, as far as is known.
            true => turns.vault().is_some_and(|vault| vault != self.vault.name()),
            false => self.vault.kept(newest).is_none(),
        };
        let mut all = self.live();
        let live = all.get_mut(&accepted.job_id).into_iter().flatten().find(|live| live.granted.id == granted.id);
        let Some(live) = live else { return };
        (live.newest, live.writer, live.meter) = (newest.turn, Some(Arc::clone(&writer)), meter.clone());
        let rotation = Rotation {
            keeper: Arc::clone(self),
            id: granted.id,
            provisioner: granted.provisioner.clone(),
            facts: facts(accepted, granted),
            journal: Arc::clone(journal),
            writer,
            meter,
            turns,
            plan: maker.plan,
            retry_max: maker.retry_max,
            is_lost,
            over: live.over.clone(),
        };
        if rotation.is_needed() {
            live.rotating = Some(tokio::spawn(rotation.run()));
        }
    }

    /// Takes up the keys of a job that an earlier host began, with what they have spent.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn take_up(self: &Arc<Self>, accepted: &Accepted, journal: &Arc<Journal>) -> Result<(), StoreError> {
        let mut pasts = Vec::new();
        for granted in &accepted.credentials {
            let past = self.read(granted.id).await?;
            // One without a stream was revoked.
            if past.is_empty() {
                continue;
            }
            pasts.push((granted, past));
        }
        let live = pasts.iter().map(|(granted, _)| Live::new(granted, 1)).collect();
        self.live().insert(accepted.job_id, live);
        for (granted, past) in pasts {
            match self.makers.get(&granted.provisioner) {
                Some(_) => {
                    let part = self.counted_elsewhere(granted);
                    let turns = Turns::read(&part, past.iter().map(|stored| &stored.bytes[..]));
                    self.open(accepted, granted, journal, (end_of(&past), &past), turns);
                }
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
            Some(_) => Some(self.own(accepted, &live.granted, live.newest)),
            None => self.vault.kept(live.key()).map(|issued| shown(live.granted.id, issued)),
        };
        live.filter_map(credential).collect()
    }

    /// The newest value of a key, for who was told that there is a new one; none once its job has ended (ARCP §9.8.2).
    #[must_use]
    pub fn value(&self, job_id: JobId, id: CredentialId) -> Option<Secret> {
        let live = self.live();
        let live = live.get(&job_id)?.iter().find(|live| live.granted.id == id)?;
        match live.meter {
            Some(_) => Some(self.vault.derive(live.key())),
            None => self.vault.kept(live.key()).map(|issued| issued.value),
        }
    }

    /// Lets no call of a job's keys go on as far as they are the host's, and says what of their parts of its budget was
    /// not spent. Whoever counts what others' keys spend is asked; if that is not told, or not soon, all of their part is
    /// spent.
    pub async fn close(&self, job_id: JobId) -> Budget {
        let (mut left, mut rotating, mut others) = (Budget::new(), Vec::new(), Vec::new());
        for live in self.live().get_mut(&job_id).into_iter().flatten() {
            live.over.cancel();
            rotating.extend(live.rotating.take().map(|step| (live.granted.id, step)));
            match &live.meter {
                Some(meter) => add(&mut left, &meter.close()),
                None if live.granted.budget.is_empty() => {}
                None => others.push(live.granted.clone()),
            }
        }
        // The end of the job waits for this.
        let patience = self.clock.now().saturating_add(CLOSE_MAX);
        let mut under_way = Vec::new();
        for (id, mut step) in rotating {
            tokio::select! {
                biased;
                _ = &mut step => {}
                () = self.clock.sleep_until(patience) => under_way.push((id, step)),
            }
        }
        let asked = async {
            for unspent in join_all(others.iter().map(|granted| self.unspent(granted))).await {
                add(&mut left, &unspent);
            }
        };
        tokio::select! {
            biased;
            () = asked => {}
            () = self.clock.sleep_until(patience) => {
                tracing::warn!(%job_id, "who makes a job's keys does not say in time what they have spent, so all they could \
                                         counts as spent");
            }
        }
        // Whoever revokes the keys waits for what may still make one.
        for live in self.live().get_mut(&job_id).into_iter().flatten() {
            let of_it = under_way.iter().position(|(id, _)| *id == live.granted.id);
            live.rotating = of_it.map(|at| under_way.swap_remove(at).1);
        }
        left
    }

    /// What the keys of a credential have not spent that is counted elsewhere.
    async fn unspent(&self, granted: &Granted) -> Budget {
        let Some(MakerKind::Other(other)) = self.makers.get(&granted.provisioner).map(|maker| &maker.kind) else {
            return Budget::new();
        };
        let Ok(past) = self.read(granted.id).await else { return Budget::new() };
        let turns = Turns::read(&granted.budget, past.iter().map(|stored| &stored.bytes[..]));
        let mut spent = BTreeMap::new();
        for (turn, bound) in turns.keys() {
            spent.insert(turn, final_spend(&**other, KeyId { credential: granted.id, turn }, bound).await);
        }
        turns.left(|turn| spent.get(&turn).cloned().flatten())
    }

    /// Revokes the keys of a job that has ended, or was not taken, in the background.
    pub fn end(self: &Arc<Self>, job_id: JobId) {
        let live = self.live().remove(&job_id).unwrap_or_default();
        for live in live {
            let Granted { id, provisioner, .. } = live.granted.clone();
            let own = self.makers.get(&provisioner).is_some_and(Maker::is_own);
            live.over.cancel();
            if let Some(meter) = &live.meter {
                let _ = meter.close(); // what it has left was asked before
            }
            let (newest, writer, rotating) = (live.key(), live.writer, live.rotating);
            self.shut_out(newest);
            let keeper = Arc::clone(self);
            tokio::spawn(async move {
                if let Some(rotating) = rotating
                    && rotating.await.is_err()
                {
                    tracing::error!(%job_id, credential = %id, "what rotates a key panicked");
                }
                // It may have let in one more meanwhile.
                keeper.shut_out(newest);
                if let Some(writer) = writer {
                    // A store that has failed has nothing on its way.
                    let _ = writer.flushed().await;
                }
                keeper.revoke(job_id, id, &provisioner, own).await;
            });
        }
    }

    /// Lets a key of the host's own endpoint in.
    pub(super) fn let_in(&self, key: KeyId, meter: &Arc<JobMeter>) {
        if let Some(gateway) = &self.gateway {
            gateway.admit(&key.to_string(), &self.vault.derive(key), Arc::clone(meter) as Arc<dyn Meter>);
        }
    }

    /// Lets no key of a credential in, up to the one after this.
    fn shut_out(&self, newest: KeyId) {
        let Some(gateway) = &self.gateway else { return };
        for turn in 1..=newest.turn + 1 {
            gateway.revoke(&KeyId { turn, ..newest }.to_string());
        }
    }

    /// Forgets a key that is worth nothing any more.
    pub(super) fn forget(&self, key: KeyId) {
        if let Some(gateway) = &self.gateway {
            gateway.revoke(&key.to_string());
        }
        self.vault.forget(key);
    }

    /// Notes which key of a credential its client is told of.
    pub(super) fn newest_is(&self, job_id: JobId, key: KeyId) {
        let mut live = self.live();
        let live = live.get_mut(&job_id).into_iter().flatten();
        live.filter(|live| live.granted.id == key.credential).for_each(|live| live.newest = key.turn);
    }

    /// Cancelled when the host is about to stop.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Who makes keys under this name; nobody else if it is the host.
    pub(super) fn provisioner(&self, name: &str) -> Result<Option<&dyn Provisioner>, &'static str> {
        match self.makers.get(name).map(|maker| &maker.kind) {
            Some(MakerKind::Own(_)) => Ok(None),
            Some(MakerKind::Other(other)) => Ok(Some(&**other)),
            None => Err("who made it is not configured any more"),
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
                let past = self.read(id).await.map_err(|error| format!("the host's store: {error}"))?;
                let turns = Turns::read(&Budget::new(), past.iter().map(|stored| &stored.bytes[..]));
                for (turn, _) in turns.keys() {
                    let key = KeyId { credential: id, turn };
                    other.revoke(&key.to_string()).await.map_err(|error| error.to_string())?;
                    self.vault.forget(key);
                }
            }
            Some(MakerKind::Own(_)) | None => return Err("who made it is not configured any more".to_owned()),
        }
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
        let live = self.live();
        live.values().flatten().filter_map(|live| live.meter.as_ref()).for_each(|meter| meter.flush());
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
                // That was one of its keys, and it is revoked by now.
                (Ok(Entry::Retired { .. }), Some(known)) => (known.failed_at, known.why) = (None, None),
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
