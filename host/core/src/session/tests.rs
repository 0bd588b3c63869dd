//! The session by itself: frames in, outputs out, time as an argument.

use serde_json::{Value, json};

use super::*;
use crate::{
    id::SessionId,
    job::record::{End, Seed},
    lease::Lease,
    protocol::{
        client::decode,
        server::{ServerMessage, Stamp},
    },
    session::{
        history::History,
        log::{Follow, Opened},
    },
};

const SECOND: i64 = 1_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn ulid(n: u128) -> Ulid {
    Ulid::from_parts(0, n)
}

fn job(n: u128) -> JobId {
    JobId::new(ulid(n))
}

/// A handshake of 10 s, a heartbeat of 30 s, begun at 0.
fn session(header_token: Option<&str>) -> Session {
    let config = SessionConfig {
        handshake_timeout: Duration::from_secs(10),
        heartbeat_interval: Duration::from_secs(30),
        resume_window: Duration::from_secs(600),
        spans_max: 1000,
        settle_after: Duration::from_secs(3600),
        followed_max: 3,
        lag_max: 2,
        features: Vec::new(),
    };
    Session::new(config, at(0), header_token.map(Secret::new))
}

fn frame(kind: &str, payload: Value) -> Input {
    text(&json!({ "arcp": "1.1", "id": "r", "type": kind, "payload": payload }).to_string())
}

fn text(text: &str) -> Input {
    Input::Frame(decode(text))
}

fn hello(features: &[&str]) -> Input {
    let auth = json!({ "scheme": "bearer", "token": "tk" });
    frame("session.hello", json!({ "auth": auth, "capabilities": { "features": features } }))
}

fn known() -> Input {
    let principal = Principal::new("alice");
    Input::Authenticated(Ok(Welcomed { principal, resume_token: Secret::new("rt"), agents: vec![], resumed: None }))
}

/// A session that has been welcomed at 0.
fn open(features: &[&str]) -> Session {
    let mut session = session(None);
    session.handle(at(0), ulid(0), hello(features));
    session.handle(at(0), ulid(0), known());
    assert!(session.is_open());
    session
}

/// What a client would read.
fn wire(session: &Session, message: &ServerMessage) -> Value {
    let stamp = Stamp { id: ulid(7), now: at(0), session_id: SessionId::new(ulid(8)), dialect: session.dialect() };
    serde_json::from_str(&message.encode(&stamp)).expect("a frame is JSON")
}

/// Outputs in a few words each: a message is its type and, if it is an error, its code.
fn words(session: &Session, outputs: &[Output]) -> Vec<String> {
    let word = |output: &Output| match output {
        Output::Send(message) => {
            let frame = wire(session, message);
            let code = frame["payload"]["code"].as_str().map(|code| format!(" {code}"));
            format!("{}{}", frame["type"].as_str().unwrap(), code.unwrap_or_default())
        }
        Output::Authenticate { who, claim } => {
            let who = match who {
                Who::Token(token) => token.as_ref().map_or("nobody", Secret::expose),
                Who::Known(principal) => principal.as_str(),
            };
            match claim {
                Claim::New { .. } => format!("authenticate {who}"),
                Claim::Resume(resume) => {
                    let (token, session) = (resume.token.expose(), resume.session_id.as_deref().unwrap_or("any"));
                    format!("authenticate {who} for {session} by {token} after {}", resume.last_event_seq)
                }
            }
        }
        Output::Submit(submission) => format!("submit {}", submission.agent),
        Output::Cancel { job_id, .. } => format!("cancel {job_id}"),
        Output::ListJobs { .. } => "list".to_owned(),
        Output::Subscribe { subscribe, .. } => format!("subscribe {}", subscribe.job_id),
        Output::Unread { turn } => format!("unread {turn}"),
        Output::Read { job_id, from: ReadFrom::After(after), .. } => format!("read {job_id} after {after}"),
        Output::Read { job_id, from: ReadFrom::Newest, .. } => format!("read {job_id} at its end"),
        Output::Store(_) => "store".to_owned(),
        Output::Note(_) => "note".to_owned(),
        Output::Checkpoint(_) => "checkpoint".to_owned(),
        Output::Refused(refusal) => format!("log {}", refusal.code),
        Output::Close(close) => format!("close {close:?}"),
    };
    outputs.iter().map(word).collect()
}

