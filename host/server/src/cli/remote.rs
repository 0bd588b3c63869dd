//! `tail`, `cancel` and `send`: a job that another program submitted, and the bare wire.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{ClientArgs, Failure, follow, jobs, output, tickets};
use crate::client::{self, ClientError};

/// `leasehold tail`
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The job.
    job_id: String,
    #[command(flatten)]
    client: ClientArgs,
    /// Leave out what the job has told already.
    #[arg(long, conflicts_with = "from")]
    live: bool,
    /// Begin after this number of the session that submitted the job.
    #[arg(long, value_name = "EVENT_SEQ", default_value_t = 0)]
    from: u64,
    /// Write the result to a file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print every frame as a JSON object a line.
    #[arg(long)]
    json: bool,
}

/// `leasehold cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job.
    job_id: String,
    #[command(flatten)]
    client: ClientArgs,
    /// Why, for the job's journal.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// `leasehold send`
#[derive(Debug, Args)]
pub struct SendArgs {
    /// A file with one envelope, or - for standard input. `id` and `arcp` are added if they are missing.
    #[arg(default_value = "-")]
    envelope: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    /// How long to listen for what comes back.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    listen_sec: u32,
}

/// Watches a job to its end. Ctrl-C leaves it alone.
pub async fn tail(args: TailArgs) -> Result<(), Failure> {
    let interrupts = follow::Interrupts::listen()?;
    let view = follow::View::new(args.json, args.output)?;
    let mut client = jobs::connect(&args.client).await?;
    let payload = client.subscribe(&args.job_id, (!args.live).then_some(args.from)).await?;
    view.subscribed(&client::Accepted { job_id: args.job_id.clone(), payload });
    let outcome = follow::follow(&mut client, &args.job_id, view, interrupts, follow::Interrupted::Leaves).await;
    if outcome.is_ok() {
        // The job is done; a host that has gone meanwhile takes nothing from it.
        let _ = client.close().await;
    }
    outcome
}

/// Cancels a job, in the session that submitted it if what that left behind is there.
pub async fn cancel(args: CancelArgs) -> Result<(), Failure> {
    let mut client = match tickets::find(&args.job_id, &args.client.url) {
        Some(resume) => {
            match jobs::open(&args.client, Some(resume)).await {
                // Its time is over. The policy may let any session of the principal cancel.
                Err(ClientError::Refused { retryable: false, .. }) => {
                    tickets::forget(&args.job_id);
                    jobs::connect(&args.client).await?
                }
                client => {
                    let client = client?;
                    // The token that was used is worth nothing any more.
                    tickets::keep(&args.job_id, &args.client.url, &client)?;
                    client
                }
            }
        }
        None => jobs::connect(&args.client).await?,
    };
    client.cancel(&args.job_id, args.reason.as_deref()).await?;
    match args.json {
        true => output::line(&json!({ "job_id": args.job_id, "cancelling": true })),
        false => output::text_line(&format!("cancelling {}", args.job_id)),
    }
    client.close().await?;
    Ok(())
}

/// Sends one envelope as it is, and prints every frame that comes back.
pub async fn send(args: SendArgs) -> Result<(), Failure> {
    let from = args.envelope.display().to_string();
    let read = match from.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(&args.envelope),
    };
    let text = read.map_err(|error| Failure::Usage(format!("{from}: {error}")))?;
    let mut envelope: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("{from}: not a JSON object: {error}")))?;
    let Some(Value::String(kind)) = envelope.remove("type") else {
        return Err(Failure::Usage(format!("{from}: an envelope has a `type`, such as \"session.list_jobs\"")));
    };
    let payload = envelope.remove("payload").unwrap_or_else(|| json!({}));
    let mut client = jobs::connect(&args.client).await?;
    client.send(&kind, envelope, payload).await?;
    let until = Instant::now() + Duration::from_secs(args.listen_sec.into());
    while let Ok(frame) = timeout_at(until, client.recv()).await {
        match frame {
            Ok(mut frame) => {
                frame.envelope.insert("payload".to_owned(), frame.payload);
                output::line(&frame.envelope);
            }
            // The host has said all it had to say.
            Err(ClientError::Closed(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    client.close().await?;
    Ok(())
}
