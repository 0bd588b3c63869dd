//! ARCP §4: WebSocket and stdio.

use anyhow::{Result, bail, ensure};
use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::{
    Case, Target, check, skip,
    target::Upgrade,
    wire::{brief, is_refused, new_id},
};

pub(super) const CASES: &[Case] = &[
    Case::new(1, "4", "a WebSocket opens without a subprotocol", check!(no_subprotocol)),
    Case::new(2, "4", "an offered subprotocol is taken or left, and the session works", check!(a_subprotocol)),
    Case::new(3, "4", "a path that is not served is refused", check!(another_path)),
    Case::new(4, "4", "a loopback runtime refuses to be asked under a foreign name", check!(a_foreign_name)),
    Case::new(5, "4", "a binary message breaks nothing", check!(a_binary_message)),
    Case::needs(17, "4", "a frame over the limit ends the connection and no job", "a frame limit that is known"),
    Case::needs(18, "4", "a frame at the limit is served", "a frame limit that is known"),
    Case::new(19, "4", "a message in three fragments is one frame", check!(fragments)),
    Case::new(20, "4", "a WebSocket ping is answered with its payload", check!(a_websocket_ping)),
    Case::new(21, "4", "lines may be cut anywhere", check!(cut_lines)),
    Case::new(22, "4", "a blank line and CRLF mean nothing", check!(blank_lines)),
    Case::new(23, "4", "the end of its input ends a runtime on stdio", check!(end_of_input)),
];

async fn no_subprotocol(target: &Target) -> Result<()> {
    match target.upgrade(target.websocket()?.path(), &[]).await? {
        Upgrade::Open(_, chosen) => {
            ensure!(chosen.is_none(), "the runtime chose a subprotocol that nobody offered: {chosen:?}");
            Ok(())
        }
        Upgrade::Refused(status) => bail!("the runtime answers the upgrade with HTTP {status}"),
    }
}

async fn a_subprotocol(target: &Target) -> Result<()> {
    let offer = [("sec-websocket-protocol", "arcp.v1")];
    match target.upgrade(target.websocket()?.path(), &offer).await? {
        Upgrade::Open(mut wire, _) => wire.hello(target.hello()).await.map(drop),
        Upgrade::Refused(status) => bail!("the runtime answers the upgrade with HTTP {status}"),
    }
}

async fn another_path(target: &Target) -> Result<()> {
    target.websocket()?;
    let Upgrade::Open(mut wire, _) = target.upgrade("/no-such-path", &[]).await? else { return Ok(()) };
    wire.send("session.hello", target.hello()).await?;
    match wire.hear("a refusal").await? {
        Ok(frame) if frame["type"] == "session.welcome" => skip("the runtime serves every path, which is its choice"),
        _ => Ok(()),
    }
}

async fn a_foreign_name(target: &Target) -> Result<()> {
    let uri = target.websocket()?;
    if !matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        return skip("needs a runtime on a loopback address");
    }
    let Upgrade::Open(mut wire, _) = target.upgrade(uri.path(), &[("host", "evil.example")]).await? else {
        return Ok(());
    };
    wire.send("session.hello", target.hello()).await?;
    match wire.hear("a refusal").await? {
        Ok(frame) if frame["type"] == "session.welcome" => {
            skip("needs a list of allowed names, configured at the runtime")
        }
        _ => Ok(()),
    }
}

async fn a_binary_message(target: &Target) -> Result<()> {
    target.websocket()?;
    let mut wire = target.connect().await?;
    let hello = wire.frame("session.hello", &new_id()?, json!({}), target.hello()).to_string();
    wire.send_message(Message::binary(hello.clone().into_bytes())).await?;
    // A runtime that ignores binary messages answers this one.
    wire.send_text(hello).await?;
    match wire.hear("an answer").await? {
        Ok(frame) if frame["type"] == "session.welcome" => Ok(()),
        Ok(frame) => is_refused(&frame, &["INVALID_REQUEST", "UNAUTHENTICATED"]),
        // It may end the connection, and has to take the next one.
        Err(_) => target.open().await.map(drop),
    }
}

async fn fragments(target: &Target) -> Result<()> {
    target.websocket()?;
    let mut wire = target.connect().await?;
    let hello = wire.frame("session.hello", &new_id()?, json!({}), target.hello()).to_string();
    let (first, rest) = hello.split_at(hello.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    let parts = [(first, Data::Text, false), (second, Data::Continue, false), (third, Data::Continue, true)];
    for (part, kind, is_last) in parts {
        let frame = Frame::message(part.as_bytes().to_vec(), OpCode::Data(kind), is_last);
        wire.send_message(Message::Frame(frame)).await?;
    }
    let welcome = wire.recv("session.welcome").await?;
    ensure!(welcome["type"] == "session.welcome", "a hello in fragments is answered with {}", brief(&welcome));
    wire.welcomed(&welcome, &[])?;
    let more = wire.settle().await?;
    ensure!(more.is_empty(), "the runtime answered more than once");
    Ok(())
}

async fn a_websocket_ping(target: &Target) -> Result<()> {
    target.websocket()?;
    let mut wire = target.connect().await?;
    wire.send_message(Message::Ping(b"leasehold".to_vec().into())).await?;
    loop {
        match wire.message("a pong").await? {
            Message::Pong(payload) => {
                ensure!(&payload[..] == b"leasehold", "the pong has another payload");
                return Ok(());
            }
            Message::Close(_) => bail!("the runtime closed the connection"),
            _ => {}
        }
    }
}

async fn cut_lines(target: &Target) -> Result<()> {
    target.stdio()?;
    let mut wire = target.open().await?;
    let submit = |wire: &super::wire::Wire, id: &str| {
        format!("{}\n", wire.frame("job.submit", id, json!({}), json!({ "agent": "echo", "input": 1 })))
    };
    let ids = [new_id()?, new_id()?, new_id()?];
    let [first, second, third] = [&ids[0], &ids[1], &ids[2]].map(|id| submit(&wire, id));
    wire.write(format!("{first}{second}").as_bytes()).await?;
    let (left, right) = third.split_at(third.len() / 2);
    wire.write(left.as_bytes()).await?;
    wire.submitted(&ids[0]).await?;
    wire.submitted(&ids[1]).await?;
    wire.write(right.as_bytes()).await?;
    let reply = wire.submitted(&ids[2]).await?;
    ensure!(reply["type"] == "job.accepted", "the third submission is answered with {}", brief(&reply));
    Ok(())
}

async fn blank_lines(target: &Target) -> Result<()> {
    target.stdio()?;
    let mut wire = target.open().await?;
    wire.write(b"\n\r\n").await?;
    let id = new_id()?;
    let frame = wire.frame("job.submit", &id, json!({}), json!({ "agent": "echo", "input": 1 }));
    wire.write(format!("{frame}\r\n").as_bytes()).await?;
    let reply = wire.submitted(&id).await?;
    ensure!(reply["type"] == "job.accepted", "a line that ends with CRLF is answered with {}", brief(&reply));
    Ok(())
}

async fn end_of_input(target: &Target) -> Result<()> {
    target.stdio()?;
    let mut wire = target.open().await?;
    wire.end_of_input().await
}
