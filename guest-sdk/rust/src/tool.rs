//! Tools the operator has registered: `tool.call` (ARCP §9.2).

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, bindings::tool, calls::Pending};

/// A tool, as [`list`] gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Such as `search.web`.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub input_schema: Value,
    /// The JSON Schema of its result, if it has one.
    pub output_schema: Option<Value>,
}

/// Gives the tools that this lease covers, by name. Needs no grant.
///
/// # Errors
///
/// `internal-error`, and nothing else.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// for tool in leasehold_agent::tool::list()? {
///     leasehold_agent::info!("{}: {}", tool.name, tool.description);
/// }
/// # Ok(())
/// # }
/// ```
pub fn list() -> Result<Vec<Tool>, Error> {
    let tool = |tool: tool::Description| {
        let output_schema = tool.output_schema.map(|schema| serde_json::from_str(&schema)).transpose()?;
        let input_schema = serde_json::from_str(&tool.input_schema)?;
        Ok(Tool { name: tool.name, description: tool.description, input_schema, output_schema })
    };
    tool::list()?.into_iter().map(tool).collect()
}

/// Calls a tool. Needs `tool.call` on `name`.
///
/// # Errors
///
/// `permission-denied`, `not-found`; `invalid-request` if the arguments do not fit the tool's schema;
/// `budget-exhausted` if its price is more than what is left; `internal-error` in the tool's own words if it fails;
/// `timeout`.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let hits: Vec<String> =
///     leasehold_agent::tool::call("search.web", &serde_json::json!({ "query": "leases" }))?;
/// # Ok(())
/// # }
/// ```
pub fn call<T: DeserializeOwned>(name: impl AsRef<str>, arguments: &(impl Serialize + ?Sized)) -> Result<T, Error> {
    let arguments = serde_json::to_string(arguments)?;
    Ok(serde_json::from_str(&tool::call(name.as_ref(), &arguments)?)?)
}

/// Starts a call of a tool, and goes on meanwhile.
///
/// # Errors
///
/// Those of [`call`] that are known at once.
///
/// ```no_run
/// use leasehold_agent::{calls, tool};
///
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let searches: Result<Vec<_>, _> = ["leases", "tenants"]
///     .map(|query| tool::start::<Vec<String>>("search.web", &serde_json::json!({ "query": query })))
///     .into_iter()
///     .collect();
/// let hits = calls::finish_all(searches?);
/// # Ok(())
/// # }
/// ```
pub fn start<T: DeserializeOwned>(
    name: impl AsRef<str>,
    arguments: &(impl Serialize + ?Sized),
) -> Result<Pending<T>, Error> {
    let arguments = serde_json::to_string(arguments)?;
    let call = tool::start(name.as_ref(), &arguments)?;
    Ok(Pending::new(call, |call| Ok(serde_json::from_str(&tool::finish(call)?)?)))
}
