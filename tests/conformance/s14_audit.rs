//! ARCP §14: what is written down for those who look later.

use leasehold::client::Submit;
use leasehold_tests::{
    host::{ALICE, BOB},
    program::Serve,
    within,
};
use serde_json::{Value, json};

/// "Cross-session subscription audit": who, which job, whose, and what was decided.
#[tokio::test]
async fn every_subscription_is_logged_with_who_and_whose_and_the_decision() {
    let host = Serve::new().await.start().await;
    let mut alice = host.client(ALICE).await;
    let submit = Submit::new("sleeper", json!({ "sec": 60 }));
    let job_id = within("an acceptance", alice.submit(submit)).await.expect("a sleeper is accepted").job_id;
    for (name, decision) in [(ALICE, "subscription"), (BOB, "subscription denied")] {
        let mut watcher = host.client(name).await;
        let answer = within("an answer", watcher.subscribe(&job_id, None)).await;
        assert_eq!(answer.is_ok(), name == ALICE, "{answer:?}");
        let is_it = |line: &Value| {
            let said = ["message", "principal", "job_id", "owner"].map(|key| line[key].as_str().unwrap_or_default());
            (said == [decision, name, &job_id, ALICE]).then_some(())
        };
        within("the line of the log", host.log(is_it)).await;
    }
}
