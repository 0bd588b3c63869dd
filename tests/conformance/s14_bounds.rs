//! ARCP §14: what a peer can make the host do is bounded.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use leasehold::transport::CloseReason;
use leasehold_core::time::Timestamp;
use leasehold_tests::{
    ErrorCode::{InternalError, JobNotFound},
    RawClient, TestHost,
    host::{ALICE, BOB, token},
    raw::{hello, moment},
    within,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const NOON: &str = "2026-05-13T12:00:00Z";

fn noon() -> Timestamp {
    NOON.parse().expect("it is RFC 3339")
}

/// "Heartbeat amplification": a client that pings in a loop is read more slowly, and loses nothing.
#[tokio::test]
async fn pings_in_a_loop_get_so_many_answers_a_second_and_all_of_them_in_the_end() {
    let host = TestHost::builder().at(NOON).config(|config| config.server.answers_per_sec = 10).start().await;
    let mut client = host.session_offering(&[]).await;
    let mut sent = Vec::new();
    for n in 0..25 {
        sent.push(client.send("session.ping", json!({ "nonce": format!("n-{n}"), "sent_at": NOON })).await);
    }
    let mut seconds = Vec::new();
    let answers = async {
        for id in &sent {
            let pong = client.reply(id).await;
            assert_eq!(pong.0["type"], "session.pong", "{}", pong.0);
            seconds.push(moment(&pong.payload()["received_at"]).saturating_since(noon()).as_millis());
        }
    };
    host.advancing(Duration::from_millis(10), answers).await;
    for (n, at) in seconds.iter().enumerate() {
        // The hello was answered first; ten in the first moment, one each tenth of a second from then on.
        let earliest = (n as u128 + 2).saturating_sub(10) * 100;
        assert!(*at >= earliest, "answer {n} came after {at} ms: {seconds:?}");
    }
}

/// The pings of WebSocket itself are no way around it.
#[tokio::test]
async fn pings_of_websocket_are_counted_too() {
    let host = TestHost::builder().at(NOON).config(|config| config.server.answers_per_sec = 10).start().await;
    let (mut socket, _) = tokio_tungstenite::connect_async(host.serve_url().await).await.expect("the host listens");
    say(&mut socket, "session.hello", without_features()).await;
    assert_eq!(hear(&mut socket).await["type"], "session.welcome");
    for _ in 0..30 {
        socket.send(Message::Ping(Vec::new().into())).await.expect("the connection is open");
    }
    say(&mut socket, "session.ping", json!({ "nonce": "last", "sent_at": NOON })).await;
    let mut pongs = 0;
    let answer = async {
        loop {
            match socket.next().await.expect("the connection is open").expect("the connection is open") {
                Message::Pong(_) => pongs += 1,
                Message::Text(text) => return serde_json::from_str::<Value>(&text).expect("a frame is JSON"),
                other => panic!("{other:?}"),
            }
        }
    };
    let answer = host.advancing(Duration::from_millis(10), answer).await;
    let after = moment(&answer["payload"]["received_at"]).saturating_since(noon());
    assert_eq!((&answer["payload"]["ping_nonce"], pongs), (&json!("last"), 30));
    assert!(after >= Duration::from_millis(2_200), "32 answers came within {after:?}");
}

#[tokio::test]
async fn one_session_too_many_of_a_principal_is_refused_and_may_be_tried_again() {
    let host = TestHost::builder().config(|config| config.server.principal_sessions_max = 2).start().await;
    let first = host.session().await;
    let _second = host.session().await;
    let mut third = host.raw();
    let id = third.send("session.hello", hello(&token(ALICE))).await;
    let refused = third.reply(&id).await;
    assert_eq!(refused.outcome(), Err(InternalError), "{}", refused.0);
    assert!(refused.payload()["message"].as_str().is_some_and(|text| text.contains("principal_sessions_max")));
    assert_eq!(third.closed().await.code, CloseReason::POLICY);
    let _other = host.session_as(BOB).await;
    // One that is lost can be resumed, and does not count meanwhile.
    first.hang_up();
    parked(&host, 1).await;
    let _fourth = host.session().await;
}

/// Waits until so many sessions have lost their clients.
async fn parked(host: &TestHost, count: usize) {
    let parking = async {
        while host.host().sessions().parked() < count {
            tokio::task::yield_now().await;
        }
    };
    within("the end of a connection", parking).await;
}

#[tokio::test]
async fn a_principal_that_submits_too_fast_is_refused_for_a_moment() {
    let builder = TestHost::builder().at(NOON).limits(|limits| limits.principal_submissions_per_sec = 3);
    let host = builder.start().await;
    let mut clients = [host.session_offering(&[]).await, host.session_offering(&[]).await, host.session_as(BOB).await];
    for (who, expected) in [
        (0, Ok(())),
        (1, Ok(())), // one principal, whatever its sessions
        (0, Ok(())),
        (1, Err(InternalError)),
        (0, Err(InternalError)),
        (2, Ok(())),
    ] {
        let client = &mut clients[who];
        let reply = client.submit("echo").reply().await;
        assert_eq!(reply.outcome(), expected, "{}", reply.0);
        let message = reply.payload()["message"].as_str().unwrap_or_default();
        assert_eq!(message.contains("principal_submissions_per_sec"), expected.is_err(), "{message}");
    }
    let [mut here, ..] = clients;
    // The session is as it was, and a third of a second later there is room for one more.
    assert_eq!(here.request("job.cancel", json!({ "job_id": job_id() })).await.outcome(), Err(JobNotFound));
    host.advance(Duration::from_millis(334));
    for expected in [Ok(()), Err(InternalError)] {
        assert_eq!(here.submit("echo").reply().await.outcome(), expected);
    }
}

/// The id of no job.
fn job_id() -> String {
    format!("job_{}", "0".repeat(26))
}

/// A session without heartbeats does not live for ever when its peer is gone, and its job does not die with it.
#[tokio::test]
async fn a_client_without_heartbeats_that_answers_no_websocket_ping_is_given_up_and_its_job_goes_on() {
    let builder = TestHost::builder().at(NOON).limits(|limits| limits.runtime_sec_default = 86_400);
    let host = builder.config(|config| config.server.silence_sec = 60).start().await;
    let (mut socket, _) = tokio_tungstenite::connect_async(host.serve_url().await).await.expect("the host listens");
    say(&mut socket, "session.hello", without_features()).await;
    assert_eq!(hear(&mut socket).await["type"], "session.welcome");
    let input = json!({ "count": 1, "start_delay_ms": 3_000_000 });
    say(&mut socket, "job.submit", json!({ "agent": "chatty", "input": input })).await;
    let accepted = hear(&mut socket).await;
    let job_id = accepted["payload"]["job_id"].as_str().expect("the job is accepted").to_owned();
    // A client that reads answers by itself; it is asked again and again, and stays.
    for _ in 0..5 {
        let asked = async { while !matches!(socket.next().await, Some(Ok(Message::Ping(_)))) {} };
        host.advancing(Duration::from_millis(100), asked).await;
        say(&mut socket, "session.ping", json!({ "nonce": "n", "sent_at": NOON })).await;
        assert_eq!(hear(&mut socket).await["type"], "session.pong");
    }
    // One that does not read does not answer.
    let given_up = async {
        while host.host().sessions().parked() == 0 {
            tokio::task::yield_now().await;
        }
    };
    host.advancing(Duration::from_millis(100), given_up).await;
    let mut watcher = host.session_offering(&["list_jobs"]).await;
    let ended = host.advancing(Duration::from_secs(1), watcher.status_at_end(&job_id)).await;
    assert_eq!(ended, "success");
}

/// Alice's hello, with no feature.
fn without_features() -> Value {
    let mut hello = hello(&token(ALICE));
    hello["capabilities"]["features"] = json!([]);
    hello
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn say(socket: &mut Socket, kind: &str, payload: Value) {
    let frame = json!({ "arcp": "1.1", "id": format!("{kind}-1"), "type": kind, "payload": payload });
    socket.send(Message::text(frame.to_string())).await.expect("the connection is open");
}

/// The next frame.
async fn hear(socket: &mut Socket) -> Value {
    let hearing = async {
        loop {
            match socket.next().await.expect("the connection is open").expect("the connection is open") {
                Message::Text(text) => return serde_json::from_str(&text).expect("a frame is JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    within("a frame", hearing).await
}

/// Who offers nothing is asked nothing: over a wire without pings a silent client stays.
#[tokio::test]
async fn a_silent_client_on_a_wire_without_pings_stays() {
    let host = TestHost::builder().at(NOON).start().await;
    let mut client: RawClient = host.session_offering(&["list_jobs"]).await;
    host.advance(Duration::from_secs(3600));
    assert!(client.settle().await.is_empty());
}
