//! The Ruby SDK: what it sends, and what its readers fetch. A missing key ends its reader.

use serde_json::json;

use crate::replay::{Sdk, cancel_twice, nothing, plain, replays, subscribe_twice, uuid};

const SDK: Sdk = Sdk {
    name: "ruby",
    id: uuid,
    // It has a name for its session before there is one.
    hello_envelope: || json!({ "session_id": "ses_0196b1de-7b1a-7cc0-8000-0000000000ff" }),
    envelope: plain,
    hello: |token| {
        json!({
            "client_name": "app",
            "client_version": "1.0.0",
            "auth": { "scheme": "bearer", "token": token },
            "capabilities": {
                "features": ["heartbeat", "ack", "list_jobs", "subscribe", "lease_expires_at", "cost.budget",
                    "progress", "result_chunk", "agent_versions", "model.use", "provisioned_credentials"],
                "encodings": ["json"],
            },
        })
    },
    submit: nothing,
    lease: || json!({ "capabilities": ["fs.read"], "cost.budget": ["USD:1"], "expires_at": "2099-01-01T00:00:00Z" }),
    cancel: cancel_twice,
    subscribe: subscribe_twice,
    list: || json!({ "filter": {} }),
    close: "session.bye",
    cancelled: "job.error",
    reads: r"
        *                /arcp                                  =1.1
        *                /id                                    any
        *                /type                                  text
        *                /session_id                            text
        *                /event_seq                             ?positive
        *                /trace_id                              ?trace
        *                /payload                               object
        session.welcome  /payload/runtime_name                  text
        session.welcome  /payload/runtime_version               text
        session.welcome  /payload/resume_token                  text
        session.welcome  /payload/resume_window_sec             positive
        session.welcome  /payload/capabilities/agents/*/name    text
        refused.session  /type                                  =session.error
        refused.session  /payload/code                          =UNAUTHENTICATED
        job.accepted     /payload/reply_to                      the-request
        job.accepted     /payload/job_id                        the-job
        job.accepted     /payload/agent                         text
        job.accepted     /payload/lease/id                      text
        job.accepted     /payload/lease/capabilities            texts
        job.accepted     /payload/lease/cost.budget             ?texts
        job.accepted     /payload/lease/expires_at              ?moment
        refused.submit   /type                                  =session.error
        refused.submit   /payload/reply_to                      the-request
        refused.submit   /payload/code                          =AGENT_NOT_AVAILABLE
        job.event        /job_id                                the-job
        job.event        /payload/kind                          text
        job.event        /payload/body                          object
        event.log        /payload/body/level                    text
        event.log        /payload/body/message                  any
        event.thought    /payload/body/text                     any
        event.tool_call  /payload/body/call_id                  text
        job.result       /job_id                                the-job
        job.result       /payload/job_id                        the-job
        job.result       /payload/final_status                  =success
        job.cancelled    /job_id                                the-job
        job.error        /job_id                                the-job
        job.error        /payload/job_id                        the-job
        job.error        /payload/final_status                  =error|cancelled|timed_out
        job.error        /payload/code                          code
        job.error        /payload/details                       ?object
        session.jobs     /payload/reply_to                      the-request
        session.jobs     /payload/jobs/*/job_id                 text
        session.jobs     /payload/jobs/*/agent                  text
        session.jobs     /payload/jobs/*/status                 text
        session.jobs     /payload/next_cursor                   text|null
        refused.list     /type                                  =session.error
        refused.list     /payload/reply_to                      the-request
        refused.list     /payload/code                          =INVALID_REQUEST
        job.subscribed   /payload/job_id                        the-job
        refused.subscribe  /type                                =job.error
        refused.subscribe  /job_id                              the-job
        refused.subscribe  /payload/job_id                      the-job
        refused.subscribe  /payload/reply_to                    the-request
        refused.subscribe  /payload/final_status                =error
        refused.subscribe  /payload/code                        =JOB_NOT_FOUND
        watched.job.result  /job_id                             the-job
        watched.job.result  /payload/job_id                     the-job
        watched.job.result  /payload/final_status               =success
        session.closed   /payload                               object
    ",
};

replays!(SDK);
