//! What makes a journal evidence: its records hang on a chain, and the host signs the chain now and then.
//!
//! Each link is made of the link before and the digest of one record, so a record that was changed, left out, put in or
//! moved changes every link after it. A *seal* is the host's signature under a link. It stands as the last member of the
//! record that the link was made of, and is no part of it: whoever reads records passes over it, and what a client is
//! told, what a replay is held against and where a job stands are the same with and without.
//!
//! The end of a job is sealed, and so is a stop of its host in good order, and one of every so many records. Links are
//! kept in memory and stand nowhere: from the records follows the chain, and from the seals whether it is still the same.
//! When a host takes up what another one left, it makes the chain anew while the job's past is read anyway.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use bytes::Bytes;
use leasehold_core::id::JobId;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The file of a data folder that holds the host's key.
pub const KEY_FILE: &str = "audit.key";

/// How the text of a public key begins.
const PUBLIC_KEY: &str = "ed25519:";

/// What a seal is made of besides its three values, so that it is written in one way only.
const MEMBER: &str = ",\"seal\":";

/// A host's signature under a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Which key.
    pub key: KeyId,
    /// The link, in hexadecimal digits.
    pub hash: String,
    /// Ed25519 over `statement`, in hexadecimal digits.
    pub signature: String,
}

/// What is signed: other words for each purpose, so that a signature for one is none for another.
fn statement(purpose: Purpose, job_id: JobId, records: u64, hash: &str) -> String {
    let purpose = match purpose {
        Purpose::Seal => "seal",
        Purpose::Export => "export",
    };
    format!("leasehold {purpose} 1\n{job_id}\n{records}\n{hash}\n")
}

/// What a signature says of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// These are the records that the host wrote.
    Seal,
    /// These are the records that its store held when they were exported, and no more.
    Export,
}

/// The chain of one job's records, up to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    job_id: JobId,
    link: [u8; 32],
    records: u64,
}

impl Chain {
    /// The chain of a job without a record. It begins with the job, so no part of it fits another's.
    #[must_use]
    pub fn new(job_id: JobId) -> Self {
        let link = Sha256::digest(format!("leasehold journal 1\n{job_id}\n")).into();
        Self { job_id, link, records: 0 }
    }

    /// Adds the next record, by its digest.
    pub fn add(&mut self, digest: [u8; 32]) {
        self.link = Sha256::new().chain_update(self.link).chain_update(digest).finalize().into();
        self.records += 1;
    }

    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The newest link, in hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        hexadecimal(&self.link)
    }

    /// Whether a seal is the one that a key's owner put under the newest link.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, purpose: Purpose, seal: &Seal, key: &PublicKey) -> Result<(), &'static str> {
        if seal.hash != self.hash() {
            return Err("it was put under other records");
        }
        let statement = statement(purpose, self.job_id, self.records, &seal.hash);
        let signature = octets(&seal.signature).ok_or("its signature is no signature")?;
        let key = UnparsedPublicKey::new(&ED25519, key.0);
        key.verify(statement.as_bytes(), &signature).map_err(|_| "its signature is not that key's")
    }
}

/// A record as it is stored, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The digest of the record without its seal.
    pub digest: [u8; 32],
    /// Its seal, if it has one.
    pub seal: Option<Seal>,
}

/// Takes a stored record and its seal apart.
///
/// # Errors
///
/// If it has a seal that no host writes like that.
pub fn take_apart(stored: &[u8]) -> Result<Taken, String> {
    #[derive(Deserialize)]
    struct Sealed {
        seal: Option<Seal>,
    }
    let whole = || Taken { digest: Sha256::digest(stored).into(), seal: None };
    // A seal ends like this, and few records do that have none: `}` of the seal, `}` of the record.
    if !stored.ends_with(b"\"}}") {
        return Ok(whole());
    }
    let sealed: Sealed = serde_json::from_slice(stored).map_err(|error| format!("its seal cannot be read: {error}"))?;
    let Some(seal) = sealed.seal else { return Ok(whole()) };
    let record = stored.strip_suffix(seal.suffix().as_bytes()).ok_or("its seal is not written as hosts write it")?;
    let digest = Sha256::new().chain_update(record).chain_update(b"}").finalize().into();
    Ok(Taken { digest, seal: Some(seal) })
}

impl Seal {
    /// What a record ends with that has this seal.
    fn suffix(&self) -> String {
        let seal = serde_json::to_string(self).expect("a seal is JSON");
        format!("{MEMBER}{seal}}}")
    }

    /// Puts the seal on a record.
    fn put_on(&self, mut record: Vec<u8>) -> Vec<u8> {
        // A record is an object.
        record.pop();
        record.extend_from_slice(self.suffix().as_bytes());
        record
    }
}