fn handle(session: &mut Session, now: i64, mut input: Input) -> Vec<String> {
    if let (Input::Pages(pages), Phase::Open(open)) = (&mut input, &session.phase) {
        // Whatever is read here was asked for the last time that its job was followed.
        pages.iter_mut().for_each(|page| page.turn = open.turn(page.job_id).unwrap_or_default());
    }
    let outputs = session.handle(at(now), ulid(1), input);
    words(session, &outputs)
}

/// ARCP §6.1, §6.2, §6.7: every phase, and what each input makes of it.
#[test]
fn a_session_is_greeted_authenticated_open_and_closed() {
    let refused = |code: &str| vec![format!("log {code}"), format!("session.error {code}"), "close Policy".to_owned()];
    let unknown = || Input::Authenticated(Err(stranger()));
    let said = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    type Step = (fn() -> Input, Vec<String>);
    let welcomed =
        || -> Vec<Step> { vec![(|| hello(&[]), said(&["authenticate tk"])), (known, said(&["session.welcome"]))] };
    let greeted = || -> Vec<Step> { vec![(|| hello(&[]), said(&["authenticate tk"]))] };
    let ping = || frame("session.ping", json!({ "nonce": "n" }));
    let table: Vec<(Vec<Step>, Step, bool)> = vec![
        (vec![], (ping, refused("UNAUTHENTICATED")), false),
        (vec![], (|| frame("job.submit", json!({ "agent": "echo" })), refused("UNAUTHENTICATED")), false),
        (vec![], (|| frame("x-vendor.acme.thing", json!({})), refused("UNAUTHENTICATED")), false),
        (vec![], (|| text("{"), refused("INVALID_REQUEST")), false),
        (vec![], (|| Input::Unreadable(Refusal::invalid("bytes")), refused("INVALID_REQUEST")), false),
        (vec![], (|| Input::Alive, vec![]), false),
        (vec![], (|| Input::Stopping, said(&["close GoingAway"])), false),
        (greeted(), (unknown, refused("UNAUTHENTICATED")), false),
        (greeted(), (ping, refused("UNAUTHENTICATED")), false),
        (greeted(), (|| hello(&[]), refused("UNAUTHENTICATED")), false),
        (greeted(), (|| Input::Tick, vec![]), false),
        (greeted(), (|| Input::Alive, vec![]), false),
        (greeted(), (|| Input::Stopping, said(&["close GoingAway"])), false),
        (welcomed(), (ping, said(&["session.pong"])), true),
        (welcomed(), (|| frame("session.pong", json!({})), vec![]), true),
        (welcomed(), (|| frame("x-vendor.acme.thing", json!({})), vec![]), true),
        (welcomed(), (|| hello(&[]), said(&["log INVALID_REQUEST", "job.error INVALID_REQUEST"])), true),
        (welcomed(), (|| text("{"), said(&["log INVALID_REQUEST", "job.error INVALID_REQUEST"])), true),
        (welcomed(), (known, vec![]), true),
        (welcomed(), (|| frame("session.close", json!({})), said(&["session.closed", "close Normal"])), false),
        (welcomed(), (|| frame("session.bye", json!({})), said(&["session.closed", "close Normal"])), false),
        (welcomed(), (|| Input::Stopping, said(&["session.closed", "close GoingAway"])), false),
    ];
    for (row, (before, (last, expected), is_open)) in table.into_iter().enumerate() {
        let mut session = session(None);
        for (input, expected) in before {
            assert_eq!(handle(&mut session, 0, input()), expected, "row {row}");
        }
        assert_eq!(handle(&mut session, 0, last()), expected, "row {row}");
        assert_eq!(session.is_open(), is_open, "row {row}");
        let closed = expected.iter().any(|word| word.starts_with("close"));
        if closed {
            // Whatever still arrives.
            for input in [hello(&[]), known(), Input::Stopping, Input::Tick, ping()] {
                assert_eq!(handle(&mut session, 0, input), Vec::<String>::new(), "row {row}");
            }
            assert_eq!(session.deadline(), None, "row {row}");
        }
    }
}

/// ARCP §6.2: patience with a client that says nothing.
#[test]
fn a_greeting_has_a_deadline() {
    let mut session = session(None);
    assert_eq!(session.deadline(), Some(at(10 * SECOND)));
    assert!(handle(&mut session, 10 * SECOND - 1, Input::Tick).is_empty());
    let outcome = handle(&mut session, 10 * SECOND, Input::Tick);
    assert_eq!(outcome, ["log UNAUTHENTICATED", "session.error UNAUTHENTICATED", "close Policy"]);
}

