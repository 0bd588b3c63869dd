//! What a client says (ARCP §6, §7), from text to types.
//!
//! The SDKs spell some of it differently; every spelling they are known to use
//! becomes the draft's here and nowhere else.

use std::{collections::BTreeMap, fmt, marker::PhantomData, num::NonZeroU32};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use super::{
    dialect::{self, Dialect, Words, family_b},
    json::Json,
    status::Status,
    trace::TraceId,
};
use crate::{error::Refusal, id::JobId, secret::Secret, time::Timestamp};

/// The protocol version this host speaks (ARCP §5 `arcp`).
pub const VERSION: &str = "1.1";

/// The longest envelope `id` that is echoed.
const ID_BYTES_MAX: usize = 256;

/// A frame that was understood.
#[derive(Debug)]
pub struct Request {
    /// The envelope's `id`, echoed in the answer.
    pub id: String,
    /// The envelope's `session_id`.
    pub session_id: Option<String>,
    /// The envelope's `trace_id`, if it is one.
    pub trace_id: Option<TraceId>,
    /// What is asked.
    pub message: ClientMessage,
}

/// A frame that was not.
#[derive(Debug)]
pub struct Malformed {
    /// The envelope's `id`, if it could be read.
    pub id: Option<String>,
    /// The envelope's `type`, if it could be read: a submit is refused in its own way.
    pub kind: Option<String>,
    /// The envelope's `trace_id`, if it could be read.
    pub trace_id: Option<TraceId>,
    /// What is wrong and where.
    pub refusal: Refusal,
}

/// One message of §6 or §7.
#[derive(Debug)]
pub enum ClientMessage {
    /// `session.hello` (§6.2).
    Hello(Box<Hello>),
    /// `session.resume` (§6.3).
    Resume(Resume),
    /// `session.ping` (§6.4).
    Ping {
        /// Comes back in the pong.
        nonce: String,
        /// Whether it is a plain `ping`, which the draft does not have.
        plain: bool,
    },
    /// `session.pong` (§6.4). Whatever it answers, the client lives.
    Pong,
    /// `session.ack` (§6.5).
    Ack {
        /// The highest `event_seq` the client has dealt with.
        last_processed_seq: u64,
    },
    /// `session.list_jobs` (§6.6).
    ListJobs(ListJobs),
    /// `session.close` or, as some SDKs say, `session.bye` (§6.7).
    Close {
        /// Why.
        reason: Option<String>,
    },
    /// `job.submit` (§7.1).
    Submit(Box<Submit>),
    /// `job.cancel` (§7.4).
    Cancel {
        /// Which job.
        job_id: JobId,
        /// Why.
        reason: Option<String>,
    },
    /// `job.subscribe` (§7.6).
    Subscribe(Subscribe),
    /// `job.unsubscribe` (§7.6).
    Unsubscribe {
        /// Which job.
        job_id: JobId,
    },
    /// A type nobody knows. It is ignored, so that the protocol can grow.
    Unknown(String),
}

/// The payload of `job.subscribe` (§7.6).
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The job to watch.
    pub job_id: JobId,
    /// What it has told already is told, too, if it came after this number of the session that submitted it.
    pub history_after: Option<u64>,
}

/// The payload of `session.hello` (§6.2).
#[derive(Debug)]
pub struct Hello {
    /// Who connects: name and version of the program.
    pub client: ClientInfo,
    /// The bearer token.
    pub token: Option<Secret>,
    /// The authentication scheme, lower-case.
    pub scheme: Option<String>,
    /// The features offered, as written.
    pub features: Vec<String>,
    /// The encodings offered; empty means JSON.
    pub encodings: Vec<String>,
    /// The earlier session that is asked for (§6.3).
    pub resume: Option<Resume>,
    /// How all this was written.
    pub spelling: Spelling,
}

/// What of a hello's form tells one SDK from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Whether it is a `session.open`, from before there was a hello.
    pub opens: bool,
    /// Whether the envelope has a `timestamp`.
    pub timestamp: bool,
    /// Whether the client is named by `client_name`, beside where it belongs.
    pub client_name: bool,
    /// Whether the client says of which `kind` it is.
    pub client_kind: bool,
    /// Whether capabilities are flags, as in `"streaming": true`.
    pub flags: bool,
    /// Whether what belongs into `resume` stands beside it.
    pub resume_beside: bool,
}

/// What a client says to find its session again (§6.3).
#[derive(Clone, Debug)]
pub struct Resume {
    /// The session; the token alone names it too, and some SDKs send no more.
    pub session_id: Option<String>,
    /// The token of its newest welcome.
    pub token: Secret,
    /// The number of the last message it has.
    pub last_event_seq: u64,
}

