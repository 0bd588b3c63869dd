//! The host's own endpoint, over its listener, with keys of jobs whose gate and money are real.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use leasehold::{
    capability::models::{Context, Models},
    config::Config,
    gateway::{Gateway, GatewaySettings, Meter, Outcome, Problem},
    transport::websocket::{WebSocketConfig, serve_with},
};
use leasehold_core::{
    error::Refusal,
    lease::{
        Authority, Lease, Namespace,
        amount::{Amount, Budget},
        gate::{Denied, Gate, Permit},
        ledger::Reservation,
        operation::UseModel,
        target::{ModelName, Target},
    },
    secret::Secret,
    time::Timestamp,
};
use leasehold_tests::{
    TestHost,
    host::ALICE,
    upstream::{End, Reply, Upstream},
    within,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Notify,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{KEY, models, shown};

/// A job: its gate, what its calls hold back, and how they have ended.
struct Job {
    gate: Mutex<Gate>,
    held: Mutex<BTreeMap<u64, Vec<Reservation>>>,
    ended: Mutex<Vec<Outcome>>,
    settled: Notify,
    over: CancellationToken,
}

impl Job {
    fn new(lease: &[(&str, &str)]) -> Arc<Self> {
        let mut wire: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (namespace, pattern) in lease {
            wire.entry((*namespace).to_owned()).or_default().push((*pattern).to_owned());
        }
        let gate = Gate::new(Authority { lease: Lease::parse(&wire).unwrap(), expires_at: None });
        Arc::new(Self {
            gate: Mutex::new(gate),
            held: Mutex::default(),
            ended: Mutex::default(),
            settled: Notify::new(),
            over: CancellationToken::new(),
        })
    }

    fn cancel(&self) {
        self.gate.lock().unwrap().cancel();
        self.over.cancel();
    }

    fn spent(&self) -> String {
        shown(&self.gate.lock().unwrap().ledger().spent())
    }

    async fn ends(&self) -> Outcome {
        within("a call to be settled", self.settled.notified()).await;
        assert!(self.held.lock().unwrap().is_empty(), "what was reserved is settled");
        self.ended.lock().unwrap().pop().unwrap()
    }
}

#[async_trait]
impl Meter for Job {
    fn permit(&self, op: UseModel) -> Result<Permit<UseModel>, Denied> {
        self.gate.lock().unwrap().permit(Timestamp::from_millis(0), op)
    }

    fn covers(&self, model: &ModelName) -> bool {
        self.gate.lock().unwrap().lease().covers(&Namespace::ModelUse, Target::Model(model))
    }

    async fn reserve(&self, _: &ModelName, price: &Budget) -> Result<u64, Refusal> {
        let mut gate = self.gate.lock().unwrap();
        let held: Result<Vec<Reservation>, _> = price
            .iter()
            .map(|(currency, value)| gate.ledger_mut().reserve(&Amount::new(currency.clone(), *value).unwrap()))
            .collect();
        let mut calls = self.held.lock().unwrap();
        let call = calls.last_key_value().map_or(0, |(last, _)| last + 1);
        calls.insert(call, held?);
        Ok(call)
    }

    fn settle(&self, call: u64, outcome: Outcome) {
        let mut gate = self.gate.lock().unwrap();
        for held in self.held.lock().unwrap().remove(&call).expect("a call is settled once") {
            let actual = outcome.cost.get(held.price().currency()).copied().unwrap_or_default();
            gate.ledger_mut().settle(held, actual).unwrap();
        }
        self.ended.lock().unwrap().push(outcome);
        self.settled.notify_one();
    }

    fn context(&self) -> Context {
        Context {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            ..Context::default()
        }
    }

    async fn over(&self) -> Denied {
        self.over.cancelled().await;
        Denied::Cancelled
    }
}

/// A listener with the endpoint, and one job with a key.
struct Served {
    url: String,
    gateway: Arc<Gateway>,
    job: Arc<Job>,
    key: Secret,
    _stop: DropGuard,
}

impl Served {
    async fn start(models: Models, settings: GatewaySettings, lease: &[(&str, &str)]) -> Self {
        Self::listening(WebSocketConfig::default(), models, settings, lease).await
    }

    async fn listening(
        config: WebSocketConfig,
        models: Models,
        settings: GatewaySettings,
        lease: &[(&str, &str)],
    ) -> Self {
        let gateway = Arc::new(Gateway::new(Arc::new(models), settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let pages = Arc::clone(&gateway);
        tokio::spawn(serve_with(listener, config, Some(pages), |_| async {}, stop.clone()));
        let (job, key) = (Job::new(lease), Gateway::mint());
        gateway.admit("cred_1", &key, Arc::clone(&job) as Arc<dyn Meter>);
        Self { url, gateway, job, key, _stop: stop.drop_guard() }
    }

    /// A request with a key, and the answer's status, headers and JSON.
    async fn ask(&self, method: &str, path: &str, key: &str, body: &str) -> (StatusCode, hyper::HeaderMap, Value) {
        let stream = TcpStream::connect(&self.url).await.unwrap();
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", &self.url);
        let request = request.header("authorization", format!("Bearer {key}"));
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned()))).unwrap();
        let answer = within("an answer", client.send_request(request)).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = within("a body", body.collect()).await.unwrap().to_bytes();
        connection.abort();
        assert!(!String::from_utf8_lossy(&body).contains(KEY));
        (head.status, head.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn chat(&self, fields: Value) -> (StatusCode, Value) {
        let mut body = json!({ "model": "fast", "messages": [{ "role": "user", "content": "three small words" }] });
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, _, body) = self.ask("POST", "/v1/chat/completions", self.key.expose(), &body.to_string()).await;
        (status, body)
    }
}

const LEASE: &[(&str, &str)] = &[("model.use", "tier-fast/*"), ("cost.budget", "USD:1")];

/// ARCP §9.8.3: the lease is what the key is worth.
#[tokio::test]
async fn a_call_with_a_key_is_permitted_metered_and_paid_by_its_job() {
    let upstream = Upstream::openai().await;
    let served = Served::start(models(&upstream, "", ""), GatewaySettings::default(), LEASE).await;
    let (status, answer) = served.chat(json!({})).await;
    assert_eq!((status, &answer["choices"][0]["message"]["content"]), (StatusCode::OK, &json!("three small words")));
    assert_eq!(served.job.ends().await.problem, None);
    assert_eq!(served.job.spent(), "USD:0.000033");
    let sent = upstream.asked().remove(0);
    assert_eq!(sent.header("authorization"), Some(&*format!("Bearer {KEY}")), "the job's key stays here");
    assert!(sent.header("traceparent").is_some());
}

#[tokio::test]
async fn what_a_key_is_not_worth_is_refused_in_the_words_of_openai() {
    let upstream = Upstream::openai().await;
    let other = "[models.\"tier-slow/large\"]\nupstream = \"main\"\noutput_per_mtok = \"USD:1000000\"\n\
                 [models.\"tier-fast/dear\"]\nupstream = \"main\"\noutput_per_mtok = \"USD:1000000\"";
    let models = models(&upstream, "retries_max = 0", other);
    let settings = GatewaySettings { request_bytes_max: 1000, ..GatewaySettings::default() };
    let served = Served::start(models, settings, LEASE).await;
    let spent = || Job::new(&[("model.use", "**"), ("cost.budget", "USD:0")]);
    let (good, poor) = (served.key.expose().to_owned(), Gateway::mint());
    served.gateway.admit("cred_2", &poor, spent());
    let body = |model: &str| format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"x"}}]}}"#);
    let chat = "/v1/chat/completions";
    for (method, path, key, text, status, code) in [
        ("POST", chat, "", body("fast"), 401, "invalid_api_key"),
        ("POST", chat, "lhk_0000", body("fast"), 401, "invalid_api_key"),
        ("GET", "/v1/nothing", "lhk_0000", String::new(), 401, "invalid_api_key"),
        ("POST", chat, &*good, body("tier-slow/large"), 403, "permission_denied"),
        ("POST", chat, &*good, body("nobody/knows"), 403, "permission_denied"), // as if it were there
        ("POST", chat, &*good, body("tier-fast/gone"), 404, "model_not_found"),
        ("POST", chat, &*good, body("tier-fast/dear"), 402, "budget_exhausted"),
        ("POST", chat, poor.expose(), body("fast"), 402, "budget_exhausted"),
        ("POST", chat, &*good, body("a\\u0000b"), 400, "invalid_request"),
        ("POST", chat, &*good, "{".into(), 400, "invalid_request"),
        ("POST", chat, &*good, r#"{"messages":[]}"#.into(), 400, "invalid_request"),
        ("POST", chat, &*good, " ".repeat(1001), 413, "request_too_large"),
        ("GET", chat, &*good, String::new(), 404, "not_found"),
        ("GET", "/v1/models/tier-slow%2Flarge", &*good, String::new(), 404, "model_not_found"),
    ] {
        let (answered, _, answer) = served.ask(method, path, key, &text).await;
        assert_eq!((answered.as_u16(), &answer["error"]["code"]), (status, &json!(code)), "{text}: {answer}");
        assert!(answer["error"]["message"].is_string() && !answer.to_string().contains(good.as_str()), "{answer}");
    }
    assert!(upstream.asked().is_empty());
    upstream.answer(Reply::text(429, "").with("retry-after", "7"));
    let (status, headers, _) = served.ask("POST", chat, &good, &body("fast")).await;
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(served.job.ends().await.cost, Budget::new());
    upstream.answer(Reply::text(401, ""));
    assert_eq!(
        served.ask("POST", chat, &good, &body("fast")).await.0.as_u16(),
        502,
        "a refused host is no refused key"
    );
    assert_eq!(served.job.spent(), "USD:0");
}

