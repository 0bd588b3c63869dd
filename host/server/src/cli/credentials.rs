//! `credentials`: the keys of jobs that are not known to be worth nothing (ARCP §14).

use std::path::PathBuf;

use clap::Args;

use super::{Failure, HostArgs, output};
use crate::{
    credentials::keeper::{Outstanding, outstanding},
    store::sqlite::Sqlite,
};

/// `leasehold credentials`
#[derive(Debug, Args)]
pub struct CredentialsArgs {
    /// The host's folder of journals and compiled agents [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The host's settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

/// Lists them. No value is among what is printed, as none is kept where this looks.
pub async fn list(args: CredentialsArgs) -> Result<(), Failure> {
    let host = HostArgs { data: args.data, config: args.config, ..HostArgs::default() };
    let config = host.settings()?;
    let store = Sqlite::open_for_reading(&config.journal()).map_err(|error| Failure::Usage(error.to_string()))?;
    for credential in outstanding(&store).await.map_err(anyhow::Error::from)? {
        match args.json {
            true => output::line(&serde_json::to_value(&credential).map_err(anyhow::Error::from)?),
            false => output::text_line(&said(&credential)),
        }
    }
    Ok(())
}

fn said(credential: &Outstanding) -> String {
    let Outstanding { id, job_id, provisioner, issued_at, failed_at, why } = credential;
    let stands = match (failed_at, why) {
        (Some(at), Some(why)) => format!("cannot be revoked since {at}: {why}"),
        _ => "outstanding".to_owned(),
    };
    format!("{id}  {job_id}  {provisioner}  {issued_at}  {stands}")
}