/// ARCP §6.1: each row is a header, a hello and whose token is looked up.
#[test]
fn a_token_comes_from_the_hello_or_the_header() {
    let bearer = |token: &str| json!({ "scheme": "bearer", "token": token });
    let unauthenticated = "session.error UNAUTHENTICATED";
    for (header, auth, expected) in [
        (None, bearer("a"), "authenticate a"),
        (Some("a"), Value::Null, "authenticate a"),
        (Some("a"), json!({ "scheme": "none" }), "authenticate a"),
        (Some("a"), bearer("a"), "authenticate a"),
        (Some("a"), bearer("b"), unauthenticated),
        (Some("a"), bearer(""), "authenticate a"), // an empty one is none
        (None, Value::Null, "authenticate nobody"),
        (None, json!({ "scheme": "anonymous" }), "authenticate nobody"),
        (None, json!({ "scheme": "mtls" }), unauthenticated),
        (None, json!({ "scheme": 7 }), "session.error INVALID_REQUEST"),
    ] {
        let mut session = session(header);
        let outputs = handle(&mut session, 0, frame("session.hello", json!({ "auth": auth })));
        assert!(outputs.contains(&expected.to_owned()), "{header:?} and {auth}: {outputs:?}");
    }
}

/// ARCP §6.2: what a hello may not ask.
#[test]
fn a_hello_that_cannot_be_served_is_refused() {
    for (payload, expected) in [
        (json!({ "capabilities": { "encodings": ["cbor"] } }), "session.error INVALID_REQUEST"),
        (json!({ "resume": {} }), "session.error INVALID_REQUEST"),
        (json!({ "resume": { "resume_token": "rt", "last_event_seq": -1 } }), "session.error INVALID_REQUEST"),
    ] {
        let outputs = handle(&mut session(None), 0, frame("session.hello", payload.clone()));
        assert_eq!(outputs[1..], [expected.to_owned(), "close Policy".to_owned()], "{payload}");
    }
}

/// ARCP §6.4: an idle client is pinged at half the interval and given up after two.
#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let pong = || frame("session.pong", json!({}));
    type Row = (i64, fn() -> Input, &'static [&'static str], i64);
    let table: [Row; 9] = [
        // now,  input,                expected,                   next deadline
        (14_999, || Input::Tick, &[], 15_000),
        (15_000, || Input::Tick, &["session.ping"], 30_000),
        (30_000, || Input::Tick, &["session.ping"], 45_000),
        (31_000, pong, &[], 45_000), // heard at 31 s, so lost at 91 s
        (45_000, || Input::Tick, &["session.ping"], 60_000),
        (60_000, || Input::Tick, &["session.ping"], 75_000),
        (75_000, || Input::Tick, &["session.ping"], 90_000),
        (90_000, || Input::Tick, &["session.ping"], 91_000),
        (91_000, || Input::Tick, &["close HeartbeatLost"], 0),
    ];
    let mut session = open(&["heartbeat"]);
    assert_eq!(session.deadline(), Some(at(15_000)));
    for (now, input, expected, deadline) in table {
        assert_eq!(handle(&mut session, now, input()), expected, "at {now}");
        assert_eq!(session.deadline(), (deadline > 0).then(|| at(deadline)), "at {now}");
    }
}

/// ARCP §6.4: whatever the host says is a sign of life, and so is whatever the client says.
#[test]
fn any_message_counts_as_a_heartbeat() {
    let mut session = open(&["heartbeat", "list_jobs"]);
    handle(&mut session, 10_000, frame("session.ping", json!({ "nonce": "n" })));
    assert_eq!(session.deadline(), Some(at(25_000)), "the pong at 10 s spares a ping");
    handle(&mut session, 20_000, text("not even JSON"));
    assert_eq!(session.deadline(), Some(at(35_000)), "so does the refusal");
    // The answer of a WebSocket library: some clients know no other.
    handle(&mut session, 20_000, Input::Alive);
    assert_eq!(handle(&mut session, 79_999, Input::Tick), ["session.ping"], "heard at 20 s");
    assert_eq!(handle(&mut session, 80_000, Input::Tick), ["close HeartbeatLost"]);
}