/// Who connects.
#[derive(Debug, Default, Deserialize)]
pub struct ClientInfo {
    /// The program's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// Its name, as some SDKs spell it.
    #[serde(default)]
    pub kind: Option<String>,
}

/// The payload of `session.list_jobs` (§6.6).
#[derive(Debug, Default, PartialEq)]
pub struct ListJobs {
    /// Only jobs in one of these statuses, if any are named. Names nobody knows match no job and are dropped.
    pub statuses: Option<Vec<Status>>,
    /// Only jobs of this agent: `name` for any version, `name@version` for one.
    pub agent: Option<String>,
    /// Only jobs created later.
    pub created_after: Option<Timestamp>,
    /// Only jobs created earlier.
    pub created_before: Option<Timestamp>,
    /// At most so many; 100 if not said.
    pub limit: Option<u64>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// The payload of `job.submit` (§7.1), with its fields' types checked but not yet their meaning.
#[derive(Debug)]
pub struct Submit {
    /// `name` or `name@version` (§7.5).
    pub agent: String,
    /// What the agent is given; `null` if absent.
    pub input: Json,
    /// The grants asked for (§9.2).
    pub lease_request: BTreeMap<String, Vec<String>>,
    /// Namespaces of which all is asked for that there is to be had; one SDK has names of them and no patterns.
    pub whole: Vec<String>,
    /// When the lease is to end (§9.5), as written.
    pub expires_at: Option<String>,
    /// Amounts over which the client wants its own `cost.budget` refused; one SDK sends them.
    pub max_budget: Vec<String>,
    /// Makes a repeated submission harmless (§7.2).
    pub idempotency_key: Option<String>,
    /// How long the job may run, in seconds.
    pub max_runtime_sec: Option<NonZeroU32>,
}

/// The envelope of §5. Unknown fields are ignored, as §5 demands.
#[derive(Deserialize)]
struct Envelope<'a> {
    arcp: Option<String>,
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    session_id: Option<String>,
    trace_id: Option<String>,
    job_id: Option<String>,
    idempotency_key: Option<String>,
    timestamp: Option<de::IgnoredAny>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Reads one frame of a client that speaks the draft's words, or has not spoken yet.
///
/// # Errors
///
/// As for [`decode_as`].
pub fn decode(text: &str) -> Result<Request, Box<Malformed>> {
    decode_as(dialect::GENERIC, text)
}

/// Reads one frame of a client that speaks `dialect`.
///
/// # Errors
///
/// If it is not JSON, not an envelope of version 1.1, or its payload does not
/// fit its type. The error keeps what could be read, so that it can be answered.
pub fn decode_as(dialect: &Dialect, text: &str) -> Result<Request, Box<Malformed>> {
    let unreadable = |error: &dyn fmt::Display| {
        let refusal = Refusal::invalid(format!("the frame is not an ARCP envelope: {error}"));
        Box::new(Malformed { id: None, kind: None, trace_id: None, refusal })
    };
    // An array would be read as the fields in the order of their declaration.
    if text.trim_start().starts_with('[') {
        return Err(unreadable(&"it is an array, not an object"));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| unreadable(&without_values(&error)))?;
    // Several SDKs send free text as a trace id; it is replaced, not refused.
    let trace_id = envelope.trace_id.as_deref().and_then(TraceId::parse);
    let id = envelope.id.clone().filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    match understand(&envelope, id.as_deref(), dialect.words) {
        Ok(message) => Ok(Request { id: id.unwrap_or_default(), session_id: envelope.session_id, trace_id, message }),
        Err(refusal) => Err(Box::new(Malformed { id, kind: envelope.kind, trace_id, refusal })),
    }
}

fn understand(envelope: &Envelope<'_>, id: Option<&str>, words: Words) -> Result<ClientMessage, Refusal> {
    match envelope.arcp.as_deref() {
        Some(VERSION) => {}
        Some(other) => {
            let other: String = other.chars().take(32).collect();
            return Err(Refusal::invalid(format!("`arcp` is `{other}`; this host speaks `{VERSION}`")));
        }
        None => return Err(Refusal::invalid(format!("`arcp` is missing; it must be `{VERSION}`"))),
    }
    if id.is_none() {
        return Err(Refusal::invalid(format!("`id` must be a text of 1 to {ID_BYTES_MAX} bytes")));
    }
    let kind = envelope.kind.as_deref().ok_or_else(|| Refusal::invalid("`type` is missing"))?;
    let raw = envelope.payload.map_or("{}", RawValue::get);
    if words == Words::Rfc
        && let Some(understood) = family_b::understand(kind, raw, envelope.idempotency_key.as_deref())
    {
        return understood;
    }
    Ok(match kind {
        "session.hello" | "session.open" => {
            let mut hello = payload::<wire::Hello>(kind, raw)?.checked()?;
            hello.spelling.opens = kind == "session.open";
            hello.spelling.timestamp = envelope.timestamp.is_some();
            ClientMessage::Hello(Box::new(hello))
        }
        "session.resume" => ClientMessage::Resume(payload::<wire::Resume>(kind, raw)?.checked(kind, "payload")?),
        "session.ping" => ClientMessage::Ping { nonce: payload::<wire::Ping>(kind, raw)?.nonce, plain: false },
        "session.pong" => ClientMessage::Pong,
        "session.ack" => ClientMessage::Ack { last_processed_seq: payload::<wire::Ack>(kind, raw)?.last_processed_seq },
        "session.list_jobs" => ClientMessage::ListJobs(payload::<wire::ListJobs>(kind, raw)?.read(words)),
        "session.close" | "session.bye" => ClientMessage::Close { reason: payload::<wire::Reason>(kind, raw)?.reason },
        "job.submit" => {
            let submit = payload::<wire::Submit>(kind, raw)?;
            ClientMessage::Submit(Box::new(submit.checked(envelope.idempotency_key.as_deref())?))
        }
        "job.cancel" => {
            let cancel: wire::Cancel = payload(kind, raw)?;
            let job_id = named_job(kind, envelope.job_id.as_deref(), cancel.job_id.as_deref())?;
            ClientMessage::Cancel { job_id, reason: cancel.reason }
        }
        "job.subscribe" => {
            let subscribe: wire::Subscribe = payload(kind, raw)?;
            let job_id = named_job(kind, envelope.job_id.as_deref(), subscribe.job_id.as_deref())?;
            let history = subscribe.history.unwrap_or_default();
            let history_after = history.then(|| subscribe.from_event_seq.unwrap_or_default());
            ClientMessage::Subscribe(Subscribe { job_id, history_after })
        }
        "job.unsubscribe" => {
            let unsubscribe: wire::Unsubscribe = payload(kind, raw)?;
            let job_id = named_job(kind, envelope.job_id.as_deref(), unsubscribe.job_id.as_deref())?;
            ClientMessage::Unsubscribe { job_id }
        }
        _ => ClientMessage::Unknown(kind.to_owned()),
    })
}

/// The job that a request is about: some SDKs name it in the envelope, some in the payload, some in both.
fn named_job(kind: &str, envelope: Option<&str>, payload: Option<&str>) -> Result<JobId, Refusal> {
    let named = match (envelope, payload) {
        (Some(a), Some(b)) if a != b => {
            return Err(Refusal::invalid(format!("{kind}: the envelope's `job_id` and the payload's differ")));
        }
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) => return Err(Refusal::invalid(format!("{kind}: `job_id` is missing"))),
    };
    // An id that cannot be one names no job, which is the answer for any other unknown id too.
    named.parse().map_err(|_| unknown_job(named))
}

