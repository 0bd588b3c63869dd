//! A job's journal as evidence: a file that says what a job did, and the check that it is what its host wrote.
//!
//! The file has a line for itself, one for each record with the link of the chain after it ([`crate::seal`]), and one
//! that closes it. Records stand in it as the store has them, to the byte, with the seals in them. The closing line is
//! signed when the file is made, so that a file that was cut off is none. Each line can be written in one way only,
//! so there is nothing in the file that could be changed unseen.
//!
//! The check needs the file and the host's public key, and neither a host nor a store.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Read as _, Write},
};

use leasehold_core::{
    error::ErrorCode,
    id::JobId,
    job::{
        key_calls::{self, Decision},
        record::{Accepted, Called, Concluded, Outcome, Record},
    },
    time::Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    journal,
    seal::{Chain, KeyId, PublicKey, Purpose, Seal, SigningKey, Taken, take_apart},
    store::{APPEND_BYTES_MAX, Position, Store},
};

/// The version of the format.
const VERSION: u32 = 1;

/// How many records are read at once.
const PAGE: usize = 256;

/// The longest line there is: the largest record, of which each byte may need two, and its numbers.
const LINE_BYTES_MAX: u64 = 2 * APPEND_BYTES_MAX as u64 + 4096;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    leasehold_audit: u32,
    job_id: JobId,
}

