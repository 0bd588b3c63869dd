//! Identifiers, parsed once: a prefix that says what is named, and a ULID.
//!
//! Core draws no randomness, so a new id is made from a ULID it is given.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
pub use ulid::Ulid;

use crate::time::Timestamp;

/// Why a text is not an id of the kind that was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form {prefix}<ULID>")]
pub struct IdError {
    prefix: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// Makes an id of a ULID.
            #[must_use]
            pub const fn new(ulid: Ulid) -> Self {
                Self(ulid)
            }

            /// The ULID.
            #[must_use]
            pub const fn ulid(self) -> Ulid {
                self.0
            }

            /// The moment in its ULID: when the host made it, by its clock of then.
            #[must_use]
            pub fn made_at(self) -> Timestamp {
                Timestamp::from_millis(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix)
                    .and_then(|ulid| Ulid::from_string(ulid).ok())
                    .map(Self)
                    .ok_or_else(|| IdError { prefix: $prefix, text: text.chars().take(64).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// A session (§6.2), `sess_…`.
    SessionId, "sess_"
);
id!(
    /// A job (§7.1), `job_…`.
    JobId, "job_"
);
id!(
    /// A streamed result (§8.4), `res_…`.
    ResultId, "res_"
);
id!(
    /// What clients from before the draft call their watching of a job (§7.6), `sub_…`. It has the ULID of the job.
    SubscriptionId, "sub_"
);
id!(
    /// A credential made for a job (§9.8), `cred_…`.
    CredentialId, "cred_"
);
/// Who a session speaks for: the name the operator gave to a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(String);

impl Principal {
    /// Names a principal.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_nothing_else_parses() {
        let id = JobId::new(Ulid::from_parts(1_778_700_600_000, 42));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.made_at(), Timestamp::from_millis(1_778_700_600_000));
        for text in ["", "job_", "sess_01KRHAB7S00000000000000001", "job_0", "01KRHAB7S00000000000000001"] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }
}