/// The refusal for a job that does not exist or is not the principal's to know.
#[must_use]
pub fn unknown_job(id: &str) -> Refusal {
    let id: String = id.chars().take(64).collect();
    Refusal::new(crate::error::ErrorCode::JobNotFound, format!("there is no job `{id}`"))
}

/// Reads a payload; a failure names the field.
pub(super) fn payload<T: DeserializeOwned>(kind: &str, raw: &str) -> Result<T, Refusal> {
    // As for the envelope.
    if raw.starts_with('[') {
        return Err(Refusal::invalid(format!("{kind}: `payload` must be an object, not an array")));
    }
    // The plain reader is the fast one; only a failure pays for the search of its place.
    serde_json::from_str(raw).or_else(|_| {
        let deserializer = &mut serde_json::Deserializer::from_str(raw);
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { "payload".to_owned() } else { format!("payload.{path}") };
            let what = without_values(error.inner());
            Refusal::invalid(format!("{kind}: `{place}`: {what}"))
        })
    })
}

/// What a reader says of a text, without quoting the text: it may hold a token, and be as long as a frame.
fn without_values(error: &serde_json::Error) -> String {
    let said = error.to_string();
    // The place in a payload's own text would mislead in a frame that holds more.
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    for prefix in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = said.strip_prefix(prefix)
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            return format!("{prefix}{kind}, expected {expected}");
        }
    }
    said.to_owned()
}

