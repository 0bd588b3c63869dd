//! `lease`: how little a run needed, and how much a submission would get.

use std::{fs, path::Path, path::PathBuf};

use clap::{Args, Subcommand};
use leasehold_core::{
    id::Principal,
    lease::{
        Lease, Namespace,
        pattern::Pattern,
        target::{ModelName, Target},
    },
};
use serde_json::{Value, json};

use super::{
    Failure, HostArgs,
    jobs::parse_json,
    journal::Which,
    output::{self, clean},
};
use crate::{
    agents::audit,
    capability::mounts::Mounts,
    config::{Config, MountEntry},
    policy::{Finding, Policy},
    suggest::{self, Setting, Suggestion},
};

/// `leasehold lease`
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Print the smallest lease that admits what a job did.
    ///
    /// What the job was refused is told apart and not granted.
    Suggest(SuggestArgs),
    /// Say which grants a submission would get under a principal's ceiling, and why not others.
    ///
    /// Exit code 1 says that it would be refused.
    Explain(ExplainArgs),
}

/// `leasehold lease suggest`
#[derive(Debug, Args)]
pub struct SuggestArgs {
    #[command(flatten)]
    which: Which,
    /// Where at least N targets have the same parent, `parent/*` stands for them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    fold: Option<u32>,
    /// Print an object.
    #[arg(long)]
    json: bool,
}

/// `leasehold lease explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Whose submission it would be.
    #[arg(long = "as", value_name = "PRINCIPAL")]
    principal: String,
    /// The lease asked for: JSON or @FILE.
    #[arg(long, short, value_name = "JSON")]
    lease: String,
    /// The host's settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder that jobs can be granted, and the path they see it under. May be repeated.
    #[arg(long, value_name = "/VIRTUAL=DIR[:ro|:rw]", value_parser = crate::config::parse_mount)]
    mount: Vec<MountEntry>,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub async fn lease(command: LeaseCommand) -> Result<(), Failure> {
    match command {
        LeaseCommand::Suggest(args) => suggest(args).await,
        LeaseCommand::Explain(args) => explain(args),
    }
}

async fn suggest(args: SuggestArgs) -> Result<(), Failure> {
    let (config, store, job_id) = args.which.open()?;
    if crate::journal::accepted(&*store, &crate::journal::stream(job_id)).await?.is_none() {
        return Err(super::journal::unknown(job_id));
    }
    let names = |(name, model): (&String, &crate::capability::models::settings::ModelEntry)| {
        model.aliases.iter().map(|alias| (alias.clone(), name.clone())).collect::<Vec<_>>()
    };
    let setting = Setting {
        aliases: config.models.iter().flat_map(names).collect(),
        delegate_reserve_percent: config.limits.delegate_reserve_percent,
    };
    let fold = args.fold.and_then(|fold| usize::try_from(fold).ok());
    let suggestion = suggest::suggest(&*store, job_id, &setting, fold).await?;
    if args.json {
        output::line(&suggestion);
        return Ok(());
    }
    let Suggestion { lease_request, entries, denied, remarks } = suggestion;
    if !entries.is_empty() {
        let calls = |calls: u64| if calls == 0 { "handed on".to_owned() } else { calls.to_string() };
        let row = |entry: &suggest::Entry| vec![entry.namespace.to_string(), entry.entry.clone(), calls(entry.calls)];
        output::table(&["NAMESPACE", "ENTRY", "CALLS"], entries.iter().map(row));
    }
    if !denied.is_empty() {
        let row = |call: &suggest::Refused| {
            vec![call.call.to_string(), call.operation.clone(), clean(&call.target), clean(&call.why)]
        };
        output::table(&["DENIED", "OPERATION", "TARGET", "WHY"], denied.iter().map(row));
    }
    remarks.iter().for_each(|remark| output::text_line(&format!("note: {}", clean(remark))));
    output::line(&lease_request);
    Ok(())
}

fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let request = parse_lease(parse_json("--lease", &args.lease)?)?;
    let host = HostArgs { config: args.config, mount: args.mount, ..HostArgs::default() };
    let config = host.settings()?;
    if !config.tokens.is_empty() && !config.tokens.contains_key(&args.principal) {
        let known: Vec<&str> = config.tokens.keys().map(String::as_str).collect();
        let message = format!("--as: no token is configured for `{}`; there are {}", args.principal, known.join(", "));
        return Err(Failure::Usage(message));
    }
    let mounts = mounts(&config)?;
    let ceilings = config.read_ceilings()?;
    let policy = Policy::new([], ceilings, &mounts).map_err(|refusal| Failure::Usage(refusal.message))?;
    let findings = policy.explain(&Principal::new(args.principal.as_str()), &request);
    report(&config, &mounts, &findings, &[], args.json)
}

