//! The interface `tool`: what the operator has registered, under `tool.call` (ARCP §9.2).

use leasehold_core::{
    error::ErrorCode,
    job::record::call_id,
    lease::{Namespace, gate::Permit, operation::CallTool, target::Target},
    protocol::json::Json,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use wasmtime::component::Resource;

use super::{
    Asked, Failure, JobCtx, Reported, SHOWN_NAME_BYTES_MAX, Told,
    bindings::{
        tool::{self, Description},
        types::{self, Error},
    },
    calls::{Done, Line, PendingCall, Repeat, Start, Undone, Work},
    invalid,
    tools::{self, Call, ToolError},
    truncate,
};

const OPERATION: &str = "tool.call";

/// Arguments and answers up to this size are shown to watchers as they are, larger ones as their size and digest.
const SHOWN_BYTES_MAX: usize = 8 << 10;

impl tool::Host for JobCtx {
    async fn list(&mut self) -> Result<Vec<Description>, Error> {
        let tools = self.world.services.tools.list();
        let covered = {
            let gate = self.gate();
            let covers = |tool: &tools::Tool| gate.lease().covers(&Namespace::ToolCall, Target::Tool(&tool.name));
            tools.into_iter().filter(covers).map(described).collect()
        };
        self.ask(Asked { operation: "tool.list", args: Json::of(&json!({})) }, covered).await
    }

    async fn call(&mut self, name: String, arguments: String) -> Result<String, Error> {
        let pending = self.call_tool(name, arguments).await?;
        self.finish_call::<Json>(pending, OPERATION).await.map(String::from)
    }

    async fn start(&mut self, name: String, arguments: String) -> Result<Resource<PendingCall>, Error> {
        self.call_tool(name, arguments).await
    }

    async fn finish(&mut self, call: Resource<PendingCall>) -> Result<String, Error> {
        self.finish_call::<Json>(call, OPERATION).await.map(String::from)
    }
}

impl JobCtx {
    async fn call_tool(&mut self, name: String, arguments: String) -> Result<Resource<PendingCall>, Error> {
        let arguments = Json::parse(arguments);
        let arguments = arguments.map_err(|error| invalid(format!("the arguments are no JSON text: {error}")))?;
        let args = json!({ "tool": truncate(&name, SHOWN_NAME_BYTES_MAX), "arguments": shown(&arguments) });
        let asked = Asked { operation: OPERATION, args: Json::of(&args) };
        let op = CallTool::parse(&name);
        let tools = &self.world.services.tools;
        let repeat = match op.as_ref().is_ok_and(|op| tools.repeatable(op)) {
            true => Repeat::Freely,
            false => Repeat::No,
        };
        let (asked_for, checks) = (arguments.clone(), std::sync::Arc::clone(tools));
        let work = move |permit: Permit<CallTool>, line: Line| -> Work {
            Box::pin(async move {
                let call = Call {
                    job_id: line.job_id.to_string(),
                    call_id: call_id(line.call),
                    traceparent: Some(line.traceparent()),
                    // The end of the lease stops the call from outside, and is told as what it is.
                    deadline: None,
                    // Whoever wants no more of a call drops it.
                    cancelled: CancellationToken::new(),
                };
                match line.world.services.tools.call(permit, &arguments, &call).await {
                    Ok(answer) => Ok(Done {
                        summary: Json::of(&shown(&answer.content)),
                        answer: Told::Json(answer.content),
                        cost: answer.cost,
                    }),
                    Err(failed) => Err(Undone { failure: failed.error.into(), cost: failed.cost }),
                }
            })
        };
        let bytes = asked_for.as_str().len();
        let start = Start { asked, op: op.map_err(Failure::from), repeat, streams: false, bytes, work };
        self.start_call(start, move |op| Ok(checks.check(op, &asked_for)?.most())).await
    }
}

/// What watchers see of arguments and answers.
fn shown(json: &Json) -> serde_json::Value {
    let text = json.as_str();
    match serde_json::from_str(text) {
        Ok(value) if text.len() <= SHOWN_BYTES_MAX => value,
        _ => json!({ "size_bytes": text.len(), "sha256": format!("{:x}", Sha256::digest(text)) }),
    }
}

fn described(tool: tools::Tool) -> Description {
    Description {
        name: tool.name.to_string(),
        description: tool.description,
        input_schema: tool.input_schema.into(),
        output_schema: tool.output_schema.map(String::from),
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        use types::ErrorCode as Code;
        let (told, shown) = match &error {
            ToolError::NotFound(_) => (Code::NotFound, ErrorCode::InvalidRequest),
            ToolError::InvalidArguments { .. } => (Code::InvalidRequest, ErrorCode::InvalidRequest),
            ToolError::Unusable { .. } | ToolError::NotConnected { .. } | ToolError::Failed(_) => {
                (Code::InternalError, ErrorCode::InternalError)
            }
            ToolError::Lost { .. } => (Code::UnknownOutcome, ErrorCode::InternalError),
            ToolError::Timeout { .. } | ToolError::Busy { .. } => (Code::Timeout, ErrorCode::Timeout),
            ToolError::TooLarge { .. } => (Code::TooLarge, ErrorCode::InvalidRequest),
            ToolError::Cancelled => (Code::Cancelled, ErrorCode::Cancelled),
        };
        Self { told, shown, message: error.to_string() }
    }
}

impl Reported for Vec<Description> {
    fn summary(&self) -> Json {
        Json::of(&json!({ "tools": self.len() }))
    }

    fn answer(&self) -> Told {
        let row = |tool: &Description| json!([tool.name, tool.description, tool.input_schema, tool.output_schema]);
        Told::Json(Json::of(&self.iter().map(row).collect::<Vec<_>>()))
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        let rows: Vec<(String, String, String, Option<String>)> = serde_json::from_slice(answer)?;
        let tool = |(name, description, input_schema, output_schema)| Description {
            name,
            description,
            input_schema,
            output_schema,
        };
        Ok(rows.into_iter().map(tool).collect())
    }
}
