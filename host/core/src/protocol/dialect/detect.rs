//! Which SDK a hello is of.
//!
//! No SDK says its name in a way that a program could not change, but each makes
//! the ids of its messages in one way, and lists its features in one order.

use super::{Dialect, GENERIC, csharp, echo, family_b, fsharp, go, java, php, python, ruby, typescript};
use crate::{
    id::Ulid,
    protocol::{
        client::Hello,
        feature::Feature::{
            self, Ack, AgentVersions, CostBudget, Heartbeat, LeaseExpiresAt, ListJobs, ModelUse, Progress,
            ProvisionedCredentials, ResultChunk, Subscribe,
        },
    },
};

/// The features of the TypeScript SDK in its order, which is not that of §6.2. Python's are the first nine of them.
const TYPESCRIPT: [Feature; 11] = [
    Heartbeat,
    Ack,
    ListJobs,
    Subscribe,
    LeaseExpiresAt,
    CostBudget,
    Progress,
    ResultChunk,
    AgentVersions,
    ModelUse,
    ProvisionedCredentials,
];

/// What the HTTP client of Java's own library says it is, which its SDK connects with; that of .NET says nothing.
const JAVA_HTTP: &str = "Java-http-client/";

/// Chooses the dialect of the client that sent `hello` in an envelope named `id`, over a connection of the software
/// `user_agent`.
///
/// What is nobody's for certain is read as the draft's own.
#[must_use]
pub fn detect(id: &str, hello: &Hello, user_agent: Option<&str>) -> &'static Dialect {
    let spelling = &hello.spelling;
    let timestamp = spelling.timestamp;
    match Form::of(id) {
        _ if spelling.opens => &family_b::DIALECT,
        _ if spelling.client_name => &ruby::DIALECT,
        _ if timestamp && (spelling.client_kind || spelling.flags) => &php::DIALECT,
        Form::Prefixed if timestamp => &csharp::DIALECT,
        // Other programs make such ids too, but hardly offer all of this in just this order.
        Form::Prefixed if is_all_of_typescript(&hello.features) => &typescript::DIALECT,
        Form::UuidV7 => &go::DIALECT,
        Form::Ulid => of_ulid(hello, user_agent),
        Form::Prefixed | Form::Other => GENERIC,
    }
}

/// Among the SDKs whose ids are bare ULIDs: Python, F# and Java.
fn of_ulid(hello: &Hello, user_agent: Option<&str>) -> &'static Dialect {
    match (hello.client.name.as_deref(), hello.scheme.as_deref()) {
        (Some("arcp-client-java"), _) | (_, Some("anonymous")) => &java::DIALECT,
        _ if hello.spelling.resume_beside => &java::DIALECT,
        (Some("arcp-fsharp"), _) | (_, Some("none")) => &fsharp::DIALECT,
        _ if hello.features.len() > 1 && hello.features.is_sorted() => {
            // What says nothing may be F#'s, or another program's that Java is behind: `echo` harms neither.
            let is_java = user_agent.is_some_and(|software| software.starts_with(JAVA_HTTP));
            if is_java { &java::DIALECT } else { &echo::DIALECT }
        }
        _ if is_in_order_of_python(&hello.features) => &python::DIALECT,
        _ => GENERIC,
    }
}

fn is_all_of_typescript(features: &[String]) -> bool {
    features.iter().map(String::as_str).eq(TYPESCRIPT.map(Feature::as_str))
}

/// A program may offer fewer features than its SDK knows, never in another order.
fn is_in_order_of_python(features: &[String]) -> bool {
    let mut rest = TYPESCRIPT[..9].iter();
    features.iter().all(|name| rest.any(|feature| feature.as_str() == name))
}

/// How the id of a message is made.
enum Form {
    /// `msg_<ULID>`
    Prefixed,
    /// `<ULID>`
    Ulid,
    /// A UUID that begins with the time (RFC 9562).
    UuidV7,
    Other,
}

impl Form {
    fn of(id: &str) -> Self {
        let is_ulid = |text: &str| Ulid::from_string(text).is_ok();
        match id.strip_prefix("msg_") {
            Some(rest) if is_ulid(rest) => Self::Prefixed,
            None if is_ulid(id) => Self::Ulid,
            None if is_uuid_v7(id) => Self::UuidV7,
            _ => Self::Other,
        }
    }
}

