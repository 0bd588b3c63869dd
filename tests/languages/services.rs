//! What the survey finds around it: pages, a tool, a model, and two folders (`examples/README.md`).

use std::{fs, ops::ControlFlow, sync::Arc};

use leasehold::config::Config;
use leasehold_tests::{
    host::{ALICE, fill_workspace},
    upstream::{Asked, End, Reply, Upstream},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// The body of `/parts`, as it is sent.
const PARTS: [&str; 3] = ["part one\n", "part two\n", "part three\n"];

/// Pages, a model and two folders, and the settings that make them a host's.
pub struct Services {
    web: Upstream,
    models: Upstream,
    files: TempDir,
    gates: Arc<Gates>,
}

/// What answers wait for.
struct Gates {
    /// One permit lets one `slow` go.
    slow: Arc<Semaphore>,
    /// One permit lets one `hold` go.
    hold: Arc<Semaphore>,
    /// Has a permit for each `hold` that has come.
    held: Semaphore,
}

impl Services {
    /// Starts them. Nobody is let go who asks for `/hold`.
    pub async fn start() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        let gates = Arc::new(Gates { slow: none(), hold: none(), held: Semaphore::new(0) });
        let files = tempfile::tempdir().expect("a temporary folder can be made");
        for folder in ["workspace", "outbox"] {
            fs::create_dir(files.path().join(folder)).expect("the folder is ours");
        }
        fill_workspace(&files.path().join("workspace"));
        let of_pages = Arc::clone(&gates);
        let web = Upstream::start(move |asked| of_pages.answer(asked)).await;
        Self { web, models: Upstream::openai().await, files, gates }
    }

    /// Under which the pages are.
    pub fn url(&self) -> String {
        self.web.url()
    }

    /// The settings of a host that has them.
    pub fn settings(&self) -> String {
        let (files, models) = (self.files.path().display(), self.models.url());
        // The tool is a command of the machine; it writes the last text of its arguments in capital letters.
        format!(
            r#"
            [policy.{ALICE}.lease]
            "fs.read" = ["/**"]
            "fs.write" = ["/outbox/**"]
            "net.fetch" = ["http://127.0.0.1:*/**"]
            "tool.call" = ["*"]
            "model.use" = ["**"]
            "agent.delegate" = ["*"]
            "cost.budget" = ["USD:5.00"]

            [[mounts]]
            at = "/workspace"
            path = "{files}/workspace"
            mode = "ro"

            [[mounts]]
            at = "/outbox"
            path = "{files}/outbox"
            mode = "rw"

            [net]
            allow = ["127.0.0.0/8"]

            [tools.upper]
            run = ["sed", 's/"[^"]*" *}}$/\U&/']
            description = "Answers with its text in capital letters."
            input_schema = {{ type = "object", properties = {{ text = {{ type = "string" }} }}, required = ["text"] }}

            [upstreams.main]
            url = "{models}/v1"
            key = "sk-of-the-operator"

            [models."tier-fast/small"]
            upstream = "main"
            model = "gpt-small"
            input_per_mtok = "USD:100"
            output_per_mtok = "USD:1000"
            max_output_tokens = 100
            "#
        )
    }

    /// Gives them to a host within the test's process.
    pub fn settle(&self, config: &mut Config) {
        let own = Config::parse(&self.settings()).expect("the settings are understood");
        let Config { policy, mounts, net, tools, upstreams, models, .. } = own;
        (config.policy, config.mounts, config.net) = (policy, mounts, net);
        (config.tools, config.upstreams, config.models) = (tools, upstreams, models);
    }

    /// Takes notice of a frame that the survey's client has.
    ///
    /// `slow` goes once the end of the call for `release` was told. So the events of both have one order.
    pub fn seen(&self, frame: &Value) -> ControlFlow<()> {
        if frame.pointer("/payload/body/result/url").is_some_and(|url| url == "<base>/release") {
            self.gates.slow.add_permits(1);
        }
        ControlFlow::Continue(())
    }

    /// Waits until somebody asks for `/hold`.
    pub async fn holds(&self) {
        leasehold_tests::within("a request for /hold", self.gates.held.acquire()).await.expect("open").forget();
    }

    /// Lets everybody go who asks for `/hold`, now and later.
    pub fn release(&self) {
        self.gates.hold.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Holds what the survey has done in the world against what it should do, if it asked for `/hold` so many times.
    #[track_caller]
    pub fn assert_effects(&self, holds: usize) {
        let outbox = self.files.path().join("outbox");
        let names: Vec<_> =
            fs::read_dir(&outbox).expect("it is ours").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["survey.txt"]);
        assert_eq!(fs::read_to_string(outbox.join("survey.txt")).expect("it is a text"), "first\nsecond\n");
        let mut asked: Vec<String> = self.web.asked().into_iter().map(|asked| asked.line).collect();
        // Given up after 20 ms, it may not even have begun.
        asked.retain(|line| line != "GET /never");
        asked.sort();
        let mut expected = vec!["GET /fast"];
        expected.extend(vec!["GET /hold"; holds]);
        expected.extend(["GET /missing", "GET /page", "GET /parts", "GET /release", "GET /slow"]);
        expected.push("POST /echo");
        assert_eq!(asked, expected);
        assert_eq!(self.models.asked().len(), 2);
    }
}

impl Gates {
    fn answer(&self, asked: &Asked) -> Reply {
        match asked.line.as_str() {
            "GET /page" => Reply::text(200, asked.header("x-survey").unwrap_or_default()),
            "POST /echo" if asked.header("content-type") == Some("application/json") => Reply::json(200, &asked.body),
            "GET /slow" => Reply::text(200, "slow").after(&self.slow),
            "GET /fast" => Reply::text(200, "fast"),
            "GET /release" => Reply::text(200, "released"),
            "GET /never" => Reply::text(200, "begins").ending(End::Never),
            "GET /parts" => Reply::pieces(&PARTS),
            "GET /hold" => {
                self.held.add_permits(1);
                Reply::text(200, "released").after(&self.hold)
            }
            _ => Reply::text(404, "there is no such page"),
        }
    }
}
