//! `audit`: a job's journal as evidence, and the check of it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use leasehold_core::id::JobId;

use super::{Failure, HostArgs, journal::Which, output};
use crate::{
    audit::{self, ExportError, Proof, VerifyError},
    config::Config,
    seal::{PublicKey, SigningKey},
};

/// `leasehold audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write a job's journal into a file that can be checked elsewhere.
    ///
    /// The file holds what the journal holds: what the agent was given, read and told.
    Export(ExportArgs),
    /// Check such a file, with neither a host nor a store.
    ///
    /// Exit code 1 says that it is not what the host wrote, and where.
    Verify(VerifyArgs),
    /// Print the key that this host's files are checked with.
    Key(KeyArgs),
}

/// `leasehold audit export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Write to a file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `leasehold audit verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// What `leasehold audit export` wrote, or - for standard input.
    file: PathBuf,
    /// The host's public key, or a file that holds it. May be repeated, where a host has had several.
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<String>,
    /// The job that the file is to be of.
    #[arg(long, value_name = "JOB")]
    job: Option<JobId>,
    /// The job is to have ended: a journal whose end was cut off in the store is that of a job that runs.
    #[arg(long)]
    ended: bool,
    /// Print an object.
    #[arg(long)]
    json: bool,
}

/// `leasehold audit key`
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The host's folder of journals and compiled agents [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The host's settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one of them.
pub async fn audit(command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Export(args) => export(args).await,
        AuditCommand::Verify(args) => verify(&args),
        AuditCommand::Key(KeyArgs { data, config }) => {
            let config = HostArgs { data, config, ..HostArgs::default() }.settings()?;
            output::text_line(&key_of(&config)?.public().to_string());
            Ok(())
        }
    }
}

fn key_of(config: &Config) -> Result<SigningKey, Failure> {
    SigningKey::load(&config.server.data).map_err(|error| {
        Failure::Usage(format!("{error} (a host makes its key when it first starts; --data says where)"))
    })
}

async fn export(args: ExportArgs) -> Result<(), Failure> {
    let (config, store, job_id) = args.which.open()?;
    let key = key_of(&config)?;
    let refused = |error: ExportError| match error {
        ExportError::NoJob(job_id) => super::journal::unknown(job_id),
        error => Failure::Other(error.into()),
    };
    let Some(path) = args.output else {
        let mut whole = BufWriter::new(io::stdout());
        audit::export(&*store, job_id, &key, &mut whole).await.map_err(refused)?;
        return whole.flush().map_err(|error| Failure::Other(error.into()));
    };
    // What an agent read is for this user alone, and half a file is none.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |error: io::Error| Failure::Usage(format!("-o {}: {error}", path.display()));
    let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(folder).map_err(cannot)?);
    let records = audit::export(&*store, job_id, &key, &mut file).await.map_err(refused)?;
    let file = file.into_inner().map_err(|error| cannot(error.into_error()))?;
    file.persist(&path).map_err(|error| cannot(error.error))?;
    output::text_line(&format!("{records} records of {job_id} in {}", path.display()));
    Ok(())
}

fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let keys = args.key.iter().map(|key| read_key(key)).collect::<Result<Vec<_>, _>>()?;
    let unreadable = |error: io::Error| Failure::Usage(format!("{}: {error}", args.file.display()));
    let mut file: Box<dyn BufRead> = match args.file.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(&args.file).map_err(unreadable)?)),
    };
    let proof = match audit::verify(&mut *file, &keys) {
        Ok(proof) => proof,
        Err(VerifyError::Io(error)) => return Err(unreadable(error)),
        Err(VerifyError::Fault(fault)) => return Err(disproven(args, &fault.to_string())),
    };
    if let Some(job) = args.job.filter(|job| *job != proof.job_id) {
        return Err(disproven(args, &format!("this is {}, and not {job}", proof.job_id)));
    }
    if args.ended && proof.status.is_none() {
        return Err(disproven(args, "the end of the job is missing, and --ended says that it has ended"));
    }
    if args.json {
        output::line(&proof);
    } else {
        said(&proof).iter().for_each(|line| output::text_line(line));
    }
    Ok(())
}

/// Says what is wrong where the answer is looked for.
fn disproven(args: &VerifyArgs, what: &str) -> Failure {
    if args.json {
        output::line(&serde_json::json!({ "fault": what }));
    } else {
        output::text_line(&format!("{}: not what the host wrote: {what}", args.file.display()));
    }
    Failure::JobFailed
}

/// A key as it is printed, or the file it was printed to.
fn read_key(text: &str) -> Result<PublicKey, Failure> {
    let known = |text: &str| text.parse::<PublicKey>();
    if let Ok(key) = known(text) {
        return Ok(key);
    }
    let read = std::fs::read_to_string(text).map_err(|error| {
        let form = known(text).err().unwrap_or_default();
        Failure::Usage(format!("--key: {form}, and there is no file `{text}`: {error}"))
    })?;
    known(&read).map_err(|form| Failure::Usage(format!("--key {text}: {form}")))
}

fn said(proof: &Proof) -> Vec<String> {
    let Proof {
        job_id,
        agent,
        principal,
        digest,
        records,
        sealed,
        seals,
        calls_allowed,
        calls_denied,
        from,
        to,
        status,
    } = proof;
    let state = match status {
        Some(status) => format!("ended with {status}"),
        None => format!("has not ended; after its last seal come {} records, which its store held", records - sealed),
    };
    vec![
        format!("{job_id} of {principal}: {state}"),
        format!("agent    {agent}, component {digest}"),
        format!("time     {from} to {to}"),
        format!("records  {records}, of which {sealed} are sealed, by {seals} seals"),
        format!("calls    {calls_allowed} allowed, {calls_denied} denied"),
    ]
}