/// Payloads as they are written.
mod wire {
    use super::{
        BTreeMap, ClientInfo, Deserialize, Deserializer, Json, MapAccess, NonZeroU32, Object, Patterns, RawValue,
        Refusal, Secret, Spelling, Status, Timestamp, Visitor, Words, de, fmt,
    };

    #[derive(Deserialize)]
    pub struct Hello {
        #[serde(default)]
        client: Option<Object<ClientInfo>>,
        // One SDK names itself in two plain fields.
        #[serde(default)]
        client_name: Option<String>,
        #[serde(default)]
        client_version: Option<String>,
        #[serde(default)]
        auth: Option<Object<Auth>>,
        #[serde(default)]
        capabilities: Option<Object<Capabilities>>,
        #[serde(default)]
        resume: Option<Object<Resume>>,
        // One SDK writes what belongs into `resume` beside it.
        #[serde(default)]
        resume_token: Option<Secret>,
        #[serde(default)]
        last_event_seq: Option<u64>,
    }

    #[derive(Default, Deserialize)]
    pub struct Resume {
        #[serde(default)]
        session_id: Option<String>,
        #[serde(default)]
        resume_token: Option<Secret>,
        // As one SDK spells it.
        #[serde(default)]
        token: Option<Secret>,
        #[serde(default)]
        last_event_seq: Option<u64>,
    }

    impl Resume {
        /// Whoever resumes has a token.
        pub fn checked(self, kind: &str, place: &str) -> Result<super::Resume, Refusal> {
            let Some(token) = self.resume_token.or(self.token) else {
                return Err(Refusal::invalid(format!("{kind}: `{place}.resume_token` is missing")));
            };
            let last_event_seq = self.last_event_seq.unwrap_or(0);
            Ok(super::Resume { session_id: self.session_id, token, last_event_seq })
        }
    }

    #[derive(Default, Deserialize)]
    struct Auth {
        #[serde(default)]
        scheme: Option<String>,
        #[serde(default)]
        token: Option<Secret>,
    }

    #[derive(Default)]
    struct Capabilities {
        features: Option<Vec<String>>,
        encodings: Option<Vec<String>>,
        /// The names that are `true`, as SDKs write it that come from before the draft.
        flags: Vec<String>,
    }

    impl<'de> Deserialize<'de> for Capabilities {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Fields;

            impl<'de> Visitor<'de> for Fields {
                type Value = Capabilities;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Capabilities, A::Error> {
                    let mut all = Capabilities::default();
                    while let Some(name) = map.next_key::<String>()? {
                        match &*name {
                            "features" => all.features = map.next_value()?,
                            "encodings" => all.encodings = map.next_value()?,
                            _ => {
                                let is_true = map.next_value::<Box<RawValue>>()?.get() == "true";
                                all.flags.extend(is_true.then_some(name));
                            }
                        }
                    }
                    Ok(all)
                }
            }