/// ARCP §6.4: a client that only listens is no silent one, if it answers when it is asked.
#[test]
fn a_client_that_is_told_something_all_the_time_is_pinged_too() {
    let mut session = open(&["heartbeat"]);
    submitted(&mut session, 1, true);
    for second in 1..=60 {
        let now = second * SECOND;
        let event = crate::protocol::event::Event::Thought { text: "t".into() };
        let position = u64::try_from(second).unwrap();
        let records = vec![(position, Record::Event { at: at(now), event })];
        handle(&mut session, now, Input::Pages(vec![Page { job_id: job(1), turn: 0, after: position - 1, records }]));
        let expected: &[&str] = match second {
            30 => &["session.ping"],
            60 => &["close HeartbeatLost"],
            _ => &[],
        };
        assert_eq!(handle(&mut session, now, Input::Tick), expected, "at {second} s");
    }
}

#[test]
fn a_session_without_heartbeats_waits_for_ever() {
    let mut session = open(&["list_jobs"]);
    assert_eq!(session.deadline(), None);
    assert!(handle(&mut session, i64::MAX / 2, Input::Tick).is_empty());
    assert!(session.is_open());
}

/// ARCP §6.2: "Either peer MUST NOT use a feature outside that intersection."
#[test]
fn a_request_needs_its_feature() {
    let submit = |payload: Value| move || frame("job.submit", payload.clone());
    let expiring = json!({ "agent": "echo", "lease_constraints": { "expires_at": "2999-01-01T00:00:00Z" } });
    let budgeted = json!({ "agent": "echo", "lease_request": { "cost.budget": ["USD:1"] } });
    type MakeInput = Box<dyn Fn() -> Input>;
    let table: Vec<(&str, MakeInput, &str, &str)> = vec![
        ("list_jobs", Box::new(|| frame("session.list_jobs", json!({}))), "list", "job.error INVALID_REQUEST"),
        ("lease_expires_at", Box::new(submit(expiring)), "submit echo", "session.error INVALID_REQUEST"),
        ("cost.budget", Box::new(submit(budgeted)), "submit echo", "session.error INVALID_REQUEST"),
    ];
    for (feature, input, with, without) in table {
        assert_eq!(handle(&mut open(&[feature]), 0, input()), [with], "with {feature}");
        let refused = ["log INVALID_REQUEST".to_owned(), without.to_owned()];
        assert_eq!(handle(&mut open(&[]), 0, input()), refused, "without {feature}");
    }
}

/// ARCP §7.1: what can be refused without knowing any agent.
#[test]
fn a_submission_is_checked_before_it_leaves_the_session() {
    for (payload, said) in [
        (json!({}), "agent"),
        (json!([]), "payload"),
        (json!({ "agent": "echo", "lease_request": { "fs.read": ["relative"] } }), "lease_request.fs.read"),
        (json!({ "agent": "echo", "lease_request": { "fs.exec": ["/bin/sh"] } }), "fs.exec"),
        (json!({ "agent": "echo", "lease_request": { "cost.budget": ["USD"] } }), "cost.budget"),
        (json!({ "agent": "echo", "lease_constraints": { "expires_at": "2999-01-01T00:00:00+01:00" } }), "expires_at"),
        (json!({ "agent": "echo", "lease_constraints": { "expires_at": "soon" } }), "expires_at"),
        (json!({ "agent": "echo", "max_runtime_sec": 0.5 }), "max_runtime_sec"),
        (json!({ "agent": "echo", "lease_request": { "capabilities": ["fs.exec"] } }), "fs.exec"),
        (json!({ "agent": "echo", "lease_request": { "capabilities": vec!["fs.read"; 65] } }), "capabilities"),
        (json!({ "agent": "echo", "lease_constraints": { "max_budget": ["USD"] } }), "max_budget"),
        (
            json!({ "agent": "echo", "lease_request": { "cost.budget": ["USD:2"] },
                "lease_constraints": { "max_budget": ["USD:1"] } }),
            "USD:1 remains",
        ),
    ] {
        let mut session = open(&["lease_expires_at", "cost.budget"]);
        let outputs = session.handle(at(0), ulid(1), frame("job.submit", payload.clone()));
        let [Output::Refused(_), Output::Send(refused)] = &outputs[..] else { panic!("{payload}: {outputs:?}") };
        let frame = wire(&session, refused);
        assert_eq!((&frame["type"], &frame["id"]), (&json!("session.error"), &json!("r")), "{payload}");
        assert!(frame["payload"]["message"].as_str().unwrap().contains(said), "{payload}: {frame}");
        assert!(session.is_open());
    }
}

