//! ARCP §6.3: a client that comes back finds its session, and its stream goes on where it stands.

use std::{sync::Arc, time::Duration};

use leasehold::{
    store::{Position, Store, memory::Memory},
    transport::CloseReason,
};
use leasehold_tests::{
    ErrorCode::{InvalidRequest, PermissionDenied, ResumeWindowExpired, Unauthenticated},
    RawClient, Reply, TestHost,
    host::{ALICE, BOB, token},
    http,
    raw::hello,
    within,
};
use serde_json::{Value, json};

/// What a client keeps of its session.
#[derive(Clone)]
struct Ticket {
    session_id: String,
    token: String,
}

/// Alice with an open session, and how she finds it again.
async fn session(host: &TestHost) -> (RawClient, Ticket) {
    let mut client = host.raw();
    let welcome = client.open(&token(ALICE)).await;
    let ticket = ticket(&client, &welcome);
    (client, ticket)
}

fn ticket(client: &RawClient, welcome: &Value) -> Ticket {
    let token = welcome["resume_token"].as_str().expect("a welcome has a token").to_owned();
    Ticket { session_id: client.session_id().to_owned(), token }
}

/// The hello of a client that comes back.
fn returning(name: &str, resume: Value) -> Value {
    let mut hello = hello(&token(name));
    hello["resume"] = resume;
    hello
}

fn resume(ticket: &Ticket, last_event_seq: u64) -> Value {
    json!({ "session_id": ticket.session_id, "resume_token": ticket.token, "last_event_seq": last_event_seq })
}

/// Comes back, and gives the client and its new ticket.
async fn come_back(host: &TestHost, old: &Ticket, last_event_seq: u64) -> (RawClient, Ticket) {
    let mut client = RawClient::standing_at(host.connect(), last_event_seq);
    let welcome = client.open_with(returning(ALICE, resume(old, last_event_seq))).await;
    assert_eq!(client.session_id(), old.session_id);
    let new = ticket(&client, &welcome);
    assert_ne!(new.token, old.token, "the token rotates");
    (client, new)
}

/// Asks for a session as `name`, and gives the refusal, after which the connection is closed.
async fn refused(host: &TestHost, name: &str, resume: Value) -> Reply {
    let mut client = host.raw();
    client.send("session.hello", returning(name, resume)).await;
    let answer = client.recv().await;
    assert_eq!(client.closed().await.code, CloseReason::POLICY, "{answer}");
    Reply(answer)
}

/// The frames numbered up to and including `last`.
async fn numbered(client: &mut RawClient, last: u64) -> Vec<Value> {
    let mut frames = Vec::new();
    while client.last_seq() < last || frames.is_empty() {
        frames.push(client.find(|frame| frame.get("event_seq").is_some()).await);
    }
    frames
}

/// What has to be the same whenever a frame is sent.
fn lasting(frame: &Value) -> Value {
    let mut frame = frame.clone();
    for key in ["id", "timestamp"] {
        frame.as_object_mut().expect("a frame is an object").remove(key);
    }
    frame
}

async fn chatty(client: &mut RawClient, count: u64, delay_ms: u64) -> String {
    client.submit("chatty").input(json!({ "count": count, "delay_ms": delay_ms })).job_id().await
}

/// Each row is a way to say it, as one SDK or the other does.
#[tokio::test]
async fn what_came_after_the_last_event_is_told_again_however_it_is_asked_for() {
    type Way = fn(&Ticket) -> Value;
    let ways: [(&str, Way); 3] = [
        ("resume", |ticket| json!({ "resume": resume(ticket, 2) })),
        ("top level", |ticket| json!({ "resume_token": ticket.token, "last_event_seq": 2 })),
        ("token", |ticket| json!({ "resume": { "token": ticket.token, "last_event_seq": 2 } })),
    ];
    let host = TestHost::new().await;
    for (name, way) in ways {
        let (mut client, ticket) = session(&host).await;
        chatty(&mut client, 6, 30).await;
        let before = numbered(&mut client, 5).await;
        client.hang_up();
        let mut client = RawClient::standing_at(host.connect(), 2);
        let mut hello = hello(&token(ALICE));
        hello.as_object_mut().unwrap().extend(way(&ticket).as_object().unwrap().clone());
        client.open_with(hello).await;
        assert_eq!(client.session_id(), ticket.session_id, "{name}");
        let after = numbered(&mut client, 7).await;
        let lasting = |frames: &[Value]| frames.iter().map(lasting).collect::<Vec<_>>();
        assert_eq!(lasting(&after[..3]), lasting(&before[2..]), "{name}");
        assert_eq!(after[4]["type"], "job.result", "{name}: and what is new");
    }
}

