//! More jobs than the host can hold.

use leasehold_tests::{ErrorCode, TestHost};
use serde_json::json;

/// The refusal says that it will pass, and it does: the first job that ends makes room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_after_the_last_one_is_refused_until_one_has_ended() {
    const ROOM: usize = 4;
    let host = TestHost::builder().limits(|limits| limits.live_agents_max = ROOM).start().await;
    let mut session = host.session().await;
    let wait = json!({"do": "wait_cancel", "poll_ms": 5});
    let mut jobs = Vec::new();
    for _ in 0..ROOM {
        jobs.push(session.submit("hostile").input(wait.clone()).job_id().await);
    }
    // Again and again, because a refusal must not keep what it was refused for.
    for round in 0..20 {
        let reply = session.submit("echo").key("once").input(json!(round)).reply().await;
        assert_eq!(reply.outcome(), Err(ErrorCode::InternalError), "{reply:?}");
        assert_eq!(reply.payload()["retryable"], true);
        assert!(reply.message().contains("4 jobs"), "{}", reply.message());

        let oldest = jobs.remove(0);
        session.request_with("job.cancel", json!({"job_id": oldest}), json!({})).await;
        assert_eq!(session.follow(&oldest).await.final_status(), "cancelled");
        jobs.push(session.submit("hostile").input(wait.clone()).job_id().await);
    }
    // A refused submission binds no key (ARCP §7.2).
    for job_id in jobs {
        session.request_with("job.cancel", json!({"job_id": job_id}), json!({})).await;
        session.follow(&job_id).await;
    }
    let run = session.submit("echo").key("once").input(json!("now")).run().await;
    assert_eq!(run.result(), Ok(json!("now")));
}

/// Jobs that crash give back what they took: far more of them in turn than fit at once.
#[tokio::test]
async fn crashed_jobs_leave_nothing_behind() {
    let host = TestHost::builder().limits(|limits| limits.live_agents_max = 2).start().await;
    let mut session = host.session().await;
    for round in 0..50 {
        let input = if round % 2 == 0 { json!({"do": "trap"}) } else { json!({"do": "recurse"}) };
        let run = session.submit("hostile").input(input).run().await;
        assert_eq!(run.result(), Err(ErrorCode::InternalError), "{round}: {run:?}");
    }
    let run = session.submit("echo").input(json!(1)).run().await;
    assert_eq!(run.result(), Ok(json!(1)));
}
