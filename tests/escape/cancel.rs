//! Agents that do not want to stop (ARCP §7.4).

use leasehold_tests::{ErrorCode, MountMode, TestHost};
use serde_json::json;

use super::{House, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ignores_cancellation_is_ended_after_the_grace_time() {
    let mut house = House::start(TestHost::builder().limits(|limits| limits.grace_sec = 1)).await;
    for busy in [false, true] {
        let job_id = house.session.submit("hostile").input(json!({"do": "ignore_cancel", "busy": busy})).job_id().await;
        for _ in 0..2 {
            let reply = house.session.request_with("job.cancel", json!({"job_id": job_id}), json!({})).await;
            assert_eq!(reply.outcome(), Ok(()), "{reply:?}");
        }
        house.echo().await;
        let run = house.session.follow(&job_id).await;
        assert_eq!((run.result(), run.final_status()), (Err(ErrorCode::Cancelled), "cancelled"), "{run:?}");
        house.echo().await;
    }
}

/// After its cancellation an agent can do nothing more, however long its grace time is.
#[tokio::test]
async fn a_cancelled_agent_has_no_authority_left() {
    let mut house = House::start(TestHost::builder().mount("/w", MountMode::Rw)).await;
    let folder = house.host.folder("/w");
    let steps = json!([
        {"do": "write", "path": "/w/before", "text": "x"},
        {"do": "wait_cancel"},
        {"do": "write", "path": "/w/after", "text": "x"},
        {"do": "read", "path": "/w/before"},
    ]);
    let lease = json!({"fs.read": ["/w/**"], "fs.write": ["/w/**"]});
    let hostile = house.session.submit("hostile").lease(lease).input(json!({"do": "steps", "steps": steps}));
    let job_id = hostile.job_id().await;
    let wrote = |frame: &serde_json::Value| frame["payload"]["kind"] == "tool_result" && frame["job_id"] == *job_id;
    let written = house.session.find(wrote).await;
    assert!(written["payload"]["body"].get("error").is_none(), "{written}");
    house.session.request_with("job.cancel", json!({"job_id": job_id}), json!({})).await;
    let run = house.session.follow(&job_id).await;
    assert_eq!((run.result(), run.final_status()), (Err(ErrorCode::Cancelled), "cancelled"));
    assert!(folder.join("before").exists() && !folder.join("after").exists());
    let refused = run.bodies("tool_result").into_iter().filter(|body| body["error"]["code"] == "CANCELLED").count();
    assert_eq!(refused, 2, "{run:?}");
    house.echo().await;
}

/// A client that goes away leaves its job, and the job stays bounded.
#[tokio::test]
async fn a_job_whose_client_left_still_ends_when_its_time_is_up() {
    let mut house = House::start(TestHost::builder()).await;
    let mut gone = house.host.session_as("bob").await;
    let spin = gone.submit("hostile").input(json!({"do": "spin"})).field("max_runtime_sec", json!(1));
    let job_id = spin.job_id().await;
    gone.hang_up();
    let mut bob = house.host.session_as("bob").await;
    leasehold_tests::within("the job to end", async {
        loop {
            let listed = bob.request("session.list_jobs", json!({})).await;
            let jobs = listed.payload()["jobs"].as_array().cloned().unwrap_or_default();
            let job = jobs.iter().find(|job| job["job_id"] == *job_id).expect("it is bob's");
            if job["status"] == "timed_out" {
                return;
            }
        }
    })
    .await;
    let run = house.deed(json!({"do": "noop"})).await;
    assert_eq!(told(&run.result().expect("nothing is done")), "ok");
}
