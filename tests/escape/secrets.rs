//! A token is used and never written down, and neither is a key of a job.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use leasehold::{secrets::SecretSource, transport::websocket};
use leasehold_core::secret::Secret;
use leasehold_tests::{
    RawClient, TestHost,
    host::{ALICE, BOB, token},
    program::{Serve, run},
    raw::hello,
    within,
};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::{assert_without, everything_in};

/// A token of the host's.
const TOKEN: &str = "tk-known-5f0d7c1b-secret";

/// A token of some other host, given to this one by mistake; it is as secret.
const STRAY: &str = "tk-stray-91ab44ce-secret";

static LINES: AtomicUsize = AtomicUsize::new(0);
static LEAKS: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

/// Looks at every line of the log, of every level, and keeps what must not be there.
struct Watch;

impl io::Write for Watch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(line);
        if text.contains(TOKEN) || text.contains(STRAY) || text.contains("resume_token") {
            LEAKS.lock().expect("nobody panics with it").push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Watch {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Every way to present a token, rightly and wrongly, over a real socket, with a store in a real file.
#[tokio::test]
async fn a_token_is_in_no_log_no_file_and_no_answer() {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Watch).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no other test of this suite listens");
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let data_dir = data.path().to_owned();
    let host = TestHost::builder()
        .sqlite()
        .config(|config| {
            config.tokens.insert("carol".to_owned(), SecretSource::Text(Secret::new(TOKEN)));
            config.server.data = data_dir;
        })
        .start()
        .await;
    let url = host.serve_url().await;
    let connect = async || {
        let transport = within("a connection", websocket::connect(&url, &websocket::WebSocketConfig::default())).await;
        RawClient::new(transport.expect("the host listens"))
    };

    // Rightly.
    let mut carol = connect().await;
    let welcome = carol.open(TOKEN).await;
    assert_without(&welcome.to_string(), TOKEN, "the welcome");
    let run = carol.submit("hostile").input(json!({"do": "job"})).run().await;
    assert_without(&format!("{run:?}"), TOKEN, "a job");
    let run = carol.submit("hostile").input(json!({"do": "ambient"})).run().await;
    assert_without(&format!("{run:?}"), TOKEN, "a job");

    // Wrongly: each of these is refused, and the answer does not repeat what was said.
    let hello = |auth: Value| {
        let capabilities = json!({"encodings": ["json"], "features": []});
        json!({"client": {"name": "t", "version": "1"}, "auth": auth, "capabilities": capabilities})
    };
    let frame = |payload: Value| json!({"arcp": "1.1", "id": "request-1", "type": "session.hello", "payload": payload});
    for text in [
        frame(hello(json!({"scheme": "bearer", "token": STRAY}))).to_string(),
        frame(hello(json!({"scheme": STRAY, "token": TOKEN}))).to_string(),
        frame(hello(json!({"scheme": "bearer", "token": [TOKEN]}))).to_string(),
        frame(hello(json!({"scheme": "bearer", "token": {"value": TOKEN}}))).to_string(),
        frame(hello(json!(format!("Bearer {TOKEN}")))).to_string(),
        frame(hello(json!([STRAY]))).to_string(),
        frame(json!({"auth": {"scheme": "bearer", "token": TOKEN}, "client": TOKEN})).to_string(),
        frame(json!(TOKEN)).to_string(),
        frame(hello(json!({"scheme": "bearer", "token": TOKEN}))).to_string().replace('}', ""),
        json!({"arcp": "1.1", "id": "request-1", "type": "job.submit", "payload": {"token": STRAY}}).to_string(),
        TOKEN.to_owned(),
        json!(TOKEN).to_string(),
    ] {
        let mut client = connect().await;
        assert_eq!(client.id(), "request-1");
        client.send_text(text.clone()).await;
        let mut answers = String::new();
        while let Ok(answer) = client.recv_or_close().await {
            answers.push_str(&answer.to_string());
        }
        assert!(!answers.is_empty(), "{text}: the host says why");
        assert_without(&answers, TOKEN, &format!("the answer to {text}"));
        assert_without(&answers, STRAY, &format!("the answer to {text}"));
    }

    // In the header, where a proxy or a browser puts it.
    let address = url.trim_start_matches("ws://").trim_end_matches("/arcp").parse().expect("an address");
    for token in [TOKEN, STRAY] {
        let bearer = format!("Bearer {token}");
        let (_stream, head) = leasehold_tests::http::upgrade(address, "/arcp", &[("Authorization", &bearer)]).await;
        assert_without(&head, token, "the answer's head");
        let query = format!("/arcp?token={token}");
        let (_stream, head) = leasehold_tests::http::upgrade(address, &query, &[]).await;
        assert_without(&head, token, "the answer's head");
        let (_stream, head) = leasehold_tests::http::upgrade(address, &format!("/{token}"), &[]).await;
        assert_without(&head, token, "the answer's head");
    }

    let journals = everything_in(&**host.host().store()).await;
    assert!(journals.contains("carol"), "the journals were read");
    assert_without(&journals, TOKEN, "the store");
    assert_without(&journals, STRAY, "the store");
    let journal = host.folder("");
    for dir in [data.path(), &journal] {
        for entry in std::fs::read_dir(dir).expect("the data folder is there").flatten() {
            if entry.path().is_file() {
                let bytes = std::fs::read(entry.path()).expect("a file of the host's can be read");
                let text = String::from_utf8_lossy(&bytes);
                assert_without(&text, TOKEN, &entry.path().display().to_string());
            }
        }
    }
    host.stop().await;
    assert!(LINES.load(Ordering::Relaxed) > 20, "the log was watched");
    assert_eq!(*LEAKS.lock().expect("nobody panics with it"), Vec::<String>::new());
}

/// Makes keys that are counted, and notes which of them it is to revoke.
const MAKER: &str = r#"
asked=$(cat)
case "$asked" in
*'"issue"'*)
    echo >> "$0.made"
    printf '{"value": "sk-minted-%s-secret", "endpoint": "https://a.test/v1"}\n' "$(wc -l < "$0.made" | tr -d ' ')" ;;
