//! What an agent asks of a model: a body of OpenAI's chat completions, of which the host decides what is passed on.
//!
//! A field is passed on if it can cost nothing but tokens, which are reserved
//! for and counted, and reaches nothing but the model. A field that nobody here
//! knows may be a search of the web, a file, or another price, so it is refused
//! unless the operator has named it. What is passed on goes as it came, byte for
//! byte: the order of a schema's properties means something to a model.

use std::{borrow::Cow, fmt, fmt::Write as _};

use leasehold_core::protocol::json::Json;
use serde::{
    Deserialize,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{error::ModelError, settings::LimitField};

/// A parsed request.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// What is passed on, in its order.
    fields: Vec<(String, Box<RawValue>)>,
    model: Option<String>,
    streams: bool,
    shows_usage: bool,
    output_tokens: Option<u64>,
    images: u64,
    image_bytes: usize,
}

impl ChatRequest {
    /// Parses a body. The caller has bounded its size.
    ///
    /// # Errors
    ///
    /// If it is no such body; the error names the field.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let json = Json::parse(text.to_owned()).map_err(|error| ModelError::invalid("body", error.to_string()))?;
        let Fields(fields) =
            serde_json::from_str(json.as_str()).map_err(|error| ModelError::invalid("body", error.to_string()))?;
        let mut request = Self {
            fields: Vec::new(),
            model: None,
            streams: false,
            shows_usage: false,
            output_tokens: None,
            images: 0,
            image_bytes: 0,
        };
        for (name, value) in fields {
            if value.get() != "null" {
                request.take(name, value)?;
            }
        }
        if !request.fields.iter().any(|(name, _)| name == "messages") {
            return Err(ModelError::invalid("messages", "it is missing"));
        }
        Ok(request)
    }

    /// The model it names.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether it asks for a streamed answer.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// Whether it asks for the chunk of a stream that tells the usage.
    pub(super) fn shows_usage(&self) -> bool {
        self.shows_usage
    }

    /// How many tokens it wants at most.
    pub(super) fn output_tokens(&self) -> Option<u64> {
        self.output_tokens
    }

    /// How many images it holds.
    pub(super) fn images(&self) -> u64 {
        self.images
    }

    /// The bytes of everything but images.
    pub(super) fn text_bytes(&self) -> usize {
        let bytes: usize = self.fields.iter().map(|(name, value)| name.len() + value.get().len()).sum();
        bytes.saturating_sub(self.image_bytes)
    }

    /// A field that only an operator can allow, and this one has not.
    pub(super) fn forbidden<'a>(&'a self, passes: &[String]) -> Option<&'a str> {
        let names = self.fields.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !PASSED.contains(name)).find(|name| !passes.iter().any(|passed| passed == name))
    }

    /// The body for the upstream.
    pub(super) fn write(&self, model: &str, limit: (LimitField, u64), stream: bool) -> String {
        let mut body = format!("{{\"model\":{},\"{}\":{}", Json::of(&model).as_str(), limit.0.as_str(), limit.1);
        if stream {
            body.push_str(",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
        }
        for (name, value) in &self.fields {
            let _ = write!(body, ",{}:{}", Json::of(name).as_str(), value.get()); // a text takes whatever is written
        }
        body.push('}');
        body
    }

    /// Takes one field: to pass it on, to obey it, or to leave it out.
    fn take(&mut self, name: String, value: Box<RawValue>) -> Result<(), ModelError> {
        match name.as_str() {
            "model" => self.model = Some(read(&name, &value)?),
            "stream" => self.streams = read(&name, &value)?,
            "stream_options" => {
                #[derive(Deserialize)]
                struct Options {
                    #[serde(default)]
                    include_usage: Option<bool>,
                }
                let options: Options = read(&name, &value)?;
                self.shows_usage = options.include_usage.unwrap_or(false);
            }
            "max_tokens" | "max_completion_tokens" => {
                let asked: u64 = read(&name, &value)?;
                if asked == 0 {
                    return Err(ModelError::invalid(name, "it must be at least 1"));
                }
                self.output_tokens = Some(self.output_tokens.map_or(asked, |other| other.min(asked)));
            }
            "n" if read::<u64>(&name, &value)? != 1 => {
                return Err(ModelError::invalid(name, "this host answers with one choice"));
            }
            "service_tier" if !matches!(&*read::<String>(&name, &value)?, "auto" | "default") => {
                return Err(ModelError::invalid(name, "another tier has another price; leave it out"));
            }
            "modalities" if read::<Vec<String>>(&name, &value)? != ["text"] => {
                return Err(ModelError::invalid(name, "this host passes on text only"));
            }
            // Who asks, and what the upstream keeps of it, is the host's business.
            "n" | "service_tier" | "modalities" | "user" | "store" | "metadata" | "safety_identifier"
            | "prompt_cache_key" => {}
            "messages" => {
                self.look_at_messages(&value)?;
                self.fields.push((name, value));
            }
            "tools" => {
                look_at_tools(&value)?;
                self.fields.push((name, value));
            }
            _ => self.fields.push((name, value)),
        }
        Ok(())
    }

    /// Counts images, and refuses what would have the upstream fetch something.
    fn look_at_messages(&mut self, value: &RawValue) -> Result<(), ModelError> {
        let messages: Vec<&RawValue> = read("messages", value)?;
        for (index, message) in messages.into_iter().enumerate() {
            let place = format!("messages[{index}]");
            let message: Message<'_> = read(&place, message)?;
            let Some(content) = message.content.filter(|content| content.get().starts_with('[')) else { continue };
            let parts: Vec<&RawValue> = read(&place, content)?;
            for (part_index, part) in parts.into_iter().enumerate() {
                let place = format!("{place}.content[{part_index}]");
                let part: Part<'_> = read(&place, part)?;
                match (&*part.kind, part.image_url) {
                    ("text" | "refusal", None) => {}
                    // Else an agent without a grant for it could reach any URL through the upstream.
                    ("image_url", Some(image)) if image.url.starts_with("data:") => {
                        self.images += 1;
                        self.image_bytes += image.url.len();
                    }
                    ("image_url", _) => return Err(ModelError::invalid(place, "an image is given as a data: URL")),
                    _ => return Err(ModelError::invalid(place, "only text and images are passed on")),
                }
            }
        }
        Ok(())
    }
}