/// ARCP §6.3: "presents `last_event_seq` and its most recent `resume_token` in `session.resume`".
#[tokio::test]
async fn session_resume_is_understood_as_the_first_frame_and_after_a_hello() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    chatty(&mut client, 3, 0).await;
    let before = numbered(&mut client, 4).await;
    client.hang_up();

    let address = host.serve().await;
    let bearer = format!("Bearer {}", token(ALICE));
    let mut socket = http::websocket(address, &[("Authorization", &bearer)]).await;
    let frame = json!({ "arcp": "1.1", "id": "r", "type": "session.resume", "payload": resume(&ticket, 3) });
    socket.send(Message::text(frame.to_string())).await.unwrap();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        if let Message::Text(text) = within("a frame", socket.next()).await.unwrap().unwrap() {
            frames.push(serde_json::from_str::<Value>(&text).unwrap());
        }
    }
    assert_eq!((&frames[0]["type"], &frames[0]["session_id"]), (&json!("session.welcome"), &json!(ticket.session_id)));
    assert_eq!(lasting(&frames[1]), lasting(&before[3]));
    let features = frames[0]["payload"]["capabilities"]["features"].as_array().unwrap();
    assert!(!features.is_empty(), "what was negotiated first goes on");
    let ticket = Ticket { token: frames[0]["payload"]["resume_token"].as_str().unwrap().to_owned(), ..ticket };

    let mut client = host.session().await;
    client.changes_session(3);
    client.send("session.resume", resume(&ticket, 3)).await;
    let welcome = client.find_type("session.welcome").await;
    assert_eq!(welcome["session_id"], json!(ticket.session_id));
    assert_eq!(lasting(&numbered(&mut client, 4).await[0]), lasting(&before[3]));

    // Whoever asks first has to say who he is, in the one place there is.
    let mut stranger = host.raw();
    stranger.send("session.resume", resume(&ticket, 3)).await;
    assert_eq!(Reply(stranger.recv().await).outcome(), Err(Unauthenticated));
    // A session that is in use is not given up for another.
    let mut busy = host.session().await;
    busy.submit("echo").run().await;
    let answer = busy.request("session.resume", resume(&ticket, 3)).await;
    assert_eq!((answer.kind(), answer.outcome()), ("job.error", Err(InvalidRequest)));
    busy.submit("echo").run().await;
}

#[tokio::test]
async fn a_client_that_has_everything_is_told_nothing_again() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    chatty(&mut client, 3, 0).await;
    numbered(&mut client, 4).await;
    client.hang_up();
    let (mut client, _) = come_back(&host, &ticket, 4).await;
    assert_eq!(client.settle().await, Vec::<Value>::new());
    chatty(&mut client, 1, 0).await;
    assert_eq!(numbered(&mut client, 6).await[0]["event_seq"], 5);
}

#[tokio::test]
async fn a_client_that_has_more_than_there_is_breaks_the_rules() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    let refusal = refused(&host, ALICE, resume(&ticket, 1)).await;
    assert_eq!(refusal.outcome(), Err(InvalidRequest), "nothing was told yet");
    client.closed().await;
    let (mut client, ticket) = come_back(&host, &ticket, 0).await;
    chatty(&mut client, 3, 0).await;
    numbered(&mut client, 4).await;
    client.hang_up();
    let refusal = refused(&host, ALICE, resume(&ticket, 5)).await;
    assert_eq!(refusal.outcome(), Err(InvalidRequest));
    // It took nothing from the session.
    come_back(&host, &ticket, 4).await;
}

/// Each row is a wrong token, and all are answered alike, so that a guess does not learn how near it came.
#[tokio::test]
async fn a_wrong_token_is_refused_without_a_hint_and_harms_nothing() {
    let host = TestHost::new().await;
    let (client, old) = session(&host).await;
    client.hang_up();
    let (mut client, ticket) = come_back(&host, &old, 0).await;
    client.settle().await;
    client.hang_up();
    let (other, others) = session(&host).await;
    other.hang_up();
    let guess =
        format!("{}{}", &ticket.token[..ticket.token.len() - 1], if ticket.token.ends_with('0') { '1' } else { '0' });
    let named = |session_id: &str| json!({ "session_id": session_id, "resume_token": ticket.token });
    let unknown = format!("rt_00000000000000000000000000_{}", "0".repeat(32));
    let mut answers = Vec::new();
    for (what, name, resume) in [
        ("an old one", ALICE, resume(&old, 0)),
        ("a guess", ALICE, json!({ "resume_token": guess })),
        ("no token at all", ALICE, json!({ "resume_token": "garbage" })),
        ("an empty one", ALICE, json!({ "resume_token": "" })),
        ("of no session", ALICE, json!({ "resume_token": unknown })),
        ("somebody else's", BOB, resume(&ticket, 0)),
        ("of another session", ALICE, named(&others.session_id)),
        ("of a session that is none", ALICE, named("sess_1")),
    ] {
        let refusal = refused(&host, name, resume).await;
        assert_eq!(refusal.outcome(), Err(ResumeWindowExpired), "{what}");
        assert_eq!((refusal.kind(), &refusal.payload()["retryable"]), ("session.error", &json!(false)), "{what}");
        let mut payload = refusal.payload().clone();
        payload.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "request_id" | "reply_to"));
        answers.push(payload);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    come_back(&host, &ticket, 0).await;
}