            deserializer.deserialize_map(Fields)
        }
    }

    /// What clients from before the draft use without offering it, as features had no names then.
    const UNASKED: [&str; 6] =
        ["list_jobs", "subscribe", "lease_expires_at", "cost.budget", "progress", "agent_versions"];

    impl Hello {
        /// Joins what may stand in two places.
        pub fn checked(self) -> Result<super::Hello, Refusal> {
            let capabilities = self.capabilities.unwrap_or_default().0;
            let (scheme, token) = self.auth.map_or((None, None), |Object(auth)| (auth.scheme, auth.token));
            let resume_beside = self.resume_token.is_some() || self.last_event_seq.is_some();
            let beside = self.resume_token.map(|token| super::Resume {
                session_id: None,
                token,
                last_event_seq: self.last_event_seq.unwrap_or(0),
            });
            let resume = self.resume.map(|Object(resume)| resume.checked("session.hello", "payload.resume"));
            let client = self.client.unwrap_or_default().0;
            let spelling = Spelling {
                opens: false,
                timestamp: false,
                client_name: self.client_name.is_some(),
                client_kind: client.kind.is_some(),
                flags: !capabilities.flags.is_empty(),
                resume_beside,
            };
            Ok(super::Hello {
                client: ClientInfo {
                    name: client.name.or(self.client_name),
                    version: client.version.or(self.client_version),
                    kind: client.kind,
                },
                // An empty token is how some SDKs write none.
                token: token.filter(|token| !token.expose().is_empty()),
                scheme: scheme.map(|scheme| scheme.to_ascii_lowercase()),
                features: match capabilities.features {
                    Some(features) => features,
                    // Whoever opens a session names its kind.
                    None if spelling.client_kind || spelling.flags => {
                        capabilities.flags.into_iter().chain(UNASKED.map(str::to_owned)).collect()
                    }
                    None => Vec::new(),
                },
                encodings: capabilities.encodings.unwrap_or_default(),
                resume: resume.transpose()?.or(beside),
                spelling,
            })
        }
    }

    #[derive(Deserialize)]
    pub struct Ping {
        pub nonce: String,
    }

    #[derive(Deserialize)]
    pub struct Ack {
        pub last_processed_seq: u64,
    }

    #[derive(Deserialize)]
    pub struct Reason {
        #[serde(default)]
        pub reason: Option<String>,
    }

    #[derive(Deserialize)]
    pub struct Cancel {
        #[serde(default)]
        pub job_id: Option<String>,
        #[serde(default)]
        pub reason: Option<String>,
    }

    #[derive(Deserialize)]
    pub struct Subscribe {
        #[serde(default)]
        pub job_id: Option<String>,
        #[serde(default)]
        pub from_event_seq: Option<u64>,
        #[serde(default)]
        pub history: Option<bool>,
    }

    #[derive(Deserialize)]
    pub struct Unsubscribe {
        #[serde(default)]
        pub job_id: Option<String>,
    }

    #[derive(Deserialize)]
    pub struct ListJobs {
        #[serde(default)]
        filter: Option<Object<Filter>>,
        #[serde(default)]
        limit: Option<u64>,
        #[serde(default)]
        cursor: Option<String>,
    }

    #[derive(Default, Deserialize)]
    struct Filter {
        #[serde(default)]
        status: Option<Patterns>,
        #[serde(default)]
        agent: Option<String>,
        #[serde(default)]
        created_after: Option<Timestamp>,
        #[serde(default)]
        created_before: Option<Timestamp>,
    }

    impl ListJobs {
        pub fn read(self, words: Words) -> super::ListJobs {
            let filter = self.filter.unwrap_or_default().0;
            super::ListJobs {
                statuses: filter.status.map(|Patterns(named)| {
                    let is = |status: Status, name: &String| name == words.status(status) || name == status.as_str();
                    Status::ALL.into_iter().filter(|status| named.iter().any(|name| is(*status, name))).collect()
                }),
                agent: filter.agent,
                created_after: filter.created_after,
                created_before: filter.created_before,
                limit: self.limit.filter(|limit| *limit > 0),
                cursor: self.cursor.filter(|cursor| !cursor.is_empty()),
            }
        }
    }

    #[derive(Deserialize)]
    pub struct Submit {
        agent: String,
        #[serde(default)]
        input: Json,
        #[serde(default)]
        lease_request: Option<BTreeMap<String, Option<Patterns>>>,
        #[serde(default)]
        lease_constraints: Option<Object<Constraints>>,
        #[serde(default)]
        idempotency_key: Option<String>,
        #[serde(default, deserialize_with = "seconds")]
        max_runtime_sec: Option<NonZeroU32>,
    }

    #[derive(Default, Deserialize)]
    struct Constraints {
        #[serde(default)]
        expires_at: Option<String>,
        #[serde(default)]
        max_budget: Option<Patterns>,
    }

    impl Submit {
        /// Joins what may stand in two places.
        pub fn checked(self, envelope_key: Option<&str>) -> Result<super::Submit, Refusal> {
            let idempotency_key = super::key(self.idempotency_key, envelope_key)?;
            let Object(constraints) = self.lease_constraints.unwrap_or_default();
            let (lease_request, whole, expires_at) = lease(self.lease_request.unwrap_or_default());
            Ok(super::Submit {
                agent: self.agent,
                input: self.input,
                lease_request,
                whole,
                expires_at: earlier(constraints.expires_at, expires_at),
                max_budget: constraints.max_budget.map(|Patterns(amounts)| amounts).unwrap_or_default(),
                idempotency_key,
                max_runtime_sec: self.max_runtime_sec,
            })
        }
    }

    /// A lease, the namespaces that are asked for as a whole, and the end: one SDK lists `capabilities` by their names,
    /// and writes the end beside them.
    fn lease(
        written: BTreeMap<String, Option<Patterns>>,
    ) -> (BTreeMap<String, Vec<String>>, Vec<String>, Option<String>) {
        let mut lease: BTreeMap<String, Vec<String>> = written
            .into_iter()
            .filter_map(|(namespace, patterns)| patterns.map(|Patterns(patterns)| (namespace, patterns)))
            .collect();
        let Some(mut whole) = lease.remove("capabilities") else { return (lease, Vec::new(), None) };
        let expires_at = lease.remove("expires_at").and_then(|texts| texts.into_iter().next());
        // What has patterns, or amounts, is asked for by these.
        whole.retain(|capability| !lease.contains_key(capability));
        (lease, whole, expires_at)
    }

    /// The earlier of two ends; one that is none is kept, to be refused with its name.
    fn earlier(a: Option<String>, b: Option<String>) -> Option<String> {
        match (a, b) {
            (Some(a), Some(b)) => match (Timestamp::parse_utc(&a), Timestamp::parse_utc(&b)) {
                (Ok(end), Ok(other)) => Some(if end <= other { a } else { b }),
                (Err(_), _) => Some(a),
                (Ok(_), Err(_)) => Some(b),
            },
            (a, b) => a.or(b),
        }
    }

    /// Whole seconds; 0 and null mean no limit of the client's own, and `60.0` is 60.
    fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
        let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
        let whole = number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be whole and in range"
            )]
            (float.fract() == 0.0 && (0.0..=4_294_967_295.0).contains(&float)).then_some(float as u64)
        });
        whole
            .and_then(|seconds| u32::try_from(seconds).ok())
            .map(NonZeroU32::new)
            .ok_or_else(|| de::Error::custom(format!("{number} is not a whole number of seconds")))
    }
}