#[tokio::test]
async fn a_call_may_take_longer_than_a_handshake_and_a_stranger_may_not_stay() {
    let upstream = Upstream::openai().await;
    let config = WebSocketConfig { handshake_timeout: Duration::from_millis(100), ..WebSocketConfig::default() };
    let models = models(&upstream, "timeout_sec = 1", "");
    let served = Served::listening(config, models, GatewaySettings::default(), LEASE).await;
    upstream.answer(Reply::text(200, "{").ending(End::Never));
    assert_eq!(served.chat(json!({})).await.0, StatusCode::GATEWAY_TIMEOUT);
    let (status, headers, _) = served.ask("GET", "/v1/models", "lhk_wrong", "").await;
    assert_eq!((status, headers["connection"].to_str().unwrap()), (StatusCode::UNAUTHORIZED, "close"));
    let (status, _, _) = served.ask("GET", "/healthz", "", "").await;
    assert_eq!(status, StatusCode::OK, "what was there before still is");
}

#[tokio::test]
async fn a_list_shows_what_the_lease_covers() {
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "[models.\"tier-slow/large\"]\nupstream = \"main\"");
    let served = Served::start(models, GatewaySettings::default(), LEASE).await;
    let (_, _, list) = served.ask("GET", "/v1/models", served.key.expose(), "").await;
    let shown: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(shown, ["tier-fast/small"]);
    let (_, _, model) = served.ask("GET", "/v1/models/tier-fast/small", served.key.expose(), "").await;
    assert_eq!(model["id"], "tier-fast/small");
}

