//! The C# SDK: what it sends, and what its records require.

use serde_json::json;

use crate::replay::{Sdk, cancel_twice, lease, nothing, prefixed, replays, subscribe_twice};

const SENT_AT: &str = "2026-05-13T19:30:00.0000000+00:00";

const SDK: Sdk = Sdk {
    name: "csharp",
    id: prefixed,
    hello_envelope: || json!({ "timestamp": SENT_AT }),
    envelope: |session_id| json!({ "timestamp": SENT_AT, "session_id": session_id, "span_id": "00f067aa0ba902b7", "parent_span_id": null }),
    hello: |token| {
        json!({
            "client": { "name": "app", "version": "1.0.0" },
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": {
                "encodings": ["json"],
                "features": ["progress", "heartbeat", "cost.budget", "ack", "list_jobs", "result_chunk", "subscribe"],
            },
        })
    },
    submit: nothing,
    lease,
    cancel: cancel_twice,
    subscribe: subscribe_twice,
    list: nothing,
    close: "session.bye",
    cancelled: "job.error",
    reads: r"
        *                /type                                  text
        *                /id                                    text
        *                /session_id                            text
        *                /job_id                                ?text
        *                /trace_id                              ?text
        *                /event_seq                             ?positive
        session.welcome  /payload/runtime/name                  text
        session.welcome  /payload/runtime/version               text
        session.welcome  /payload/resume_window_sec             int32
        session.welcome  /payload/heartbeat_interval_sec        ?int32
        session.welcome  /payload/capabilities/features         texts
        session.welcome  /payload/capabilities/agents/*/name    text
        refused.session  /type                                  =session.error
        refused.session  /payload/code                          =UNAUTHENTICATED
        job.accepted     /job_id                                the-job
        job.accepted     /payload/job_id                        the-job
        job.accepted     /payload/agent                         text
        job.accepted     /payload/accepted_at                   moment
        job.accepted     /payload/budget                        ?numbers
        refused.submit   /type                                  =session.error
        refused.submit   /payload/code                          =AGENT_NOT_AVAILABLE
        refused.submit   /payload/message                       text
        refused.submit   /payload/retryable                     flag
        job.event        /job_id                                the-job
        job.event        /payload/kind                          text
        job.event        /payload/ts                            moment
        job.event        /payload/body                          object
        job.result       /job_id                                the-job
        job.result       /payload/result                        any
        job.cancelled    /payload/job_id                        the-job
        job.error        /job_id                                the-job
        job.error        /payload/code                          code
        job.error        /payload/message                       text
        session.jobs     /payload/request_id                    the-request
        session.jobs     /payload/jobs/*/job_id                 text
        session.jobs     /payload/jobs/*/agent                  text
        session.jobs     /payload/jobs/*/status                 text
        session.jobs     /payload/jobs/*/created_at             moment
        refused.list     /type                                  =session.error
        refused.list     /payload/code                          =INVALID_REQUEST
        job.subscribed   /job_id                                the-job
        job.subscribed   /payload/job_id                        the-job
        job.subscribed   /payload/current_status                text
        job.subscribed   /payload/agent                         text
        refused.subscribe  /type                                =session.error
        refused.subscribe  /payload/code                        =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /payload/result                     any
        session.closed   /payload                               object
    ",
};

replays!(SDK);
