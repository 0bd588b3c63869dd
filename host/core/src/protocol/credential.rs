//! A key made for one job, as its submitter is told of it (ARCP §9.8.1).

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use crate::{id::CredentialId, secret::Secret, time::Timestamp};

/// The one scheme that all clients know.
pub const BEARER: &str = "bearer";

/// The phase in which the job of a client is whose key has a new value (ARCP §9.8.2). No agent can say so.
pub const ROTATED: &str = "credential_rotated";

/// A credential of `job.accepted`.
///
/// It is written to one frame, for the one who submitted the job, and its `Debug` shows no value.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Which.
    pub id: CredentialId,
    /// How it is shown to the endpoint.
    pub scheme: String,
    /// The key.
    pub value: Secret,
    /// Where it is of use, and nowhere else.
    pub endpoint: String,
    /// What is spoken there, such as `openai`.
    pub profile: Option<String>,
    /// What the other side enforces.
    pub constraints: Constraints,
}

/// The part of a lease that a key carries in itself, as the wire spells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// Amounts.
    #[serde(rename = "cost.budget", default, skip_serializing_if = "Vec::is_empty")]
    pub cost_budget: Vec<String>,
    /// Names or patterns of models.
    #[serde(rename = "model.use", default, skip_serializing_if = "Vec::is_empty")]
    pub model_use: Vec<String>,
    /// The end of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A credential on its way into a frame. Here and in [`Rotated`] its value is written, and nowhere else.
pub(super) struct Shown<'a>(pub &'a Credential);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Credential { id, scheme, value, endpoint, profile, constraints } = self.0;
        let is_bounded = *constraints != Constraints::default();
        let fields = 4 + usize::from(profile.is_some()) + usize::from(is_bounded);
        let mut shown = serializer.serialize_struct("Credential", fields)?;
        shown.serialize_field("id", id)?;
        shown.serialize_field("scheme", scheme)?;
        shown.serialize_field("value", value.expose())?;
        shown.serialize_field("endpoint", endpoint)?;
        // No client takes `null`.
        if let Some(profile) = profile {
            shown.serialize_field("profile", profile)?;
        }
        if is_bounded {
            shown.serialize_field("constraints", constraints)?;
        }
        shown.end()
    }
}

/// The payload of the event that a key has a new value (ARCP §9.8.2).
pub(super) struct Rotated<'a> {
    pub id: CredentialId,
    /// None if it is worth nothing any more.
    pub value: Option<&'a Secret>,
    pub ts: Timestamp,
}

impl Serialize for Rotated<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Event<'a> {
            kind: &'static str,
            ts: Timestamp,
            body: Body<'a>,
        }
        /// The draft does not say where in the body the two stand, so they are where each SDK looks for them.
        #[derive(Serialize)]
        struct Body<'a> {
            phase: &'static str,
            message: CredentialId,
            id: CredentialId,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<&'a str>,
            credential_id: CredentialId,
            #[serde(skip_serializing_if = "Option::is_none")]
            credential_value: Option<&'a str>,
            details: Pair<'a>,
            fields: Pair<'a>,
        }
        #[derive(Clone, Copy, Serialize)]
        struct Pair<'a> {
            id: CredentialId,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<&'a str>,
        }
        let Self { id, ts, .. } = *self;
        let value = self.value.map(Secret::expose);
        let pair = Pair { id, value };
        let body = Body {
            phase: ROTATED,
            message: id,
            id,
            value,
            credential_id: id,
            credential_value: value,
            details: pair,
            fields: pair,
        };
        Event { kind: "status", ts, body }.serialize(serializer)
    }
}
