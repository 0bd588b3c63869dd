//! Fetches from servers that are real, under names that are not: the network between them is the tests' own.

use std::{collections::BTreeMap, convert::Infallible, future::ready, io, net::Ipv4Addr, sync::Mutex};

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full};
use hyper::{server, service::service_fn};
use leasehold_core::{
    error::ErrorCode,
    lease::{Authority, Lease, gate::Gate},
    time::Timestamp,
};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::*;

/// What a server was asked.
#[derive(Clone, Debug, Default)]
struct Asked {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(said, _)| said == name).map(|(_, value)| &**value)
    }
}

type Answer = HttpResponse<Full<Bytes>>;
type Seen = Arc<Mutex<Vec<Asked>>>;

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let builder = HttpResponse::builder().status(status);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

async fn serve<S>(stream: S, seen: Seen, respond: fn(&Asked) -> Answer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let asked = Asked {
                method: head.method.to_string(),
                uri: head.uri.to_string(),
                headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
                body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
            };
            let answer = respond(&asked);
            seen.lock().unwrap().push(asked);
            Ok::<_, Infallible>(answer)
        }
    });
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Names, and the ports of this machine that answer for them: each name has a public address of its own.
#[derive(Default)]
struct Names {
    names: Vec<(&'static str, u16)>,
    lookups: Mutex<Vec<String>>,
}

#[async_trait]
impl Network for Arc<Names> {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.lock().unwrap().push(host.to_owned());
        let found = self.names.iter().position(|(name, _)| *name == host);
        let at = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(vec![IpAddr::from([93, 184, 216, u8::try_from(at).unwrap()])])
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let IpAddr::V4(v4) = address.ip() else { return Err(io::ErrorKind::HostUnreachable.into()) };
        let (_, port) = self.names[usize::from(v4.octets()[3])];
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await
    }
}

/// Two origins over one server, `a.test` and `b.test`, and one of TLS, `tls.test`.
struct House {
    seen: Seen,
    names: Arc<Names>,
    fetches: Fetches,
    gate: Gate,
    _roots: tempfile::TempDir,
}

impl House {
    async fn new(grants: &[&str], respond: fn(&Asked) -> Answer) -> Self {
        Self::with(grants, Settings::default(), respond).await
    }

    async fn with(grants: &[&str], mut settings: Settings, respond: fn(&Asked) -> Answer) -> Self {
        let seen = Seen::default();
        let made = rcgen::generate_simple_self_signed(["tls.test".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("roots.pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let plain = listen(Arc::clone(&seen), respond, None).await;
        let secure = listen(Arc::clone(&seen), respond, Some(TlsAcceptor::from(Arc::new(tls)))).await;
        let names = vec![("a.test", plain), ("b.test", plain), ("tls.test", secure), ("wrong.test", secure)];
        let names = Arc::new(Names { names, lookups: Mutex::default() });
        settings.roots.get_or_insert("roots.pem".into());
        settings.settle(dir.path());
        let web = Web::with(settings, Arc::clone(&names)).unwrap();
        let texts = grants.iter().map(ToString::to_string).collect();
        let lease = Lease::parse(&BTreeMap::from([("net.fetch".to_owned(), texts)])).unwrap();
        let gate = Gate::new(Authority { lease, expires_at: None });
        Self { seen, names, fetches: web.of_a_job(), gate, _roots: dir }
    }

    async fn fetch(&self, method: &str, url: &str, request: Request) -> Result<Response, WebError> {
        let permit = |fetch| self.gate.permit(Timestamp::from_millis(0), fetch);
        let first = permit(Fetch::parse(method, url).unwrap()).unwrap();
        self.fetches.open(first, request, |fetch| ready(permit(fetch))).await
    }

    async fn text(&self, method: &str, url: &str, request: Request) -> String {
        let response = self.fetch(method, url, request).await.unwrap();
        String::from_utf8(response.body.all(u64::MAX).await.unwrap().to_vec()).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn listen(seen: Seen, respond: fn(&Asked) -> Answer, tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, tls) = (Arc::clone(&seen), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => serve(stream, seen, respond).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, seen, respond).await;
                        }
                    }
                }
            });
        }
    });
    port
}

