//! ARCP §6.7: the end of a session.

use leasehold::transport::CloseReason;
use leasehold_tests::TestHost;
use serde_json::json;

#[tokio::test]
async fn a_session_that_is_closed_says_so_and_its_jobs_go_on() {
    let host = TestHost::new().await;
    for kind in ["session.close", "session.bye"] {
        let mut client = host.session().await;
        let job_id = client.submit("chatty").input(json!({ "count": 1, "start_delay_ms": 50 })).job_id().await;
        let id = client.send(kind, json!({ "reason": "done" })).await;
        let closed = client.find_type("session.closed").await;
        assert_eq!(closed["id"], id, "{kind}");
        assert_eq!(client.closed().await.code, CloseReason::NORMAL, "{kind}");
        let mut other = host.session().await;
        assert_eq!(other.status_at_end(&job_id).await, "success", "{kind}");
    }
}

#[tokio::test]
async fn a_client_that_closes_and_is_gone_harms_nobody() {
    let host = TestHost::new().await;
    for _ in 0..10 {
        let mut client = host.session().await;
        client.submit("chatty").input(json!({ "count": 100 })).send().await;
        client.send("session.close", json!({})).await;
        client.hang_up();
    }
    host.session().await.submit("echo").run().await;
}

#[tokio::test]
async fn a_host_that_stops_says_goodbye() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    host.host().stop();
    assert_eq!(client.recv().await["type"], "session.closed");
    assert_eq!(client.closed().await.code, CloseReason::GOING_AWAY);
}