fn is_uuid_v7(id: &str) -> bool {
    let groups: Vec<&str> = id.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|digit| digit.is_ascii_hexdigit()))
        && groups[2].starts_with('7')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::client::{ClientMessage, Request, decode};

    const ULID: &str = "01KRHAB7S00000000000000001";
    const MSG: &str = "msg_01KRHAB7S00000000000000001";
    const UUID: &str = "0196b1de-7b1a-7cc0-8000-000000000000";

    fn features(of: &[Feature]) -> Value {
        json!({ "encodings": ["json"], "features": of.iter().map(|feature| feature.as_str()).collect::<Vec<_>>() })
    }

    fn detected(id: &str, envelope: &Value, payload: &Value) -> &'static str {
        let mut frame = json!({ "arcp": "1.1", "id": id, "type": "session.hello", "payload": payload });
        for (key, value) in envelope.as_object().unwrap() {
            frame[key] = value.clone();
        }
        match decode(&frame.to_string()) {
            Ok(Request { id, message: ClientMessage::Hello(hello), .. }) => detect(&id, &hello, None).name,
            other => panic!("{frame}: {other:?}"),
        }
    }

    /// Each row is a hello as one client writes it: its id, what else is in the envelope, its payload.
    #[test]
    fn a_hello_tells_whose_it_is() {
        let bearer = json!({ "scheme": "bearer", "token": "t" });
        let sorted = || json!({ "features": ["ack", "agent_versions", "cost.budget", "heartbeat"] });
        let by = |name: &str| json!({ "name": name, "version": "1" });
        let now = || json!({ "timestamp": "2026-05-13T19:30:00.000Z" });
        let none = || json!({});
        let with = |key: &str, value: Value| {
            let mut payload = json!({ "client": by("c"), "auth": bearer, "capabilities": sorted() });
            payload[key] = value;
            payload
        };
        let offers = |capabilities: Value| with("capabilities", capabilities);
        for (id, envelope, payload, expected) in [
            (MSG, none(), offers(features(&TYPESCRIPT)), "typescript"),
            (MSG, none(), offers(features(&TYPESCRIPT[..9])), "generic"), // a program of somebody's own
            (MSG, none(), offers(features(&Feature::ALL)), "generic"),
            (MSG, none(), offers(json!({})), "generic"),
            ("msg_1", none(), offers(features(&TYPESCRIPT)), "generic"),
            (ULID, none(), offers(features(&TYPESCRIPT[..9])), "python"),
            (ULID, none(), offers(features(&[Heartbeat, Ack])), "python"),
            (ULID, none(), offers(features(&[])), "python"),
            (ULID, none(), offers(features(&[Progress])), "python"),
            (ULID, none(), offers(features(&[Progress, Heartbeat])), "generic"),
            (UUID, none(), offers(features(&[Heartbeat, Ack, ListJobs, Subscribe, AgentVersions])), "go"),
            (&UUID.replace("-7", "-4"), none(), offers(json!({})), "generic"),
            (MSG, now(), offers(features(&[Progress, Ack, Heartbeat])), "csharp"),
            (MSG, now(), json!({ "client": by("c"), "capabilities": sorted() }), "csharp"), // no token, no auth
            (ULID, none(), with("auth", json!({ "scheme": "none" })), "fsharp"),
            (ULID, none(), with("client", by("arcp-fsharp")), "fsharp"),
            (ULID, none(), with("auth", json!({ "scheme": "anonymous" })), "java"),
            (ULID, none(), with("client", by("arcp-client-java")), "java"),
            (ULID, none(), with("resume_token", json!("rt_1")), "java"),
            (ULID, none(), with("last_event_seq", json!(7)), "java"),
            (ULID, none(), with("client", by("a program")), "echo"), // Java's or F#'s, and nothing says which
            (UUID, json!({ "session_id": "ses_1" }), with("client_name", json!("c")), "ruby"),
            (MSG, now(), with("client", json!({ "kind": "php", "version": "1" })), "php"),
            (MSG, now(), offers(json!({ "streaming": true })), "php"),
            (MSG, none(), offers(json!({ "streaming": true })), "generic"),
            ("hello-1", none(), json!({}), "generic"),
            ("hello-1", now(), offers(features(&TYPESCRIPT)), "generic"),
        ] {
            assert_eq!(detected(id, &envelope, &payload), expected, "{id} {envelope} {payload}");
        }
    }

    /// Each row is a hello that is Java's or F#'s, or neither's, and the software of the connection it came over.
    #[test]
    fn the_software_of_a_connection_tells_java_from_fsharp() {
        let sorted = json!({ "capabilities": { "features": ["ack", "heartbeat"] } });
        let unsorted = json!({ "capabilities": { "features": ["heartbeat", "ack"] } });
        for (payload, user_agent, expected) in [
            (&sorted, Some("Java-http-client/21.0.2"), "java"),
            (&sorted, Some("Python/3.11 websockets/15.0"), "echo"),
            (&sorted, None, "echo"), // F#'s, or behind something that takes the header away
            (&unsorted, Some("Java-http-client/21.0.2"), "python"),
        ] {
            let frame = json!({ "arcp": "1.1", "id": ULID, "type": "session.hello", "payload": payload });
            let ClientMessage::Hello(hello) = decode(&frame.to_string()).unwrap().message else { panic!("{frame}") };
            assert_eq!(detect(ULID, &hello, user_agent).name, expected, "{payload} {user_agent:?}");
        }
    }
}