/// Says what a job would get that is run by its own user.
pub fn explain_run(config: &Config, component: &Path, request: Option<Value>, json: bool) -> Result<(), Failure> {
    let mounts = mounts(config)?;
    let wasm = fs::read(component).map_err(|error| Failure::Usage(format!("{}: {error}", component.display())))?;
    let audit = audit::audit(&wasm, config.limits.component_bytes_max)
        .map_err(|error| Failure::Usage(format!("{}: {error}", component.display())))?;
    audit.check().map_err(|refused| Failure::Refused(format!("{}: {refused}", component.display())))?;
    let mut notes = Vec::new();
    let could: Vec<&str> = audit.authority.iter().map(|authority| authority.namespace).collect();
    let findings = match request {
        Some(request) => {
            let request = parse_lease(request)?;
            let within = |mut finding: Finding| {
                finding.why = "whoever runs an agent on his own machine grants what he asks for".to_owned();
                finding
            };
            let policy = Policy::new([], [(Principal::new("local"), request.clone())].into(), &mounts)
                .map_err(|refusal| Failure::Usage(refusal.message))?;
            for namespace in request.namespaces().map(ToString::to_string) {
                if namespace != "cost.budget" && !could.contains(&namespace.as_str()) {
                    notes.push(match audit.hands_on() {
                        true => format!(
                            "{namespace} is only for agents it delegates to: it imports nothing that asks for it"
                        ),
                        false => format!("{namespace} is never used: the component imports nothing that asks for it"),
                    });
                }
            }
            for namespace in could.iter().filter(|could| !request.namespaces().any(|named| named.as_str() == **could)) {
                notes
                    .push(format!("{namespace} is not asked for, and the component imports it: its calls are refused"));
            }
            policy.explain(&Principal::new("local"), &request).into_iter().map(within).collect()
        }
        None => {
            notes.push("no --lease: the job is granted nothing".to_owned());
            Vec::new()
        }
    };
    report(config, &mounts, &findings, &notes, json)
}

fn parse_lease(request: Value) -> Result<Lease, Failure> {
    serde_json::from_value(request)
        .map_err(|error| Failure::Usage(format!("--lease: {error}; write {{\"namespace\": [\"pattern\", …]}}")))
}

fn mounts(config: &Config) -> Result<Mounts, Failure> {
    Mounts::open(config.read_mounts()?).map_err(|error| Failure::Usage(format!("mounts: {error}")))
}

/// Prints what becomes of each entry, and what is behind those that are granted.
fn report(config: &Config, mounts: &Mounts, findings: &[Finding], notes: &[String], json: bool) -> Result<(), Failure> {
    let all = findings.iter().all(|finding| finding.granted);
    let behind = |finding: &Finding| if finding.granted { nothing_behind(config, mounts, finding) } else { None };
    if json {
        for finding in findings {
            let Finding { namespace, entry, granted, why } = finding;
            let note = behind(finding);
            output::line(
                &json!({ "namespace": namespace, "entry": entry, "granted": granted, "why": why, "note": note }),
            );
        }
    } else if !findings.is_empty() {
        let row = |finding: &Finding| {
            let why = match behind(finding) {
                Some(note) => format!("{}; {note}", finding.why),
                None => finding.why.clone(),
            };
            let verdict = if finding.granted { "granted" } else { "refused" };
            vec![verdict.to_owned(), finding.namespace.to_string(), finding.entry.clone(), why]
        };
        output::table(&["", "NAMESPACE", "ENTRY", "WHY"], findings.iter().map(row));
    }
    if !json {
        notes.iter().for_each(|note| output::text_line(&format!("note: {note}")));
        output::text_line(match all {
            true => "the submission would be accepted with this lease",
            false => "the submission would be refused as a whole: LEASE_SUBSET_VIOLATION",
        });
    }
    if all { Ok(()) } else { Err(Failure::JobFailed) }
}

/// Why a grant leads nowhere on this host, if it does.
fn nothing_behind(config: &Config, mounts: &Mounts, finding: &Finding) -> Option<String> {
    let entry = finding.entry.as_str();
    match &finding.namespace {
        Namespace::FsRead | Namespace::FsWrite => {
            // Up to the first asterisk a pattern is a path.
            let literal = entry.split('*').next().unwrap_or_default();
            let beneath = |path: &str, root: &str| {
                let root = root.trim_end_matches('/');
                path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let at = |mount: &crate::capability::mounts::Mount| mount.at.to_string();
            let mut here = mounts
                .iter()
                .filter(|mount| beneath(literal, &at(mount)) || at(mount).starts_with(literal.trim_end_matches('/')));
            let writes = finding.namespace == Namespace::FsWrite;
            match here.next() {
                None => Some("no folder is mounted there".to_owned()),
                Some(first) if writes && !first.writable && !here.any(|mount| mount.writable) => {
                    Some("what is mounted there is read-only".to_owned())
                }
                Some(_) => None,
            }
        }
        Namespace::ToolCall => config.tools.is_empty().then(|| "this host has no tools".to_owned()),
        Namespace::ModelUse => {
            let pattern = Pattern::parse(&finding.namespace, entry).ok()?;
            let is_one = |name: &String| ModelName::parse(name).is_ok_and(|name| pattern.matches(Target::Model(&name)));
            (!config.models.keys().any(is_one)).then(|| "this host has no such model".to_owned())
        }
        Namespace::NetFetch => {
            let served = ["http://", "https://", "*", "http*"].iter().any(|scheme| entry.starts_with(scheme));
            (!served).then(|| "no operation of this host speaks that scheme".to_owned())
        }
        Namespace::Vendor(_) => Some("this host has no operation of it".to_owned()),
        Namespace::AgentDelegate | Namespace::CostBudget => None,
    }
}