/// Refuses tools that the upstream would carry out itself.
fn look_at_tools(value: &RawValue) -> Result<(), ModelError> {
    let tools: Vec<&RawValue> = read("tools", value)?;
    for (index, tool) in tools.into_iter().enumerate() {
        let place = format!("tools[{index}]");
        let tool: Tool<'_> = read(&place, tool)?;
        if !matches!(&*tool.kind, "function" | "custom") {
            return Err(ModelError::invalid(place, "a tool is one that the agent carries out: `function` or `custom`"));
        }
    }
    Ok(())
}

fn read<'a, T: Deserialize<'a>>(place: &str, value: &'a RawValue) -> Result<T, ModelError> {
    serde_json::from_str(value.get()).map_err(|error| ModelError::invalid(place, error.to_string()))
}

/// The fields of an object in their order, none of them twice: of two, the upstream might heed the other one.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.len() == FIELDS_MAX {
                        return Err(de::Error::custom(format!("more than {FIELDS_MAX} fields")));
                    }
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom(format!("the field `{name}` stands there twice")));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

/// A message; its fields are those that are nothing but text for a model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are named so that others are refused")]
struct Message<'a> {
    role: IgnoredAny,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    name: Option<IgnoredAny>,
    #[serde(default)]
    refusal: Option<IgnoredAny>,
    #[serde(default)]
    reasoning: Option<IgnoredAny>,
    #[serde(default)]
    reasoning_content: Option<IgnoredAny>,
    #[serde(default)]
    annotations: Option<IgnoredAny>,
    #[serde(default)]
    tool_calls: Option<IgnoredAny>,
    #[serde(default)]
    tool_call_id: Option<IgnoredAny>,
    #[serde(default)]
    function_call: Option<IgnoredAny>,
    /// Nothing but `null`: an answer of before that is given back has it.
    #[serde(default)]
    audio: (),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are named so that others are refused")]
struct Part<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    text: Option<IgnoredAny>,
    #[serde(default)]
    refusal: Option<IgnoredAny>,
    #[serde(borrow, default)]
    image_url: Option<Image<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are named so that others are refused")]
struct Image<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(default)]
    detail: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are named so that others are refused")]
struct Tool<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    function: Option<IgnoredAny>,
    #[serde(default)]
    custom: Option<IgnoredAny>,
}

/// The fields that can cost nothing but tokens and reach nothing but the model.
const PASSED: [&str; 20] = [
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "messages",
    "min_p",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
];

const FIELDS_MAX: usize = 64;