/// Whoever connects may name a dialect, where the hello would be taken for somebody else's.
#[test]
fn a_dialect_that_is_asked_for_wins_over_what_the_hello_is_like() {
    let python = json!({ "arcp": "1.1", "id": "01KRHAB7S00000000000000001", "type": "session.hello", "payload": {} });
    let mut unasked = session(None);
    unasked.handle(at(0), ulid(0), text(&python.to_string()));
    assert_eq!(unasked.dialect().name, "python");

    let mut go = session(None).speaking("go");
    let outputs = go.handle(at(0), ulid(0), text(&python.to_string()));
    assert_eq!((words(&go, &outputs), go.dialect().name), (vec!["authenticate nobody".to_owned()], "go"));

    // What there is not is said before anything is asked of the client's token.
    let mut unknown = session(None).speaking("klingon");
    let outputs = unknown.handle(at(0), ulid(0), text(&python.to_string()));
    let expected = ["log INVALID_REQUEST", "session.error INVALID_REQUEST", "close Policy"];
    assert_eq!(words(&unknown, &outputs), expected);
    let [Output::Refused(refusal), ..] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(refusal.message.contains("`klingon`") && refusal.message.contains("typescript"), "{refusal}");
}

#[test]
fn a_submission_carries_what_was_asked() {
    let mut session = open(&["lease_expires_at"]);
    let submit = json!({
        "arcp": "1.1", "id": "s-1", "type": "job.submit", "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "payload": {
            "agent": "echo@1.0.0", "input": [1], "idempotency_key": "k", "max_runtime_sec": 60,
            "lease_request": { "fs.read": ["/w/**"] }, "lease_constraints": { "expires_at": "2026-05-13T12:00:00Z" },
        },
    });
    let outputs = session.handle(at(0), ulid(1), text(&submit.to_string()));
    let [Output::Submit(submission)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((submission.request.as_str(), submission.agent.as_str()), ("s-1", "echo@1.0.0"));
    assert_eq!((submission.principal.as_str(), submission.input.as_str()), ("alice", "[1]"));
    assert_eq!(submission.idempotency_key.as_deref(), Some("k"));
    assert_eq!(submission.max_runtime_sec.map(NonZeroU32::get), Some(60));
    assert_eq!(submission.trace_id, TraceId::parse("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(submission.authority.lease.to_wire()["fs.read"], ["/w/**"]);
    assert_eq!(submission.authority.expires_at, Some("2026-05-13T12:00:00Z".parse().unwrap()));
}

fn accepted(n: u128) -> Accepted {
    Accepted {
        job_id: job(n),
        principal: Principal::new("alice"),
        session_id: SessionId::new(ulid(8)),
        request_id: "r".into(),
        at: at(0),
        agent: "echo@1.0.0".into(),
        digest: String::new(),
        input: Json::default(),
        authority: Authority { lease: Lease::default(), expires_at: None },
        max_runtime_sec: None,
        parent: None,
        trace_id: TraceId::new(n),
        seed: Seed([0; 32]),
        limits: String::new(),
        key: None,
        ordinal: 1,
        first_seq: None,
        credentials: Vec::new(),
        parameters: None,
    }
}

/// Submits, and answers: with job `n`, made now or found.
fn submitted(session: &mut Session, n: u128, fresh: bool) -> Vec<String> {
    let outputs = session.handle(at(0), ulid(1), frame("job.submit", json!({ "agent": "echo" })));
    let [Output::Submit(submission)] = &outputs[..] else { panic!("{outputs:?}") };
    let (ordinal, first_seq) = (submission.ordinal, submission.first_seq.filter(|_| fresh));
    let outcome = Ok(Submitted {
        accepted: Accepted { ordinal, first_seq, ..accepted(n) }.into(),
        fresh,
        credentials: Vec::new(),
    });
    handle(session, 0, Input::Submitted { request: "r".into(), trace_id: TraceId::new(9), outcome })
}

fn page(n: u128, records: Vec<Record>) -> Input {
    Input::Pages(vec![Page { job_id: job(n), turn: 0, after: 0, records: (1..).zip(records).collect() }])
}

fn ended(n: u128) -> Input {
    page(n, vec![Record::Ended { at: at(0), end: End::Result(Json::default()), spent: None }])
}

fn said(n: u128) -> Input {
    let event = crate::protocol::event::Event::Thought { text: "t".into() };
    page(n, vec![Record::Event { at: at(0), event }])
}

/// ARCP §7.2: each row is a submission that was repeated in this session.
#[test]
fn a_job_is_followed_once_however_often_it_is_accepted() {
    let mut session = open(&["result_chunk"]);
    let read = format!("read {} after 0", job(1));
    assert_eq!(submitted(&mut session, 1, true), ["job.accepted", &read, "note"]);
    // It runs, and the session hears of it: reading it again would tell everything twice.
    assert_eq!(submitted(&mut session, 1, false), ["job.accepted"]);
    assert_eq!(handle(&mut session, 0, ended(1)), ["job.result"]);
    // It has ended, and whoever asks again is told its end again. Only this session's own stream says so.
    assert_eq!(submitted(&mut session, 1, false), ["store"]);
    let read = format!("read {} at its end", job(1));
    assert_eq!(handle(&mut session, 0, Input::Stored), ["job.accepted", &read]);
    assert_eq!(handle(&mut session, 0, ended(1)), ["store"]);
    assert_eq!(handle(&mut session, 0, Input::Stored), ["job.result"]);
    assert!(handle(&mut session, 0, ended(1)).is_empty());
}

/// ARCP §6.3, §8.3: what was told under which number has to be known before it is told.
#[test]
fn a_switch_between_jobs_is_stored_first_and_a_lone_job_needs_nothing() {
    let mut session = open(&[]);
    submitted(&mut session, 1, true);
    assert_eq!(handle(&mut session, 0, said(1))[0], "job.event");
    submitted(&mut session, 2, true);
    assert_eq!(handle(&mut session, 0, said(2)), ["store".to_owned(), format!("read {} after 1", job(2))]);
    // An answer is no part of the numbered stream and waits for nothing.
    assert_eq!(submitted(&mut session, 3, true)[0], "job.accepted");
    assert_eq!(handle(&mut session, 0, Input::Stored), ["job.event"]);
    for n in [2, 1, 3] {
        handle(&mut session, 0, Input::Pages(vec![]));
        assert_eq!(handle(&mut session, 0, end_of(n)).len(), 1);
        handle(&mut session, 0, Input::Stored);
    }
    submitted(&mut session, 4, true);
    assert_eq!(handle(&mut session, 0, said(4))[0], "job.event", "everything else has ended");
}

/// The end of a job, at a position after all others.
fn end_of(n: u128) -> Input {
    let record = Record::Ended { at: at(0), end: End::Result(Json::default()), spent: None };
    Input::Pages(vec![Page { job_id: job(n), turn: 0, after: 0, records: vec![(9, record)] }])
}

/// A job may be promised a number only if nothing can come before it; a promise is made once.
#[test]
fn a_number_is_promised_to_a_lone_job() {
    let promised = |session: &mut Session| {
        let outputs = session.handle(at(0), ulid(1), frame("job.submit", json!({ "agent": "echo" })));
        let [Output::Submit(submission)] = &outputs[..] else { panic!("{outputs:?}") };
        submission.first_seq
    };
    let mut session = open(&[]);
    assert_eq!(promised(&mut session), Some(1));
    assert_eq!(promised(&mut session), None, "another submission is under way");
    for _ in 0..2 {
        let outcome = Err(Refusal::new(ErrorCode::InternalError, "the disk"));
        handle(&mut session, 0, Input::Submitted { request: "r".into(), trace_id: TraceId::new(9), outcome });
    }
    assert_eq!(promised(&mut session), None, "the first may have been stored");
}

/// ARCP §6.3: the ways in which clients ask for their session.
#[test]
fn a_session_is_asked_for_in_four_ways() {
    let bearer = json!({ "scheme": "bearer", "token": "tk" });
    let resume = json!({ "session_id": "s", "resume_token": "rt", "last_event_seq": 2 });
    for (header, kind, payload, expected) in [
        (None, "session.hello", json!({ "auth": bearer, "resume": resume }), "tk for s by rt after 2"),
        (None, "session.hello", json!({ "auth": bearer, "resume": { "token": "rt" } }), "tk for any by rt after 0"),
        (
            None,
            "session.hello",
            json!({ "auth": bearer, "resume_token": "rt", "last_event_seq": 3 }),
            "tk for any by rt after 3",
        ),
        (Some("tk"), "session.resume", resume.clone(), "tk for s by rt after 2"),
        (None, "session.resume", resume.clone(), "nobody for s by rt after 2"),
    ] {
        let outputs = handle(&mut session(header), 0, frame(kind, payload.clone()));
        assert_eq!(outputs, [format!("authenticate {expected}")], "{kind} {payload}");
    }
    let mut session = open(&[]);
    let outputs = handle(&mut session, 0, frame("session.resume", resume.clone()));
    assert_eq!(outputs, ["authenticate alice for s by rt after 2"]);
    let outputs = handle(&mut session, 0, Input::Authenticated(Err(expired())));
    assert_eq!(outputs, ["log RESUME_WINDOW_EXPIRED", "session.error RESUME_WINDOW_EXPIRED", "close Policy"]);
    let mut session = open(&[]);
    submitted(&mut session, 1, true);
    let outputs = handle(&mut session, 0, frame("session.resume", resume));
    assert_eq!(outputs, ["log INVALID_REQUEST", "job.error INVALID_REQUEST"], "it is in use");
    assert!(session.is_open());
}

/// ARCP §6.3, §6.7: a connection ends, what it began does not.
#[test]
fn a_submission_that_is_answered_after_the_end_is_noted() {
    let mut session = open(&[]);
    let outputs = session.handle(at(0), ulid(1), frame("job.submit", json!({ "agent": "echo" })));
    let [Output::Submit(_)] = &outputs[..] else { panic!("{outputs:?}") };
    handle(&mut session, 0, Input::Gone);
    let outcome = Ok(Submitted { accepted: accepted(1).into(), fresh: true, credentials: Vec::new() });
    let answer = Input::Submitted { request: "r".into(), trace_id: TraceId::new(9), outcome };
    assert_eq!(handle(&mut session, 0, answer), ["note"]);
}

/// ARCP §7.4: answers to a cancellation are no ends of jobs.
#[test]
fn a_cancellation_is_asked_for_and_answered() {
    let mut session = open(&[]);
    let cancel = frame("job.cancel", json!({ "job_id": job(1), "reason": "enough" }));
    assert_eq!(handle(&mut session, 0, cancel), [format!("cancel {}", job(1))]);
    let answer = |outcome| Input::Cancelled { request: "r".into(), job_id: job(1), reason: None, outcome };
    assert_eq!(handle(&mut session, 0, answer(Ok(TraceId::new(1)))), ["job.cancelled"]);
    let denied = Refusal::new(ErrorCode::PermissionDenied, "not yours");
    let outputs = session.handle(at(0), ulid(1), answer(Err(denied)));
    let [Output::Refused(_), Output::Send(refused)] = &outputs[..] else { panic!("{outputs:?}") };
    let frame = wire(&session, refused);
    assert_eq!((&frame["type"], frame.get("job_id"), frame.get("event_seq")), (&json!("job.error"), None, None));
    assert_eq!(frame["payload"]["job_id"], json!(job(1)));
}

/// ARCP §6.6, §8.3: `last_event_seq` is a number of this session's stream.
#[test]
fn a_listing_says_what_this_session_was_told_of_each_job() {
    let mut session = open(&["list_jobs"]);
    submitted(&mut session, 1, true);
    handle(&mut session, 0, ended(1));
    let listed = Input::Listed { request: "r".into(), outcome: Ok((vec![summary(1), summary(2)], None)) };
    let outputs = session.handle(at(0), ulid(1), listed);
    let [Output::Send(jobs)] = &outputs[..] else { panic!("{outputs:?}") };
    let jobs = wire(&session, jobs)["payload"]["jobs"].clone();
    assert_eq!((&jobs[0]["last_event_seq"], &jobs[1]["last_event_seq"]), (&json!(1), &json!(0)));
}

/// ARCP §6.3: whoever has everything can come back, though the journals of what it was told are gone by then.
#[test]
fn a_session_that_has_settled_needs_no_journal_to_know_that_its_client_has_everything() {
    let mut session = open(&[]);
    submitted(&mut session, 1, true);
    assert_eq!(session.deadline(), None, "nothing has been told");
    handle(&mut session, 0, ended(1));
    assert_eq!(session.deadline(), Some(at(3600 * SECOND)));
    let outputs = session.handle(at(3600 * SECOND), ulid(1), Input::Tick);
    let [Output::Note(settled)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(session.deadline(), None, "once is enough");

    let follow = |n: u64, first| Follow {
        ordinal: n,
        job_id: job(n.into()),
        trace_id: TraceId::new(n.into()),
        request: Some("r".into()),
        only_end: false,
        first: Some(first),
        after: 0,
        keys_after: None,
    };
    let resumed = |last_event_seq, records: &[&LogRecord]| {
        let mut history = History::default();
        let principal = Principal::new("alice");
        let opened = Opened { at: at(0), principal, features: Features::default(), dialect: "generic".into() };
        history.take(LogRecord::Opened(opened));
        history.take(LogRecord::Follow(follow(1, 1)));
        records.iter().for_each(|record| history.take((*record).clone()));
        let jobs = history.open_job();
        let resumed = history.resume(last_event_seq, 9).expect("all of it is kept");
        (jobs, resumed.outbox.last_seq(), resumed.jobs().into_iter().collect::<Vec<_>>())
    };
    assert_eq!(resumed(1, &[]), (Some(job(1)), 0, vec![job(1)]), "there may be more");
    assert_eq!(resumed(1, &[settled]), (None, 1, vec![]));
    assert_eq!(resumed(0, &[settled]), (None, 0, vec![job(1)]));
    let next = LogRecord::Follow(follow(2, 2));
    assert_eq!(resumed(1, &[settled, &next]), (Some(job(2)), 1, vec![job(2)]));
    assert_eq!(resumed(1, &[&next, settled]), (Some(job(2)), 1, vec![job(2)]), "it was promised before");
}

/// ARCP §7.6, §14: what a client makes a host follow is bounded.
#[test]
fn a_session_that_follows_as_much_as_it_may_is_refused_a_subscription() {
    let mut session = open(&["subscribe"]);
    let subscribe = |n| frame("job.subscribe", json!({ "job_id": job(n) }));
    submitted(&mut session, 1, true);
    for n in [2, 3] {
        assert_eq!(handle(&mut session, 0, subscribe(n)), [format!("subscribe {}", job(n))]);
    }
    let refused = handle(&mut session, 0, subscribe(4));
    assert_eq!(refused, ["log INTERNAL_ERROR", "job.error INTERNAL_ERROR"]);
    handle(&mut session, 0, ended(1));
    assert_eq!(handle(&mut session, 0, subscribe(4)), [format!("subscribe {}", job(4))]);
}

/// One SDK takes the end of a job that it watches for the refusal of what it has just submitted.
#[test]
fn a_watched_job_fails_after_the_answer_to_a_submission_where_a_client_would_mistake_it() {
    for (dialect, waits) in [("typescript", true), ("generic", false)] {
        let mut session = session(None).speaking(dialect);
        session.handle(at(0), ulid(0), hello(&["subscribe", "result_chunk"]));
        session.handle(at(0), ulid(0), known());
        watched(&mut session, 2);
        session.handle(at(0), ulid(1), frame("job.submit", json!({ "agent": "echo" })));
        let end = |end| page(2, vec![Record::Ended { at: at(0), end, spent: None }]);
        let refusal = Refusal::new(ErrorCode::InternalError, "it died");
        let failed = || end(End::Failed { status: crate::protocol::status::Status::Error, refusal: refusal.clone() });
        if !waits {
            assert_eq!(handle(&mut session, 0, failed()), ["store"]);
            continue;
        }
        assert!(handle(&mut session, 0, failed()).is_empty());
        let outcome = Ok(Submitted { accepted: accepted(1).into(), fresh: true, credentials: Vec::new() });
        let answer = Input::Submitted { request: "r".into(), trace_id: TraceId::new(9), outcome };
        let expected = ["job.accepted".to_owned(), format!("read {} after 0", job(1)), "note".into(), "store".into()];
        assert_eq!(handle(&mut session, 0, answer), expected);
        assert_eq!(handle(&mut session, 0, Input::Stored), ["job.error INTERNAL_ERROR"]);
    }
}

/// Subscribes to job `n` and is told that it is watched.
fn watched(session: &mut Session, n: u128) {
    handle(session, 0, frame("job.subscribe", json!({ "job_id": job(n) })));
    let outcome = Ok(Watched { job: summary(n), budget: BTreeMap::new(), after: 0, replayed: false });
    handle(session, 0, Input::Subscribed { request: "r".into(), job_id: job(n), outcome });
    assert_eq!(handle(session, 0, Input::Stored)[0], "job.subscribed");
}

fn summary(n: u128) -> JobSummary {
    JobSummary {
        job_id: job(n),
        agent: "echo@1.0.0".into(),
        status: crate::protocol::status::Status::Running,
        lease: Json::of(&Lease::default()),
        lease_constraints: None,
        parent_job_id: None,
        created_at: at(0),
        submitted_at: at(0),
        trace_id: TraceId::new(n),
        last_event_seq: 99,
    }
}