/// One record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Counted from 1.
    n: u64,
    /// The link after it, in hexadecimal digits.
    hash: String,
    /// As it is stored, its seal included.
    record: String,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    records: u64,
    /// Which records have a seal.
    seals: Vec<u64>,
    export: Seal,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store has no such job.
    #[error("there is no job {0} in this store")]
    NoJob(JobId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A record is damaged.
    #[error("record {n} of {job_id} cannot be exported: {why}")]
    Damaged {
        /// Whose.
        job_id: JobId,
        /// Which, from 1.
        n: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Writes what the store has of a job, and says how many records that is.
///
/// # Errors
///
/// If there is no such job, or it cannot be read or written.
pub async fn export(
    store: &dyn Store,
    job_id: JobId,
    key: &SigningKey,
    out: &mut (dyn Write + Send),
) -> Result<u64, ExportError> {
    let stream = journal::stream(job_id);
    let (mut chain, mut seals, mut after) = (Chain::new(job_id), Vec::new(), Position::ZERO);
    loop {
        let page = store.read(&stream, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        if after == Position::ZERO {
            write_line(out, &Head { leasehold_audit: VERSION, job_id })?;
        }
        after = last.position;
        for stored in &page {
            let n = chain.records() + 1;
            let damaged = |why| ExportError::Damaged { job_id, n, why };
            let record = std::str::from_utf8(&stored.bytes).map_err(|error| damaged(error.to_string()))?;
            let Taken { digest, seal } = take_apart(&stored.bytes).map_err(damaged)?;
            chain.add(digest);
            seals.extend(seal.map(|_| n));
            write_line(out, &Line { n, hash: chain.hash(), record: record.to_owned() })?;
        }
    }
    if after == Position::ZERO {
        return Err(ExportError::NoJob(job_id));
    }
    let export = key.sign(Purpose::Export, &chain);
    write_line(out, &Close { records: chain.records(), seals, export })?;
    Ok(chain.records())
}

fn write_line(out: &mut dyn Write, line: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(line).expect("a line is JSON"))
}

/// What a file proves.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Of which job.
    pub job_id: JobId,
    /// Whose it is.
    pub principal: String,
    /// What it runs, `name@version`.
    pub agent: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// How many records there are.
    pub records: u64,
    /// How many of them the host has sealed. The others are what its store held when the file was made.
    pub sealed: u64,
    /// How many seals there are.
    pub seals: usize,
    /// Calls that were let through, whatever came of them; those of the job's keys, too, as far as the host sees them.
    pub calls_allowed: u64,
    /// Calls that were refused: no grant, no time, no money.
    pub calls_denied: u64,
    /// When the first record was written, and when the last one that says so.
    pub from: Timestamp,
    /// See `from`.
    pub to: Timestamp,
    /// The job's final status, if it has ended.
    pub status: Option<String>,
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Fault {
    /// Counted from 1.
    pub line: u64,
    /// What it is.
    pub what: String,
}

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what a host wrote.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Checks a file against the keys that may have signed it.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn verify(file: &mut dyn BufRead, keys: &[PublicKey]) -> Result<Proof, VerifyError> {
    let mut lines = Lines { file, number: 0, text: String::new() };
    let head = lines.next()?.to_owned();
    let head = match read_line::<Head>(&head) {
        Some(head) if head.leasehold_audit == VERSION => head,
        Some(head) => {
            let what = format!("this is format {}, and this program knows {VERSION}", head.leasehold_audit);
            return Err(lines.fault(what).into());
        }
        None => return Err(lines.fault("this is not the first line of an audit file, or it was changed").into()),
    };
    let mut reading = Reading::new(head.job_id, keys);
    loop {
        let text = lines.next()?.to_owned();
        let checked = match (read_line::<Line>(&text), read_line::<Close>(&text)) {
            (Some(line), _) => reading.take(&line),
            (None, Some(close)) => {
                reading.close(&close).map_err(|what| lines.fault(what))?;
                lines.end()?;
                return reading.proof().ok_or_else(|| lines.fault("there is no record before it").into());
            }
            (None, None) => Err("this is neither a record nor the closing line as they are written".to_owned()),
        };
        checked.map_err(|what| lines.fault(what))?;
    }
}

/// Reads a line that is written as we write it, and in no other way.
fn read_line<T: Serialize + DeserializeOwned>(text: &str) -> Option<T> {
    let line: T = serde_json::from_str(text).ok()?;
    (serde_json::to_string(&line).ok()? == text).then_some(line)
}

/// The lines of a file, none longer than any of ours.
struct Lines<'a> {
    file: &'a mut dyn BufRead,
    number: u64,
    text: String,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<&str, VerifyError> {
        self.number += 1;
        let mut bytes = Vec::new();
        (&mut *self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
        match bytes.pop() {
            None => Err(self.fault("the file is cut off: its closing line is missing").into()),
            Some(b'\n') => {
                self.text = String::from_utf8(bytes).map_err(|_| self.fault("this is not text"))?;
                Ok(&self.text)
            }
            Some(_) => {
                Err(self.fault("the file is cut off in this line, or the line is longer than any of ours").into())
            }
        }
    }

    fn end(&mut self) -> Result<(), VerifyError> {
        self.number += 1;
        if self.file.fill_buf()?.is_empty() {
            Ok(())
        } else {
            Err(self.fault("this comes after the closing line").into())
        }
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { line: self.number, what: what.into() }
    }
}

/// What has been read of a file.
struct Reading<'a> {
    keys: BTreeMap<String, &'a PublicKey>,
    job_id: JobId,
    chain: Chain,
    seals: Vec<u64>,
    accepted: Option<Box<Accepted>>,
    /// The calls under way that another job does, under a lease of its own.
    delegated: BTreeSet<u64>,
    allowed: u64,
    denied: u64,
    to: Option<Timestamp>,
    status: Option<String>,
}

impl<'a> Reading<'a> {
    fn new(job_id: JobId, keys: &'a [PublicKey]) -> Self {
        Self {
            keys: keys.iter().map(|key| (key.id().to_string(), key)).collect(),
            job_id,
            chain: Chain::new(job_id),
            seals: Vec::new(),
            accepted: None,
            delegated: BTreeSet::new(),
            allowed: 0,
            denied: 0,
            to: None,
            status: None,
        }
    }

    fn take(&mut self, line: &Line) -> Result<(), String> {
        let n = self.chain.records() + 1;
        if line.n != n {
            return Err(format!("record {n} is missing, or stands elsewhere: this is record {}", line.n));
        }
        let Taken { digest, seal } = take_apart(line.record.as_bytes()).map_err(|why| format!("record {n}: {why}"))?;
        self.chain.add(digest);
        if self.chain.hash() != line.hash {
            return Err(format!("record {n} is not the one that its hash was made of, or its hash was changed"));
        }
        let record = Record::decode(line.record.as_bytes()).map_err(|error| format!("record {n}: {error}"))?;
        self.note(n, record, seal.is_some())?;
        if let Some(seal) = seal {
            self.check(Purpose::Seal, &seal).map_err(|why| format!("the seal of record {n} does not hold: {why}"))?;
            self.seals.push(n);
        }
        Ok(())
    }

    /// Takes note of what a record says, and holds it against what any journal is like.
    fn note(&mut self, n: u64, record: Record, is_sealed: bool) -> Result<(), String> {
        if self.status.is_some() {
            return Err(format!("record {n} comes after the job's end"));
        }
        if (n == 1) != matches!(record, Record::Accepted(_)) {
            return Err(format!("record {n} is out of place: a journal begins with the job's acceptance, and has one"));
        }
        self.to = record.at().or(self.to);
        match record {
            Record::Accepted(accepted) if accepted.job_id != self.job_id => {
                return Err(format!("record {n} is of {}, and the file of {}", accepted.job_id, self.job_id));
            }
            Record::Accepted(accepted) => self.accepted = Some(accepted),
            Record::Begun(begun) if begun.is_delegation() => drop(self.delegated.insert(begun.call)),
            // What the other job was refused, this one's lease had let through.
            Record::Concluded(Concluded { call, .. }) if self.delegated.remove(&call) => self.allowed += 1,
            Record::Called(Called { outcome, .. }) | Record::Concluded(Concluded { outcome, .. }) => {
                match is_denial(&outcome) {
                    true => self.denied += 1,
                    false => self.allowed += 1,
                }
            }
            Record::Aside { event, .. } => match key_calls::told_by(&event) {
                Some((Decision::Allowed, count)) => self.allowed = self.allowed.saturating_add(count),
                Some((Decision::Refused, count)) => self.denied = self.denied.saturating_add(count),
                None => {}
            },
            Record::Ended { .. } if !is_sealed => return Err(format!("record {n}, the job's end, has no seal")),
            Record::Ended { end, .. } => self.status = Some(end.status().to_string()),
            _ => {}
        }
        Ok(())
    }

    fn check(&self, purpose: Purpose, seal: &Seal) -> Result<(), String> {
        let key = self.keys.get(&seal.key.to_string()).ok_or_else(|| unknown(&seal.key))?;
        Ok(self.chain.check(purpose, seal, key)?)
    }

    fn close(&self, close: &Close) -> Result<(), String> {
        let records = self.chain.records();
        if close.records != records {
            return Err(format!("the file was made of {} records, and has {records}", close.records));
        }
        if close.seals != self.seals {
            return Err("its list of seals is not that of the records".to_owned());
        }
        let checked = self.check(Purpose::Export, &close.export);
        checked.map_err(|why| format!("the signature of the file does not hold: {why}"))
    }

    fn proof(self) -> Option<Proof> {
        let accepted = self.accepted?;
        Some(Proof {
            job_id: self.job_id,
            principal: accepted.principal.to_string(),
            agent: accepted.agent,
            digest: accepted.digest,
            records: self.chain.records(),
            sealed: self.seals.last().copied().unwrap_or(0),
            seals: self.seals.len(),
            calls_allowed: self.allowed,
            calls_denied: self.denied,
            from: accepted.at,
            to: self.to.unwrap_or(accepted.at),
            status: self.status,
        })
    }
}

fn unknown(key: &KeyId) -> String {
    format!("it was made with the key {key}, which is none of those given")
}

/// Whether a call was refused for want of authority, and not for what came of it.
///
/// A delegation that had begun was not, whatever its job was refused. What the host's address table or a mount refuses
/// has the code of a denial, and nothing else in its record tells it from one.
#[must_use]
pub fn is_denial(outcome: &Outcome) -> bool {
    let refusals = [
        ErrorCode::PermissionDenied,
        ErrorCode::LeaseExpired,
        ErrorCode::BudgetExhausted,
        ErrorCode::LeaseSubsetViolation,
    ];
    matches!(outcome, Outcome::Failed { error, .. } if refusals.contains(&error.code))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leasehold_core::{
        error::Refusal,
        id::{CredentialId, Ulid},
        job::{
            key_calls::Kind,
            record::{Begun, End},
        },
        lease::{amount::Budget, target::ModelName},
        protocol::{
            event::{Event, Level, ToolError},
            json::Json,
            status::Status,
        },
    };

    use super::*;
    use crate::{
        journal::{Bounds, Journal, accepted_for_tests},
        seal::Sealer,
        store::memory::Memory,
    };

    const BOUNDS: Bounds = Bounds { total_bytes_max: 1 << 20, waiting_bytes_max: 1 << 16 };

    fn job(n: u128) -> JobId {
        JobId::new(Ulid::from_parts(0, n))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn accepted(job_id: JobId) -> Record {
        let input = Json::parse("{\n \"a\": 1 }".to_owned()).unwrap();
        Record::Accepted(Box::new(Accepted { input, ..accepted_for_tests(job_id) }))
    }

    fn called(call: u64, denied: bool) -> Record {
        let (code, message) = (ErrorCode::PermissionDenied, "no".to_owned());
        let outcome = match denied {
            true => Outcome::Failed { error: ToolError { code, message, retryable: false }, code: "no".into() },
            false => Outcome::Done { summary: Json::default(), answer: None },
        };
        Record::Called(Called { at: at(2), call, operation: "fs.read".into(), args: Json::default(), outcome })
    }

    fn log(n: i64) -> Record {
        Record::Event { at: at(n), event: Event::Log { level: Level::Info, message: format!("n {n}") } }
    }

    /// What a host writes of a job, with a seal on every third record and at the end.
    fn records(job_id: JobId, ends: bool) -> Vec<Record> {
        let mut records = vec![accepted(job_id), Record::Started { at: at(1) }, called(1, false), called(2, true)];
        records.extend([log(3), log(4), log(5)]);
        let end = End::Failed { status: Status::Error, refusal: Refusal::invalid("x") };
        records.extend(ends.then_some(Record::Ended { at: at(6), end, spent: None }));
        records
    }

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32])
    }

    async fn file_of(job_id: JobId, ends: bool, by: u8) -> String {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let sealer = Arc::new(Sealer { key: key(by), records_max: 3 });
        let journal = Journal::sealed(Arc::clone(&store), job_id, Position::ZERO, BOUNDS, sealer);
        for record in records(job_id, ends) {
            journal.append(&record).unwrap();
        }
        journal.flushed().await.unwrap();
        let mut file = Vec::new();
        export(&*store, job_id, &key(by), &mut file).await.unwrap();
        String::from_utf8(file).unwrap()
    }

    fn check(file: &str) -> Result<Proof, VerifyError> {
        verify(&mut file.as_bytes(), &[key(1).public()])
    }

    /// The lines, each with its end.
    fn lines(file: &str) -> Vec<String> {
        file.split_inclusive('\n').map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_file_that_nobody_touched_says_what_the_job_did() {
        let proof = check(&file_of(job(1), true, 1).await).unwrap();
        let expected = Proof {
            job_id: job(1),
            principal: "alice".into(),
            agent: "echo@1.0.0".into(),
            digest: "ab".into(),
            records: 8,
            sealed: 8,
            seals: 3,
            calls_allowed: 1,
            calls_denied: 1,
            from: at(0),
            to: at(6),
            status: Some("error".into()),
        };
        assert_eq!(proof, expected);
    }

    /// ARCP §10, §14: a delegation that began was allowed, whatever its job was refused, and calls of keys count as any.
    #[tokio::test]
    async fn calls_of_keys_and_delegations_are_counted_by_what_this_job_s_lease_said() {
        let begun = |operation: &str| {
            let (operation, reserved) = (operation.to_owned(), Budget::new());
            Record::Begun(Begun { at: at(1), call: 1, operation, args: Json::default(), reserved })
        };
        let concluded = || {
            let Record::Called(Called { outcome, .. }) = called(1, true) else { panic!("it is a call") };
            Record::Concluded(Concluded { at: at(2), call: 1, outcome, cost: Budget::new() })
        };
        let (id, model) = (CredentialId::new(Ulid::from_parts(0, 7)), ModelName::parse("fast/small").unwrap());
        let denied = Kind::denied(&model, ErrorCode::PermissionDenied).told(id, 999);
        let allowed = Kind::allowed(&model, Some(ErrorCode::Timeout)).told(id, 2);
        for (records, expected) in [
            (vec![begun("agent.delegate"), concluded()], (1, 0)),
            (vec![begun("net.fetch"), concluded()], (0, 1)), // a redirect
            (vec![Record::Aside { at: at(1), event: denied.clone() }], (0, 999)),
            (vec![Record::Aside { at: at(1), event: allowed }], (2, 0)),
            (vec![Record::Event { at: at(1), event: denied }], (0, 0)), // only the agent says so
        ] {
            let records: Vec<String> = [vec![accepted(job(1))], records]
                .concat()
                .iter()
                .map(|record| String::from_utf8(record.encode()).unwrap())
                .collect();
            let proof = check(&forge(job(1), &records, 1)).unwrap();
            assert_eq!((proof.calls_allowed, proof.calls_denied), expected, "{records:?}");
        }
    }

    #[tokio::test]
    async fn a_job_that_goes_on_is_proven_up_to_its_last_seal() {
        let proof = check(&file_of(job(1), false, 1).await).unwrap();
        assert_eq!((proof.records, proof.sealed, proof.seals, proof.status), (7, 6, 2, None));
    }

    #[tokio::test]
    async fn no_byte_can_be_changed_or_cut_off() {
        for ends in [true, false] {
            let file = file_of(job(1), ends, 1).await;
            let key = [key(1).public()];
            for at in 0..file.len() {
                let mut altered = file.clone().into_bytes();
                // The bit that tells a letter from its capital, and each of the others in its turn.
                altered[at] ^= if ends { 0x20 } else { 1 << (at % 8) };
                assert!(verify(&mut &altered[..], &key).is_err(), "byte {at} of {file}");
                if at % 8 == 0 {
                    assert!(verify(&mut &file.as_bytes()[..at], &key).is_err(), "cut off at {at}");
                }
            }
        }
    }

    #[tokio::test]
    async fn no_line_can_be_left_out_put_in_or_moved() {
        for ends in [true, false] {
            let file = lines(&file_of(job(1), ends, 1).await);
            let other = lines(&file_of(job(2), ends, 1).await);
            for n in 0..file.len() {
                let mut left_out = file.clone();
                left_out.remove(n);
                assert!(check(&left_out.concat()).is_err(), "without line {n}");
                let mut replaced = file.clone();
                replaced[n].clone_from(&other[n]);
                assert!(check(&replaced.concat()).is_err(), "with line {n} of another job");
                for to in 0..=file.len() {
                    for line in [&file[n], &other[n], &"\n".to_owned()] {
                        let mut put_in = file.clone();
                        put_in.insert(to, line.clone());
                        assert!(check(&put_in.concat()).is_err(), "with {line} at {to}");
                    }
                    if to < n {
                        let mut swapped = file.clone();
                        swapped.swap(n, to);
                        assert!(check(&swapped.concat()).is_err(), "with {n} at {to}");
                    }
                }
            }
        }
    }

    /// Writes a file as its maker would, of any records, so that all its hashes are right.
    fn forge(job_id: JobId, records: &[String], by: u8) -> String {
        let (mut chain, mut seals, mut file) = (Chain::new(job_id), Vec::new(), Vec::new());
        write_line(&mut file, &Head { leasehold_audit: VERSION, job_id }).unwrap();
        for record in records {
            let taken = take_apart(record.as_bytes()).unwrap();
            chain.add(taken.digest);
            let n = chain.records();
            seals.extend(taken.seal.map(|_| n));
            write_line(&mut file, &Line { n, hash: chain.hash(), record: record.clone() }).unwrap();
        }
        let export = key(by).sign(Purpose::Export, &chain);
        write_line(&mut file, &Close { records: chain.records(), seals, export }).unwrap();
        String::from_utf8(file).unwrap()
    }

    /// A store that was altered before the file was made: its hashes all fit, and its seals do not.
    #[tokio::test]
    async fn what_was_altered_in_the_store_does_not_fit_its_seals() {
        let stored = |file: String| {
            let record = |line: &String| Some(read_line::<Line>(line.trim_end())?.record);
            lines(&file).iter().filter_map(record).collect::<Vec<_>>()
        };
        let (own, other) = (stored(file_of(job(1), true, 1).await), stored(file_of(job(2), true, 1).await));
        let strange = stored(file_of(job(1), true, 2).await);
        let unsealed = |record: &str| Record::decode(record.as_bytes()).unwrap().encode();
        let unsealed = |record: &str| String::from_utf8(unsealed(record)).unwrap();
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut records = own.clone();
            change(&mut records);
            records
        };
        let table = [
            ("untouched", own.clone(), job(1), 1, None),
            ("made with another key", own.clone(), job(1), 2, Some("none of those given")),
            ("sealed with another key", strange, job(1), 1, Some("none of those given")),
            ("of another job", own.clone(), job(2), 1, Some("of job_")),
            (
                "a record changed",
                with(&|all| all[1] = all[1].replace("00.001", "00.009")),
                job(1),
                1,
                Some("other records"),
            ),
            ("a record left out", with(&|all| drop(all.remove(1))), job(1), 1, Some("other records")),
            ("a record put in", with(&|all| all.insert(1, all[1].clone())), job(1), 1, Some("other records")),
            ("two records swapped", with(&|all| all.swap(3, 4)), job(1), 1, Some("other records")),
            (
                "the last seal of another job",
                with(&|all| all[7].clone_from(&other[7])),
                job(1),
                1,
                Some("other records"),
            ),
            (
                "the first seal once more",
                with(&|all| {
                    all[5] = all[5].replace(
                        &all[5][all[5].find(",\"seal\"").unwrap()..],
                        &all[2][all[2].find(",\"seal\"").unwrap()..],
                    );
                }),
                job(1),
                1,
                Some("other records"),
            ),
            ("no seal at the end", with(&|all| all[7] = unsealed(&all[7])), job(1), 1, Some("has no seal")),
            ("something after the end", with(&|all| all.push(all[1].clone())), job(1), 1, Some("after the job's end")),
            ("two acceptances", with(&|all| all[1] = unsealed(&all[0])), job(1), 1, Some("out of place")),
            ("no record", Vec::new(), job(1), 1, Some("no record")),
        ];
        for (what, records, job_id, by, expected) in table {
            let checked = check(&forge(job_id, &records, by));
            match expected {
                None => drop(checked.unwrap()),
                Some(said) => {
                    let error = checked.expect_err(what).to_string();
                    assert!(error.contains(said) && error.contains("line "), "{what}: {error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_file_with_seals_of_two_hosts_needs_both_keys() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let all = records(job(1), true);
        let mut last = Position::ZERO;
        for (by, part) in [(1, &all[..4]), (2, &all[4..])] {
            let sealer = Arc::new(Sealer { key: key(by), records_max: 2 });
            let journal = Journal::sealed(Arc::clone(&store), job(1), last, BOUNDS, sealer);
            journal.catch_up().await;
            for record in part {
                journal.append(record).unwrap();
            }
            journal.flushed().await.unwrap();
            last = Position::new(4);
        }
        let mut file = Vec::new();
        export(&*store, job(1), &key(2), &mut file).await.unwrap();
        let [one, two] = [1, 2].map(|n| key(n).public());
        assert_eq!(verify(&mut &file[..], &[one, two]).unwrap().sealed, 8);
        for keys in [&[one][..], &[two], &[]] {
            assert!(verify(&mut &file[..], keys).is_err());
        }
    }
}