/// An object within a payload. One language writes an empty one as an empty
/// array; any other array is refused, as its items would be read as fields.
#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
                match seq.next_element::<de::IgnoredAny>()? {
                    None => Ok(T::default()),
                    Some(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
                }
            }
        }

        deserializer.deserialize_any(Fields(PhantomData)).map(Self)
    }
}

/// The longest `idempotency_key`.
pub const KEY_BYTES_MAX: usize = 256;

/// The `idempotency_key` of a submission, which may stand in the payload or in the envelope; an empty one is none.
pub(super) fn key(payload: Option<String>, envelope: Option<&str>) -> Result<Option<String>, Refusal> {
    let payload = payload.filter(|key| !key.is_empty());
    let envelope = envelope.filter(|key| !key.is_empty()).map(str::to_owned);
    let key = match (payload, envelope) {
        (Some(a), Some(b)) if a != b => {
            return Err(Refusal::invalid(
                "job.submit: `payload.idempotency_key` and the envelope's `idempotency_key` differ",
            ));
        }
        (a, b) => a.or(b),
    };
    if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Refusal::invalid(format!("job.submit: `payload.idempotency_key` is over {KEY_BYTES_MAX} bytes")));
    }
    Ok(key)
}

/// A list of texts; some SDKs write a single one without the list.
pub(super) struct Patterns(pub Vec<String>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<Self::Value, E> {
                Ok(vec![one.to_owned()])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_any(OneOrMore).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: &str, payload: &str) -> String {
        format!(r#"{{"arcp":"1.1","id":"msg_1","type":"{kind}","payload":{payload}}}"#)
    }

    fn submit(payload: &str) -> Result<Submit, String> {
        match decode(&frame("job.submit", payload)) {
            Ok(Request { message: ClientMessage::Submit(submit), .. }) => Ok(*submit),
            Ok(other) => panic!("{other:?}"),
            Err(malformed) => Err(malformed.refusal.message),
        }
    }

    /// ARCP §5: "Implementations MUST ignore unknown top-level envelope fields".
    #[test]
    fn unknown_fields_and_explicit_nulls_do_no_harm() {
        let text = r#"{"arcp":"1.1","id":"1","type":"session.pong","foo":{"bar":1},"span_id":"x","session_id":null,
            "trace_id":null,"job_id":null,"event_seq":null,"extensions":{},"timestamp":"2026-05-13T19:30:00Z"}"#;
        assert!(matches!(decode(text).unwrap().message, ClientMessage::Pong));
    }

    /// A token may stand where it does not belong, and refusals are logged.
    #[test]
    fn a_refusal_does_not_repeat_a_text_that_is_out_of_place() {
        let token = r#""tk-secret\", expected a trick""#;
        for text in [
            frame("session.hello", &format!(r#"{{"auth":{token}}}"#)),
            frame("session.hello", &format!(r#"{{"auth":{{"scheme":"bearer","token":[{token}]}}}}"#)),
            frame("session.hello", &format!(r#"{{"client":{token},"auth":{{"scheme":"bearer","token":"t"}}}}"#)),
            frame("session.hello", token),
            token.to_owned(),
        ] {
            let refusal = decode(&text).unwrap_err().refusal;
            assert!(!refusal.message.contains("tk-secret"), "{}", refusal.message);
        }
    }

    #[test]
    fn a_frame_that_is_no_envelope_is_refused_with_the_reason() {
        for (text, reason) in [
            ("{", "EOF"),
            ("[]", "an array, not an object"),
            (r#" ["1.1","1","session.pong"]"#, "an array, not an object"),
            ("\"hello\"", "invalid type"),
            (r#"{"id":"1","type":"session.pong"}"#, "`arcp` is missing"),
            (r#"{"arcp":"2.0","id":"1","type":"session.pong"}"#, "`arcp` is `2.0`"),
            (r#"{"arcp":"1","id":"1","type":"session.pong"}"#, "`arcp` is `1`"),
            (r#"{"arcp":"1.1","type":"session.pong"}"#, "`id` must be"),
            (r#"{"arcp":"1.1","id":"","type":"session.pong"}"#, "`id` must be"),
            (r#"{"arcp":"1.1","id":"1"}"#, "`type` is missing"),
            (r#"{"arcp":"1.1","id":"1","id":"2","type":"session.pong"}"#, "duplicate field `id`"),
            (r#"{"arcp":"1.1","id":"1","type":"session.ping","payload":{}}"#, "missing field `nonce`"),
            (r#"{"arcp":"1.1","id":"1","type":"session.ping","payload":["n"]}"#, "`payload` must be an object"),
            (r#"{"arcp":"1.1","id":"1","type":"session.hello","payload":{"auth":["bearer"]}}"#, "expected an object"),
        ] {
            let message = decode(text).map(|_| ()).unwrap_err().refusal.message;
            assert!(message.contains(reason), "{text}: {message}");
        }
    }

    /// ARCP §7.1: an error names the field.
    #[test]
    fn a_malformed_submit_is_refused_with_the_field() {
        for (payload, reason) in [
            ("{}", "missing field `agent`"),
            (r#"{"agent":7}"#, "`payload.agent`"),
            (r#"{"agent":"a","lease_request":{"fs.read":[1]}}"#, "`payload.lease_request.fs.read[0]`"),
            (r#"{"agent":"a","lease_request":{"fs.read":7}}"#, "`payload.lease_request.fs.read`"),
            (r#"{"agent":"a","lease_request":[]}"#, "`payload.lease_request`"),
            (r#"{"agent":"a","lease_constraints":{"expires_at":5}}"#, "`payload.lease_constraints.expires_at`"),
            (r#"{"agent":"a","max_runtime_sec":-1}"#, "-1 is not a whole number of seconds"),
            (r#"{"agent":"a","max_runtime_sec":1.5}"#, "1.5 is not a whole number of seconds"),
        ] {
            let message = submit(payload).unwrap_err();
            assert!(message.contains(reason), "{payload}: {message}");
        }
        let long = format!(r#"{{"agent":"a","idempotency_key":"{}"}}"#, "k".repeat(257));
        assert!(submit(&long).unwrap_err().contains("idempotency_key"));
    }

    #[test]
    fn the_spellings_of_every_sdk_mean_the_same() {
        for payload in [r#"{"agent":"a"}"#, r#"{"agent":"a","input":null,"lease_request":null,"max_runtime_sec":0}"#] {
            let submit = submit(payload).unwrap();
            assert!(submit.input.is_null() && submit.lease_request.is_empty() && submit.max_runtime_sec.is_none());
        }
        let one =
            submit(r#"{"agent":"a","input":[],"lease_request":{"fs.read":"/a"},"max_runtime_sec":60.0}"#).unwrap();
        assert_eq!(one.lease_request["fs.read"], ["/a"]);
        assert_eq!(one.max_runtime_sec.map(NonZeroU32::get), Some(60));
        assert_eq!(one.input.as_str(), "[]");
    }

    /// One SDK asks for capabilities by their names, and has an end of its own for them.
    #[test]
    fn a_list_of_capabilities_asks_for_each_of_them_as_a_whole() {
        let (early, late) = ("2026-05-13T19:30:00Z", "2026-05-13T20:30:00Z");
        for (own, constraint, expected) in [
            (Some(early), None, Some(early)),
            (None, Some(late), Some(late)),
            (Some(early), Some(late), Some(early)),
            (Some(late), Some(early), Some(early)),
            (Some(late), Some("tomorrow"), Some("tomorrow")), // to be refused by whoever reads it
            (None, None, None),
        ] {
            let payload = serde_json::json!({ "agent": "a",
                "lease_request": { "capabilities": ["fs.read", "cost.budget"], "cost.budget": ["USD:1"], "expires_at": own },
                "lease_constraints": { "expires_at": constraint, "max_budget": ["USD:2"] } });
            let submit = submit(&payload.to_string()).unwrap();
            let lease = &submit.lease_request;
            assert_eq!((&submit.whole[..], lease.len()), (&["fs.read".to_owned()][..], 1));
            assert_eq!((&lease["cost.budget"], &submit.max_budget), (&vec!["USD:1".to_owned()], &vec!["USD:2".into()]));
            assert_eq!(submit.expires_at.as_deref(), expected, "{own:?} {constraint:?}");
        }
        // Without them these are names like any other, and refused as such.
        assert!(
            submit(r#"{"agent":"a","lease_request":{"expires_at":"x"}}"#)
                .unwrap()
                .lease_request
                .contains_key("expires_at")
        );
    }

    #[test]
    fn a_hello_is_understood_in_the_spelling_of_every_sdk() {
        let hello = |payload: &str| match decode(&frame("session.hello", payload)) {
            Ok(Request { message: ClientMessage::Hello(hello), .. }) => *hello,
            other => panic!("{payload}: {other:?}"),
        };
        let flat = hello(r#"{"client_name":"c","client_version":"2","resume":{"token":"rt","last_event_seq":3}}"#);
        assert_eq!((flat.client.name.as_deref(), flat.client.version.as_deref()), (Some("c"), Some("2")));
        assert_eq!(flat.resume.map(|resume| resume.last_event_seq), Some(3));
        let beside = hello(r#"{"client":{"name":"c"},"resume_token":"rt","last_event_seq":4}"#);
        assert_eq!(beside.resume.map(|resume| resume.last_event_seq), Some(4));
        // Flags are offered by their names; what was there before there were names needs none.
        let flags = hello(r#"{"client":{"kind":"c"},"capabilities":{"heartbeat":true,"ack":false,"x":{"y":[1]}}}"#);
        assert_eq!(flags.features[0], "heartbeat");
        assert!(
            flags.features.iter().any(|name| name == "list_jobs") && !flags.features.iter().any(|name| name == "ack")
        );
        for none in
            ["{}", r#"{"capabilities":null}"#, r#"{"capabilities":{"features":null}}"#, r#"{"capabilities":[]}"#]
        {
            assert_eq!(hello(none).features, Vec::<String>::new(), "{none}");
        }
    }

    /// ARCP §7.4: the SDKs name the job in the envelope, in the payload, or in both.
    #[test]
    fn a_cancel_names_its_job_once() {
        let (a, b) = ("job_01KRHAB7S00000000000000001", "job_01KRHAB7S00000000000000002");
        for (envelope, payload, expected) in [
            (Some(a), None, Ok(a)),
            (None, Some(a), Ok(a)),
            (Some(a), Some(a), Ok(a)),
            (Some(a), Some(b), Err("differ")),
            (None, None, Err("is missing")),
            (Some("job_x"), None, Err("no job `job_x`")),
        ] {
            let text = serde_json::json!({"arcp": "1.1", "id": "1", "type": "job.cancel", "job_id": envelope,
                "payload": {"job_id": payload}})
            .to_string();
            match (decode(&text), expected) {
                (Ok(Request { message: ClientMessage::Cancel { job_id, .. }, .. }), Ok(id)) => {
                    assert_eq!(job_id.to_string(), id);
                }
                (Err(malformed), Err(reason)) => assert!(malformed.refusal.message.contains(reason), "{text}"),
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_token_in_the_wrong_place_is_not_quoted() {
        for payload in [r#"{"auth":"Bearer tk-secret"}"#, r#"{"auth":{"token":["tk-secret"]}}"#, r#""tk-secret""#] {
            let malformed = decode(&frame("session.hello", payload)).unwrap_err();
            assert!(!format!("{malformed:?}").contains("tk-secret"), "{malformed:?}");
            assert!(malformed.refusal.message.contains("expected"), "{malformed:?}");
        }
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        assert!(decode(&long).unwrap_err().refusal.message.len() < 200);
    }

    #[test]
    fn a_token_is_not_shown_by_a_hello() {
        let text = frame("session.hello", r#"{"auth":{"scheme":"Bearer","token":"tk-secret"}}"#);
        let request = decode(&text).unwrap();
        assert!(!format!("{request:?}").contains("tk-secret"));
        let ClientMessage::Hello(hello) = request.message else { panic!() };
        assert_eq!((hello.scheme.as_deref(), hello.token.unwrap().expose()), (Some("bearer"), "tk-secret"));
    }
}