/// Fields that the host writes itself, so that nobody can have them passed on.
pub(super) const HOSTS_OWN: [&str; 6] =
    ["max_completion_tokens", "max_tokens", "model", "n", "stream", "stream_options"];

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fields: &str) -> String {
        format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{fields}}}"#)
    }

    fn field(text: &str) -> Option<String> {
        match ChatRequest::parse(text) {
            Err(ModelError::Invalid { field, .. }) => Some(field),
            Err(error) => panic!("{text}: {error}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (fields, wrong) in [
            ("", None),
            (r#","n":1"#, None),
            (r#","n":2"#, Some("n")),
            (r#","n":null,"max_tokens":null"#, None),
            (r#","max_tokens":0"#, Some("max_tokens")),
            (r#","max_tokens":-1"#, Some("max_tokens")),
            (r#","max_completion_tokens":1e9"#, Some("max_completion_tokens")),
            (r#","model":7"#, Some("model")),
            (r#","stream":"yes""#, Some("stream")),
            (r#","service_tier":"default""#, None),
            (r#","service_tier":"priority""#, Some("service_tier")),
            (r#","modalities":["text"]"#, None),
            (r#","modalities":["text","audio"]"#, Some("modalities")),
            (r#","messages":[]"#, Some("body")), // twice
            (r#","n":1,"n":2"#, Some("body")),
            (r#","\u006e":1,"n":1"#, Some("body")), // the same name, written otherwise
            (&format!(r#","stop":{deep}"#), Some("body")),
            (r#","tools":[{"type":"function","function":{"name":"f"}}]"#, None),
            (r#","tools":[{"type":"web_search"}]"#, Some("tools[0]")),
            (r#","tools":[{"type":"mcp","server_url":"https://a.test"}]"#, Some("tools[0]")),
        ] {
            assert_eq!(field(&with(fields)).as_deref(), wrong, "{fields}");
        }
        for text in ["", "{", "[]", "null", "7", r#""x""#, "{} {}"] {
            assert_eq!(field(text).as_deref(), Some("body"), "{text}");
        }
        assert_eq!(field("{}").as_deref(), Some("messages"));
    }

    #[test]
    fn a_message_is_text_and_images_that_it_brings_along() {
        for (message, wrong) in [
            (r#"{"role":"user","content":[{"type":"text","text":"hi"}]}"#, None),
            (r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1"}],"audio":null,"annotations":[]}"#, None),
            (r#"{"role":"tool","tool_call_id":"1","content":"x"}"#, None),
            (
                r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}"#,
                None,
            ),
            // The upstream would fetch it, whatever the lease says of net.fetch.
            (
                r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.test/?q=x"}}]}"#,
                Some("messages[0].content[0]"),
            ),
            (
                r#"{"role":"user","content":[{"type":"text","image_url":{"url":"https://a.test/"}}]}"#,
                Some("messages[0].content[0]"),
            ),
            (r#"{"role":"user","content":[{"type":"text","type":"file","text":"x"}]}"#, Some("messages[0].content[0]")),
            (r#"{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}"#, Some("messages[0].content[0]")),
            (r#"{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}"#, Some("messages[0].content[0]")),
            (r#"{"role":"assistant","audio":{"id":"a"}}"#, Some("messages[0]")),
            (r#"{"role":"user","content":"x","cache_control":{"type":"ephemeral"}}"#, Some("messages[0]")),
            (r#"{"role":"user","content":"x","content":[{"type":"file"}]}"#, Some("messages[0]")),
            (r#"7"#, Some("messages[0]")),
        ] {
            assert_eq!(field(&format!(r#"{{"messages":[{message}]}}"#)).as_deref(), wrong, "{message}");
        }
    }

    #[test]
    fn what_is_passed_on_goes_as_it_came_and_the_rest_is_the_hosts() {
        let text = with(
            r#","model":"fast","user":"me","store":true,"metadata":{"a":"b"},"stream":true,"n":1,"max_tokens":9,"stream_options":{"include_usage":true},"response_format":{"b":1.0,"a":12345678901234567890}"#,
        );
        let request = ChatRequest::parse(&text).unwrap();
        assert_eq!((request.model(), request.streams(), request.shows_usage()), (Some("fast"), true, true));
        let body = request.write("gpt-\"x", (LimitField::MaxTokens, 7), false);
        let expected = r#"{"model":"gpt-\"x","max_tokens":7,"messages":[{"role":"user","content":"hi"}],"response_format":{"b":1.0,"a":12345678901234567890}}"#;
        assert_eq!(body, expected);
        let body = request.write("m", (LimitField::MaxCompletionTokens, 7), true);
        assert!(
            body.starts_with(
                r#"{"model":"m","max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true},"#
            ),
            "{body}"
        );
    }

    #[test]
    fn a_field_that_nobody_knows_needs_the_operator() {
        let request = ChatRequest::parse(&with(r#","temperature":0,"web_search_options":{}"#)).unwrap();
        assert_eq!(request.forbidden(&[]), Some("web_search_options"));
        assert_eq!(request.forbidden(&["web_search_options".to_owned()]), None);
    }
}
