//! A session, and a driver that knows two tokens.

use std::time::Duration;

use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{Principal, SessionId, Ulid},
    protocol::server::Stamp,
    secret::Secret,
    session::{Claim, Input, Output, Session, SessionConfig, Welcomed, Who, expired, stranger},
    time::Timestamp,
};
use serde_json::Value;

/// A session and what it has said.
pub struct Driven {
    pub session: Session,
    pub sent: Vec<Value>,
    pub known: bool,
    pub closed: bool,
    now: i64,
}

impl Driven {
    pub fn new() -> Self {
        let config = SessionConfig {
            handshake_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(30),
            resume_window: Duration::from_secs(600),
            spans_max: 100,
            settle_after: Duration::from_secs(60),
            followed_max: 100,
            lag_max: 3,
            features: Vec::new(),
        };
        let session = Session::new(config, Timestamp::from_millis(0), None);
        Self { session, sent: Vec::new(), known: false, closed: false, now: 0 }
    }

    /// Gives the session an input, and does what it says as a host would that runs no jobs.
    pub fn give(&mut self, input: Input) {
        let mut next = vec![input];
        while let Some(input) = next.pop() {
            self.now += 1;
            let (now, ulid) = (Timestamp::from_millis(self.now), Ulid::from_parts(1, self.now as u128));
            for output in self.session.handle(now, ulid, input) {
                match output {
                    Output::Send(message) => {
                        let session_id = SessionId::new(Ulid::from_parts(1, 1));
                        let stamp = Stamp { id: ulid, now, session_id, dialect: self.session.dialect() };
                        let frame = message.encode(&stamp);
                        self.sent.push(serde_json::from_str(&frame).expect("a frame is JSON"));
                    }
                    Output::Authenticate { who, claim } => next.push(Input::Authenticated(self.welcome(who, claim))),
                    Output::Submit(submission) => next.push(Input::Submitted {
                        request: submission.request,
                        trace_id: leasehold_core::protocol::trace::TraceId::new(1),
                        outcome: Err(Refusal::new(ErrorCode::AgentNotAvailable, "there is no agent")),
                    }),
                    Output::Close(_) => self.closed = true,
                    _ => {}
                }
            }
        }
    }

    fn welcome(&mut self, who: Who, claim: Claim) -> Result<Welcomed, Refusal> {
        let principal = match who {
            Who::Token(Some(token)) if token.expose() == "t" => Principal::new("alice"),
            Who::Token(_) => return Err(stranger()),
            Who::Known(principal) => principal,
        };
        self.known = true;
        match claim {
            Claim::New { .. } => {
                Ok(Welcomed { principal, resume_token: Secret::new("rt"), agents: Vec::new(), resumed: None })
            }
            Claim::Resume(_) => Err(expired()),
        }
    }
}