/// ARCP §6.3: "The resume token rotates on every successful welcome": one that got lost was none.
#[tokio::test]
async fn a_client_whose_welcome_was_lost_comes_again_with_the_token_it_has() {
    let host = TestHost::new().await;
    let (mut client, old) = session(&host).await;
    chatty(&mut client, 3, 0).await;
    numbered(&mut client, 4).await;
    client.hang_up();
    for _ in 0..3 {
        let mut client = RawClient::standing_at(host.connect(), 2);
        client.send("session.hello", returning(ALICE, resume(&old, 2))).await;
        // It is on its way, and the client never hears of it.
        client.recv().await;
        client.hang_up();
    }
    let (mut client, new) = come_back(&host, &old, 2).await;
    assert_eq!(numbered(&mut client, 4).await.len(), 2);
    client.settle().await;
    client.hang_up();
    assert_eq!(refused(&host, ALICE, resume(&old, 2)).await.outcome(), Err(ResumeWindowExpired));
    come_back(&host, &new, 4).await;
}

#[tokio::test]
async fn after_the_resume_window_the_session_is_gone_and_its_jobs_are_not() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let (mut client, ticket) = session(&host).await;
    let job_id = chatty(&mut client, 3, 0).await;
    numbered(&mut client, 4).await;
    client.send("session.close", json!({})).await;
    client.closed().await;
    let mut other = host.session_offering(&["list_jobs"]).await;
    while host.host().sessions().parked() == 0 {
        other.settle().await;
    }
    host.advance(Duration::from_secs(599));
    let (client, ticket) = come_back(&host, &ticket, 4).await;
    client.disconnect().await;
    while host.host().sessions().parked() == 0 {
        other.settle().await;
    }
    host.advance(Duration::from_secs(600));
    assert_eq!(refused(&host, ALICE, resume(&ticket, 4)).await.outcome(), Err(ResumeWindowExpired));
    assert_eq!(other.status_at_end(&job_id).await, "success");
    let now = "2026-05-13T12:20:00Z".parse().unwrap();
    host.host().sessions().expire(now).await;
    assert_eq!(host.host().sessions().parked(), 0);
}

/// A journal that is not kept any more cannot be told again.
#[tokio::test]
async fn what_is_not_kept_any_more_cannot_be_had() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    let job_id = chatty(&mut client, 3, 0).await;
    numbered(&mut client, 4).await;
    client.hang_up();
    let stream = leasehold::journal::stream(job_id.parse().unwrap());
    let store = host.host().store();
    let last = leasehold::journal::last(&**store, &stream).await.unwrap();
    store.trim(&stream, last).await.unwrap();
    assert_eq!(refused(&host, ALICE, resume(&ticket, 1)).await.outcome(), Err(ResumeWindowExpired));
}

#[tokio::test]
async fn a_client_that_comes_back_takes_over_from_the_connection_it_lost() {
    let host = TestHost::new().await;
    let (mut old, ticket) = session(&host).await;
    let job_id = chatty(&mut old, 50, 5).await;
    // A submission whose answer is on its way belongs to the session.
    old.submit("echo").input(json!("late")).send().await;
    numbered(&mut old, 3).await;
    let (mut client, _) = come_back(&host, &ticket, 3).await;
    assert_eq!(old.closed().await.code, CloseReason::POLICY);
    let frames = numbered(&mut client, 52).await;
    let of = |job: &str| frames.iter().filter(|frame| frame["job_id"] == job).count();
    // The host may have read the submission, or not.
    assert!(of(&job_id) >= 47, "{}", of(&job_id));
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_told_once() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    let job_id = chatty(&mut client, 20, 10).await;
    numbered(&mut client, 2).await;
    client.hang_up();
    assert_eq!(host.session().await.status_at_end(&job_id).await, "success");
    let (mut client, ticket) = come_back(&host, &ticket, 2).await;
    let run = client.follow(&job_id).await;
    assert_eq!((run.final_status(), run.events.len()), ("success", 18));
    assert_eq!(client.settle().await, Vec::<Value>::new());
    client.hang_up();
    let (mut client, _) = come_back(&host, &ticket, 21).await;
    assert_eq!(client.settle().await, Vec::<Value>::new());
}

