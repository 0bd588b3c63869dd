//! Optional parts of the protocol that both peers must want (ARCP §6.2).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A feature flag of ARCP §6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feature {
    /// Pings when idle (§6.4).
    #[serde(rename = "heartbeat")]
    Heartbeat,
    /// Acknowledged events (§6.5).
    #[serde(rename = "ack")]
    Ack,
    /// An inventory of jobs (§6.6).
    #[serde(rename = "list_jobs")]
    ListJobs,
    /// Watching another session's job (§7.6).
    #[serde(rename = "subscribe")]
    Subscribe,
    /// Leases that end (§9.5).
    #[serde(rename = "lease_expires_at")]
    LeaseExpiresAt,
    /// Leases that cost (§9.6).
    #[serde(rename = "cost.budget")]
    CostBudget,
    /// Leases that name models (§9.7).
    #[serde(rename = "model.use")]
    ModelUse,
    /// Credentials made for a job (§9.8).
    #[serde(rename = "provisioned_credentials")]
    ProvisionedCredentials,
    /// Structured progress (§8.2.1).
    #[serde(rename = "progress")]
    Progress,
    /// Streamed results (§8.4).
    #[serde(rename = "result_chunk")]
    ResultChunk,
    /// Pinned agent versions (§7.5).
    #[serde(rename = "agent_versions")]
    AgentVersions,
}

use Feature::{
    Ack, AgentVersions, CostBudget, Heartbeat, LeaseExpiresAt, ListJobs, ModelUse, Progress, ProvisionedCredentials,
    ResultChunk, Subscribe,
};

impl Feature {
    /// Every feature there is, in the order of §6.2.
    pub const ALL: [Self; 11] = [
        Heartbeat,
        Ack,
        ListJobs,
        Subscribe,
        LeaseExpiresAt,
        CostBudget,
        ModelUse,
        ProvisionedCredentials,
        Progress,
        ResultChunk,
        AgentVersions,
    ];

    /// What every host of this kind does; [`ModelUse`] and [`ProvisionedCredentials`] are for the operator to decide.
    pub const SUPPORTED: [Self; 9] =
        [Heartbeat, Ack, ListJobs, Subscribe, LeaseExpiresAt, CostBudget, Progress, ResultChunk, AgentVersions];

    /// The flag as the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Heartbeat => "heartbeat",
            Ack => "ack",
            ListJobs => "list_jobs",
            Subscribe => "subscribe",
            LeaseExpiresAt => "lease_expires_at",
            CostBudget => "cost.budget",
            ModelUse => "model.use",
            ProvisionedCredentials => "provisioned_credentials",
            Progress => "progress",
            ResultChunk => "result_chunk",
            AgentVersions => "agent_versions",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What both peers of one session want.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(Vec<Feature>);

impl Features {
    /// The intersection of what a hello offers and what this host does, [`Feature::SUPPORTED`] and `besides` (§6.2), in
    /// the order of §6.2.
    #[must_use]
    pub fn negotiate(offered: &[String], besides: &[Feature]) -> Self {
        let wanted = |feature: &Feature| offered.iter().any(|name| name == feature.as_str());
        let done = |feature: &Feature| Feature::SUPPORTED.contains(feature) || besides.contains(feature);
        Self(Feature::ALL.into_iter().filter(|feature| wanted(feature) && done(feature)).collect())
    }

    /// Whether `feature` may be used.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_feature_is_its_spelling_on_the_wire() {
        for feature in Feature::ALL {
            assert_eq!(serde_json::to_string(&feature).unwrap(), format!("\"{feature}\""));
        }
    }

    /// ARCP §6.2: "The effective feature set is the intersection".
    #[test]
    fn only_what_both_want_is_negotiated() {
        let offered = ["progress", "x-vendor.y", "heartbeat", "model.use"].map(String::from);
        assert_eq!(Features::negotiate(&offered, &[]), Features(vec![Heartbeat, Progress]));
        let besides = [ProvisionedCredentials, ModelUse];
        assert_eq!(Features::negotiate(&offered, &besides), Features(vec![Heartbeat, ModelUse, Progress]));
        assert_eq!(Features::negotiate(&[], &besides), Features::default());
    }
}
