//! A web server with a host at `/arcp`: `cargo run --features axum --example axum`, beside a folder `agents`.

use std::{error::Error, net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use leasehold::host::Host;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::builder().agents("agents").data("data").token("me", "choose-a-token").start().await?;
    let host = Arc::new(host);
    let router = Router::new().route("/", get(|| async { "a page of this program" })).merge(host.router());
    let listener = TcpListener::bind("127.0.0.1:7777").await?;
    println!("ws://{}/arcp", listener.local_addr()?);
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            // Without this signal there is only the other way to stop.
            let _ = tokio::signal::ctrl_c().await;
            host.stop();
        })
        .await?;
    Ok(())
}
