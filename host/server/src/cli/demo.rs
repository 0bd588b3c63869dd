//! `demo`: the whole of it in one command.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::Args;
use console::style;
use leasehold_core::secret::Secret;
use serde_json::json;

use super::{Failure, agents, hosting, jobs, output};
use crate::{
    client::{Client, ClientInfo, Submit},
    clock,
    config::{Config, MountEntry, MountMode},
    host::{Host, Parts},
    project,
    secrets::SecretSource,
};

/// The example agents, as folders of `examples/`.
const EXAMPLES: [&str; 5] = ["chatty", "echo", "hello-rust", "sleeper", "summarize-files"];

/// `leasehold demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The folder to summarise [default: the sources of Leasehold].
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Print every frame as a JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Builds the examples, starts a host, and follows one job under a lease.
pub async fn demo(args: DemoArgs) -> Result<(), Failure> {
    let sources = sources()?;
    let path = args.path.unwrap_or_else(|| sources.clone());
    let path = path.canonicalize().unwrap_or(path);
    if !path.is_dir() {
        return Err(Failure::Usage(format!("--path {}: that is not a folder", path.display())));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| sources.join("target"), PathBuf::from);
    let agents_dir = target.join("agents");
    step("building the example agents");
    build(&sources, &target, &agents_dir).await?;

    // A file that exists and that no lease will cover.
    let temporary = tempfile::tempdir().map_err(anyhow::Error::from)?;
    let secrets = temporary.path().join("secrets");
    fs::create_dir(&secrets).map_err(anyhow::Error::from)?;
    fs::write(secrets.join("token.txt"), "nobody should read this\n").map_err(anyhow::Error::from)?;

    let token = Secret::new(format!("tk_{:032x}", clock::random_u128()));
    let mut config = Config::default();
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.server.agents.clone_from(&agents_dir);
    config.server.data = temporary.path().join("data");
    config.server.compiled = super::compiled();
    config.limits.live_agents_max = 64;
    config.tokens.insert("demo".into(), SecretSource::Text(token.clone()));
    let mount = |at: &str, path: &Path| MountEntry { at: at.into(), path: path.into(), mode: MountMode::Ro };
    config.mounts = vec![mount("/workspace", &path), mount("/secrets", &secrets)];

    let report = target.join("demo-report.md");
    step("starting a host");
    let host = Host::start(config, Parts::default()).await?;
    hosting::register(&host).await?;
    let listener = host.listen().await?;
    let url = format!("ws://{}/arcp", listener.local_addr().map_err(anyhow::Error::from)?);
    step(&format!("connecting to {url} as an ordinary ARCP client"));
    let session = async {
        let outcome = watch(&url, &token, args.json, &report).await;
        host.stop();
        outcome
    };
    let (outcome, ()) = tokio::join!(session, host.serve(listener));
    host.close().await;
    outcome?;
    if !args.json {
        show_report(&report)?;
        python(&agents_dir, &path);
    }
    Ok(())
}

async fn watch(url: &str, token: &Secret, as_json: bool, report: &Path) -> Result<(), Failure> {
    let mut client = Client::connect_ws(url, Some(token.expose()), ClientInfo::default()).await?;
    let input = json!({ "path": "/workspace", "try_outside": "/secrets/token.txt", "price_per_file": "0.0001" });
    let submission = Submit {
        lease_request: Some(json!({ "fs.read": ["/workspace/**"], "cost.budget": ["USD:0.05"] })),
        ..Submit::new("summarize-files", input)
    };
    step("submitting summarize-files under a lease: read /workspace, spend 5 cents, nothing else");
    let outcome = jobs::watch(&mut client, submission, &jobs::JobArgs::shown(as_json, report)).await;
    // The job is over; nothing is lost with the connection.
    let _ = client.close().await;
    outcome
}

async fn build(sources: &Path, target: &Path, agents_dir: &Path) -> Result<(), Failure> {
    let dirs: Vec<PathBuf> = EXAMPLES.iter().map(|name| sources.join("examples").join(name)).collect();
    let mut options = project::Options::new(agents_dir);
    options.target_dir = Some(target.join("guests"));
    let built = tokio::task::spawn_blocking(move || project::build(&dirs, &options, &mut agents::show_progress)).await;
    built.map_err(anyhow::Error::from)?.map_err(agents::build_failure)?;
    Ok(())
}

/// The folder of the sources: where cargo says, or above the working folder.
fn sources() -> Result<PathBuf, Failure> {
    let by_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = env::current_dir().ok();
    let known = by_cargo.iter().chain(&here).flat_map(|dir| dir.ancestors());
    let found = known.map(Path::to_owned).find(|dir| dir.join("examples/summarize-files/Cargo.toml").is_file());
    found.ok_or_else(|| Failure::Usage("the demo builds the example agents: run it in the sources of Leasehold".into()))
}

fn step(what: &str) {
    eprintln!("{} {what}", style("==>").cyan().bold());
}

/// Prints the beginning of the result, and where the rest is.
fn show_report(report: &Path) -> Result<(), Failure> {
    const LINES: usize = 8;
    let text = fs::read_to_string(report).map_err(anyhow::Error::from)?;
    eprintln!();
    step(&format!("the result, {} lines, is in {}:", text.lines().count(), report.display()));
    text.lines().take(LINES).for_each(output::text_line);
    Ok(())
}

/// Prints how to do the same from Python.
fn python(agents_dir: &Path, path: &Path) {
    let (agents, path) = (agents_dir.display(), path.display());
    eprintln!();
    step("the same from Python, with the SDK from PyPI:");
    eprintln!(
        r#"
    # a host that stays:
    cargo run --release -- serve --agents {agents} --data ~/.local/share/leasehold \
        --mount '/workspace={path}' --token me=secret-token

    # in another terminal:
    python3 -m venv .venv && .venv/bin/pip install agentruntimecontrolprotocol==1.1.3
    .venv/bin/python - <<'PY'
    import asyncio
    from arcp import ClientInfo, WebSocketTransport
    from arcp.client import ARCPClient

    async def main():
        client = ARCPClient(client=ClientInfo(name="demo", version="1.0"), token="secret-token")
        await client.connect(await WebSocketTransport.connect("ws://127.0.0.1:7777/arcp"))
        job = await client.submit(
            agent="summarize-files", input={{"path": "/workspace"}},
            lease_request={{"fs.read": ["/workspace/**"], "cost.budget": ["USD:0.05"]}})
        async for event in job.events():
            print(event["kind"], event["body"])
        print(await job.done)
        await client.close()

    asyncio.run(main())
    PY"#
    );
}