/// The chain of a journal that is being written, and what seals it.
#[derive(Debug)]
pub struct Seals {
    sealer: Arc<Sealer>,
    chain: Chain,
    /// How many records come after the last seal.
    unsealed: u64,
    /// What was appended while the past is not known: digests, and at the end of the past they are added.
    waiting: Option<Vec<[u8; 32]>>,
    /// Whether something is in the journal that its host did not write.
    broken: bool,
}

impl Seals {
    /// Begins with a journal that is empty, or of which nothing is known yet.
    #[must_use]
    pub fn new(sealer: Arc<Sealer>, job_id: JobId, is_empty: bool) -> Self {
        let waiting = (!is_empty).then(Vec::new);
        Self { sealer, chain: Chain::new(job_id), unsealed: 0, waiting, broken: false }
    }

    /// Adds the next record of the past. A host signs nothing in which it finds what no host wrote.
    pub fn learn(&mut self, stored: &[u8]) {
        let taken = take_apart(stored).and_then(|Taken { digest, seal }| {
            self.chain.add(digest);
            self.unsealed += 1;
            let Some(seal) = seal else { return Ok(()) };
            self.unsealed = 0;
            // What another host's key has signed is for whoever has that key to judge.
            let own = self.sealer.key.public();
            if seal.key != own.id() {
                return Ok(());
            }
            Ok(self.chain.check(Purpose::Seal, &seal, &own)?)
        });
        if let Err(error) = taken
            && !std::mem::replace(&mut self.broken, true)
        {
            let (job_id, record) = (self.chain.job_id, self.chain.records);
            tracing::error!(%job_id, record, error, "a journal was altered, and is not sealed any more");
        }
    }

    /// Takes note that all of the past is known.
    pub fn learned(&mut self) {
        for digest in self.waiting.take().into_iter().flatten() {
            self.chain.add(digest);
            self.unsealed += 1;
        }
    }

    /// Adds a record that is about to be stored, and gives what to store: the record, and a seal if it is time for one.
    #[must_use]
    pub fn add(&mut self, record: Vec<u8>, closes: bool) -> Bytes {
        let digest = Sha256::digest(&record).into();
        if let Some(waiting) = &mut self.waiting {
            waiting.push(digest);
            return record.into();
        }
        self.chain.add(digest);
        self.unsealed += 1;
        if self.broken || !(closes || self.unsealed >= self.sealer.records_max) {
            return record.into();
        }
        self.unsealed = 0;
        self.sealer.key.sign(Purpose::Seal, &self.chain).put_on(record).into()
    }
}

/// What seals the journals of a host.
#[derive(Debug)]
pub struct Sealer {
    /// Its key.
    pub key: SigningKey,
    /// How many records may follow one another without a seal.
    pub records_max: u64,
}

/// The key a host signs with.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// Why there is no key. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} holds no key (64 hexadecimal digits); put back the one of this host, or move it away for a new one",
        _0.display()
    )]
    NoKey(PathBuf),
}

impl SigningKey {
    /// Makes a key of 32 bytes that nobody else knows.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a key"))
    }

    /// Reads the key of a data folder.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn load(data: &Path) -> Result<Self, KeyError> {
        let path = data.join(KEY_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return Err(KeyError::Io { path, error }),
        };
        let seed = octets(text.trim()).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        seed.map(|seed| Self::from_seed(&seed)).ok_or(KeyError::NoKey(path))
    }

    /// Reads the key of a data folder, and makes one there if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be read or made.
    pub fn load_or_make(data: &Path) -> Result<Self, KeyError> {
        let path = data.join(KEY_FILE);
        match Self::load(data) {
            Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            loaded => {
                let mode = fs::metadata(&path).map_or(0, |file| file.permissions().mode());
                if mode & 0o077 != 0 {
                    let mode = format!("{:o}", mode & 0o777);
                    tracing::warn!(file = %path.display(), mode, "other users can read the key that signs journals");
                }
                return loaded;
            }
        }
        let make = || -> io::Result<()> {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            // It is there as a whole or not at all, and for this user alone, as temporary files are.
            let mut file = tempfile::NamedTempFile::new_in(data)?;
            writeln!(file, "{}", hexadecimal(&seed))?;
            file.as_file().sync_all()?;
            match file.persist_noclobber(&path) {
                // Somebody else was first, and then it is that one's.
                Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
                _ => Ok(()),
            }
        };
        make().map_err(|error| KeyError::Io { path, error })?;
        Self::load(data)
    }

    /// What others need to know its signatures by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().expect("a public key has 32 bytes"))
    }

    /// Signs the newest link of a chain.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, chain: &Chain) -> Seal {
        let hash = chain.hash();
        let statement = statement(purpose, chain.job_id, chain.records, &hash);
        let signature = hexadecimal(self.0.sign(statement.as_bytes()).as_ref());
        Seal { key: self.public().id(), hash, signature }
    }
}

