//! From a Rust function to the export the host calls.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, bindings};

/// Makes a function the agent of this component.
///
/// The function is `fn(In) -> Result<Out, E>`, where `In: DeserializeOwned`,
/// `Out: Serialize` and `E: Into<Error>`. An input that is no `In` ends the job
/// with `invalid-request` and serde's own words. A panic is logged as an
/// `error` event before it traps, so a crash leaves its reason behind.
///
/// With `raw:` the function is `fn(String) -> Result<String, E>` and takes and
/// gives JSON as text, untouched.
///
/// After [`output`](crate::output) was used, return `()` or a `String`: the
/// summary of a streamed result (ARCP §8.4).
///
/// ```
/// # use leasehold_agent::{Error, agent};
/// #[derive(serde::Deserialize)]
/// struct Input {
///     name: String,
/// }
///
/// agent!(run);
///
/// fn run(input: Input) -> Result<String, Error> {
///     Ok(format!("Hello, {}!", input.name))
/// }
/// ```
///
/// ```
/// # use leasehold_agent::{Error, agent};
/// agent!(raw: run);
///
/// fn run(input: String) -> Result<String, Error> {
///     Ok(input)
/// }
/// ```
#[macro_export]
macro_rules! agent {
    (raw: $run:path) => {
        $crate::agent!(@export |input| $run(input).map_err($crate::Error::from));
    };
    (@export |$input:ident| $answer:expr) => {
        const _: () = {
            struct Agent;

            impl $crate::bindings::Guest for Agent {
                fn run(
                    $input: ::std::string::String,
                ) -> ::std::result::Result<::std::string::String, $crate::bindings::Error> {
                    $crate::report_panics();
                    $answer.map_err(::std::convert::Into::into)
                }
            }

            $crate::bindings::export!(Agent with_types_in $crate::bindings);
        };
    };
    ($run:path) => {
        $crate::agent!(@export |input| $crate::answer(&input, $run));
    };
}

/// Parses the input, runs the agent and writes its result.
#[doc(hidden)]
pub fn answer<In, Out, E>(input: &str, run: impl FnOnce(In) -> Result<Out, E>) -> Result<String, Error>
where
    In: DeserializeOwned,
    Out: Serialize,
    E: Into<Error>,
{
    let result = run(parse(input)?).map_err(Into::into)?;
    serde_json::to_string(&result).map_err(|error| Error::internal(format!("result: {error}")))
}

/// Parses the input; the error names the field by its path, since the client that sent it sees no type of ours.
fn parse<In: DeserializeOwned>(input: &str) -> Result<In, Error> {
    let mut parser = serde_json::Deserializer::from_str(input);
    let parsed = serde_path_to_error::deserialize(&mut parser).map_err(|error| match error.path().to_string() {
        path if path == "." => Error::invalid_request(format!("input: {}", error.inner())),
        path => Error::invalid_request(format!("input: {path}: {}", error.inner())),
    })?;
    parser.end().map_err(|error| Error::invalid_request(format!("input: {error}")))?;
    Ok(parsed)
}

/// Sends the message of a panic to the job's watchers before the trap.
#[doc(hidden)]
pub fn report_panics() {
    // Natively there is no host to tell, and the default hook tells the terminal.
    if cfg!(target_family = "wasm") {
        std::panic::set_hook(Box::new(|panic| {
            bindings::events::log(bindings::events::Level::Error, &panic.to_string());
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[derive(serde::Deserialize)]
    struct Input {
        sec: u32,
    }

    fn double(input: Input) -> Result<u32, Error> {
        input.sec.checked_mul(2).ok_or_else(|| Error::new(ErrorCode::TooLarge, "sec is too large"))
    }

    #[test]
    fn an_agent_gets_its_type_and_a_wrong_input_gets_the_reason() {
        for (input, expected) in [
            (r#"{"sec": 2}"#, Ok("4")),
            (r#"{"sec": 2, "unknown": []}"#, Ok("4")),
            (r#"{"sec": 4294967295}"#, Err("too-large: sec is too large")),
            ("{}", Err("invalid-request: input: missing field `sec` at line 1 column 2")),
            (
                r#"{"sec": "2"}"#,
                Err("invalid-request: input: sec: invalid type: string \"2\", expected u32 at line 1 column 11"),
            ),
            ("{\"sec\": 2} 3", Err("invalid-request: input: trailing characters at line 1 column 12")),
            ("", Err("invalid-request: input: EOF while parsing a value at line 1 column 0")),
        ] {
            let outcome = answer(input, double).map_err(|error| error.to_string());
            assert_eq!(outcome.as_deref().map_err(String::as_str), expected, "{input}");
        }
    }

    #[test]
    fn any_error_that_becomes_ours_may_be_returned() {
        let fail = |_: serde::de::IgnoredAny| Err::<(), _>(std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(answer("null", fail).map_err(|error| error.code()), Err(ErrorCode::NotFound));
        let silent = |_: Option<u8>| Ok::<(), Error>(());
        assert_eq!(answer("null", silent).as_deref(), Ok("null"));
    }
}