/// ARCP §7.4, §7.7: resume "carries cancel authority", and a session of the same principal does not.
#[tokio::test]
async fn a_session_may_cancel_its_jobs_after_it_was_resumed() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    let job_id = client.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
    client.hang_up();
    let cancel = json!({ "job_id": job_id });
    let answer = host.session().await.request("job.cancel", cancel.clone()).await;
    assert_eq!(answer.outcome(), Err(PermissionDenied));
    let (mut client, _) = come_back(&host, &ticket, 0).await;
    assert_eq!(client.request("job.cancel", cancel).await.kind(), "job.cancelled");
    assert_eq!(client.follow(&job_id).await.final_status(), "cancelled");
}

/// ARCP §6.7: jobs "continue running and remain resumable within the resume window".
#[tokio::test]
async fn a_session_that_was_closed_can_be_resumed() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    let job_id = chatty(&mut client, 10, 10).await;
    client.send("session.close", json!({})).await;
    client.find_type("session.closed").await;
    let last = client.last_seq();
    assert_eq!(client.closed().await.code, CloseReason::NORMAL);
    let last = last.max(client.last_seq());
    let (mut client, _) = come_back(&host, &ticket, last).await;
    assert_eq!(client.follow(&job_id).await.final_status(), "success");
    assert_eq!(client.last_seq(), 11);
}

/// ARCP §8.3: "gap-free across reconnects", over several jobs, also when the host was another meanwhile.
#[tokio::test]
async fn a_session_survives_its_host() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let start = || TestHost::builder().store(Arc::clone(&store)).start();
    let host = start().await;
    let (mut client, mut ticket) = session(&host).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(chatty(&mut client, 40, 1).await);
    }
    let mut told = Vec::new();
    for job in &jobs {
        told.push(client.follow(job).await.terminal);
    }
    // What was told on the first host, and is told again on those that come after it.
    let last = client.last_seq();
    assert_eq!(last, 3 * 41);
    drop(client);
    host.stop().await;
    let mut streams = Vec::new();
    for last_event_seq in [0, 17, last - 1] {
        let host = start().await;
        let (mut client, new) = come_back(&host, &ticket, last_event_seq).await;
        ticket = new;
        let frames = numbered(&mut client, last).await;
        streams.push(frames.iter().map(lasting).collect::<Vec<_>>());
        drop(client);
        host.stop().await;
    }
    assert_eq!(streams[0][17..], streams[1]);
    assert_eq!(streams[0][usize::try_from(last).unwrap() - 1..], streams[2]);
    let host = start().await;
    let (mut client, _) = come_back(&host, &ticket, last).await;
    let id = client.submit("echo").run().await.terminal["event_seq"].clone();
    assert_eq!(id, last + 1, "and it goes on");
}

#[tokio::test]
async fn a_job_alone_costs_its_session_nothing_before_it_is_told() {
    let host = TestHost::new().await;
    let (mut client, ticket) = session(&host).await;
    let stream = format!("session/{}", ticket.session_id).parse().unwrap();
    let written = || async { host.host().store().read(&stream, Position::ZERO, 100).await.unwrap().len() };
    let before = written().await;
    client.submit("echo").run().await;
    assert_eq!(written().await, before, "what has to be known stands in the job's own journal");
}

#[tokio::test]
async fn too_many_lost_sessions_are_forgotten_the_oldest_first() {
    let builder = TestHost::builder().config(|config| config.server.principal_parked_sessions_max = 2);
    let host = builder.start().await;
    let mut tickets = Vec::new();
    for n in 0..3 {
        let (client, ticket) = session(&host).await;
        client.disconnect().await;
        let mut other = host.session_as(BOB).await;
        while host.host().sessions().parked() < usize::min(n + 1, 2) {
            other.settle().await;
        }
        tickets.push(ticket);
    }
    let mut other = host.session_as(BOB).await;
    let first = loop {
        other.settle().await;
        let mut client = host.raw();
        client.send("session.hello", returning(ALICE, resume(&tickets[2], 0))).await;
        let answer = client.recv().await;
        if answer["type"] == "session.welcome" {
            break refused(&host, ALICE, resume(&tickets[0], 0)).await;
        }
    };
    assert_eq!(first.outcome(), Err(ResumeWindowExpired));
    come_back(&host, &tickets[1], 0).await;
}
