//! PyPI `agentruntimecontrolprotocol` 1.1.
//!
//! Its model of `job.accepted` takes counters as amount texts, and its model
//! of `job.error` knows no other `final_status` than `error`: either one ends
//! the client's reader.

use std::time::Duration;

use super::{BudgetForm, Dialect, StoppedForm};
use crate::{
    id::Ulid,
    protocol::{client::Hello, feature::Feature},
};

pub const DIALECT: Dialect = Dialect {
    name: "python",
    budget: BudgetForm::Amount,
    stopped: StoppedForm::Result,
    // Its reader drops what comes before the task that subscribed has run again.
    subscribe_pause: Duration::from_millis(50),
};

/// The nine features this SDK offers, in its order. Other SDKs with bare ULIDs sort theirs.
const FEATURES: [Feature; 9] = [
    Feature::Heartbeat,
    Feature::Ack,
    Feature::ListJobs,
    Feature::Subscribe,
    Feature::LeaseExpiresAt,
    Feature::CostBudget,
    Feature::Progress,
    Feature::ResultChunk,
    Feature::AgentVersions,
];

/// Whether `hello` came from this SDK: its ids are bare ULIDs and its features stand in its own order.
pub fn speaks(id: &str, hello: &Hello) -> bool {
    let mut rest = FEATURES.iter();
    // A program may offer fewer features, never in another order.
    let in_order = hello.features.iter().all(|name| rest.any(|feature| feature.as_str() == name));
    let sorted = hello.features.is_sorted();
    Ulid::from_string(id).is_ok() && in_order && (!sorted || hello.features.len() < 2)
}

#[cfg(test)]
mod tests {
    use crate::protocol::client::{ClientMessage, decode};

    #[test]
    fn the_python_sdk_is_known_by_its_ids_and_the_order_of_its_features() {
        let ulid = "01KRHAB7S00000000000000001";
        let all = r#"["heartbeat","ack","list_jobs","subscribe","lease_expires_at","cost.budget","progress","result_chunk","agent_versions"]"#;
        for (id, features, expected) in [
            (ulid, all, "python"),
            (ulid, "[]", "python"),
            (ulid, r#"["ack","agent_versions","cost.budget","heartbeat"]"#, "generic"), // sorted: F# or Java
            ("msg_01KRHAB7S00000000000000001", all, "generic"),
            ("018f3c1e-7b1a-7cc0-8000-000000000000", all, "generic"),
        ] {
            let text = format!(
                r#"{{"arcp":"1.1","id":"{id}","type":"session.hello","payload":{{"capabilities":{{"features":{features}}}}}}}"#
            );
            let Ok(request) = decode(&text) else { panic!("{text}") };
            let ClientMessage::Hello(hello) = request.message else { panic!("{text}") };
            assert_eq!(super::super::detect(&request.id, &hello).name, expected, "{id} {features}");
        }
    }
}