/// The key that seals are checked with, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A short name for it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(hexadecimal(&Sha256::digest(self.0)[..8]))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_KEY}{}", hexadecimal(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim().strip_prefix(PUBLIC_KEY).and_then(octets);
        let key = digits.and_then(|key| key.try_into().ok()).map(Self);
        key.ok_or("a public key is written `ed25519:` and 64 hexadecimal digits; `leasehold audit key` prints it")
    }
}

/// The first 16 hexadecimal digits of a public key's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// What [`hexadecimal`] wrote, and in no other spelling.
fn octets(digits: &str) -> Option<Vec<u8>> {
    let spelled = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let even = digits.len().is_multiple_of(2);
    (spelled && even).then(|| digits.as_bytes().chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use leasehold_core::{
        id::Ulid,
        job::record::{Answer, Called, Outcome, Record},
        protocol::json::Json,
        time::Timestamp,
    };

    use super::*;

    fn job(n: u128) -> JobId {
        JobId::new(Ulid::from_parts(0, n))
    }

    fn sealer(seed: u8, records_max: u64) -> Arc<Sealer> {
        Arc::new(Sealer { key: SigningKey::from_seed(&[seed; 32]), records_max })
    }

    fn record(millis: i64) -> Vec<u8> {
        Record::Started { at: Timestamp::from_millis(millis) }.encode()
    }

    /// What a journal stores of `n` records, the last of which closes it.
    fn written(seals: &mut Seals, n: i64) -> Vec<Bytes> {
        (0..n).map(|millis| seals.add(record(millis), millis + 1 == n)).collect()
    }

    #[test]
    fn a_seal_comes_with_every_so_many_records_and_with_the_last() {
        let mut seals = Seals::new(sealer(1, 4), job(1), true);
        let stored = written(&mut seals, 10);
        let sealed = stored.iter().map(|stored| take_apart(stored).unwrap().seal.is_some());
        assert_eq!(sealed.collect::<Vec<_>>(), [false, false, false, true, false, false, false, true, false, true]);
    }

    #[test]
    fn a_seal_is_no_part_of_its_record() {
        let mut seals = Seals::new(sealer(1, 1), job(1), true);
        let stored = seals.add(record(1), false);
        assert_ne!(stored, record(1));
        assert_eq!(Record::decode(&stored).unwrap().encode(), record(1));
        assert_eq!(take_apart(&stored).unwrap().digest, take_apart(&record(1)).unwrap().digest);
    }

    #[test]
    fn whoever_takes_a_journal_up_goes_on_with_its_chain() {
        let sealer = sealer(1, 3);
        let mut alone = Seals::new(Arc::clone(&sealer), job(1), true);
        let all = written(&mut alone, 9);
        for left in 0..8 {
            // The next host appends before it has read what the last one left, too.
            for before in 0..3 {
                let mut next = Seals::new(Arc::clone(&sealer), job(1), false);
                let early: Vec<Bytes> = (left..left + before).map(|n| next.add(record(n), false)).collect();
                let past = &all[..usize::try_from(left).unwrap()];
                past.iter().for_each(|stored| next.learn(stored));
                next.learned();
                let stored: Vec<Bytes> = (left + before..9).map(|n| next.add(record(n), n >= 8)).collect();
                let whole: Vec<&Bytes> = past.iter().chain(&early).chain(&stored).collect();
                let mut chain = Chain::new(job(1));
                for stored in &whole {
                    let taken = take_apart(stored).unwrap();
                    chain.add(taken.digest);
                    if let Some(seal) = taken.seal {
                        chain.check(Purpose::Seal, &seal, &sealer.key.public()).unwrap();
                    }
                }
                assert_eq!(chain, alone.chain, "{left} {before}");
                assert!(left + before > 8 || take_apart(whole[8]).unwrap().seal.is_some(), "{left} {before}");
            }
        }
    }

    #[test]
    fn a_host_signs_no_journal_in_which_it_finds_what_no_host_wrote() {
        let sealer = sealer(1, 2);
        let mut stored = written(&mut Seals::new(Arc::clone(&sealer), job(1), true), 4);
        stored[0] = record(77).into();
        let mut next = Seals::new(sealer, job(1), false);
        stored.iter().for_each(|stored| next.learn(stored));
        next.learned();
        assert!(take_apart(&next.add(record(5), true)).unwrap().seal.is_none());
    }

    #[test]
    fn a_seal_holds_for_its_job_its_records_its_purpose_and_its_key() {
        let sealer = sealer(1, 1);
        let chain = |job_id, records: &[i64]| {
            let mut chain = Chain::new(job_id);
            records.iter().for_each(|n| chain.add(take_apart(&record(*n)).unwrap().digest));
            chain
        };
        let sealed = chain(job(1), &[1, 2]);
        let seal = sealer.key.sign(Purpose::Seal, &sealed);
        let (own, other) = (sealer.key.public(), SigningKey::from_seed(&[2; 32]).public());
        let altered = |change: &dyn Fn(&mut Seal)| {
            let mut altered = seal.clone();
            change(&mut altered);
            altered
        };
        for (what, chain, purpose, seal, key, fits) in [
            ("the same", &sealed, Purpose::Seal, seal.clone(), &own, true),
            ("another job", &chain(job(2), &[1, 2]), Purpose::Seal, seal.clone(), &own, false),
            ("fewer records", &chain(job(1), &[1]), Purpose::Seal, seal.clone(), &own, false),
            ("more records", &chain(job(1), &[1, 2, 3]), Purpose::Seal, seal.clone(), &own, false),
            ("another order", &chain(job(1), &[2, 1]), Purpose::Seal, seal.clone(), &own, false),
            ("another purpose", &sealed, Purpose::Export, seal.clone(), &own, false),
            ("another key", &sealed, Purpose::Seal, seal.clone(), &other, false),
            ("no signature", &sealed, Purpose::Seal, altered(&|seal| seal.signature.clear()), &own, false),
            (
                "another signature",
                &sealed,
                Purpose::Seal,
                altered(&|seal| seal.signature.replace_range(..2, "ff")),
                &own,
                false,
            ),
        ] {
            assert_eq!(chain.check(purpose, &seal, key).is_ok(), fits, "{what}");
        }
    }

    /// What an agent is told may be anything, a seal among it.
    #[test]
    fn what_an_agent_says_is_never_taken_for_a_seal() {
        let seal = sealer(1, 1).key.sign(Purpose::Seal, &Chain::new(job(1)));
        let said = format!("{{\"x\":1{}", seal.suffix());
        for text in [said.clone(), serde_json::to_string(&said).unwrap(), serde_json::to_string(&seal).unwrap()] {
            let answer = Some(Answer::Json(Json::parse(text.clone()).unwrap()));
            let outcome = Outcome::Done { summary: Json::parse(text.clone()).unwrap(), answer };
            let (at, args) = (Timestamp::from_millis(0), Json::parse(text).unwrap());
            let called = Record::Called(Called { at, call: 1, operation: "fs.read".into(), args, outcome });
            assert!(take_apart(&called.encode()).unwrap().seal.is_none());
        }
    }

    #[test]
    fn a_seal_is_written_in_one_way_only() {
        let stored = Seals::new(sealer(1, 1), job(1), true).add(record(1), true);
        let stored = String::from_utf8(stored.to_vec()).unwrap();
        assert!(take_apart(stored.as_bytes()).unwrap().seal.is_some());
        for (what, altered) in [
            ("a blank", stored.replace(",\"seal\":{", ",\"seal\": {")),
            ("one member more", stored.replace("\"hash\"", "\"x\":1,\"hash\"")),
            ("two seals", format!("{}{}", &stored[..stored.len() - 1], &stored[stored.find(",\"seal\"").unwrap()..])),
            ("before the body", {
                let at = stored.find(",\"seal\"").unwrap();
                let (record, seal) = (&stored[..at], &stored[at + 1..stored.len() - 1]);
                format!("{{{seal},{},\"x\":{{\"y\":\"\"}}}}", &record[1..])
            }),
        ] {
            assert!(take_apart(altered.as_bytes()).is_err(), "{what}: {altered}");
        }
    }

    #[test]
    fn a_data_folder_has_one_key_which_only_its_user_can_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(SigningKey::load(dir.path()).is_err());
        let made = SigningKey::load_or_make(dir.path()).unwrap().public();
        assert_eq!(SigningKey::load_or_make(dir.path()).unwrap().public(), made);
        assert_eq!(SigningKey::load(dir.path()).unwrap().public(), made);
        let file = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.to_string().parse(), Ok(made));
        fs::write(file, "no key\n").unwrap();
        assert!(SigningKey::load_or_make(dir.path()).unwrap_err().to_string().contains("holds no key"));
    }

    #[test]
    fn a_public_key_has_one_spelling() {
        let key = SigningKey::from_seed(&[1; 32]).public().to_string();
        for (text, is_key) in [
            (key.clone(), true),
            (format!("{key}\n"), true),
            (key[8..].to_owned(), false),
            (key.to_uppercase(), false),
            (key[..70].to_owned(), false),
            (format!("{key}00"), false),
        ] {
            assert_eq!(text.parse::<PublicKey>().is_ok(), is_key, "{text}");
        }
    }
}