/// ARCP §9.8.2: revoked when its job ends; and the value before a rotation is worth nothing.
#[tokio::test]
async fn a_key_is_worth_nothing_after_its_job_and_after_a_rotation() {
    let upstream = Upstream::openai().await;
    let served = Served::start(models(&upstream, "", ""), GatewaySettings::default(), LEASE).await;
    let fresh = Gateway::mint();
    served.gateway.admit("cred_1", &fresh, Arc::clone(&served.job) as Arc<dyn Meter>);
    assert_eq!(served.chat(json!({})).await.0, StatusCode::UNAUTHORIZED);
    let listed = |key: Secret| async {
        let key = key;
        served.ask("GET", "/v1/models", key.expose(), "").await.0
    };
    assert_eq!(listed(fresh.clone()).await, StatusCode::OK);
    assert!(served.gateway.revoke("cred_1") && !served.gateway.revoke("cred_1"));
    assert_eq!(listed(fresh.clone()).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_call_under_way_ends_with_its_job_and_is_paid_in_full() {
    let upstream = Upstream::openai().await;
    let model = "max_output_tokens = 100";
    for (fields, reply, said) in [
        (json!({}), Reply::text(200, "{").ending(End::Never), Some(StatusCode::FORBIDDEN)),
        (json!({ "stream": true }), Reply::events(&[r#"{"choices":[{}]}"#]).ending(End::Never), None),
    ] {
        let served = Served::start(models(&upstream, "", model), GatewaySettings::default(), LEASE).await;
        upstream.answer(reply);
        let before = upstream.asked().len();
        let call = served.chat(fields);
        let cancel = async {
            within("the upstream to be asked", async {
                while upstream.asked().len() == before {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            served.job.cancel();
        };
        let ((status, _), ()) = tokio::join!(call, cancel);
        assert!(said.is_none_or(|said| said == status), "{status}");
        let outcome = served.job.ends().await;
        assert_eq!(outcome.problem, Some(Problem::Closed(Denied::Cancelled)));
        assert_eq!(served.job.spent(), "USD:0.001119");
    }
}

/// A client that keeps its connection and reads nothing of an answer has no hold on it.
#[tokio::test]
async fn a_stream_that_nobody_reads_ends_with_its_job_and_makes_room() {
    let upstream = Upstream::openai().await;
    let settings = GatewaySettings { calls_max: 1, ..GatewaySettings::default() };
    let served = Served::start(models(&upstream, "", "max_output_tokens = 100"), settings, LEASE).await;
    upstream.answer(Reply::events(&[r#"{"choices":[{}]}"#; 64]).ending(End::Never));
    let body = r#"{"model":"fast","stream":true,"messages":[{"role":"user","content":"three small words"}]}"#;
    let request = Request::post("/v1/chat/completions").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {}", served.key.expose()));
    let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
    let unread = within("an answer", served.gateway.reply(request)).await;
    assert_eq!(unread.headers()["content-type"], "text/event-stream");
    let (status, _) = served.chat(json!({})).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);

    served.job.cancel();
    assert_eq!(served.job.ends().await.problem, Some(Problem::Closed(Denied::Cancelled)));
    let next = Job::new(LEASE);
    let key = Gateway::mint();
    served.gateway.admit("cred_2", &key, Arc::clone(&next) as Arc<dyn Meter>);
    within("a place", async {
        let body = r#"{"model":"fast","messages":[{"role":"user","content":"three small words"}]}"#;
        while served.ask("POST", "/v1/chat/completions", key.expose(), body).await.0 != StatusCode::OK {}
    })
    .await;
    // What it is told, should it read after all, is what there was and why there is no more.
    let told = within("the rest", unread.into_body().collect()).await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&told).trim_end().ends_with('}'), "{told:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_in_a_stream_has_paid_for_it() {
    let upstream = Upstream::openai().await;
    let served =
        Served::start(models(&upstream, "", "max_output_tokens = 100"), GatewaySettings::default(), LEASE).await;
    upstream.answer(Reply::events(&[r#"{"choices":[{}]}"#]).ending(End::Never));
    let stream = TcpStream::connect(&served.url).await.unwrap();
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = r#"{"model":"fast","stream":true,"messages":[{"role":"user","content":"three small words"}]}"#;
    let request = Request::post("/v1/chat/completions").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {}", served.key.expose()));
    let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
    let mut answer = within("an answer", client.send_request(request)).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    within("a chunk", answer.body_mut().frame()).await.unwrap().unwrap();
    connection.abort();
    assert_eq!(served.job.ends().await.problem, Some(Problem::Abandoned));
    assert_eq!(served.job.spent(), "USD:0.001119");
}

#[tokio::test]
async fn as_many_calls_as_there_may_be_and_no_money_twice() {
    let upstream = Upstream::openai().await;
    // A call may cost 0.001119, so three of them can be under way.
    let lease = &[("model.use", "**"), ("cost.budget", "USD:0.0035")];
    for (key_calls_max, status_expected, answered) in [(2, 429, 2), (64, 402, 3)] {
        let models = models(&upstream, "", "max_output_tokens = 100");
        let settings = GatewaySettings { key_calls_max, ..GatewaySettings::default() };
        let served = Served::start(models, settings, lease).await;
        (0..32).for_each(|_| upstream.answer(Reply::text(200, "{").ending(End::Never)));
        let before = upstream.asked().len();
        let mut calls: FuturesUnordered<_> = (0..32).map(|_| served.chat(json!({}))).collect();
        let mut refused = 0;
        while refused < 32 - answered {
            let (status, _) = calls.next().await.unwrap();
            assert_eq!(status.as_u16(), status_expected);
            refused += 1;
        }
        // Those that are under way stay so until their job ends.
        served.job.cancel();
        while calls.next().await.is_some() {}
        assert!(upstream.asked().len() - before <= answered, "{refused} were refused");
        let left = served.job.gate.lock().unwrap().ledger().remaining();
        assert!(left.values().all(|left| !left.is_sign_negative()), "{left:?}");
        upstream.forget();
    }
}

/// The client most programs use, sync and streamed, errors included.
#[tokio::test]
async fn the_openai_client_of_python_works_with_a_key() {
    let Some(python) = python().await else { return };
    let upstream = Upstream::openai().await;
    let models = models(&upstream, "", "[models.\"tier-slow/large\"]\nupstream = \"main\"");
    let served = Served::start(models, GatewaySettings::default(), LEASE).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/client.py");
    let run = Command::new(python)
        .arg(script)
        .env("OPENAI_API_KEY", served.key.expose())
        .env("OPENAI_BASE_URL", format!("http://{}/v1", served.url))
        .output();
    let output = within("the client", run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all is well");
    // Two answers in one piece, two streams.
    assert_eq!(served.job.spent(), "USD:0.000132");
}

/// ARCP §9.8: what a program gets that submits a job and gives the key to a library.
#[tokio::test]
async fn the_openai_client_of_python_works_with_the_key_of_a_running_job() {
    let Some(python) = python().await else { return };
    let upstream = Upstream::openai().await;
    let text = format!(
        "[upstreams.main]\nurl = \"{}/v1\"\nkey = \"{KEY}\"\n[models.\"tier-fast/small\"]\nupstream = \"main\"\n\
         aliases = [\"fast\"]\ninput_per_mtok = \"USD:1\"\noutput_per_mtok = \"USD:10\"\n\
         [models.\"tier-slow/large\"]\nupstream = \"main\"\n[credentials.own.gateway]\n",
        upstream.url()
    );
    let settings = Config::parse(&text).unwrap();
    let ceiling = json!({ "model.use": ["**"], "cost.budget": ["USD:10"] });
    let host = TestHost::builder().policy(ALICE, ceiling).config(move |config| {
        (config.upstreams, config.models) = (settings.upstreams, settings.models);
        config.credentials = settings.credentials;
    });
    let host = host.start().await;
    host.serve().await;
    let mut client = host.session().await;
    let lease = json!({ "model.use": ["tier-fast/*"], "cost.budget": ["USD:1"] });
    let accepted = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(lease).reply().await;
    let credential = &accepted.payload()["credentials"][0];
    let run = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/client.py"))
        .env("OPENAI_API_KEY", credential["value"].as_str().unwrap())
        .env("OPENAI_BASE_URL", credential["endpoint"].as_str().unwrap())
        .output();
    let output = within("the client", run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all is well");
}

/// Python with the package `openai`; none where nothing can be installed.
async fn python() -> Option<std::path::PathBuf> {
    // Two that install into one folder would be in each other's way.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-python");
    let python = dir.join("bin/python");
    let imports = |python: &Path| Command::new(python).args(["-c", "import openai"]).output();
    if imports(&python).await.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let venv = Command::new("python3").args(["-m", "venv"]).arg(&dir).status().await;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "openai==2.*"];
    let installed = venv.is_ok() && Command::new(&python).args(pip).status().await.is_ok_and(|status| status.success());
    match installed {
        true => Some(python),
        false if std::env::var_os("CI").is_some() => panic!("the package `openai` of PyPI cannot be installed"),
        false => {
            eprintln!("skipped: the package `openai` of PyPI cannot be installed");
            None
        }
    }
}
