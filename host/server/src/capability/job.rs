//! The interface `job`: what an agent may know of its own job.

use super::{JobCtx, bindings::job};

impl job::Host for JobCtx {
    async fn id(&mut self) -> String {
        self.accepted.job_id.to_string()
    }

    async fn agent(&mut self) -> String {
        self.accepted.agent.clone()
    }

    async fn trace_id(&mut self) -> String {
        self.accepted.trace_id.to_string()
    }

    async fn expires_at(&mut self) -> Option<String> {
        self.gate().expires_at().map(|at| at.to_string())
    }

    async fn budget(&mut self) -> Vec<(String, String)> {
        let left = self.gate().ledger().remaining();
        left.into_iter().map(|(currency, value)| (currency.to_string(), value.normalize().to_string())).collect()
    }

    async fn grants(&mut self, namespace: String) -> Vec<String> {
        // A name that is no namespace has no grants.
        let Ok(namespace) = namespace.parse() else { return Vec::new() };
        self.gate().lease().texts(&namespace)
    }

    async fn cancel_requested(&mut self) -> bool {
        self.tape.cancel_requested().await
    }
}