*) echo "$asked" >> "$0.revoked"; echo '{}' ;;
esac
"#;

/// What every value begins with.
const MINTED: &str = "sk-minted-";

/// ARCP §14, §9.8.2: a key that is rotated because a real host was killed and its value lost is shown to its client, and is
/// in nothing that anybody can print, export or read.
#[tokio::test]
async fn a_key_of_a_job_and_the_one_after_it_are_in_no_file_no_export_and_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let [maker, settings, data] = ["maker", "leasehold.toml", "data"].map(|name| dir.path().join(name));
    fs::write(&maker, MAKER).unwrap();
    let text = format!(
        "[policy.alice.lease]\n\"model.use\" = [\"**\"]\n[policy.bob]\nobserves = [\"alice\"]\n\
         [upstreams.main]\nurl = \"http://127.0.0.1:9/v1\"\n[models.small]\nupstream = \"main\"\n\
         [credentials.mine]\ncommand.command = [\"sh\", \"{}\"]\n",
        maker.display()
    );
    fs::write(&settings, text).unwrap();
    let settings = settings.display().to_string();
    let serve = async || Serve::on(&data).await.args(["--config", &settings, "--log", "trace"]);
    let connect = async |url: &str| {
        let transport = within("a connection", websocket::connect(url, &websocket::WebSocketConfig::default())).await;
        RawClient::new(transport.expect("the host listens"))
    };
    let submit = async |client: &mut RawClient| {
        let submit = client.submit("sleeper").input(json!({ "sec": 1000 })).lease(json!({ "model.use": ["small"] }));
        submit.key("once").reply().await.payload().clone()
    };

    let host = serve().await.start().await;
    let url = host.url.clone();
    let mut client = connect(&url).await;
    let welcome = client.open(&token(ALICE)).await;
    let accepted = submit(&mut client).await;
    assert_eq!(accepted["credentials"][0]["value"], "sk-minted-1-secret", "{accepted}");
    let (job, id) = (accepted["job_id"].as_str().unwrap(), accepted["credentials"][0]["id"].as_str().unwrap());
    let killed = host.kill().await;
    for sealed in fs::read_dir(data.join("credentials")).unwrap() {
        fs::remove_file(sealed.unwrap().path()).unwrap();
    }

    let host = serve().await.in_place_of(&url).start().await;
    let mut client = connect(&url).await;
    let mut returning = hello(&token(ALICE));
    returning["resume"] = json!({
        "session_id": welcome["session_id"], "resume_token": welcome["resume_token"], "last_event_seq": 0,
    });
    client.open_with(returning).await;
    let rotated = client.find(|frame| frame["payload"]["body"]["phase"] == "credential_rotated").await;
    let rotated = &rotated["payload"]["body"];
    assert_eq!((&rotated["id"], &rotated["value"]), (&json!(id), &json!("sk-minted-2-secret")));
    let mut bob = connect(&url).await;
    bob.open(&token(BOB)).await;
    bob.request("job.subscribe", json!({ "job_id": job, "history": true })).await.outcome().unwrap();
    let listed = bob.request("session.list_jobs", json!({})).await.payload().to_string();
    let at = data.display().to_string();
    let mut said = vec![run(["credentials", "--json", "--data", &at]).await.exits(0).stdout];
    assert!(said[0].contains(id), "{said:?}");
    assert_eq!(submit(&mut client).await["credentials"][0]["value"], "sk-minted-2-secret");
    client.request("job.cancel", json!({ "job_id": job })).await.outcome().unwrap();
    client.follow(job).await;
    let watched = bob.follow(job).await;
    let gone = async { while !run(["credentials", "--data", &at]).await.exits(0).stdout.is_empty() {} };
    within("all keys to be revoked", gone).await;
    let revoked = fs::read_to_string(dir.path().join("maker.revoked")).unwrap();
    assert!(revoked.contains(&format!("{id}\"")) && revoked.contains(&format!("{id}-2\"")), "{revoked}");

    let audit = dir.path().join("job.audit").display().to_string();
    said.push(run(["audit", "export", job, "--data", &at, "-o", &audit]).await.exits(0).stdout);
    for what in [&["journal"][..], &["journal", "--json"], &["replay"], &["replay", "--json"]] {
        let outcome = run([&[what[0], job, "--data", &at], &what[1..]].concat()).await;
        assert!(!outcome.stdout.is_empty(), "{what:?}: {outcome:?}");
        said.push(format!("{}{}", outcome.stdout, outcome.stderr));
    }
    assert!(said.concat().contains("rotated"), "the journal was printed");
    assert!(fs::read_to_string(&audit).unwrap().contains("rotated"), "and exported");
    let stopped = host.terminate().await;
    assert!(stopped.stderr.contains("a key was rotated"), "the log is there: {}", stopped.stderr);
    for outcome in [killed, stopped] {
        said.extend([outcome.stdout, outcome.stderr]);
    }
    said.extend([listed, format!("{watched:?}")]);
    let said = said.concat();
    assert_without(&said, MINTED, "what was printed");
    assert!(!said.contains("credential_rotated"), "a watcher is told nothing of it");
    files_without(dir.path(), MINTED);
}

/// Fails if a file in a folder, or in one within it, holds `needle`. The script that makes it up may.
pub fn files_without(folder: &Path, needle: &str) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.ends_with("maker") => {}
            // Agents, which are the same wherever they run.
            path if path.ends_with("compiled") => {}
            path if path.is_dir() => files_without(&path, needle),
            path => {
                assert_without(&String::from_utf8_lossy(&fs::read(&path).unwrap()), needle, &path.display().to_string())
            }
        }
    }
}
