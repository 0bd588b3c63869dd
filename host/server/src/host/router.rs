//! A host among the routes of an axum program.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    routing::any,
};

use super::Host;

impl Host {
    /// The route `/arcp`, to be merged into the router of another program, and what is under `/v1/` if the host makes
    /// keys for an endpoint of its own.
    ///
    /// Connections are bounded and checked as by a listener of its own. Only the program knows where it listens: unless
    /// `allowed_hosts` says more, they are served under the names of loopback only. Where it listens with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, the log shows who connects.
    pub fn router(self: &Arc<Self>) -> Router {
        let (host, route) = (Arc::clone(self), Arc::new(self.route()));
        let answer = move |request: Request| {
            let host = Arc::clone(&host);
            let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|remote| remote.0);
            let response = route.answer(request, remote, |transport| async move { host.serve_one(transport).await });
            async { response.map(Body::new) }
        };
        let router = Router::new().route("/arcp", any(answer));
        let Some(gateway) = self.gateway().map(Arc::clone) else { return router };
        let keys = move |request: Request| {
            let gateway = Arc::clone(&gateway);
            async move { gateway.reply(request).await.map(Body::new) }
        };
        router.route("/v1/{*path}", any(keys))
    }
}
