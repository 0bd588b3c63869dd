//! The F# SDK: what it sends, and what its records and event bodies require.
//!
//! A body that lacks a member ends its receive loop, so every kind has lines of its own.

use serde_json::json;

use crate::replay::{Sdk, lease, nothing, plain, replays, subscribe, ulid};

const SDK: Sdk = Sdk {
    name: "fsharp",
    id: ulid,
    hello_envelope: nothing,
    envelope: plain,
    hello: |token| {
        json!({
            "client": { "name": "arcp-fsharp", "version": "1.0.0" },
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": {
                "encodings": ["json"],
                "features": ["ack", "agent_versions", "cost.budget", "heartbeat", "lease_expires_at", "list_jobs",
                    "progress", "result_chunk", "subscribe"],
                "agents": null,
            },
        })
    },
    submit: nothing,
    lease,
    // It names the job nowhere but in the payload.
    cancel: |job_id| (json!({}), json!({ "job_id": job_id, "reason": "enough" })),
    subscribe,
    list: nothing,
    close: "session.close",
    cancelled: "job.error",
    reads: r"
        *                   /arcp                               text
        *                   /id                                 text
        *                   /type                               text
        *                   /session_id                         text
        *                   /payload                            object
        session.welcome     /id                                 the-request
        session.welcome     /payload/runtime/name               text
        session.welcome     /payload/runtime/version            text
        session.welcome     /payload/resume_token               text
        session.welcome     /payload/resume_window_sec          int32
        session.welcome     /payload/capabilities/encodings     texts
        session.welcome     /payload/capabilities/features      texts
        session.welcome     /payload/capabilities/agents/*/name      text
        session.welcome     /payload/capabilities/agents/*/versions  texts
        refused.session     /type                               =session.error
        refused.session     /id                                 the-request
        refused.session     /payload/code                       =UNAUTHENTICATED
        job.accepted        /id                                 the-request
        job.accepted        /payload/job_id                     the-job
        job.accepted        /payload/lease                      lease
        job.accepted        /payload/lease_constraints/expires_at  ?moment
        job.accepted        /payload/accepted_at                moment
        job.accepted        /payload/budget                     ?numbers
        refused.submit      /type                               =job.error
        refused.submit      /id                                 the-request
        refused.submit      /job_id                             absent
        refused.submit      /payload/final_status               =error
        refused.submit      /payload/code                       =AGENT_NOT_AVAILABLE
        refused.submit      /payload/message                    text
        refused.submit      /payload/retryable                  flag
        job.event           /job_id                             the-job
        job.event           /payload/kind                       text
        job.event           /payload/ts                         moment
        job.event           /payload/body                       object
        event.log           /payload/body/level                 =debug|info|warn|error
        event.log           /payload/body/message               any
        event.thought       /payload/body/text                  any
        event.status        /payload/body/phase                 text
        event.status        /payload/body/message               ?text
        event.tool_call     /payload/body/tool                  text
        event.tool_call     /payload/body/args                  object
        event.tool_call     /payload/body/call_id               text
        event.tool_result   /payload/body/call_id               text
        event.tool_result   /payload/body/error/code            code
        event.tool_result   /payload/body/error/message         text
        event.tool_result   /payload/body/error/retryable       flag
        event.metric        /payload/body/name                  text
        event.metric        /payload/body/value                 number
        event.metric        /payload/body/dimensions            ?map
        event.progress      /payload/body/current               whole
        event.progress      /payload/body/total                 ?whole
        event.artifact_ref  /payload/body/uri                   text
        event.artifact_ref  /payload/body/content_type          text
        job.result          /job_id                             the-job
        job.result          /payload/final_status               =success
        job.cancelled       /payload/job_id                     the-job
        job.error           /job_id                             the-job
        job.error           /payload/final_status               =error|cancelled|timed_out
        job.error           /payload/code                       code
        job.error           /payload/message                    text
        job.error           /payload/retryable                  flag
        session.jobs        /id                                 the-request
        session.jobs        /payload/jobs/*/job_id              text
        session.jobs        /payload/jobs/*/agent               text
        session.jobs        /payload/jobs/*/status              =pending|running|success|error|cancelled|timed_out
        session.jobs        /payload/jobs/*/lease               lease
        session.jobs        /payload/jobs/*/created_at          moment
        session.jobs        /payload/jobs/*/last_event_seq      whole
        refused.list        /id                                 the-request
        refused.list        /payload/code                       =INVALID_REQUEST
        job.subscribed      /id                                 the-request
        job.subscribed      /payload/job_id                     the-job
        job.subscribed      /payload/current_status             =pending|running|success|error|cancelled|timed_out
        job.subscribed      /payload/agent                      text
        job.subscribed      /payload/lease                      lease
        job.subscribed      /payload/subscribed_from            whole
        job.subscribed      /payload/replayed                   flag
        refused.subscribe   /type                               =session.error
        refused.subscribe   /id                                 the-request
        refused.subscribe   /payload/code                       =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /payload/final_status               =success
        session.closed      /payload                            object
    ",
};

replays!(SDK);