fn headers(headers: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn config(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

fn hello(_: &Asked) -> Answer {
    answer(200, &[("X-Said", "yes"), ("keep-alive", "timeout=5")], "hello")
}

#[tokio::test]
async fn a_fetch_says_what_it_was_told_to_and_gives_back_what_came() {
    let house = House::new(&["http://a.test:8080/**"], hello).await;
    let request = Request {
        headers: headers(&[("X-One", " 1 "), ("x-one", "2"), ("user-agent", "mine")]),
        body: Bytes::from_static(b"body"),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..Request::default()
    };
    let response = house.fetch("put", "http://a.test:8080//x/%41?q=%2f#part", request).await.unwrap();
    assert_eq!((response.status, response.url.as_str()), (200, "http://a.test:8080//x/A?q=%2f"));
    let told: Vec<&str> = response.headers.iter().map(|(name, _)| &**name).collect();
    assert!(told.contains(&"x-said") && !told.contains(&"keep-alive"), "{told:?}");
    assert_eq!(response.body.all(u64::MAX).await.unwrap(), "hello");
    let [asked] = &house.asked()[..] else { panic!("one request") };
    assert_eq!((&*asked.method, &*asked.uri, &*asked.body), ("PUT", "//x/A?q=%2f", &b"body"[..]));
    for (name, expected) in [
        ("host", Some("a.test:8080")),
        ("content-length", Some("4")),
        ("x-one", Some("1")),
        ("user-agent", Some("mine")),
        ("accept", Some("*/*")),
        ("connection", Some("close")),
        ("accept-encoding", None),
        ("traceparent", Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    ] {
        assert_eq!(asked.header(name), expected, "{name}");
    }
    assert_eq!(asked.headers.iter().filter(|(name, _)| name == "x-one").count(), 2);
}

/// The network of this machine, where `localhost` is what it is everywhere.
#[tokio::test]
async fn loopback_is_reached_where_the_operator_says_so() {
    let port = listen(Seen::default(), hello, None).await;
    let house = House::new(&["**"], hello).await;
    for (allow, host, expected) in [
        ("allow = ['127.0.0.0/8']", "localhost", true),
        ("allow = ['127.0.0.1']", "127.0.0.1", true),
        ("allow = ['127.0.0.2']", "127.0.0.1", false),
        ("", "localhost", false),
        ("", "127.0.0.1", false),
        ("", "[::1]", false),
    ] {
        let fetches = Web::new(config(allow)).unwrap().of_a_job();
        let permit = |fetch| house.gate.permit(Timestamp::from_millis(0), fetch);
        let first = permit(Fetch::parse("GET", &format!("http://{host}:{port}/")).unwrap()).unwrap();
        match fetches.open(first, Request::default(), |fetch| ready(permit(fetch))).await {
            Ok(response) => assert!(expected && response.status == 200, "{allow} {host}"),
            Err(WebError::Address { host: named }) => assert!(!expected && named == host, "{allow} {host}"),
            Err(error) => panic!("{allow} {host}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_request_without_a_body_says_so_where_one_could_be() {
    let house = House::new(&["**"], hello).await;
    for (method, expected) in [("GET", None), ("HEAD", None), ("DELETE", None), ("POST", Some("0")), ("PUT", Some("0"))]
    {
        house.fetch(method, "http://a.test/", Request::default()).await.unwrap();
        assert_eq!(house.asked()[0].header("content-length"), expected, "{method}");
    }
}

#[tokio::test]
async fn tls_is_with_whom_the_url_names_and_the_operator_can_add_authorities() {
    let house = House::new(&["**"], hello).await;
    assert_eq!(house.text("GET", "https://tls.test/", Request::default()).await, "hello");
    let error = house.fetch("GET", "https://wrong.test/", Request::default()).await.unwrap_err();
    assert!(matches!(error, WebError::Tls { .. }), "{error}");
    let error = house.fetch("GET", "https://a.test/", Request::default()).await.unwrap_err();
    assert!(matches!(error, WebError::Tls { .. }), "plain HTTP where TLS should be: {error}");
    // Without the file, nobody vouches for it.
    let web = Web::with(Settings::default(), Arc::clone(&house.names)).unwrap();
    let house = House { fetches: web.of_a_job(), ..house };
    let error = house.fetch("GET", "https://tls.test/", Request::default()).await.unwrap_err();
    assert_eq!(error.to_string().split(": ").next(), Some("there is no secure connection to `tls.test`"));
    assert_eq!(ErrorCode::from(&error), ErrorCode::InternalError);
}

#[test]
fn settings_that_cannot_be_used_say_where() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("empty.pem"), "nothing").unwrap();
    for (text, expected) in [
        ("roots = 'missing.pem'", "missing.pem"),
        ("roots = 'empty.pem'", "it holds no certificate"),
        ("inject.'a.test/**'.headers = {}", "net.inject.\"a.test/**\": `a.test/**` is not a pattern"),
        ("inject.'**'.headers.host = 'b.test'", "headers.host: the header `host` cannot be sent"),
        ("inject.'**'.headers.'x y' = 'b'", "headers.x y: the header `x y` cannot be sent: its name"),
        ("inject.'**'.headers.x = \"tk-secret\\r\\ny: 1\"", "headers.x: the header `x` cannot be sent: its value"),
        ("inject.'**'.headers.x = ''", "headers.x: it is empty"),
        ("inject.'**'.headers.x = { env = 'LEASEHOLD_TEST_NO_SUCH_VARIABLE' }", "LEASEHOLD_TEST_NO_SUCH_VARIABLE"),
    ] {
        let mut settings = config(text);
        settings.settle(dir.path());
        let error = Web::new(settings).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("tk-secret"), "{text}: {error}");
    }
    for text in ["allow = ['10.0.0.1/8']", "allow = ['a.test']", "timeout = 3", "inject.'**'.header.x = 'y'"] {
        assert!(toml::from_str::<Settings>(text).is_err(), "{text}");
    }
    let shown = format!("{:?}", config("inject.'**'.headers.x = 'tk-secret'"));
    assert!(!shown.contains("tk-secret"), "{shown}");
}

/// The path says what to answer: `/302/http://b.test/x` is a redirect to there.
fn redirecting(asked: &Asked) -> Answer {
    match asked.uri.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some((status, location)) if status.len() == 3 => {
            answer(status.parse().unwrap(), &[("location", location)], "moved")
        }
        _ => answer(200, &[], "there"),
    }
}

#[tokio::test]
async fn a_redirect_changes_the_method_and_the_body_as_in_a_browser() {
    let house = House::new(&["**"], redirecting).await;
    for (method, status, expected, body) in [
        ("GET", 301, "GET", ""),
        ("POST", 301, "GET", ""),
        ("PUT", 301, "PUT", "data"),
        ("POST", 302, "GET", ""),
        ("DELETE", 302, "DELETE", "data"),
        ("POST", 303, "GET", ""),
        ("PUT", 303, "GET", ""),
        ("HEAD", 303, "HEAD", ""),
        ("POST", 307, "POST", "data"),
        ("POST", 308, "POST", "data"),
        ("PATCH", 308, "PATCH", "data"),
    ] {
        let sent = if matches!(method, "GET" | "HEAD") { "" } else { "data" };
        let request = Request {
            headers: headers(&[("content-type", "text/plain"), ("x-kept", "1")]),
            body: Bytes::from(sent),
            redirects: 1,
            ..Request::default()
        };
        let response = house.fetch(method, &format!("http://a.test/{status}/http://a.test/there"), request).await;
        assert_eq!(response.unwrap().redirects, ["http://a.test/there"], "{method} {status}");
        let asked = house.asked();
        let last = &asked[1];
        assert_eq!((&*last.method, &*last.body), (expected, body.as_bytes()), "{method} {status}");
        let kept = last.header("content-type").is_some();
        assert_eq!(kept, expected == method, "{method} {status}: what describes the body goes with it");
        assert_eq!(last.header("x-kept"), Some("1"), "{method} {status}");
    }
}

#[tokio::test]
async fn what_was_meant_for_one_origin_does_not_reach_another_nor_come_back() {
    let house = House::new(&["**"], redirecting).await;
    for (to, expected) in [
        ("http://a.test/x", true),
        ("/x", true),
        ("http://b.test/x", false),
        ("http://a.test:8080/x", false),
        ("https://tls.test/x", false),
        ("http://b.test/302/http://a.test/x", false),
    ] {
        let request = Request {
            headers: headers(&[("Authorization", "Bearer mine"), ("Cookie", "a=b"), ("x-other", "1")]),
            redirects: 5,
            ..Request::default()
        };
        house.fetch("GET", &format!("http://a.test/302/{to}"), request).await.unwrap();
        let asked = house.asked();
        let last = asked.last().unwrap();
        assert_eq!(asked[0].header("authorization"), Some("Bearer mine"));
        let has = (last.header("authorization").is_some(), last.header("cookie").is_some());
        assert_eq!(has, (expected, expected), "{to}");
        assert_eq!(last.header("x-other"), Some("1"), "{to}");
    }
}

#[tokio::test]
async fn a_redirect_needs_a_grant_of_its_own_and_a_url_that_is_one() {
    // What stands in a path is not what a server may write, so this one is told by a header.
    let house = House::new(&["http://a.test/**", "https://tls.test/**"], |asked| match asked.uri.as_str() {
        "/go" => answer(302, &[("location", asked.header("x-to").unwrap_or_default())], ""),
        _ => redirecting(asked),
    });
    let house = house.await;
    for (to, redirects, expected) in [
        ("http://a.test/x", 1, Ok("http://a.test/x")),
        ("x/../../../y", 1, Ok("http://a.test/y")),
        ("//a.test/x", 1, Ok("http://a.test/x")),
        ("?q", 1, Ok("http://a.test/go?q")),
        ("https://tls.test/302/http://a.test/x", 2, Ok("http://a.test/x")), // down from TLS, and granted
        ("https://tls.test/302/http://b.test/x", 2, Err("the lease grants no net.fetch on http://b.test/x")),
        ("http://b.test/x", 1, Err("the lease grants no net.fetch on http://b.test/x")),
        ("http://a.test/302/x", 1, Err("there were more than 1 redirects")),
        ("ftp://a.test/x", 1, Err("the redirect was not followed: it leads to `ftp:`")),
        ("file:///etc/passwd", 1, Err("the redirect was not followed: it leads to `file:`")),
        ("javascript:alert(1)", 1, Err("the redirect was not followed: it leads to `javascript:`")),
        ("data:,x", 1, Err("the redirect was not followed: it leads to `data:`")),
        ("http://me@a.test/x", 1, Err("the redirect was not followed: ")),
        ("http://a.test\\@b.test/x", 1, Err("the redirect was not followed: its location holds a control")),
        ("http://a.test/%2e%2e%2fx", 1, Err("the redirect was not followed: ")),
        ("http://", 1, Err("the redirect was not followed: its location is no URL")),
    ] {
        let request = Request { headers: headers(&[("x-to", to)]), redirects, ..Request::default() };
        let outcome = house.fetch("GET", "http://a.test/go", request).await;
        match (outcome, expected) {
            (Ok(response), Ok(url)) => assert_eq!(response.url.as_str(), url, "{to}"),
            (Err(error), Err(said)) => assert!(error.to_string().starts_with(said), "{to}: {error}"),
            (outcome, _) => panic!("{to}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_redirect_that_is_not_to_be_followed_is_an_answer() {
    let house = House::new(&["**"], redirecting).await;
    let response = house.fetch("GET", "http://a.test/302/http://b.test/", Request::default()).await.unwrap();
    assert_eq!((response.status, response.redirects.len()), (302, 0));
    assert_eq!(response.body.all(u64::MAX).await.unwrap(), "moved");
    for status in [300, 304, 305] {
        let request = Request { redirects: 5, ..Request::default() };
        let response = house.fetch("GET", &format!("http://a.test/{status}/http://b.test/"), request).await;
        assert_eq!(response.unwrap().status, status);
    }
}

#[tokio::test]
async fn every_hop_looks_its_name_up_once() {
    let house = House::new(&["**"], redirecting).await;
    let request = Request { redirects: 2, ..Request::default() };
    house.fetch("GET", "http://a.test/302/http://b.test/302/http://a.test/x", request).await.unwrap();
    assert_eq!(*house.names.lookups.lock().unwrap(), ["a.test", "b.test", "a.test"]);
}

const INJECT: &str = r#"
    [inject."http://a.test/**"]
    headers = { authorization = "Bearer tk-0123456789", x-key = "kk-abcdefgh" }
    [inject."http://a.test/deep/**"]
    headers = { x-key = "kk-of-the-deep" }
"#;

/// Repeats every header and the body it was asked with.
fn echoing(asked: &Asked) -> Answer {
    match asked.header("x-to") {
        Some(to) if asked.uri == "/go" => return answer(302, &[("location", to)], ""),
        Some("secret") => {
            let key = asked.header("x-key").unwrap_or_default();
            return answer(302, &[("location", &format!("http://b.test/?{key}"))], "");
        }
        _ => {}
    }
    let said: Vec<String> = asked.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let bare = asked.header("authorization").and_then(|value| value.split(' ').nth(1)).unwrap_or_default();
    answer(200, &[("x-echo", &said.join("; ")), ("x-bare", &format!("<{bare}>"))], &said.join("\n").repeat(3000))
}

#[tokio::test]
async fn a_header_of_the_operator_is_sent_and_never_seen() {
    let house = House::with(&["**"], config(INJECT), echoing).await;
    let mine = headers(&[("Authorization", "Bearer mine"), ("X_Key", "mine"), ("x-key", "mine")]);
    for (url, authorization, key) in [
        ("http://a.test/x", "Bearer tk-0123456789", "kk-abcdefgh"),
        ("http://a.test/deep/x", "Bearer tk-0123456789", "kk-of-the-deep"), // the longer pattern wins
        ("http://b.test/x", "Bearer mine", "mine"),
    ] {
        let request = Request { headers: mine.clone(), ..Request::default() };
        let response = house.fetch("GET", url, request).await.unwrap();
        let asked = house.asked().pop().unwrap();
        assert_eq!(asked.header("authorization"), Some(authorization), "{url}");
        assert_eq!(asked.header("x-key"), Some(key), "{url}");
        let keys: Vec<&str> = asked.headers.iter().map(|(name, _)| &**name).filter(|n| n.contains("key")).collect();
        assert_eq!(keys.contains(&"x_key"), url.contains("b.test"), "{url}: what CGI takes for the same goes, too");
        let values = response.headers.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let mut told: String = values.collect();
        told.push_str(&String::from_utf8_lossy(&response.body.all(u64::MAX).await.unwrap()));
        for secret in ["tk-0123456789", "kk-abcdefgh", "kk-of-the-deep"] {
            assert!(!told.contains(secret), "{url}: {secret}");
        }
        assert!(told.contains("host="), "{url}: the rest is there");
    }
}

#[tokio::test]
async fn a_header_of_the_operator_is_decided_anew_for_every_hop() {
    let house = House::with(&["**"], config(INJECT), echoing).await;
    for (from, to, expected) in [
        ("http://a.test/go", "http://b.test/x", None),
        ("http://b.test/go", "http://a.test/x", Some("Bearer tk-0123456789")),
        ("http://a.test/go", "/x", Some("Bearer tk-0123456789")),
    ] {
        let request = Request { headers: headers(&[("x-to", to)]), redirects: 1, ..Request::default() };
        house.fetch("GET", from, request).await.unwrap();
        assert_eq!(house.asked()[1].header("authorization"), expected, "{from} to {to}");
    }
    // A server that would have the agent carry the secret away in a URL.
    let request = Request { headers: headers(&[("x-to", "secret")]), redirects: 1, ..Request::default() };
    let error = house.fetch("GET", "http://a.test/x", request).await.unwrap_err();
    assert!(matches!(error, WebError::Redirect { .. }) && !format!("{error} {error:?}").contains("kk-"), "{error:?}");
    // And where it is only looked at.
    let request = Request { headers: headers(&[("x-to", "secret")]), ..Request::default() };
    let response = house.fetch("GET", "http://a.test/x", request).await.unwrap();
    assert!(response.headers.iter().any(|(_, value)| value == b"http://b.test/?***********"), "{response:?}");
}

#[tokio::test]
async fn a_secret_is_covered_wherever_a_body_is_cut() {
    let house = House::with(&["**"], config(INJECT), echoing).await;
    let mut response = house.fetch("GET", "http://a.test/x", Request::default()).await.unwrap();
    let (mut whole, mut parts) = (Vec::new(), 0);
    while let Some(part) = response.body.next().await.unwrap() {
        assert!((1..=PART_BYTES_MAX).contains(&part.len()));
        whole.extend_from_slice(&part);
        parts += 1;
    }
    let text = String::from_utf8(whole).unwrap();
    assert!(parts > 3 && !text.contains("tk-0123456789"), "{parts}");
    assert_eq!(text.matches(&"*".repeat("Bearer tk-0123456789".len())).count(), 3000, "each is covered, none is lost");
}

#[tokio::test]
async fn a_request_over_a_limit_is_refused_before_anything_is_sent() {
    let settings = config("request_bytes_max = 10\nheaders_bytes_max = 42\nheaders_max = 6");
    let house = House::with(&["**"], settings, hello).await;
    let long = "v".repeat(30);
    for (fields, body, expected) in [
        (&[][..], "0123456789", None),
        (&[], "0123456789a", Some("the request's body is larger than 10 bytes")),
        (&[("a", "1"); 6], "", None),
        (&[("a", "1"); 7], "", Some("the request has more than 6 pieces of headers")),
        (&[("abcdefgh", &*long)], "", None),
        (&[("abcdefghi", &*long)], "", Some("the request has more than 42 bytes of headers")),
    ] {
        let request = Request { headers: headers(fields), body: Bytes::from(body), ..Request::default() };
        let error = house.fetch("POST", "http://a.test/", request).await.err();
        assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
        if let (Some(error), Some(expected)) = (error, expected) {
            assert!(error.to_string().starts_with(expected), "{error}");
            assert_eq!(ErrorCode::from(&error), ErrorCode::InvalidRequest);
            assert!(house.asked().is_empty());
        }
        house.asked();
    }
}

#[tokio::test]
async fn what_this_host_does_not_do_is_refused_before_anything_is_sent() {
    let house = House::new(&["**", "s3://reports/**"], hello).await;
    for (method, url, expected) in [
        ("TRACE", "http://a.test/", "the method TRACE is not allowed"),
        ("track", "http://a.test/", "the method TRACK is not allowed"),
        ("GET", "s3://reports/x", "this host fetches http and https, not `s3`"),
        ("GET", "ftp://a.test/x", "this host fetches http and https, not `ftp`"),
        ("GET", "http://nowhere.test/", "the name `nowhere.test` cannot be resolved"),
    ] {
        let error = house.fetch(method, url, Request::default()).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    assert!(house.asked().is_empty());
}

#[tokio::test]
async fn a_body_that_is_larger_than_asked_for_can_be_read_in_parts() {
    let big = |_: &Asked| answer(200, &[], &"x".repeat(300_000));
    let house = House::with(&["**"], config("response_bytes_max = 200000"), big).await;
    let open = || house.fetch("GET", "http://a.test/", Request::default());
    let error = open().await.unwrap().body.all(u64::MAX).await.unwrap_err();
    assert!(error.is_too_large() && error.to_string().contains("200000 bytes: read it in parts"), "{error}");
    let mut body = open().await.unwrap().body;
    let mut taken = 0;
    while let Some(part) = body.next().await.unwrap() {
        taken += part.len();
    }
    assert_eq!(taken, 300_000);
    let house = House::with(&["**"], config("stream_bytes_max = 100000"), big).await;
    let mut body = house.fetch("GET", "http://a.test/", Request::default()).await.unwrap().body;
    let error = loop {
        if let Err(error) = body.next().await {
            break error;
        }
    };
    assert!(error.is_too_large(), "{error}");
}

#[tokio::test]
async fn all_bodies_together_have_one_room_and_give_it_back() {
    let big = |_: &Asked| answer(200, &[], &"x".repeat(300_000));
    let house = House::with(&["**"], config("buffers_bytes_max = 800000"), big).await;
    let open = || house.fetch("GET", "http://a.test/", Request::default());
    let first = open().await.unwrap().body.all(u64::MAX).await.unwrap();
    assert_eq!(first.len(), 300_000);
    let error = open().await.unwrap().body.all(u64::MAX).await.unwrap_err();
    assert!(matches!(error, WebError::Busy), "{error}");
    drop(first);
    assert_eq!(open().await.unwrap().body.all(u64::MAX).await.unwrap().len(), 300_000);
    let request = Request { body: Bytes::from(vec![0; 800_001]), ..Request::default() };
    let error = house.fetch("POST", "http://a.test/", request).await.unwrap_err();
    assert!(matches!(error, WebError::Busy), "{error}");
}

#[tokio::test]
async fn a_job_that_holds_its_places_waits_for_itself_and_for_nobody_else() {
    let big = |_: &Asked| answer(200, &[], &"x".repeat(3_000_000));
    let house = House::with(&["**"], config("job_fetches_max = 2"), big).await;
    let other = house.fetches.web.of_a_job();
    let permit = |fetch| house.gate.permit(Timestamp::from_millis(0), fetch);
    let open = |fetches: Fetches| {
        let first = permit(Fetch::parse("GET", "http://a.test/").unwrap()).unwrap();
        let request = Request { timeout: Some(Duration::from_millis(500)), ..Request::default() };
        async move { fetches.open(first, request, |fetch| ready(permit(fetch))).await }
    };
    let held = (open(house.fetches.clone()).await.unwrap(), open(house.fetches.clone()).await.unwrap());
    // Its deadline comes while it waits; the two give their places back at theirs, though nobody reads or drops them.
    let (third, others) = tokio::join!(open(house.fetches.clone()), open(other));
    assert_eq!(others.unwrap().status, 200);
    if let Err(error) = third {
        assert!(matches!(error, WebError::Timeout { .. }), "{error}");
    }
    assert_eq!(open(house.fetches.clone()).await.unwrap().status, 200);
    let mut body = held.0.body;
    let error = loop {
        match body.next().await {
            Ok(part) => assert!(part.is_some(), "it did not come to its end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WebError::Timeout { .. }), "{error}");
}
