//! JSON that passes through the host as it came.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// How deeply JSON may nest that is read as part of something larger: of a client's frame, or of a record.
pub const DEPTH_MAX: usize = 128;

/// How deeply JSON may nest that an agent, a tool or a model says.
///
/// It is put into more, such as the arguments of a call, which are a part of a body, a payload and an envelope, and
/// whoever gets that is to be able to read it: `serde_json`, our own clients' reader, gives up at its 128th level.
pub const SAID_DEPTH_MAX: usize = 120;

/// A valid JSON text, kept byte for byte.
///
/// The host never needs to look inside an agent's input or result, so numbers
/// keep their precision and objects the order of their keys.
#[derive(Clone)]
pub struct Json(Box<RawValue>);

/// Why a text is not JSON this host passes on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("not a JSON text: {0}")]
    Malformed(String),
    /// JSON, but nested too deeply.
    #[error("JSON nested deeper than {0} levels")]
    TooDeep(usize),
}

impl Json {
    /// Checks that `text` is JSON and nested no deeper than [`SAID_DEPTH_MAX`].
    ///
    /// # Errors
    ///
    /// If it is not JSON, or too deep.
    pub fn parse(text: String) -> Result<Self, JsonError> {
        let raw = RawValue::from_string(text).map_err(|error| JsonError::Malformed(error.to_string()))?;
        Self::within(SAID_DEPTH_MAX, raw)
    }

    fn within(depth_max: usize, raw: Box<RawValue>) -> Result<Self, JsonError> {
        if depth(raw.get()) > depth_max { Err(JsonError::TooDeep(depth_max)) } else { Ok(Self(raw)) }
    }

    /// Serialises a value of ours.
    ///
    /// # Panics
    ///
    /// If the value cannot be JSON, such as a map with keys that are not strings.
    pub fn of(value: &impl Serialize) -> Self {
        Self(serde_json::value::to_raw_value(value).expect("a value of ours is JSON"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.as_str() == "null"
    }

    /// Whether this is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.as_str().starts_with('{')
    }
}

impl Default for Json {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl From<Json> for String {
    fn from(json: Json) -> Self {
        json.as_str().to_owned()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::within(DEPTH_MAX, Box::<RawValue>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The deepest nesting in a text that is known to be JSON.
fn depth(json: &str) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_passes_byte_for_byte() {
        for text in ["null", "1.0", "12345678901234567890123", "{\"b\":1,\"a\":[ 2 ]}", "\"]\\\"}\""] {
            assert_eq!(Json::parse(text.to_owned()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_not_json_or_too_deep_is_refused() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        for (text, ok) in [
            (deep(SAID_DEPTH_MAX), true),
            (deep(SAID_DEPTH_MAX + 1), false),
            (deep(1_000_000), false),
            (format!("\"{}\"", "[".repeat(1000)), true), // brackets in a string are text
            ("{".to_owned(), false),
            ("NaN".to_owned(), false),
            ("1 2".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(Json::parse(text.clone()).is_ok(), ok, "{}", &text[..text.len().min(40)]);
        }
    }
}
